"""Votes that prices may still change, with the few actions that can win: a small part of all."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from crosschannel.core.arrays import FloatArray, IntArray

FloatingArray = npt.NDArray[np.floating[Any]]

#: Prices beyond which, or below whose inverse, products with uses in single precision may overflow or vanish.
SINGLE_PRECISION_PRICES = 1e15


@dataclass(frozen=True)
class Choices:
    """What votes choose at some prices, summed over them.

    Attributes:
        gain: Value of the chosen actions beyond that of action 0.
        use: Expected use (C,) of each budget.
    """

    gain: float
    use: FloatArray

    @classmethod
    def nothing(cls, budgets: int) -> Choices:
        """Return the choices of no votes."""
        return cls(0.0, np.zeros(budgets))

    def __add__(self, other: Choices) -> Choices:
        return Choices(self.gain + other.gain, self.use + other.use)

    def __mul__(self, factor: float) -> Choices:
        return Choices(self.gain * factor, self.use * factor)


@dataclass(frozen=True)
class Contest:
    """Votes with the actions that can win: an entry for each vote and action, those of a vote side by side.

    Attributes:
        counts: Number of entries of each vote (R,), above 0.
        values: Value of each entry (P,).
        gains: Value of each entry beyond that of the vote's action 0 (P,).
        use: Expected use (C, P) of each budget.
    """

    counts: IntArray
    values: FloatingArray
    gains: FloatArray
    use: FloatingArray


class ContestedVotes:
    """Votes that prices may change, beside others that are settled.

    Args:
        parts: The votes, in parts.
        weight: What one vote counts.
        settled: What counts beside these votes.
    """

    def __init__(self, parts: Sequence[Contest], weight: float, settled: Choices) -> None:
        self._values = np.concatenate([part.values for part in parts])
        self._gains = np.concatenate([part.gains for part in parts])
        self._use = np.concatenate([part.use for part in parts], axis=1)
        counts = np.concatenate([part.counts for part in parts])
        self._begins = np.cumsum(counts) - counts
        self._owners = np.repeat(np.arange(len(counts)), counts)
        self._weight, self._settled = weight, settled

    @property
    def count(self) -> int:
        """Number of votes that prices may change."""
        return len(self._begins)

    def evaluate(self, prices: FloatArray) -> Choices:
        """Return what all votes choose at prices (C,): the first of equally good actions, as `argmax` does."""
        if not len(self._owners):
            return self._settled
        net = self._values - cost_of(self._use, prices, self._values.dtype)
        best = np.flatnonzero(net == np.maximum.reduceat(net, self._begins)[self._owners])
        first = best[np.diff(self._owners[best], prepend=-1) > 0]
        chosen = Choices(float(self._gains[first].sum()), self._use[:, first].sum(1, dtype=np.float64))
        return self._settled + chosen * self._weight


def cost_of(use: FloatingArray, prices: FloatArray, kind: np.dtype[Any]) -> FloatingArray:
    """Return what uses (C, ...) cost at prices (C,), entry by entry, so that chunks do not change a bit.

    Args:
        use: Expected use of each budget.
        prices: The prices.
        kind: Precision of the result; double where prices are extreme.
    """
    priced = np.flatnonzero(prices > 0.0)
    extreme = (prices[priced] > SINGLE_PRECISION_PRICES) | (prices[priced] * SINGLE_PRECISION_PRICES < 1.0)
    kind = np.dtype(np.float64) if extreme.any() else kind
    cost = np.zeros(use.shape[1:], dtype=kind)
    with np.errstate(over="ignore"):  # an infinite cost is one that no value outweighs
        for c in priced:
            cost += use[c] * kind.type(prices[c])
    return cost
