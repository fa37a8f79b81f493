"""What voters choose at given prices, and what their choices use: sums over rows, in chunks that fit in the cache."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace

import numpy as np

from crosschannel.agents.constraints.contested import Choices, Contest, ContestedVotes, FloatingArray, cost_of
from crosschannel.core.arrays import BoolArray, FloatArray, IntArray
from crosschannel.core.hashing import mix

VALUES_PER_CHUNK = 2**15
#: Positions that are hashed at once for a sample.
POSITIONS_PER_BLOCK = 2**18
#: Samples of up to so many votes are copied: on the first one, prices are evaluated many times.
COPIED_VOTES = 2**13


@dataclass(frozen=True)
class Votes:
    """Rows of votes, each of which takes the eligible action with the largest value net of prices.

    The arrays are read in chunks and never copied as a whole: they may be mapped from a disk.

    Attributes:
        values: Values (L, n, A) of the actions for each vote and row.
        mask: Eligible actions (n, A); action 0 always is.
        use: Expected use (C, n, A) of each budget by row and action.
        weight: What one vote of one row counts.
        positions: Which votes count, by `vote * n + row`, in ascending order; None for all.
    """

    values: FloatingArray
    mask: BoolArray
    use: FloatingArray
    weight: float
    positions: IntArray | None = None

    @property
    def count(self) -> int:
        """Number of votes."""
        return self.values.shape[0] * self.values.shape[1] if self.positions is None else len(self.positions)

    def evaluate(self, prices: FloatArray) -> Choices:
        """Return what all votes choose at prices (C,)."""
        total = Choices.nothing(len(self.use))
        for values, mask, use in self._chunks():
            codes = net_values(values, mask, use, prices).argmax(-1)
            total += _chosen(values, use, codes, codes >= 0)
        return total * self.weight

    def between(self, low: FloatArray, high: FloatArray) -> ContestedVotes:
        """Return the votes that may change between two price vectors (C,), with the choices of all others settled.

        Net values fall as prices rise, in rounded arithmetic too. An action can win between the two only if it is worth
        no less at the low prices than the vote's choice at the high prices is worth there.
        """
        settled, found = Choices.nothing(len(self.use)), []
        for values, mask, use in self._chunks():
            least = net_values(values, mask, use, high)
            codes = least.argmax(-1)
            can_win = net_values(values, mask, use, low) >= np.take_along_axis(least, codes[..., None], -1)
            owners, actions = np.divmod(np.flatnonzero(can_win), mask.shape[1])
            counts = np.bincount(owners, minlength=codes.size)
            settled += _chosen(values, use, codes, (counts == 1).reshape(codes.shape))
            open_to = counts[owners] > 1
            votes, places = np.divmod(owners[open_to], len(mask))
            entries = values[votes, places, actions[open_to]]
            found.append(
                Contest(
                    counts=counts[counts > 1],
                    values=entries,
                    gains=entries.astype(np.float64) - values[votes, places, 0],
                    use=use[:, places, actions[open_to]],
                )
            )
        return ContestedVotes(found, self.weight, settled * self.weight)

    def sample(self, size: int) -> Votes:
        """Return about `size` of all votes, chosen by a hash of their position, that count as much as all together."""
        threshold = np.uint64(size / self.count * 2.0**64)
        chosen = []
        for start in range(0, self.count, POSITIONS_PER_BLOCK):
            block = np.arange(start, min(start + POSITIONS_PER_BLOCK, self.count), dtype=np.uint64)
            chosen.append(start + np.flatnonzero(mix(block) < threshold))
        positions = np.concatenate(chosen)
        weight = self.weight * self.count / max(len(positions), 1)
        if len(positions) > COPIED_VOTES:
            return replace(self, weight=weight, positions=positions)
        votes, rows = np.divmod(positions, self.values.shape[1])
        return Votes(self.values[votes, rows][None], self.mask[rows], self.use[:, rows], weight)

    def without_use(self, budgets: BoolArray) -> Votes:
        """Return the votes with the actions not eligible that use any of some budgets (C,)."""
        mask = self.mask.copy()
        for c in np.flatnonzero(budgets):
            mask &= ~(self.use[c] > 0.0)
        return replace(self, mask=mask)

    def prohibitive_prices(self) -> FloatArray:
        """Return twice the prices (C,) each of which alone makes every action that uses its budget worth too little."""
        most = np.zeros(len(self.use))
        for values, mask, uses in self._chunks():
            best = np.where(mask, values, -np.inf).max(0).astype(np.float64)
            gain = best - values[:, :, :1].min(0)
            for c, use in enumerate(uses.astype(np.float64)):
                most[c] = max(most[c], np.max(gain[use > 0.0] / use[use > 0.0], initial=0.0))
        return 2.0 * most

    def _chunks(self) -> Iterator[tuple[FloatingArray, BoolArray, FloatingArray]]:
        """Yield values (L, k, A), eligible actions (k, A) and use (C, k, A) of some rows; of single votes, L is 1."""
        votes, rows, actions = self.values.shape
        if self.positions is None:
            for part in _chunks(votes, rows, actions):
                yield self.values[:, part], self.mask[part], self.use[:, part]
            return
        for part in _chunks(1, len(self.positions), actions):
            vote, row = np.divmod(self.positions[part], rows)
            yield self.values[vote, row][None], self.mask[row], self.use[:, row]


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
    return np.where(mask, values - cost_of(use, prices, values.dtype), values.dtype.type(-np.inf))


def _chunks(votes: int, rows: int, actions: int) -> Iterator[slice]:
    size = max(VALUES_PER_CHUNK // max(votes * actions, 1), 1)
    for start in range(0, rows, size):
        yield slice(start, min(start + size, rows))


def _chosen(values: FloatingArray, use: FloatingArray, codes: IntArray, counted: BoolArray) -> Choices:
    """Return gain and use of those of the chosen actions (L, n) that count."""
    votes, rows = np.nonzero(counted)
    actions = codes[votes, rows]
    gains = values[votes, rows, actions].astype(np.float64) - values[votes, rows, 0]
    return Choices(float(gains.sum()), use[:, rows, actions].sum(1, dtype=np.float64))
