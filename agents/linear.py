"""Linear agents in closed form: Thompson sampling, epsilon-greedy, and the one action that is best for all."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor

from crosschannel.agents.base import Batch, Float32Array, Observations
from crosschannel.agents.buffers.buffer import check_batch, precision, usual
from crosschannel.agents.policy import Voting
from crosschannel.agents.regression import Prior, Sums, deviations, fit, learn_scale
from crosschannel.agents.sampling import FLOOR, Floor
from crosschannel.agents.schedule import Schedule
from crosschannel.core.action_changes import carried, design, known_actions, places, shown
from crosschannel.core.action_space import ActionSpace
from crosschannel.core.arrays import FloatArray, IntArray
from crosschannel.core.errors import ConfigError
from crosschannel.core.serialization import generator_state, restore_generator

GROWTH = 1.05
DRAWS = 20


@dataclass(frozen=True)
class BestFixedConfig:
    """Settings of `best_fixed`, and of all linear agents.

    Attributes:
        effect_scale: Plausible effect of an action in standard deviations of the reward: where the prior begins, whose
            scale is learned.
        precision_cap: Largest weight of a row by its precision 1/se^2, in multiples of that at the first rows' median.
        half_life: Observed rows after which a row counts half; infinite to forget nothing.
        floor: Share of decisions that are drawn uniformly from the eligible actions: one number, or one by module's
            name.
    """

    effect_scale: float = 0.1
    precision_cap: float = 4.0
    half_life: float = math.inf
    floor: Floor = FLOOR

    def __post_init__(self) -> None:
        for name in ("effect_scale", "precision_cap", "half_life"):
            if not getattr(self, name) > 0:
                raise ConfigError(f"{name} is {getattr(self, name)}: it must be positive")


@dataclass(frozen=True)
class EpsilonGreedyConfig(BestFixedConfig):
    """Settings of `epsilon_greedy`: those of the linear agents; the floor is its epsilon."""

    floor: Floor = 0.1


@dataclass(frozen=True)
class LinearConfig(BestFixedConfig):
    """Settings of `linear_thompson`: those of the linear agents, and two more.

    Attributes:
        draws: Posterior draws that vote (K).
        spread: How far the draws that vote stray from the mean, in the posterior's deviations (v): 1 is Thompson
            sampling proper, less explores less.
    """

    draws: int = DRAWS
    spread: float = 0.5

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.draws < 1:
            raise ConfigError(f"draws is {self.draws}: it must be at least 1")
        if not self.spread >= 0:
            raise ConfigError(f"spread is {self.spread}: it must not be negative")


class LinearAgent(Voting):
    r"""Bayesian linear regression of the reward on the context, for each action of each module; K estimates vote.

    .. math:: r = \phi(x)^\top \theta_a + \varepsilon, \qquad \phi(x) = [1, x]

    Rows are weighted by their capped precision, and kept as sums only. A module but the first learns from the rows in
    which something was sent. See `agents.regression` for the prior, by which actions with equal labels share.

    Args:
        modules: What can be chosen.
        context_dim: Context features D; they come standardised.
        config: Settings.
        seed: Seed of the posterior draws and of the draws of actions.
        draws: Posterior draws that vote (K).
        spread: How far they stray when they vote (`Voting`).
        width: Features F of `phi`.
    """

    def __init__(
        self,
        modules: ActionSpace,
        context_dim: int,
        config: BestFixedConfig,
        seed: int,
        draws: int,
        spread: float,
        width: int,
    ) -> None:
        super().__init__(modules, seed, config.floor, spread)
        self.config = config
        self._context_dim, self._width = context_dim, width
        self._k = draws
        self._known = modules
        self._normals = np.random.default_rng([seed, 2])
        self._schedule = Schedule(GROWTH)
        self._seen = 0
        self._reference = 0.0
        self._sums = [Sums.nothing(modules.n_table_cells(m), width) for m in range(len(modules))]
        self._scales = [config.effect_scale] * len(modules)
        self._drawn: list[Tensor] = []
        self._solve()

    def phi(self, context: Float32Array) -> Tensor:
        """Features (N, F) of contexts (N, D): a one and the context."""
        x = torch.from_numpy(np.asarray(context, dtype=np.float64))
        return torch.cat([torch.ones(len(x), 1, dtype=torch.float64), x], 1)

    def expected_rewards(self, observations: Observations) -> list[FloatArray]:
        """The K posterior draws' estimates, (K, N, *shape(m)) a module, in reward units."""
        return estimates(self.phi(observations.context), self._drawn, self._known, self.modules)

    def observe(self, batch: Batch) -> None:
        """Adds executed actions and rewards to the sums.

        Raises:
            InputError: If a row cannot be learned from; nothing is kept then.
            ConfigError: If contexts are of another width.
        """
        check_batch(batch, self.modules)
        check_width(batch.observations, self._context_dim)
        if len(batch) == 0:
            return
        if self._seen == 0:
            self._reference = usual(batch.se)
        weight = precision(batch.se, self._reference, self.config.precision_cap)
        kept = 0.5 ** (len(batch) / self.config.half_life)
        new = sums_by_module(self._known, self.phi(batch.observations.context), batch.actions, batch.rewards, weight)
        self._sums = [sums.plus(more, kept) for sums, more in zip(self._sums, new, strict=True)]
        self._seen += len(batch)

    def update(self, steps: int = 1) -> dict[str, float]:
        """Solves anew for all rows where that is due, and draws anew.

        Returns:
            The first module's mean squared error in standardised squared rewards: 1 is no better than the mean reward.
        """
        if steps < 1 or self._seen == 0:
            return {}
        if self._schedule.due(self._seen):
            self._solve()
        first = self._sums[0]
        return {"loss": float(first.residual(self._drawn[0].mean(0)) / first.variance().clamp(min=1e-300))}

    def _solve(self) -> None:
        self._scales = effect_scales(self._known, self._sums, self._scales, self.config.effect_scale)
        self._drawn = posterior_draws(self._known, self._sums, self._scales, self._k, self._normals)

    def state_dict(self) -> dict[str, Any]:
        """The sums of all actions ever known, what was solved last, and every random state."""
        return super().state_dict() | {
            "known": self._known.to_dict(),
            "sums": [dict(vars(sums)) for sums in self._sums],
            "scales": list(self._scales),
            "drawn": list(self._drawn),
            "normals": generator_state(self._normals),
            "schedule": self._schedule.state_dict(),
            "seen": self._seen,
            "reference": self._reference,
        }

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """The inverse of `state_dict`, also where the set of actions has changed since: then all is solved anew.

        Raises:
            ConfigError: If the state belongs to an agent of another shape, or of other modules.
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
        self._sums = [carried_sums(saved, before, known, m) for m, saved in enumerate(state["sums"])]
        if known != before:
            self._solve()


class LinearThompson(LinearAgent):
    """Linear Thompson sampling: K draws of the posterior vote, so that their share is the exact propensity.

    Agrawal & Goyal (2013), "Thompson sampling for contextual bandits with linear payoffs", ICML, who draw one anew for
    each decision: the share would then be known by integration only. The draws here are renewed whenever all is solved
    anew. See `LinearAgent`.

    Args:
        modules: What can be chosen.
        context_dim: Context features.
        config: Settings.
        seed: Seed of the posterior draws and of the draws of actions.
        device: Not used: it computes on the CPU in float64.
    """

    def __init__(
        self,
        modules: ActionSpace,
        context_dim: int,
        config: LinearConfig | None = None,
        seed: int = 0,
        device: str = "cpu",  # noqa: ARG002
    ) -> None:
        config = config or LinearConfig()
        super().__init__(modules, context_dim, config, seed, config.draws, config.spread, 1 + context_dim)


class EpsilonGreedy(LinearAgent):
    """The action of the largest linear estimate, but for a share epsilon of uniform draws. See `LinearAgent`.

    Args:
        modules: What can be chosen.
        context_dim: Context features.
        config: Settings.
        seed: Seed of the draws of actions.
        device: Not used: it computes on the CPU in float64.
    """

    def __init__(
        self,
        modules: ActionSpace,
        context_dim: int,
        config: EpsilonGreedyConfig | None = None,
        seed: int = 0,
        device: str = "cpu",  # noqa: ARG002
    ) -> None:
        super().__init__(modules, context_dim, config or EpsilonGreedyConfig(), seed, DRAWS, 0.0, 1 + context_dim)


class BestFixed(LinearAgent):
    """One action for all: of each module the action of the largest mean reward, whatever the context.

    The rewards' means, pulled towards each other by the prior, are compared as the log has them: where it targets, the
    best mean need not be the best action. A user to whom the action is not eligible gets the best of those that are.
    See `LinearAgent`, which this is without the context.

    Args:
        modules: What can be chosen.
        context_dim: Context features; they are not looked at.
        config: Settings.
        seed: Seed of the draws of actions.
        device: Not used: it computes on the CPU in float64.
    """

    def __init__(
        self,
        modules: ActionSpace,
        context_dim: int,
        config: BestFixedConfig | None = None,
        seed: int = 0,
        device: str = "cpu",  # noqa: ARG002
    ) -> None:
        super().__init__(modules, context_dim, config or BestFixedConfig(), seed, DRAWS, 0.0, 1)

    def phi(self, context: Float32Array) -> Tensor:
        """Nothing but a one (N, 1)."""
        return torch.ones(len(context), 1, dtype=torch.float64)


def sums_by_module(
    modules: ActionSpace, phi: Tensor, actions: IntArray, rewards: FloatArray, weights: FloatArray
) -> list[Sums]:
    """What each module learns from n rows: the first from all, the others from those in which something was sent.

    Args:
        modules: All known actions.
        phi: Features (n, F) float64.
        actions: Codes (n, M).
        rewards: Rewards (n,).
        weights: Weights (n,), or (..., n) where they differ between members.
    """
    sent = torch.from_numpy(modules.sends(actions))
    r, w = (torch.from_numpy(np.ascontiguousarray(column, dtype=np.float64)) for column in (rewards, weights))
    out = []
    for m in range(len(modules)):
        cell = torch.from_numpy(modules.table_cell(m, actions))
        rows = (phi, cell, r, w) if m == 0 else (phi[sent], cell[sent], r[..., sent], w[..., sent])
        out.append(Sums.of(*rows, cells=modules.n_table_cells(m)))
    return out


def carried_sums(saved: Mapping[str, Tensor], before: ActionSpace, known: ActionSpace, m: int) -> Sums:
    """Saved sums of module m's cells, in the places where these now stand; new cells have no rows."""
    place, fresh = places(before, known, m), Sums.nothing(known.n_table_cells(m), saved["moment"].shape[-1])
    gram, moment = (
        torch.from_numpy(carried(saved[name].numpy(), place, getattr(fresh, name).numpy()))
        for name in ("gram", "moment")
    )
    return Sums(**{**saved, "gram": gram, "moment": moment})


def effect_scales(modules: ActionSpace, sums: Sequence[Sums], scales: Sequence[float], guess: float) -> list[float]:
    """The plausible size of an action's effect in each module, from what was seen, the last value and a first guess."""
    return [
        learn_scale(each, torch.from_numpy(design(modules, m)), each.moment.shape[-1], scale, guess)
        for m, (each, scale) in enumerate(zip(sums, scales, strict=True))
    ]


def posterior_draws(
    modules: ActionSpace, sums: Sequence[Sums], scales: Sequence[float], k: int, rng: np.random.Generator
) -> list[Tensor]:
    """K draws (K, cells, F) of each module's coefficients from their posterior, in reward units.

    They are centred on the posterior mean and scaled to keep their variance, so that their mean is exactly that of the
    posterior; a single draw is the mean itself.

    Args:
        modules: All known actions.
        sums: What each module has learned.
        scales: Plausible effect of an action of each module, in standard deviations of the noise.
        k: Draws.
        rng: Where they come from.
    """
    drawn = []
    for m, (each, scale) in enumerate(zip(sums, scales, strict=True)):
        width = each.moment.shape[-1]
        prior = Prior.of(torch.from_numpy(design(modules, m)), width, scale)
        found = fit(each, prior)
        normals = rng.standard_normal((k, sum(prior.design.shape), width))
        normals = (normals - normals.mean(0)) * math.sqrt(k / max(k - 1, 1))
        sigma = each.residual(found.mean).sqrt() if each.weight > 0 else 1.0
        drawn.append(found.mean + sigma * deviations(found, prior, torch.from_numpy(normals)))
    return drawn


def estimates(
    phi: Tensor, coefficients: Sequence[Tensor], known: ActionSpace, modules: ActionSpace
) -> list[FloatArray]:
    """K estimates of each present action, (K, N, *shape(m)) a module.

    Args:
        phi: Features (N, F).
        coefficients: Each module's coefficients (K, cells, F), of all known actions.
        known: All known actions.
        modules: The present ones.
    """
    found = [(phi @ each.transpose(1, 2)).numpy() for each in coefficients]
    return [shown(each, known, modules, m) for m, each in enumerate(found)]


def check_width(observations: Observations, width: int) -> None:
    """Refuses contexts of another width.

    Raises:
        ConfigError: If they are.
    """
    if observations.context.shape[1:] != (width,):
        raise ConfigError(
            f"contexts have {observations.context.shape[1]} features; the agent was made for {width}: "
            "give `context_dim` the width of the contexts"
        )
