"""Sums of events over time windows around given moments, for many users at once."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from histories.modules import FloatArray, IntArray


@dataclass(frozen=True)
class Timeline:
    """Events of many users, sorted by (user, time), with running totals.

    Attributes:
        time: Microseconds (e,), ascending within a user.
        offsets: User u owns rows `offsets[u]:offsets[u + 1]`, (U + 1,).
        total: Running totals (e + 1,): `total[j] - total[i]` is the sum of rows i to j.
    """

    time: IntArray
    offsets: IntArray
    total: FloatArray

    @classmethod
    def of(cls, user: IntArray, time: IntArray, value: FloatArray, n_users: int) -> Timeline:
        """A timeline of rows that are sorted by (user, time) already."""
        offsets = np.searchsorted(user, np.arange(n_users + 1)).astype(np.int64)
        return cls(time, offsets, np.concatenate([[0.0], np.cumsum(value)]))

    def before(self, user: IntArray, time: IntArray, *, inclusive: bool = False) -> IntArray:
        """For each (user, time), the row behind that user's last event before `time` (or at it, if `inclusive`).

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

    def between(self, first: IntArray, last: IntArray) -> FloatArray:
        """Sums over the rows from `first` up to, not including, `last`."""
        return self.total[last] - self.total[first]

    def sum_before(self, user: IntArray, time: IntArray, length: int) -> FloatArray:
        """Sums over `[time - length, time)`."""
        return self.between(self.before(user, time - length), self.before(user, time))

    def sum_after(self, user: IntArray, time: IntArray, length: int) -> FloatArray:
        """Sums over `(time, time + length]`."""
        return self.between(
            self.before(user, time, inclusive=True), self.before(user, time + length, inclusive=True)
        )


