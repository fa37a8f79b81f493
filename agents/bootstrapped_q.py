"""Bootstrapped Q-learning over a user's slots: what a decision is worth with all that it means for later ones."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor

from agents.actions import carried, design, known_actions, places, shown
from agents.base import Batch, Float32Array, Observations, UIntArray
from agents.buffer import check_batch
from agents.choice import FLOOR, Floor
from agents.linear import check_width, effect_scales, sums_by_module
from agents.policy import Voting
from agents.randomness import generator_state, restore_generator
from agents.regression import Prior, Sums, fit, moments
from agents.schedule import Schedule
from agents.transitions import Transitions
from histories.errors import ConfigError, Fault, InputError
from histories.hashing import mix, uniforms
from histories.modules import FloatArray, Modules

GROWTH = 1.3
BLOCK = 65_536


def bootstrap_weights(keys: UIntArray, members: int, seed: int) -> Float32Array:
    """Exponential weights of mean 1 (K, n) that depend on nothing but a decision's key (n,), the member and the seed.

    The Bayesian bootstrap (Rubin 1981) in place of resampling: no row is dropped, and restarts, shuffles and other
    machines find the same weights.
    """
    codes = mix(np.arange(members, dtype=np.uint64))
    return -np.log(uniforms(keys[None, :] ^ codes[:, None], seed)).astype(np.float32)


@dataclass(frozen=True)
class BootstrappedQConfig:
    """Settings of `bootstrapped_q`.

    Attributes:
        discount: What a reward one slot later counts (gamma); 0 looks no further than the slot.
        members: Members of the ensemble (K).
        units: Random features beside the context.
        sweeps: Iterations of fitted Q at each fit; later fits go on from where earlier ones ended.
        spread: How far the members that vote stray from the ensemble's mean, in their own deviations.
        effect_scale: Plausible effect of an action in standard deviations of the reward: where the prior begins, whose
            scale is learned.
        precision_cap: Largest weight of a row by its precision 1/se^2, in multiples of that at the first rows' median.
        floor: Share of decisions that are drawn uniformly from the eligible actions: one number, or one by module's
            name.
    """

    discount: float = 0.9
    members: int = 10
    units: int = 32
    sweeps: int = 10
    spread: float = 0.5
    effect_scale: float = 0.1
    precision_cap: float = 4.0
    floor: Floor = FLOOR

    def __post_init__(self) -> None:
        for name in ("members", "sweeps"):
            if getattr(self, name) < 1:
                raise ConfigError(f"{name} is {getattr(self, name)}: it must be at least 1")
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
        q_k(x, a) = \phi(x)^\top \theta_{ka} \approx r + \gamma^{\Delta} \, q_k(x', \arg\max_b \bar q(x', b)),
        \qquad \phi(x) = [1, x, \max(0, W x + w)]

    x' is the user's next slot, :math:`\Delta` slots later. Each member's coefficients are solved in closed form from
    bootstrap-weighted rows and pulled towards prior draws of its own (Osband, Blundell, Pritzel & Van Roy 2016, "Deep
    exploration via bootstrapped DQN", NeurIPS), with the targets iterated (fitted Q: Ernst, Geurts & Wehenkel 2005,
    JMLR). The members' mean chooses the following action and each member values it, which keeps noise from looking
    like value (van Hasselt 2010, "Double Q-learning", NeurIPS).

    The value of what follows is that of the first module, in which sending nothing competes; every module learns from
    the same targets. Rows of which it is not known what follows (`Batch.elapsed` is NaN) are left out.

    Args:
        modules: What can be chosen.
        context_dim: Context features; they come standardised.
        config: Settings.
        seed: Seed of the random features, the prior draws, the bootstrap weights and the draws of actions.
        device: Not used: it computes on the CPU in float64.
    """

    def __init__(
        self,
        modules: Modules,
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
        self._starts = [self._draw_start(modules.cells(m)) for m in range(len(modules))]
        self._coefficients = [start.clone() for start in self._starts]
        k = self.config.members
        self._sums = [Sums.nothing(modules.cells(m), self._width, k) for m in range(len(modules))]
        self._rows = Transitions.empty(context_dim, modules)
        self._new: list[Transitions] = []
        self._seen = 0
        self._schedule = Schedule(GROWTH)
        self._reference = 0.0
        self._value = 0.0

    def _draw_start(self, cells: int) -> Tensor:
        """The members' prior draws (K, cells, F), in standard deviations of the prior."""
        return torch.from_numpy(self._priors.standard_normal((self.config.members, cells, self._width)))

    def _phi(self, context: Float32Array) -> Tensor:
        x = torch.from_numpy(np.asarray(context, dtype=np.float64))
        x = torch.cat([torch.ones(len(x), 1, dtype=torch.float64), x], 1)
        return torch.cat([x, (x @ self._layer).relu_()], 1)

    def expected_rewards(self, observations: Observations) -> list[FloatArray]:
        """The members' estimates of what an action gains over sending nothing now, (K, N, *shape(m)) a module.

        Later gains and losses are included, discounted; in reward units.
        """
        phi = self._phi(observations.context)
        nothing = phi @ self._coefficients[0][:, 0].T
        out = []
        for m, each in enumerate(self._coefficients):
            gain = phi @ each.transpose(1, 2) - nothing.T[:, :, None]
            out.append(shown(gain.numpy(), self._known, self.modules, m))
        return out

    def observe(self, batch: Batch) -> None:
        """Takes in executed actions, their rewards and what followed.

        Raises:
            InputError: If a row cannot be learned from; nothing is kept then.
            ConfigError: If contexts are of another width, or it was not handed over what followed.
        """
        check_batch(batch, self.modules)
        check_width(batch.observations, self._context_dim)
        if batch.following is None or batch.elapsed is None:
            raise ConfigError(
                "bootstrapped_q learns from what follows a decision: hand over `following` and `elapsed` in the batch"
            )
        check_width(batch.following, self._context_dim)
        wrong = (batch.elapsed < 0) | ((batch.elapsed > 0) & ~np.isfinite(batch.following.context).all(1))
        if wrong.any():
            row = int(wrong.argmax())
            remedy = "Slots to the next observation are 1 or more, 0 if the user is gone, NaN if the log ends."
            problem = "is negative, or what follows has a feature that is not a finite number"
            value = float(batch.elapsed[row])
            raise InputError([Fault("batch", problem, remedy, "elapsed", row + 1, value, int(wrong.sum()))])
        batch = batch[~np.isnan(batch.elapsed)]
        if len(batch) == 0:
            return
        if self._seen == 0:
            self._reference = float(np.median(np.square(batch.se)))
        weight = np.minimum(self._reference / np.square(batch.se), self.config.precision_cap)
        new = Transitions.of(batch, self._known, self.modules, weight, self.config.discount)
        sums = sums_by_module(
            self._known,
            self._phi(batch.observations.context),
            batch.actions,
            batch.rewards,
            self._weights(new, slice(None)),
        )
        self._sums = [a.plus(b) for a, b in zip(self._sums, sums, strict=True)]
        self._new.append(new)
        self._seen += len(new)

    def _weights(self, rows: Transitions, part: slice) -> FloatArray:
        """Weights (K, n): bootstrap times precision."""
        keys = rows.key[part].numpy().view(np.uint64)
        weights = bootstrap_weights(keys, self.config.members, self._seed).astype(np.float64)
        return np.asarray(weights * rows.weight[part].numpy())

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

    def _fit(self) -> None:
        self._scales = effect_scales(self._known, self._sums, self._scales, self.config.effect_scale)
        noise = float(self._sums[0].variance().mean().sqrt())
        blocks = [slice(start, start + BLOCK) for start in range(0, len(self._rows), BLOCK)]
        for _ in range(self.config.sweeps if self.config.discount > 0 else 1):
            later = [torch.zeros_like(sums.moment) for sums in self._sums]
            for part in blocks:
                rows = self._rows
                weighted = self._following_values(part) * torch.from_numpy(self._weights(rows, part))
                phi, actions = self._phi(rows.context[part].numpy()), rows.actions[part].numpy().astype(np.int64)
                sent = torch.from_numpy(self._known.sent(actions))
                for m, total in enumerate(later):
                    cell = torch.from_numpy(self._known.cell(m, actions))
                    columns = (phi, cell, weighted) if m == 0 else (phi[sent], cell[sent], weighted[:, sent])
                    total += moments(*columns, cells=self._known.cells(m))
            self._coefficients = [
                self._solve(m, sums.moment + more, noise)
                for m, (sums, more) in enumerate(zip(self._sums, later, strict=True))
            ]
        some = slice(max(len(self._rows) - BLOCK, 0), None)
        self._value = float(self._following_values(some).mean())

    def _solve(self, m: int, moment: Tensor, noise: float) -> Tensor:
        """The members' coefficients (K, cells, F), pulled towards their prior draws."""
        prior = Prior.of(torch.from_numpy(design(self._known, m)), self._width, self._scales[m])
        sums, start = self._sums[m], self._starts[m] * prior.own.sqrt() * noise
        rest = moment - (sums.gram @ start.unsqueeze(-1)).squeeze(-1)
        return start + fit(Sums(sums.gram, rest, sums.weight, sums.total, sums.square), prior).mean

    def _following_values(self, part: slice) -> Tensor:
        """Discounted values (K, n) of what follows each row: the mean's best action, valued by each member."""
        values = self._phi(self._rows.following[part].numpy()) @ self._coefficients[0].transpose(1, 2)
        # A retired action is not worth waiting for.
        present = torch.arange(values.shape[-1]) < self.modules.sizes[0]
        mean = values.mean(0).masked_fill(~(self._rows.open[part] & present), -math.inf)
        best = mean.argmax(1).expand(len(values), -1)
        return values.gather(2, best.unsqueeze(-1)).squeeze(-1) * self._rows.factor[part]

    def state_dict(self) -> dict[str, Any]:
        """Coefficients, prior draws, sums and rows of all actions ever known, and every random state."""
        self._gather()
        return super().state_dict() | {
            "known": self._known.to_dict(),
            "layer": self._layer.clone(),
            "starts": list(self._starts),
            "scales": list(self._scales),
            "coefficients": list(self._coefficients),
            "sums": [dict(vars(sums)) for sums in self._sums],
            "rows": dict(vars(self._rows)),
            "priors": generator_state(self._priors),
            "schedule": self._schedule.state_dict(),
            "reference": self._reference,
            "value": self._value,
        }

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """The inverse of `state_dict`, also where the set of actions has changed since: then it is fitted anew.

        Raises:
            ConfigError: If the state belongs to an agent of another shape, or of other modules.
        """
        before = Modules.from_dict(state["known"])
        known = known_actions(self.modules, before)
        shape = tuple(state["starts"][0].shape)
        if (shape[0], shape[2]) != (self.config.members, self._width):
            raise ConfigError(
                f"the state is of an agent of another shape: {shape[0]} members and {shape[2]} features, not "
                f"{self.config.members} and {self._width}"
            )
        super().load_state_dict(state)
        restore_generator(self._priors, state["priors"])
        self._schedule.load_state_dict(state["schedule"])
        self._reference, self._value = float(state["reference"]), float(state["value"])
        self._layer = state["layer"].clone()
        self._known = known
        self._rows, self._new = Transitions(**state["rows"]), []
        self._seen = len(self._rows)
        self._starts, self._coefficients = list(state["starts"]), list(state["coefficients"])
        self._scales = list(state["scales"])
        self._sums = [Sums(**saved) for saved in state["sums"]]
        if known != before:
            self._move(before, known)
            if len(self._rows):
                self._fit()

    def _move(self, before: Modules, known: Modules) -> None:
        """Puts all that has a place for each cell where the cells now are; new ones begin with a prior draw."""

        def along(values: Tensor, place: Any, fresh: Tensor) -> Tensor:
            moved = carried(values.transpose(0, 1).numpy(), place, fresh.transpose(0, 1).numpy())
            return torch.from_numpy(np.ascontiguousarray(np.swapaxes(moved, 0, 1)))

        for m, sums in enumerate(self._sums):
            place, start = places(before, known, m), self._draw_start(known.cells(m))
            empty = Sums.nothing(known.cells(m), self._width, self.config.members)
            self._starts[m] = along(self._starts[m], place, start)
            self._coefficients[m] = along(self._coefficients[m], place, start)
            self._sums[m] = Sums(
                along(sums.gram, place, empty.gram),
                along(sums.moment, place, empty.moment),
                sums.weight,
                sums.total,
                sums.square,
            )
        self._rows = self._rows.moved(before, known)
