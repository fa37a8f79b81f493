"""Thompson sampling with one bootstrap ensemble of neural networks per module."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor

from agents.base import Batch, Decisions, Observations
from agents.buffer import Buffer
from agents.choice import draw, greedy, vote_shares
from agents.members import Members
from agents.randomness import generator_state, restore_generator
from histories.errors import ConfigError
from histories.hashing import UIntArray, uniforms
from histories.modules import FloatArray, Modules

CHUNK = 8192


@dataclass(frozen=True)
class EnsembleConfig:
    """Settings of `ensemble_thompson`.

    Attributes:
        members: Networks per module (K).
        hidden: Units of each of the two hidden layers.
        floor: Share of decisions that are drawn uniformly from the eligible actions, so that every log keeps support.
        prior_scale: Size of the frozen random priors, in standard deviations of the reward.
        learning_rate: Of Adam at the start; it falls with the inverse root of the updates behind `warm_updates`.
        warm_updates: Updates with the full learning rate.
        weight_decay: Pull towards 0, per update and learning rate; single rewards are nearly all noise.
        batch_size: Rows per update.
        capacity: Observed rows that are kept.
        precision_cap: Largest weight of a row by its precision 1/se^2, in multiples of the median.
    """

    members: int = 10
    hidden: int = 48
    floor: float = 0.02
    prior_scale: float = 0.03
    learning_rate: float = 1e-3
    warm_updates: int = 500
    weight_decay: float = 0.3
    batch_size: int = 1024
    capacity: int = 2_000_000
    precision_cap: float = 4.0

    def __post_init__(self) -> None:
        for name in ("members", "hidden", "batch_size", "capacity"):
            if getattr(self, name) < 1:
                raise ConfigError(f"{name} is {getattr(self, name)}: it must be at least 1")
        if not 0.0 <= self.floor <= 1.0:
            raise ConfigError(f"floor {self.floor} is not between 0 and 1")


class EnsembleThompson:
    """Each module draws one of its K members for every decision and takes what that member thinks best.

    The probability of an action is therefore its share of the members' votes, mixed with a floor; modules draw
    independently. Every member learns from all rows, each weighted by a number that is a hash of the decision's id,
    the member and the seed: exponential with mean 1, the Bayesian bootstrap of Rubin (1981), which drops no row.
    Osband & Van Roy (2015), "Bootstrapped Thompson sampling and deep exploration".
    """

    def __init__(
        self, modules: Modules, context_dim: int, config: EnsembleConfig, seed: int = 0, device: str = "cpu"
    ) -> None:
        self.modules = modules
        self.config = config
        self.seed = seed
        self.device = torch.device(device)
        generator = torch.Generator().manual_seed(seed)
        self._members = [
            Members(config.members, context_dim, size, config.hidden, config.prior_scale, generator).to(self.device)
            for size in modules.sizes
        ]
        self._optimisers = [
            torch.optim.AdamW(m.parameters(), lr=config.learning_rate, weight_decay=config.weight_decay)
            for m in self._members
        ]
        self._buffer = Buffer(context_dim, len(modules), config.capacity)
        self._draws = np.random.default_rng([seed, 1])
        self._batches = np.random.default_rng([seed, 2])
        self._updates = 0

    def act(self, observations: Observations, *, explore: bool = True) -> Decisions:
        """Draws from the exploring policy, or takes the best action on the members' mean."""
        mask = observations.action_mask
        if explore:
            return draw(self.modules, self.action_probabilities(observations), self._draws)
        means = [values.mean(0) for values in self.values(observations)]
        return draw(self.modules, greedy(self.modules, means, mask), self._draws)

    def action_probabilities(self, observations: Observations) -> list[FloatArray]:
        """Exact probabilities, one array (N, A_m) a module, conditional on the parent's choice."""
        parts = self.modules.split(self.modules.closed(observations.action_mask))
        out = [np.zeros(part.shape) for part in parts]
        for start in range(0, len(observations), CHUNK):
            rows = slice(start, start + CHUNK)
            for m, values in enumerate(self.values(observations[rows])):
                out[m][rows] = vote_shares(self.modules, m, values, parts[m][rows], self.config.floor)
        return out

    @torch.no_grad()
    def values(self, observations: Observations) -> list[np.ndarray]:
        """The members' estimates of each module's actions (K, N, A_m), in reward units."""
        x = torch.from_numpy(np.ascontiguousarray(observations.context)).to(self.device)
        scale = self._scale()
        return [(members(x) * scale).cpu().numpy() for members in self._members]

    def observe(self, batch: Batch) -> None:
        """Keeps executed actions and rewards for learning."""
        self._buffer.add(batch)

    def update(self, steps: int = 1) -> dict[str, float]:
        """Makes so many gradient updates of every module, on rows drawn from all that was observed."""
        if len(self._buffer) == 0 or steps < 1:
            return {}
        scale = self._scale()
        reference = float(self._buffer["se"].median()) ** 2
        totals = np.zeros(len(self.modules))
        for _ in range(steps):
            rows = torch.from_numpy(self._batches.integers(0, len(self._buffer), self.config.batch_size))
            totals += self._step(rows, scale, reference)
            self._updates += 1
        losses = totals / steps
        names = [f"loss/{module.name}" for module in self.modules]
        return {"loss": float(losses[0]), **dict(zip(names, losses.tolist(), strict=True)), "reward_scale": scale}

    def _step(self, rows: Tensor, scale: float, reference: float) -> FloatArray:
        buffer, config = self._buffer, self.config
        actions = buffer["actions"][rows].long()
        precision = (reference / buffer["se"][rows].square()).clamp(max=config.precision_cap)
        keys = buffer["key"][rows].numpy().view(np.uint64)
        weight = torch.from_numpy(self._bootstrap(keys)) * precision
        x, target = buffer["context"][rows], buffer["reward"][rows] / scale
        rate = config.learning_rate * min(1.0, (config.warm_updates / (self._updates + 1)) ** 0.5)
        losses = np.zeros(len(self.modules))
        sent = actions[:, 0] != 0
        for m, (members, optimiser) in enumerate(zip(self._members, self._optimisers, strict=True)):
            chosen = torch.ones_like(sent) if m == 0 else sent
            if not bool(chosen.any()):
                continue
            for group in optimiser.param_groups:
                group["lr"] = rate
            columns = (x[chosen], actions[chosen, m], target[chosen], weight[:, chosen])
            loss = members.loss(*(column.to(self.device) for column in columns))
            optimiser.zero_grad()
            loss.backward()  # type: ignore[no-untyped-call]
            optimiser.step()
            losses[m] = float(loss.detach()) / config.members
        return losses

    def _bootstrap(self, keys: UIntArray) -> np.ndarray:
        """Exponential weights (K, n) that depend on nothing but the decisions' keys, the member and the seed."""
        draws = [uniforms(keys, self.seed * 1_000_003 + member) for member in range(self.config.members)]
        return -np.log(np.stack(draws)).astype(np.float32)

    def _scale(self) -> float:
        """Root mean square of the observed rewards: networks learn in this unit."""
        if len(self._buffer) == 0:
            return 1.0
        return max(float(self._buffer["reward"].double().square().mean().sqrt()), 1e-8)

    def state_dict(self) -> dict[str, Any]:
        """Weights, optimisers, observed rows and every random state."""
        return {
            "members": [members.state_dict() for members in self._members],
            "optimisers": [optimiser.state_dict() for optimiser in self._optimisers],
            "buffer": self._buffer.state_dict(),
            "draws": generator_state(self._draws),
            "batches": generator_state(self._batches),
            "updates": self._updates,
        }

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """The inverse of `state_dict`."""
        for members, saved in zip(self._members, state["members"], strict=True):
            members.load_state_dict(saved)
        for optimiser, saved in zip(self._optimisers, state["optimisers"], strict=True):
            optimiser.load_state_dict(saved)
        self._buffer.load_state_dict(state["buffer"])
        restore_generator(self._draws, state["draws"])
        restore_generator(self._batches, state["batches"])
        self._updates = int(state["updates"])
