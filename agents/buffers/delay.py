"""Delayed rewards: a queue that holds rows until their rewards are available."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
import torch

from crosschannel.agents.base import ROW_COMPONENTS, Batch, Components, Observations, join
from crosschannel.core.arrays import IntArray
from crosschannel.core.errors import ConfigError

COLUMNS = ("actions", "rewards", "se", "keys", "steps_to_next", "terminal")
OBSERVED = ("context", "action_mask", "users", "action_prices")
COMPONENTS = (*ROW_COMPONENTS, "cost_weights")


class Delay:
    """A queue of observed rows that returns each row once, as soon as its reward is available.

    A learner at time s that takes its rows from this queue uses only rewards with `available_at <= s`. Rows come in the
    order of `available_at`, and of their keys where that is equal, so that the order of insertion does not matter.
    """

    def __init__(self) -> None:
        self._held: Batch | None = None
        self._available = np.zeros(0, dtype=np.int64)

    def __len__(self) -> int:
        return len(self._available)

    def put(self, batch: Batch, available_at: IntArray) -> None:
        """Add rows.

        Args:
            batch: N rows.
            available_at: Time at which each reward is known (N,), microseconds since 1970 UTC.

        Raises:
            ConfigError: If there is not one time for each row, or the rows have other parts than those before.
        """
        if available_at.shape != (len(batch),):
            raise ConfigError(
                f"available_at has shape {available_at.shape}, not ({len(batch)},): give one time per row"
            )
        self._held = batch if self._held is None else join([self._held, batch])
        self._available = np.concatenate([self._available, available_at.astype(np.int64)])

    def due(self, now: int) -> Batch | None:
        """Remove and return the rows whose reward is available at a time, in order; None where there are none."""
        ready = self._available <= now
        if self._held is None or not ready.any():
            return None
        rows = np.flatnonzero(ready)
        rows = rows[np.lexsort((self._held.keys[rows], self._available[rows]))]
        out = self._held[rows]
        self._held, self._available = self._held[~ready], self._available[~ready]
        return out

    def state_dict(self) -> dict[str, Any]:
        """Return all rows of the queue, as tensors and names."""
        if self._held is None:
            return {}
        held, parts = self._held, self._held.components
        arrays = {
            **_observed("", held.observations),
            **({} if held.next_observations is None else _observed("next_", held.next_observations)),
            **({} if parts is None else {name: np.asarray(getattr(parts, name)) for name in COMPONENTS}),
            **{name: getattr(held, name) for name in COLUMNS},
            "available_at": self._available,
        }
        names = {} if parts is None else {"cost_names": list(parts.cost_names)}
        return {name: _tensor(array) for name, array in arrays.items() if array is not None} | names

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Restore what `state_dict` returned."""
        arrays = {name: part.numpy().copy() for name, part in state.items() if name != "cost_names"}
        if not arrays:
            self._held, self._available = None, np.zeros(0, dtype=np.int64)
            return
        components = None
        if "cost_names" in state:
            columns = {name: arrays[name] for name in COMPONENTS}
            components = Components(**columns, cost_names=tuple(state["cost_names"]))
        self._available = arrays["available_at"]
        self._held = Batch(
            observations=_observations("", arrays),
            actions=arrays["actions"],
            rewards=arrays["rewards"],
            se=arrays["se"],
            keys=arrays["keys"].view(np.uint64),
            next_observations=_observations("next_", arrays) if "next_context" in arrays else None,
            steps_to_next=arrays.get("steps_to_next"),
            terminal=arrays.get("terminal"),
            components=components,
        )


def _observed(prefix: str, observations: Observations) -> dict[str, Any]:
    return {prefix + name: getattr(observations, name) for name in OBSERVED}


def _observations(prefix: str, arrays: Mapping[str, Any]) -> Observations:
    found: dict[str, Any] = {name: arrays.get(prefix + name) for name in OBSERVED}
    if found["users"] is not None:
        found["users"] = found["users"].view(np.uint64)
    return Observations(**found)


def _tensor(array: Any) -> torch.Tensor:
    # Not every version of torch loads tensors of unsigned 64-bit integers; signed ones keep the bits.
    return torch.from_numpy(array.view(np.int64).copy() if array.dtype == np.uint64 else array.copy())
