"""Thompson sampling with one bootstrap ensemble of neural networks per module."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor

from agents.base import Batch, Decisions, Float32Array, Observations
from agents.buffer import Buffer
from agents.choice import draw
from agents.learner import WARM, Learner, LearnerConfig
from agents.randomness import generator_state, restore_generator
from histories.errors import ConfigError
from histories.modules import FloatArray, IntArray, Modules

CHUNK = 2048


@dataclass(frozen=True)
class EnsembleConfig(LearnerConfig):
    """Settings of `ensemble_thompson`: those of the modules' learners, and three more.

    Attributes:
        spread: How far the members that vote stray from the ensemble's mean, in their own deviations: 1 is Thompson
            sampling proper, less explores less, 0 not at all but for the floor. See docs/agents.md for what it was
            chosen by.
        floor: Share of decisions that are drawn uniformly from the eligible actions, so that every log keeps support.
        capacity: Observed rows that are kept.
    """

    spread: float = 0.25
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

    The members of a module share one network, and are K heads on it that are solved in closed form from all observed
    rows (`agents.learner`): so all of them can vote at the price of little more than one. A module but the first
    learns from the rows in which something was sent.

    Args:
        modules: What can be chosen.
        context_dim: Context features; they come standardised.
        config: Settings.
        seed: Seed of the initial weights, the prior draws, the hashed signs and the draws of actions.
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
        generator = torch.Generator().manual_seed(seed)
        self._learners = [
            Learner(context_dim, size, self.config, generator, seed, torch.device(device)) for size in modules.sizes
        ]
        self._device = torch.device(device)
        self._buffer = Buffer(context_dim, modules, self.config.capacity)
        self._draws = np.random.default_rng([seed, 1])
        self._batches = np.random.default_rng([seed, 2])

    def act(self, observations: Observations, *, explore: bool = True) -> Decisions:
        """Draws from the exploring policy, or takes the best action on the members' mean."""
        probabilities = self.action_probabilities(observations) if explore else self._certain(observations)
        return draw(self.modules, probabilities, self._draws)

    def _certain(self, observations: Observations) -> list[FloatArray]:
        return self._shares(observations, [learner.heads[:, :1] for learner in self._learners], 0.0)

    def action_probabilities(self, observations: Observations) -> list[FloatArray]:
        """Exact probabilities, one array (N, A_m) a module, conditional on the parent's choice."""
        heads = []
        for learner in self._learners:
            mean, members = learner.heads[:, :1], learner.heads[:, 1:]
            heads.append(mean + self.config.spread * (members - mean))
        return self._shares(observations, heads, self.config.floor)

    def _shares(self, observations: Observations, heads: Sequence[Tensor], floor: float) -> list[FloatArray]:
        """The shares of the votes of each module's heads (A, C, F), in pieces of rows that stay in cache."""
        mask = torch.from_numpy(self.modules.closed(observations.action_mask))
        context = _contexts(observations)
        out = [np.empty((len(context), size)) for size in self.modules.sizes]
        for start in range(0, len(context), CHUNK):
            rows = slice(start, start + CHUNK)
            x = context[rows].to(self._device)
            for m, learner in enumerate(self._learners):
                eligible = mask[rows, self.modules.slices[m]].to(self._device)
                shares = vote(learner.estimates(x, heads[m]), eligible, self.modules.groups(m), floor)
                out[m][rows] = shares.cpu().numpy()
        return out

    def expected_rewards(self, observations: Observations) -> list[Float32Array]:
        """The members' estimates of each module's actions, (K, N, A_m) a module, in reward units.

        An estimate is the expected reward of the action with the other modules as logged. The members' spread says
        how sure the ensemble is; their mean is the best estimate.
        """
        x = _contexts(observations)
        out = []
        for learner in self._learners:
            parts = [
                learner.estimates(part, learner.heads[:, 1:]).permute(1, 2, 0).cpu() for part in torch.split(x, CHUNK)
            ]
            out.append(np.asarray((torch.cat(parts, 1) * learner.scale + learner.mean).numpy()))
        return out

    def observe(self, batch: Batch) -> None:
        """Keeps executed actions and rewards for learning.

        Raises:
            InputError: If a row cannot be learned from; nothing is kept then.
        """
        self._buffer.add(batch)

    def update(self, steps: int = 1) -> dict[str, float]:
        """Makes so many gradient steps for every module, more while rows are few, and takes new rows into the heads.

        Returns:
            The modules' mean losses in standardised squared rewards (1 is no better than the mean reward), and the
            first module's reward scale.
        """
        rows = len(self._buffer)
        if rows == 0 or steps < 1:
            return {}
        steps = int(steps * min(max(self.config.warm_rows / rows, 1.0), WARM))
        losses = {
            f"loss/{module.name}": learner.learn(self._buffer, m > 0, m, steps, self._batches)
            for m, (module, learner) in enumerate(zip(self.modules, self._learners, strict=True))
        }
        return {"loss": losses[f"loss/{self.modules.names[0]}"], **losses, "reward_scale": self._learners[0].scale}

    def state_dict(self) -> dict[str, Any]:
        """Networks, optimisers, heads, observed rows and every random state."""
        return {
            "learners": [learner.state_dict() for learner in self._learners],
            "buffer": self._buffer.state_dict(),
            "draws": generator_state(self._draws),
            "batches": generator_state(self._batches),
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


def _contexts(observations: Observations) -> Tensor:
    return torch.from_numpy(np.ascontiguousarray(observations.context, dtype=np.float32))


def vote(values: Tensor, eligible: Tensor, groups: Sequence[IntArray], floor: float) -> Tensor:
    r"""Exact probabilities (N, A) of actions when one of C heads is drawn and obeyed, as `choice.vote_shares`.

    .. math:: \pi(a) = (1 - \epsilon) \frac{1}{C} \sum_c 1[a = \arg\max q_c] + \epsilon / n_{eligible}

    A search for the place of the largest value took 40 times as long as looking for all that equal it, so places are
    searched for only where two are equal: then the lowest code wins.

    Args:
        values: The heads' estimates (A, C, N).
        eligible: Eligible actions (N, A).
        groups: Codes of the actions that compete with each other.
        floor: The share :math:`\epsilon` of uniform draws.
    """
    actions, heads, _ = values.shape
    out = torch.empty(eligible.shape, dtype=torch.float64, device=values.device)
    for group in groups:
        codes = torch.from_numpy(group).to(values.device)
        allowed = eligible[:, codes].t()
        inside = values if len(group) == actions else values[codes]
        inside = inside.masked_fill(~allowed.unsqueeze(1), -torch.inf)
        votes = inside.eq(inside.amax(0)).sum(1)
        tied = (votes * allowed).sum(0) > heads
        if bool(tied.any()):
            first = inside[..., tied].argmax(0)
            votes[:, tied] = (first == torch.arange(len(group), device=values.device)[:, None, None]).sum(1)
        even = allowed / allowed.sum(0).clamp_min(1)
        out[:, codes] = (((1.0 - floor) / heads * votes.double() + floor * even.double()) * allowed).t()
    return out
