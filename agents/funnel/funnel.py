"""The funnel of an agent: when it is fitted, what it chooses, and how it is stored."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

import numpy as np
import torch
from torch import Tensor

from crosschannel.agents.base import Observations
from crosschannel.agents.buffers.buffer import Buffer
from crosschannel.agents.funnel.calibration import Blend
from crosschannel.agents.funnel.design import Design
from crosschannel.agents.funnel.model import Fit, add_rows, fit_model, moved_heads, solve
from crosschannel.agents.funnel.policy import Slots, Votes, components, flat_prices, preferred_shares, vote
from crosschannel.agents.funnel.rows import FunnelRows, fold_of
from crosschannel.agents.funnel.values import Effects, Heads
from crosschannel.agents.linear.regression import RefitSchedule
from crosschannel.agents.sampling import expand_mask, uniform_shares
from crosschannel.agents.votes import ChannelVotes
from crosschannel.core.action_changes import select_present
from crosschannel.core.action_space import ActionSpace
from crosschannel.core.arrays import Float32Array
from crosschannel.core.errors import ConfigError

ROWS_PER_CHUNK = 1024
#: Rows for which the best estimate's preferences are found at once; a multiple of the others.
ROWS_OF_BEST = 8 * ROWS_PER_CHUNK
#: The model is fitted again when the rows have grown by this factor, and when no more come.
REFIT_GROWTH = 4.0


class Funnel:
    """Learns engagement, gain, direct effect and hazards of all actions from rows with components.

    Args:
        modules: All known actions.
        context_dim: Number of context features.
        members: Number of draws K from the posterior.
        seed: Seed of the draws.
    """

    def __init__(self, modules: ActionSpace, context_dim: int, members: int, seed: int) -> None:
        self._design = Design.build(modules, context_dim)
        self._members, self._seed = members, seed
        self._schedule = RefitSchedule(REFIT_GROWTH)
        self.heads: Heads | None = None
        self.fit: Fit | None = None
        self.cost_names: tuple[str, ...] = ()
        self.cost_weights: tuple[float, ...] = ()

    def learn(self, buffer: Buffer) -> dict[str, float]:
        """Fit the model to a buffer's rows if a fit is due; return how well it is calibrated, once there is a fit."""
        if buffer.funnel is not None and self._schedule.due(buffer.seen):
            self.cost_names, self.cost_weights = buffer.funnel.cost_names, buffer.funnel.cost_weights
            self._solve(fit_model(self._design, _rows(buffer), torch.tensor(self.cost_weights)))
        return self.calibration()

    def adopt(self, found: Fit, costs: Mapping[str, float]) -> None:
        """Take a fit that was made elsewhere, such as from sums over leaves, with the prices of its cost events."""
        self.cost_names, self.cost_weights = tuple(costs), tuple(costs.values())
        self._solve(found)

    @property
    def design(self) -> Design:
        """The columns of all effects."""
        return self._design

    def calibration(self) -> dict[str, float]:
        """Return how well the model is calibrated, once there is a fit."""
        if self.heads is None:
            return {}
        blend = self.heads.blend
        return {
            "calibration_slope": blend.slope,
            "calibration_slope_se": blend.slope_se,
            "weight_of_funnel": blend.funnel,
            "weight_of_all_sends": blend.all_sends,
            "weight_of_missed": blend.missed,
            "weight_of_personal": blend.personal,
        }

    def extend(self, buffer: Buffer) -> None:
        """Add a buffer's rows to the fit, and solve for the coefficients; everything else stays as it was fitted.

        Raises:
            ConfigError: If the model has no fit, or its cost events are not those of the rows.
        """
        found = self._fitted()
        if buffer.funnel is None or buffer.funnel.cost_names != self.cost_names:
            raise ConfigError(f"the rows do not have the funnel's cost events: {', '.join(self.cost_names) or 'none'}")
        self._solve(add_rows(self._design, found, _rows(buffer), torch.tensor(self.cost_weights)))

    def _fitted(self) -> Fit:
        if self.fit is None:
            raise ConfigError("the funnel has no fit to which rows can be added: fit it to rows first (`update`)")
        return self.fit

    def fit_state_dict(self) -> dict[str, Any]:
        """Return the sums of the last fit, and all else that adding rows needs.

        Raises:
            ConfigError: If there is no fit.
        """
        return self._fitted().state_dict()

    def load_fit_state_dict(self, state: Mapping[str, Any]) -> None:
        """Restore what `fit_state_dict` returned, beside the heads that `load_state_dict` restored."""
        self.fit = Fit.from_state_dict(state)

    def _solve(self, found: Fit | None) -> None:
        if found is not None:
            generator = torch.Generator().manual_seed(self._seed)
            self.fit, self.heads = found, solve(self._design, found, self._members, generator)

    def votes(
        self, modules: ActionSpace, observations: Observations, matrix: Tensor | None, floors: Sequence[float]
    ) -> ChannelVotes:
        """Return what mixtures of the members vote at N slots, by a matrix (L, K); the best estimate without one."""
        n, mask = len(observations), modules.feasible_mask(observations.action_mask)
        voters = 1 if matrix is None else len(matrix)
        values = np.zeros((voters, n, modules.sizes[0]), dtype=np.float32)
        hazards = np.zeros((len(self.cost_names), n, modules.sizes[0]))
        later = uniform_shares(modules, observations.action_mask)[1:]
        may_send = np.flatnonzero(mask[:, 1 : modules.sizes[0]].any(1))
        for start in range(0, len(may_send), ROWS_PER_CHUNK):
            rows = may_send[start : start + ROWS_PER_CHUNK]
            if start % ROWS_OF_BEST == 0:  # one voter's arrays stay in the cache for more rows at once
                many = may_send[start : start + ROWS_OF_BEST]
                preferred = preferred_shares(*self._at(modules, observations[many], mask[many], None, True), floors)
            place = slice(start % ROWS_OF_BEST, start % ROWS_OF_BEST + len(rows))
            known = [share[:, place] for share in preferred]
            found, voting = self._vote(modules, observations[rows], mask[rows], matrix, floors, preferred=known)
            values[:, rows] = found.channel[voting].transpose(1, 2).numpy()
            hazards[:, rows] = found.hazards.transpose(1, 2).numpy()
            for m, (out, share) in enumerate(zip(later, found.shares, strict=True), 1):
                out[rows] = share.numpy().T.reshape(len(rows), *modules.shape(m))
        first = mask[:, modules.slices[0]]
        return ChannelVotes(
            modules=modules,
            values=values,
            hazards=hazards,
            cost_names=self.cost_names,
            mask=first,
            later=tuple(later),
            floor=floors[0],
        )

    def _vote(
        self,
        modules: ActionSpace,
        chunk: Observations,
        mask: np.ndarray[Any, Any],
        matrix: Tensor | None,
        floors: Sequence[float],
        best_only: bool = True,
        preferred: Sequence[Tensor] | None = None,
    ) -> tuple[Votes, slice]:
        best_only = best_only and matrix is None
        slots, heads, effects = self._at(modules, chunk, mask, matrix, best_only)
        voters = slice(1, None) if effects.voters > 1 else slice(None)
        return vote(slots, heads, effects, floors, preferred), voters

    def _at(
        self,
        modules: ActionSpace,
        chunk: Observations,
        mask: np.ndarray[Any, Any],
        matrix: Tensor | None = None,
        best_only: bool = False,
    ) -> tuple[Slots, Heads, Effects]:
        """Return a chunk of slots, the heads of the present actions, and their effects there."""
        assert self.heads is not None  # callers ask first
        heads = self.heads
        x = _contexts(chunk)
        if best_only:
            heads = heads.best()
        effects = self._effects(modules, heads, x, matrix)
        eligible = tuple(
            torch.from_numpy(
                np.ascontiguousarray(expand_mask(modules, m, part).reshape(len(chunk), modules.n_table_cells(m)).T)
            )
            for m, part in enumerate(modules.split(mask))
        )
        slots = Slots(modules, eligible, torch.tensor(self.cost_weights), flat_prices(modules, chunk.action_prices))
        return slots, heads.of_present(_present(self._design.modules, modules)[0]), effects

    def _effects(
        self, modules: ActionSpace, heads: Heads, x: Tensor, matrix: Tensor | None = None, blend: Blend | None = None
    ) -> Effects:
        known = self._design.modules
        present = None if modules == known else _present(known, modules)
        return Effects.build(self._design, heads, x, matrix, blend=blend, present=present)

    def expected_rewards(
        self, modules: ActionSpace, observations: Observations, floors: Sequence[float]
    ) -> list[Float32Array]:
        """Return the members' values of each module's actions, (K, N, *shape(m)), at the policy's mean over the others.

        Of the first module they are values of the action; of a later one, of the message with it.
        """
        parts: list[list[Float32Array]] = [[] for _ in modules]
        for start in range(0, max(len(observations), 1), ROWS_PER_CHUNK):
            chunk = observations[start : start + ROWS_PER_CHUNK]
            mask = modules.feasible_mask(chunk.action_mask)
            found, _ = self._vote(modules, chunk, mask, None, floors, best_only=False)
            for m, values in enumerate((found.channel, *found.later)):
                each = values[1:].transpose(1, 2).contiguous().numpy()
                parts[m].append(each.reshape(len(each), len(chunk), *modules.shape(m)))
        return [np.concatenate(part, axis=1) for part in parts]

    def components(
        self, modules: ActionSpace, observations: Observations, floors: Sequence[float]
    ) -> dict[str, list[Float32Array]]:
        """Return the members' components of each module's actions, (K, N, *shape(m)) per module, by name.

        They are `engagement`, `gain` (of those who engage), `direct` (the effect on the others) and `hazard_<event>` of
        each cost event, beyond what happens without a message; all of them at the policy's mean over the other modules.
        NaN for sending nothing; engagement and gain are NaN where the log does not tell who engages.
        """
        names = ("engagement", "gain", "direct", *(f"hazard_{event}" for event in self.cost_names))
        parts: list[list[Float32Array]] = [[] for _ in modules]
        for start in range(0, max(len(observations), 1), ROWS_PER_CHUNK):
            chunk = observations[start : start + ROWS_PER_CHUNK]
            slots, heads, effects = self._at(modules, chunk, modules.feasible_mask(chunk.action_mask))
            alone = replace(heads.blend, funnel=1.0, all_sends=0.0)
            direct = self._effects(modules, heads, _contexts(chunk), blend=alone)
            for m, found in enumerate(components(slots, heads, effects, direct, floors)):
                each = found[:, 1:].transpose(2, 3).contiguous().numpy()
                parts[m].append(each.reshape(*each.shape[:3], *modules.shape(m)))
        joined = [np.concatenate(part, axis=2) for part in parts]
        return {name: [part[place] for part in joined] for place, name in enumerate(names)}

    def state_dict(self) -> dict[str, Any]:
        """Return the model and when it was fitted."""
        return {
            "heads": None if self.heads is None else self.heads.state_dict(),
            "cost_names": list(self.cost_names),
            "cost_weights": list(self.cost_weights),
            "schedule": self._schedule.state_dict(),
        }

    def load_state_dict(self, state: Mapping[str, Any], before: ActionSpace) -> None:
        """Restore what `state_dict` returned of a model that knew other actions; new ones start from their labels.

        Raises:
            ValueError: If the model is of another shape.
        """
        self.cost_names = tuple(state["cost_names"])
        self.cost_weights = tuple(map(float, state["cost_weights"]))
        self._schedule.load_state_dict(state["schedule"])
        saved = state["heads"]
        if saved is None:
            self.heads = None
            return
        heads = Heads.from_state_dict(saved)
        if before != self._design.modules:
            generator = torch.Generator().manual_seed(self._seed)
            heads = moved_heads(heads, Design.build(before, self._design.width), self._design, generator)
        expected = (len(heads.value), 1 + self._members, self._design.columns)
        if heads.value.shape != expected:
            raise ValueError(f"its heads have the shape {list(heads.value.shape)}, not {list(expected)}")
        self.heads = heads


def _rows(buffer: Buffer) -> FunnelRows:
    users = buffer["user"].numpy()
    code = torch.from_numpy(np.unique(users, return_inverse=True)[1].astype(np.int64))
    return FunnelRows(
        x=buffer["context"],
        actions=buffer["actions"].long().numpy(),
        reward=buffer["reward"],
        engaged=buffer["engaged"],
        value=buffer["value"],
        cost=buffer["cost"],
        odds=buffer["odds"],
        fold=fold_of(users.view(np.uint64)),
        user=code,
        key=buffer["key"],
    )


def _contexts(observations: Observations) -> Tensor:
    return torch.from_numpy(np.ascontiguousarray(observations.context, dtype=np.float32))


def _present(known: ActionSpace, modules: ActionSpace) -> list[Tensor]:
    """Return the cells of each module's present actions among those that are known."""
    found = (select_present(np.arange(known.n_table_cells(m)), known, modules, m) for m in range(len(known)))
    return [torch.from_numpy(cells.reshape(-1)) for cells in found]
