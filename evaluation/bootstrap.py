"""User-clustered bootstrap: intervals that know that one user's decisions belong together."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from scipy.special import stdtrit

from crosschannel.core.arrays import FloatArray, IntArray
from crosschannel.core.errors import ConfigError

LEAST_REPLICATES = 40


@dataclass(frozen=True)
class Interval:
    """A value with its interval and its bootstrap standard error, in reward units; NaN if not identified."""

    point: float
    low: float
    high: float
    se: float

    @property
    def known(self) -> bool:
        """Whether there is a value with an interval."""
        return bool(np.isfinite([self.point, self.low, self.high, self.se]).all())

    def contains(self, value: float) -> bool:
        """Whether the interval includes a value."""
        return self.low <= value <= self.high


UNKNOWN = Interval(np.nan, np.nan, np.nan, np.nan)


def user_draws(n_users: int, rng: np.random.Generator) -> FloatArray:
    """How often each user is drawn when as many are drawn with replacement as there are, (n_users,)."""
    return np.bincount(rng.integers(n_users, size=n_users), minlength=n_users).astype(np.float64)


def user_bootstrap(
    statistics: Callable[[FloatArray], FloatArray], user: IntArray, replicates: int, rng: np.random.Generator
) -> FloatArray:
    """Statistics of bootstrap replicates in which whole users are drawn with replacement.

    The draws are multinomial, not Poisson or exponential weights: every replicate has as many users as the data, and
    a count of controls stays a count, so that a re-fitted reward model applies its own rules (such as a cell's least
    number of controls) just as to data. A user's decisions are drawn together: they share all that is particular to
    the user, and only users are independent. Davison & Hinkley (1997), "Bootstrap methods and their application",
    section 3.8; Cameron, Gelbach & Miller (2008), "Bootstrap-based improvements for inference with clustered errors",
    Review of Economics and Statistics.

    Args:
        statistics: From how often each decision counts (n,) to K statistics (K,).
        user: Users of the decisions, any integer codes (n,).
        replicates: How many replicates B.
        rng: Where the draws come from.

    Returns:
        Statistics of every replicate (B, K).
    """
    users, code = np.unique(user, return_inverse=True)
    return np.stack([statistics(user_draws(len(users), rng)[code]) for _ in range(replicates)])


def degrees_of_freedom(influence: FloatArray) -> float:
    r"""How well the influences :math:`\psi_u` (U,) of the users on a value tell the variance of its error.

    .. math:: \nu = 2 S^2 \Big/ \Big( \sum_u \psi_u^4 - S^2 / U \Big), \qquad S = \sum_u \psi_u^2

    The estimated variance S varies as a chi-square with so many degrees of freedom does: about U
    where influences are normal, few where some users carry most of them. Satterthwaite (1946), "An approximate
    distribution of estimates of variance components", Biometrics Bulletin. Infinite where all influences are alike.
    """
    square = influence**2
    total = float(square.sum())
    spread = float(((square - square.mean()) ** 2).sum())
    return 2 * total**2 / spread if spread > 0 else np.inf


def t_interval(point: float, replicates: FloatArray, influence: FloatArray, level: float = 0.95) -> Interval:
    r"""The interval of a value from its bootstrap standard error; unknown if the value or any replicate is.

    .. math:: \hat V \pm t_{\nu} \, \mathrm{se}

    Student's quantile :math:`t_\nu` (`degrees_of_freedom`) lengthens the interval where the error itself is uncertain:
    percentiles of the replicates do not, and with skewed weights they cover too seldom. A replicate in which the value
    is undefined is not left out: leaving it out would hide how near the data are to not defining the value.

    Args:
        point: The value.
        replicates: Its bootstrap replicates (B,); their standard deviation is the standard error.
        influence: Influences of the users on the value (U,), in any unit. What only a re-fitted reward model adds to
            the error is in the standard error and not in these.
        level: Level of the interval.

    Raises:
        ConfigError: If there are too few replicates.
    """
    check_replicates(len(replicates), level)
    if not (np.isfinite(point) and np.isfinite(replicates).all()):
        return UNKNOWN
    se = float(replicates.std(ddof=1))
    half = float(stdtrit(degrees_of_freedom(influence), (1 + level) / 2)) * se
    return Interval(float(point), float(point) - half, float(point) + half, se)


def check_replicates(replicates: int, level: float) -> None:
    """Raises `ConfigError` unless the level is a share and the replicates are enough for a standard error.

    From B replicates its relative error is 1 / sqrt(2 B): 11 % at the least, 3.5 % at 400.
    """
    if not 0 < level < 1:
        raise ConfigError(f"the interval's level {level} is not between 0 and 1")
    if replicates < LEAST_REPLICATES:
        raise ConfigError(f"{replicates} bootstrap replicates are too few: use {LEAST_REPLICATES} or more")
