"""Effects of each action on each goal, side by side, with tests of their own."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from crosschannel.core.action_space import ActionSpace, Module
from crosschannel.core.errors import ConfigError
from crosschannel.histories.history import History
from crosschannel.reward import Effect, Goal, make_reward
from crosschannel.reward.effects.action_effects import (
    Finding,
    against_rivals,
    difference,
    findings,
    findings_text,
    lengths_text,
    other_lengths,
)
from crosschannel.reward.effects.estimates import Study
from crosschannel.reward.effects.event_study import EventTimes, event_study
from crosschannel.reward.effects.inference import two_sided_p_value
from crosschannel.reward.effects.report import AUTO, NONE, Request, each_module, report
from tests.reward.simulated import SPEC, simulate

pytestmark = pytest.mark.numerics

TIMES = EventTimes("1d", leads=3, lags=1)


def two_actions(seed: int, assignment="random") -> History:
    """The simulated log, whose messages are split at random between two actions with equal effects."""
    history = simulate(seed, assignment, users=600).history
    d = history.decisions
    split = np.random.default_rng(seed).integers(1, 3, len(d))
    actions = np.where(d.actions > 0, split[:, None], 0)
    return replace(
        history,
        decisions=replace(d, actions=actions, propensity=np.full((len(d), 1), np.nan), joint=np.full(len(d), np.nan)),
        modules=ActionSpace([Module("channel", ("none", "push", "email"))]),
        propensity_source="missing",
    )


def test_each_finding_is_the_effect_of_its_action_alone():
    """A `did` of one action is that of a log in which the other action's decisions are neither sent nor controls."""
    history = two_actions(0)
    spec = replace(SPEC, goals=(Goal("order", 2.0),))
    found = findings(history, spec, "channel", TIMES, ("did",))
    assert [(f.action, f.goal, f.kind) for f in found] == [(a, "order (count)", "did") for a in ("push", "email")]
    whole = Study.of(make_reward("did", SPEC), history)
    for one, effect in zip(found, whole.by_action(history, "channel"), strict=True):
        assert one.effect.value == pytest.approx(effect.value, abs=1e-12)  # per order, whatever the goal's weight
        assert one.effect.se == pytest.approx(effect.se, rel=1e-9)
        assert 0 <= one.pre_trends <= 1
        assert 0 <= one.placebo <= 1
        assert not one.contradicted_by
    assert sum(f.effect.n_treated for f in found) == whole.effect().n_treated


def studies_of(whole: Study, history: History) -> dict[str, Study | None]:
    return {action: study for action, _, study in whole.each_action(history, "channel")}


def test_tests_are_those_of_the_action_alone():
    history = two_actions(1)
    studies = studies_of(Study.of(make_reward("did", SPEC), history), history)
    for f in findings(history, SPEC, "channel", TIMES, ("did",)):
        study = studies[f.action]
        assert study is not None
        assert f.pre_trends == event_study(study, history, TIMES).pre_trends().p_value


def test_controls_are_those_to_whom_the_action_was_open():
    history = two_actions(2)
    d = history.decisions
    eligible = np.ones((len(d), 3), dtype=bool)
    eligible[::2, 2] = d.actions[::2, 0] == 2
    history = replace(history, decisions=replace(d, eligible=eligible))
    whole = Study.of(make_reward("did", SPEC), history)
    studies = studies_of(whole, history)
    assert studies["email"] is not None
    assert studies["push"] is not None
    open_to = studies["email"].outcomes.control
    assert open_to.sum() == (studies["push"].outcomes.control & eligible[:, 2]).sum()
    # The table of effects and the findings compare the same decisions.
    found = findings(history, SPEC, "channel", TIMES, ("did",))
    assert [f.effect for f in found] == whole.by_action(history, "channel")


def test_after_a_dip_the_alarm_rings_for_each_action_and_the_text_says_so():
    history = two_actions(3, "dip")
    found = findings(history, SPEC, "channel", TIMES)
    did = [f for f in found if f.kind == "did"]
    assert all("pre-trends differ" in f.against for f in did)
    text = findings_text(found)
    assert "Do not read as causal: push on order (count) by did (pre-trends differ" in text
    assert "tests of pre-trends and placebos: by chance alone" in text


def test_a_kind_is_contradicted_only_by_one_that_passes_its_own_tests():
    """Two estimates on the same 400 users, ten errors of their difference apart; then one fails a test of its own."""
    noise = np.random.default_rng(0).standard_normal((2, 400)) / 400
    one, other = (
        Finding("push", "order", kind, Effect("push", value, 0.05, 400, 400, n_users=400), influence, 0.5, 0.5)
        for kind, value, influence in zip(("did", "did_dr"), (0.0, 0.7), noise, strict=True)
    )
    se = np.sqrt(((one.influence - other.influence) ** 2).sum() * 400 / 399)
    assert difference(one, other) == pytest.approx(two_sided_p_value(-0.7 / se, 399))
    told = against_rivals((one, other))
    assert [f.contradicted_by for f in told] == [("did_dr",), ("did",)]
    assert told[0].against == ("did_dr differs and passes",)
    told = against_rivals((replace(one, pre_trends=0.01), other))
    assert [f.contradicted_by for f in told] == [("did_dr",), ()]
    assert [f.kinds_differ < 1e-6 for f in told] == [True, True]
    alike = against_rivals((one, replace(other, effect=replace(other.effect, value=0.0))))
    assert [f.against for f in alike] == [(), ()]
    # Kinds that average other decisions may differ for that alone.
    assert np.isnan(difference(one, replace(other, effect=replace(other.effect, n_treated=300))))


def test_what_cannot_be_fitted_is_not_identified():
    """One e-mail only: no fold can learn whom e-mails go to."""
    history = two_actions(4)
    d = history.decisions
    email = np.flatnonzero(d.actions[:, 0] == 2)
    actions = d.actions.copy()
    actions[email[1:]] = 1
    found = findings(replace(history, decisions=replace(d, actions=actions)), SPEC, "channel", TIMES)
    rare = [f for f in found if f.action == "email"]
    assert [f.against for f in rare] == [("not identified",)] * 2
    assert "not identified" in findings_text(rare)


def test_few_users_are_said():
    effect = Effect("push", 3.0, 0.1, 4, 900, n_users=4)
    assert Finding("push", "order", "did", effect, np.zeros(4)).against == ("4 users only",)


def test_other_lengths_scale_both_windows():
    history = two_actions(5)
    spec = replace(SPEC, pre="2d")
    by_length = other_lengths(history, spec, "channel", ["12h", "36h"], ("did",))
    for length, pre in (("12h", "24h"), ("36h", "72h")):
        direct = findings(history, replace(spec, pre=pre, post=length), "channel", None, ("did",))
        assert [f.effect for f in by_length[length]] == [f.effect for f in direct]
    text = lengths_text(by_length)
    assert "12h" in text
    assert "36h" in text
    assert text.count(" of ") == 4


def test_the_report_tells_each_action_with_other_lengths_and_where_propensities_come_from():
    history = two_actions(7)
    request = Request(by=("all",), times=TIMES, lengths=("2d",))
    text = report(history, make_reward("did", SPEC), request)
    for words in (
        "Effect of each channel on each goal, per sent decision within 1d",
        "odds that are estimated by a logistic regression",
        "tests of pre-trends and placebos: by chance alone",
        "The same by length of the post window",
    ):
        assert words in text, words
    logged = replace(history, propensity_source="logged")
    assert "Effect of each channel" not in report(logged, make_reward("did", SPEC), request)


def test_the_module_is_the_first_where_nobody_logged_propensities():
    history = two_actions(6)
    logged = replace(history, propensity_source="logged")
    assert each_module(history, AUTO) == "channel"
    assert each_module(logged, AUTO) is None
    assert each_module(logged, "channel") == "channel"
    assert each_module(history, NONE) is None
    with pytest.raises(ConfigError, match=r"no module 'chanel'\. Did you mean 'channel'"):
        each_module(history, "chanel")
