"""Cluster-robust errors and tests from influence functions."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
import scipy  # it imports scipy.stats on first use, so that a program's help does not wait for it

from crosschannel.core.arrays import BoolArray, FloatArray, IntArray


def cluster_sums(influence: FloatArray, cluster: IntArray) -> FloatArray:
    """Sum influence functions (n, k) within each cluster (G, k); `cluster` holds codes (n,)."""
    codes, place = np.unique(cluster, return_inverse=True)
    if len(codes) == len(cluster):
        return influence
    out = np.zeros((len(codes), influence.shape[1]))
    np.add.at(out, place, influence)
    return out


def clustered_se(influence: FloatArray, cluster: IntArray) -> FloatArray:
    """Return cluster-robust standard errors (k,) of estimates with influence functions (n, k)."""
    sums = cluster_sums(influence, cluster)
    return np.asarray(np.sqrt((sums**2).sum(0)) / len(influence))


def _quadratic(value: FloatArray, v: FloatArray) -> tuple[float, int]:
    """Return `value' V^+ value` and the rank of V (k, k); 0 and 0 where V is 0."""
    if len(value) == 0:
        return 0.0, 0
    eigenvalues, vectors = np.linalg.eigh(v)
    positive = eigenvalues > max(float(eigenvalues.max()), 0.0) * 1e-10
    projected = vectors[:, positive].T @ value
    return float((projected**2 / eigenvalues[positive]).sum()), int(positive.sum())


@dataclass(frozen=True)
class JointTest:
    """A joint test that several estimates are all 0.

    Attributes:
        statistic: The Wald statistic; NaN where nothing could be tested.
        freedom: How many independent estimates it tests.
        clusters: Number of users that it rests on.
        p_value: Probability of a larger statistic if all are 0; NaN where nothing could be tested.
    """

    statistic: float
    freedom: int
    clusters: int
    p_value: float


@dataclass(frozen=True)
class InfluenceProducts:
    """What joint tests need of the influence of users on k estimates; `+` adds other users.

    Attributes:
        products: Sum over users of the products of their influences (k, k).
        moves: Which estimates a user moves, one row for each combination that occurs (p, k).
        users: How many users move just these (p,).
    """

    products: FloatArray
    moves: BoolArray
    users: IntArray

    @classmethod
    def from_users(cls, influence: FloatArray) -> InfluenceProducts:
        """Sum over users with influences (U, k)."""
        return cls(influence.T @ influence, *_combinations(influence != 0, np.ones(len(influence), dtype=np.int64)))

    def __add__(self, other: InfluenceProducts) -> InfluenceProducts:
        moves, users = np.concatenate([self.moves, other.moves]), np.concatenate([self.users, other.users])
        return InfluenceProducts(self.products + other.products, *_combinations(moves, users))

    def select(self, chosen: BoolArray) -> InfluenceProducts:
        """Return what is needed of some of the estimates (k,)."""
        return InfluenceProducts(
            self.products[np.ix_(chosen, chosen)], *_combinations(self.moves[:, chosen], self.users)
        )

    def insert(self, place: int) -> InfluenceProducts:
        """Return them with an estimate at a place that no user moves."""
        products = np.insert(np.insert(self.products, place, 0.0, axis=0), place, 0.0, axis=1)
        return InfluenceProducts(products, np.insert(self.moves, place, False, axis=1), self.users)

    @property
    def n_users(self) -> int:
        """Number of users who move any of the estimates."""
        return int(self.users[self.moves.any(axis=1)].sum())

    @property
    def variance(self) -> FloatArray:
        """Variance of the estimates (k, k), with the correction for few users of `joint_test`."""
        return np.asarray(self.products * (self.n_users / max(self.n_users - 1, 1)))


def _combinations(moves: BoolArray, users: IntArray) -> tuple[BoolArray, IntArray]:
    """Return the distinct rows of masks (p, k), and the sum of users (p,) that have each."""
    packed = np.packbits(moves, axis=1) if moves.shape[1] else np.zeros((len(moves), 1), dtype=np.uint8)
    keys = np.ascontiguousarray(packed).view(np.dtype((np.void, packed.shape[1]))).ravel()
    _, first, code = np.unique(keys, return_index=True, return_inverse=True)
    return moves[first], np.bincount(code.ravel(), users, len(first)).astype(np.int64)


def joint_test(value: FloatArray, sums: FloatArray | InfluenceProducts) -> JointTest:
    r"""Test that all estimates (k,) are 0, by a Wald test from the influence of each of G users (G, k).

    .. math:: W = \hat\theta^\top \hat V^{+} \hat\theta, \qquad
        \frac{G - q}{q (G - 1)} W \sim F_{q, G - q}, \qquad \hat V = \frac{G}{G - 1} \sum_u \psi_u \psi_u^\top

    with q the rank of V. Hotelling (1931), "The generalization of Student's ratio", Annals of Mathematical Statistics.
    """
    found = sums if isinstance(sums, InfluenceProducts) else InfluenceProducts.from_users(sums)
    g = found.n_users
    statistic, q = _quadratic(value, found.variance)
    if q == 0 or g <= q:
        return JointTest(math.nan, q, g, math.nan)
    return JointTest(statistic, q, g, float(scipy.stats.f.sf(statistic * (g - q) / (q * (g - 1)), q, g - q)))


def detectable(sums: FloatArray | InfluenceProducts, level: float = 0.05, power: float = 0.8) -> FloatArray:
    r"""Return how far each estimate (k,) alone must be from 0 for `joint_test` to detect it with the given power.

    .. math:: \delta_j = \sqrt{\lambda / (\hat V^{-1})_{jj}}, \qquad P(F_{q, G - q}(\lambda) > f_{level}) = power

    with F the noncentral distribution: a joint test of many estimates needs a larger difference in one of them than a
    test of that one alone. Infinite where nothing could be tested. Cohen (1988), "Statistical power analysis for the
    behavioral sciences", chapter 9.

    Args:
        sums: Influence of each of G users (G, k), or what is needed of it.
        level: Level of the test.
        power: Probability of detecting it.
    """
    found = sums if isinstance(sums, InfluenceProducts) else InfluenceProducts.from_users(sums)
    g, v = found.n_users, found.variance
    k = len(v)
    q = int(np.linalg.matrix_rank(v, hermitian=True)) if k else 0
    if q == 0 or g <= q:
        return np.full(k, np.inf)
    limit = scipy.stats.f.isf(level, q, g - q)

    def excess(noncentrality: float) -> float:
        """Return the probability that the test misses the difference, less 1 - power."""
        return float(scipy.stats.ncf.cdf(limit, q, g - q, noncentrality)) - (1.0 - power)

    high = 1.0
    while excess(high) > 0:
        high *= 2.0
    needed = scipy.optimize.brentq(excess, 0.0, high)
    precision = np.diag(np.linalg.pinv(v, hermitian=True))
    with np.errstate(divide="ignore"):
        return np.asarray(np.sqrt(needed / np.maximum(precision, 0.0)))


def student_quantile(freedom: float) -> float:
    """Return the 0.975 quantile of Student's t: 1.96 for many degrees of freedom, more for few."""
    return float(scipy.stats.t.ppf(0.975, freedom))


def two_sided_p_value(t: float, freedom: float) -> float:
    """Return the probability of a t-statistic farther from 0 in either direction; NaN without degrees of freedom."""
    return float(2.0 * scipy.stats.t.sf(abs(t), freedom))
