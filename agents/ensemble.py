"""Thompson sampling with one bootstrap ensemble of neural networks per module."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch

from agents.base import Batch, Decisions, Float32Array, Observations
from agents.buffer import Buffer
from agents.choice import draw, greedy, vote_shares
from agents.learner import Learner, LearnerConfig
from agents.randomness import generator_state, restore_generator
from histories.errors import ConfigError
from histories.modules import FloatArray, Modules

CHUNK = 1024
GROWTH = 1.5


@dataclass(frozen=True)
class EnsembleConfig(LearnerConfig):
    """Settings of `ensemble_thompson`: those of the modules' learners, and three more.

    Attributes:
        spread: How far the members that vote stray from the ensemble's mean, in their own deviations: 1 is Thompson
            sampling proper, less explores less, 0 not at all but for the floor. One half was better on every problem
            measured: with rewards that are nearly all noise, full draws cost more than they teach.
        floor: Share of decisions that are drawn uniformly from the eligible actions, so that every log keeps support.
        capacity: Observed rows that are kept.
    """

    spread: float = 0.5
    floor: float = 0.02
    capacity: int = 2_000_000

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.capacity < 1:
            raise ConfigError(f"capacity is {self.capacity}: it must be at least 1")
        for name in ("spread", "floor"):
            if not 0.0 <= getattr(self, name) <= 1.0:
                raise ConfigError(f"{name} {getattr(self, name)} is not between 0 and 1")


class EnsembleThompson:
    """Each module draws one of its K members for every decision and takes what that member thinks best.

    The probability of an action is therefore its share of the members' votes, mixed with a floor; modules draw
    independently. Osband & Van Roy (2015), "Bootstrapped Thompson sampling and deep exploration".

    Gradient steps shape the members' hidden layers; their heads are solved in closed form from all observed rows,
    anew whenever the rows or the updates have grown by half since, and once where no more rows come. A module but
    the first learns from the rows in which something was sent.

    Args:
        modules: What can be chosen.
        context_dim: Context features; they come standardised.
        config: Settings.
        seed: Seed of the initial weights, the prior draws, the bootstrap weights and the draws of actions.
        device: Where the networks compute. The same seed gives the same bits on the CPU.
    """

    def __init__(
        self,
        modules: Modules,
        context_dim: int,
        config: EnsembleConfig | None = None,
        seed: int = 0,
        device: str = "cpu",
    ) -> None:
        self.modules = modules
        self.config = config or EnsembleConfig()
        self._context_dim = context_dim
        generator = torch.Generator().manual_seed(seed)
        self._learners = [
            Learner(context_dim, size, self.config, generator, seed, torch.device(device)) for size in modules.sizes
        ]
        self._buffer = Buffer(context_dim, modules, self.config.capacity)
        self._draws = np.random.default_rng([seed, 1])
        self._batches = np.random.default_rng([seed, 2])
        self._updates = 0
        self._solved = {"rows": 0, "updates": 0}
        self._seen = 0

    def act(self, observations: Observations, *, explore: bool = True) -> Decisions:
        """Draws from the exploring policy, or takes the best action on the members' mean."""
        if explore:
            return draw(self.modules, self.action_probabilities(observations), self._draws)
        means = [np.zeros((len(observations), size)) for size in self.modules.sizes]
        for rows, chunk in _chunks(observations):
            for m, estimates in enumerate(self.expected_rewards(chunk)):
                means[m][rows] = estimates.mean(0)
        return draw(self.modules, greedy(self.modules, means, observations.action_mask), self._draws)

    def action_probabilities(self, observations: Observations) -> list[FloatArray]:
        """Exact probabilities, one array (N, A_m) a module, conditional on the parent's choice."""
        parts = self.modules.split(self.modules.closed(observations.action_mask))
        out = [np.zeros(part.shape) for part in parts]
        for rows, chunk in _chunks(observations):
            for m, estimates in enumerate(self.expected_rewards(chunk)):
                mean = estimates.mean(0)
                votes = mean + self.config.spread * (estimates - mean)
                out[m][rows] = vote_shares(self.modules, m, votes, parts[m][rows], self.config.floor)
        return out

    def expected_rewards(self, observations: Observations) -> list[Float32Array]:
        """The members' estimates of each module's actions, (K, N, A_m) a module, in reward units.

        An estimate is the expected reward of the action with the other modules as logged. The members' spread says
        how sure the ensemble is.
        """
        x = torch.from_numpy(np.ascontiguousarray(observations.context, dtype=np.float32))
        return [learner.estimates(x) for learner in self._learners]

    def observe(self, batch: Batch) -> None:
        """Keeps executed actions and rewards for learning.

        Raises:
            InputError: If a row cannot be learned from; nothing is kept then.
        """
        self._buffer.add(batch)

    def update(self, steps: int = 1) -> dict[str, float]:
        """Makes so many gradient updates of every module, and solves the heads where that is due.

        Returns:
            The modules' mean losses in standardised squared rewards (1 is no better than the mean reward), and the
            first module's reward scale.
        """
        rows = len(self._buffer)
        if rows == 0 or steps < 1:
            return {}
        seen, solved = self._buffer.seen, self._solved["rows"]
        grown = seen >= GROWTH * solved or (seen > solved and seen == self._seen)
        self._seen = seen
        due = grown or self._updates + steps >= GROWTH * self._solved["updates"]
        used = [torch.arange(rows)] + [self._buffer.sent_rows()] * (len(self.modules) - 1)
        scalars = {}
        for module, learner, own in zip(self.modules, self._learners, used, strict=True):
            m = self.modules.names.index(module.name)
            if grown:
                learner.measure(self._buffer, own)
            loss = learner.train(self._buffer, own, m, steps, self._batches)
            if due:
                learner.solve(self._buffer, own, m)
            scalars[f"loss/{module.name}"] = loss
        self._updates += steps
        if due:
            self._solved = {"rows": self._buffer.seen, "updates": self._updates}
        first = f"loss/{self.modules.names[0]}"
        return {"loss": scalars[first], **scalars, "reward_scale": self._learners[0].scale}

    def state_dict(self) -> dict[str, Any]:
        """Weights, optimisers, heads, observed rows and every random state."""
        return {
            "learners": [learner.state_dict() for learner in self._learners],
            "buffer": self._buffer.state_dict(),
            "draws": generator_state(self._draws),
            "batches": generator_state(self._batches),
            "updates": self._updates,
            "solved": dict(self._solved),
            "seen": self._seen,
        }

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """The inverse of `state_dict`.

        Raises:
            ConfigError: If the state belongs to an ensemble of another shape.
        """
        try:
            for learner, saved in zip(self._learners, state["learners"], strict=True):
                learner.load_state_dict(saved)
            self._buffer.load_state_dict(state["buffer"])
        except (RuntimeError, ValueError) as error:
            reason = str(error).splitlines()[-1].strip()
            raise ConfigError(f"the state is of an ensemble of another shape: {reason}") from None
        restore_generator(self._draws, state["draws"])
        restore_generator(self._batches, state["batches"])
        self._updates = int(state["updates"])
        self._solved = dict(state["solved"])
        self._seen = int(state["seen"])


def _chunks(observations: Observations) -> Iterator[tuple[slice, Observations]]:
    """Pieces of the rows that keep the members' features in bounded memory."""
    for start in range(0, len(observations), CHUNK):
        rows = slice(start, start + CHUNK)
        yield rows, observations[rows]
