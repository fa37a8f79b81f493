"""Rewards that clearly fail their own tests: no value of a policy may rest on them."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from crosschannel.reward import make_reward
from crosschannel.reward.effects import TreatmentEffects
from crosschannel.reward.effects.checks.after_window import NAME as AFTER
from crosschannel.reward.effects.checks.alike_controls import BY_PROPENSITY
from crosschannel.reward.effects.checks.check import Check
from crosschannel.reward.effects.checks.earlier_messages import NAME as EARLIER
from crosschannel.reward.effects.checks.remedies import remedies
from crosschannel.reward.effects.checks.rewards import (
    PRE_TRENDS,
    REFUSAL_LEVEL,
    WITHIN,
    RewardTests,
    check_within,
    run_reward_tests,
)
from crosschannel.reward.effects.event_study import event_study
from tests.reward.effects.checks.logs import (
    SPEC,
    Rule,
    after_a_quiet_day,
    all_but_a_few,
    at_random,
    daily_log,
    did,
    never_twice,
)


def of_rule(rule: Rule, kind: str = "did", **settings: int | float | bool) -> RewardTests:
    history = daily_log(1, rule, **settings)  # type: ignore[arg-type]
    return run_reward_tests(TreatmentEffects.fit(make_reward(kind, SPEC), history), history)


@pytest.mark.parametrize(
    ("rule", "name", "remedy"),
    [
        (all_but_a_few, EARLIER, "a trial"),
        (never_twice, EARLIER, "`reward.overlap: exclude`"),
        (
            after_a_quiet_day,
            PRE_TRENDS,
            "This log has propensities: rewards by `reward.kind: did_dr` (`--reward.kind did_dr`)",
        ),
    ],
)
def test_a_clear_failure_refuses_and_says_what_would_help(rule: Rule, name: str, remedy: str) -> None:
    found = of_rule(rule)
    assert name in found.refusal
    assert any(remedy in sentence for sentence in found.remedies)
    assert any(sentence.startswith(f"{name}: ") for sentence in found.sentences)


def test_random_draws_are_asked_for_only_where_a_log_has_no_propensities() -> None:
    assert any("drawn at random" in one for one in of_rule(after_a_quiet_day, logged=False).remedies)
    assert not any("drawn at random" in one for one in of_rule(after_a_quiet_day).remedies)


def test_a_kind_that_uses_propensities_is_not_advised_again() -> None:
    """Neither that kind nor draws at random, which the log may have; a placebo fails in one right log of twenty."""
    assert not any("This log has propensities" in one for one in of_rule(all_but_a_few, "did_dr").remedies)
    for name in (PRE_TRENDS, "placebo on holdout"):
        (one,) = remedies([name], False, "did_dr")
        assert "not rounded" in one
        assert "`reward.kind" not in one
        assert remedies([name], False, "did_regression") != (one,)


def test_random_messages_are_not_refused() -> None:
    assert of_rule(at_random).refusal == ""
    assert of_rule(at_random).remedies == ()


def test_kinds_without_controls_are_never_read_as_causal_and_not_refused() -> None:
    assert of_rule(after_a_quiet_day, "change").refusal == ""


def test_doubly_robust_rewards_with_right_propensities_are_not_refused() -> None:
    assert of_rule(after_a_quiet_day, "did_dr").refusal == ""


def some(p_values: dict[str, float], harmless: bool = False) -> RewardTests:
    found = of_rule(at_random, users=60)
    checks = tuple(Check(name, "failed" if p < 0.05 else "passed", p, "text") for name, p in p_values.items())
    within = Check(WITHIN, "passed", 0.6, "text") if harmless else None
    return replace(found, diagnostics=replace(found.diagnostics, checks=checks), within=within)


def test_levels_are_those_of_all_tests_together() -> None:
    """Holm's method: the smallest of k p-values has the k-th part of the level, the next a (k-1)-th."""
    assert some({"a": 0.003, "b": 0.5, "c": 0.5}).refusal.endswith("a p = 0.003")
    assert some({"a": 0.004, "b": 0.5, "c": 0.5}).refusal == ""
    assert some({"a": 0.004, "b": 0.5, "c": 0.5}).refusal_in_short == ""
    assert some({"a": 0.003, "b": 0.5, "c": 0.5}).refusal_in_short.endswith(": a")
    assert some({"a": 0.003, "b": 1e-9, "c": 1e-4}).refusal_in_short.endswith(": b and 2 more")
    both = some({"a": 0.004, "b": 0.003, "c": 0.5})
    assert [check.name for check in both.refused] == ["b", "a"]
    assert some({"a": np.nan, "b": 0.009}).refusal.endswith("b p = 0.009")


def test_after_the_window_alone_is_its_own_cause_and_no_other_test_may_fail() -> None:
    alone, unclear = some({AFTER: 1e-9, "b": 0.5}), some({AFTER: 1e-9, BY_PROPENSITY: 0.03})
    assert any("`reward.post`" in remedy for remedy in alone.remedies)
    assert [check.name for check in unclear.refused] == [AFTER]
    assert not any("`reward.post`" in remedy for remedy in unclear.remedies)
    both = some({AFTER: 1e-9, BY_PROPENSITY: 1e-6, "c": 0.5})
    assert [check.name for check in both.refused] == [BY_PROPENSITY, AFTER]
    assert some({"b": 0.5}).remedies == ()


def test_a_certain_difference_that_does_not_matter_hides_no_failure() -> None:
    """With very many users `earlier messages` passes with a p-value of 0, as its difference is below 5 %."""
    found = some({EARLIER: 0.0, PRE_TRENDS: 1e-6, "b": 0.5})
    small = tuple(
        replace(check, status="passed") if check.name == EARLIER else check for check in found.diagnostics.checks
    )
    found = replace(found, diagnostics=replace(found.diagnostics, checks=small))
    assert [check.name for check in found.refused] == [PRE_TRENDS]


def test_harmless_before_do_not_count() -> None:
    assert some({PRE_TRENDS: 1e-9, BY_PROPENSITY: 0.4}, harmless=True).refusal == ""
    assert PRE_TRENDS in some({PRE_TRENDS: 1e-9, BY_PROPENSITY: 0.4}).refusal


def chosen_before_the_window(day: int, sent: np.ndarray, orders: np.ndarray, level: np.ndarray) -> np.ndarray:
    """Messages answer the orders of three days ago, which no window of two days before holds."""
    return np.where(orders[day - 4] > 0 if day > 3 else False, 0.15, 0.6) * (day % 5 == 0)


def test_pre_trends_before_the_window_are_harmless_where_propensities_say_so() -> None:
    spec = replace(SPEC, pre="2d")

    def tests(logged: bool) -> RewardTests:
        history = daily_log(0, chosen_before_the_window, users=800, days=31, logged=logged)
        fitted = did(history, spec)
        assert abs(fitted.effect().value - 0.3) < 4 * fitted.effect().se
        assert event_study(fitted, history).pre_trends().p_value < REFUSAL_LEVEL
        return run_reward_tests(fitted, history)

    assert tests(logged=True).harmless_before
    assert tests(logged=True).refusal == ""
    assert not tests(logged=False).harmless_before
    assert PRE_TRENDS in tests(logged=False).refusal


def test_a_window_of_one_bin_has_no_other_bin_that_could_excuse_it() -> None:
    history = daily_log(1, after_a_quiet_day)
    fitted = did(history)
    assert check_within(event_study(fitted, history), fitted) is None


@pytest.mark.parametrize(("within", "by_propensity"), [(1e-4, 0.4), (0.4, 1e-4)])
def test_what_clearly_differs_within_the_window_or_by_propensity_excuses_nothing(
    within: float, by_propensity: float
) -> None:
    found = replace(
        some({PRE_TRENDS: 1e-9, BY_PROPENSITY: by_propensity}), within=Check(WITHIN, "failed", within, "text")
    )
    assert not found.harmless_before
    assert PRE_TRENDS in found.refusal
    unclear = replace(some({PRE_TRENDS: 1e-9, BY_PROPENSITY: 0.03}), within=Check(WITHIN, "failed", 0.03, "text"))
    assert unclear.refusal == ""
    assert not unclear.fails_only_before  # controls by propensity fail at 5 %


@pytest.mark.slow
@pytest.mark.parametrize(("rule", "pre"), [(at_random, "1d"), (chosen_before_the_window, "2d")])
def test_right_rewards_are_refused_at_the_level_of_the_refusal(rule: Rule, pre: str) -> None:
    """Of 400 logs with right rewards at most .01 and three standard errors of a rate are refused.

    Where messages answer what users did before the pre window, pre-trends and the placebo in time differ in each log.
    """
    refused, spec = 0, replace(SPEC, pre=pre)
    for seed in range(400):
        history = daily_log(seed, rule, users=150, days=21)
        refused += bool(run_reward_tests(did(history, spec), history).refusal)
    assert refused / 400 <= REFUSAL_LEVEL + 3 * np.sqrt(REFUSAL_LEVEL * (1 - REFUSAL_LEVEL) / 400)
