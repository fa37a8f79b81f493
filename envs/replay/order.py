"""Which user a replay serves when: every chosen user once in each pass, by default in a new random order each time."""

from __future__ import annotations

import numpy as np

from crosschannel.core.arrays import IntArray, UIntArray
from crosschannel.core.errors import ConfigError, nearest
from crosschannel.core.hashing import derive

KEPT = 8
ORDERS = ("shuffled", "listed")


class PassOrder:
    """An endless row of passes over the chosen users; position p is place `p % K` of pass `p // K`.

    Replays share one row: of n replays the i-th takes the positions i, i + n, i + 2n, ..., so that together they serve
    every chosen user exactly once in each pass.

    `shuffled`: within each block of n positions, whose users are replayed at the same time, users ascend from a random
    one on and go round: who comes together and who comes where is random, but memory is read in one direction.
    `listed`: in every pass as they were named.

    The order of a pass is a function of the seed, the block and the users' keys alone, so that nothing else has to be
    kept.

    Attributes:
        seed: Gives the orders, and whatever else a replay draws by hash.
        block: How many users are replayed at the same time.
        among: Codes of the chosen users (K,), each once.
        order: One of `ORDERS`.

    Raises:
        ConfigError: If there is no such order, no user is chosen, or one is chosen twice.
    """

    def __init__(
        self,
        user_keys: UIntArray,
        seed: int,
        block: int = 1,
        among: IntArray | None = None,
        order: str = "shuffled",
    ) -> None:
        if order not in ORDERS:
            raise ConfigError(f"there is no order {order!r}. {nearest(order, ORDERS)}")
        chosen = np.arange(len(user_keys)) if among is None else np.asarray(among, dtype=np.int64)
        different = len(np.unique(chosen))
        if different == 0 or different < len(chosen):
            raise ConfigError(f"option 'among' has {len(chosen)} users, {different} different: name each once")
        self.seed = seed
        self.block = block
        self.among = chosen if order == "listed" else np.sort(chosen)
        self.order = order
        self._keys = user_keys[self.among]
        self._orders: dict[int, IntArray] = {}

    def __len__(self) -> int:
        """How many users are chosen, K."""
        return len(self.among)

    def users(self, position: IntArray) -> IntArray:
        """The users' codes (k,) at positions (k,)."""
        number, place = np.divmod(position, len(self))
        if self.order == "listed":
            return np.asarray(self.among[place])
        out = np.empty_like(number)
        for p in np.unique(number):  # few passes are under way at once
            chosen = number == p
            out[chosen] = self._shuffled(int(p))[place[chosen]]
        return np.asarray(self.among[out])

    def _shuffled(self, p: int) -> IntArray:
        """Places in `among` (K,) in the order of pass p."""
        if p not in self._orders:
            if len(self._orders) >= KEPT:
                del self._orders[min(self._orders)]
            order = np.argsort(derive(self._keys, self.seed + p))
            n, position = len(order), np.arange(len(order)) + p * len(order)
            block = position // self.block
            first = order[np.maximum(block * self.block - p * n, 0)]
            self._orders[p] = order[np.argsort(block * n + (order - first) % n)]
        return self._orders[p]
