"""Intention-to-treat effects of arms by user, adjusted for the period before and for strata."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from scipy.special import ndtr, ndtri, stdtr, stdtrit

from crosschannel.core.arrays import BoolArray, FloatArray, IntArray
from crosschannel.evaluation.bootstrap import UNDEFINED, Interval, degrees_of_freedom

#: A stratum needs this many users of every arm; smaller ones are compared as one.
MIN_USERS_OF_STRATUM = 5
#: Where fewer users of an arm have an outcome other than 0, its variance is not known from this arm alone. Nor is it
#: where the error of the variance, sqrt((kurtosis - 1) / users), is larger than with so many users and normal outcomes.
MIN_USERS_WITH_OUTCOME = 30
KURTOSIS_OF_NORMAL = 3.0


@dataclass(frozen=True)
class ArmMeans:
    """Adjusted mean outcome of each arm, with what each user contributes to its error.

    Attributes:
        mean: Mean outcome per user (A,).
        users: Users of each arm (A,).
        influence: Influence of each independent unit (user or cluster) on each mean (V, A): its covariance is
            `influence.T @ influence`.
        theta: Slope on the covariate.
        own_variance: Variance of each mean from the residuals of its own users (A,).
        own_fourth: Sum of the fourth powers of what own users add to each mean (A,).
        active: Users of each arm whose outcome is not 0 (A,).
        units: Independent units of each arm (A,): users or clusters.
    """

    mean: FloatArray
    users: IntArray
    influence: FloatArray
    theta: float
    own_variance: FloatArray
    own_fourth: FloatArray
    active: IntArray
    units: IntArray


def arm_means(
    outcome: FloatArray,
    arm: IntArray,
    n_arms: int,
    covariate: FloatArray | None = None,
    stratum: IntArray | None = None,
    cluster: IntArray | None = None,
) -> ArmMeans:
    r"""Estimate the mean outcome of each arm, had all users been in it.

    .. math::
        \hat\mu_a = \sum_s \frac{n_s}{n} \left( \bar Y_{as} - \hat\theta (\bar X_{as} - \bar X_s) \right), \qquad
        \hat\theta = \frac{\sum_{a,s} \sum_i (X_i - \bar X_{as}) (Y_i - \bar Y_{as})}
        {\sum_{a,s} \sum_i (X_i - \bar X_{as})^2}

    with strata s of the users, and a covariate X from before the trial. Its influences are those of the residuals
    within arm and stratum, with the factor :math:`n_{as} / (n_{as} - 1)` in the variance, and those of the shares
    :math:`n_s / n` and means :math:`\bar X_s`, which all users share. With clusters the influences of a cluster's users
    are added, and the factor is that of the number of clusters. Without covariate and strata, the variance of a
    difference is Welch's.

    Assumption: users (clusters) are independent and their arms were drawn at random; the adjustment is right without
    any model of the outcome. Deng, Xu, Kohavi & Walker (2013), "Improving the sensitivity of online controlled
    experiments by utilizing pre-experiment data" (CUPED), WSDM; Miratrix, Sekhon & Yu (2013), "Adjusting treatment
    effect estimates by post-stratification", JRSS B 75; Liang & Zeger (1986), Biometrika 73, for clusters.

    Args:
        outcome: Outcome of each user (n,).
        arm: Code of the arm (n,), from 0 to `n_arms` - 1; each arm has at least two users in every stratum.
        n_arms: Number of arms A.
        covariate: A number from before the trial (n,), or None.
        stratum: Code of the stratum (n,), or None.
        cluster: Code of the cluster (n,), from 0 on, or None.
    """
    n = len(outcome)
    s = np.zeros(n, dtype=np.int64) if stratum is None else stratum
    x = np.zeros(n) if covariate is None else covariate
    n_strata = int(s.max(initial=0)) + 1
    cell = s * n_arms + arm
    size = np.bincount(cell, minlength=n_strata * n_arms).astype(np.float64)

    def means(values: FloatArray) -> FloatArray:
        return np.asarray(np.bincount(cell, values, minlength=len(size)) / np.maximum(size, 1.0))

    y_mean, x_mean = means(outcome), means(x)
    y_rest, x_rest = outcome - y_mean[cell], x - x_mean[cell]
    squares = float(x_rest @ x_rest)
    theta = float(x_rest @ y_rest) / squares if squares > 0 else 0.0
    n_s = size.reshape(n_strata, n_arms).sum(axis=1)
    present = n_s > 0
    x_of_stratum = np.bincount(s, x, minlength=n_strata) / np.maximum(n_s, 1.0)
    shape = (n_strata, n_arms)
    of_cell = y_mean.reshape(shape) - theta * (x_mean.reshape(shape) - x_of_stratum[:, None])
    mean = (n_s[present] / n) @ of_cell[present]

    weight = (n_s[:, None] / n / np.maximum(size.reshape(shape), 1.0)).reshape(-1)
    units = users = np.bincount(arm, minlength=n_arms)
    if cluster is None:
        factor = np.sqrt(size / np.maximum(size - 1.0, 1.0))
    else:
        units = np.array([len(np.unique(cluster[arm == a])) for a in range(n_arms)], dtype=np.int64)
        factor = np.tile(np.sqrt(units / np.maximum(units - 1.0, 1.0)), n_strata)
    influence = (of_cell[s] - mean) / n + (theta * (x - x_of_stratum[s]) / n)[:, None]
    own = np.zeros((n, n_arms))
    own[np.arange(n), arm] = (weight * factor)[cell] * (y_rest - theta * x_rest)
    influence += own
    if cluster is not None:
        influence, own = (_sums_by_cluster(values, cluster) for values in (influence, own))
    return ArmMeans(
        mean=mean,
        users=users,
        influence=influence,
        theta=theta,
        own_variance=np.asarray((own**2).sum(axis=0)),
        own_fourth=np.asarray((own**4).sum(axis=0)),
        active=np.bincount(arm[outcome != 0], minlength=n_arms),
        units=units,
    )


def _sums_by_cluster(values: FloatArray, cluster: IntArray) -> FloatArray:
    """Add up the rows (n, A) of each cluster, (V, A)."""
    out = np.zeros((int(cluster.max(initial=-1)) + 1, values.shape[1]))
    np.add.at(out, cluster, values)
    return out


@dataclass(frozen=True)
class Contrast:
    """Difference of two arms' means at one look.

    Attributes:
        users: Users of both arms, the first arm's first.
        control: Mean of the second arm.
        difference: Mean of the first arm minus that of the second.
        se: Its standard error.
        freedom: Degrees of freedom of the standard error: few where few users account for it.
        relative: Difference as a share of the second arm's mean; NaN where that is not clearly above zero.
        relative_se: Its standard error.
        relative_freedom: Degrees of freedom of that.
    """

    users: tuple[int, int]
    control: float
    difference: float
    se: float
    freedom: float
    relative: float
    relative_se: float
    relative_freedom: float

    @property
    def z(self) -> float:
        """The standardised difference, 0 where it has no error yet.

        It is the normal quantile of the t-statistic's probability, with the degrees of freedom of the standard error.
        """
        if not self.se > 0:
            return 0.0
        t = abs(self.difference) / self.se
        tail = float(stdtr(self.freedom, -t)) if np.isfinite(self.freedom) else float(ndtr(-t))
        return float(np.copysign(-ndtri(max(tail, 1e-300)), self.difference))

    @property
    def p_value(self) -> float:
        """Two-sided p-value of this look alone."""
        return float(2 * ndtr(-abs(self.z)))

    def interval(self, critical: float) -> Interval:
        """Return the difference with an interval of as many standard errors as a normal quantile stands for."""
        return _interval(self.difference, self.se, self.freedom, critical)

    def relative_interval(self, critical: float) -> Interval:
        """Return the relative difference with an interval by the delta method; undefined where it is."""
        if not np.isfinite(self.relative):
            return UNDEFINED
        return _interval(self.relative, self.relative_se, self.relative_freedom, critical)


def _interval(point: float, se: float, freedom: float, critical: float) -> Interval:
    if not se > 0:
        return UNDEFINED
    quantile = critical
    if np.isfinite(freedom) and np.isfinite(critical):
        quantile = float(-stdtrit(freedom, ndtr(-critical)))
    return Interval(point, point - quantile * se, point + quantile * se, se)


def contrast(means: ArmMeans, treated: int, control: int) -> tuple[Contrast, FloatArray]:
    r"""Compare two arms, absolutely and relatively.

    .. math::
        \hat\Delta = \hat\mu_1 - \hat\mu_0, \qquad \hat R = \hat\Delta / \hat\mu_0, \qquad
        \psi_R = (\psi_\Delta - \hat R \psi_0) / \hat\mu_0

    The last one is the delta method: Deng, Knoblich & Lu (2018), "Applying the delta method in metric analytics", KDD.
    Assumption: the control's mean is well above zero; where it is not above zero by 1.96 standard errors, or no user of
    the control has the outcome, so that its mean is what the period before and the strata moved, the relative
    difference is undefined.

    An arm of few users may have none with a rare event, whose variance it then takes for 0, or none of those who buy
    most: then its mean and its variance are both too small, and a small holdout would be worse in far too many trials.
    Where fewer than `MIN_USERS_WITH_OUTCOME` users of an arm have an outcome, or the arm is too small for the kurtosis
    of both arms together, :math:`n < 30 (\kappa - 1) / 2`, the variance of both arms together is used if it is larger,
    :math:`(n_1 s_1^2 + n_0 s_0^2) / (n_1 + n_0) \cdot (1 / n_1 + 1 / n_0)`: all influences grow by one factor.

    Returns:
        The comparison, and the influence of each unit on the difference (V,).
    """
    difference, base = float(means.mean[treated] - means.mean[control]), float(means.mean[control])
    other = means.influence[:, control]
    factor = _rare_factor(means, treated, control)
    influence = (means.influence[:, treated] - other) * factor
    se, freedom = _error(influence)
    relative, relative_se, relative_freedom = np.nan, np.nan, np.inf
    if means.active[control] and base > 1.96 * float(np.sqrt(other @ other)):
        relative = difference / base
        relative_se, relative_freedom = _error((influence - relative * factor * other) / base)
    users = (int(means.users[treated]), int(means.users[control]))
    found = Contrast(
        users=users,
        control=base,
        difference=difference,
        se=se,
        freedom=freedom,
        relative=relative,
        relative_se=relative_se,
        relative_freedom=relative_freedom,
    )
    return found, influence


def _rare_factor(means: ArmMeans, treated: int, control: int) -> float:
    """Return by which factor errors grow because an arm has too few users to know its own variance."""
    arms = [treated, control]
    influence = means.influence[:, treated] - means.influence[:, control]
    variance = float(influence @ influence)
    if not variance > 0 or not _variance_is_unknown(means, arms):
        return 1.0
    users, own = means.users[arms].astype(np.float64), means.own_variance[arms]
    pooled = float(users**2 @ own / users.sum() * (1 / users).sum())
    return float(np.sqrt(max(1.0, 1.0 + (pooled - own.sum()) / variance)))


def _variance_is_unknown(means: ArmMeans, arms: list[int]) -> bool:
    """Return whether one of two arms has too few users with an outcome, or for the kurtosis of both arms together."""
    if means.active[arms].min() < MIN_USERS_WITH_OUTCOME:
        return True
    users = means.users[arms].astype(np.float64)
    second, fourth = float(users**2 @ means.own_variance[arms]), float(users**4 @ means.own_fourth[arms])
    kurtosis = float(means.units[arms].sum()) * fourth / second**2 if second > 0 else KURTOSIS_OF_NORMAL
    needed = MIN_USERS_WITH_OUTCOME * (kurtosis - 1) / (KURTOSIS_OF_NORMAL - 1)
    return bool(means.units[arms].min() < needed)


def _error(influence: FloatArray) -> tuple[float, float]:
    """Return the standard error of a sum of influences (V,), and its degrees of freedom."""
    se = float(np.sqrt(influence @ influence))
    return se, float(degrees_of_freedom(influence)) if se > 0 else np.inf


def merge_small_strata(stratum: IntArray, arm: IntArray, n_arms: int) -> IntArray:
    """Return strata (n,) that each have enough users of every arm; those that are too small become one.

    Where that one is still too small, it is joined with the largest.
    """
    _, code = np.unique(stratum, return_inverse=True)
    code = code.astype(np.int64)

    def small_ones(codes: IntArray) -> BoolArray:
        counts = np.bincount(codes * n_arms + arm, minlength=(codes.max() + 1) * n_arms).reshape(-1, n_arms)
        return np.asarray((counts < MIN_USERS_OF_STRATUM).any(axis=1))

    if not len(code):
        return code
    small = small_ones(code)
    code = np.where(small[code], len(small), code)
    _, code = np.unique(code, return_inverse=True)
    small = small_ones(code)
    if small.any():
        code = np.where(small[code], int(np.argmax(np.bincount(code))), code)
        if small_ones(np.unique(code, return_inverse=True)[1]).any():
            code = np.zeros(len(code), dtype=np.int64)
        _, code = np.unique(code, return_inverse=True)
    return np.asarray(code, dtype=np.int64)
