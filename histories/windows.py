"""Sums of events over time windows around given moments, for many users at once."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np

from histories.errors import ConfigError
from histories.modules import FloatArray, IntArray

FIXED_POINT = 2.0**32
LARGEST_SUM = 2.0**31


def to_fixed(value: FloatArray) -> IntArray:
    """Values as 64-bit fixed-point numbers with a resolution of 2^-32.

    Integers add up exactly and in any order, so that no sum depends, even in its last bit, on other users' events,
    on the order of rows or on how a history is divided. A running total may wrap around: the difference of two
    totals is right all the same, as long as the window's own sum stays below 2^31.

    Raises:
        ConfigError: If a single value is too large for that.
    """
    if len(value) and float(np.abs(value).max()) >= LARGEST_SUM / 1024:
        raise ConfigError(
            f"an event value of {float(np.abs(value).max()):g} is too large for exact sums: "
            "divide the values by a thousand or a million before reading them"
        )
    return np.rint(np.asarray(value, dtype=np.float64) * FIXED_POINT).astype(np.int64)


def from_fixed(value: IntArray) -> FloatArray:
    """Fixed-point sums as floating-point numbers."""
    return np.asarray(value / FIXED_POINT, dtype=np.float64)


def running(value: IntArray) -> IntArray:
    """Running totals (e + 1,) of rows (e,): `total[j] - total[i]` is the sum of rows i up to, not including, j."""
    total = np.zeros(len(value) + 1, dtype=np.int64)
    np.cumsum(value, out=total[1:])
    return total


def exact_mean(values: FloatArray) -> float:
    """The mean of values (n,), 0 where there are none, without rounding errors that depend on their order."""
    largest = float(np.abs(values).max(initial=0.0))
    if largest == 0.0:
        return 0.0
    exponent = 30 - math.frexp(largest)[1]
    return math.ldexp(int(np.rint(np.ldexp(values, exponent)).astype(np.int64).sum()) / len(values), -exponent)


@dataclass(frozen=True)
class Timeline:
    """Rows of many users, sorted by (user, time), to be searched by time.

    Attributes:
        time: Microseconds (e,), ascending within a user.
        offsets: User u owns rows `offsets[u]:offsets[u + 1]`, (U + 1,).
    """

    time: IntArray
    offsets: IntArray

    def before(self, user: IntArray, time: IntArray, *, inclusive: bool = False) -> IntArray:
        """For each (user, time), the row behind that user's last one before `time` (or at it, if `inclusive`).

        All searches run in lock-step: one bisection step of every query is one array operation, so that the
        number of operations grows with the logarithm of the longest user, not with the number of users.
        """
        low, high = self.offsets[user], self.offsets[user + 1]
        if len(self.time) == 0:
            return low
        last = len(self.time) - 1
        longest = int(np.diff(self.offsets).max(initial=0))
        for _ in range(longest.bit_length()):
            middle = (low + high) >> 1
            probe = self.time[np.minimum(middle, last)]
            right = (low < high) & ((probe <= time) if inclusive else (probe < time))
            low = np.where(right, middle + 1, low)
            high = np.where(right, high, middle)
        return low
