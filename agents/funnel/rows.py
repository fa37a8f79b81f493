"""The rows that a funnel model learns from."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from crosschannel.core.action_space import ActionSpace
from crosschannel.core.arrays import IntArray, UIntArray
from crosschannel.core.hashing import derive

FOLD_SALT = 0x66756E6E656C
FOLDS = 2


@dataclass(frozen=True)
class FunnelRows:
    """Rows with their components, all of length n.

    Attributes:
        x: Contexts (n, D) float32.
        actions: Codes (n, M) of all known actions.
        reward: DiD rewards (n,), all goals and costs included.
        engaged: 1 if the message was engaged with, 0 if not, NaN where that is not known (n,).
        value: Incremental value without cost events, NaN where it is not identified (n,).
        cost: 1 if a cost event occurred, 0 if not, NaN where that is not known (n, C).
        fold: Half of the users that each row belongs to (n,).
        user: Code of each row's user (n,).
    """

    x: Tensor
    actions: IntArray
    reward: Tensor
    engaged: Tensor
    value: Tensor
    cost: Tensor
    fold: Tensor
    user: Tensor

    def __len__(self) -> int:
        return len(self.x)

    def gross(self, weights: Tensor) -> Tensor:
        """Return the rewards (n,) without the cost events that were observed, at prices (C,)."""
        return self.reward + self.cost.nan_to_num(0.0) @ weights

    def messages(self, modules: ActionSpace) -> FunnelRows:
        """Return the rows with a value in which something was sent."""
        return self.take((torch.from_numpy(modules.sends(self.actions)) & self.value.isfinite()).nonzero()[:, 0])

    def controls(self, modules: ActionSpace) -> FunnelRows:
        """Return the rows with a value in which nothing was sent."""
        return self.take((~torch.from_numpy(modules.sends(self.actions)) & self.value.isfinite()).nonzero()[:, 0])

    def take(self, rows: Tensor) -> FunnelRows:
        """Return the rows at some positions (k,)."""
        return FunnelRows(
            self.x[rows],
            self.actions[rows.numpy()],
            self.reward[rows],
            self.engaged[rows],
            self.value[rows],
            self.cost[rows],
            self.fold[rows],
            self.user[rows],
        )


def fold_of(users: UIntArray) -> Tensor:
    """Return the fold (n,) of users (n,), by a hash of who they are."""
    return torch.from_numpy((derive(users, FOLD_SALT) % FOLDS).astype("int64"))
