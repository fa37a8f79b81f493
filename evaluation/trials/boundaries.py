r"""What looks at a trial must reach: group-sequential boundaries by spending alpha, and a confidence sequence.

A group-sequential look at the share t of the declared length may have spent

.. math:: \alpha(t) = 2 - 2 \Phi\left( z_{\alpha / 2} / \sqrt t \right)

of the level in all: little at first, all of it at the end. Lan & DeMets (1983), "Discrete sequential boundaries for
clinical trials", Biometrika 70; the function is theirs for boundaries like those of O'Brien & Fleming (1979). Time is
the share of the declared days, which needs no guess of how much information the trial will hold.
"""

from __future__ import annotations

import math

import numpy as np
from scipy.special import ndtr, ndtri

from crosschannel.core.arrays import FloatArray, IntArray

#: A look that may spend less than this never stops the trial: no tail is known that precisely.
MIN_SPENDING = 1e-6
#: Points of the lattice over which the looks' joint law is integrated.
LATTICE_POINTS = 1 << 15
#: How precisely a boundary solves its equation on the lattice, and how many steps that may take.
TOLERANCE, MAX_STEPS = 1e-10, 100
#: Least conditional standard deviation of a look given the earlier ones: less is a look that adds nothing.
_MIN_SD = 1e-6
#: The sequence is asymptotic: it begins when each of two arms has this many users.
MIN_USERS_PER_ARM = 100


def spent_alpha(share: FloatArray | float, alpha: float) -> FloatArray:
    """Return how much of the level may be spent up to a share of the declared length, two-sided; all from 1 on."""
    part = np.clip(np.asarray(share, dtype=np.float64), 1e-12, 1.0)
    return np.asarray(2.0 * ndtr(ndtri(alpha / 2) / np.sqrt(part)))


def stopping_boundaries(
    covariance: FloatArray,
    shares: FloatArray,
    alpha: float,
    rng: np.random.Generator,
    known: FloatArray | None = None,
    points: int = LATTICE_POINTS,
) -> FloatArray:
    r"""Return what the absolute value of the standardised estimate must reach at each look, (K,).

    The looks' estimates are jointly normal with the given covariance. With :math:`Z_k` standardised, the boundaries
    solve, one after the other,

    .. math:: P(|Z_1| < c_1, \ldots, |Z_{k-1}| < c_{k-1}, |Z_k| \ge c_k) = \alpha(t_k) - \alpha(t_{k-1})

    Increments need not be independent: the data of a user grow over time, and are correlated. The probability is an
    integral over the looks before, of the conditional probability of the last one given these, by sequential
    importance sampling without rejection on a lattice with a random shift: Genz (1992), "Numerical computation of
    multivariate normal probabilities", J. Comp. Graph. Statistics 1. The mean over the lattice is smooth in
    :math:`c_k`, so that a root is exact for its points. With 28 daily looks the level of the whole differs by a
    standard deviation of .0004 from .05 between random shifts.

    Assumption: estimates are normal at every look that may stop, which holds for many users. A look that spends less
    than `MIN_SPENDING`, or has no variance, never stops (infinity) and leaves what it could have spent to the next.

    Args:
        covariance: Of the estimates at the looks (K, K).
        shares: Share of the declared length at each look (K,), ascending.
        alpha: Two-sided level.
        rng: Generator of the lattice's shift.
        known: Boundaries of earlier looks that stay as they are (P,), P <= K: infinity for those that never stop, NaN
            for those that are still to be found.
        points: Points of the lattice.
    """
    fixed = np.full(len(shares), np.nan)
    if known is not None:
        fixed[: len(known)] = known
    sd = np.sqrt(np.diag(covariance))
    usable = sd > 0
    correlation = covariance / np.where(usable, sd, 1.0)[:, None] / np.where(usable, sd, 1.0)
    out = np.full(len(shares), np.inf)
    law = _SurvivingPaths(points, rng)
    total, spent = spent_alpha(shares, alpha), 0.0
    stopping: list[int] = []
    for k in range(len(shares)):
        increment = float(total[k]) - spent
        if np.isnan(fixed[k]):
            if not usable[k] or increment < MIN_SPENDING:
                continue
        elif not usable[k] or np.isinf(fixed[k]):
            out[k] = fixed[k]
            continue
        law.extend(correlation[k, stopping])
        out[k] = law.boundary(increment) if np.isnan(fixed[k]) else fixed[k]
        law.survive(out[k])
        stopping.append(k)
        spent = float(total[k])
    return out


def critical_values(users: IntArray, alpha: float, planned: int, planned_alpha: float | None = None) -> FloatArray:
    r"""Return how many standard errors the interval of a mean of n users has, at each number of users (K,).

    .. math::
        c(n) = \sqrt{ \frac{2 (n \rho^2 + 1)}{n \rho^2} \log \frac{\sqrt{n \rho^2 + 1}}{\alpha} }, \qquad
        \rho^2 = \frac{-2 \log \alpha + \log(1 - 2 \log \alpha)}{n^*}

    It is narrowest at about :math:`n^*` users, the planned number. Waudby-Smith, Arbour, Sinha, Kennedy & Ramdas
    (2024), "Time-uniform central limit theory and asymptotic confidence sequences", Annals of Statistics 52 (arXiv
    2103.06476), equation 9 with theorem 2.2.

    Assumption: users enter once each, in an order that does not depend on their outcomes, are independent, and the
    estimate is asymptotically a mean over them. It does not hold over days of the same users.

    Args:
        users: Numbers of users (K,).
        alpha: Two-sided level of the sequence.
        planned: Number of users at which it is narrowest; it must not depend on outcomes.
        planned_alpha: The level for which it is; by default `alpha`. It stays where the level of a test changes.
    """
    level = alpha if planned_alpha is None else planned_alpha
    rho = (-2 * math.log(level) + math.log(1 - 2 * math.log(level))) / planned
    n = np.maximum(np.asarray(users, dtype=np.float64), 1e-12) * rho
    return np.asarray(np.sqrt(2 * (n + 1) / n * (0.5 * np.log(n + 1) - math.log(alpha))))


class _SurvivingPaths:
    """Weighted paths of looks that have not crossed any boundary so far."""

    def __init__(self, points: int, rng: np.random.Generator) -> None:
        self._n, self._rng = points, rng
        self._noise: list[FloatArray] = []  # independent normal numbers (points,) of each look
        self._rows: list[FloatArray] = []  # rows of the Cholesky factor of the looks' correlation
        self._weight = np.ones(points)
        self._mean, self._sd = np.zeros(points), 1.0

    def extend(self, correlation: FloatArray) -> None:
        """Condition the next look on the paths, given its correlation with the earlier looks (k,)."""
        row = np.zeros(len(correlation))
        for j, earlier in enumerate(self._rows):
            row[j] = (correlation[j] - row[:j] @ earlier[:j]) / earlier[j]
        norm = math.sqrt(float(row @ row))
        longest = math.sqrt(1.0 - _MIN_SD**2)
        if norm > longest:
            row *= longest / norm
        self._sd = math.sqrt(1.0 - float(row @ row))
        self._rows.append(np.append(row, self._sd))
        self._mean = np.zeros(self._n)
        for weight, noise in zip(row, self._noise, strict=True):
            self._mean += weight * noise

    def boundary(self, increment: float) -> float:
        """Return the boundary of the next look that paths cross there for the first time with a probability.

        Newton's method on the logarithm of the probability, which is nearly quadratic in the boundary; halving where a
        step leaves the interval that holds the root.
        """
        # All that cross here for the first time are among those that are beyond the bound here.
        low, high = 0.0, float(-ndtri(increment / 2)) + 1e-3
        while self._crossing(high)[0] > increment:
            low, high = high, high + 0.5
        bound = high
        for _ in range(MAX_STEPS):
            probability, density = self._crossing(bound)
            low, high = (bound, high) if probability > increment else (low, bound)
            step = probability * math.log(probability / increment) / density if density > 0 and probability > 0 else 0.0
            following = bound + step
            if not low < following < high:
                following = (low + high) / 2
            if abs(following - bound) < TOLERANCE:
                return following
            bound = following
        return bound

    def _crossing(self, bound: float) -> tuple[float, float]:
        """Return the probability that paths cross a bound at the next look for the first time, and its decrease."""
        above, below = (self._mean - bound) / self._sd, (-bound - self._mean) / self._sd
        probability = np.mean(self._weight * (ndtr(above) + ndtr(below)))
        density = np.mean(self._weight * (np.exp(-(above**2) / 2) + np.exp(-(below**2) / 2)))
        return float(probability), float(density) / (math.sqrt(2 * math.pi) * self._sd)

    def survive(self, bound: float) -> None:
        """Draw the next look of each path within the bound, and weight the path by the probability of that."""
        low, high = ndtr((-bound - self._mean) / self._sd), ndtr((bound - self._mean) / self._sd)
        k = len(self._noise)
        place = (np.arange(1, self._n + 1) * math.sqrt(_prime(k)) + self._rng.random()) % 1.0
        uniform = np.abs(2.0 * place - 1.0)  # the baker's transformation: smooth at the ends
        inside = np.clip(low + uniform * (high - low), 1e-300, 1.0 - 1e-16)
        self._noise.append(ndtri(inside))
        self._weight = self._weight * (high - low)


def _prime(k: int) -> int:
    """Return prime number k, from 0 on: 2, 3, 5, ..."""
    found: list[int] = []
    candidate = 2
    while len(found) <= k:
        if all(candidate % p for p in found if p * p <= candidate):
            found.append(candidate)
        candidate += 1
    return found[k]
