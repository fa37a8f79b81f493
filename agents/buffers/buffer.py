"""A replay buffer: growing arrays that overwrite the oldest rows at capacity; checks and weights of rows."""

from __future__ import annotations

from collections.abc import Callable, Hashable, Mapping
from dataclasses import dataclass
from typing import Any, TypeVar

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from crosschannel.agents.base import ROW_COMPONENTS, Batch, Components, Observations
from crosschannel.core.action_changes import recode_actions
from crosschannel.core.action_space import ActionSpace
from crosschannel.core.arrays import BoolArray, FloatArray, UIntArray
from crosschannel.core.errors import ConfigError, Fault, InputError

MIN_VARIANCE = 1e-12

Column = TypeVar("Column", FloatArray, Tensor)


def check_batch(batch: Batch, modules: ActionSpace) -> None:
    """Refuse rows that cannot be learned from.

    Raises:
        InputError: If a reward or a context is not finite, a standard error is negative, an action is not one of the
            modules', or a component is not what `Components` says; it names the first such row of each kind.
        ConfigError: If the components are of another shape, or a price is not above 0.
    """
    if batch.components is not None:
        _check_component_shapes(batch.components, len(batch))
    context, actions = batch.observations.context, np.asarray(batch.actions)
    leave_out = "Leave out decisions whose reward is not identified."
    fill_in = "Fill in missing features and clip infinite ones before the agent sees them."
    faults = []
    for column, values, wrong, problem, remedy in (
        ("rewards", batch.rewards, ~np.isfinite(batch.rewards), "is not a finite number", leave_out),
        ("se", batch.se, ~(batch.se >= 0) | ~np.isfinite(batch.se), "is not 0 or a positive number", leave_out),
        ("context", context, ~np.isfinite(context).all(1), "has a feature that is not a finite number", fill_in),
        ("actions", actions, ~modules.valid(actions), "is not an action", f"Actions are codes of {modules}."),
    ):
        if wrong.any():
            faults.append(_fault(column, values if column != "context" else None, wrong, problem, remedy))
    if batch.components is not None:
        faults += _faults_of_components(batch.components)
    if faults:
        raise InputError(faults)


def _faults_of_components(parts: Components) -> list[Fault]:
    faults = []
    flag = "is not 1, 0 or NaN", "Mark what happened by 1 and what did not by 0; NaN means that it is not known."
    odds = "is not 0 or a positive number", "Where the odds of a message are not known they are 1."
    finite = "is infinite", "NaN means that the value is not identified."
    for column, values, wrong, (problem, remedy) in (
        ("components.engaged", parts.engaged, ~_is_flag(parts.engaged), flag),
        ("components.value", parts.value, np.isinf(parts.value), finite),
        ("components.cost", parts.cost, ~_is_flag(parts.cost).all(1), flag),
        ("components.odds", parts.odds, ~((parts.odds >= 0) & np.isfinite(parts.odds)), odds),
    ):
        if wrong.any():
            faults.append(_fault(column, values, wrong, problem, remedy))
    return faults


def _fault(column: str, values: Any, wrong: BoolArray | np.bool_, problem: str, remedy: str) -> Fault:
    """Return the fault of a column at its first wrong row, with the value there unless `values` is None."""
    row = int(np.argmax(wrong))
    return Fault(
        file="batch",
        problem=problem,
        remedy=remedy,
        column=column,
        row=row + 1,
        value=None if values is None else np.asarray(values[row]).tolist(),
        count=int(wrong.sum()),
    )


def _is_flag(values: FloatArray) -> BoolArray:
    return np.asarray((values == 0.0) | (values == 1.0) | np.isnan(values))


def _check_component_shapes(parts: Components, rows: int) -> None:
    """Refuse components that do not belong to a number of rows.

    Raises:
        ConfigError: If a column has another length, a cost event has no column, or a price is not above 0.
    """
    wanted = {"engaged": (rows,), "value": (rows,), "cost": (rows, len(parts.cost_names)), "odds": (rows,)}
    wanted["cost_weights"] = (len(parts.cost_names),)
    for name, shape in wanted.items():
        found = np.shape(getattr(parts, name))
        if found != shape:
            raise ConfigError(f"components.{name} has the shape {list(found)}, not {list(shape)}")
    weights = np.asarray(parts.cost_weights, dtype=np.float64)
    if not (np.isfinite(weights) & (weights > 0)).all():
        raise ConfigError(f"components.cost_weights are {weights.tolist()}: prices are finite and above 0")


def check_context_width(observations: Observations, width: int) -> None:
    """Refuse contexts of another width.

    Raises:
        ConfigError: If they are.
    """
    if observations.context.shape[1:] != (width,):
        raise ConfigError(
            f"contexts have {observations.context.shape[1]} features; the agent was made for {width}: "
            "give `context_dim` the width of the contexts"
        )


def median_variance(se: FloatArray | Tensor) -> float:
    """Return the median of the positive se^2 (n,): the variance of a row with precision 1.

    Standard errors of 0 are left out: a cell whose controls did not vary reports 0, and if most cells did, the weight
    of all other rows would vanish.
    """
    square = np.square(np.asarray(se, dtype=np.float64))
    return max(float(np.median(square[square > 0])), MIN_VARIANCE) if (square > 0).any() else MIN_VARIANCE


def precision(se: Column, reference: float, cap: float) -> Column:
    """Return the capped precisions (n,) of rewards with standard errors (n,), in multiples of `1 / reference`.

    Args:
        se: Standard errors (n,), 0 or more.
        reference: The variance with precision 1, such as the `median_variance`.
        cap: The largest precision.
    """
    return (reference / (se * se).clip(MIN_VARIANCE)).clip(max=cap)


@dataclass(frozen=True)
class FunnelColumns:
    """The cost events of the components in a buffer.

    Attributes:
        cost_names: Their names (C).
        cost_weights: Their prices in reward units (C,).
    """

    cost_names: tuple[str, ...]
    cost_weights: tuple[float, ...]


class Buffer:
    """Observed rows as tensors on the CPU; at capacity new rows overwrite the oldest.

    Components are kept if the first rows have some: `funnel` then names the cost events.

    Args:
        width: Number of context features.
        modules: The action space.
        capacity: Largest number of rows.
    """

    _KINDS = (("context", torch.float32), ("actions", torch.int16), ("reward", torch.float32), ("se", torch.float32))

    def __init__(self, width: int, modules: ActionSpace, capacity: int) -> None:
        self.capacity = capacity
        self.seen = 0
        self.funnel: FunnelColumns | None = None
        self._modules = modules
        self._widths = {"context": width, "actions": len(modules), "reward": 0, "se": 0, "key": 0}
        self._data = {name: self._empty(name, dtype, 0) for name, dtype in (*self._KINDS, ("key", torch.int64))}
        self._subsets: dict[Hashable, tuple[int, Tensor]] = {}  # rows seen so far, and positions of those that belong

    def _empty(self, name: str, dtype: torch.dtype, rows: int) -> Tensor:
        width = self._widths[name]
        return torch.empty((rows, width) if width or name == "cost" else (rows,), dtype=dtype)

    def __len__(self) -> int:
        return min(self.seen, self.capacity)

    def __getitem__(self, name: str) -> Tensor:
        return self._data[name][: len(self)]

    def add(self, batch: Batch) -> None:
        """Append a batch's rows, the last `capacity` of them.

        Raises:
            InputError: If a row cannot be learned from.
            ConfigError: If contexts have another width, or the rows have other components than those before.
        """
        check_context_width(batch.observations, self._widths["context"])
        check_batch(batch, self._modules)
        self._match_components(batch.components)
        skipped = max(len(batch) - self.capacity, 0)
        columns: dict[str, npt.NDArray[Any]] = {
            "context": batch.observations.context,
            "actions": batch.actions.astype(np.int16),
            "reward": batch.rewards.astype(np.float32),
            "se": batch.se.astype(np.float32),
            "key": batch.keys.view(np.int64),
        }
        if batch.components is not None:
            parts, users = batch.components, batch.observations.users
            columns |= {name: getattr(parts, name).astype(np.float32) for name in ROW_COMPONENTS}
            columns["user"] = (batch.keys if users is None else users).view(np.int64)
        place = (self.seen + np.arange(skipped, len(batch))) % self.capacity
        self._grow(min(self.seen + len(batch), self.capacity))
        for name, values in columns.items():
            if values[skipped:].size:  # a context may have no features, which torch does not assign
                self._data[name][torch.from_numpy(place)] = torch.from_numpy(np.ascontiguousarray(values[skipped:]))
        self.seen += len(batch)

    def _match_components(self, components: Components | None) -> None:
        """Make columns for the components of the first rows; later rows must have the same.

        Raises:
            ConfigError: If they have others.
        """
        found = None
        if components is not None:
            found = FunnelColumns(components.cost_names, tuple(map(float, components.cost_weights)))
        if self.seen == 0 and found != self.funnel:
            self._add_columns(found)
        elif found != self.funnel:
            raise ConfigError("all rows of an agent have the same components, or none has any")

    def _add_columns(self, funnel: FunnelColumns | None) -> None:
        self.funnel = funnel
        for name in (*ROW_COMPONENTS, "user"):
            self._data.pop(name, None)
            if funnel is not None:
                self._widths[name] = len(funnel.cost_names) if name == "cost" else 0
                self._data[name] = torch.empty(
                    (0, self._widths[name]) if name == "cost" else (0,),
                    dtype=torch.int64 if name == "user" else torch.float32,
                )

    def rows(self, sent_only: bool, since: int = 0) -> Tensor:
        """Return the positions (n,) of the rows after the first `since`, or of those in which something was sent."""
        if not sent_only:
            return self._positions(since)
        if since:
            new = self._positions(since)
            return new[self.sends(new)]
        return self.subset("sends", self.sends)

    def sends(self, rows: Tensor) -> Tensor:
        """Mark those of the rows at some positions (n,) in which something was sent."""
        return self["actions"][rows, 0] != 0

    def subset(self, name: Hashable, condition: Callable[[Tensor], Tensor]) -> Tensor:
        """Return the positions (n,) of the rows that satisfy a condition, ascending; only new rows are checked.

        Args:
            name: Identifies the condition in later calls.
            condition: Marks those of the rows at some positions (n,) that satisfy it; may not change over time.
        """
        seen, found = self._subsets.get(name, (0, torch.empty(0, dtype=torch.int64)))
        if seen < self.seen:
            if self.seen > self.capacity:  # rows were overwritten
                seen, found = 0, found[:0]
            new = self._positions(seen)
            found = torch.cat([found, new[condition(new)]])
            self._subsets[name] = self.seen, found
        return found

    def _positions(self, since: int) -> Tensor:
        new = min(self.seen - since, len(self))
        return torch.arange(self.seen - new, self.seen) % self.capacity if since else torch.arange(len(self))

    def age(self, rows: Tensor) -> Tensor:
        """Return how many rows were added after those at some positions (n,), float32."""
        return ((self.seen - 1 - rows) % self.capacity).float()

    def keys(self, rows: Tensor) -> UIntArray:
        """Return the keys (n,) of the rows at some positions (n,)."""
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
        """Return all rows, and how many were ever added."""
        funnel = None if self.funnel is None else [list(self.funnel.cost_names), list(self.funnel.cost_weights)]
        return {"seen": self.seen, "funnel": funnel, **{name: self[name].clone() for name in self._data}}

    def load_state_dict(self, state: Mapping[str, Any], before: ActionSpace, after: ActionSpace) -> None:
        """Restore what `state_dict` returned, with actions recoded from the codes of `before` to those of `after`.

        Raises:
            ValueError: If contexts have another width.
        """
        width = state["context"].shape[1]
        if width != self._widths["context"]:
            raise ValueError(f"its contexts have {width} features, not {self._widths['context']}")
        self.seen, self._subsets = int(state["seen"]), {}
        names = state["funnel"]
        self._add_columns(None if names is None else FunnelColumns(tuple(names[0]), tuple(names[1])))
        self._data = {name: state[name].clone() for name in self._data}
        self._data["actions"] = recode_actions(self._data["actions"], before, after)
