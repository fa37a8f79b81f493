"""Effects by intention to treat: examples by hand, and what adjustment, strata and clusters do."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import statsmodels.api as sm
from scipy.stats import ttest_ind

from crosschannel.evaluation.trials import arm_means
from crosschannel.evaluation.trials import contrast as contrast_and_influence
from crosschannel.evaluation.trials.effects import MIN_USERS_OF_STRATUM, merge_small_strata


def contrast(means, treated, control):
    return contrast_and_influence(means, treated, control)[0]


#: So many users with an outcome, and so little kurtosis, that the variance of each arm is known from it.
KNOWN = {"active": np.full(2, 1000), "own_fourth": np.zeros(2)}
OUTCOME = np.array([3.0, 5.0, 4.0, 1.0, 2.0, 0.0, 3.0])
ARM = np.array([1, 1, 1, 0, 0, 0, 0])


def test_without_adjustment_it_is_the_difference_of_means_with_the_variance_of_welch():
    """Means 4 and 1.5; variances 1 / 3 and (0.25 + 0.25 + 2.25 + 2.25) / 3 / 4 = 5 / 12."""
    one = contrast(replace(arm_means(OUTCOME, ARM, 2), **KNOWN), 1, 0)
    assert one.difference == pytest.approx(2.5, abs=1e-12)
    assert one.se**2 == pytest.approx(1 / 3 + 5 / 12, abs=1e-12)
    assert one.users == (3, 4)
    welch = ttest_ind(OUTCOME[ARM == 1], OUTCOME[ARM == 0], equal_var=False)
    assert one.difference / one.se == pytest.approx(welch.statistic, abs=1e-12)


def test_the_relative_lift_is_by_the_delta_method():
    """R = 2.5 / 1.5; its variance is var_1 / 1.5^2 + (4 / 1.5^2)^2 var_0 by hand."""
    outcome = np.tile(OUTCOME, 10)
    arm = np.tile(ARM, 10)
    one = contrast(arm_means(outcome, arm, 2), 1, 0)
    var_1, var_0 = outcome[arm == 1].var(ddof=1) / 30, outcome[arm == 0].var(ddof=1) / 40
    by_hand = var_1 / 1.5**2 + (4 / 1.5**2) ** 2 * var_0
    assert one.relative == pytest.approx(2.5 / 1.5, abs=1e-12)
    assert one.relative_se**2 == pytest.approx(by_hand, rel=1e-12)
    interval = one.relative_interval(1.96)
    assert interval.low < one.relative < interval.high


def test_a_relative_lift_of_a_mean_near_zero_is_undefined():
    one = contrast(arm_means(OUTCOME - 1.5, ARM, 2), 1, 0)
    assert np.isnan(one.relative)
    assert not one.relative_interval(1.96).is_defined


def test_a_relative_lift_of_a_control_without_the_outcome_is_undefined():
    """The period before moves the adjusted mean of the control above zero, though none of its users has the event."""
    rng = np.random.default_rng(3)
    arm = np.repeat([1, 0], [400, 100])
    before = rng.normal(size=500) - 0.5 * (arm == 0)
    outcome = ((before > 1.0) & (arm == 1)).astype(float)
    means = arm_means(outcome, arm, 2, before)
    assert means.mean[0] > 0
    one = contrast(means, 1, 0)
    assert np.isnan(one.relative)
    assert not one.relative_interval(1.96).is_defined
    assert one.interval(1.96).is_defined


def test_strata_weigh_differences_by_their_users():
    """Stratum 0 has 4 of 10 users and the lift 1, stratum 1 has 6 and the lift 3: in all .4 + 1.8 = 2.2."""
    outcome = np.array([1.0, 3.0, 2.0, 4.0, 0.0, 2.0, 1.0, 3.0, 5.0, 3.0])
    arm = np.array([0, 0, 1, 1, 0, 0, 0, 0, 1, 1])
    stratum = np.array([0, 0, 0, 0, 1, 1, 1, 1, 1, 1])
    outcome[arm == 1] += np.where(stratum[arm == 1] == 1, 0.5, 0.0)
    one = contrast(replace(arm_means(outcome, arm, 2, stratum=stratum), **KNOWN), 1, 0)
    lifts = 1.0, 4.5 - 1.5
    assert one.difference == pytest.approx(0.4 * lifts[0] + 0.6 * lifts[1], abs=1e-12)
    # Within strata: variances s^2 / n of each arm, with squared weights; between: n_s (lift_s - lift)^2 / n^2.
    # The residuals of a cell add up to 0, so that the two parts do not mix.
    within = 0.16 * (2 / 2 + 2 / 2) + 0.36 * (5 / 3 / 4 + 2 / 2)
    between = (4 * (lifts[0] - 2.2) ** 2 + 6 * (lifts[1] - 2.2) ** 2) / 100
    assert one.se**2 == pytest.approx(within + between, abs=1e-12)


def test_the_influences_of_strata_and_covariate_are_those_of_leaving_a_user_out():
    """The covariate is balanced between arms, so that its slope does not matter: error of order 1 / users."""
    rng = np.random.default_rng(100)
    n, many = 40, 200
    arm, stratum = np.arange(n) % 2, (np.arange(n) // 2) % 2
    x = np.repeat(rng.normal(size=n // 2), 2)
    y = x + arm * (1 + stratum) + rng.normal(size=n)
    y, arm, x, stratum = (np.tile(values, many) for values in (y, arm, x, stratum))
    whole, influence = contrast_and_influence(arm_means(y, arm, 2, x, stratum), 1, 0)
    for user in range(8):
        kept = np.arange(n * many) != user
        less = contrast(arm_means(y[kept], arm[kept], 2, x[kept], stratum[kept]), 1, 0)
        assert whole.difference - less.difference == pytest.approx(influence[user], rel=0.01, abs=1e-7)


@pytest.mark.parametrize("correlation", [0.0, 0.5, 0.9])
def test_the_period_before_takes_away_the_square_of_its_correlation(correlation):
    """CUPED: the variance falls by rho^2, with an error of a few parts in sqrt(n)."""
    rng = np.random.default_rng(101)
    n = 200_000
    x = rng.normal(size=n)
    y = correlation * x + np.sqrt(1 - correlation**2) * rng.normal(size=n)
    arm = rng.integers(0, 2, n)
    plain = contrast(arm_means(y, arm, 2), 1, 0)
    adjusted = contrast(arm_means(y, arm, 2, x), 1, 0)
    assert (adjusted.se / plain.se) ** 2 == pytest.approx(1 - correlation**2, abs=4 / np.sqrt(n))
    assert arm_means(y, arm, 2, x).theta == pytest.approx(correlation, abs=4 / np.sqrt(n))


def test_a_covariate_that_is_the_same_for_all_changes_nothing():
    plain = arm_means(OUTCOME, ARM, 2)
    assert arm_means(OUTCOME, ARM, 2, np.full(7, 3.0)).mean == pytest.approx(plain.mean, abs=1e-12)
    assert arm_means(OUTCOME, ARM, 2, np.full(7, 3.0)).theta == 0.0


def test_clusters_add_up_by_hand():
    """Two clusters of each arm: the residuals of each arm's clusters are +-r, so its variance is 2 r^2 / n^2 x 2."""
    outcome = np.array([1.0, 2.0, 3.0, 4.0, 5.0, 5.0, 8.0, 6.0])
    arm = np.array([0, 0, 0, 0, 1, 1, 1, 1])
    cluster = np.array([0, 0, 1, 1, 2, 2, 3, 3])
    one, influence = contrast_and_influence(arm_means(outcome, arm, 2, cluster=cluster), 1, 0)
    assert one.difference == pytest.approx(3.5, abs=1e-12)
    by_hand = 2 * (2 * (2.0 / 4) ** 2) + 2 * (2 * (2.0 / 4) ** 2)
    assert one.se**2 == pytest.approx(by_hand, abs=1e-12)
    assert len(influence) == 4


def test_clusters_of_one_user_are_users():
    rng = np.random.default_rng(102)
    arm, y = np.arange(60) % 2, rng.normal(size=60)
    alone = contrast(arm_means(y, arm, 2, cluster=rng.permutation(60)), 1, 0)
    assert alone.se == pytest.approx(contrast(arm_means(y, arm, 2), 1, 0).se, rel=1e-12)


def test_intervals_of_users_in_clusters_cover_only_with_the_clusters():
    """Households of four with a shared part of half the variance, 400 trials without an effect."""
    rng = np.random.default_rng(103)
    rejected = {"users": 0, "clusters": 0}
    for _ in range(400):
        household = np.repeat(np.arange(200), 4)
        y = rng.normal(size=200)[household] + rng.normal(size=800)
        arm = (rng.permutation(200) % 2)[household]
        rejected["users"] += abs(contrast(arm_means(y, arm, 2), 1, 0).z) > 1.96
        rejected["clusters"] += abs(contrast(arm_means(y, arm, 2, cluster=household), 1, 0).z) > 1.96
    assert rejected["clusters"] / 400 < 0.05 + 3 * np.sqrt(0.05 * 0.95 / 400)
    assert rejected["users"] / 400 > 0.12


def test_few_users_that_account_for_the_error_make_it_wider():
    rng = np.random.default_rng(104)
    y = np.where(np.arange(2000) < 6, 1000.0, 0.0) + rng.normal(size=2000)
    arm = np.where(np.arange(2000) < 5, 1, np.arange(2000) % 2)
    one = contrast(arm_means(y, arm, 2), 1, 0)
    assert one.freedom < 20
    assert abs(one.z) < abs(one.difference) / one.se
    assert one.interval(1.96).high - one.difference > 1.96 * one.se
    # The interval and the test say the same.
    assert one.interval(abs(one.z)).low == pytest.approx(0.0, abs=1e-6 * one.difference)


def test_an_outcome_without_events_is_no_evidence():
    one = contrast(arm_means(np.zeros(7), ARM, 2), 1, 0)
    assert (one.difference, one.z, one.p_value) == (0.0, 0.0, 1.0)
    assert not one.interval(1.96).is_defined


def test_small_strata_become_one():
    sizes = {0: 40, 1: 40, 2: 4, 3: 4, 4: 4}
    stratum = np.repeat(list(sizes), list(sizes.values()))
    arm = np.arange(len(stratum)) % 2
    merged = merge_small_strata(stratum, arm, 2)
    assert len(np.unique(merged)) == 3
    assert len(np.unique(merged[stratum >= 2])) == 1
    counts = np.bincount(merged * 2 + arm)
    assert counts.min() >= MIN_USERS_OF_STRATUM
    lonely = np.where(np.arange(100) == 7, 1, 0)
    assert len(np.unique(merge_small_strata(lonely, np.arange(100) % 2, 2))) == 1


def test_the_adjusted_difference_is_the_coefficient_of_an_analysis_of_covariance():
    """statsmodels: Y on arm and X. Its errors (HC2) differ in the degrees of freedom of two more parameters only."""
    rng = np.random.default_rng(105)
    arm = rng.integers(0, 2, 400)
    x = rng.gamma(1.0, 1.0, 400)
    y = 0.8 * x + 0.3 * arm + rng.normal(size=400) * (1 + x)
    fit = sm.OLS(y, sm.add_constant(np.stack([arm, x], axis=1))).fit(cov_type="HC2")
    one = contrast(arm_means(y, arm, 2, x), 1, 0)
    assert one.difference == pytest.approx(fit.params[1], rel=1e-10)
    assert arm_means(y, arm, 2, x).theta == pytest.approx(fit.params[2], rel=1e-10)
    assert one.se == pytest.approx(fit.bse[1], rel=0.01)


def test_errors_of_clusters_are_those_of_statsmodels():
    """Y on arm with errors by cluster, whose factor is G / (G - 1) for all clusters and (n - 1) / (n - k)."""
    rng = np.random.default_rng(106)
    cluster = rng.integers(0, 120, 900)
    arm = (rng.random(120) < 0.5).astype(np.int64)[cluster]
    y = rng.normal(size=120)[cluster] + rng.normal(size=900)
    _, cluster = np.unique(cluster, return_inverse=True)
    fit = sm.OLS(y, sm.add_constant(arm)).fit(cov_type="cluster", cov_kwds={"groups": cluster})
    one = contrast(arm_means(y, arm, 2, cluster=cluster), 1, 0)
    assert one.difference == pytest.approx(fit.params[1], rel=1e-10)
    assert one.se == pytest.approx(fit.bse[1], rel=0.02)


def test_exchanging_arms_changes_the_sign_alone():
    rng = np.random.default_rng(107)
    arm, x = rng.integers(0, 2, 300), rng.normal(size=300)
    y, stratum = x + rng.normal(size=300), rng.integers(0, 3, 300)
    one = contrast(arm_means(y, arm, 2, x, stratum), 1, 0)
    other = contrast(arm_means(y, 1 - arm, 2, x, stratum), 1, 0)
    assert (one.difference, one.se, one.z) == pytest.approx((-other.difference, other.se, -other.z), rel=1e-12)


def test_an_arm_without_a_rare_event_takes_its_variance_from_both():
    """No event among 4 users, 2 among 8 (variance 12 / 7 / 8): pooled (8 x 12 / 56) / 12 x (1 / 8 + 1 / 4)."""
    outcome = np.array([1.0, 1.0, *[0.0] * 10])
    arm = np.array([1] * 8 + [0] * 4)
    one = contrast(arm_means(outcome, arm, 2), 1, 0)
    variance = (2 * 0.75**2 + 6 * 0.25**2) / 7
    assert one.se**2 == pytest.approx(8 * variance / 12 * (1 / 8 + 1 / 4), abs=1e-12)
    many = contrast(arm_means(np.tile(outcome, 40), np.tile(arm, 40), 2), 1, 0)
    assert many.se**2 == pytest.approx(
        (320 * outcome[arm == 1].var() * 320 / 319) / 480 * (1 / 320 + 1 / 160), rel=1e-12
    )  # none of 160 is still none


@pytest.mark.parametrize("correct", [True, False])
def test_rare_events_in_a_small_arm_are_not_found_by_chance(correct):
    """A holdout of 150 beside 1,200 users, 1.5 % have the event: 2,000 trials without an effect at .005 and at .05.

    Without the variance of both arms, trials in which the holdout has no event would be significant: e^-2.25 = 10 %.
    """
    rng = np.random.default_rng(108)
    arm = np.array([1] * 1200 + [0] * 150)
    found = np.zeros(2)
    for _ in range(2000):
        means = arm_means((rng.random(1350) < 0.015).astype(float), arm, 2)
        z = abs(contrast(means if correct else replace(means, **KNOWN), 1, 0).z)
        found += [z >= 2.807, z >= 1.96]
    rates = found / 2000
    if correct:
        assert rates[0] <= 0.005 + 3 * np.sqrt(0.005 / 2000)
        assert rates[1] <= 0.05 + 3 * np.sqrt(0.05 / 2000)
    else:
        assert rates[0] > 0.05


@pytest.mark.parametrize("correct", [True, False])
def test_a_small_arm_without_those_who_buy_most_is_not_worse_by_chance(correct):
    """A holdout of 75 beside 1,425 users whose amounts are log-normal (1.5): 600 trials without an effect, at .05.

    By its own variance the holdout is significantly worse in one of seven: it has none of the few who buy most.
    """
    rng = np.random.default_rng(110)
    arm = np.array([1] * 1425 + [0] * 75)
    found = 0
    for _ in range(600):
        amount = rng.poisson(1.5, 1500) * rng.lognormal(0.0, 1.5, 1500)
        means = arm_means(amount, arm, 2)
        found += abs(contrast(means if correct else replace(means, own_fourth=np.zeros(2)), 1, 0).z) >= 1.96
    if correct:
        assert found / 600 <= 0.05 + 3 * np.sqrt(0.05 / 600)
    else:
        assert found / 600 > 0.08


def test_an_arm_of_ordinary_amounts_keeps_its_own_variance():
    """Normal amounts: 40 users of an arm know their variance, which is a quarter of the other arm's."""
    rng = np.random.default_rng(111)
    arm = np.array([1] * 400 + [0] * 40)
    amount = 5.0 + rng.normal(size=440) * np.where(arm == 1, 1.0, 0.5)
    one = contrast(arm_means(amount, arm, 2), 1, 0)
    expected = amount[arm == 1].var(ddof=1) / 400 + amount[arm == 0].var(ddof=1) / 40
    assert one.se**2 == pytest.approx(expected, rel=1e-9)
