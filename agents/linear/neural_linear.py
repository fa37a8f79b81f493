"""Neural-linear Thompson sampling: Bayesian linear regression on features that a network learns."""

from __future__ import annotations

import itertools
import math
from collections.abc import Mapping
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from crosschannel.agents.base import DECIDES_ONLY, Batch, Observations
from crosschannel.agents.buffers.buffer import Buffer, median_variance, precision
from crosschannel.agents.linear.module_regression import (
    estimates,
    learn_effect_scales,
    moved_statistics,
    posterior_draws,
    statistics_by_module,
)
from crosschannel.agents.linear.regression import RefitSchedule, RegressionStatistics
from crosschannel.agents.policy import VotingPolicy
from crosschannel.agents.settings import NeuralLinearSettings
from crosschannel.core.action_changes import carry_over, known_actions, previous_cells
from crosschannel.core.action_space import ActionSpace
from crosschannel.core.arrays import FloatArray
from crosschannel.core.errors import ConfigError
from crosschannel.core.serialization import generator_state, restore_generator

REFIT_GROWTH = 1.3
ROWS_PER_CHUNK = 65_536


class NeuralLinear(VotingPolicy):
    r"""One network for all modules, and for each action a Bayesian regression on :math:`[1, x, h(x)]`.

    Gradient steps train the hidden layers through separate output layers. Whenever the rows have grown by a third, the
    regressions are solved in closed form from all rows, on a frozen copy of the hidden layers. Riquelme, Tucker & Snoek
    (2018), "Deep Bayesian bandits showdown", ICLR. The posterior draws vote as in `agents.linear.agent`.

    Args:
        modules: The action space.
        context_dim: Number of context features, which are standardised.
        settings: Settings.
        seed: Seed of the initial weights, the batches, the posterior draws and the sampled actions.
        device: Where the network computes; regressions are solved on the CPU in float64.
    """

    def __init__(
        self,
        modules: ActionSpace,
        context_dim: int,
        settings: NeuralLinearSettings | None = None,
        seed: int = 0,
        device: str = "cpu",
    ) -> None:
        self.settings = settings = settings or NeuralLinearSettings()
        super().__init__(modules, seed, settings.floor, settings.exploration_scale, settings.mixtures)
        self._device = torch.device(device)
        self._known = modules
        self._normals = np.random.default_rng([seed, 2])
        self._batches = np.random.default_rng([seed, 3])
        self._schedule = RefitSchedule(REFIT_GROWTH)
        self._buffer = Buffer(context_dim, modules, self.settings.capacity)
        generator = torch.Generator().manual_seed(seed)
        sizes = [context_dim, *self.settings.hidden]
        self._body = _hidden_layers(sizes, generator).to(self._device)
        self._frozen = _hidden_layers(sizes, generator).to(self._device)
        self._width = 1 + context_dim + sizes[-1]
        self._set_outputs([torch.zeros(1 + sizes[-1], modules.n_table_cells(m)) for m in range(len(modules))])
        self._scales = [self.settings.effect_scale] * len(modules)
        self._drawn: list[Tensor] = []
        self._learns = True
        self._fit()

    def _set_outputs(self, weights: list[Tensor]) -> None:
        """Set each module's output layer (1 + H, cells), used in training only, and reset the optimiser."""
        self._outputs = nn.ParameterList([weight.to(self._device) for weight in weights])
        self._optimiser = torch.optim.AdamW(
            [*self._body.parameters(), *self._outputs],
            lr=self.settings.learning_rate,
            weight_decay=self.settings.weight_decay,
        )

    @torch.no_grad()
    def _phi(self, context: Tensor) -> Tensor:
        hidden = self._frozen(context.to(self._device)).cpu()
        return torch.cat([torch.ones(len(context), 1), context, hidden], 1).double()

    def expected_rewards(self, observations: Observations) -> list[FloatArray]:
        """Return the K posterior draws' estimates, (K, N, *shape(m)) per module, in reward units."""
        phi = self._phi(torch.from_numpy(np.ascontiguousarray(observations.context, dtype=np.float32)))
        return estimates(phi, self._drawn, self._known, self.modules)

    def observe(self, batch: Batch) -> None:
        """Add executed actions and rewards to the buffer.

        Raises:
            InputError: If a row cannot be learned from; then no row is added.
            ConfigError: If contexts have another width, or the agent was loaded from a policy file.
        """
        if not self._learns:
            raise ConfigError(DECIDES_ONLY)
        self._buffer.add(batch)

    def update(self, steps: int = 1) -> dict[str, float]:
        """Make gradient steps, and refit the regressions if a fit is due.

        Returns:
            The network's mean loss over modules, in squared standard deviations of the reward.
        """
        if steps < 1 or len(self._buffer) == 0:
            return {}
        units = self._reward_units()
        loss = sum(self._step(*units) for _ in range(steps)) / steps
        if self._schedule.due(self._buffer.seen):
            self._fit()
        return {"loss": loss}

    def _reward_units(self) -> tuple[float, float, float]:
        """Return the mean and standard deviation of the rewards in the buffer, and their median se^2."""
        reward = self._buffer["reward"].double()
        return float(reward.mean()), max(float(reward.std(correction=0)), 1e-8), median_variance(self._buffer["se"])

    def _step(self, mean: float, scale: float, reference: float) -> float:
        """Make one gradient step on random rows; return the mean loss over modules."""
        rows = torch.from_numpy(self._batches.integers(0, len(self._buffer), self.settings.batch_size))
        actions = self._buffer["actions"][rows].numpy().astype(np.int64)
        reward = ((self._buffer["reward"][rows] - mean) / scale).to(self._device)
        weight = precision(self._buffer["se"][rows], reference, self.settings.precision_cap).to(self._device)
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

    def _fit(self) -> None:
        self._frozen.load_state_dict(self._body.state_dict())
        known, buffer = self._known, self._buffer
        statistics = [RegressionStatistics.zeros(known.n_table_cells(m), self._width) for m in range(len(known))]
        reference = median_variance(buffer["se"]) if len(buffer) else 1.0
        for start in range(0, len(buffer), ROWS_PER_CHUNK):
            rows = slice(start, start + ROWS_PER_CHUNK)
            new = statistics_by_module(
                known,
                self._phi(buffer["context"][rows]),
                buffer["actions"][rows].numpy().astype(np.int64),
                buffer["reward"][rows].double().numpy(),
                precision(buffer["se"][rows].double(), reference, self.settings.precision_cap).numpy(),
            )
            statistics = [old.plus(more) for old, more in zip(statistics, new, strict=True)]
        self._statistics = statistics
        self._draw()

    def _draw(self) -> None:
        """Learn the prior scales and draw the coefficients, from the statistics."""
        known, statistics = self._known, self._statistics
        self._scales = learn_effect_scales(known, statistics, self._scales, self.settings.effect_scale)
        self._drawn = posterior_draws(known, statistics, self._scales, self.settings.draws, self._normals)

    def state_dict(self) -> dict[str, Any]:
        """Return the weights, the optimiser, the posterior draws, the rows and every random state.

        Raises:
            ConfigError: If the agent was loaded from a policy file.
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
        """Return the frozen features, the posterior draws and the statistics of the last fit, without rows."""
        return super().state_dict() | {
            "known": self._known.to_dict(),
            "frozen": self._frozen.state_dict(),
            "scales": list(self._scales),
            "drawn": list(self._drawn),
            "statistics": [dict(vars(each)) for each in self._statistics],
            "normals": generator_state(self._normals),
        }

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Restore what `state_dict` or `policy_state_dict` returned; if the set of actions has changed since, refit.

        With the state of a policy the agent can make decisions, but cannot learn. If the actions have changed, its
        coefficients are then drawn again, on the frozen features.

        Raises:
            ConfigError: If the state belongs to an agent of another shape or with other modules.
        """
        before = ActionSpace.from_dict(state["known"])
        known = known_actions(self.modules, before)
        self._learns = "buffer" in state
        try:
            self._frozen.load_state_dict(state["frozen"])
            if self._learns:
                self._body.load_state_dict(state["body"])
                self._buffer.load_state_dict(state["buffer"], before, known)
        except (RuntimeError, ValueError) as error:
            reason = str(error).splitlines()[-1].strip()
            raise ConfigError(f"the state is of an agent of another shape: {reason}") from None
        super().load_state_dict(state)
        restore_generator(self._normals, state["normals"])
        self._known, self._scales, self._drawn = known, list(state["scales"]), list(state["drawn"])
        self._statistics = [moved_statistics(saved, before, known, m) for m, saved in enumerate(state["statistics"])]
        if not self._learns:
            if known != before:
                self._draw()
            return
        restore_generator(self._batches, state["batches"])
        self._schedule.load_state_dict(state["schedule"])
        outputs = []
        for m, saved in enumerate(state["outputs"]):
            fresh = np.zeros((known.n_table_cells(m), len(saved)), dtype=np.float32)
            moved = carry_over(saved.T.numpy(), previous_cells(before, known, m), fresh)
            outputs.append(torch.from_numpy(moved.T.copy()))
        self._set_outputs(outputs)
        if known == before:
            self._optimiser.load_state_dict(state["optimiser"])
        else:
            self._fit()


def _hidden_layers(sizes: list[int], generator: torch.Generator) -> nn.Sequential:
    """Build fully connected ReLU layers, their weights drawn from a generator (He et al. 2015)."""
    layers: list[nn.Module] = []
    for a, b in itertools.pairwise(sizes):
        layer = nn.Linear(a, b)
        nn.init.normal_(layer.weight, 0.0, math.sqrt(2.0 / max(a, 1)), generator=generator)
        nn.init.zeros_(layer.bias)
        layers += [layer, nn.ReLU()]
    return nn.Sequential(*layers)
