"""Beta Thompson sampling: for each user, module and action how often it succeeded, and how sure that is."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch

from crosschannel.agents.base import Batch, Observations, UIntArray
from crosschannel.agents.buffers.buffer import check_batch, precision, usual
from crosschannel.agents.policy import Policy
from crosschannel.agents.sampling import FLOOR, Floor, even, floors, spread_mask
from crosschannel.core.action_changes import carried, known_actions, labels, places, shown
from crosschannel.core.action_space import ActionSpace
from crosschannel.core.arrays import BoolArray, FloatArray, IntArray
from crosschannel.core.errors import ConfigError

GRID = 64
ROWS = 512
LIMIT_QUANTILE = 0.99


@dataclass(frozen=True)
class BetaConfig:
    """Settings of `beta_thompson`.

    Attributes:
        strength: Observations that the pooled prior of all users weighs for each single user.
        pooled_strength: Observations that the belief in *no effect* weighs for each action of all users together.
        half_life: Observed rows of all users after which a row counts half; infinite to forget nothing.
        precision_cap: Largest weight of a row by its precision 1/se^2, in multiples of that at the first rows' median.
        floor: Share of decisions that are drawn uniformly from the eligible actions: one number, or one by module's
            name.
    """

    strength: float = 20.0
    pooled_strength: float = 20.0
    half_life: float = math.inf
    precision_cap: float = 4.0
    floor: Floor = FLOOR

    def __post_init__(self) -> None:
        for name in ("strength", "pooled_strength", "half_life", "precision_cap"):
            if not getattr(self, name) > 0:
                raise ConfigError(f"{name} is {getattr(self, name)}: it must be positive")


class BetaThompson(Policy):
    r"""One Beta distribution of success for each user, module and action, with the mean of all users as its prior.

    A reward becomes a degree of success :math:`s = \mathrm{clip}(1/2 + r / 2L, 0, 1)`, where one half is no effect and
    L the 99 % quantile of the first rewards' size, and counts as s successes and 1 - s failures (Agrawal & Goyal 2012,
    "Analysis of Thompson sampling for the multi-armed bandit problem", COLT):

    .. math:: \theta_{ua} \sim \mathrm{Beta}(\nu p_a + S_{ua}, \; \nu (1 - p_a) + W_{ua} - S_{ua})

    with the user's successes S of W observations, the pooled mean :math:`p_a` and its strength :math:`\nu`. An action
    that was seen seldom is pooled with those that share its labels. The probability of an action is that of having
    the largest draw, :math:`\int f_a \prod_{b \ne a} F_b`, integrated on a grid; as actions are drawn from these very
    numbers, they are the exact propensities whatever the grid's error. The context is not looked at.

    Users are told apart by `Observations.users`; one who is new, or unknown because that is None, has the pooled prior.

    Args:
        modules: What can be chosen.
        context_dim: Context features; not used.
        config: Settings.
        seed: Seed of the draws of actions.
        device: Not used.
    """

    def __init__(
        self,
        modules: ActionSpace,
        context_dim: int,  # noqa: ARG002
        config: BetaConfig | None = None,
        seed: int = 0,
        device: str = "cpu",  # noqa: ARG002
    ) -> None:
        super().__init__(modules, seed)
        self.config = config or BetaConfig()
        self._floors = floors(modules, self.config.floor)
        self._known = modules
        self._users = np.zeros(0, dtype=np.uint64)
        self._evidence = [np.zeros((0, 2, modules.n_table_cells(m)), dtype=np.float32) for m in range(len(modules))]
        self._pooled = [np.zeros((2, modules.n_table_cells(m))) for m in range(len(modules))]
        self._seen = 0
        self._decay = 1.0
        self._limit, self._reference = 1.0, 1.0

    def observe(self, batch: Batch) -> None:
        """Adds successes and observations to each user's and to those of all.

        Raises:
            InputError: If a row cannot be learned from; nothing is kept then.
        """
        check_batch(batch, self.modules)
        if len(batch) == 0:
            return
        if self._seen == 0:
            sizes = np.abs(batch.rewards)
            self._limit = float(np.quantile(sizes, LIMIT_QUANTILE)) or float(sizes.max()) or 1.0
            self._reference = usual(batch.se)
        self._seen += len(batch)
        kept = 0.5 ** (len(batch) / self.config.half_life)
        weight = precision(batch.se, self._reference, self.config.precision_cap)
        success = np.clip(0.5 + batch.rewards / (2 * self._limit), 0.0, 1.0) * weight
        place = self._places(batch.observations.users, add=True)
        sent = self.modules.sends(batch.actions)
        for m in range(len(self.modules)):
            rows = np.ones(len(batch), dtype=bool) if m == 0 else sent
            cell = self._known.table_cell(m, batch.actions)[rows]
            size = self._known.n_table_cells(m)
            for part, column in enumerate((success, weight)):
                self._pooled[m][part] = kept * self._pooled[m][part] + np.bincount(cell, column[rows], minlength=size)
                if place is not None:
                    # Instead of every user's evidence shrinking, new evidence counts for more.
                    np.add.at(self._evidence[m][:, part], (place[rows], cell), column[rows] / (self._decay * kept))
        self._decay *= kept
        if self._decay < 1e-6:
            self._evidence = [evidence * np.float32(self._decay) for evidence in self._evidence]
            self._decay = 1.0

    def _places(self, users: UIntArray | None, *, add: bool = False) -> IntArray | None:
        """The row of each user (N,) in what is kept, -1 for a new one; with `add`, new users get a row."""
        if users is None:
            return None
        if add:
            every = np.union1d(self._users, users)
            if len(every) > len(self._users):
                old = np.searchsorted(every, self._users)
                for m, evidence in enumerate(self._evidence):
                    self._evidence[m] = np.zeros((len(every), *evidence.shape[1:]), dtype=np.float32)
                    self._evidence[m][old] = evidence
                self._users = every
        if not len(self._users):
            return np.full(len(users), -1, dtype=np.int64)
        place = np.minimum(np.searchsorted(self._users, users), len(self._users) - 1)
        return np.where(self._users[place] == users, place, -1)

    def _pooled_means(self, m: int) -> FloatArray:
        """Probability of success of all users together (cells,); between actions, labels lend what they have earned."""
        success, weight = self._pooled[m]
        nu = self.config.pooled_strength
        label = labels(self._known[m])
        if label.shape[1]:
            # Cells of one action share its labels, whatever they are conditioned on.
            label = np.tile(label, (len(weight) // len(label), 1))
            z = np.concatenate([np.ones((len(label), 1)), label], axis=1)
            excess = success - 0.5 * weight
            trust = weight * nu / (weight + nu)
            ratio = np.divide(excess, weight, out=np.zeros_like(excess), where=weight > 0)
            shared = np.linalg.solve((z.T * trust) @ z + nu * np.eye(z.shape[1]), z.T @ (trust * ratio))
            believed = np.clip(0.5 + z @ shared, 0.01, 0.99)
        else:
            believed = np.full(len(weight), 0.5)
        return np.asarray((success + nu * believed) / (weight + nu))

    def _parameters(self, observations: Observations, m: int) -> tuple[FloatArray, FloatArray]:
        """Successes and failures (N, *shape(m)) of each row's Betas, the prior's included."""
        pooled = self._pooled_means(m)
        place = self._places(observations.users)
        nu = self.config.strength
        success = np.tile(nu * pooled, (len(observations), 1))
        failure = np.tile(nu * (1 - pooled), (len(observations), 1))
        if place is not None and len(self._users):
            known = place >= 0
            evidence = self._evidence[m][place[known]] * self._decay
            success[known] += evidence[:, 0]
            failure[known] += np.maximum(evidence[:, 1] - evidence[:, 0], 0.0)
        return shown(success, self._known, self.modules, m), shown(failure, self._known, self.modules, m)

    def action_probabilities(self, observations: Observations) -> list[FloatArray]:
        """Each action's probability of the largest draw, mixed with the floor."""
        parts = self.modules.split(self.modules.feasible_mask(observations.action_mask))
        out = []
        for m, floor in enumerate(self._floors):
            mask = spread_mask(self.modules, m, parts[m])
            shares = np.zeros(mask.shape)
            for start in range(0, len(observations), ROWS):
                rows = slice(start, start + ROWS)
                success, failure = self._parameters(observations[rows], m)
                for group in self.modules.groups(m):
                    shares[rows][..., group] = largest_draw(
                        success[..., group], failure[..., group], mask[rows][..., group]
                    )
            uniform = np.sum([even(mask, group) for group in self.modules.groups(m)], axis=0)
            out.append((1.0 - floor) * shares + floor * uniform)
        return out

    def preferences(self, observations: Observations) -> list[FloatArray]:
        """The expected degree of success, (N, *shape(m)) a module."""
        pairs = [self._parameters(observations, m) for m in range(len(self.modules))]
        return [success / (success + failure) for success, failure in pairs]

    def expected_rewards(self, observations: Observations) -> list[FloatArray]:
        """The ends of the Betas' 68 % interval as two estimates, (2, N, *shape(m)) a module, in reward units."""
        out = []
        for m in range(len(self.modules)):
            success, failure = self._parameters(observations, m)
            n = success + failure
            mean = success / n
            sd = np.sqrt(mean * (1 - mean) / (n + 1))
            out.append(np.stack([mean - sd - 0.5, mean + sd - 0.5]) * 2 * self._limit)
        return out

    def state_dict(self) -> dict[str, Any]:
        """Every user's evidence of all actions ever known, that of all users, and the random state."""
        return super().state_dict() | {
            "known": self._known.to_dict(),
            "users": torch.from_numpy(self._users.view(np.int64).copy()),
            "evidence": [torch.from_numpy(evidence.copy()) for evidence in self._evidence],
            "pooled": [torch.from_numpy(pooled.copy()) for pooled in self._pooled],
            "seen": self._seen,
            "units": [self._limit, self._reference, self._decay],
        }

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """The inverse of `state_dict`, also where the set of actions has changed since."""
        before = ActionSpace.from_dict(state["known"])
        known = known_actions(self.modules, before)
        super().load_state_dict(state)
        self._known = known
        self._users = state["users"].numpy().copy().view(np.uint64)
        self._seen = int(state["seen"])
        self._limit, self._reference, self._decay = state["units"]
        for m in range(len(known)):
            place = places(before, known, m)
            for kept, name in ((self._evidence, "evidence"), (self._pooled, "pooled")):
                saved = np.moveaxis(state[name][m].numpy(), -1, 0)
                fresh = np.zeros((known.n_table_cells(m), *saved.shape[1:]), dtype=saved.dtype)
                kept[m] = np.ascontiguousarray(np.moveaxis(carried(saved, place, fresh), 0, -1))


def largest_draw(success: FloatArray, failure: FloatArray, mask: BoolArray) -> FloatArray:
    r"""Probability (..., A) that each of A independent Beta draws is the largest of those in the mask.

    .. math:: P(a) = \int f_a(x) \prod_{b \ne a} F_b(x) dx

    On a grid over the range where any of the densities lies, each normalised to its sum there; the result is normalised
    to 1, or 0 throughout where the mask is empty.

    Args:
        success: First parameters (..., A), positive.
        failure: Second parameters (..., A), positive.
        mask: Which draws take part (..., A).
    """
    n = success + failure
    mean = success / n
    sd = np.sqrt(mean * (1 - mean) / (n + 1))
    low = np.where(mask, mean - 5 * sd, 1.0).min(-1).clip(0.0, 1.0)
    high = np.where(mask, mean + 5 * sd, 0.0).max(-1).clip(0.0, 1.0)
    high = np.maximum(high, low + 1e-9)
    x = low[..., None] + (high - low)[..., None] * ((np.arange(GRID) + 0.5) / GRID)
    x = x.clip(1e-12, 1 - 1e-12)[..., None, :]
    log = (success[..., None] - 1) * np.log(x) + (failure[..., None] - 1) * np.log1p(-x)
    density = np.exp(log - log.max(-1, keepdims=True))
    density /= density.sum(-1, keepdims=True)
    below = np.log((density.cumsum(-1) - 0.5 * density).clip(1e-300))
    below = np.where(mask[..., None], below, 0.0)
    others = below.sum(-2, keepdims=True) - below
    shares = np.where(mask, (density * np.exp(others)).sum(-1), 0.0)
    total = shares.sum(-1, keepdims=True)
    return np.asarray(shares / np.where(total > 0, total, 1.0))
