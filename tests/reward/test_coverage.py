"""Do 95 % intervals cover 95 % of the time, do tests reject 5 % of nothing, and does the alarm ring when it must?

Quick versions run by default with 60 histories; the slow ones with more. The bounds asked for, 93 to 97 % and 3 to 7 %,
are 2 % wide on either side. With 200 histories the binomial error of a rate of 95 % is 1.5 %, and a right method would
leave them one time in six; with 1,000 it is 0.7 %, and it leaves them one time in 300. A history takes about 15 ms, so
1,000 are drawn for each claim about `did`, and 400 (error 1.1 %, bounds of three errors) where propensities and
regressions are fitted. Seeds are 0, 1, 2, ...: results repeat to the bit.
"""

from __future__ import annotations

from dataclasses import replace
from functools import cache

import numpy as np
import pytest
from simulated import SPEC, Assignment, simulate

from reward import Effect, EventTimes, Study, event_study, make_reward
from reward.diagnostics import pre_trend_check

QUICK, MANY, FITTED = 60, 1000, 400
# Four slots' windows are five days apart: bins from three days before the slot on hold no other message's effect.
TIMES = EventTimes(bin="1d", leads=3, lags=1)


@cache
def estimates(kind: str, assignment: Assignment, effect: float, seeds: int) -> list[tuple[Effect, float]]:
    """Estimate and truth for each seed."""
    found = []
    for seed in range(seeds):
        simulated = simulate(seed, assignment, effect=effect)
        found.append((Study.of(make_reward(kind, SPEC), simulated.history).effect(), simulated.att))
    return found


def coverage(found: list[tuple[Effect, float]]) -> float:
    return float(np.mean([e.low <= truth <= e.high for e, truth in found]))


def bias(found: list[tuple[Effect, float]]) -> tuple[float, float]:
    """Mean error of the estimates and its standard error."""
    errors = np.array([e.value - truth for e, truth in found])
    return float(errors.mean()), float(errors.std() / np.sqrt(len(errors)))


@pytest.mark.parametrize("assignment", ["random", "level"])
def test_did_intervals_cover_quickly(assignment):
    """60 histories: binomial error 2.8 %, so at least 86 % is three errors."""
    found = estimates("did", assignment, 1.0, QUICK)
    assert coverage(found) >= 0.86
    mean, error = bias(found)
    assert abs(mean) < 3.5 * error


@pytest.mark.slow
@pytest.mark.parametrize("assignment", ["random", "level"])
def test_did_intervals_cover(assignment):
    found = estimates("did", assignment, 1.0, MANY)
    assert 0.93 <= coverage(found) <= 0.97
    mean, error = bias(found)
    assert abs(mean) < 3 * error


@pytest.mark.slow
@pytest.mark.parametrize("assignment", ["random", "level"])
def test_nothing_is_rejected_five_times_in_a_hundred(assignment):
    assert 0.03 <= 1 - coverage(estimates("did", assignment, 0.0, MANY)) <= 0.07


@pytest.mark.parametrize("effect", [0.0, 1.0])
def test_after_a_dip_did_finds_what_is_not_there(effect):
    """Activity comes back by itself: `did` takes that for an effect, by several standard errors in every history."""
    found = estimates("did", "dip", effect, QUICK)
    assert coverage(found) < 0.05
    assert min((e.value - truth) / e.se for e, truth in found) > 2
    mean, error = bias(found)
    assert mean > 20 * error


@pytest.mark.parametrize("effect", [0.0, 1.0])
def test_given_the_trigger_the_doubly_robust_effect_is_right_quickly(effect):
    found = estimates("did_dr", "dip", effect, QUICK)
    assert coverage(found) >= 0.86
    mean, error = bias(found)
    assert abs(mean) < 3.5 * error


@pytest.mark.slow
@pytest.mark.parametrize("assignment", ["random", "level", "dip"])
def test_doubly_robust_intervals_cover(assignment):
    """400 histories: binomial error 1.1 %, bounds of three errors."""
    found = estimates("did_dr", assignment, 1.0, FITTED)
    assert 0.917 <= coverage(found) <= 0.983
    mean, error = bias(found)
    assert abs(mean) < 3 * error


@pytest.mark.slow
def test_doubly_robust_with_estimated_propensities_covers():
    """Propensities are fitted by a logistic regression, whose error is part of the interval."""
    hits = []
    for seed in range(FITTED):
        simulated = simulate(seed, "random")
        d = simulated.history.decisions
        blind = simulated.history.with_propensities(
            np.full_like(d.propensity, np.nan), np.full_like(d.joint, np.nan), "missing"
        )
        e = Study.of(make_reward("did_dr", SPEC), blind).effect()
        hits.append(e.low <= simulated.att <= e.high)
    assert 0.917 <= np.mean(hits) <= 0.983


def test_adjusting_for_the_outcome_before_misleads_where_messages_go_by_level():
    """Past activity is a noisy measure of the level: given it, the treated still have the higher level."""
    found = estimates("did_regression", "level", 0.0, 20)
    mean, error = bias(found)
    assert mean > 5 * error
    assert abs(bias(estimates("did", "level", 0.0, QUICK))[0]) < 0.1 * mean


def alarms(assignment: Assignment, seeds: int) -> float:
    """How often the pre-trend test fails."""
    rung = []
    for seed in range(seeds):
        history = simulate(seed, assignment).history
        check = pre_trend_check(event_study(Study.of(make_reward("did", SPEC), history), history, TIMES))
        rung.append(check.status == "failed")
    return float(np.mean(rung))


def test_the_pre_trend_alarm_rings_after_a_dip_and_seldom_otherwise():
    assert alarms("dip", 15) == 1.0
    assert alarms("level", 15) <= 0.3


@pytest.mark.slow
def test_the_pre_trend_alarm_is_false_five_times_in_a_hundred():
    """600 histories: binomial error 0.9 %, bounds of more than two errors."""
    assert 0.03 <= alarms("level", 600) <= 0.07


@pytest.mark.slow
def test_intervals_with_few_users_are_wide_enough():
    """30 users, 600 histories: Student's t keeps the coverage above 92 %, where 1.96 errors would fall short."""
    hits = []
    for seed in range(600):
        simulated = simulate(seed, "random", users=30)
        e = Study.of(make_reward("did", replace(SPEC, min_controls=5)), simulated.history).effect()
        hits.append(e.low <= simulated.att <= e.high)
    assert 0.92 <= np.mean(hits) <= 0.98
