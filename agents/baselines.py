"""Policies to compare with: uniform, the log's own frequencies, and sending nothing."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch

from agents.base import Batch, Decisions, Observations
from agents.buffer import check_batch
from agents.choice import draw, greedy, uniform_shares
from agents.randomness import generator_state, restore_generator
from histories.modules import FloatArray, Modules


@dataclass(frozen=True)
class NoSettings:
    """A policy without settings."""


class Baseline(ABC):
    """What the simple policies share: drawing from their probabilities, and a random state.

    Args:
        modules: What can be chosen.
        context_dim: Context features; not used.
        config: Settings; there are none.
        seed: Seed of the draws.
        device: Not used.
    """

    def __init__(
        self,
        modules: Modules,
        context_dim: int,  # noqa: ARG002
        config: NoSettings | None = None,  # noqa: ARG002
        seed: int = 0,
        device: str = "cpu",  # noqa: ARG002
    ) -> None:
        self.modules = modules
        self._rng = np.random.default_rng([seed, 1])

    def act(self, observations: Observations, *, explore: bool = True) -> Decisions:
        """Draws from the policy; without `explore`, takes its most probable action."""
        probabilities = self.action_probabilities(observations)
        if not explore:
            probabilities = greedy(self.modules, probabilities, observations.action_mask)
        return draw(self.modules, probabilities, self._rng)

    @abstractmethod
    def action_probabilities(self, observations: Observations) -> list[FloatArray]:
        """Exact probabilities, one array (N, A_m) a module."""

    def observe(self, batch: Batch) -> None:
        """Nothing is learned from rewards; they are checked all the same."""
        check_batch(batch, self.modules)

    def update(self, steps: int = 1) -> dict[str, float]:  # noqa: ARG002
        """Nothing to learn."""
        return {}

    def state_dict(self) -> dict[str, Any]:
        """The random state."""
        return {"rng": generator_state(self._rng)}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """The inverse of `state_dict`."""
        restore_generator(self._rng, state["rng"])


class Uniform(Baseline):
    """Every eligible action of a module with the same probability."""

    def action_probabilities(self, observations: Observations) -> list[FloatArray]:
        """Equal shares of the eligible actions in each group."""
        return uniform_shares(self.modules, observations.action_mask)


class NoSend(Baseline):
    """Never sends anything."""

    def action_probabilities(self, observations: Observations) -> list[FloatArray]:
        """Probability 1 of sending nothing; the other modules are never asked, and stay uniform."""
        shares = uniform_shares(self.modules, observations.action_mask)
        shares[0] = np.zeros_like(shares[0])
        shares[0][:, 0] = 1.0
        return shares


class Logging(Baseline):
    """The log's own action frequencies, whatever the context: each module's among the eligible actions of a group.

    This is not the policy that made the log, which may look at the user: its value is the mean of the logged rewards.
    """

    def __init__(
        self,
        modules: Modules,
        context_dim: int,
        config: NoSettings | None = None,
        seed: int = 0,
        device: str = "cpu",
    ) -> None:
        super().__init__(modules, context_dim, config, seed, device)
        self._counts = np.ones(modules.total)

    def action_probabilities(self, observations: Observations) -> list[FloatArray]:
        """Frequencies of the eligible actions; before anything was observed they are equal."""
        parts = self.modules.split(self.modules.closed(observations.action_mask))
        out = []
        for m, (part, counts) in enumerate(zip(parts, self.modules.split(self._counts), strict=True)):
            weight = part * counts
            shares = np.zeros(part.shape)
            for group in self.modules.groups(m):
                total = weight[:, group].sum(1, keepdims=True)
                shares[:, group] = weight[:, group] / np.where(total > 0, total, 1.0)
            out.append(shares)
        return out

    def observe(self, batch: Batch) -> None:
        """Counts the executed actions, on top of one of each."""
        check_batch(batch, self.modules)
        sent = self.modules.sent(batch.actions)
        for m, counts in enumerate(self.modules.split(self._counts)):
            made = batch.actions[:, m] if m == 0 else batch.actions[sent, m]
            counts += np.bincount(made, minlength=len(counts))

    def state_dict(self) -> dict[str, Any]:
        """The random state and the counts."""
        return super().state_dict() | {"counts": torch.from_numpy(self._counts.copy())}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """The inverse of `state_dict`."""
        super().load_state_dict(state)
        self._counts = state["counts"].numpy().copy()
