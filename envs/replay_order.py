"""Which user a replay serves when: every user once in each pass, in an order of its own for each pass."""

from __future__ import annotations

import numpy as np

from histories.hashing import UIntArray, derive
from histories.modules import IntArray

KEPT = 8


class PassOrder:
    """An endless row of passes over U users; position p is place `p % U` of pass `p // U`.

    Replays share one row: of n replays the i-th takes the positions i, i + n, i + 2n, ..., so that together they serve
    every user exactly once in each pass. Within each block of n positions, whose users are replayed at the same time,
    users ascend from a random one on and go round: who comes together and who comes where is random, but memory is read
    in one direction.

    The order of a pass is a function of the seed, the block and the users' keys alone, so that nothing else has to be
    kept.

    Attributes:
        seed: Gives the orders.
        block: How many users are replayed at the same time.
    """

    def __init__(self, user_keys: UIntArray, seed: int, block: int = 1) -> None:
        self.seed = seed
        self.block = block
        self._keys = user_keys
        self._orders: dict[int, IntArray] = {}

    def users(self, position: IntArray) -> IntArray:
        """The users' codes (k,) at positions (k,)."""
        number, place = np.divmod(position, len(self._keys))
        out = np.empty_like(number)
        for p in np.unique(number):  # few passes are under way at once
            chosen = number == p
            out[chosen] = self._order(int(p))[place[chosen]]
        return out

    def _order(self, p: int) -> IntArray:
        if p not in self._orders:
            if len(self._orders) >= KEPT:
                del self._orders[min(self._orders)]
            order = np.argsort(derive(self._keys, self.seed + p), kind="stable")
            n, position = len(order), np.arange(len(order)) + p * len(order)
            block = position // self.block
            first = order[np.maximum(block * self.block - p * n, 0)]
            self._orders[p] = order[np.lexsort(((order - first) % n, block))]
        return self._orders[p]
