"""Cluster-robust errors and tests from influence functions."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from crosschannel.core.arrays import FloatArray, IntArray

Z95 = 1.959963984540054


def cluster_sums(influence: FloatArray, cluster: IntArray) -> FloatArray:
    """Sums of influence functions (n, k) within each cluster (G, k); `cluster` holds codes (n,)."""
    codes, place = np.unique(cluster, return_inverse=True)
    if len(codes) == len(cluster):
        return influence
    out = np.zeros((len(codes), influence.shape[1]))
    np.add.at(out, place, influence)
    return out


def clustered_se(influence: FloatArray, cluster: IntArray) -> FloatArray:
    """Cluster-robust standard errors (k,) of estimates with influence functions (n, k)."""
    sums = cluster_sums(influence, cluster)
    return np.asarray(np.sqrt((sums**2).sum(0)) / len(influence))


def _quadratic(value: FloatArray, v: FloatArray) -> tuple[float, int]:
    """`value' V^+ value` and the rank of V (k, k); 0 and 0 where V is 0."""
    if len(value) == 0:
        return 0.0, 0
    eigenvalues, vectors = np.linalg.eigh(v)
    kept = eigenvalues > max(float(eigenvalues.max()), 0.0) * 1e-10
    projected = vectors[:, kept].T @ value
    return float((projected**2 / eigenvalues[kept]).sum()), int(kept.sum())


@dataclass(frozen=True)
class JointTest:
    """A joint test that several estimates are all 0.

    Attributes:
        statistic: The Wald statistic; NaN where nothing could be tested.
        freedom: How many independent estimates it tests.
        clusters: Users that it rests on.
        p_value: Probability of a larger statistic if all are 0; NaN where nothing could be tested.
    """

    statistic: float
    freedom: int
    clusters: int
    p_value: float


def joint_test(value: FloatArray, sums: FloatArray) -> JointTest:
    r"""Wald test that all estimates (k,) are 0, from the influence of each of G users (G, k), in small samples too.

    .. math:: W = \hat\theta^\top \hat V^{+} \hat\theta, \qquad
        \frac{G - q}{q (G - 1)} W \sim F_{q, G - q}, \qquad \hat V = \frac{G}{G - 1} \sum_u \psi_u \psi_u^\top

    with q the rank of V. Hotelling (1931), "The generalization of Student's ratio", Annals of Mathematical Statistics.
    """
    g = int(np.any(sums != 0, axis=1).sum())
    statistic, q = _quadratic(value, _small_sample(sums, g))
    if q == 0 or g <= q:
        return JointTest(math.nan, q, g, math.nan)
    return JointTest(statistic, q, g, f_tail(statistic * (g - q) / (q * (g - 1)), q, g - q))


def _small_sample(sums: FloatArray, g: int) -> FloatArray:
    return np.asarray(sums.T @ sums * (g / max(g - 1, 1)))


def detectable(sums: FloatArray, level: float = 0.05, power: float = 0.8) -> FloatArray:
    r"""How far each estimate (k,) alone must be from 0 for `joint_test` to find it with the given power.

    .. math:: \delta_j = \sqrt{\lambda / (\hat V^{-1})_{jj}}, \qquad P(F_{q, G - q}(\lambda) > f_{level}) = power

    with F the noncentral distribution: a joint test of many estimates needs a larger difference in one of them than a
    test of that one alone. Infinite where nothing could be tested. Cohen (1988), "Statistical power analysis for the
    behavioral sciences", chapter 9.

    Args:
        sums: Influence of each of G users (G, k).
        level: Level of the test.
        power: Probability of finding it.
    """
    g, k = int(np.any(sums != 0, axis=1).sum()), sums.shape[1]
    v = _small_sample(sums, g)
    q = int(np.linalg.matrix_rank(v, hermitian=True)) if k else 0
    if q == 0 or g <= q:
        return np.full(k, np.inf)
    limit = _solve(lambda f: level - f_tail(f, q, g - q), 1e6)
    needed = _solve(lambda x: noncentral_f_tail(limit, q, g - q, x) - power, 1e4)
    precision = np.diag(np.linalg.pinv(v, hermitian=True))
    with np.errstate(divide="ignore"):
        return np.asarray(np.sqrt(needed / np.maximum(precision, 0.0)))


def _solve(rising: Callable[[float], float], high: float) -> float:
    """Where an increasing function crosses 0, between 0 and `high`, by bisection."""
    low = 0.0
    for _ in range(100):
        middle = (low + high) / 2.0
        low, high = (low, middle) if rising(middle) > 0 else (middle, high)
    return (low + high) / 2.0


def noncentral_f_tail(statistic: float, d1: int, d2: int, noncentrality: float) -> float:
    """Probability that a noncentral F variable exceeds a value: a Poisson mixture of beta distributions."""
    half = noncentrality / 2.0
    x = d2 / (d2 + d1 * statistic)
    terms = int(half + 12.0 * math.sqrt(half) + 40.0)
    weight = [math.exp(j * math.log(half) - half - math.lgamma(j + 1)) if half else float(j == 0) for j in range(terms)]
    return sum(w * incomplete_beta(d2 / 2.0, d1 / 2.0 + j, x) for j, w in enumerate(weight) if w > 1e-16)


def f_tail(statistic: float, d1: int, d2: int) -> float:
    """Probability that an F variable with d1 and d2 degrees of freedom exceeds a value."""
    if statistic <= 0:
        return 1.0
    return incomplete_beta(d2 / 2.0, d1 / 2.0, d2 / (d2 + d1 * statistic))


def student_quantile(freedom: float) -> float:
    """The 0.975 quantile of Student's t: 1.96 for many degrees of freedom, more for few; found by bisection."""
    if freedom > 1e6:
        return Z95
    return _solve(lambda t: 0.05 - two_sided(t, freedom), 13.0)


def two_sided(t: float, freedom: float) -> float:
    """Probability of a t-statistic farther from 0 in either direction."""
    return incomplete_beta(freedom / 2.0, 0.5, freedom / (freedom + t**2)) if freedom > 0 else math.nan


def incomplete_beta(a: float, b: float, x: float) -> float:
    """The regularised incomplete beta function, by Lentz's continued fraction; accurate to about 1e-12.

    Press, Teukolsky, Vetterling & Flannery (1992), "Numerical recipes", section 6.4.
    """
    if x <= 0.0 or x >= 1.0:
        return float(x >= 1.0)
    if x > (a + 1.0) / (a + b + 2.0):
        return 1.0 - incomplete_beta(b, a, 1.0 - x)
    front = math.exp(math.lgamma(a + b) - math.lgamma(a) - math.lgamma(b) + a * math.log(x) + b * math.log1p(-x))
    tiny = 1e-300
    c, d = 1.0, 1.0 / (1.0 - (a + b) * x / (a + 1.0) or tiny)
    fraction = d
    for m in range(1, 10_000):
        even = m * (b - m) * x / ((a + 2 * m - 1) * (a + 2 * m))
        odd = -(a + m) * (a + b + m) * x / ((a + 2 * m) * (a + 2 * m + 1))
        step = 1.0
        for term in (even, odd):
            d = 1.0 / (1.0 + term * d or tiny)
            c = 1.0 + term / c or tiny
            step *= c * d
        fraction *= step
        if abs(step - 1.0) < 1e-15:
            break
    return front * fraction / a
