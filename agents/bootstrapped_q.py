"""Bootstrapped Q-learning over a user's slots: what a decision is worth with all that it means for later ones."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import torch
from torch import Tensor

from crosschannel.agents.base import DECIDES_ONLY, Batch, Observations
from crosschannel.agents.buffers.buffer import check_batch, precision, usual
from crosschannel.agents.buffers.transitions import Transitions
from crosschannel.agents.ensemble.learner import MOST_MEMBERS, signs
from crosschannel.agents.ensemble.noise import learn_noise, noise_factor, row_weights, some_rows
from crosschannel.agents.linear import carried_sums, check_width, effect_scales, estimates, sums_by_module
from crosschannel.agents.policy import Voting
from crosschannel.agents.regression import Prior, Sums, fit, moments
from crosschannel.agents.sampling import FLOOR, Floor
from crosschannel.agents.schedule import Schedule
from crosschannel.core.action_changes import carried, design, known_actions, places
from crosschannel.core.action_space import ActionSpace
from crosschannel.core.arrays import FloatArray
from crosschannel.core.errors import ConfigError, Fault, InputError
from crosschannel.core.serialization import generator_state, restore_generator

GROWTH = 1.3
BLOCK = 65_536


@dataclass(frozen=True)
class BootstrappedQConfig:
    """Settings of `bootstrapped_q`.

    Attributes:
        discount: What a reward one slot later counts (gamma); 0 looks no further than the slot.
        members: Members of the ensemble (K), at most 64.
        units: Random features beside the context.
        sweeps: Iterations of fitted Q at each fit; later fits go on from where earlier ones ended.
        spread: How far the members that vote stray from the best estimate, in their own deviations.
        effect_scale: Plausible effect of an action in standard deviations of the reward: where the prior begins, whose
            scale is learned.
        precision_cap: Largest weight of a row by its precision 1/se^2, in multiples of that at the first rows' median.
        floor: Share of decisions that are drawn uniformly from the eligible actions: one number, or one by module's
            name.
    """

    discount: float = 0.9
    members: int = 10
    units: int = 0
    sweeps: int = 10
    spread: float = 0.25
    effect_scale: float = 0.1
    precision_cap: float = 4.0
    floor: Floor = FLOOR

    def __post_init__(self) -> None:
        for name in ("members", "sweeps"):
            if getattr(self, name) < 1:
                raise ConfigError(f"{name} is {getattr(self, name)}: it must be at least 1")
        if self.members > MOST_MEMBERS:
            raise ConfigError(f"members is {self.members}: it must be at most {MOST_MEMBERS}, the bits of a hash")
        if not 0.0 <= self.discount < 1.0:
            raise ConfigError(f"discount is {self.discount}: it must be at least 0 and below 1")
        for name in ("units", "spread"):
            if not getattr(self, name) >= 0:
                raise ConfigError(f"{name} is {getattr(self, name)}: it must not be negative")
        for name in ("effect_scale", "precision_cap"):
            if not getattr(self, name) > 0:
                raise ConfigError(f"{name} is {getattr(self, name)}: it must be positive")


class BootstrappedQ(Voting):
    r"""K members' estimates of the discounted incremental reward of an action and of all that follows it.

    .. math::
        q_k(x, a) = \phi(x)^\top \theta_{ka} \approx r + \epsilon_k \sigma \sqrt{v / p}
        + \gamma^{\Delta} \, q_k(x', \arg\max_b q_0(x', b)), \qquad \phi(x) = [1, x, \max(0, W x + c)]

    x' is the user's next slot, :math:`\Delta` slots later. Coefficients are solved in closed form, with the targets
    iterated (fitted Q: Ernst, Geurts & Wehenkel 2005, "Tree-based batch mode reinforcement learning", JMLR). Member k
    sees rewards to which the signs :math:`\epsilon_k = \pm 1` add a row's noise, where p is its precision and its
    context is v times as noisy as usual (`agents.noise`), and is pulled towards a prior draw of its own, so that
    members differ as the posterior does (Osband, Blundell, Pritzel & Van Roy 2016, "Deep exploration via bootstrapped
    DQN", NeurIPS; the signs are the wild bootstrap of Wu 1986, Annals of Statistics): no row is dropped, and all
    members share one factorisation. They are centred on the best estimate :math:`q_0`, that of the rewards as they
    are. It chooses the following action and each member values it, which keeps a member's noise from looking like
    value (van Hasselt 2010, "Double Q-learning", NeurIPS).

    What follows is the first module's doing, in which sending nothing competes: how tired a user is depends on whether
    and on which channel something was sent. The other modules learn from the rewards of what was sent, and leave the
    noise of all that came later aside; an effect of content that outlasts the reward's window is not seen. Rows of
    which it is not known what follows (no next observation, and not terminal) are left out.

    Args:
        modules: What can be chosen.
        context_dim: Context features; they come standardised.
        config: Settings.
        seed: Seed of the random features, the prior draws, the hashed signs and the draws of actions.
        device: Not used: it computes on the CPU in float64.
    """

    def __init__(
        self,
        modules: ActionSpace,
        context_dim: int,
        config: BootstrappedQConfig | None = None,
        seed: int = 0,
        device: str = "cpu",  # noqa: ARG002
    ) -> None:
        self.config = config or BootstrappedQConfig()
        super().__init__(modules, seed, self.config.floor, self.config.spread)
        self._context_dim, self._seed = context_dim, seed
        self._known = modules
        self._priors = np.random.default_rng([seed, 2])
        units = self.config.units
        self._layer = torch.from_numpy(self._priors.standard_normal((context_dim + 1, units)))
        self._layer[1:] *= math.sqrt(1.0 / max(context_dim, 1))
        self._width = 1 + context_dim + units
        self._scales = [self.config.effect_scale] * len(modules)
        self._starts = [self._draw_start(modules.n_table_cells(m)) for m in range(len(modules))]
        self._coefficients = [start * self.config.effect_scale for start in self._starts]
        self._rows = Transitions.empty(context_dim, modules)
        self._new: list[Transitions] = []
        self._seen = 0
        self._schedule = Schedule(GROWTH)
        self._reference = 0.0
        self._noisiness = torch.zeros(context_dim)
        self._value = 0.0
        self._learns = True
        width = self._width
        self._sums = [Sums.nothing(modules.n_table_cells(m), width) for m in range(len(modules))]
        self._moments = [torch.zeros(1 + self.config.members, *sums.moment.shape).double() for sums in self._sums]
        self._sigma = 1.0

    def _draw_start(self, cells: int) -> Tensor:
        """Prior draws (1 + K, cells, F) in standard deviations of the prior; 0 for the best estimate."""
        drawn = torch.from_numpy(self._priors.standard_normal((self.config.members, cells, self._width)))
        return torch.cat([torch.zeros_like(drawn[:1]), drawn])

    def _phi(self, context: Tensor) -> Tensor:
        x = 1 + self._context_dim
        phi = torch.empty(len(context), self._width, dtype=torch.float64)
        phi[:, 0], phi[:, 1:x] = 1.0, context
        phi[:, x:] = (phi[:, :x] @ self._layer).relu_()
        return phi

    def expected_rewards(self, observations: Observations) -> list[FloatArray]:
        """The members' estimates, (K, N, *shape(m)) a module, in reward units.

        Of the first module what an action gains over sending nothing now, later gains and losses included, discounted;
        of the others the reward.
        """
        phi = self._phi(torch.from_numpy(np.asarray(observations.context)))
        first, *others = estimates(phi, [each[1:] for each in self._coefficients], self._known, self.modules)
        return [first - first[..., :1], *others]

    def observe(self, batch: Batch) -> None:
        """Takes in executed actions, their rewards and what followed.

        Raises:
            InputError: If a row cannot be learned from; nothing is kept then.
            ConfigError: If contexts are of another width, it was not handed over what followed, or the agent was opened
                to decide only.
        """
        if not self._learns:
            raise ConfigError(DECIDES_ONLY)
        check_batch(batch, self.modules)
        check_width(batch.observations, self._context_dim)
        if batch.next_observations is None or batch.steps_to_next is None or batch.terminal is None:
            raise ConfigError(
                "bootstrapped_q learns from what follows a decision: hand over `next_observations`, `steps_to_next` "
                "and `terminal` in the batch"
            )
        check_width(batch.next_observations, self._context_dim)
        steps, known = batch.steps_to_next, batch.terminal | ~np.isnan(batch.steps_to_next)
        finite = np.isfinite(batch.next_observations.context).all(1)
        wrong = known & ~batch.terminal & ~((steps > 0) & np.isfinite(steps) & finite)
        if wrong.any():
            row = int(wrong.argmax())
            remedy = "Slots to the next observation are 1 or more; where there is none they are NaN."
            problem = "is not above 0, or the next observation has a feature that is not a finite number"
            raise InputError(
                [Fault("batch", problem, remedy, "steps_to_next", row + 1, float(steps[row]), int(wrong.sum()))]
            )
        batch = batch[known]
        if len(batch) == 0:
            return
        if self._seen == 0:
            self._reference = usual(batch.se)
        weight = precision(batch.se, self._reference, self.config.precision_cap)
        self._new.append(Transitions.of(batch, self._known, self.modules, weight, self.config.discount))
        self._seen += len(batch)

    def update(self, steps: int = 1) -> dict[str, float]:
        """Iterates fitted Q on all rows where that is due.

        Returns:
            The mean discounted value of what follows a decision, in reward units.
        """
        if steps < 1 or self._seen == 0:
            return {}
        if self._schedule.due(self._seen):
            self._gather()
            self._fit()
        return {"value": self._value}

    def _gather(self) -> None:
        """Puts the rows that came since the last time to the others."""
        self._rows, self._new = Transitions.joined([self._rows, *self._new]), []

    def _blocks(self) -> list[slice]:
        return [slice(start, start + BLOCK) for start in range(0, len(self._rows), BLOCK)]

    def _weights(self, factor: Tensor) -> Tensor:
        """Weights (n,) of all rows: precision, and less where rewards are usually noisy."""
        return row_weights(self._rows.weight, factor, self.config.precision_cap)

    def _fit(self) -> None:
        factor = noise_factor(self._rows.context, self._noisiness)
        weight = self._weights(factor)
        sums, noise = self._rewards(weight, (factor / self._rows.weight).sqrt())
        self._scales = effect_scales(self._known, sums, self._scales, self.config.effect_scale)
        sigma = float(sums[0].variance().sqrt())
        rewards = [
            each.moment + sigma * torch.cat([torch.zeros_like(more[:1]), more])
            for each, more in zip(sums, noise, strict=True)
        ]
        self._sums, self._moments, self._sigma = sums, list(rewards), sigma
        self._coefficients[1:] = [self._solve(m) for m in range(1, len(sums))]
        for _ in range(self.config.sweeps if self.config.discount > 0 else 1):
            self._moments[0] = rewards[0] + self._later(weight)
            self._coefficients[0] = self._solve(0)
        some = self._rows[some_rows(len(self._rows))]
        later, cell = self._next_values(some)[0], self._cells(some)
        error = some.reward + later - (self._phi(some.context) * self._coefficients[0][0, cell]).sum(1)
        self._noisiness = learn_noise(some.context, error.square() * some.weight)
        self._value = float(later.mean())

    def _cells(self, rows: Transitions) -> Tensor:
        """Which cell of the first module each row belongs to (n,)."""
        return torch.from_numpy(self._known.table_cell(0, rows.actions.numpy().astype(np.int64)))

    def _rewards(self, weights: Tensor, deviations: Tensor) -> tuple[list[Sums], list[Tensor]]:
        """Each module's sums of the rewards, and its products of features and unit noise (K, cells, F).

        Args:
            weights: The rows' weights (n,).
            deviations: How far their rewards stray, in standard deviations of a usual one (n,).
        """
        known = self._known
        sums = [Sums.nothing(known.n_table_cells(m), self._width) for m in range(len(known))]
        noise = [torch.zeros(self.config.members, *each.moment.shape, dtype=torch.float64) for each in sums]
        for block in self._blocks():
            rows, weight = self._rows[block], weights[block]
            phi, actions = self._phi(rows.context), rows.actions.numpy().astype(np.int64)
            new = sums_by_module(known, phi, actions, rows.reward.numpy(), weight.numpy())
            sums = [a.plus(b) for a, b in zip(sums, new, strict=True)]
            keys = rows.key.numpy().view(np.uint64)
            weighted = signs(keys, self.config.members, self._seed).double().t() * weight * deviations[block]
            sent = torch.from_numpy(known.sends(actions))
            for m, total in enumerate(noise):
                cell = torch.from_numpy(known.table_cell(m, actions))
                columns = (phi, cell, weighted) if m == 0 else (phi[sent], cell[sent], weighted[:, sent])
                total += moments(*columns, cells=known.n_table_cells(m))
        return sums, noise

    def _later(self, weights: Tensor) -> Tensor:
        """Products of the first module's features and what follows (1 + K, cells, F), for rows of weights (n,)."""
        parts = []
        for block in self._blocks():
            rows = self._rows[block]
            weighted = self._next_values(rows) * weights[block]
            parts.append(
                moments(self._phi(rows.context), self._cells(rows), weighted, cells=self._known.n_table_cells(0))
            )
        return torch.stack(parts).sum(0)

    def _solve(self, m: int) -> Tensor:
        """Coefficients (1 + K, cells, F), the members' pulled towards their prior draws and centred."""
        sums = self._sums[m]
        prior = Prior.of(torch.from_numpy(design(self._known, m)), self._width, self._scales[m])
        start = self._starts[m] * prior.own.sqrt() * self._sigma
        rest = self._moments[m] - (sums.gram @ start.unsqueeze(-1)).squeeze(-1)
        found = start + fit(replace(sums, moment=rest), prior).mean
        k = self.config.members
        deviations = (found[1:] - found[1:].mean(0)) * math.sqrt(k / max(k - 1, 1))
        return torch.cat([found[:1], found[:1] + deviations])

    def _next_values(self, rows: Transitions) -> Tensor:
        """Discounted values (1 + K, n) of what follows each row: the best estimate's action, valued by each."""
        values = self._phi(rows.next_context) @ self._coefficients[0].transpose(1, 2)
        # A retired action is not worth waiting for.
        present = torch.arange(values.shape[-1]) < self.modules.sizes[0]
        best = values[0].masked_fill(~(rows.open & present), -math.inf).argmax(1).expand(len(values), -1)
        return values.gather(2, best.unsqueeze(-1)).squeeze(-1) * rows.factor

    def state_dict(self) -> dict[str, Any]:
        """Coefficients, prior draws and rows of all actions ever known, and every random state.

        Raises:
            ConfigError: If the agent was opened to decide only.
        """
        if not self._learns:
            raise ConfigError(DECIDES_ONLY)
        self._gather()
        return self.policy_state_dict() | {
            "rows": dict(vars(self._rows)),
            "schedule": self._schedule.state_dict(),
            "reference": self._reference,
            "noisiness": self._noisiness.clone(),
            "value": self._value,
        }

    def policy_state_dict(self) -> dict[str, Any]:
        """Coefficients, prior draws and the sums that coefficients were last solved from; no rows."""
        return super().state_dict() | {
            "known": self._known.to_dict(),
            "layer": self._layer.clone(),
            "starts": list(self._starts),
            "scales": list(self._scales),
            "coefficients": list(self._coefficients),
            "sums": [dict(vars(sums)) for sums in self._sums],
            "moments": list(self._moments),
            "sigma": self._sigma,
            "priors": generator_state(self._priors),
        }

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """The inverse of `state_dict`, also where the set of actions has changed since: then it is fitted anew.

        From the state of a policy the agent decides, but cannot learn on; where actions have changed, coefficients are
        solved anew from the sums, with what follows valued as before.

        Raises:
            ConfigError: If the state belongs to an agent of another shape, or of other modules.
        """
        before = ActionSpace.from_dict(state["known"])
        known = known_actions(self.modules, before)
        shape = tuple(state["starts"][0].shape)
        if (shape[0] - 1, shape[2]) != (self.config.members, self._width):
            raise ConfigError(
                f"the state is of an agent of another shape: {shape[0] - 1} members and {shape[2]} features, not "
                f"{self.config.members} and {self._width}"
            )
        super().load_state_dict(state)
        restore_generator(self._priors, state["priors"])
        self._known, self._learns = known, "rows" in state
        self._layer, self._scales, self._sigma = state["layer"].clone(), list(state["scales"]), float(state["sigma"])
        self._starts, self._coefficients = list(state["starts"]), list(state["coefficients"])
        self._sums = [carried_sums(saved, before, known, m) for m, saved in enumerate(state["sums"])]
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
            elif float(self._sums[0].weight) > 0:
                self._coefficients = [self._solve(m) for m in range(len(known))]

    def _move(self, before: ActionSpace, known: ActionSpace) -> None:
        """Puts all that has a place for each cell where the cells now are; new ones begin with a prior draw."""

        def along(values: Tensor, place: Any, fresh: Tensor) -> Tensor:
            moved = carried(values.transpose(0, 1).numpy(), place, fresh.transpose(0, 1).numpy())
            return torch.from_numpy(np.ascontiguousarray(np.swapaxes(moved, 0, 1)))

        for m in range(len(known)):
            place, start = places(before, known, m), self._draw_start(known.n_table_cells(m))
            self._starts[m] = along(self._starts[m], place, start)
            self._coefficients[m] = along(self._coefficients[m], place, start * self.config.effect_scale)
            self._moments[m] = along(self._moments[m], place, torch.zeros_like(start))
        self._rows = self._rows.moved(before, known)
