"""User-clustered bootstrap: intervals that know that one user's decisions belong together."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from histories.errors import ConfigError
from histories.modules import FloatArray, IntArray


@dataclass(frozen=True)
class Interval:
    """A value with its percentile bootstrap interval and its standard error, in reward units; NaN if not identified."""

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


def percentile_interval(point: float, replicates: FloatArray, level: float = 0.95) -> Interval:
    """The percentile interval of a value from its replicates (B,); unknown if any replicate is.

    A replicate in which the value is undefined is not left out: leaving it out would hide how near the data are to
    not defining the value.

    Raises:
        ConfigError: If there are too few replicates for the level.
    """
    check_replicates(len(replicates), level)
    if not (np.isfinite(point) and np.isfinite(replicates).all()):
        return UNKNOWN
    low, high = np.quantile(replicates, [(1 - level) / 2, (1 + level) / 2])
    return Interval(float(point), float(low), float(high), float(replicates.std(ddof=1)))


def check_replicates(replicates: int, level: float) -> None:
    """Raises `ConfigError` unless the level is a share and each tail holds at least one replicate."""
    if not 0 < level < 1:
        raise ConfigError(f"the interval's level {level} is not between 0 and 1")
    if replicates * (1 - level) / 2 < 1:
        least = int(np.ceil(2 / (1 - level)))
        raise ConfigError(
            f"{replicates} bootstrap replicates are too few for a {level:.0%} interval: use {least} or more"
        )
