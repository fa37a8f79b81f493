"""Checks of the randomisation: exact and asymptotic p-values, and what they find."""

from __future__ import annotations

import numpy as np
import pytest
from scipy.stats import binomtest, chisquare, multinomial

from crosschannel.evaluation.trials import sample_ratio_p_value
from crosschannel.evaluation.trials.checks import (
    check_differences,
    check_entry,
    check_shares,
    clustered_ratio_p_value,
)


def test_the_sample_ratio_of_many_users_is_tested_by_chi_square():
    """50,000 to 49,000 where equal shares were meant: X^2 = 500^2 / 49500 x 2."""
    counts = np.array([50_000, 49_000])
    assert sample_ratio_p_value(counts, np.array([0.5, 0.5])) == pytest.approx(chisquare(counts).pvalue, rel=1e-12)
    assert check_shares(("a", "b"), counts, {"a": 0.5, "b": 0.5}, "users").passed is True
    found = check_shares(("a", "b"), np.array([51_000, 49_000]), {"a": 0.5, "b": 0.5}, "users")
    assert (found.passed, found.invalidates) == (False, True)
    assert "Do not read the lifts" in found.remedy


def test_with_few_users_it_is_exact():
    for counts in ([9, 1], [3, 5], [0, 7]):
        exact = binomtest(counts[0], sum(counts), 0.5).pvalue
        assert sample_ratio_p_value(np.array(counts), np.array([0.5, 0.5])) == pytest.approx(exact, rel=1e-9)


def test_with_few_users_of_three_arms_it_sums_all_counts_that_are_no_more_probable():
    shares, counts = np.array([0.1, 0.3, 0.6]), np.array([4, 2, 6])
    law = multinomial(12, shares)
    every = [(a, b, 12 - a - b) for a in range(13) for b in range(13 - a)]
    p = np.array([law.pmf(one) for one in every])
    exact = p[p <= law.pmf(counts) * (1 + 1e-7)].sum()
    assert sample_ratio_p_value(counts, shares) == pytest.approx(exact, rel=1e-9)


def test_the_exact_test_has_its_level():
    """Of 4,000 samples of 30 users: p <= .05 in at most .05 + 3 standard errors."""
    counts = np.random.default_rng(100).multinomial(30, [0.1, 0.3, 0.6], size=4000)
    p = np.array([sample_ratio_p_value(one, np.array([0.1, 0.3, 0.6])) for one in counts[:800]])
    assert (p <= 0.05).mean() <= 0.05 + 3 * np.sqrt(0.05 * 0.95 / 800)
    assert (p <= 0.05).mean() > 0.02


def test_shares_that_are_not_declared_are_not_tested():
    found = check_shares(("a", "b"), np.array([1, 99]), {}, "users")
    assert found.passed is None
    assert "trial.shares" in found.remedy
    assert check_shares(("a", "b"), np.array([1, 99]), {"a": 0.5}, "users").passed is None


def test_entry_that_depends_on_the_arm_is_found():
    assert check_entry(("a", "b"), np.array([[10, 10], [0, 0], [0, 0]])) is None
    fair = check_entry(("a", "b"), np.array([[900, 890], [100, 110], [0, 0]]))
    assert fair is not None
    assert fair.passed is True
    lost = check_entry(("a", "b"), np.array([[900, 700], [100, 90], [0, 210]]))
    assert lost is not None
    assert (lost.passed, lost.invalidates) == (False, True)
    assert "history.observed_from: log" in lost.remedy


def test_several_differences_are_judged_together():
    """The least of 10 p-values, .005, is .05 by Holm's method."""
    passed = check_differences("balance", [f"x{k}" for k in range(10)], [0.005] + [0.5] * 9, "Look.")
    assert passed.p_value == pytest.approx(0.05)
    assert (passed.passed, passed.remedy) == (True, "")
    assert "x0" in passed.finding
    failed = check_differences("balance", ["x", "y"], [0.004, np.nan], "Look.")
    assert (failed.passed, failed.remedy, failed.invalidates) == (False, "Look.", False)
    assert check_differences("balance", ["x", "y"], [1e-7, 0.4], "Look.").invalidates
    assert check_differences("balance", [], [], "Look.").passed is None


def households(seed: int, clusters: int = 600) -> np.ndarray:
    """Return the users of each household by arm: sizes 1 to 5, drawn as a whole into .5, .3 and .2."""
    rng = np.random.default_rng(seed)
    arm = rng.choice(3, clusters, p=SHARES)
    return np.eye(3, dtype=np.int64)[arm] * (1 + rng.binomial(4, 0.25, clusters))[:, None]


SHARES = np.array([0.5, 0.3, 0.2])
DECLARED = {"new": 0.5, "old": 0.3, "holdout": 0.2}


def check_of(members: np.ndarray):
    counts = (members > 0).sum(axis=0)
    return check_shares(tuple(DECLARED), counts, DECLARED, "clusters", members)


def test_users_of_households_who_are_missing_from_one_arm_are_found():
    """A third of the users of one arm are lost, one by one: most of its households are still there, and smaller."""
    rng, members = np.random.default_rng(1), households(0, 1200)
    assert check_of(members).passed
    lost = members.copy()
    lost[:, 1] -= rng.binomial(members[:, 1], 1 / 3)
    lost = lost[lost.sum(axis=1) > 0]
    assert sample_ratio_p_value((lost > 0).sum(axis=0), SHARES) > 0.001
    found = check_of(lost)
    assert not found.passed
    assert "(users: new " in found.finding


def test_the_ratio_of_users_in_households_has_its_level():
    """Sizes vary, so that users are not independent: the plain test of users fails too often, this one does not."""
    p = np.array([clustered_ratio_p_value(households(seed), SHARES) for seed in range(600)])
    plain = np.array([sample_ratio_p_value(households(seed).sum(axis=0), SHARES) for seed in range(600)])
    assert 0.02 < (p < 0.05).mean() < 0.05 + 3 * np.sqrt(0.05 * 0.95 / 600)
    assert (plain < 0.05).mean() > 0.1
    assert np.isnan(clustered_ratio_p_value(households(0, 40), SHARES))
    alone = np.eye(3, dtype=np.int64)[np.repeat([0, 1, 2], [290, 190, 120])]  # each household is one user
    assert clustered_ratio_p_value(alone, SHARES) == pytest.approx(sample_ratio_p_value(alone.sum(axis=0), SHARES))
