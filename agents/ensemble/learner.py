"""What one module's ensemble knows and how it learns: gradient steps for a shared network, closed-form heads."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, fields, replace
from typing import Any

import numpy as np
import torch
from torch import Tensor

from crosschannel.agents.buffers.buffer import Buffer, precision, usual
from crosschannel.agents.ensemble.heads import Coordinates, Prior, Sums, add_rows, solve, untrained
from crosschannel.agents.ensemble.network import Trunk
from crosschannel.agents.ensemble.noise import learn_noise, noise_factor, row_weights, some_rows
from crosschannel.agents.ensemble.prior import CURVES, NETWORK, learn_scales, trust
from crosschannel.core.action_changes import carried
from crosschannel.core.action_space import ActionSpace
from crosschannel.core.arrays import FloatArray, IntArray, UIntArray
from crosschannel.core.errors import ConfigError
from crosschannel.core.hashing import derive, uniforms

HELD_OUT = 0.2
PILOT = 512
UNSEEN = 1e-4
MOST_MEMBERS = 64
SCALE_STEPS = 10
ENOUGH_NEW = 0.05
WARM = 8
STEPS = 16
UPDATES_GROWTH = 1.5


@dataclass(frozen=True)
class LearnerConfig:
    """Settings of one module's learner.

    Attributes:
        members: Heads per module (K), at most 64.
        hidden: Units of each hidden layer of the network that they share.
        effect_scale: Plausible effect of an action in standard deviations of the reward: where the prior begins. It
            decides while there are few rows; then the scales are learned.
        learning_rate: Of Adam, for the network.
        weight_decay: Pull of the network's weights towards 0, per update and learning rate.
        batch_size: Rows per gradient step.
        warm_rows: With fewer rows than this, `update` makes more gradient steps than it was asked for, in proportion,
            at most `WARM` times as many: the first rows are worth going through often.
        growth: Share of rows that must be new before the features settle anew and all rows are summed again.
        precision_cap: Largest weight of a row by its precision 1/se^2, in multiples of the median.
        half_life: Rows after which a row counts for half, where rewards drift; 0 for never. `capacity` makes a sliding
            window besides.
    """

    members: int = 10
    hidden: tuple[int, ...] = (128,)
    effect_scale: float = 0.1
    learning_rate: float = 6e-3
    weight_decay: float = 0.5
    batch_size: int = 512
    warm_rows: int = 40_000
    growth: float = 0.25
    precision_cap: float = 4.0
    half_life: float = 0.0

    def __post_init__(self) -> None:
        for name in ("members", "batch_size"):
            if getattr(self, name) < 1:
                raise ConfigError(f"{name} is {getattr(self, name)}: it must be at least 1")
        if self.members > MOST_MEMBERS:
            raise ConfigError(f"members is {self.members}: it must be at most {MOST_MEMBERS}, the bits of a hash")
        if not self.hidden or min(self.hidden) < 1:
            raise ConfigError(f"hidden is {list(self.hidden)}: give at least one layer, each of at least 1 unit")
        for name in ("effect_scale", "learning_rate", "precision_cap", "growth"):
            if not getattr(self, name) > 0:
                raise ConfigError(f"{name} is {getattr(self, name)}: it must be positive")
        for name in ("weight_decay", "half_life", "warm_rows"):
            if not getattr(self, name) >= 0:
                raise ConfigError(f"{name} is {getattr(self, name)}: it must not be negative")


def signs(keys: UIntArray, members: int, seed: int) -> Tensor:
    """One +1 or -1 for each row and member (n, K), that depends on nothing but a decision's key, the member and seed.

    The bits of one hash: restarts, shuffles and other machines find the same.
    """
    words = derive(keys, seed).astype("<u8").view(np.uint8).reshape(-1, 8)
    bits = np.unpackbits(words, axis=1, count=members, bitorder="little")
    return torch.from_numpy(bits).float().mul_(2.0).sub_(1.0)


def held_out(keys: UIntArray, seed: int) -> Tensor:
    """Which rows (n,) no network is trained on, by their keys: a share of `HELD_OUT`."""
    return torch.from_numpy(uniforms(keys, ~seed) < HELD_OUT)


class Learner:
    r"""K members of one module: a shared network, K heads on it, and the units that they compute in.

    The heads are Bayesian regressions on all rows. Member k is fitted to perturbed rewards from a random start,

    .. math:: \tilde r_{ki} = r_i + \epsilon_{ki} \, \sigma \sqrt{v_i / p_i}, \qquad \epsilon_{ki} = \pm 1

    where p is a row's precision and its context is v times as noisy as usual (`agents.noise`), so that its
    coefficients vary as the posterior does (Lu & Van Roy 2017, "Ensemble sampling", NeurIPS): no row is dropped, and
    all members share the products of features and one factorisation. The members are centred on the posterior mean, so
    that their mean is exactly the best estimate.

    Args:
        width: Context features.
        modules: All known actions.
        m: The module. Its cells (`ActionSpace.n_table_cells`) are what has a head each: its actions, or those of every
            row of its table. The first module learns from all rows, the others from those in which something was sent.
        design: What its cells have in common (cells, L), or L = 0: see `agents.heads.solve`.
        config: Settings.
        generator: Source of initial weights and prior draws.
        seed: Seed of the hashed signs and of which rows are held out.
        device: Where the network computes; heads are solved on the CPU in float64.
    """

    def __init__(
        self,
        width: int,
        modules: ActionSpace,
        m: int,
        design: FloatArray,
        config: LearnerConfig,
        generator: torch.Generator,
        seed: int,
        device: torch.device,
    ) -> None:
        self._config, self._seed, self._device = config, seed, device
        self._modules, self._m = modules, m
        actions = modules.n_table_cells(m)
        self._trunk = Trunk(width, actions, config.hidden, config.learning_rate, config.weight_decay, generator, device)
        self._blocks = self._trunk.blocks
        f, k = len(self._blocks), config.members
        # Rows of length 1 on average: what is shared is believed to be as large whatever the number of labels.
        size = np.square(design).sum(1).mean()
        self._design = torch.from_numpy(design / np.sqrt(size)) if size > 0 else None
        shared = 0 if self._design is None else self._design.shape[1] * untrained(self._blocks)
        variance = torch.full((2, 4), config.effect_scale**2, dtype=torch.float64)
        variance[:, -1] = UNSEEN
        self._prior = Prior(config.effect_scale**2, variance)
        self._common = torch.randn(f + shared, 1 + k, generator=generator).double()
        self._own = torch.randn(actions, f, 1 + k, generator=generator).double()
        self._common[:, 0], self._own[..., 0] = 0.0, 0.0
        self._sums = Sums.empty(2, actions, f, 1 + k)
        self._asked, self._taken, self._settled = 0, 0, {"rows": 0, "steps": 0}
        self.mean, self.scale, self.reference = 0.0, 1.0, 1.0
        self._noisiness = torch.zeros(width)
        # Before any data the members are their priors; standard normal contexts stand for those to come.
        self._pilot = torch.randn(PILOT, width, generator=generator)
        self.heads = self._members()

    def _features(self, x: Tensor, out: Tensor | None = None) -> Tensor:
        """The features of contexts (N, D) on the CPU, in `out` if it is given."""
        if out is None or self._device.type == "cpu":
            return self._trunk.features(x.to(self._device), out).cpu()
        return out.copy_(self._trunk.features(x.to(self._device)))

    @property
    def _whole(self) -> Sums:
        return Sums(*(getattr(self._sums, f.name).sum(0) for f in fields(Sums)))

    def _coordinates(self, whole: Sums) -> Coordinates:
        if float(whole.rows) > 0:
            return Coordinates.of(whole.gram.sum(0), self._blocks)
        phi = self._features(self._pilot).double()
        return Coordinates.of(phi.t() @ phi, self._blocks)

    def _cells(self, buffer: Buffer, rows: Tensor) -> Tensor:
        """Which cell of the module each of some rows belongs to (n,)."""
        return torch.from_numpy(
            self._modules.table_cell(self._m, buffer["actions"].index_select(0, rows).long().numpy())
        )

    def values(self, x: Tensor, heads: Tensor) -> Tensor:
        """Estimates (A, C, N) in standardised rewards for contexts (N, D), from heads (A, C, F)."""
        found = self.estimates(x.to(self._device), heads.flatten(0, 1))
        return found.view(*heads.shape[:2], len(x))

    def estimates(self, x: Tensor, heads: Tensor, out: Tensor | None = None, room: Tensor | None = None) -> Tensor:
        """The same for contexts (N, D) on the device from heads (C, F): (C, N); see `Trunk.estimates`."""
        return self._trunk.estimates(x, heads, out, room)

    def learn(self, buffer: Buffer, steps: int, rng: np.random.Generator) -> float:
        """Makes gradient steps on the module's rows and keeps the heads abreast of them; gives the mean loss.

        Args:
            buffer: All rows.
            steps: Gradient steps, before more are made of them while rows are few.
            rng: Which rows are in which step.
        """
        sent_only = self._m > 0
        rows = buffer.rows(sent_only)
        if len(rows) == 0:
            return float("nan")
        added = buffer.seen - self._settled["rows"]
        settles = added > 0 and added >= self._config.growth * min(self._settled["rows"], len(buffer))
        if settles:
            self._learn_noise(buffer, rows)
            self._measure(buffer, rows)
        loss = self._train(buffer, rows, steps, rng)
        if not settles and self._trunk.steps >= UPDATES_GROWTH * self._settled["steps"]:
            self._learn_noise(buffer, rows)
            settles = True
        if settles:
            self._settle(buffer, rows)
        else:
            self._take_in(buffer, sent_only)
        return loss

    def _measure(self, buffer: Buffer, rows: Tensor) -> None:
        """Takes the reward's units from the rows: the median of se^2, and the precision-weighted mean and scale."""
        self.reference = usual(buffer["se"][rows])
        weight, _ = self._weighed(buffer, rows, buffer["context"].index_select(0, rows))
        weight, reward = (weight * self._memories(buffer, rows)).double(), buffer["reward"][rows].double()
        self.mean = float((weight * reward).sum() / weight.sum())
        variance = (weight * (reward - self.mean).square()).sum() / weight.sum()
        self.scale = max(float(variance.sqrt()), 1e-8)

    def _train(self, buffer: Buffer, rows: Tensor, steps: int, rng: np.random.Generator) -> float:
        rows = rows[~held_out(buffer.keys(rows), self._seed)]
        if len(rows) == 0:
            return float("nan")
        total = torch.zeros((), device=self._device)
        for first in range(0, steps, STEPS):  # columns are gathered for several steps at once
            size = min(STEPS, steps - first), self._config.batch_size
            picked = rows.index_select(0, torch.from_numpy(rng.integers(0, len(rows), size)).flatten())
            context = buffer["context"].index_select(0, picked)
            columns = (
                context,
                self._cells(buffer, picked),
                (buffer["reward"].index_select(0, picked) - self.mean) / self.scale,
                self._weighed(buffer, picked, context)[0] * self._memories(buffer, picked),
            )
            parts = (column.to(self._device).view(*size, *column.shape[1:]) for column in columns)
            for step in zip(*parts, strict=True):
                total += self._trunk.step(*step)
        return float(total) / steps

    def _settle(self, buffer: Buffer, rows: Tensor) -> None:
        """Takes the network as it is now, sums all rows anew, learns the scales and fits the heads."""
        self._trunk.settle()
        self._sums = Sums.empty(*self._sums.moment.shape)
        self._add(buffer, rows)
        self._settled = {"rows": buffer.seen, "steps": self._trunk.steps}
        whole = self._whole
        coordinates = self._coordinates(whole)
        self._prior = learn_scales(coordinates.apply(whole), self._prior, self._blocks, SCALE_STEPS)
        fitted, fresh = coordinates.apply(self._sums[0]), coordinates.apply(self._sums[1])
        for which in (NETWORK, CURVES):
            self._prior = trust(fitted, fresh, self._prior, self._blocks, which)
        self.heads = self._members()

    def _learn_noise(self, buffer: Buffer, rows: Tensor) -> None:
        """Learns how noisy rewards are in which contexts from errors of the present heads, in the present units."""
        if self._settled["rows"] == 0:
            return
        rows = rows[some_rows(len(rows))]
        context = buffer["context"].index_select(0, rows)
        estimates = self.values(context, self.heads[:, :1]).squeeze(1).cpu()
        estimates = estimates.gather(0, self._cells(buffer, rows).unsqueeze(0)).squeeze(0)
        error = (buffer["reward"].index_select(0, rows) - self.mean) / self.scale - estimates
        self._noisiness = learn_noise(context, error.square() * self._reported(buffer, rows))

    def _take_in(self, buffer: Buffer, sent_only: bool) -> None:
        """Adds new rows to the sums and fits the heads, where enough are new or no more came."""
        came, fresh = buffer.seen > self._asked, buffer.seen - self._taken
        self._asked = buffer.seen
        if fresh >= ENOUGH_NEW * len(buffer) or (fresh > 0 and not came):
            if self._config.half_life:
                self._sums.fade(0.5 ** (fresh / self._config.half_life))
            self._add(buffer, buffer.rows(sent_only, since=self._taken))
            self.heads = self._members()

    def _add(self, buffer: Buffer, rows: Tensor) -> None:
        folds, actions = self._sums.gram.shape[:2]
        cell = held_out(buffer.keys(rows), self._seed) * actions + self._cells(buffer, rows)
        rows = rows.index_select(0, torch.argsort(cell, stable=True))
        context, memory = buffer["context"].index_select(0, rows), self._memories(buffer, rows)
        weight, deviation = self._weighed(buffer, rows, context)
        targets = torch.empty(len(rows), 1 + self._config.members)
        targets[:, 0] = (buffer["reward"].index_select(0, rows) - self.mean) / self.scale
        noise = signs(buffer.keys(rows), self._config.members, self._seed)
        torch.mul(noise, deviation.unsqueeze(1), out=targets[:, 1:])
        counts = torch.bincount(cell, minlength=folds * actions).view(folds, actions)
        add_rows(self._sums, self._features, context, targets, weight * memory, memory, counts)
        self._taken = buffer.seen

    def _members(self) -> Tensor:
        """Heads (A, 1 + K, F) on the features as they are: the posterior mean, then the members around it."""
        whole = self._whole
        coordinates = self._coordinates(whole)
        sums = coordinates.apply(whole)
        found = solve(sums, self._prior, self._blocks, self._common, self._own, self._design)
        k = self._config.members
        members = found[..., 1:] - found[..., 1:].mean(2, keepdim=True)
        found[..., 1:] = found[..., :1] + members * (self._prior.noise * k / max(k - 1, 1)) ** 0.5
        return coordinates.back(found).transpose(1, 2).float().contiguous().to(self._device)

    def _reported(self, buffer: Buffer, rows: Tensor) -> Tensor:
        """Capped precisions (n,) as the rewards' own errors have them: 1 at the median of se^2."""
        return precision(buffer["se"].index_select(0, rows), self.reference, self._config.precision_cap)

    def _weighed(self, buffer: Buffer, rows: Tensor, context: Tensor) -> tuple[Tensor, Tensor]:
        """Weights (n,) by the rewards' own errors and by what is usual in their contexts, and deviations of the noise.

        A deviation of 1 is that of a usual row.
        """
        reported, factor = self._reported(buffer, rows), noise_factor(context, self._noisiness)
        return row_weights(reported, factor, self._config.precision_cap), (factor / reported).sqrt()

    def _memories(self, buffer: Buffer, rows: Tensor) -> Tensor:
        """How much each of some rows still counts (n,), by its age."""
        if not self._config.half_life:
            return torch.ones(len(rows))
        return torch.exp2(-buffer.age(rows) / self._config.half_life)

    def state_dict(self) -> dict[str, Any]:
        """Everything that is needed to go on."""
        return {
            **self._deciding(self._sums),
            "counts": {"asked": self._asked, "taken": self._taken, "settled": dict(self._settled)},
            "noisiness": self._noisiness.clone(),
        }

    def policy_state_dict(self) -> dict[str, Any]:
        """What deciding needs. The sums, over all folds, are for the heads of actions that are still to come."""
        whole = self._whole
        return self._deciding(Sums(*(getattr(whole, f.name).unsqueeze(0) for f in fields(Sums))))

    def _deciding(self, sums: Sums) -> dict[str, Any]:
        return {
            "trunk": self._trunk.state_dict(),
            "heads": self.heads.clone(),
            "variance": self._prior.variance.clone(),
            "noise": self._prior.noise,
            "common": self._common.clone(),
            "own": self._own.clone(),
            "sums": sums.state_dict(),
            "units": [self.mean, self.scale, self.reference],
        }

    def carry(self, state: Mapping[str, Any], place: IntArray) -> None:
        """Takes over the state of a learner of other cells, and fits the heads anew.

        Cells that there were keep their rows, output layers and prior draws; what new ones start from is drawn anew,
        and so is what cells have in common.

        Args:
            state: As `state_dict` gives it.
            place: Which cell each one was before (cells,); -1 for new ones.

        Raises:
            RuntimeError: If it is of a learner of another shape.
        """
        fresh, f = self.state_dict(), len(self._blocks)
        if state["own"].shape[1:] != self._own.shape[1:]:
            raise RuntimeError(
                f"its heads are of shape {list(state['own'].shape[1:])}, not {list(self._own.shape[1:])}"
            )

        def moved(saved: Tensor, new: Tensor) -> Tensor:
            return torch.from_numpy(carried(saved.numpy(), place, new.numpy()))

        sums = {
            name: torch.stack([moved(fold, fresh["sums"][name][0]) for fold in state["sums"][name]])
            for name in ("gram", "moment")
        }
        self.load_state_dict(
            {
                **state,
                "trunk": self._trunk.moved(state["trunk"], torch.from_numpy(place)),
                "heads": fresh["heads"],
                "common": torch.cat([state["common"][:f], fresh["common"][f:]]),
                "own": moved(state["own"], fresh["own"]),
                "sums": {**state["sums"], **sums},
            }
        )
        self.heads = self._members()

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """The inverse of `state_dict` and of `policy_state_dict`.

        Raises:
            RuntimeError: If it is of a learner of another shape.
        """
        if state["own"].shape != self._own.shape:
            raise RuntimeError(f"its heads are of shape {list(state['own'].shape)}, not {list(self._own.shape)}")
        self._trunk.load_state_dict(state["trunk"])
        self.heads = state["heads"].clone().to(self._device)
        self._prior = replace(self._prior, variance=state["variance"].clone(), noise=float(state["noise"]))
        self._common, self._own = state["common"].clone(), state["own"].clone()
        self._sums = Sums.from_state_dict(state["sums"])
        self.mean, self.scale, self.reference = state["units"]
        if (counts := state.get("counts")) is not None:
            self._asked, self._taken, self._settled = counts["asked"], counts["taken"], dict(counts["settled"])
            self._noisiness = state["noisiness"].clone()
