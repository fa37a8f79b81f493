"""Learning under delay: holds what was observed until its reward is known."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
import torch

from crosschannel.agents.base import Batch, Observations, join
from crosschannel.core.arrays import IntArray
from crosschannel.core.errors import ConfigError

COLUMNS = ("actions", "rewards", "se", "keys", "steps_to_next", "terminal")


class Delay:
    """A queue of observed rows that gives each one out once, at the first question after its reward is available.

    A learner at time s that takes its rows from here uses only rewards with `available_at <= s`. Rows come in the order
    of `available_at`, and of their keys where that is equal, so that it does not matter how they were put in.
    """

    def __init__(self) -> None:
        self._held: Batch | None = None
        self._available = np.zeros(0, dtype=np.int64)

    def __len__(self) -> int:
        return len(self._available)

    def put(self, batch: Batch, available_at: IntArray) -> None:
        """Holds rows until their rewards are available.

        Args:
            batch: N rows.
            available_at: When each reward is known (N,), microseconds since 1970 UTC.

        Raises:
            ConfigError: If there is not one time for each row.
        """
        if available_at.shape != (len(batch),):
            raise ConfigError(f"available_at has the shape {available_at.shape}, not ({len(batch)},): one time a row")
        self._held = batch if self._held is None else join([self._held, batch])
        self._available = np.concatenate([self._available, available_at.astype(np.int64)])

    def due(self, now: int) -> Batch | None:
        """The rows whose reward is available at a time, in order, no longer held then; None where there are none."""
        ready = self._available <= now
        if self._held is None or not ready.any():
            return None
        rows = np.flatnonzero(ready)
        rows = rows[np.lexsort((self._held.keys[rows], self._available[rows]))]
        out = self._held[rows]
        self._held, self._available = self._held[~ready], self._available[~ready]
        return out

    def state_dict(self) -> dict[str, Any]:
        """All held rows, as tensors."""
        if self._held is None:
            return {}
        held = self._held
        arrays = {
            **_observed("", held.observations),
            **({} if held.next_observations is None else _observed("next_", held.next_observations)),
            **{name: getattr(held, name) for name in COLUMNS},
            "available_at": self._available,
        }
        return {name: _tensor(array) for name, array in arrays.items() if array is not None}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """The inverse of `state_dict`."""
        arrays = {name: tensor.numpy().copy() for name, tensor in state.items()}
        if not arrays:
            self._held, self._available = None, np.zeros(0, dtype=np.int64)
            return
        self._available = arrays["available_at"]
        self._held = Batch(
            _observations("", arrays),
            arrays["actions"],
            arrays["rewards"],
            arrays["se"],
            arrays["keys"].view(np.uint64),
            _observations("next_", arrays) if "next_context" in arrays else None,
            arrays.get("steps_to_next"),
            arrays.get("terminal"),
        )


def _observed(prefix: str, observations: Observations) -> dict[str, Any]:
    return {prefix + name: getattr(observations, name) for name in ("context", "action_mask", "users")}


def _observations(prefix: str, arrays: Mapping[str, Any]) -> Observations:
    users = arrays.get(prefix + "users")
    users = None if users is None else users.view(np.uint64)
    return Observations(arrays[prefix + "context"], arrays[prefix + "action_mask"], users)


def _tensor(array: Any) -> torch.Tensor:
    # A tensor of unsigned 64-bit numbers cannot be read back everywhere; their bits as signed ones can.
    return torch.from_numpy(array.view(np.int64).copy() if array.dtype == np.uint64 else array.copy())
