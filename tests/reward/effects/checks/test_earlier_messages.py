"""Earlier messages in the window before: where sent decisions and controls had unequally many, the effect is off."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from crosschannel.core.times import DAY, HOUR
from crosschannel.histories.history import History
from crosschannel.reward import RewardSpec, make_reward
from crosschannel.reward.effects import TreatmentEffects, diagnose
from crosschannel.reward.effects.checks.earlier_messages import (
    NAME,
    check_earlier_messages,
    earlier_messages,
    earlier_outcomes,
)
from crosschannel.reward.effects.estimates import Effect
from crosschannel.reward.measurement.messages import Messages
from tests.reward.effects.checks.logs import (
    SPEC,
    Rule,
    all_but_a_few,
    at_random,
    by_level,
    daily_log,
    did,
    never_twice,
)


def difference(history: History, spec: RewardSpec = SPEC) -> float:
    """Mean messages per post window before sent decisions less those of the same day's controls, by a plain loop."""
    d, pre, post = history.decisions, 1 * DAY, 1 * DAY
    sent = history.modules.sends(d.actions)
    seen = (d.time - pre >= history.span[0]) & (d.time + post <= history.span[1] + 1)
    count = np.array(
        [
            (sent & (d.user == d.user[i]) & (d.time >= d.time[i] - pre) & (d.time < d.time[i])).sum()
            for i in range(len(d))
        ]
    )
    total = 0.0
    for time in np.unique(d.time[sent & seen]):
        here = seen & (d.time == time)
        total += (count[here & sent] - count[here & ~sent].mean()).sum()
    return float(total / (sent & seen).sum())


def test_the_difference_is_that_of_a_count_by_hand():
    history = daily_log(0, never_twice, users=60, days=8)
    fitted = did(history)
    outcomes = earlier_outcomes(fitted.outcomes, history, SPEC)
    assert TreatmentEffects.fit_outcomes(fitted.model, outcomes).effect().value == pytest.approx(difference(history))


def test_a_window_before_of_several_days_counts_each_message_in_it_by_its_share():
    history = daily_log(0, at_random, users=5, days=9)
    outcomes = earlier_outcomes(did(history).outcomes, history, replace(SPEC, pre="3d"))
    d, sent = history.decisions, history.modules.sends(history.decisions.actions)
    for i in range(0, len(d), 3):
        gap = d.time[i] - d.time[sent & (d.user == d.user[i])]
        assert outcomes.post[i] == pytest.approx(((gap > 0) & (gap <= 3 * DAY)).sum() / 3)


@pytest.mark.parametrize(
    ("rule", "estimate", "words"),
    [
        (all_but_a_few, 0.0, "too small"),
        (never_twice, 0.45, "too large"),
        (by_level, 0.24, "too small"),
    ],
)
def test_an_estimate_that_is_off_by_earlier_messages_is_not_read_as_causal(rule: Rule, estimate: float, words: str):
    """A message adds .3 orders; the estimates are others, and no other test of the first log fails."""
    history = daily_log(1, rule, users=600)
    fitted = did(history)
    effect = fitted.effect()
    assert effect.value == pytest.approx(estimate, abs=4 * effect.se)
    assert abs(effect.value - 0.3) > 0.03
    check = earlier_messages(fitted, history)
    assert check is not None
    assert (check.name, check.status) == (NAME, "failed")
    assert words in check.text
    assert "%" not in check.text  # the share is that of earlier messages alone, and no bound on the bias
    found = diagnose(fitted, history)
    assert "unequally many messages before" in found.verdict
    assert "do not read the effect as causal" in found.verdict


def test_the_difference_corrects_the_estimate_where_nothing_else_differs():
    """With messages that act alike, the estimate is the effect times one minus the difference."""
    values, predicted = [], []
    for seed in range(8):
        history = daily_log(seed, never_twice, users=300, effect=1.0)
        values.append(did(history).effect().value)
        outcomes = earlier_outcomes(did(history).outcomes, history, SPEC)
        predicted.append(1.0 - TreatmentEffects.fit_outcomes(did(history).model, outcomes).effect().value)
    error = np.array(values) - predicted
    assert abs(error.mean()) < 4 * error.std(ddof=1) / np.sqrt(len(error))


def test_random_messages_pass_in_most_logs():
    """At the level of 5 % at most 6 of 30 logs fail, but for one in 5,000 such tests."""
    checks = [
        earlier_messages(did(h), h) for h in (daily_log(seed, at_random, users=100, days=10) for seed in range(30))
    ]
    assert all(check is not None for check in checks)
    assert sum(check is not None and check.status == "failed" for check in checks) <= 6


@pytest.mark.parametrize("kind", ["raw", "change"])
def test_kinds_without_controls_are_not_checked(kind: str):
    history = daily_log(0, at_random, users=40, days=6)
    assert earlier_messages(TreatmentEffects.fit(make_reward(kind, SPEC), history), history) is None


def test_windows_without_other_messages_have_nothing_to_check():
    history = daily_log(0, lambda day, sent, orders, level: at_random(day, sent, orders, level) * (day % 4 == 0))
    assert earlier_messages(did(history), history) is None


def test_the_right_propensities_take_the_difference_out():
    history = daily_log(2, by_level, users=400)
    fitted = TreatmentEffects.fit(make_reward("did_dr", SPEC), history)
    check = earlier_messages(fitted, history)
    assert check is not None
    assert check.status == "passed"
    assert fitted.effect().value == pytest.approx(0.3, abs=4 * fitted.effect().se)


def test_a_difference_without_an_error_is_not_tested():
    """The only user has no other to be compared with: an error of NaN is no certainty."""
    effect = Effect(label=NAME, value=0.5, se=np.nan, n_treated=2, n_controls=2, n_without=0, n_users=1)
    assert check_earlier_messages(effect) is None
    found = check_earlier_messages(replace(effect, se=0.0, n_users=40))
    assert found is not None
    assert found.status == "failed"


def test_others_are_counted_once_each():
    history = daily_log(3, at_random, users=10, days=8)
    found = Messages.from_history(history).count_others(history, -2 * DAY, 1)
    d, sent = history.decisions, history.modules.sends(history.decisions.actions)
    for i in range(len(d)):
        gap = d.time[sent & (d.user == d.user[i]) & (np.arange(len(d)) != i)] - d.time[i]
        assert found[i] == ((gap >= -2 * DAY) & (gap < 1)).sum()
    assert (d.time % DAY == 6 * HOUR).all()
