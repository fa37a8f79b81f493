"""Bootstrapped Q-learning over a user's slots: the value of a decision includes its effect on later rewards."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import replace
from typing import Any

import numpy as np
import torch
from torch import Tensor

from crosschannel.agents.base import DECIDES_ONLY, Batch, Observations
from crosschannel.agents.buffers.buffer import check_batch, check_context_width, median_variance, precision
from crosschannel.agents.buffers.transitions import Transitions
from crosschannel.agents.ensemble.noise import learn_noise, noise_factor, row_weights, signs, subsample
from crosschannel.agents.linear.module_regression import (
    estimates,
    learn_effect_scales,
    moved_statistics,
    statistics_by_module,
)
from crosschannel.agents.linear.regression import Prior, RefitSchedule, RegressionStatistics, fit, moments
from crosschannel.agents.policy import VotingPolicy
from crosschannel.agents.settings import BootstrappedQSettings
from crosschannel.core.action_changes import carry_over, design_matrix, known_actions, previous_cells
from crosschannel.core.action_space import ActionSpace
from crosschannel.core.arrays import FloatArray
from crosschannel.core.errors import ConfigError, Fault, InputError
from crosschannel.core.serialization import generator_state, restore_generator

REFIT_GROWTH = 1.3
ROWS_PER_CHUNK = 65_536


class BootstrappedQ(VotingPolicy):
    r"""K members' estimates of the discounted incremental reward of an action and of all later decisions.

    .. math::
        q_k(x, a) = \phi(x)^\top \theta_{ka} \approx r + \epsilon_k \sigma \sqrt{v / p}
        + \gamma^{\Delta} \, q_k(x', \arg\max_b q_0(x', b)), \qquad \phi(x) = [1, x, \max(0, W x + c)]

    x' is the user's next slot, :math:`\Delta` slots later. The coefficients are solved in closed form, with the targets
    iterated (fitted Q: Ernst, Geurts & Wehenkel 2005, "Tree-based batch mode reinforcement learning", JMLR). Member k
    sees rewards perturbed by the signs :math:`\epsilon_k = \pm 1` times a row's noise, where p is its precision and v
    the relative variance of rewards in its context (`agents.ensemble.noise`), and its prior mean is a random draw, so
    that the members vary as the posterior does (Osband, Blundell, Pritzel & Van Roy 2016, "Deep exploration via
    bootstrapped DQN", NeurIPS; the signs are the wild bootstrap of Wu 1986, Annals of Statistics): no row is dropped,
    and all members share one factorisation. The members are centred on the best estimate :math:`q_0`, which is fitted
    to the unperturbed rewards. It chooses the next action and each member values it, which avoids the maximisation bias
    of a member's noise (van Hasselt 2010, "Double Q-learning", NeurIPS).

    Later rewards are credited to the first module alone, where sending nothing is one of the actions: a user's fatigue
    depends on whether and on which channel something was sent. The other modules learn from the rewards of what was
    sent, without the noise of all later rewards; an effect of content that outlasts the reward's window is not seen.
    Rows whose next slot is unknown (neither a next observation nor terminal) are left out.

    Args:
        modules: The action space.
        context_dim: Number of context features, which are standardised.
        settings: Settings.
        seed: Seed of the random features, the prior draws, the hashed signs and the sampled actions.
        device: Not used: it computes on the CPU in float64.
    """

    def __init__(
        self,
        modules: ActionSpace,
        context_dim: int,
        settings: BootstrappedQSettings | None = None,
        seed: int = 0,
        device: str = "cpu",  # noqa: ARG002
    ) -> None:
        self.settings = settings = settings or BootstrappedQSettings()
        super().__init__(modules, seed, settings.floor, settings.exploration_scale, settings.mixtures)
        self._context_dim, self._seed = context_dim, seed
        self._known = modules
        self._priors = np.random.default_rng([seed, 2])
        units = self.settings.units
        self._layer = torch.from_numpy(self._priors.standard_normal((context_dim + 1, units)))
        self._layer[1:] *= math.sqrt(1.0 / max(context_dim, 1))
        self._width = 1 + context_dim + units
        self._scales = [self.settings.effect_scale] * len(modules)
        self._starts = [self._draw_start(modules.n_table_cells(m)) for m in range(len(modules))]
        self._coefficients = [start * self.settings.effect_scale for start in self._starts]
        self._rows = Transitions.empty(context_dim, modules)
        self._new: list[Transitions] = []
        self._seen = 0
        self._schedule = RefitSchedule(REFIT_GROWTH)
        self._reference = 0.0
        self._noisiness = torch.zeros(context_dim)
        self._value = 0.0
        self._learns = True
        self._statistics = [
            RegressionStatistics.zeros(modules.n_table_cells(m), self._width) for m in range(len(modules))
        ]
        self._moments = [torch.zeros_like(start) for start in self._starts]
        self._sigma = 1.0

    def _draw_start(self, cells: int) -> Tensor:
        """Draw the members' prior means (1 + K, cells, F), in prior standard deviations; 0 for the best estimate."""
        drawn = torch.from_numpy(self._priors.standard_normal((self.settings.members, cells, self._width)))
        return torch.cat([torch.zeros_like(drawn[:1]), drawn])

    def _phi(self, context: Tensor) -> Tensor:
        x = 1 + self._context_dim
        phi = torch.empty(len(context), self._width, dtype=torch.float64)
        phi[:, 0], phi[:, 1:x] = 1.0, context
        phi[:, x:] = (phi[:, :x] @ self._layer).relu_()
        return phi

    def expected_rewards(self, observations: Observations) -> list[FloatArray]:
        """Return the members' estimates, (K, N, *shape(m)) per module, in reward units.

        For the first module they are gains over sending nothing now, discounted later gains and losses included; for
        the other modules they are rewards.
        """
        phi = self._phi(torch.from_numpy(np.asarray(observations.context)))
        first, *others = estimates(phi, [each[1:] for each in self._coefficients], self._known, self.modules)
        return [first - first[..., :1], *others]

    def observe(self, batch: Batch) -> None:
        """Record executed actions, their rewards and the next slots.

        Raises:
            InputError: If a row cannot be learned from; then no row is added.
            ConfigError: If contexts have another width, the batch lacks the next slots, or the agent was loaded from a
                policy file.
        """
        if not self._learns:
            raise ConfigError(DECIDES_ONLY)
        check_batch(batch, self.modules)
        check_context_width(batch.observations, self._context_dim)
        if batch.next_observations is None or batch.steps_to_next is None or batch.terminal is None:
            raise ConfigError(
                "bootstrapped_q learns from later slots: provide `next_observations`, `steps_to_next` and `terminal` "
                "in the batch"
            )
        check_context_width(batch.next_observations, self._context_dim)
        steps, known = batch.steps_to_next, batch.terminal | ~np.isnan(batch.steps_to_next)
        finite = np.isfinite(batch.next_observations.context).all(1)
        wrong = known & ~batch.terminal & ~((steps > 0) & np.isfinite(steps) & finite)
        if wrong.any():
            row = int(wrong.argmax())
            remedy = "Slots to the next observation are 1 or more; where there is none they are NaN."
            problem = "is not above 0, or the next observation has a feature that is not a finite number"
            raise InputError(
                [
                    Fault(
                        file="batch",
                        problem=problem,
                        remedy=remedy,
                        column="steps_to_next",
                        row=row + 1,
                        value=float(steps[row]),
                        count=int(wrong.sum()),
                    )
                ]
            )
        batch = batch[known]
        if len(batch) == 0:
            return
        if self._seen == 0:
            self._reference = median_variance(batch.se)
        weight = precision(batch.se, self._reference, self.settings.precision_cap)
        self._new.append(Transitions.from_batch(batch, self._known, self.modules, weight, self.settings.discount))
        self._seen += len(batch)

    def update(self, steps: int = 1) -> dict[str, float]:
        """Iterate fitted Q on all rows if a fit is due.

        Returns:
            The mean discounted value of the next slots, in reward units.
        """
        if steps < 1 or self._seen == 0:
            return {}
        if self._schedule.due(self._seen):
            self._append_new_rows()
            self._fit()
        return {"value": self._value}

    def _append_new_rows(self) -> None:
        """Append the rows that were observed since the last fit."""
        self._rows, self._new = Transitions.joined([self._rows, *self._new]), []

    def _chunks(self) -> list[slice]:
        return [slice(start, start + ROWS_PER_CHUNK) for start in range(0, len(self._rows), ROWS_PER_CHUNK)]

    def _weights(self, factor: Tensor) -> Tensor:
        """Return the weights (n,) of all rows: their precision, reduced in contexts with noisy rewards."""
        return row_weights(self._rows.weight, factor, self.settings.precision_cap)

    def _fit(self) -> None:
        factor = noise_factor(self._rows.context, self._noisiness)
        weight = self._weights(factor)
        statistics, noise = self._reward_statistics(weight, (factor / self._rows.weight).sqrt())
        self._scales = learn_effect_scales(self._known, statistics, self._scales, self.settings.effect_scale)
        sigma = float(statistics[0].variance().sqrt())
        rewards = [
            each.moment + sigma * torch.cat([torch.zeros_like(more[:1]), more])
            for each, more in zip(statistics, noise, strict=True)
        ]
        self._statistics, self._moments, self._sigma = statistics, list(rewards), sigma
        self._coefficients[1:] = [self._solve(m) for m in range(1, len(statistics))]
        for _ in range(self.settings.sweeps if self.settings.discount > 0 else 1):
            self._moments[0] = rewards[0] + self._next_moments(weight)
            self._coefficients[0] = self._solve(0)
        some = self._rows[subsample(len(self._rows))]
        later, cell = self._next_values(some)[0], self._cells(some)
        error = some.reward + later - (self._phi(some.context) * self._coefficients[0][0, cell]).sum(1)
        self._noisiness = learn_noise(some.context, error.square() * some.weight)
        self._value = float(later.mean())

    def _cells(self, rows: Transitions) -> Tensor:
        """Return each row's cell of the first module (n,)."""
        return torch.from_numpy(self._known.table_cell(0, rows.actions.numpy().astype(np.int64)))

    def _reward_statistics(
        self, weights: Tensor, deviations: Tensor
    ) -> tuple[list[RegressionStatistics], list[Tensor]]:
        """Return each module's statistics of the rewards, and its products of features and unit noise (K, cells, F).

        Args:
            weights: The rows' weights (n,).
            deviations: Standard deviations of the rows' rewards, relative to that of a row with weight 1 (n,).
        """
        known = self._known
        statistics = [RegressionStatistics.zeros(known.n_table_cells(m), self._width) for m in range(len(known))]
        noise = [torch.zeros(self.settings.members, *each.moment.shape, dtype=torch.float64) for each in statistics]
        for chunk in self._chunks():
            rows, weight = self._rows[chunk], weights[chunk]
            phi, actions = self._phi(rows.context), rows.actions.numpy().astype(np.int64)
            new = statistics_by_module(known, phi, actions, rows.reward.numpy(), weight.numpy())
            statistics = [old.plus(more) for old, more in zip(statistics, new, strict=True)]
            keys = rows.key.numpy().view(np.uint64)
            weighted = signs(keys, self.settings.members, self._seed).double().t() * weight * deviations[chunk]
            sent = torch.from_numpy(known.sends(actions))
            for m, total in enumerate(noise):
                cell = torch.from_numpy(known.table_cell(m, actions))
                columns = (phi, cell, weighted) if m == 0 else (phi[sent], cell[sent], weighted[:, sent])
                total += moments(*columns, cells=known.n_table_cells(m))
        return statistics, noise

    def _next_moments(self, weights: Tensor) -> Tensor:
        """Return the products of the first module's features and the next slots' values (1 + K, cells, F)."""
        cells, parts = self._known.n_table_cells(0), []
        for chunk in self._chunks():
            rows = self._rows[chunk]
            weighted = self._next_values(rows) * weights[chunk]
            parts.append(moments(self._phi(rows.context), self._cells(rows), weighted, cells=cells))
        return torch.stack(parts).sum(0)

    def _solve(self, m: int) -> Tensor:
        """Solve for the coefficients (1 + K, cells, F): the members start from their prior draws and are centred."""
        statistics = self._statistics[m]
        prior = Prior.build(torch.from_numpy(design_matrix(self._known, m)), self._width, self._scales[m])
        start = self._starts[m] * prior.own.sqrt() * self._sigma
        rest = self._moments[m] - (statistics.gram @ start.unsqueeze(-1)).squeeze(-1)
        found = start + fit(replace(statistics, moment=rest), prior).mean
        k = self.settings.members
        deviations = (found[1:] - found[1:].mean(0)) * math.sqrt(k / max(k - 1, 1))
        return torch.cat([found[:1], found[:1] + deviations])

    def _next_values(self, rows: Transitions) -> Tensor:
        """Return the discounted values (1 + K, n) of each row's next slot; the best estimate chooses the action."""
        values = self._phi(rows.next_context) @ self._coefficients[0].transpose(1, 2)
        # Retired actions cannot be chosen later.
        present = torch.arange(values.shape[-1]) < self.modules.sizes[0]
        best = values[0].masked_fill(~(rows.open & present), -math.inf).argmax(1).expand(len(values), -1)
        return values.gather(2, best.unsqueeze(-1)).squeeze(-1) * rows.factor

    def state_dict(self) -> dict[str, Any]:
        """Return the coefficients, prior draws and rows of all known actions, and every random state.

        Raises:
            ConfigError: If the agent was loaded from a policy file.
        """
        if not self._learns:
            raise ConfigError(DECIDES_ONLY)
        self._append_new_rows()
        return self.policy_state_dict() | {
            "rows": dict(vars(self._rows)),
            "schedule": self._schedule.state_dict(),
            "reference": self._reference,
            "noisiness": self._noisiness.clone(),
            "value": self._value,
        }

    def policy_state_dict(self) -> dict[str, Any]:
        """Return the coefficients, the prior draws and the statistics of the last fit, without rows."""
        return super().state_dict() | {
            "known": self._known.to_dict(),
            "layer": self._layer.clone(),
            "starts": list(self._starts),
            "scales": list(self._scales),
            "coefficients": list(self._coefficients),
            "statistics": [dict(vars(each)) for each in self._statistics],
            "moments": list(self._moments),
            "sigma": self._sigma,
            "priors": generator_state(self._priors),
        }

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Restore what `state_dict` or `policy_state_dict` returned; if the set of actions has changed since, refit.

        With the state of a policy the agent can make decisions, but cannot learn. If the actions have changed, its
        coefficients are then solved again from the statistics, with the next slots' values of the last fit.

        Raises:
            ConfigError: If the state belongs to an agent of another shape or with other modules.
        """
        before = ActionSpace.from_dict(state["known"])
        known = known_actions(self.modules, before)
        shape = tuple(state["starts"][0].shape)
        if (shape[0] - 1, shape[2]) != (self.settings.members, self._width):
            raise ConfigError(
                f"the state is of an agent of another shape: {shape[0] - 1} members and {shape[2]} features, not "
                f"{self.settings.members} and {self._width}"
            )
        super().load_state_dict(state)
        restore_generator(self._priors, state["priors"])
        self._known, self._learns = known, "rows" in state
        self._layer, self._scales, self._sigma = state["layer"].clone(), list(state["scales"]), float(state["sigma"])
        self._starts, self._coefficients = list(state["starts"]), list(state["coefficients"])
        self._statistics = [moved_statistics(saved, before, known, m) for m, saved in enumerate(state["statistics"])]
        self._moments = list(state["moments"])
        if self._learns:
            self._schedule.load_state_dict(state["schedule"])
            self._reference, self._value = float(state["reference"]), float(state["value"])
            self._noisiness = state["noisiness"].clone()
            self._rows, self._new = Transitions(**state["rows"]), []
            self._seen = len(self._rows)
        if known != before:
            self._move(before, known)
            if self._learns and len(self._rows):
                self._fit()
            elif float(self._statistics[0].weight) > 0:
                self._coefficients = [self._solve(m) for m in range(len(known))]

    def _move(self, before: ActionSpace, known: ActionSpace) -> None:
        """Move everything that is stored by cell to the cells' new places; new cells start from a prior draw."""

        def along(values: Tensor, place: Any, fresh: Tensor) -> Tensor:
            moved = carry_over(values.transpose(0, 1).numpy(), place, fresh.transpose(0, 1).numpy())
            return torch.from_numpy(np.ascontiguousarray(np.swapaxes(moved, 0, 1)))

        for m in range(len(known)):
            place, start = previous_cells(before, known, m), self._draw_start(known.n_table_cells(m))
            self._starts[m] = along(self._starts[m], place, start)
            self._coefficients[m] = along(self._coefficients[m], place, start * self.settings.effect_scale)
            self._moments[m] = along(self._moments[m], place, torch.zeros_like(start))
        self._rows = self._rows.moved(before, known)
