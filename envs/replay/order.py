"""Order of the replayed users: every chosen user once in each pass, by default in a new random order each time."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np

from crosschannel.core.arrays import IntArray, UIntArray
from crosschannel.core.errors import ConfigError, nearest
from crosschannel.core.hashing import derive

MAX_CACHED_ORDERS = 8
ORDERS = ("shuffled", "listed")


class PassOrder:
    """An endless sequence of passes over the chosen users; position p is place `p % K` of pass `p // K`.

    Replays share one sequence: of n replays the i-th takes the positions i, i + n, i + 2n, ..., so that together they
    replay every chosen user exactly once in each pass.

    `shuffled`: within each block of n positions, whose users are replayed at the same time, users are sorted by code,
    starting at a random one: which users share a block, and the place of each, is random, but memory is read in one
    direction. `listed`: the given order, in every pass.

    The order of a pass is a function of the seed, the block and the users' keys alone, so that nothing else needs to be
    stored.

    Attributes:
        seed: Seed of the orders, and of all other draws of a replay.
        block: Number of users that are replayed at the same time.
        among: Codes of the chosen users (K,), each once.
        order: One of `ORDERS`.

    Raises:
        ConfigError: If the order is unknown, no user is chosen, or one is chosen twice.
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
            raise ConfigError(f"option 'among' has {len(chosen)} users, {different} different: list each user once")
        self.seed = seed
        self.block = block
        self.among = chosen if order == "listed" else np.sort(chosen)
        self.order = order
        self._among_all = len(chosen) == len(user_keys) and bool((self.among == np.arange(len(chosen))).all())
        self._keys = user_keys[self.among]
        self._orders: dict[int, IntArray] = {}

    def __len__(self) -> int:
        """Number of chosen users, K."""
        return len(self.among)

    def users(self, position: IntArray) -> IntArray:
        """Return the users' codes (k,) at positions (k,)."""
        number, place = np.divmod(position, len(self))
        if self.order == "listed":
            return np.asarray(self.among[place])
        out = np.empty_like(number)
        for p in np.unique(number):  # few passes are active at once
            chosen = number == p
            out[chosen] = self._shuffled(int(p))[place[chosen]]
        return np.asarray(self.among[out])

    def state_dict(self) -> dict[str, Any]:
        """Return what makes the same order of the same users, as plain values; `among` is None for all of them."""
        among = None if self._among_all else self.among.tolist()
        return {"seed": self.seed, "order": self.order, "among": among}

    @classmethod
    def from_state_dict(cls, state: Mapping[str, Any], user_keys: UIntArray, block: int) -> PassOrder:
        """Build the order from what `state_dict` returned, the keys of all users and the size of a block."""
        among = None if state["among"] is None else np.array(state["among"], dtype=np.int64)
        return cls(user_keys, seed=state["seed"], block=block, among=among, order=state["order"])

    def _shuffled(self, p: int) -> IntArray:
        """Return places in `among` (K,) in the order of pass p."""
        if p not in self._orders:
            if len(self._orders) >= MAX_CACHED_ORDERS:
                del self._orders[min(self._orders)]
            order = np.argsort(derive(self._keys, self.seed + p))
            n, position = len(order), np.arange(len(order)) + p * len(order)
            block = position // self.block
            first = order[np.maximum(block * self.block - p * n, 0)]
            self._orders[p] = order[np.argsort(block * n + (order - first) % n)]
        return self._orders[p]
