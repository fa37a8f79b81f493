"""Linear agents in closed form: Thompson sampling, epsilon-greedy, and the single best action for all users."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor

from crosschannel.agents.base import DECIDES_ONLY, Batch, Observations
from crosschannel.agents.buffers.buffer import Buffer, check_batch, check_context_width, median_variance, precision
from crosschannel.agents.funnel.funnel import Funnel
from crosschannel.agents.linear.module_regression import (
    estimates,
    learn_effect_scales,
    moved_statistics,
    posterior_draws,
    statistics_by_module,
)
from crosschannel.agents.linear.regression import RefitSchedule, RegressionStatistics
from crosschannel.agents.policy import VotingPolicy
from crosschannel.agents.settings import BestFixedSettings, EpsilonGreedySettings, LinearThompsonSettings
from crosschannel.agents.votes import ChannelVotes
from crosschannel.core.action_changes import known_actions
from crosschannel.core.action_space import ActionSpace
from crosschannel.core.arrays import Float32Array, FloatArray
from crosschannel.core.errors import ConfigError
from crosschannel.core.serialization import generator_state, restore_generator

REFIT_GROWTH = 1.05
DRAWS_OF_GREEDY_AGENTS = 20
#: Number of most recent rows that a funnel is fitted to.
FUNNEL_CAPACITY = 2_000_000


class LinearAgent(VotingPolicy):
    r"""Bayesian linear regression of the reward on the context, for each action of each module; K draws vote.

    .. math:: r = \phi(x)^\top \theta_a + \varepsilon, \qquad \phi(x) = [1, x]

    Rows are weighted by their capped precision, and the agent keeps their sufficient statistics only. Modules after the
    first learn from the rows in which something was sent. Actions with equal labels share coefficients through the
    prior of `agents.linear.regression`.

    Args:
        modules: The action space.
        context_dim: Number of context features D, which are standardised.
        settings: Settings.
        seed: Seed of the posterior draws and of the sampled actions.
        draws: Posterior draws (K).
        exploration_scale: Scale of the draws' deviations from their mean when sampling (`VotingPolicy`).
        mixtures: Mixtures of the draws that vote; 0 for the draws themselves (`VotingPolicy`).
        width: Number of features F of `phi`.
    """

    def __init__(
        self,
        modules: ActionSpace,
        context_dim: int,
        settings: BestFixedSettings,
        seed: int,
        draws: int,
        exploration_scale: float,
        mixtures: int,
        width: int,
    ) -> None:
        super().__init__(modules, seed, settings.floor, exploration_scale, mixtures)
        self.settings = settings
        self._context_dim, self._width, self._seed = context_dim, width, seed
        self._k = draws
        self._known = modules
        self._normals = np.random.default_rng([seed, 2])
        self._schedule = RefitSchedule(REFIT_GROWTH)
        self._seen = 0
        self._reference = 0.0
        self._statistics = [RegressionStatistics.zeros(modules.n_table_cells(m), width) for m in range(len(modules))]
        self._scales = [settings.effect_scale] * len(modules)
        self._drawn: list[Tensor] = []
        self._fit()

    def phi(self, context: Float32Array) -> Tensor:
        """Return the features (N, F) of contexts (N, D): an intercept and the context."""
        x = torch.from_numpy(np.asarray(context, dtype=np.float64))
        return torch.cat([torch.ones(len(x), 1, dtype=torch.float64), x], 1)

    def expected_rewards(self, observations: Observations) -> list[FloatArray]:
        """Return the K posterior draws' estimates, (K, N, *shape(m)) per module, in reward units."""
        return estimates(self.phi(observations.context), self._drawn, self._known, self.modules)

    def observe(self, batch: Batch) -> None:
        """Add executed actions and rewards to the statistics.

        Raises:
            InputError: If a row cannot be learned from; then no row is added.
            ConfigError: If contexts have another width.
        """
        check_batch(batch, self.modules)
        check_context_width(batch.observations, self._context_dim)
        if len(batch) == 0:
            return
        if self._seen == 0:
            self._reference = median_variance(batch.se)
        weight = precision(batch.se, self._reference, self.settings.precision_cap)
        keep = 0.5 ** (len(batch) / self.settings.half_life)
        phi = self.phi(batch.observations.context)
        new = statistics_by_module(self._known, phi, batch.actions, batch.rewards, weight)
        self._statistics = [old.plus(more, keep) for old, more in zip(self._statistics, new, strict=True)]
        self._seen += len(batch)

    @property
    def width(self) -> int:
        """Number of features F of `phi`."""
        return self._width

    def adopt(self, statistics: Sequence[RegressionStatistics], rows: int, reference: float) -> None:
        """Take the statistics of other rows, such as of a whole log; the next update fits to them.

        Args:
            statistics: Those of each module.
            rows: Number of rows.
            reference: Squared standard error of a row of weight 1.
        """
        self._statistics, self._seen, self._reference = list(statistics), rows, reference

    def update(self, steps: int = 1) -> dict[str, float]:
        """Refit the regressions and redraw the coefficients if a fit is due.

        Returns:
            The first module's mean squared error divided by the variance of the rewards: 1 is as good as the mean.
        """
        if steps < 1 or self._seen == 0:
            return {}
        if self._schedule.due(self._seen):
            self._fit()
        first = self._statistics[0]
        return {"loss": float(first.residual(self._drawn[0].mean(0)) / first.variance().clamp(min=1e-300))}

    def _fit(self) -> None:
        guess = self.settings.effect_scale
        self._scales = learn_effect_scales(self._known, self._statistics, self._scales, guess)
        self._drawn = posterior_draws(self._known, self._statistics, self._scales, self._k, self._normals)

    def state_dict(self) -> dict[str, Any]:
        """Return the statistics of all known actions, the last draws, and every random state."""
        return super().state_dict() | {
            "known": self._known.to_dict(),
            "statistics": [dict(vars(each)) for each in self._statistics],
            "scales": list(self._scales),
            "drawn": list(self._drawn),
            "normals": generator_state(self._normals),
            "schedule": self._schedule.state_dict(),
            "seen": self._seen,
            "reference": self._reference,
        }

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Restore what `state_dict` returned; if the set of actions has changed since, refit the regressions.

        Raises:
            ConfigError: If the state belongs to an agent of another shape or with other modules.
        """
        before = ActionSpace.from_dict(state["known"])
        known = known_actions(self.modules, before)
        k, _, width = state["drawn"][0].shape
        if (k, width) != (self._k, self._width):
            raise ConfigError(
                f"the state is of an agent of another shape: {width} features and {k} draws, not {self._width} and "
                f"{self._k}"
            )
        super().load_state_dict(state)
        restore_generator(self._normals, state["normals"])
        self._schedule.load_state_dict(state["schedule"])
        self._seen, self._reference = int(state["seen"]), float(state["reference"])
        self._known = known
        self._scales, self._drawn = list(state["scales"]), list(state["drawn"])
        self._statistics = [moved_statistics(saved, before, known, m) for m, saved in enumerate(state["statistics"])]
        if known != before:
            self._fit()


class LinearThompson(LinearAgent):
    """Linear Thompson sampling: K posterior draws vote, so that the vote shares are the exact propensities.

    Agrawal & Goyal (2013), "Thompson sampling for contextual bandits with linear payoffs", ICML, draw for each
    decision; the propensities would then need an integral. Here the draws change only when the regressions are
    refitted. See `LinearAgent`. From rewards with components it learns a funnel (`agents.funnel`), and chooses by it.

    Args:
        modules: The action space.
        context_dim: Number of context features.
        settings: Settings.
        seed: Seed of the posterior draws and of the sampled actions.
        device: Not used: it computes on the CPU in float64.
    """

    def __init__(
        self,
        modules: ActionSpace,
        context_dim: int,
        settings: LinearThompsonSettings | None = None,
        seed: int = 0,
        device: str = "cpu",  # noqa: ARG002
    ) -> None:
        settings = settings or LinearThompsonSettings()
        width, how = 1 + context_dim, (settings.draws, settings.exploration_scale, settings.mixtures)
        super().__init__(modules, context_dim, settings, seed, *how, width)
        self._funnel = Funnel(modules, context_dim, settings.draws, seed)
        self._rows, self._learns = Buffer(context_dim, modules, FUNNEL_CAPACITY), True

    @property
    def funnel(self) -> Funnel:
        """The model of the rewards' components; without heads until rows with components were learned."""
        return self._funnel

    def observe(self, batch: Batch) -> None:
        """Add executed actions and rewards to the statistics, and keep rows that have components.

        Raises:
            InputError: If a row cannot be learned from; then no row is added.
            ConfigError: If contexts have another width, or the agent was loaded from a policy file.
        """
        if not self._learns:
            raise ConfigError(DECIDES_ONLY)
        super().observe(batch)
        if batch.components is not None or len(self._rows):
            self._rows.add(batch)

    def update(self, steps: int = 1) -> dict[str, float]:
        """Refit the regressions and the funnel if a fit is due; return the loss, and how the funnel is calibrated."""
        return super().update(steps) | (self._funnel.learn(self._rows) if steps >= 1 and len(self._rows) else {})

    def votes(self, observations: Observations, *, explore: bool = True) -> ChannelVotes:
        """Return the votes on the first module's actions, before shadow prices."""
        if self._funnel.heads is None:
            return super().votes(observations, explore=explore)
        matrix = self._mixing_matrix(self._k).float() if explore else None
        floors = self._floors if explore else (0.0,) * len(self.modules)
        return self._funnel.votes(self.modules, observations, matrix, floors)

    def action_probabilities(self, observations: Observations) -> list[FloatArray]:
        """Return the vote shares, mixed with the floors."""
        if self._funnel.heads is None:
            return super().action_probabilities(observations)
        return self.votes(observations).probabilities()

    def expected_rewards(self, observations: Observations) -> list[FloatArray]:
        """Return the K draws' estimates, (K, N, *shape(m)) per module, in reward units; of a funnel, whole values."""
        if self._funnel.heads is None:
            return super().expected_rewards(observations)
        return [
            each.astype(np.float64) for each in self._funnel.expected_rewards(self.modules, observations, self._floors)
        ]

    def state_dict(self) -> dict[str, Any]:
        """Return the statistics of all known actions, the funnel with its rows, and every random state.

        Raises:
            ConfigError: If the agent was loaded from a policy file.
        """
        if not self._learns:
            raise ConfigError(DECIDES_ONLY)
        return {**self.policy_state_dict(), "rows": self._rows.state_dict()}

    def policy_state_dict(self) -> dict[str, Any]:
        """Return the part of the state that decisions need."""
        return super().state_dict() | {"funnel": self._funnel.state_dict()}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Restore what `state_dict` or `policy_state_dict` returned; with the latter the agent cannot learn.

        Raises:
            ConfigError: If the state belongs to an agent of another shape or with other modules.
        """
        super().load_state_dict(state)
        before = ActionSpace.from_dict(state["known"])
        self._funnel = Funnel(self._known, self._context_dim, self._k, self._seed)
        try:
            self._funnel.load_state_dict(state["funnel"], before)
        except ValueError as error:
            raise ConfigError(f"the state is of an agent of another shape: {error}") from None
        self._learns = "rows" in state
        if self._learns:
            self._rows.load_state_dict(state["rows"], before, self._known)


class EpsilonGreedy(LinearAgent):
    """The action with the largest linear estimate, or with probability epsilon a uniform draw. See `LinearAgent`.

    Args:
        modules: The action space.
        context_dim: Number of context features.
        settings: Settings.
        seed: Seed of the sampled actions.
        device: Not used: it computes on the CPU in float64.
    """

    def __init__(
        self,
        modules: ActionSpace,
        context_dim: int,
        settings: EpsilonGreedySettings | None = None,
        seed: int = 0,
        device: str = "cpu",  # noqa: ARG002
    ) -> None:
        settings, width = settings or EpsilonGreedySettings(), 1 + context_dim
        super().__init__(modules, context_dim, settings, seed, DRAWS_OF_GREEDY_AGENTS, 0.0, 0, width)


class BestFixed(LinearAgent):
    """One action for all users: in each module the action with the largest mean reward, whatever the context.

    The prior shrinks the mean rewards towards each other, and nothing corrects for the log's targeting: where it
    targets, the best mean need not belong to the best action. A user for whom the action is not eligible gets the best
    eligible one. This is `LinearAgent` without the context.

    Args:
        modules: The action space.
        context_dim: Number of context features, which are ignored.
        settings: Settings.
        seed: Seed of the sampled actions.
        device: Not used: it computes on the CPU in float64.
    """

    def __init__(
        self,
        modules: ActionSpace,
        context_dim: int,
        settings: BestFixedSettings | None = None,
        seed: int = 0,
        device: str = "cpu",  # noqa: ARG002
    ) -> None:
        super().__init__(modules, context_dim, settings or BestFixedSettings(), seed, DRAWS_OF_GREEDY_AGENTS, 0.0, 0, 1)

    def phi(self, context: Float32Array) -> Tensor:
        """Return an intercept (N, 1)."""
        return torch.ones(len(context), 1, dtype=torch.float64)
