"""What an agent is: arrays in, actions with exact probabilities out."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Protocol, runtime_checkable

import numpy as np
import numpy.typing as npt

from histories.modules import BoolArray, FloatArray, IntArray, Modules

Float32Array = npt.NDArray[np.float32]
UIntArray = npt.NDArray[np.uint64]


@dataclass(frozen=True)
class Observations:
    """What a policy sees of N decision slots: `context` (N, D) float32 and `action_mask` (N, sum of actions) bool."""

    context: Float32Array
    action_mask: BoolArray

    def __len__(self) -> int:
        return len(self.context)

    def __getitem__(self, rows: Any) -> Observations:
        return Observations(self.context[rows], self.action_mask[rows])


@dataclass(frozen=True)
class Decisions:
    """Chosen actions with their exact probabilities.

    Attributes:
        actions: Canonical codes (N, M) int64.
        probabilities: Probability of each module's choice given the earlier ones (N, M).
        joint: Probability of the whole action (N,): the product of the row.
    """

    actions: IntArray
    probabilities: FloatArray
    joint: FloatArray

    def __len__(self) -> int:
        return len(self.actions)


@dataclass(frozen=True)
class Batch:
    """Executed actions and what they earned, N rows.

    Attributes:
        observations: What was known at each slot.
        actions: Executed actions, canonical codes (N, M).
        rewards: Incremental rewards (N,), finite.
        se: Their standard errors (N,), 0 or more: 0 where the controls did not vary.
        keys: Stable 64-bit hashes of the decision ids (N,): they give the bootstrap weights.
    """

    observations: Observations
    actions: IntArray
    rewards: FloatArray
    se: FloatArray
    keys: UIntArray

    def __len__(self) -> int:
        return len(self.actions)


@runtime_checkable
class Agent(Protocol):
    """A policy that learns. Batch first: one user is a batch of one."""

    modules: Modules

    def act(self, observations: Observations, *, explore: bool = True) -> Decisions:
        """Chooses one action for each slot; without `explore`, the best action on the mean estimate."""
        ...

    def action_probabilities(self, observations: Observations) -> list[FloatArray]:
        """The exploring policy's exact probabilities, one array (N, A_m) a module.

        Entry m is conditional on the parent's choice that the action requires: it sums to 1 within each group of
        `modules.groups(m)` that has an eligible action, and is 0 elsewhere.
        """
        ...

    def observe(self, batch: Batch) -> None:
        """Takes in executed actions and their rewards."""
        ...

    def update(self, steps: int = 1) -> dict[str, float]:
        """Learns for some steps from what was observed; returns scalars for the log."""
        ...

    def state_dict(self) -> dict[str, Any]:
        """Everything that is needed to go on, as tensors and plain values."""
        ...

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """The inverse of `state_dict`."""
        ...
