"""Exact sums by group: results do not depend on the order of rows or on how they are divided into buckets."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from crosschannel.core.arrays import FloatArray, IntArray
from crosschannel.core.errors import ConfigError

_HIGH_UNITS_PER_ONE = 2.0**16
_LOW_UNITS_PER_ONE = 2.0**48
_MAX_SUM_OF_UNITS = 2.0**62
_TOO_LARGE = (
    "the goal values are too large for exact sums, or not finite: give the goals smaller weights, or divide the values "
    "by a thousand or a million before reading them"
)


@dataclass(frozen=True)
class ExactSums:
    """Sums by group, each as two integers, so that the sums of buckets add up exactly.

    Attributes:
        high: Sums of the values rounded to multiples of 2^-16, in that unit (g,).
        low: Sums of the remainders, in units of 2^-48 (g,).
    """

    high: IntArray
    low: IntArray

    @classmethod
    def from_values(cls, values: FloatArray, group: IntArray, n_groups: int) -> ExactSums:
        """Sum values (n,) by group codes (n,); values are rounded to multiples of 2^-48.

        Raises:
            ConfigError: If the values are too large for exact sums.
        """
        coarse = np.rint(values * _HIGH_UNITS_PER_ONE)
        if not float(np.abs(coarse).sum()) < _MAX_SUM_OF_UNITS:
            raise ConfigError(_TOO_LARGE)
        high = np.zeros(n_groups, dtype=np.int64)
        low = np.zeros(n_groups, dtype=np.int64)
        np.add.at(high, group, coarse.astype(np.int64))
        np.add.at(low, group, np.rint((values - coarse / _HIGH_UNITS_PER_ONE) * _LOW_UNITS_PER_ONE).astype(np.int64))
        return cls(high, low)

    @classmethod
    def combine(cls, parts: Sequence[ExactSums], group: IntArray, n_groups: int) -> ExactSums:
        """Add several sums with groups of their own.

        Args:
            parts: The sums.
            group: The new group of each entry of the concatenated parts.
            n_groups: How many new groups there are.

        Raises:
            ConfigError: If a sum is too large to be exact.
        """
        out = cls(np.zeros(n_groups, dtype=np.int64), np.zeros(n_groups, dtype=np.int64))
        np.add.at(out.high, group, np.concatenate([part.high for part in parts]))
        np.add.at(out.low, group, np.concatenate([part.low for part in parts]))
        if (np.abs(out.high) >= _MAX_SUM_OF_UNITS).any():
            raise ConfigError(_TOO_LARGE)
        return out

    def __add__(self, other: ExactSums) -> ExactSums:
        return ExactSums(self.high + other.high, self.low + other.low)

    def value(self) -> FloatArray:
        """Return the sums as floating-point numbers (g,)."""
        return np.asarray(self.high / _HIGH_UNITS_PER_ONE + self.low / _LOW_UNITS_PER_ONE, dtype=np.float64)
