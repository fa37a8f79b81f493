"""Breakdown point: by its definition on a grid, in both directions, and when there is none."""

from __future__ import annotations

import numpy as np
import pytest
from scipy.special import stdtrit

from crosschannel.evaluation.bootstrap import degrees_of_freedom
from crosschannel.evaluation.ladder import JointReplicates, breakdown_point
from crosschannel.evaluation.ladder.breakdown import MAX_SHARE

pytestmark = pytest.mark.numerics

ORDER, CHANNEL, LOGGED = 0, 1, 2


def joint(points: list[float], error: float = 0.1, seed: int = 0) -> JointReplicates:
    """Three statistics whose replicates vary around the given points."""
    rng = np.random.default_rng(seed)
    mixing = rng.normal(size=(3, 3)) * error / 2
    influence = rng.normal(size=(500, 3)) @ mixing / 500**0.5
    return JointReplicates(np.array(points), np.array(points) + rng.normal(size=(400, 3)) @ mixing, influence)


def lower_bound(found: JointReplicates, share: float, sign: float = 1.0) -> float:
    """The lower of the two lower bounds at one share, written out."""

    def of_side(side: float) -> float:
        c = np.array([sign - side * share, side * share, -sign])
        df = degrees_of_freedom(found.influence @ c)
        return float(found.points @ c - stdtrit(df, 0.975) * (found.draws @ c).std(ddof=1))

    return min(of_side(1.0), of_side(-1.0))


@pytest.mark.parametrize(("points", "sign"), [([1.0, 0.2, 0.1], 1.0), ([-1.0, 0.2, 0.1], -1.0), ([1.0, 1.6, 0.1], 1.0)])
def test_it_is_the_largest_share_at_which_the_lower_bound_is_above_zero(points, sign):
    found = joint(points)
    share = breakdown_point(found, ORDER, CHANNEL, LOGGED)
    assert share is not None
    assert lower_bound(found, share, sign) == pytest.approx(0.0, abs=1e-6)
    grid = np.linspace(0, MAX_SHARE, 201)
    above = np.array([lower_bound(found, g, sign) > 0 for g in grid])
    assert above[grid < share].all()
    assert not above[grid > share].any()


def test_content_that_may_add_nothing_counts_with_its_error():
    """V - V_log is 1 without error, V - V_0 is 0 with a standard error of 0.5: of it, 1.96 * 0.5 may be lost."""
    content = 0.5 * np.random.default_rng(0).choice([-1.0, 1.0], size=(4000, 1))
    draws = np.array([1.0, 1.0, 0.0]) - content * [0.0, 1.0, 0.0]
    found = JointReplicates(np.array([1.0, 1.0, 0.0]), draws, np.ones((4000, 1)) * [0.0, 1.0, 0.0])
    assert breakdown_point(found, ORDER, CHANNEL, LOGGED) == pytest.approx(1 / (1.96 * 0.5), rel=0.01)


def test_without_error_it_is_the_share_of_the_lift_in_what_content_adds():
    found = JointReplicates(np.array([1.0, 0.2, 0.4]), np.tile([1.0, 0.2, 0.4], (40, 1)), np.zeros((10, 3)))
    assert breakdown_point(found, ORDER, CHANNEL, LOGGED) == pytest.approx(0.6 / 0.8, abs=1e-9)


def test_without_a_conclusion_there_is_none():
    assert breakdown_point(joint([0.11, 0.2, 0.1]), ORDER, CHANNEL, LOGGED) is None
    undefined = JointReplicates(np.array([np.nan, 0.2, 0.4]), np.full((40, 3), np.nan), np.zeros((10, 3)))
    assert breakdown_point(undefined, ORDER, CHANNEL, LOGGED) is None


def test_content_that_adds_nothing_cannot_be_taken_away():
    found = JointReplicates(np.array([1.0, 1.0, 0.4]), np.tile([1.0, 1.0, 0.4], (40, 1)), np.zeros((10, 3)))
    assert breakdown_point(found, ORDER, CHANNEL, LOGGED) == MAX_SHARE


def test_intervals_and_p_values_of_combinations():
    found = joint([1.0, 0.2, 0.1])
    difference = found.interval(found.pick(ORDER, minus=LOGGED))
    assert difference.point == pytest.approx(0.9)
    assert difference.se == pytest.approx((found.draws[:, 0] - found.draws[:, 2]).std(ddof=1))
    assert found.p_value(found.pick(ORDER)) < 1e-6
    assert found.p_value(found.pick(ORDER) * 0) == 1.0
    exact = JointReplicates(np.array([1.0]), np.ones((40, 1)), np.zeros((3, 1)))
    assert exact.p_value(np.ones(1)) == 0.0
    assert exact.p_value(np.zeros(1)) == 1.0
