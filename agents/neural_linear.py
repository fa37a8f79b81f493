"""Neural-linear Thompson sampling: a network learns features, Bayesian linear regression on them decides."""

from __future__ import annotations

import itertools
import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from crosschannel.agents.base import DECIDES_ONLY, Batch, Observations
from crosschannel.agents.buffers.buffer import Buffer, precision, usual
from crosschannel.agents.linear import carried_sums, effect_scales, estimates, posterior_draws, sums_by_module
from crosschannel.agents.policy import Voting
from crosschannel.agents.regression import Sums
from crosschannel.agents.sampling import FLOOR, Floor
from crosschannel.agents.schedule import Schedule
from crosschannel.core.action_changes import carried, known_actions, places
from crosschannel.core.action_space import ActionSpace
from crosschannel.core.arrays import FloatArray
from crosschannel.core.errors import ConfigError
from crosschannel.core.serialization import generator_state, restore_generator

GROWTH = 1.3
BLOCK = 65_536


@dataclass(frozen=True)
class NeuralLinearConfig:
    """Settings of `neural_linear`.

    Attributes:
        draws: Posterior draws that vote (K).
        spread: How far the draws that vote stray from the mean, in the posterior's deviations: 1 is Thompson sampling
            proper.
        hidden: Units of each hidden layer; the last one is what the regression sees, beside a one and the context.
        learning_rate: Of Adam.
        weight_decay: Pull of the network towards 0, per update and learning rate.
        batch_size: Rows per update.
        effect_scale: Plausible effect of an action in standard deviations of the reward: where the prior begins, whose
            scale is learned.
        precision_cap: Largest weight of a row by its precision 1/se^2, in multiples of the median.
        floor: Share of decisions that are drawn uniformly from the eligible actions: one number, or one by module's
            name.
        capacity: Observed rows that are kept: a sliding window where tastes drift.
    """

    draws: int = 20
    spread: float = 0.5
    hidden: tuple[int, ...] = (64, 32)
    learning_rate: float = 3e-3
    weight_decay: float = 0.1
    batch_size: int = 256
    effect_scale: float = 0.1
    precision_cap: float = 4.0
    floor: Floor = FLOOR
    capacity: int = 2_000_000

    def __post_init__(self) -> None:
        for name in ("draws", "batch_size", "capacity"):
            if getattr(self, name) < 1:
                raise ConfigError(f"{name} is {getattr(self, name)}: it must be at least 1")
        if not self.hidden or min(self.hidden) < 1:
            raise ConfigError(f"hidden is {list(self.hidden)}: give at least one layer, each of at least 1 unit")
        for name in ("learning_rate", "effect_scale", "precision_cap"):
            if not getattr(self, name) > 0:
                raise ConfigError(f"{name} is {getattr(self, name)}: it must be positive")
        for name in ("spread", "weight_decay"):
            if not getattr(self, name) >= 0:
                raise ConfigError(f"{name} is {getattr(self, name)}: it must not be negative")


class NeuralLinear(Voting):
    r"""One network for all modules, and for each action a Bayesian regression on :math:`[1, x, h(x)]`.

    Gradient steps train the hidden layers through output layers of their own; the regressions are solved in closed
    form from all kept rows, anew whenever these have grown by a third, on the hidden layers as they then are. Riquelme,
    Tucker & Snoek (2018), "Deep Bayesian bandits showdown", ICLR. See `agents.linear` for how draws become exact
    propensities.

    Args:
        modules: What can be chosen.
        context_dim: Context features; they come standardised.
        config: Settings.
        seed: Seed of the initial weights, the batches, the posterior draws and the draws of actions.
        device: Where the network computes; regressions are solved on the CPU in float64.
    """

    def __init__(
        self,
        modules: ActionSpace,
        context_dim: int,
        config: NeuralLinearConfig | None = None,
        seed: int = 0,
        device: str = "cpu",
    ) -> None:
        self.config = config or NeuralLinearConfig()
        super().__init__(modules, seed, self.config.floor, self.config.spread)
        self._device = torch.device(device)
        self._known = modules
        self._normals = np.random.default_rng([seed, 2])
        self._batches = np.random.default_rng([seed, 3])
        self._schedule = Schedule(GROWTH)
        self._buffer = Buffer(context_dim, modules, self.config.capacity)
        generator = torch.Generator().manual_seed(seed)
        sizes = [context_dim, *self.config.hidden]
        self._body = _hidden_layers(sizes, generator).to(self._device)
        self._settled = _hidden_layers(sizes, generator).to(self._device)
        self._width = 1 + context_dim + sizes[-1]
        self._take_outputs([torch.zeros(1 + sizes[-1], modules.n_table_cells(m)) for m in range(len(modules))])
        self._scales = [self.config.effect_scale] * len(modules)
        self._drawn: list[Tensor] = []
        self._learns = True
        self._solve()

    def _take_outputs(self, weights: list[Tensor]) -> None:
        """Sets each module's output layer (1 + H, cells), which serves to train the body, and begins the optimiser."""
        self._outputs = nn.ParameterList([weight.to(self._device) for weight in weights])
        self._optimiser = torch.optim.AdamW(
            [*self._body.parameters(), *self._outputs],
            lr=self.config.learning_rate,
            weight_decay=self.config.weight_decay,
        )

    @torch.no_grad()
    def _phi(self, context: Tensor) -> Tensor:
        hidden = self._settled(context.to(self._device)).cpu()
        return torch.cat([torch.ones(len(context), 1), context, hidden], 1).double()

    def expected_rewards(self, observations: Observations) -> list[FloatArray]:
        """The K posterior draws' estimates, (K, N, *shape(m)) a module, in reward units."""
        phi = self._phi(torch.from_numpy(np.ascontiguousarray(observations.context, dtype=np.float32)))
        return estimates(phi, self._drawn, self._known, self.modules)

    def observe(self, batch: Batch) -> None:
        """Keeps executed actions and rewards for learning.

        Raises:
            InputError: If a row cannot be learned from; nothing is kept then.
            ConfigError: If contexts are of another width, or the agent was opened to decide only.
        """
        if not self._learns:
            raise ConfigError(DECIDES_ONLY)
        self._buffer.add(batch)

    def update(self, steps: int = 1) -> dict[str, float]:
        """Makes so many gradient steps, and solves the regressions where that is due.

        Returns:
            The network's mean loss over modules, in squared standard deviations of the reward.
        """
        if steps < 1 or len(self._buffer) == 0:
            return {}
        units = self._units()
        loss = sum(self._step(*units) for _ in range(steps)) / steps
        if self._schedule.due(self._buffer.seen):
            self._solve()
        return {"loss": loss}

    def _units(self) -> tuple[float, float, float]:
        """Mean and standard deviation of the kept rewards, and their usual se^2."""
        reward = self._buffer["reward"].double()
        return float(reward.mean()), max(float(reward.std(correction=0)), 1e-8), usual(self._buffer["se"])

    def _step(self, mean: float, scale: float, reference: float) -> float:
        """One gradient step on random rows; gives the loss, the mean over modules."""
        rows = torch.from_numpy(self._batches.integers(0, len(self._buffer), self.config.batch_size))
        actions = self._buffer["actions"][rows].numpy().astype(np.int64)
        reward = ((self._buffer["reward"][rows] - mean) / scale).to(self._device)
        weight = precision(self._buffer["se"][rows], reference, self.config.precision_cap).to(self._device)
        hidden = self._body(self._buffer["context"][rows].to(self._device))
        sent = torch.from_numpy(self.modules.sends(actions)).to(self._device)
        loss = torch.zeros((), device=self._device)
        for m, output in enumerate(self._outputs):
            cell = torch.from_numpy(self._known.table_cell(m, actions)).to(self._device)
            error = (hidden @ output[1:] + output[0]).gather(1, cell[:, None])[:, 0] - reward
            loss = loss + ((weight if m == 0 else weight * sent) * error.square()).mean()
        self._optimiser.zero_grad()
        loss.backward()  # type: ignore[no-untyped-call]
        self._optimiser.step()
        return float(loss.detach()) / len(self._outputs)

    def _solve(self) -> None:
        self._settled.load_state_dict(self._body.state_dict())
        sums = [Sums.nothing(self._known.n_table_cells(m), self._width) for m in range(len(self._known))]
        reference = usual(self._buffer["se"]) if len(self._buffer) else 1.0
        for start in range(0, len(self._buffer), BLOCK):
            rows = slice(start, start + BLOCK)
            more = sums_by_module(
                self._known,
                self._phi(self._buffer["context"][rows]),
                self._buffer["actions"][rows].numpy().astype(np.int64),
                self._buffer["reward"][rows].double().numpy(),
                precision(self._buffer["se"][rows].double(), reference, self.config.precision_cap).numpy(),
            )
            sums = [a.plus(b) for a, b in zip(sums, more, strict=True)]
        self._sums = sums
        self._draw()

    def _draw(self) -> None:
        self._scales = effect_scales(self._known, self._sums, self._scales, self.config.effect_scale)
        self._drawn = posterior_draws(self._known, self._sums, self._scales, self.config.draws, self._normals)

    def state_dict(self) -> dict[str, Any]:
        """Weights, optimiser, posterior draws, observed rows and every random state.

        Raises:
            ConfigError: If the agent was opened to decide only.
        """
        if not self._learns:
            raise ConfigError(DECIDES_ONLY)
        return self.policy_state_dict() | {
            "body": self._body.state_dict(),
            "outputs": [output.detach().clone() for output in self._outputs],
            "optimiser": self._optimiser.state_dict(),
            "buffer": self._buffer.state_dict(),
            "batches": generator_state(self._batches),
            "schedule": self._schedule.state_dict(),
        }

    def policy_state_dict(self) -> dict[str, Any]:
        """The features as last settled, the posterior draws and what they come from; no rows."""
        return super().state_dict() | {
            "known": self._known.to_dict(),
            "settled": self._settled.state_dict(),
            "scales": list(self._scales),
            "drawn": list(self._drawn),
            "sums": [dict(vars(sums)) for sums in self._sums],
            "normals": generator_state(self._normals),
        }

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """The inverse of `state_dict`, also where the set of actions has changed since: then all is solved anew.

        From the state of a policy the agent decides, but cannot learn on; where actions have changed, draws are then
        new ones on the features as they were last settled.

        Raises:
            ConfigError: If the state belongs to an agent of another shape, or of other modules.
        """
        before = ActionSpace.from_dict(state["known"])
        known = known_actions(self.modules, before)
        self._learns = "buffer" in state
        try:
            self._settled.load_state_dict(state["settled"])
            if self._learns:
                self._body.load_state_dict(state["body"])
                self._buffer.load_state_dict(state["buffer"], before, known)
        except (RuntimeError, ValueError) as error:
            reason = str(error).splitlines()[-1].strip()
            raise ConfigError(f"the state is of an agent of another shape: {reason}") from None
        super().load_state_dict(state)
        restore_generator(self._normals, state["normals"])
        self._known, self._scales, self._drawn = known, list(state["scales"]), list(state["drawn"])
        self._sums = [carried_sums(saved, before, known, m) for m, saved in enumerate(state["sums"])]
        if not self._learns:
            if known != before:
                self._draw()
            return
        restore_generator(self._batches, state["batches"])
        self._schedule.load_state_dict(state["schedule"])
        outputs = []
        for m, saved in enumerate(state["outputs"]):
            fresh = np.zeros((known.n_table_cells(m), len(saved)), dtype=np.float32)
            outputs.append(torch.from_numpy(carried(saved.T.numpy(), places(before, known, m), fresh).T.copy()))
        self._take_outputs(outputs)
        if known == before:
            self._optimiser.load_state_dict(state["optimiser"])
        else:
            self._solve()


def _hidden_layers(sizes: list[int], generator: torch.Generator) -> nn.Sequential:
    """Fully connected layers with rectifiers, their weights drawn from a generator (He et al. 2015)."""
    layers: list[nn.Module] = []
    for a, b in itertools.pairwise(sizes):
        layer = nn.Linear(a, b)
        nn.init.normal_(layer.weight, 0.0, math.sqrt(2.0 / max(a, 1)), generator=generator)
        nn.init.zeros_(layer.bias)
        layers += [layer, nn.ReLU()]
    return nn.Sequential(*layers)
