"""Transitions: what was known at a decision, what was done, and what was known at the user's next slot."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, fields, replace

import numpy as np
import torch
from torch import Tensor

from crosschannel.agents.base import Batch
from crosschannel.core.action_changes import carry_over, previous_cells, recode_actions
from crosschannel.core.action_space import ActionSpace
from crosschannel.core.arrays import FloatArray


@dataclass(frozen=True)
class Transitions:
    """Decisions and the next slots, n rows.

    Attributes:
        context: Features (n, D).
        actions: Codes among all known actions (n, M).
        reward: Rewards (n,).
        weight: Precision weights (n,).
        key: Hashes of the decision ids (n,), as signed integers.
        next_context: Features at the next slot (n, D); 0 where there is none.
        open: Which actions of the first module, among all known ones, are eligible there (n, A_0).
        factor: Discount factor of values at the next slot (n,); 0 where there is none.
    """

    context: Tensor
    actions: Tensor
    reward: Tensor
    weight: Tensor
    key: Tensor
    next_context: Tensor
    open: Tensor
    factor: Tensor

    @classmethod
    def empty(cls, width: int, modules: ActionSpace) -> Transitions:
        """Return no rows."""
        return cls(
            context=torch.zeros(0, width),
            actions=torch.zeros(0, len(modules), dtype=torch.int16),
            reward=torch.zeros(0, dtype=torch.float64),
            weight=torch.zeros(0, dtype=torch.float64),
            key=torch.zeros(0, dtype=torch.int64),
            next_context=torch.zeros(0, width),
            open=torch.zeros(0, modules.sizes[0], dtype=torch.bool),
            factor=torch.zeros(0, dtype=torch.float64),
        )

    @classmethod
    def from_batch(
        cls, batch: Batch, known: ActionSpace, present: ActionSpace, weight: FloatArray, discount: float
    ) -> Transitions:
        """Convert a batch, all of whose rows are terminal or have a next observation."""
        assert batch.next_observations is not None
        assert batch.steps_to_next is not None
        assert batch.terminal is not None
        ends = batch.terminal
        opened = np.zeros((len(batch), known.sizes[0]), dtype=bool)
        opened[:, : present.sizes[0]] = present.split(present.feasible_mask(batch.next_observations.action_mask))[0]
        context = np.where(ends[:, None], 0.0, batch.next_observations.context).astype(np.float32)
        return cls(
            context=torch.from_numpy(np.array(batch.observations.context, dtype=np.float32)),
            actions=torch.from_numpy(batch.actions.astype(np.int16)),
            reward=torch.from_numpy(np.array(batch.rewards, dtype=np.float64)),
            weight=torch.from_numpy(weight),
            key=torch.from_numpy(batch.keys.view(np.int64).copy()),
            next_context=torch.from_numpy(context),
            open=torch.from_numpy(opened),
            factor=torch.from_numpy(np.where(ends, 0.0, discount ** np.where(ends, 1.0, batch.steps_to_next))),
        )

    def __len__(self) -> int:
        return len(self.weight)

    def __getitem__(self, rows: slice) -> Transitions:
        return Transitions(**{f.name: getattr(self, f.name)[rows] for f in fields(self)})

    @classmethod
    def joined(cls, parts: Sequence[Transitions]) -> Transitions:
        """Join the rows of all parts, in order."""
        return cls(**{f.name: torch.cat([getattr(part, f.name) for part in parts]) for f in fields(cls)})

    def moved(self, before: ActionSpace, known: ActionSpace) -> Transitions:
        """Return the same rows in the codes of a changed set of actions.

        Whether a new action would have been eligible after an old decision is not known: it counts as eligible where
        any message was.
        """
        sendable = np.tile(self.open[:, 1:].any(1).numpy(), (known.sizes[0], 1))
        opened = carry_over(self.open.numpy().T, previous_cells(before, known, 0), sendable)
        return replace(
            self,
            actions=recode_actions(self.actions, before, known),
            open=torch.from_numpy(np.ascontiguousarray(opened.T)),
        )
