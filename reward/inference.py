"""Cluster-robust errors and tests from influence functions."""

from __future__ import annotations

import math

import numpy as np

from histories.modules import FloatArray, IntArray

Z95 = 1.959963984540054


def cluster_sums(influence: FloatArray, cluster: IntArray) -> FloatArray:
    """Sums of influence functions (n, k) within each cluster (G, k); `cluster` holds codes (n,)."""
    codes, place = np.unique(cluster, return_inverse=True)
    if len(codes) == len(cluster):
        return influence
    out = np.zeros((len(codes), influence.shape[1]))
    np.add.at(out, place, influence)
    return out


def covariance(influence: FloatArray, cluster: IntArray) -> FloatArray:
    r"""Covariance (k, k) of estimates whose errors are means of influence functions (n, k).

    .. math:: \hat V = \frac{1}{n^2} \sum_g \psi_g \psi_g^\top, \qquad \psi_g = \sum_{i \in g} \psi_i

    Liang & Zeger (1986), "Longitudinal data analysis using generalized linear models", Biometrika.
    """
    sums = cluster_sums(influence, cluster)
    return np.asarray(sums.T @ sums / len(influence) ** 2)


def clustered_se(influence: FloatArray, cluster: IntArray) -> FloatArray:
    """Cluster-robust standard errors (k,) of estimates with influence functions (n, k)."""
    sums = cluster_sums(influence, cluster)
    return np.asarray(np.sqrt((sums**2).sum(0)) / len(influence))


def wald(value: FloatArray, influence: FloatArray, cluster: IntArray) -> tuple[float, int, float]:
    r"""Joint Wald test that all estimates (k,) are 0: statistic, degrees of freedom, p-value.

    .. math:: W = \hat\theta^\top \hat V^{+} \hat\theta \sim \chi^2_{rank(\hat V)}
    """
    if len(value) == 0:
        return 0.0, 0, 1.0
    v = covariance(influence, cluster)
    eigenvalues, vectors = np.linalg.eigh(v)
    kept = eigenvalues > eigenvalues.max() * 1e-10
    if not kept.any():
        return 0.0, 0, 1.0
    projected = vectors[:, kept].T @ value
    statistic = float((projected**2 / eigenvalues[kept]).sum())
    freedom = int(kept.sum())
    return statistic, freedom, chi_square_tail(statistic, freedom)


def chi_square_tail(statistic: float, freedom: int) -> float:
    """Probability that a chi-square variable exceeds a value: closed forms for even and for odd degrees of freedom."""
    if statistic <= 0:
        return 1.0
    half = statistic / 2.0
    if freedom % 2 == 0:
        term, total = 1.0, 1.0
        for j in range(1, freedom // 2):
            term *= half / j
            total += term
        return min(1.0, math.exp(-half) * total)
    total = math.erfc(math.sqrt(half))
    term = math.exp(-half) * math.sqrt(half) * 2.0 / math.sqrt(math.pi)
    for j in range((freedom - 1) // 2):
        total += term
        term *= half / (j + 1.5)
    return min(1.0, total)


def normal_quantile_of_maximum(
    influence: FloatArray, cluster: IntArray, rng: np.random.Generator, draws: int, level: float = 0.95
) -> float:
    """The `level` quantile of the largest absolute t-statistic of k estimates: multiplier bootstrap of clusters."""
    sums = cluster_sums(influence, cluster)
    scale = np.sqrt((sums**2).sum(0))
    usable = scale > 0
    signs = rng.choice([-1.0, 1.0], size=(draws, len(sums)))
    largest = np.abs(signs @ (sums[:, usable] / scale[usable])).max(1)
    return float(np.quantile(largest, level))
