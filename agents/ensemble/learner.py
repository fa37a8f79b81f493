"""The ensemble of one module: a shared network trained by gradient steps, and heads solved in closed form."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

import numpy as np
import torch
from torch import Tensor

from crosschannel.agents.buffers.buffer import Buffer, median_variance, precision
from crosschannel.agents.ensemble.drift import LAST, MAX_ROWS, age_weights, horizon, learn_half_life
from crosschannel.agents.ensemble.heads import FeatureScaler, Prior, SufficientStatistics, add_rows, solve, untrained
from crosschannel.agents.ensemble.moving import moved_state
from crosschannel.agents.ensemble.network import SharedNetwork
from crosschannel.agents.ensemble.noise import held_out, learn_noise, noise_factor, row_weights, signs, subsample
from crosschannel.agents.ensemble.prior import ABSOLUTE_BLOCK, NETWORK_BLOCK, learn_scales, select_prior_scale
from crosschannel.agents.ensemble.units import RewardUnits
from crosschannel.agents.settings import EnsembleThompsonSettings
from crosschannel.core.action_space import ActionSpace
from crosschannel.core.arrays import FloatArray, IntArray

PILOT_CONTEXTS = 512
INITIAL_NETWORK_VARIANCE = 1e-4
MAX_SCALE_STEPS = 10
REFIT_SHARE_OF_NEW_ROWS = 0.05
STEPS_PER_GATHER = 16
FREEZE_AT_STEP_GROWTH = 1.5


class Learner:
    r"""K members of one module: a shared network, K heads on it, and the units of their rewards.

    The heads are Bayesian regressions on all rows. Member k is fitted to perturbed rewards from a random prior mean,

    .. math:: \tilde r_{ki} = r_i + \epsilon_{ki} \, \sigma \sqrt{v_i / p_i}, \qquad \epsilon_{ki} = \pm 1

    where p is a row's precision and v the relative variance of rewards in its context (`agents.ensemble.noise`), so
    that its coefficients vary as the posterior does (Lu & Van Roy 2017, "Ensemble sampling", NeurIPS): no row is
    dropped, and all members share the Gram matrices and one factorisation. The members are centred on the posterior
    mean, so that their mean is exactly the best estimate.

    Args:
        width: Number of context features.
        modules: All known actions.
        m: Index of the module. Each of its cells (`ActionSpace.n_table_cells`) has a head: its actions, or those of
            every row of its table. The first module learns from all rows, the others from those in which something was
            sent.
        design: Features that its cells share (cells, L), or L = 0: see `agents.ensemble.heads.solve`.
        settings: Settings.
        generator: Source of the initial weights and the prior draws.
        seed: Seed of the hashed signs and of the held-out rows.
        device: Where the network computes; heads are solved on the CPU in float64.
    """

    def __init__(
        self,
        width: int,
        modules: ActionSpace,
        m: int,
        design: FloatArray,
        settings: EnsembleThompsonSettings,
        generator: torch.Generator,
        seed: int,
        device: torch.device,
    ) -> None:
        self._settings, self._seed, self._device = settings, seed, device
        self._modules, self._m = modules, m
        actions = modules.n_table_cells(m)
        rate, decay = settings.learning_rate, settings.weight_decay
        self._network = SharedNetwork(width, actions, settings.hidden, rate, decay, generator, device)
        self._blocks = self._network.blocks
        f, k = len(self._blocks), settings.members
        # Scaled to rows of length 1 on average, so that the prior of the shared part does not depend on the labels.
        size = np.square(design).sum(1).mean()
        self._design = torch.from_numpy(design / np.sqrt(size)) if size > 0 else None
        shared = 0 if self._design is None else self._design.shape[1] * untrained(self._blocks)
        variance = torch.full((2, 4), settings.effect_scale**2, dtype=torch.float64)
        variance[:, -1] = INITIAL_NETWORK_VARIANCE
        self._prior = Prior(settings.effect_scale**2, variance)
        self._common = torch.randn(f + shared, 1 + k, generator=generator).double()
        self._own = torch.randn(actions, f, 1 + k, generator=generator).double()
        self._common[:, 0], self._own[..., 0] = 0.0, 0.0
        self._statistics = SufficientStatistics.zeros(2, actions, f, 1 + k)
        self._seen, self._included = 0, 0  # rows at the last update, and rows in the statistics
        self._frozen = {"rows": 0, "steps": 0}  # when the features were last frozen
        self.units, self._reference = RewardUnits(), 1.0
        self._noisiness = torch.zeros(width)
        self.half_life = settings.half_life or 0.0  # 0: all rows count alike
        self._last_half_life = 0.0
        # Before any data the members are prior draws, scaled on standard normal contexts.
        self._pilot = torch.randn(PILOT_CONTEXTS, width, generator=generator)
        self._heads: Tensor | None = None

    @property
    def heads(self) -> Tensor:
        """Heads (A, 1 + K, F): the posterior mean, then the members; fitted on first use after a change."""
        if self._heads is None:
            self._heads = self._fit_heads()
        return self._heads

    def _features(self, x: Tensor, out: Tensor | None = None) -> Tensor:
        """Return the features of contexts (N, D) on the CPU, in `out` if it is given."""
        if out is None or self._device.type == "cpu":
            return self._network.features(x.to(self._device), out).cpu()
        return out.copy_(self._network.features(x.to(self._device)))

    def _fit_scaler(self, statistics: SufficientStatistics) -> FeatureScaler:
        if float(statistics.rows) > 0:
            return FeatureScaler.fit(statistics.gram.sum(0), self._blocks)
        phi = self._features(self._pilot).double()
        return FeatureScaler.fit(phi.t() @ phi, self._blocks)

    def _cells(self, buffer: Buffer, rows: Tensor) -> Tensor:
        """Return the module's cell of each of some rows (n,)."""
        return torch.from_numpy(
            self._modules.table_cell(self._m, buffer["actions"].index_select(0, rows).long().numpy())
        )

    def values(self, x: Tensor, heads: Tensor) -> Tensor:
        """Return estimates (A, C, N) in standardised rewards for contexts (N, D), from heads (A, C, F)."""
        found = self.estimates(x.to(self._device), heads.flatten(0, 1))
        return found.view(*heads.shape[:2], len(x))

    def estimates(self, x: Tensor, heads: Tensor, out: Tensor | None = None, hidden: Tensor | None = None) -> Tensor:
        """Return estimates (C, N) for contexts (N, D) on the device, from heads (C, F): see `network.SharedNetwork`."""
        return self._network.estimates(x, heads, out, hidden)

    def learn(self, buffer: Buffer, steps: int, rng: np.random.Generator) -> float:
        """Make gradient steps on the module's rows, keep the heads up to date, and return the mean loss.

        Args:
            buffer: All rows.
            steps: Number of gradient steps.
            rng: The random generator of the batches.
        """
        sent_only = self._m > 0
        rows = buffer.rows(sent_only)
        if len(rows) == 0:
            return float("nan")
        added = buffer.seen - self._frozen["rows"]
        matter = min(self._frozen["rows"], horizon(len(buffer), self.half_life))
        refit = added > 0 and added >= self._settings.growth * matter
        if refit:
            self._learn_noise(buffer, rows)
            self._fit_units(buffer, rows)
            self._learn_half_life(buffer, rows)
        loss = self._train(buffer, self._recent(buffer, self._training_rows(buffer)), steps, rng)
        if not refit and self._network.steps >= FREEZE_AT_STEP_GROWTH * self._frozen["steps"]:
            self._learn_noise(buffer, rows)
            refit = True
        if refit:
            self._refit(buffer, self._recent(buffer, rows))
        else:
            self._add_new_rows(buffer, sent_only)
        return loss

    def _recent(self, buffer: Buffer, rows: Tensor) -> Tensor:
        """Return those of some rows (n,) that are not too old to count."""
        return rows[buffer.age(rows) < LAST * self.half_life] if self.half_life else rows

    def _learn_half_life(self, buffer: Buffer, rows: Tensor) -> None:
        """Choose the half-life by the prediction of newer rows, unless it is a setting.

        Rows are discounted only if two choices in a row say so, and by the longer half-life of the two.
        """
        if self._settings.half_life is not None or self._frozen["rows"] == 0:
            return
        rows = rows[:: max(len(rows) // MAX_ROWS, 1)]
        context = buffer["context"].index_select(0, rows)
        weight, deviation = self._row_weights(buffer, rows, context)
        estimate = self._best_estimates(buffer, rows, context).unsqueeze(1)
        last = self._last_half_life
        self._last_half_life = learn_half_life(
            torch.cat([context, estimate / estimate.std().clamp_min(1e-6)], 1),
            self._cells(buffer, rows),
            self._targets(buffer, rows, deviation),
            weight,
            buffer.age(rows),
            self._modules.n_table_cells(self._m),
        )
        self.half_life = max(last, self._last_half_life) if min(last, self._last_half_life) > 0 else 0.0

    def _best_estimates(self, buffer: Buffer, rows: Tensor, context: Tensor) -> Tensor:
        """Return the present best estimates (n,) of the standardised rewards of rows, of their own actions."""
        estimates = self.values(context, self.heads[:, :1]).squeeze(1).cpu()
        return estimates.gather(0, self._cells(buffer, rows).unsqueeze(0)).squeeze(0)

    def _fit_units(self, buffer: Buffer, rows: Tensor) -> None:
        """Set the median of se^2 and the reward's units."""
        self._reference = median_variance(buffer["se"][rows])
        context, reward = (buffer[name].index_select(0, rows) for name in ("context", "reward"))
        weight, deviation = self._row_weights(buffer, rows, context)
        age_weight, cell = age_weights(buffer.age(rows), self.half_life), self._cells(buffer, rows)
        coefficients = self._modules.n_table_cells(self._m) * (1 + context.shape[1])
        self.units = RewardUnits.fit(reward, deviation, weight, age_weight, cell, coefficients)

    def _targets(self, buffer: Buffer, rows: Tensor, deviation: Tensor) -> Tensor:
        """Return the standardised rewards (n,) of rows, whose noise has some standard deviations (n,)."""
        return self.units.standardise(buffer["reward"].index_select(0, rows), deviation)

    def _training_rows(self, buffer: Buffer) -> Tensor:
        """Return the positions (n,) of the module's rows that are not held out."""
        sent_only = self._m > 0

        def trained_on(rows: Tensor) -> Tensor:
            trained = ~held_out(buffer.keys(rows), self._seed)
            return trained & buffer.sends(rows) if sent_only else trained

        return buffer.subset(("trained on", sent_only, self._seed), trained_on)

    def _train(self, buffer: Buffer, rows: Tensor, steps: int, rng: np.random.Generator) -> float:
        if len(rows) == 0:
            return float("nan")
        total = torch.zeros((), device=self._device)
        for first in range(0, steps, STEPS_PER_GATHER):  # one gather for several steps is faster
            size = min(STEPS_PER_GATHER, steps - first), self._settings.batch_size
            picked = rows.index_select(0, torch.from_numpy(rng.integers(0, len(rows), size)).flatten())
            context = buffer["context"].index_select(0, picked)
            weight, deviation = self._row_weights(buffer, picked, context)
            columns = (
                context,
                self._cells(buffer, picked),
                self._targets(buffer, picked, deviation),
                weight * age_weights(buffer.age(picked), self.half_life),
            )
            parts = (column.to(self._device).view(*size, *column.shape[1:]) for column in columns)
            for step in zip(*parts, strict=True):
                total += self._network.step(*step)
        return float(total) / steps

    def _refit(self, buffer: Buffer, rows: Tensor) -> None:
        """Freeze the features of the network as it is now, sum all rows again, and fit the prior; the heads follow."""
        self._network.freeze()
        self._statistics = self.no_sums()
        self._add(buffer, rows)
        self._frozen = {"rows": buffer.seen, "steps": self._network.steps}
        self._fit_prior()

    def _fit_prior(self) -> None:
        """Fit the prior to the statistics; the heads follow."""
        statistics = self._statistics.sum_folds()
        scaler = self._fit_scaler(statistics)
        self._prior = learn_scales(scaler.transform(statistics), self._prior, self._blocks, MAX_SCALE_STEPS)
        train, held = scaler.transform(self._statistics[0]), scaler.transform(self._statistics[1])
        for which in (NETWORK_BLOCK, ABSOLUTE_BLOCK):
            self._prior = select_prior_scale(train, held, self._prior, self._blocks, which)
        self._heads = None

    def _learn_noise(self, buffer: Buffer, rows: Tensor) -> None:
        """Fit the relative variance of rewards by context to the squared errors of the present heads."""
        if self._frozen["rows"] == 0:
            return
        rows = rows[subsample(len(rows))]
        context = buffer["context"].index_select(0, rows)
        deviation = self._row_weights(buffer, rows, context)[1]
        error = self._targets(buffer, rows, deviation) - self._best_estimates(buffer, rows, context)
        self._noisiness = learn_noise(context, error.square() * self._reported_precision(buffer, rows))

    def _add_new_rows(self, buffer: Buffer, sent_only: bool) -> None:
        """Add new rows to the statistics, once they are many or none came since the last update; the heads follow."""
        came, fresh = buffer.seen > self._seen, buffer.seen - self._included
        self._seen = buffer.seen
        if fresh >= REFIT_SHARE_OF_NEW_ROWS * horizon(len(buffer), self.half_life) or (fresh > 0 and not came):
            if self.half_life:
                self._statistics.discount(0.5 ** (fresh / self.half_life))
            self._add(buffer, buffer.rows(sent_only, since=self._included))
            self._heads = None

    def sums(self, buffer: Buffer) -> SufficientStatistics:
        """Return the statistics of a buffer's rows on the features as they are frozen, in double precision."""
        out = self.no_sums()
        self._add_to(out, buffer, buffer.rows(self._m > 0), torch.float64)
        return out

    def no_sums(self) -> SufficientStatistics:
        """Return the statistics of no rows."""
        return SufficientStatistics.zeros(*self._statistics.moment.shape)

    def adopt(self, statistics: SufficientStatistics) -> None:
        """Take statistics of other rows, such as of a whole log, and fit the prior to them; the heads follow."""
        self._statistics = statistics
        self._fit_prior()

    def _add(self, buffer: Buffer, rows: Tensor) -> None:
        self._add_to(self._statistics, buffer, rows, torch.float32)
        self._included = buffer.seen

    def _add_to(self, statistics: SufficientStatistics, buffer: Buffer, rows: Tensor, dtype: torch.dtype) -> None:
        folds, actions = statistics.gram.shape[:2]
        cell = held_out(buffer.keys(rows), self._seed) * actions + self._cells(buffer, rows)
        rows = rows.index_select(0, torch.argsort(cell, stable=True))
        context, age_weight = buffer["context"].index_select(0, rows), age_weights(buffer.age(rows), self.half_life)
        weight, deviation = self._row_weights(buffer, rows, context)
        targets = torch.empty(len(rows), 1 + self._settings.members)
        targets[:, 0] = self._targets(buffer, rows, deviation)
        noise = signs(buffer.keys(rows), self._settings.members, self._seed)
        torch.mul(noise, deviation.unsqueeze(1), out=targets[:, 1:])
        counts = torch.bincount(cell, minlength=folds * actions).view(folds, actions)
        add_rows(statistics, self._features, context, targets, weight * age_weight, age_weight, counts, dtype)

    def _fit_heads(self) -> Tensor:
        """Fit the heads (A, 1 + K, F) on the frozen features: the posterior mean, then the members around it."""
        statistics = self._statistics.sum_folds()
        scaler = self._fit_scaler(statistics)
        scaled = scaler.transform(statistics)
        found = solve(scaled, self._prior, self._blocks, self._common, self._own, self._design)
        k = self._settings.members
        members = found[..., 1:] - found[..., 1:].mean(2, keepdim=True)
        found[..., 1:] = found[..., :1] + members * (self._prior.noise * k / max(k - 1, 1)) ** 0.5
        return scaler.unscale(found).transpose(1, 2).float().contiguous().to(self._device)

    def _reported_precision(self, buffer: Buffer, rows: Tensor) -> Tensor:
        """Return the capped precisions (n,) by the rewards' standard errors: 1 at the median of se^2."""
        return precision(buffer["se"].index_select(0, rows), self._reference, self._settings.precision_cap)

    def _row_weights(self, buffer: Buffer, rows: Tensor, context: Tensor) -> tuple[Tensor, Tensor]:
        """Return the rows' weights (n,) and the standard deviations of their rewards, 1 for a row of average noise.

        Both depend on the rewards' standard errors and on the relative variance of rewards in the rows' contexts.
        """
        reported, factor = self._reported_precision(buffer, rows), noise_factor(context, self._noisiness)
        return row_weights(reported, factor, self._settings.precision_cap), (factor / reported).sqrt()

    def state_dict(self) -> dict[str, Any]:
        """Return everything that is needed to resume."""
        return {
            **self._policy_state(self._statistics),
            "counts": {"seen": self._seen, "included": self._included, "frozen": dict(self._frozen)},
            "noisiness": self._noisiness.clone(),
            "limit": self.units.limit,
            "reference": self._reference,
            "half_lives": [self.half_life, self._last_half_life],
        }

    def policy_state_dict(self) -> dict[str, Any]:
        """Return what decisions need. The statistics, summed over the folds, are for the heads of later actions."""
        return self._policy_state(self._statistics.sum_folds(keepdim=True))

    def _policy_state(self, statistics: SufficientStatistics) -> dict[str, Any]:
        return {
            "network": self._network.state_dict(),
            "heads": self.heads.clone(),
            "variance": self._prior.variance.clone(),
            "noise": self._prior.noise,
            "common": self._common.clone(),
            "own": self._own.clone(),
            "statistics": statistics.state_dict(),
            "units": [self.units.mean, self.units.scale],
        }

    def load_moved_state_dict(self, state: Mapping[str, Any], place: IntArray) -> None:
        """Restore the state of a learner whose cells were others, and refit the heads.

        Known cells keep their rows, output layers and prior draws. New cells, and the shared part of all cells, start
        from new prior draws.

        Args:
            state: The result of the other learner's `state_dict`.
            place: Where each cell was before (cells,); -1 for new cells.

        Raises:
            RuntimeError: If the other learner has another shape.
        """
        fresh = self.state_dict()
        network = self._network.moved_state_dict(state["network"], torch.from_numpy(place))
        self.load_state_dict(moved_state(fresh, state, network, place))
        self._heads = None

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Restore what `state_dict` or `policy_state_dict` returned.

        Raises:
            RuntimeError: If the state is of a learner of another shape.
        """
        if state["own"].shape != self._own.shape:
            raise RuntimeError(f"its heads are of shape {list(state['own'].shape)}, not {list(self._own.shape)}")
        self._network.load_state_dict(state["network"])
        self._heads = state["heads"].clone().to(self._device)
        self._prior = replace(self._prior, variance=state["variance"].clone(), noise=float(state["noise"]))
        self._common, self._own = state["common"].clone(), state["own"].clone()
        self._statistics = SufficientStatistics.from_state_dict(state["statistics"])
        mean, scale = map(float, state["units"])
        self.units = RewardUnits(mean, scale, float(state.get("limit", "inf")))
        if (counts := state.get("counts")) is not None:
            self._seen, self._included, self._frozen = counts["seen"], counts["included"], dict(counts["frozen"])
            self._noisiness, self._reference = state["noisiness"].clone(), float(state["reference"])
            self.half_life, self._last_half_life = map(float, state["half_lives"])
