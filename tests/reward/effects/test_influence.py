"""Influence functions against derivatives, and effects against statsmodels, diff-diff and a bootstrap."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from crosschannel.core.errors import ConfigError
from crosschannel.histories.history import History
from crosschannel.reward import CovariateSpec, DidReward, Goal, RewardSpec, make_reward
from crosschannel.reward.effects import Effect, TreatmentEffects
from crosschannel.reward.effects.inference import detectable, joint_test, two_sided_p_value
from crosschannel.reward.effects.influence import Influences
from tests.reward.effects.test_oracles import ERROR_TOLERANCE, SPEC, VALUE_TOLERANCE, two_periods
from tests.samples import random_history

pytestmark = pytest.mark.numerics

KINDS = ["raw", "change", "did", "did_regression", "did_dr"]
MANY = RewardSpec(
    goals=(Goal("order", measure="value"),),
    pre="2d",
    post="1d",
    min_controls=3,
    covariates=CovariateSpec(windows=("2d",), events=("visit",), clock=False),
    folds=1,
)
# A difference quotient of second order with step h = 1e-4 is off by its truncation, about h^2 times a third derivative
# (2e-9 at most here, and 100 times as much at h = 1e-3), and by the rounding of an estimate of size 1 divided by h,
# about 1e-12 times the condition of regressions on standardised columns, below 100. Regressions converge to rounding
# (histories.propensities.newton), so that nothing else is left.
DERIVATIVE_TOLERANCE = 1e-7


def with_propensities(history: History, seed: int) -> History:
    chance = np.random.default_rng(seed).uniform(0.2, 0.8, len(history.decisions))
    propensity = np.repeat(chance[:, None], len(history.modules), axis=1)
    return history.with_propensities(propensity, chance, "logged")


@pytest.mark.parametrize("logged", [False, True])
@pytest.mark.parametrize("kind", KINDS)
def test_influence_is_the_derivative_by_the_users_weight(kind, logged):
    """Each user's influence equals what counting the user a little more often does to the re-fitted estimate."""
    history = random_history(3, users=30, effect=1.0)
    if logged:
        history = with_propensities(history, 3)
    model = make_reward(kind, MANY)
    fitted = TreatmentEffects.fit(model, history)
    o = fitted.outcomes
    rows = o.treated & fitted.frame.identified & (o.actions[:, 0] == 1)

    def estimate(weights: np.ndarray) -> float:
        reward = model.fit_outcomes(o, weights).transform_outcomes(o).reward
        return float(np.average(reward[rows], weights=weights[rows]))

    step = 1e-4
    found = fitted.influences.by_user(np.flatnonzero(rows))
    for user in range(0, history.n_users, 3):
        moved = [estimate(np.where(o.user == user, 1.0 + sign * step, 1.0)) for sign in (1, -1)]
        assert found[user] == pytest.approx((moved[0] - moved[1]) / (2 * step), abs=DERIVATIVE_TOLERANCE)


@pytest.mark.parametrize("seed", range(3))
def test_regression_error_equals_diff_diff(seed):
    diff_diff = pytest.importorskip("diff_diff")
    history, table = two_periods(seed)
    mine = TreatmentEffects.fit(make_reward("did_regression", SPEC), history).effect()
    model = diff_diff.CallawaySantAnna(estimation_method="reg")
    columns = {"outcome": "y", "unit": "unit", "time": "period", "first_treat": "first"}
    theirs = model.fit(table, **columns, covariates=["x1", "x2"])
    users = history.n_users
    assert mine.value == pytest.approx(theirs.overall_att, abs=VALUE_TOLERANCE)
    assert mine.se == pytest.approx(theirs.overall_se * np.sqrt(users / (users - 1)), rel=ERROR_TOLERANCE)


def test_effects_by_group_equal_clustered_regressions():
    """Saturated by cell: each group's effect and clustered error equal a weighted regression of the changes."""
    api = pytest.importorskip("statsmodels.api")
    history = random_history(11, users=60, effect=2.0)
    spec = replace(MANY, min_controls=2)
    fitted = TreatmentEffects.fit(DidReward(spec), history)
    o = fitted.outcomes
    effects = fitted.by_action(history, "offer")
    assert [e.label for e in effects] == ["small", "large"]
    for code, mine in enumerate(effects):
        group = o.treated & fitted.frame.identified & (o.actions[:, 1] == code)
        cells, place = np.unique(o.time_bucket[group | o.control], return_inverse=True)
        used = np.flatnonzero(group | o.control)
        dummies = (place[:, None] == np.arange(len(cells))).astype(float)
        # Average of the cell-wise effects with the group's shares: centre the interactions at those shares.
        share = np.array([(o.time_bucket[group] == cell).mean() for cell in cells])
        t = group[used].astype(float)
        kept = np.flatnonzero(share > 0)
        base = kept[0]
        interactions = [t * (dummies[:, k] - share[k] / share[base] * dummies[:, base]) for k in kept[1:]]
        # With sum_k share_k tau_k = theta: tau_base = (theta - sum_k share_k tau_k) / share_base.
        design = np.column_stack([dummies, t * dummies[:, base] / share[base], *interactions])
        design = design[:, np.abs(design).sum(0) > 0]
        fit = api.OLS(o.change[used], design).fit(
            cov_type="cluster", cov_kwds={"groups": o.user[used], "use_correction": False}
        )
        assert mine.value == pytest.approx(fit.params[len(cells)], abs=VALUE_TOLERANCE)
        # Theirs takes the shares as fixed: so is ours once the spread of the cells' effects is taken out.
        tau = dict(zip(cells[kept[1:]], fit.params[len(cells) + 1 :], strict=True))
        tau[cells[base]] = (mine.value - sum(share[k] * tau[cells[k]] for k in kept[1:])) / share[base]
        own = np.array([tau[cell] for cell in o.time_bucket[group]]) - mine.value
        fixed = fitted.influences.by_user(np.flatnonzero(group)) - np.bincount(
            o.user[group], own / group.sum(), fitted.influences.users
        )
        assert np.sqrt((fixed**2).sum()) == pytest.approx(fit.bse[len(cells)], abs=ERROR_TOLERANCE)


@pytest.mark.parametrize("kind", KINDS)
def test_errors_equal_a_user_bootstrap(kind):
    """200 re-fitted bootstrap replicates: their spread has an error of 5 %; cross-fitting in small logs adds some."""
    history = random_history(5, users=120, effect=1.0)
    model = make_reward(kind, replace(MANY, folds=3))
    fitted = TreatmentEffects.fit(model, history)
    o = fitted.outcomes
    rows = o.treated & fitted.frame.identified
    rng = np.random.default_rng(0)
    values = []
    for _ in range(200):
        w = rng.multinomial(history.n_users, np.full(history.n_users, 1 / history.n_users)).astype(float)[o.user]
        reward = model.fit_outcomes(o, w).transform_outcomes(o).reward
        values.append(np.average(reward[rows], weights=w[rows]))
    assert fitted.effect().se == pytest.approx(np.std(values), rel=0.2)


def test_a_kind_without_influence_function_is_refused():
    fitted = TreatmentEffects.fit(DidReward(MANY), random_history(1))
    with pytest.raises(ConfigError, match="'mine' has no influence function"):
        Influences.build("mine", fitted.outcomes, MANY, fitted.frame, [fitted.frame.reward])


@pytest.mark.parametrize(("n", "k"), [(3, 2), (12, 3), (60, 8)])
def test_joint_test_equals_hotellings_in_statsmodels(n, k):
    """Both take the same few products of a well-conditioned sample: only rounding tells them apart."""
    oracle = pytest.importorskip("statsmodels.stats.multivariate")
    x = np.random.default_rng(k).standard_normal((n, k)) + 0.3
    theirs = oracle.test_mvmean(x, np.zeros(k))
    # Influences that have V = sum / (n - 1) / n, as the test of a mean has it.
    mine = joint_test(x.mean(0), (x - x.mean(0)) / n)
    assert (mine.freedom, mine.clusters) == (k, n)
    assert mine.statistic == pytest.approx(theirs.t2, rel=1e-9)
    assert mine.p_value == pytest.approx(theirs.pvalue, rel=1e-9)


@pytest.mark.parametrize("n", [3, 12, 400])
def test_the_stated_difference_equals_the_power_of_a_t_test_in_statsmodels(n):
    """With one estimate the joint test is the t-test. Both solve for it, theirs to a relative error of about 1e-8."""
    oracle = pytest.importorskip("statsmodels.stats.power")
    x = np.random.default_rng(n).standard_normal((n, 1))
    influence = (x - x.mean(0)) / n
    theirs = oracle.TTestPower().solve_power(nobs=n, alpha=0.05, power=0.8) * x.std(ddof=1)
    assert detectable(influence)[0] == pytest.approx(theirs, rel=1e-6)


def test_the_stated_difference_has_no_upper_bound():
    """41 users and 40 estimates leave one degree of freedom: the noncentrality is far above 10,000."""
    stats = pytest.importorskip("scipy.stats")
    influence = np.linalg.qr(np.random.default_rng(0).standard_normal((41, 40)))[0] * np.sqrt(40 / 41)
    noncentrality = detectable(influence)[0] ** 2  # of a covariance that is the identity
    assert noncentrality > 1e4
    assert stats.ncf.cdf(stats.f.isf(0.05, 40, 1), 40, 1, noncentrality) == pytest.approx(0.2, rel=1e-9)


def test_intervals_and_p_values_are_students():
    """Tabulated quantiles, to their last printed digit."""
    for users, quantile in ((2, 12.706), (11, 2.228), (61, 2.000), (10**9, 1.960)):
        effect = Effect("push", 1.0, 0.5, 10, 10, n_users=users)
        assert (1.0 - effect.low) / 0.5 == pytest.approx(quantile, abs=5e-4)
        assert (effect.high - 1.0) / 0.5 == pytest.approx(quantile, abs=5e-4)
        assert two_sided_p_value(-quantile, users - 1) == pytest.approx(0.05, abs=1e-4)
    assert np.isnan(two_sided_p_value(2.0, 0))


def test_joint_test_keeps_its_level_with_few_users():
    """4,000 samples of 12 users and 3 estimates: 5 % are rejected; the chi-square test would reject about 20 %."""
    rng = np.random.default_rng(0)
    rejected = []
    for _ in range(4000):
        x = rng.standard_normal((12, 3))
        rejected.append(joint_test(x.mean(0), (x - x.mean(0)) / 12).p_value < 0.05)
    assert 0.04 < np.mean(rejected) < 0.06


def test_the_stated_difference_is_found_four_times_in_five():
    """4,000 samples of 60 users and 4 correlated estimates, one of which is off: binomial error 0.6 %."""
    rng = np.random.default_rng(1)
    mix = np.linalg.cholesky(np.full((4, 4), 0.5) + 0.5 * np.eye(4))
    # Influences whose estimated covariance is the true one, of means over 60: mix mix' / 60.
    influence = np.linalg.qr(rng.standard_normal((60, 4)))[0] @ mix.T * np.sqrt(59 / 60 / 60)
    size = detectable(influence)
    found = []
    for _ in range(4000):
        x = rng.standard_normal((60, 4)) @ mix.T
        x[:, 2] += size[2]
        found.append(joint_test(x.mean(0), (x - x.mean(0)) / 60).p_value < 0.05)
    assert abs(np.mean(found) - 0.8) < 0.03
