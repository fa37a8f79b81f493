"""Sums of events over time windows around given moments, for many users at once."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np

from crosschannel.core.arrays import BoolArray, FloatArray, IntArray

#: Queries that are searched side by side: their arrays stay in the cache.
QUERIES_PER_BLOCK = 3 << 13
#: Users with more rows than this are searched one by one.
MAX_ROWS_IN_STEP = 4096


def running_totals(value: IntArray) -> IntArray:
    """Return running totals (e + 1,) of rows (e,).

    `total[j] - total[i]` is the sum of rows i up to, not including, j.
    """
    total = np.zeros(len(value) + 1, dtype=np.int64)
    np.cumsum(value, out=total[1:])
    return total


def exact_mean(values: FloatArray) -> float:
    """Return the mean of values (n,), 0 where there are none, without rounding errors that depend on their order."""
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
        """Return for each (user, time) the row behind that user's last one before `time` (or at it, if `inclusive`).

        The bisections of all queries run in lock-step: one step of all of them is one array operation, in blocks that
        stay in cache, so that their number grows with the logarithm of the longest user. Users with more than
        `MAX_ROWS_IN_STEP` rows, of whom there cannot be many, are searched one by one instead.

        Args:
            user: Codes (n,).
            time: Microseconds, one for each user (n,) or k of them (k, n): they are searched together, which is faster.
            inclusive: Whether a row at `time` counts as before it.

        Returns:
            Rows in the shape of `time`.
        """
        large = np.diff(self.offsets) > MAX_ROWS_IN_STEP
        if not large.any():
            return self._in_step(user, time, inclusive)
        if (user[1:] < user[:-1]).any():
            order = np.argsort(user, kind="stable")
            out = np.empty_like(time)
            out[..., order] = self.before(user[order], time[..., order], inclusive=inclusive)
            return out
        out, light = np.empty(time.shape, dtype=np.int64), ~large[user]
        if light.any():
            out[..., light] = self._in_step(user[light], time[..., light], inclusive)
        for one in np.flatnonzero(large):
            mine = slice(*np.searchsorted(user, [one, one + 1]))
            first, last = self.offsets[one], self.offsets[one + 1]
            out[..., mine] = self._by_cell(first, last, time[..., mine] + inclusive)
        return out

    def windows(self, user: IntArray, time: IntArray, pre: int, post: IntArray) -> tuple[IntArray, ...]:
        """Find the rows of each user's windows `[time - pre, time)` and `[time, time + post)`.

        Windows mostly hold a small part of a user's rows, so their far ends are searched from the moments outwards, as
        far as was needed for the previous block. Bentley & Yao (1976), "An almost optimal algorithm for unbounded
        searching", Information Processing Letters.

        Args:
            user: Codes (n,).
            time: Moments, microseconds (n,).
            pre: Length of the windows before, microseconds.
            post: Lengths of the windows after, microseconds (n,).

        Returns:
            First row of the window before, first row of the window after, and the row behind its last, (n,) each.
        """
        if not len(self.time):
            return (np.zeros(len(user), dtype=np.int64),) * 3
        if (np.diff(self.offsets) > MAX_ROWS_IN_STEP).any():
            return tuple(self.before(user, np.stack([time - pre, time, time + post])))
        return tuple(self._outwards(user, time, pre, post))

    def _outwards(self, user: IntArray, time: IntArray, pre: int, post: IntArray) -> IntArray:
        """Find the same (3, n) for users without very many rows."""
        out = np.empty((3, len(user)), dtype=np.int64)
        back = onward = 1
        for start in range(0, len(user), QUERIES_PER_BLOCK):
            rows = slice(start, start + QUERIES_PER_BLOCK)
            asked, (first, end) = time[rows], self._ends(user[rows])
            # The few users with more rows than most need one step more, alone.
            step = _first_step(int((end - first).max()))
            place, many = first.copy(), np.flatnonzero(end - first >= step)
            if 4 * len(many) < len(place):
                place[many] = self._step_on(first[many], end[many], asked[many], step)
                step >>= 1
            now = self._advance(place, end, asked, step)

            until = asked + post[rows]
            while self._is_before(now + onward, end, until).any():
                onward *= 2
            last = self._advance(now, end, until, onward >> 1)
            onward = 1 << int((last - now).max()).bit_length()

            since = asked - pre
            low = np.maximum(now - back + 1, first)
            while not (self._is_before(low, end, since) | (low == first)).all():
                back *= 2
                low = np.maximum(now - back + 1, first)
            begin = self._advance(low, now, since, back >> 1)
            back = 1 << int((now - begin).max()).bit_length()
            for place, row in zip((begin, now, last), out, strict=True):
                np.add(place, 1, out=row[rows])
        return out

    def _by_cell(self, first: int, last: int, time: IntArray) -> IntArray:
        """Find the same for one user: rows are counted by cells of time, some rows each, and searched within cells."""
        times = self.time[first:last]
        cell = max(0, int(times[-1] - times[0]).bit_length() - len(times).bit_length() + 1)
        counts = np.bincount((times - times[0]) >> cell)
        place = running_totals(counts).take((time - times[0]) >> cell, mode="clip")
        place -= 1
        step = _first_step(int(counts.max()))
        while step:  # what is later than all rows goes past the end, and back
            place += np.multiply(times.take(place + step, mode="clip") < time, step)
            step >>= 1
        return np.asarray(np.minimum(place, len(times) - 1) + (first + 1))

    def _in_step(self, user: IntArray, time: IntArray, inclusive: bool) -> IntArray:
        """Find the same by bisection in steps of falling powers of two, for users of any size."""
        out = np.empty(time.shape, dtype=np.int64)
        width = max(1, QUERIES_PER_BLOCK * len(user) // max(time.size, 1))
        for start in range(0, len(user), width):
            rows = slice(start, start + width)
            first, end = self._ends(user[rows])
            found = self._advance(first, end, time[..., rows] + inclusive, _first_step(int((end - first).max())))
            np.add(found, 1, out=out[..., rows])
        return out

    def _ends(self, user: IntArray) -> tuple[IntArray, IntArray]:
        """Return the row in front of each user's first (n,), and the last (n,)."""
        return self.offsets[user] - 1, self.offsets[user + 1] - 1

    def _advance(self, place: IntArray, end: IntArray, time: IntArray, step: int) -> IntArray:
        """Return the last row before each time, from a row that is known to be, in steps of falling powers of two."""
        place = np.broadcast_to(place, time.shape).copy()
        while step:
            place = self._step_on(place, end, time, step)
            step >>= 1
        return place

    def _step_on(self, place: IntArray, end: IntArray, time: IntArray, step: int) -> IntArray:
        """Return the rows, or those `step` rows later where these are before the time as well."""
        reached = place + step
        return np.asarray(place + np.multiply(self._is_before(reached, end, time), step, out=reached))

    def _is_before(self, row: IntArray, end: IntArray, time: IntArray) -> BoolArray:
        before = self.time.take(row, mode="clip") < time
        before &= row <= end
        return before


def _first_step(rows: int) -> int:
    """Return the first step of a bisection that can reach as many rows."""
    return 1 << rows.bit_length() >> 1
