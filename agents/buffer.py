"""What an agent has observed: growing arrays, the oldest rows overwritten once the capacity is reached."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
import torch

from agents.base import Batch
from histories.errors import Fault, InputError


def check_batch(batch: Batch) -> None:
    """Refuses rewards and errors that cannot be learned from.

    Raises:
        InputError: If a reward is not finite or a standard error is not positive; names the first such row.
    """
    faults = []
    for column, values, wrong, problem in (
        ("rewards", batch.rewards, ~np.isfinite(batch.rewards), "is not a finite number"),
        ("se", batch.se, ~(batch.se > 0) | ~np.isfinite(batch.se), "is not a positive number"),
    ):
        if wrong.any():
            row = int(wrong.argmax())
            remedy = "Leave out decisions whose reward is not identified."
            faults.append(Fault("batch", problem, remedy, column, row + 1, float(values[row]), int(wrong.sum())))
    if faults:
        raise InputError(faults)


class Buffer:
    """Observed rows as tensors on the CPU.

    Args:
        width: Context features.
        modules: Modules.
        capacity: Rows that are kept at most.
    """

    _KINDS = (("context", torch.float32), ("actions", torch.int16), ("reward", torch.float32), ("se", torch.float32))

    def __init__(self, width: int, modules: int, capacity: int) -> None:
        self.capacity = capacity
        self.seen = 0
        self._widths = {"context": width, "actions": modules, "reward": 0, "se": 0, "key": 0}
        self._data = {name: self._empty(name, dtype, 0) for name, dtype in (*self._KINDS, ("key", torch.int64))}

    def _empty(self, name: str, dtype: torch.dtype, rows: int) -> torch.Tensor:
        width = self._widths[name]
        return torch.empty((rows, width) if width else (rows,), dtype=dtype)

    def __len__(self) -> int:
        return min(self.seen, self.capacity)

    def __getitem__(self, name: str) -> torch.Tensor:
        return self._data[name][: len(self)]

    def add(self, batch: Batch) -> None:
        """Appends a batch's rows."""
        check_batch(batch)
        columns = {
            "context": batch.observations.context,
            "actions": batch.actions.astype(np.int16),
            "reward": batch.rewards.astype(np.float32),
            "se": batch.se.astype(np.float32),
            "key": batch.keys.view(np.int64),
        }
        place = (self.seen + np.arange(len(batch))) % self.capacity
        self._grow(min(self.seen + len(batch), self.capacity))
        for name, values in columns.items():
            self._data[name][torch.from_numpy(place)] = torch.from_numpy(np.ascontiguousarray(values))
        self.seen += len(batch)

    def _grow(self, rows: int) -> None:
        have = len(self._data["se"])
        if rows <= have:
            return
        size = min(max(rows, 2 * have, 1024), self.capacity)
        for name, old in self._data.items():
            self._data[name] = self._empty(name, old.dtype, size)
            self._data[name][:have] = old

    def state_dict(self) -> dict[str, Any]:
        """All rows, and how many were ever seen."""
        return {"seen": self.seen, **{name: self[name].clone() for name in self._data}}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """The inverse of `state_dict`."""
        self.seen = int(state["seen"])
        self._data = {name: state[name].clone() for name in self._data}
