"""Plots of effects show the numbers of their records, or say that the log does not identify them."""

from __future__ import annotations

import math

import numpy as np
import pytest

from crosschannel.reward import DidReward
from crosschannel.reward.effects import (
    Effect,
    EventTimes,
    Panel,
    TreatmentEffects,
    action_effects,
    event_study,
    group_time_effects,
    plot_action_effects,
    plot_effects,
    plot_event_study,
    plot_group_time_effects,
)
from crosschannel.reward.effects.inference import student_quantile
from tests.evaluation.plots.test_plots import dots_of, intervals_of, texts_of
from tests.reward.simulated import SPEC, simulate

SEEN = Effect("email", 0.4, 0.1, n_treated=900, n_controls=800, n_users=300)


def test_effects_have_their_intervals_and_say_what_is_not_identified():
    ax = plot_effects({"channel": [SEEN, Effect.not_identified("push", n_treated=1, n_without=7)]}, unit="orders")
    assert dots_of(ax) == {1: 0.4}  # row 0 is the name of the group
    assert intervals_of(ax) == {1: (SEEN.low, SEEN.high)}
    assert "not identified: 1 sent decisions with a reward, 7 without" in texts_of(ax)
    assert "[orders per message]" in ax.get_xlabel()
    alone = plot_effects([Effect("few", 0.5, math.nan, n_treated=2, n_controls=1)])
    assert not dots_of(alone)  # a value without an error is no value
    assert "not identified" in texts_of(alone)
    assert "nothing to draw" in texts_of(plot_effects([]))


def test_actions_have_a_row_for_each_kind_and_their_caveats():
    history = simulate(0, "random").history
    found = action_effects(history, SPEC, history.modules.names[0], kinds=("did", "change"))
    ax = plot_action_effects(found)
    known = [one.effect.value for one in found if one.effect.se > 0]
    assert sorted(dots_of(ax).values()) == pytest.approx(sorted(known))
    assert texts_of(ax).count("!") == sum(bool(one.caveats) for one in found)
    assert "nothing to draw" in texts_of(plot_action_effects([]))


@pytest.mark.parametrize("bins", [EventTimes("1d", leads=1, lags=0), EventTimes("30d", leads=3, lags=2)])
def test_an_event_study_of_nothing_says_so(bins):
    history = simulate(0, "random").history
    ax = plot_event_study(event_study(TreatmentEffects.fit(DidReward(SPEC), history), history, bins))
    assert "not identified: no bin has enough observed windows" in texts_of(ax).replace("\n", " ")
    assert not ax.containers


def test_groups_are_drawn_by_periods_since_their_first_message():
    rng = np.random.default_rng(100)
    first = np.repeat([2, 3, 99], 40)
    outcome = rng.normal(size=(120, 5)) + (np.arange(5) >= first[:, None])
    panel = Panel(outcome=outcome, first=np.where(first == 99, np.iinfo(np.int64).max, first), period=np.arange(5))
    effects = group_time_effects(panel)
    ax = plot_group_time_effects(effects)
    drawn = np.concatenate([container.lines[0].get_ydata() for container in ax.containers])
    np.testing.assert_allclose(np.sort(drawn), np.sort(effects.att))
    bars = [segment[:, 1] for c in ax.containers for segment in c.lines[2][0].get_segments()]
    lengths = np.sort([high - low for low, high in bars])
    np.testing.assert_allclose(lengths, np.sort(2 * student_quantile(39) * effects.se))  # 40 users on either side
