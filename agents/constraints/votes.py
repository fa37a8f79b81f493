"""What voters choose at given prices, and what their choices use: sums over rows, in chunks that fit in the cache."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import numpy.typing as npt

from crosschannel.core.arrays import BoolArray, FloatArray, IntArray
from crosschannel.core.hashing import mix

VALUES_PER_CHUNK = 2**17

FloatingArray = npt.NDArray[np.floating[Any]]


@dataclass(frozen=True)
class Choices:
    """What the votes choose at some prices, summed over rows.

    Attributes:
        gain: Value of the chosen actions beyond that of action 0.
        use: Expected use (C,) of each budget.
    """

    gain: float
    use: FloatArray


@dataclass(frozen=True)
class Votes:
    """Rows of votes, each of which takes the eligible action with the largest value net of prices.

    Attributes:
        values: Values (L, n, A) of the actions for each vote and row.
        mask: Eligible actions (n, A); action 0 always is.
        use: Expected use (C, n, A) of each budget by row and action.
        weight: What one vote of one row counts.
        settled: What counts beside these rows: choices that the prices do not change.
    """

    values: FloatingArray
    mask: BoolArray
    use: FloatingArray
    weight: float
    settled: Choices

    @property
    def count(self) -> int:
        """Number of votes."""
        return int(self.values.shape[0] * self.values.shape[1])

    def evaluate(self, prices: FloatArray) -> Choices:
        """Return what all votes choose at prices (C,)."""
        gains, uses = [0.0], [np.zeros(len(self.use))]
        for rows in self._chunks():
            values, use = self.values[:, rows], self.use[:, rows]
            codes = net_values(values, self.mask[rows], use, prices).argmax(-1)
            gains.append(_gain(values, codes).sum())
            uses.append(_chosen_use(use, codes).sum((1, 2)))
        return self._choices(gains, uses)

    def between(self, low: FloatArray, high: FloatArray) -> Votes:
        """Return the votes that may change between two price vectors (C,), with the choices of all others settled.

        Net values fall with every price. A vote is settled if its choice at the high prices is still worth more there
        than any other action at the low prices. Rounding is monotone, so that this is exact.
        """
        gains, uses, votes, rows_of = [0.0], [np.zeros(len(self.use))], [], []
        for rows in self._chunks():
            values, use, mask = self.values[:, rows], self.use[:, rows], self.mask[rows]
            least = net_values(values, mask, use, high)
            codes = least.argmax(-1)
            most = net_values(values, mask, use, low)
            np.put_along_axis(most, codes[..., None], -np.inf, axis=-1)
            settled = np.take_along_axis(least, codes[..., None], -1)[..., 0] > most.max(-1)
            gains.append(_gain(values, codes)[settled].sum())
            uses.append(_chosen_use(use, codes)[:, settled].sum(1))
            vote, row = np.nonzero(~settled)
            votes.append(vote)
            rows_of.append(row + rows.start)
        active = self._take(np.concatenate(votes), np.concatenate(rows_of), self.weight)
        return replace(active, settled=self._choices(gains, uses))

    def sample(self, size: int) -> Votes:
        """Return about `size` votes, chosen by a hash of their position, that count as much as all together."""
        positions = np.arange(self.count, dtype=np.uint64)
        chosen = np.flatnonzero(mix(positions) < np.uint64(size / self.count * 2.0**64))
        rows = self.values.shape[1]
        return self._take(chosen // rows, chosen % rows, self.weight * self.count / max(len(chosen), 1))

    def without(self, actions: BoolArray) -> Votes:
        """Return the votes with some actions (n, A) not eligible."""
        return replace(self, mask=self.mask & ~actions)

    def prohibitive_prices(self) -> FloatArray:
        """Return twice the prices (C,) each of which alone makes every action that uses its budget worth too little."""
        most = np.zeros(len(self.use))
        for rows in self._chunks():
            best = np.where(self.mask[rows], self.values[:, rows], -np.inf).max(0).astype(np.float64)
            gain = best - self.values[:, rows, :1].min(0)
            for c, use in enumerate(self.use[:, rows].astype(np.float64)):
                most[c] = max(most[c], np.max(gain[use > 0.0] / use[use > 0.0], initial=0.0))
        return 2.0 * most

    def _take(self, votes: IntArray, rows: IntArray, weight: float) -> Votes:
        nothing = Choices(0.0, np.zeros(len(self.use)))
        return Votes(self.values[votes, rows][None], self.mask[rows], self.use[:, rows], weight, nothing)

    def _chunks(self) -> Iterator[slice]:
        return _chunks(*self.values.shape)

    def _choices(self, gains: list[Any], uses: list[Any]) -> Choices:
        return Choices(
            self.settled.gain + self.weight * float(np.sum(gains)),
            self.settled.use + self.weight * np.sum(uses, axis=0),
        )


def count_votes(values: FloatingArray, mask: BoolArray, use: FloatingArray, prices: FloatArray) -> FloatArray:
    """Return each action's share of the votes (N, A) at prices (C,).

    Args:
        values: Values (L, N, A).
        mask: Eligible actions (N, A).
        use: Expected use (C, N, A).
        prices: Prices (C,).
    """
    shares = np.empty(mask.shape)
    for rows in _chunks(*values.shape):
        codes = net_values(values[:, rows], mask[rows], use[:, rows], prices).argmax(-1)
        size, actions = codes.shape[1], mask.shape[1]
        cells = codes + np.arange(size) * actions
        shares[rows] = np.bincount(cells.ravel(), minlength=size * actions).reshape(size, actions) / len(values)
    return shares


def net_values(values: FloatingArray, mask: BoolArray, use: FloatingArray, prices: FloatArray) -> FloatingArray:
    """Return values net of prices (L, n, A), and minus infinity where an action is not eligible.

    The result does not depend on how rows are split into chunks: each entry is computed on its own.

    Args:
        values: Values (L, n, A).
        mask: Eligible actions (n, A).
        use: Expected use (C, n, A).
        prices: Prices (C,).
    """
    cost = np.zeros(mask.shape)
    for price, each in zip(prices, use, strict=True):
        if price > 0.0:
            cost += np.multiply(each, price, dtype=np.float64)
    with np.errstate(over="ignore"):  # an infinite cost is one that no value outweighs
        net = values - cost.astype(values.dtype)
    np.copyto(net, -np.inf, where=~mask)
    return net


def _chunks(votes: int, rows: int, actions: int) -> Iterator[slice]:
    size = max(VALUES_PER_CHUNK // max(votes * actions, 1), 1)
    for start in range(0, rows, size):
        yield slice(start, min(start + size, rows))


def _gain(values: FloatingArray, codes: IntArray) -> FloatArray:
    """Return what the chosen actions (L, n) are worth beyond action 0."""
    chosen = np.take_along_axis(values, codes[..., None], -1)[..., 0].astype(np.float64)
    return np.asarray(chosen - values[..., 0].astype(np.float64))


def _chosen_use(use: FloatingArray, codes: IntArray) -> FloatArray:
    """Return what the chosen actions (L, n) use (C, L, n)."""
    return np.asarray(use[:, np.arange(codes.shape[1]), codes], dtype=np.float64)
