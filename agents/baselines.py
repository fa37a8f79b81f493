"""Baseline policies: uniform, the log's action frequencies, and never sending."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
import torch

from crosschannel.agents.base import Batch, Observations
from crosschannel.agents.policy import Policy
from crosschannel.agents.sampling import expand_mask, uniform_shares
from crosschannel.agents.settings import NoSettings
from crosschannel.core.action_changes import carry_over, known_actions, previous_cells, select_present
from crosschannel.core.action_space import ActionSpace
from crosschannel.core.arrays import FloatArray


class Baseline(Policy):
    """A policy without settings that ignores the context.

    Args:
        modules: The action space.
        context_dim: Number of context features; not used.
        settings: Settings; there are none.
        seed: Seed of the sampled actions.
        device: Not used.
    """

    def __init__(
        self,
        modules: ActionSpace,
        context_dim: int,  # noqa: ARG002
        settings: NoSettings | None = None,  # noqa: ARG002
        seed: int = 0,
        device: str = "cpu",  # noqa: ARG002
    ) -> None:
        super().__init__(modules, seed)


class Uniform(Baseline):
    """A policy that takes every eligible action of a module with the same probability."""

    def action_probabilities(self, observations: Observations) -> list[FloatArray]:
        """Return equal shares of the eligible actions in each group."""
        return uniform_shares(self.modules, observations.action_mask)


class NoSend(Baseline):
    """A policy that never sends anything."""

    def action_probabilities(self, observations: Observations) -> list[FloatArray]:
        """Return probability 1 of sending nothing; the other modules are never sampled and stay uniform."""
        shares = uniform_shares(self.modules, observations.action_mask)
        shares[0] = np.zeros_like(shares[0])
        shares[0][:, 0] = 1.0
        return shares


class Logging(Baseline):
    """A policy with the log's action frequencies: each module's, among the eligible actions of a group.

    This is not the policy that made the log, which may depend on the user and whose value is the mean logged reward.
    """

    def __init__(
        self,
        modules: ActionSpace,
        context_dim: int,
        settings: NoSettings | None = None,
        seed: int = 0,
        device: str = "cpu",
    ) -> None:
        super().__init__(modules, context_dim, settings, seed, device)
        self._known = modules
        self._counts = [np.ones(modules.n_table_cells(m)) for m in range(len(modules))]

    def action_probabilities(self, observations: Observations) -> list[FloatArray]:
        """Return the frequencies of the eligible actions; before any observation they are equal."""
        parts = self.modules.split(self.modules.feasible_mask(observations.action_mask))
        out = []
        for m, counts in enumerate(self._counts):
            weight = expand_mask(self.modules, m, parts[m]) * select_present(counts, self._known, self.modules, m)
            shares = np.zeros(weight.shape)
            for group in self.modules.groups(m):
                total = weight[..., group].sum(-1, keepdims=True)
                shares[..., group] = weight[..., group] / np.where(total > 0, total, 1.0)
            out.append(shares)
        return out

    def observe(self, batch: Batch) -> None:
        """Count the executed actions; every count starts at 1."""
        super().observe(batch)
        sent = self.modules.sends(batch.actions)
        for m, counts in enumerate(self._counts):
            made = batch.actions if m == 0 else batch.actions[sent]
            counts += np.bincount(self._known.table_cell(m, made), minlength=len(counts))

    def state_dict(self) -> dict[str, Any]:
        """Return the random state and the counts of all known actions."""
        counts = [torch.from_numpy(counts.copy()) for counts in self._counts]
        return super().state_dict() | {"known": self._known.to_dict(), "counts": counts}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Restore what `state_dict` returned; the set of actions may have changed since."""
        super().load_state_dict(state)
        before = ActionSpace.from_dict(state["known"])
        self._known = known_actions(self.modules, before)
        self._counts = [
            carry_over(saved.numpy(), previous_cells(before, self._known, m), np.ones(self._known.n_table_cells(m)))
            for m, saved in enumerate(state["counts"])
        ]
