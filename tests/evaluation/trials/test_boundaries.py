"""Boundaries of looks: against published tables, a recursion, a multivariate normal law, and simple limits."""

from __future__ import annotations

import math

import numpy as np
import pytest
from scipy.optimize import brentq
from scipy.special import ndtr, ndtri
from scipy.stats import multivariate_normal

from crosschannel.evaluation.trials import critical_values, spent_alpha, stopping_boundaries


def recursive_boundaries(shares, spent):
    """Boundaries with independent increments, by the recursion of Armitage, McPherson & Rowe (1969) on a grid.

    The density of the sum of increments within all earlier bounds is carried from look to look by Simpson's rule.
    """
    bounds, grid, density, before, used = [], None, None, 0.0, 0.0
    for share, total in zip(shares, spent, strict=True):
        step, sd = share - before, math.sqrt(share - before)

        def beyond(c, share=share, sd=sd, grid=grid, density=density):
            edge = c * math.sqrt(share)
            if grid is None:
                return 2 * ndtr(-edge / sd)
            tail = ndtr((grid - edge) / sd) + ndtr((-edge - grid) / sd)
            return float(simpson(grid) @ (density * tail))

        c = brentq(lambda c: beyond(c) - (total - used), 0.5, 9, xtol=1e-12)  # noqa: B023
        bounds.append(c)
        edge = c * math.sqrt(share)
        new = np.linspace(-edge, edge, 2001)
        if grid is None:
            density_new = np.exp(-(new**2) / (2 * step)) / math.sqrt(2 * math.pi * step)
        else:
            kernel = np.exp(-((new[:, None] - grid) ** 2) / (2 * step)) / math.sqrt(2 * math.pi * step)
            density_new = kernel @ (simpson(grid) * density)
        grid, density, before, used = new, density_new, share, total
    return np.array(bounds)


def simpson(grid):
    weight = np.ones(len(grid))
    weight[1:-1:2], weight[2:-1:2] = 4.0, 2.0
    return weight * (grid[1] - grid[0]) / 3


def independent(shares):
    return np.minimum.outer(shares, shares)


def test_the_recursion_has_the_published_boundaries():
    """Lan & DeMets (1983) spending of one-sided .025 on each side, five looks: 4.877, 3.357, 2.680, 2.290, 2.031."""
    shares = np.arange(1, 6) / 5
    spent = 2 * (2 - 2 * ndtr(ndtri(1 - 0.0125) / np.sqrt(shares)))
    assert recursive_boundaries(shares, spent) == pytest.approx([4.877, 3.357, 2.680, 2.290, 2.031], abs=6e-4)


@pytest.mark.parametrize("shares", [np.arange(1, 6) / 5, np.array([0.3, 0.35, 0.8, 1.0]), np.arange(1, 29) / 28])
@pytest.mark.parametrize("alpha", [0.05, 0.01])
def test_boundaries_with_independent_increments_are_those_of_the_recursion(shares, alpha):
    """The lattice's error of a probability p from 2^11 points is below .01 p, which moves a boundary by .01 / c."""
    found = stopping_boundaries(independent(shares), shares, alpha, np.random.default_rng(0))
    stops = np.isfinite(found)
    right = np.full(len(shares), np.inf)
    right[stops] = recursive_boundaries(shares[stops], spent_alpha(shares[stops], alpha))
    assert found[stops] == pytest.approx(right[stops], abs=0.004)
    assert stops[shares >= 0.3].all()


def test_three_looks_spend_what_the_multivariate_normal_law_says():
    """Users' amounts that grow: the covariance of the looks is not that of independent increments."""
    covariance = np.array([[1.0, 1.3, 1.5], [1.3, 2.0, 2.4], [1.5, 2.4, 3.2]])
    shares = np.array([0.4, 0.7, 1.0])
    bounds = stopping_boundaries(covariance, shares, 0.05, np.random.default_rng(3))
    sd = np.sqrt(np.diag(covariance))
    correlation = covariance / sd / sd[:, None]
    for k in range(3):
        law = multivariate_normal(cov=correlation[: k + 1, : k + 1])
        inside = law.cdf(bounds[: k + 1], lower_limit=-bounds[: k + 1])
        assert 1 - inside == pytest.approx(float(spent_alpha(shares[k], 0.05)), abs=2e-4)


def test_all_is_spent_at_the_end_and_nothing_more_after_it():
    assert float(spent_alpha(1.0, 0.05)) == pytest.approx(0.05, abs=1e-15)
    assert float(spent_alpha(1.7, 0.05)) == pytest.approx(0.05, abs=1e-15)
    assert float(spent_alpha(0.25, 0.05)) == pytest.approx(2 * ndtr(-2 * 1.959963984540054), rel=1e-12)
    late = stopping_boundaries(independent(np.array([1.0, 1.2])), np.array([1.0, 1.2]), 0.05, np.random.default_rng(0))
    assert late[0] == pytest.approx(1.959963984540054, abs=1e-8)
    assert late[1] == np.inf


def test_one_look_at_the_end_is_a_plain_test():
    assert stopping_boundaries(np.eye(1), np.ones(1), 0.05, np.random.default_rng(0)) == pytest.approx(
        [1.959963984540054]
    )


def test_a_look_that_may_spend_too_little_never_stops_and_leaves_it_to_the_next():
    shares = np.array([0.05, 0.15, 1.0])  # 2e-18 and 4e-7 of the level
    found = stopping_boundaries(independent(shares), shares, 0.05, np.random.default_rng(0))
    assert np.isinf(found[:2]).all()
    assert found[2] == pytest.approx(1.959963984540054, abs=1e-8)


def test_looks_that_add_nothing_cost_nothing():
    """All looks see the same estimate: each one's boundary is that of what may be spent up to it."""
    shares = np.arange(1, 29) / 28
    found = stopping_boundaries(np.ones((28, 28)), shares, 0.05, np.random.default_rng(0))
    stops = np.isfinite(found)
    assert found[-1] == pytest.approx(1.96, abs=2e-3)
    alone = 1.959963984540054 / np.sqrt(shares)
    assert found[stops][1:] == pytest.approx(alone[stops][1:], rel=0.03)


def test_a_look_without_variance_is_not_a_look():
    shares = np.array([0.25, 0.5, 1.0])
    covariance = independent(shares)
    covariance[0] = covariance[:, 0] = 0.0
    found = stopping_boundaries(covariance, shares, 0.05, np.random.default_rng(0))
    assert found[0] == np.inf
    assert found[1:] == pytest.approx(
        stopping_boundaries(independent(shares[1:]), shares[1:], 0.05, np.random.default_rng(0)), abs=1e-12
    )


def test_boundaries_of_past_looks_stay_and_the_rest_is_spent_as_declared():
    shares = np.array([0.4, 0.7, 1.0])
    known = np.array([3.5, 2.6])  # neither is what would be found
    bounds = stopping_boundaries(independent(shares), shares, 0.05, np.random.default_rng(0), known)
    assert bounds[:2].tolist() == [3.5, 2.6]
    sd = np.sqrt(shares)
    law = multivariate_normal(cov=independent(shares) / sd / sd[:, None])
    first = multivariate_normal(cov=(independent(shares) / sd / sd[:, None])[:2, :2])
    crossing = first.cdf(bounds[:2], lower_limit=-bounds[:2]) - law.cdf(bounds, lower_limit=-bounds)
    assert crossing == pytest.approx(float(spent_alpha(1.0, 0.05) - spent_alpha(0.7, 0.05)), abs=2e-4)


def test_missed_and_extra_looks_spend_by_their_own_time():
    """Whatever the looks, they have spent all of the level in the end: by 10^6 random walks, error 2 x .0002."""
    rng = np.random.default_rng(100)
    for shares in ([0.3, 1.0], [0.2, 0.21, 0.22, 0.9, 0.95, 1.0]):
        shares = np.array(shares)
        bounds = stopping_boundaries(independent(shares), shares, 0.05, np.random.default_rng(1))
        steps = rng.standard_normal((1_000_000, len(shares))) * np.sqrt(np.diff(shares, prepend=0.0))
        crossed = (np.abs(np.cumsum(steps, axis=1)) >= bounds * np.sqrt(shares)).any(axis=1)
        assert crossed.mean() == pytest.approx(0.05, abs=1.5e-3)


def test_critical_values_of_the_confidence_sequence():
    """The formula by hand for 1,000 users, level .05, planned 1,000: rho^2 = (5.991 + log 6.991) / 1000."""
    rho = (-2 * math.log(0.05) + math.log(1 - 2 * math.log(0.05))) / 1000
    n = 1000 * rho
    by_hand = math.sqrt(2 * (n + 1) / n * math.log(math.sqrt(n + 1) / 0.05))
    assert critical_values(np.array([1000]), 0.05, 1000)[0] == pytest.approx(by_hand, rel=1e-14)
    half_width = critical_values(np.arange(1, 20_000), 0.05, 1000) / np.sqrt(np.arange(1, 20_000))
    assert (np.diff(half_width) < 0).all()  # more users, a narrower interval
    at_planned = [critical_values(np.array([1000]), 0.05, planned)[0] for planned in (100, 800, 1000, 1200, 10_000)]
    assert min(at_planned) == pytest.approx(at_planned[2], rel=2e-3)
    assert critical_values(np.array([1000]), 0.01, 1000, 0.05)[0] > at_planned[2]


@pytest.mark.slow
def test_many_looks_are_conditioned_on_some_of_the_earlier_ones_and_never_lower():
    """112 daily looks with independent increments: at most .01 above the recursion, and not below it."""
    shares = np.arange(1, 113) / 112
    found = stopping_boundaries(independent(shares), shares, 0.05, np.random.default_rng(0))
    stops = np.isfinite(found)
    right = recursive_boundaries(shares[stops], spent_alpha(shares[stops], 0.05))
    assert found[stops] == pytest.approx(right, abs=0.012)
    assert (found[stops] - right).mean() > 0
