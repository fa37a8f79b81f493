"""Controls that are weighted like the sent decisions: they change as all controls do where trends are parallel."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from crosschannel.histories.history import History
from crosschannel.reward import make_reward
from crosschannel.reward.effects import Check, TreatmentEffects, diagnose
from crosschannel.reward.effects.checks.alike_controls import (
    BY_ACTIVITY,
    BY_PROPENSITY,
    Moments,
    OddsSums,
    alike_controls,
    check_alike_controls,
    edges_of_activity,
    likeness_by_activity,
    likeness_by_propensity,
)
from tests.reward.effects.checks.logs import (
    SPEC,
    Rule,
    after_a_quiet_day,
    at_random,
    by_level,
    daily_log,
    did,
    saturdays_to_the_active,
)
from tests.reward.simulated import simulate


def checks(history: History) -> dict[str, Check]:
    fitted = did(history)
    return {check.name: check for check in alike_controls(fitted.outcomes, fitted.frame, history, SPEC)}


def test_the_difference_is_the_weighted_mean_of_residuals():
    history = daily_log(0, after_a_quiet_day)
    fitted = did(history)
    o, reward = fitted.outcomes, fitted.frame.reward
    like = likeness_by_propensity(o, fitted.frame, history, SPEC)
    sums = OddsSums.from_outcomes(like, o, fitted.frame)
    moments = Moments.from_outcomes(like, o, fitted.frame, sums)
    rows = o.control & fitted.frame.identified
    p = history.decisions.propensity[rows, 0]
    assert moments.first / sums.total == pytest.approx(np.average(reward[rows], weights=(1 - p) / p))


def test_sums_over_two_parts_of_the_users_are_those_of_all():
    history = daily_log(0, by_level, users=120, days=15)
    fitted = did(history)
    edges = edges_of_activity(fitted.outcomes, fitted.frame, history, SPEC)
    like = likeness_by_activity(fitted.outcomes, fitted.frame, history, SPEC, edges)
    whole = OddsSums.from_outcomes(like, fitted.outcomes, fitted.frame)
    parts = [fitted.outcomes.user % 2 == part for part in range(2)]

    def part_of(chosen: np.ndarray) -> tuple:
        frame = replace(
            fitted.frame,
            reward=np.where(chosen, fitted.frame.reward, np.nan),
        )
        return like, fitted.outcomes, frame

    sums = OddsSums.from_outcomes(*part_of(parts[0])) + OddsSums.from_outcomes(*part_of(parts[1]))
    assert sums.total == pytest.approx(whole.total)
    both = Moments.from_outcomes(*part_of(parts[0]), whole) + Moments.from_outcomes(*part_of(parts[1]), whole)
    expected = Moments.from_outcomes(like, fitted.outcomes, fitted.frame, whole)
    for name in ("first", "second", "fourth", "users", "unlike"):
        assert getattr(both, name) == pytest.approx(getattr(expected, name), abs=1e-9)


def test_messages_after_a_quiet_day_are_found_by_their_propensities_and_the_bias_is_stated():
    history = daily_log(1, after_a_quiet_day, users=600)
    found = checks(history)[BY_PROPENSITY]
    assert found.status == "failed"
    effect = did(history).effect()
    bias = float(found.text.split("changed by ")[1].split()[0])
    assert effect.value - bias == pytest.approx(0.3, abs=5 * effect.se)
    assert "as likely to get a message" in diagnose(did(history), history).verdict


def test_promotions_to_the_active_on_days_when_all_buy_twice_as_much_are_found_by_activity():
    """Trends are not parallel, pre-trends and the placebo in time see nothing, and no propensity is logged."""
    history = daily_log(0, saturdays_to_the_active, users=800, days=35, saturday=2.0, logged=False)
    effect = did(history).effect()
    assert effect.low > 0.3
    found = checks(history)
    assert set(found) == {BY_ACTIVITY}
    assert found[BY_ACTIVITY].status == "failed"
    verdict = diagnose(did(history), history).verdict
    assert verdict.startswith("Controls that were as active as the sent decisions change otherwise: do not read")
    calm = daily_log(0, saturdays_to_the_active, users=800, days=35, logged=False)
    assert checks(calm)[BY_ACTIVITY].status == "passed"


def test_equal_odds_within_each_cell_leave_nothing_to_test():
    assert BY_PROPENSITY not in checks(daily_log(0, at_random))


def test_missing_propensities_of_some_controls_leave_nothing_to_test():
    history = daily_log(0, by_level)
    d = history.decisions
    some = np.where(np.arange(len(d)) % 50 == 0, np.nan, d.joint)
    partly = history.with_propensities(some[:, None], some, "logged")
    assert BY_PROPENSITY in checks(history)
    assert BY_PROPENSITY not in checks(partly)


def test_adjusted_kinds_take_such_differences_out_and_are_not_checked():
    history = simulate(0, "quiet").history
    for kind in ("did_regression", "did_dr"):
        model = make_reward(kind, SPEC)
        names = [check.name for check in diagnose(TreatmentEffects.fit(model, history), history).checks]
        assert not {BY_PROPENSITY, BY_ACTIVITY} & set(names)


def test_few_users_are_not_tested():
    moments = Moments(first=1.0, second=1.0, fourth=1.0, users=9, unlike=1.0)
    history = daily_log(0, by_level, users=40, days=5)
    fitted = did(history)
    like = likeness_by_propensity(fitted.outcomes, fitted.frame, history, SPEC)
    sums = OddsSums.from_outcomes(like, fitted.outcomes, fitted.frame)
    assert check_alike_controls("few", sums, moments, 0.3) is None
    assert check_alike_controls("more", sums, replace(moments, users=10), 0.3) is not None


def test_a_bias_that_is_certain_and_small_beside_the_effect_is_no_failure():
    """With very many users any difference is certain: less than 5 % of the effect passes, with its p-value."""
    history = daily_log(0, saturdays_to_the_active, saturday=2.0, users=800, days=35)
    fitted = did(history)
    like = likeness_by_propensity(fitted.outcomes, fitted.frame, history, SPEC)
    sums = OddsSums.from_outcomes(like, fitted.outcomes, fitted.frame)
    moments = Moments.from_outcomes(like, fitted.outcomes, fitted.frame, sums)
    bias = abs(moments.first / sums.total)
    for share, status in ((0.04, "passed"), (0.06, "failed")):
        check = check_alike_controls(like.name, sums, moments, bias / share)
        assert check is not None
        assert check.p_value < 0.001
        assert check.status == status


def failures(rule: Rule, logs: int, **settings: float) -> dict[str, int]:
    """Number of logs without an effect in which each check fails."""
    found = {BY_PROPENSITY: 0, BY_ACTIVITY: 0}
    for seed in range(logs):
        for name, check in checks(daily_log(seed, rule, effect=0.0, **settings)).items():  # type: ignore[arg-type]
            found[name] += check.status == "failed"
    return found


def test_parallel_trends_pass_in_most_logs():
    """At the level of 5 % at most 6 of 30 logs fail, but for one in 5,000 such tests."""
    assert max(failures(by_level, 30, users=150, days=14).values()) <= 6


@pytest.mark.slow
@pytest.mark.parametrize("users", [60, 300])
def test_parallel_trends_are_rejected_at_the_level_of_the_test(users: int):
    """400 logs in which messages go by level: at most .05 and three standard errors of a rate are rejected."""
    limit = 0.05 + 3 * np.sqrt(0.05 * 0.95 / 400)
    for count in failures(by_level, 400, users=users, days=14).values():
        assert count / 400 <= limit
