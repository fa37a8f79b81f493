"""Tests that decide one verdict have one level together."""

import numpy as np
import pytest

from crosschannel.reward.effects.action_effects import ActionEffect, action_effects_text, at_joint_level
from crosschannel.reward.effects.checks import check as checks
from crosschannel.reward.effects.checks.check import PRE_TRENDS, SIGNIFICANCE_LEVEL, Check
from crosschannel.reward.effects.checks.verdict import Diagnostics
from crosschannel.reward.effects.diagnostics import diagnose
from crosschannel.reward.effects.estimates import Effect
from tests.reward.effects.checks.logs import (
    Rule,
    after_a_quiet_day,
    at_random,
    by_level,
    daily_log,
    did,
    never_twice,
)

NAMES = (PRE_TRENDS, "placebo in time", "earlier messages", "hours before", "after the window")


def judged(p_values: np.ndarray, on_controls: float = 0.5) -> Diagnostics:
    made = [
        Check(name, "failed" if p < SIGNIFICANCE_LEVEL else "passed", float(p), "")
        for name, p in zip(NAMES, p_values, strict=True)
    ]
    status = "failed" if on_controls < SIGNIFICANCE_LEVEL else "passed"
    return Diagnostics.build(made, (), "did", Check("placebo on controls", status, on_controls, ""))


def test_right_logs_rarely_have_a_verdict_that_names_a_test():
    """Independent tests are the worst case: at 5 % each, one of six fails in 26 % of logs."""
    draws = np.random.default_rng(0).random((1000, 6))
    alone = np.mean(draws.min(1) < SIGNIFICANCE_LEVEL)
    found = [judged(p[:5], p[5]) for p in draws]
    named = [bool(d.failed) or "controls change differently" in d.verdict for d in found]
    assert alone > 0.2
    assert 0.03 < np.mean(named) < 0.05 + 3 * np.sqrt(0.05 * 0.95 / 1000)


def test_pre_trends_keep_half_of_the_level():
    assert judged(np.array([0.024, 0.5, 0.5, 0.5, 0.5])).failed == (PRE_TRENDS,)
    assert judged(np.array([0.026, 0.5, 0.5, 0.5, 0.5])).failed == ()
    assert judged(np.array([0.5, 0.004, 0.5, 0.5, 0.5])).failed == ("placebo in time",)
    # What is clear elsewhere leaves more to the others.
    assert judged(np.array([0.04, 1e-9, 1e-9, 1e-9, 1e-9]), 1e-9).failed == NAMES


def test_what_fails_by_itself_only_is_named_as_unclear():
    found = judged(np.array([0.5, 0.03, 0.5, 0.5, 0.5]))
    assert [check.status for check in found.checks] == ["passed", "unclear", "passed", "passed", "passed"]
    assert found.verdict == (
        "No test fails, which does not prove the effect. Unclear: placebo in time (p = 0.03), which 6 tests of a right "
        "log together may show by chance."
    )
    assert found.remedies == ()
    assert "controls change differently" not in judged(np.full(5, 0.5), 0.03).verdict
    assert "Unclear: placebo on controls (p = 0.03)" in judged(np.full(5, 0.5), 0.03).verdict


def test_one_test_alone_has_the_whole_level():
    (one,) = checks.at_joint_level([Check(PRE_TRENDS, "failed", 0.04, "")])
    assert one.status == "failed"


def effect_of(action: str, pre_trends: float, placebo: float) -> ActionEffect:
    effect = Effect(action, 0.3, 0.05, n_treated=400, n_controls=400, n_users=400)
    return ActionEffect(
        action=action,
        goal="order",
        kind="did",
        effect=effect,
        influence=np.zeros(400),
        pre_trends=pre_trends,
        placebo=placebo,
    )


def test_the_tests_of_all_actions_have_one_level():
    """Of three actions a p-value of .03 is what chance gives; one of .001 is not, and leaves the others more."""
    (push,), (mail,), (letter,) = at_joint_level(
        [[effect_of("push", 0.03, 0.5)], [effect_of("mail", 0.4, 0.6)], [effect_of("letter", 0.001, 0.7)]]
    )
    assert push.caveats == mail.caveats == ()
    assert push.unclear == ("pre-trends",)
    assert letter.caveats == ("pre-trends differ",)
    text = action_effects_text([push, mail, letter])
    assert "The tests of a kind have 5% together (Holm's method): one fails below p = 0.01 by did." in text
    assert "Do not read as causal: letter on order by did (pre-trends differ)." in text
    assert "not at the level of all tests together: push on order by did (pre-trends)." in text
    assert "No test fails, which does not prove the effect: mail on order by did." in text


def after_orders(day: int, sent: np.ndarray, orders: np.ndarray, level: np.ndarray) -> np.ndarray:
    """Users who ordered yesterday get messages somewhat more often: a weak trigger."""
    return np.where(orders[day - 1] > 0 if day else False, 0.36, 0.27)


@pytest.mark.slow
@pytest.mark.parametrize(
    ("rule", "logs", "least", "most"),
    [
        (at_random, 100, 0.0, 0.1),
        (after_orders, 40, 0.7, 1.0),
        (by_level, 20, 1.0, 1.0),
        (never_twice, 20, 1.0, 1.0),
        (after_a_quiet_day, 20, 1.0, 1.0),
    ],
)
def test_how_often_a_verdict_names_a_failure(rule: Rule, logs: int, least: float, most: float):
    """Logs of 300 users and three weeks: rates at one level, and at one level for each test."""
    alone = together = 0
    for seed in range(logs):
        history = daily_log(seed, rule, logged=False)
        found = diagnose(did(history), history)
        alone += any(check.status in ("failed", "unclear") for check in found.checks)
        together += bool(found.failed)
    print(f"{rule.__name__}: {together / logs:.0%} of {logs} logs, with 5 % for each test {alone / logs:.0%}")
    assert least <= together / logs <= most
