"""What one module's ensemble knows and how it learns: gradient steps for hidden layers, closed-form heads."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import torch
from torch import Tensor

from agents.base import Float32Array
from agents.buffer import Buffer
from agents.heads import Prior, Sums, in_coordinates, learn_scales, solve, standardise, sums_by_fold, trust_network
from agents.members import Members
from histories.errors import ConfigError
from histories.hashing import UIntArray, mix, uniforms

FOLDS = 5
AVERAGE = 0.005
PILOT = 512
UNSEEN = 1e-4
SMALLEST = 1e-12


@dataclass(frozen=True)
class LearnerConfig:
    """Settings of one module's learner.

    Attributes:
        members: Networks per module (K).
        hidden: Units of each hidden layer of the trained networks.
        prior_units: Units of the frozen random layer of each member.
        prior_scale: Spread of the members' prior draws, in the prior standard deviations that the data support; above
            1 explores more, 0 explores by the bootstrap alone.
        effect_scale: Plausible effect of an action in standard deviations of the reward: where the prior begins.
        learning_rate: Of Adam, for the hidden layers.
        weight_decay: Pull of the hidden layers towards 0, per update and learning rate.
        batch_size: Rows per update.
        precision_cap: Largest weight of a row by its precision 1/se^2, in multiples of the median.
    """

    members: int = 10
    hidden: tuple[int, ...] = (64, 32)
    prior_units: int = 32
    prior_scale: float = 1.0
    effect_scale: float = 0.1
    learning_rate: float = 3e-3
    weight_decay: float = 0.1
    batch_size: int = 256
    precision_cap: float = 4.0

    def __post_init__(self) -> None:
        for name in ("members", "prior_units", "batch_size"):
            if getattr(self, name) < 1:
                raise ConfigError(f"{name} is {getattr(self, name)}: it must be at least 1")
        if not self.hidden or min(self.hidden) < 1:
            raise ConfigError(f"hidden is {list(self.hidden)}: give at least one layer, each of at least 1 unit")
        for name in ("effect_scale", "learning_rate", "precision_cap"):
            if not getattr(self, name) > 0:
                raise ConfigError(f"{name} is {getattr(self, name)}: it must be positive")
        for name in ("prior_scale", "weight_decay"):
            if not getattr(self, name) >= 0:
                raise ConfigError(f"{name} is {getattr(self, name)}: it must not be negative")


def bootstrap_weights(keys: UIntArray, members: int, seed: int) -> Float32Array:
    """Exponential weights of mean 1 (K, n) that depend on nothing but a decision's key (n,), the member and the seed.

    The Bayesian bootstrap (Rubin 1981) in place of resampling: no row is dropped, and restarts, shuffles and other
    machines find the same weights.
    """
    codes = mix(np.arange(members, dtype=np.uint64))
    return -np.log(uniforms(keys[None, :] ^ codes[:, None], seed)).astype(np.float32)


def folds(keys: UIntArray, seed: int) -> Tensor:
    """The fold of each row (n,), by its key: member k trains its network without fold k modulo `FOLDS`."""
    return torch.from_numpy((uniforms(keys, ~seed) * FOLDS).astype(np.int64))


class Learner:
    """K members of one module, their optimiser, their heads and the units that they compute in.

    Args:
        width: Context features.
        actions: Actions of the module.
        config: Settings.
        generator: Source of initial weights and prior draws.
        seed: Seed of the hashed weights.
        device: Where the networks compute; heads are solved on the CPU in float64.
    """

    def __init__(
        self,
        width: int,
        actions: int,
        config: LearnerConfig,
        generator: torch.Generator,
        seed: int,
        device: torch.device,
    ) -> None:
        k = config.members
        self._config, self._seed, self._device, self._actions = config, seed, device, actions
        self._members = Members(k, width, actions, config.hidden, config.prior_units, generator)
        self._blocks = self._members.blocks
        variance = torch.full((2, 4), config.effect_scale**2, dtype=torch.float64)
        variance[:, -1] = UNSEEN
        self._prior = Prior(
            config.effect_scale**2,
            variance,
            torch.randn(k, len(self._blocks), generator=generator).double(),
            torch.randn(k, actions, len(self._blocks), generator=generator).double(),
        )
        pilot = torch.randn(PILOT, width, generator=generator)
        self._members.to(device)
        self._optimiser = torch.optim.AdamW(
            self._members.parameters(), lr=config.learning_rate, weight_decay=config.weight_decay
        )
        self._steps = 0
        self.mean, self.scale, self.reference = 0.0, 1.0, 1.0
        # Before any data the members are their priors; standard normal contexts stand for those to come.
        phi = self._members.features(pilot.to(device)).cpu().double()
        transform = standardise(phi.transpose(1, 2) @ phi, self._blocks)
        f = len(self._blocks)
        nothing = Sums(torch.zeros(k, actions, f, f).double(), torch.zeros(k, actions, f).double())
        self._heads = self._coefficients(nothing, transform)

    @torch.no_grad()
    def estimates(self, x: Tensor) -> Float32Array:
        """Every member's estimates (K, N, A) for contexts (N, D), in reward units."""
        values = torch.bmm(self._members.features(x.to(self._device)), self._heads)
        return np.asarray((values * self.scale + self.mean).cpu().numpy())

    def measure(self, buffer: Buffer, rows: Tensor) -> None:
        """Takes the reward's units from the rows: the median of se^2, and the precision-weighted mean and scale."""
        if len(rows) == 0:
            return
        self.reference = float(buffer["se"][rows].double().square().median())
        precision, reward = self._precision(buffer, rows).double(), buffer["reward"][rows].double()
        self.mean = float((precision * reward).sum() / precision.sum())
        self.scale = max(float((precision * (reward - self.mean).square()).mean().sqrt()), 1e-8)

    def train(self, buffer: Buffer, rows: Tensor, m: int, steps: int, rng: np.random.Generator) -> float:
        """Makes gradient steps on rows drawn from `rows`; gives the members' mean loss, NaN without rows."""
        if len(rows) == 0:
            return float("nan")
        total = 0.0
        for _ in range(steps):
            picked = rows[torch.from_numpy(rng.integers(0, len(rows), self._config.batch_size))]
            columns = (
                buffer["context"][picked],
                buffer["actions"][picked, m].long(),
                (buffer["reward"][picked] - self.mean) / self.scale,
                self._weights(buffer, picked, network=True),
            )
            loss = self._members.loss(*(column.to(self._device) for column in columns))
            self._optimiser.zero_grad()
            loss.backward()  # type: ignore[no-untyped-call]
            self._optimiser.step()
            self._steps += 1
            self._members.average(max(1.0 / self._steps, AVERAGE))
            total += float(loss.detach())
        return total / steps / self._config.members

    def solve(self, buffer: Buffer, rows: Tensor, m: int) -> None:
        """Fits the heads to all rows, after the prior's variances."""
        if len(rows) == 0:
            return
        self._members.settle()
        key = buffer["key"][rows].numpy().view(np.uint64)

        def features(x: Tensor) -> Tensor:
            return self._members.features(x.to(self._device)).cpu()

        by_fold = sums_by_fold(
            features,
            lambda part: self._weights(buffer, rows[part], network=False),
            buffer["context"][rows],
            buffer["actions"][rows, m].long(),
            (buffer["reward"][rows] - self.mean) / self.scale,
            folds(key, self._seed),
            (FOLDS, self._actions),
        )
        every = Sums(by_fold.gram.sum(0), by_fold.moment.sum(0))
        transform = standardise(every.gram.sum(1), self._blocks)
        k = torch.arange(self._config.members)
        held_out = in_coordinates(Sums(by_fold.gram[k % FOLDS, k], by_fold.moment[k % FOLDS, k]), transform)
        every_in = in_coordinates(every, transform)
        self._prior = learn_scales(every_in, self._prior, self._blocks, steps=20)
        self._prior = trust_network(every_in - held_out, held_out, self._prior, self._blocks, moves=4)
        self._heads = self._coefficients(every_in, transform)

    def _coefficients(self, sums: Sums, transform: Tensor) -> Tensor:
        """Heads (K, F, A) on the features as they are, from sums in standardised coordinates."""
        spread, prior = self._config.prior_scale, self._prior
        drawn = replace(prior, common=prior.common * spread, own=prior.own * spread)
        coefficients, _ = solve(sums, drawn, self._blocks)
        return (transform.transpose(1, 2) @ coefficients.transpose(1, 2)).float().to(self._device)

    def _precision(self, buffer: Buffer, rows: Tensor) -> Tensor:
        """Capped precision weights (n,): 1 at the median of se^2."""
        square = buffer["se"][rows].square().clamp_min(SMALLEST)
        return (max(self.reference, SMALLEST) / square).clamp(max=self._config.precision_cap)

    def _weights(self, buffer: Buffer, rows: Tensor, *, network: bool) -> Tensor:
        """Weights (K, n) of rows: bootstrap times precision, and for the network 0 in each member's held-out fold."""
        key = buffer["key"][rows].numpy().view(np.uint64)
        weights = torch.from_numpy(bootstrap_weights(key, self._config.members, self._seed))
        weights *= self._precision(buffer, rows)
        if network:
            own = torch.arange(self._config.members)[:, None] % FOLDS
            weights *= (folds(key, self._seed)[None, :] != own) * (FOLDS / (FOLDS - 1))
        return weights

    def state_dict(self) -> dict[str, Any]:
        """Everything that is needed to go on."""
        return {
            "members": self._members.state_dict(),
            "optimiser": self._optimiser.state_dict(),
            "heads": self._heads,
            "variance": self._prior.variance,
            "common": self._prior.common,
            "own": self._prior.own,
            "steps": self._steps,
            "units": [self.mean, self.scale, self.reference],
        }

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """The inverse of `state_dict`."""
        self._members.load_state_dict(state["members"])
        self._optimiser.load_state_dict(state["optimiser"])
        self._heads = state["heads"].clone().to(self._device)
        self._prior = replace(
            self._prior, variance=state["variance"].clone(), common=state["common"].clone(), own=state["own"].clone()
        )
        self._steps = int(state["steps"])
        self.mean, self.scale, self.reference = state["units"]
