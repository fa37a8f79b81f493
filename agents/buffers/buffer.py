"""What an agent has observed: growing arrays, the oldest rows overwritten once the capacity is reached."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, TypeVar

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from crosschannel.agents.base import Batch, UIntArray
from crosschannel.core.action_changes import recoded
from crosschannel.core.action_space import ActionSpace
from crosschannel.core.arrays import FloatArray
from crosschannel.core.errors import ConfigError, Fault, InputError

SMALLEST = 1e-12

Column = TypeVar("Column", FloatArray, Tensor)


def check_batch(batch: Batch, modules: ActionSpace) -> None:
    """Refuses rows that cannot be learned from.

    Raises:
        InputError: If a reward or a context is not finite, a standard error is negative, or an action is not one
            of the modules'; names the first such row of each kind.
    """
    context, actions = batch.observations.context, np.asarray(batch.actions)
    leave_out = "Leave out decisions whose reward is not identified."
    fill_in = "Fill in missing features and clip infinite ones before the agent sees them."
    faults = []
    for column, values, wrong, problem, remedy in (
        ("rewards", batch.rewards, ~np.isfinite(batch.rewards), "is not a finite number", leave_out),
        ("se", batch.se, ~(batch.se >= 0) | ~np.isfinite(batch.se), "is not a number of 0 or more", leave_out),
        ("context", context, ~np.isfinite(context).all(1), "has a feature that is not a finite number", fill_in),
        ("actions", actions, ~modules.valid(actions), "is not an action", f"Actions are codes of {modules}."),
    ):
        if wrong.any():
            row = int(wrong.argmax())
            value = np.asarray(values[row]).tolist() if column != "context" else None
            faults.append(Fault("batch", problem, remedy, column, row + 1, value, int(wrong.sum())))
    if faults:
        raise InputError(faults)


def usual(se: FloatArray | Tensor) -> float:
    """The median of se^2 (n,) where there is an error, which has a precision of 1.

    A cell in which no control did anything states an error of 0. Where most do, these must not make all others, in
    which something happened, count for nothing.
    """
    square = np.square(np.asarray(se, dtype=np.float64))
    return max(float(np.median(square[square > 0])), SMALLEST) if (square > 0).any() else SMALLEST


def precision(se: Column, reference: float, cap: float) -> Column:
    """Capped precisions (n,) of rewards with standard errors (n,), which may be 0, by what is `usual` of se^2."""
    return (reference / (se * se).clip(SMALLEST)).clip(max=cap)


class Buffer:
    """Observed rows as tensors on the CPU.

    Args:
        width: Context features.
        modules: What can be chosen.
        capacity: Rows that are kept at most.
    """

    _KINDS = (("context", torch.float32), ("actions", torch.int16), ("reward", torch.float32), ("se", torch.float32))

    def __init__(self, width: int, modules: ActionSpace, capacity: int) -> None:
        self.capacity = capacity
        self.seen = 0
        self._modules = modules
        self._widths = {"context": width, "actions": len(modules), "reward": 0, "se": 0, "key": 0}
        self._data = {name: self._empty(name, dtype, 0) for name, dtype in (*self._KINDS, ("key", torch.int64))}

    def _empty(self, name: str, dtype: torch.dtype, rows: int) -> Tensor:
        width = self._widths[name]
        return torch.empty((rows, width) if width else (rows,), dtype=dtype)

    def __len__(self) -> int:
        return min(self.seen, self.capacity)

    def __getitem__(self, name: str) -> Tensor:
        return self._data[name][: len(self)]

    def add(self, batch: Batch) -> None:
        """Appends a batch's rows, the last `capacity` of them.

        Raises:
            InputError: If a row cannot be learned from.
            ConfigError: If contexts are of another width.
        """
        if batch.observations.context.shape[1:] != (self._widths["context"],):
            raise ConfigError(
                f"contexts have {batch.observations.context.shape[1]} features; the agent was made for "
                f"{self._widths['context']}: give `context_dim` the width of the contexts"
            )
        check_batch(batch, self._modules)
        skipped = max(len(batch) - self.capacity, 0)
        columns: dict[str, npt.NDArray[Any]] = {
            "context": batch.observations.context,
            "actions": batch.actions.astype(np.int16),
            "reward": batch.rewards.astype(np.float32),
            "se": batch.se.astype(np.float32),
            "key": batch.keys.view(np.int64),
        }
        place = (self.seen + np.arange(skipped, len(batch))) % self.capacity
        self._grow(min(self.seen + len(batch), self.capacity))
        for name, values in columns.items():
            self._data[name][torch.from_numpy(place)] = torch.from_numpy(np.ascontiguousarray(values[skipped:]))
        self.seen += len(batch)

    def rows(self, sent_only: bool, since: int = 0) -> Tensor:
        """Places (n,) of the rows that were seen after the first `since`, or of those of them that sent something."""
        new = min(self.seen - since, len(self))
        places = torch.arange(self.seen - new, self.seen) % self.capacity if since else torch.arange(len(self))
        return places[self["actions"][places, 0] != 0] if sent_only else places

    def age(self, rows: Tensor) -> Tensor:
        """How many rows have been seen since those at some places (n,), float32."""
        return ((self.seen - 1 - rows) % self.capacity).float()

    def keys(self, rows: Tensor) -> UIntArray:
        """The rows' keys (n,)."""
        return self["key"][rows].numpy().view(np.uint64)

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

    def load_state_dict(self, state: Mapping[str, Any], before: ActionSpace, after: ActionSpace) -> None:
        """The inverse of `state_dict`; actions that it has in the codes of `before` get those of `after`.

        Raises:
            ValueError: If contexts are of another width.
        """
        width = state["context"].shape[1]
        if width != self._widths["context"]:
            raise ValueError(f"it has seen contexts of {width} features, not {self._widths['context']}")
        self.seen = int(state["seen"])
        self._data = {name: state[name].clone() for name in self._data}
        self._data["actions"] = recoded(self._data["actions"], before, after)
