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
from scipy.optimize import brentq
from scipy.special import ndtr, ndtri

from crosschannel.core.arrays import FloatArray, IntArray

#: A look that may spend less than this never stops the trial: no tail is known that precisely.
MIN_SPENDING = 1e-6
#: Points of the lattice over which the looks' joint law is integrated.
LATTICE_POINTS = 1 << 11
#: Most earlier looks that a boundary is conditioned on.
MAX_CONDITIONS = 40
#: Share of the identity that is added to the looks' correlation.
_TRACE = 1e-9
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

    Increments need not be independent: the data of a user grow over time, and are correlated. The probability is
    that of being beyond the bound, times the mean probability of having been within all bounds before, given values
    beyond it: an integral of a smooth function over a lattice with a random shift, in which no path is rejected, so
    that probabilities of 1e-6 are as precise as large ones. Genz (1992), "Numerical computation of multivariate normal
    probabilities", J. Comp. Graph. Statistics 1.

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
    lattice = _lattice(len(shares), points, rng)
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
        if np.isnan(fixed[k]):
            earlier = _latest_first(stopping)
            law = correlation[np.ix_([k, *earlier], [k, *earlier])]
            out[k] = _solve(law, out[earlier], spent, increment, lattice)
        else:
            out[k] = fixed[k]
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


def _latest_first(looks: list[int]) -> list[int]:
    """Return the looks that a boundary is conditioned on, the latest first: all, or of many the latest and every few.

    What is left out is a condition less for having crossed none before, so that boundaries are higher, never lower.
    """
    if len(looks) <= MAX_CONDITIONS:
        return looks[::-1]
    half = MAX_CONDITIONS // 2
    kept = np.unique(np.linspace(0, len(looks) - half - 1, half).round().astype(np.int64))
    return [*looks[: len(looks) - half - 1 : -1], *(looks[j] for j in kept[::-1].tolist())]


def _solve(correlation: FloatArray, bounds: FloatArray, spent: float, increment: float, lattice: FloatArray) -> float:
    """Return the boundary of a look that paths cross there for the first time with the probability `increment`.

    Args:
        correlation: Of the look and the earlier ones, the latest first (k + 1, k + 1).
        bounds: Boundaries of the earlier looks, the latest first (k,).
        spent: Probability that an earlier one was crossed.
        increment: Probability that this one is the first that is crossed.
        lattice: Uniform numbers (at least k + 1, N).
    """
    highest = float(-ndtri(increment / 2))
    if not len(bounds):
        return highest
    # A trace on the diagonal keeps looks apart that see the same.
    spread = correlation * (1 - _TRACE) + _TRACE * np.eye(len(correlation))
    factor = np.asarray(np.linalg.cholesky(spread), dtype=np.float64)

    def excess(bound: float) -> float:
        tail = float(ndtr(-bound))
        survival = _survival(factor, bounds, -ndtri(lattice[0] * tail), lattice[1:])
        return math.log(max(2 * tail * survival, 1e-300) / increment)

    # All that cross here for the first time are beyond the bound here; all that are beyond it have crossed by now.
    lowest = float(-ndtri(min((spent + increment) / 2, 0.5)))
    if excess(lowest) <= 0:
        return lowest
    return float(brentq(excess, lowest, highest, xtol=1e-6, rtol=1e-12)) if excess(highest) < 0 else highest


def _survival(factor: FloatArray, bounds: FloatArray, first: FloatArray, lattice: FloatArray) -> float:
    """Return the mean probability that looks stay within bounds, given values (N,) of the one that comes first.

    Args:
        factor: Cholesky factor of the looks' correlation (k + 1, k + 1).
        bounds: Bounds of the others (k,).
        first: Values of the first look (N,).
        lattice: Uniform numbers (at least k, N).
    """
    noise, weight = np.empty((len(factor), len(first))), np.ones(len(first))
    noise[0] = first
    for k, bound in enumerate(bounds, start=1):
        mean, sd = factor[k, :k] @ noise[:k], factor[k, k]
        low, high = ndtr((-bound - mean) / sd), ndtr((bound - mean) / sd)
        weight *= high - low
        noise[k] = ndtri(np.clip(low + lattice[k - 1] * (high - low), 1e-300, 1.0 - 1e-16))
    return float(weight.mean())


def _lattice(dimensions: int, points: int, rng: np.random.Generator) -> FloatArray:
    """Return a lattice with a random shift in the unit cube (dimensions, points), by the square roots of primes.

    Richtmyer (1951); with the baker's transformation, which makes functions on it smooth at the ends.
    """
    step = np.sqrt(np.array([_prime(k) for k in range(dimensions)], dtype=np.float64))
    place = (np.outer(step, np.arange(1, points + 1)) + rng.random(dimensions)[:, None]) % 1.0
    return np.clip(np.abs(2.0 * place - 1.0), 1e-15, 1.0 - 1e-15)


def _prime(k: int) -> int:
    """Return prime number k, from 0 on: 2, 3, 5, ..."""
    found: list[int] = []
    candidate = 2
    while len(found) <= k:
        if all(candidate % p for p in found if p * p <= candidate):
            found.append(candidate)
        candidate += 1
    return found[k]
