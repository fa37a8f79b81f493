"""Panels from histories: who is treated when, who is left out and counted, and effects with a known truth."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from samples import random_history
from simulated import SPEC, simulate

from histories.errors import ConfigError, NotIdentified
from histories.history import take_rows
from histories.times import DAY
from reward import Goal, RewardSpec
from reward.panels import panel_from_history
from reward.staggered import NEVER, aggregate, group_time_effects

SMALL = RewardSpec(goals=(Goal("order", 2.0, "value"),))


def test_periods_and_first_messages_equal_a_loop_over_users():
    history = random_history(1, users=30, send=0.06)
    built = panel_from_history(history, SMALL, "channel=email", "2d")
    d, e = history.decisions, history.events
    treated = already = never = others = 0
    row = 0
    for user in range(history.n_users):
        mine = (d.user == user) & (d.actions[:, 0] > 0)
        email = d.time[mine & (d.actions[:, 0] == 1)]
        first = email.min() // (2 * DAY) + 1 if len(email) else NEVER
        if first < 2:
            already += 1
            continue
        if first == NEVER and mine.any():
            others += 1
            continue
        treated, never = treated + (first != NEVER), never + (first == NEVER)
        assert built.user[row] == user
        assert built.panel.first[row] == first
        for k in range(len(built.starts)):
            inside = (e.time >= k * 2 * DAY) & (e.time < (k + 1) * 2 * DAY) & (e.user == user) & (e.event == 0)
            assert built.panel.outcome[row, k] == pytest.approx(2.0 * e.value[inside].sum())
        row += 1
    assert (built.n_treated, built.n_never, built.n_already, built.n_others) == (treated, never, already, others)
    assert min(treated, never, others) > 0
    assert row == len(built.user)
    assert f"{others:,} with other messages only" in built.summary()


def test_users_treated_before_the_panel_starts_are_left_out_and_counted():
    history = random_history(2, users=40, send=0.1)
    whole = panel_from_history(history, SMALL, None, "2d")
    later = panel_from_history(history, SMALL, None, "2d", start=4 * DAY)
    assert later.n_already > whole.n_already
    assert later.n_treated + later.n_never + later.n_already + later.n_others == history.n_users
    assert set(later.user.tolist()) < set(whole.user.tolist())


def test_others_can_be_kept():
    history = random_history(2, users=40, send=0.1)
    left, kept = (panel_from_history(history, SMALL, "channel=push", "2d", others=o) for o in ("leave_out", "keep"))
    assert kept.n_others == 0
    assert kept.n_never == left.n_never + left.n_others


def test_first_messages_have_their_true_effect():
    """Each user's first message alone: 5-day periods that begin with the slot, a quarter of the level a message."""
    history = simulate(0, "random", users=3000, effect=4.0).history
    sent = history.modules.sent(history.decisions.actions)
    rank = np.cumsum(sent) - np.concatenate([[0], np.cumsum(sent)])[history.decision_offsets[history.decisions.user]]
    only = take_rows(history.decisions, ~sent | (rank == 1))
    built = panel_from_history(replace(history, decisions=only), SPEC, "channel=push", "5d")
    overall, entries = aggregate(group_time_effects(built.panel), "dynamic")
    at_once = next(e for e in entries if e.label == "0")
    assert abs(at_once.value - 1.9) < 3 * at_once.se  # mean level 1.9, effect 4 / 4 of it
    assert at_once.se < 0.4
    before = [e for e in entries if int(e.label) < 0]
    assert before
    assert all(abs(e.value) < 3.5 * e.se for e in before)
    assert overall.value > 0


@pytest.mark.parametrize(
    ("choice", "message"),
    [
        ("chanel=push", "no module 'chanel'. Did you mean 'channel'"),
        ("channel=pus", "no action 'pus'. Did you mean 'push'"),
    ],
)
def test_unknown_choices_are_explained(choice, message):
    with pytest.raises(ConfigError, match=message):
        panel_from_history(random_history(1), SMALL, choice, "2d")


def test_a_log_of_one_period_is_not_identified():
    with pytest.raises(NotIdentified, match="fewer than two whole periods of 2w"):
        panel_from_history(random_history(1), SMALL, None, "2w")
