"""Sums by group that are exact, so that no result depends on the order of rows or on how they are divided."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from crosschannel.core.arrays import FloatArray, IntArray
from crosschannel.core.errors import ConfigError

_HIGH = 2.0**16
_LOW = 2.0**48
_LARGEST = 2.0**62
_TOO_LARGE = (
    "the goal values are too large for exact sums, or not finite: give the goals smaller weights, or divide the values "
    "by a thousand or a million before reading them"
)


@dataclass(frozen=True)
class ExactSums:
    """Sums by group as two integers: units of 2^-16, and the rest in units of 2^-48. Buckets' sums add up exactly.

    Attributes:
        high: Sums of the values rounded to 2^-16, in that unit (g,).
        low: Sums of what the rounding left, in units of 2^-48 (g,).
    """

    high: IntArray
    low: IntArray

    @classmethod
    def of(cls, values: FloatArray, group: IntArray, n_groups: int) -> ExactSums:
        """Adds up values (n,) by group codes (n,); the values are read to 2^-48.

        Raises:
            ConfigError: If the values are too large for exact sums.
        """
        coarse = np.rint(values * _HIGH)
        if not float(np.abs(coarse).sum()) < _LARGEST:
            raise ConfigError(_TOO_LARGE)
        high = np.zeros(n_groups, dtype=np.int64)
        low = np.zeros(n_groups, dtype=np.int64)
        np.add.at(high, group, coarse.astype(np.int64))
        np.add.at(low, group, np.rint((values - coarse / _HIGH) * _LOW).astype(np.int64))
        return cls(high, low)

    @classmethod
    def gathered(cls, parts: Sequence[ExactSums], group: IntArray, n_groups: int) -> ExactSums:
        """Adds up several sums of other groups; `group` has the new group of each entry of the parts, in their order.

        Raises:
            ConfigError: If a sum is too large to be exact.
        """
        out = cls(np.zeros(n_groups, dtype=np.int64), np.zeros(n_groups, dtype=np.int64))
        np.add.at(out.high, group, np.concatenate([part.high for part in parts]))
        np.add.at(out.low, group, np.concatenate([part.low for part in parts]))
        if (np.abs(out.high) >= _LARGEST).any():
            raise ConfigError(_TOO_LARGE)
        return out

    def __add__(self, other: ExactSums) -> ExactSums:
        return ExactSums(self.high + other.high, self.low + other.low)

    def value(self) -> FloatArray:
        """The sums as floating-point numbers (g,)."""
        return np.asarray(self.high / _HIGH + self.low / _LOW, dtype=np.float64)
