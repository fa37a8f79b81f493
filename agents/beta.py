"""Beta Thompson sampling: a Beta distribution of success for each user, module and action."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
import torch

from crosschannel.agents.base import Batch, Observations
from crosschannel.agents.buffers.buffer import check_batch, median_variance, precision
from crosschannel.agents.policy import Policy
from crosschannel.agents.sampling import expand_mask, floor_by_module, uniform_over_eligible
from crosschannel.agents.settings import BetaThompsonSettings
from crosschannel.core.action_changes import carry_over, known_actions, label_columns, previous_cells, select_present
from crosschannel.core.action_space import ActionSpace
from crosschannel.core.arrays import BoolArray, FloatArray, IntArray, UIntArray

GRID_POINTS = 64
ROWS_PER_CHUNK = 512
LIMIT_QUANTILE = 0.99


class BetaThompson(Policy):
    r"""Thompson sampling with a Beta distribution for each user, module and action, and the mean of all users as prior.

    A reward becomes a degree of success :math:`s = \mathrm{clip}(1/2 + r / 2L, 0, 1)`, where one half is no effect and
    L is the 99 % quantile of the first rewards' absolute values, and counts as s successes and 1 - s failures (Agrawal
    & Goyal 2012, "Analysis of Thompson sampling for the multi-armed bandit problem", COLT):

    .. math:: \theta_{ua} \sim \mathrm{Beta}(\nu p_a + S_{ua}, \; \nu (1 - p_a) + W_{ua} - S_{ua})

    with the user's successes S of W observations, the pooled mean :math:`p_a` and its strength :math:`\nu`. The pooled
    mean of an action with few observations borrows from the actions that share its labels. The probability of an action
    is that of the largest draw, :math:`\int f_a \prod_{b \ne a} F_b`, integrated on a grid. Actions are sampled from
    the integrated probabilities, so these are the exact propensities whatever the grid's error. The agent ignores the
    context.

    `Observations.users` identifies users; a new user, or every user where it is None, has the pooled prior.

    Args:
        modules: The action space.
        context_dim: Number of context features; not used.
        settings: Settings.
        seed: Seed of the sampled actions.
        device: Not used.
    """

    def __init__(
        self,
        modules: ActionSpace,
        context_dim: int,  # noqa: ARG002
        settings: BetaThompsonSettings | None = None,
        seed: int = 0,
        device: str = "cpu",  # noqa: ARG002
    ) -> None:
        super().__init__(modules, seed)
        self.settings = settings or BetaThompsonSettings()
        self._floors = floor_by_module(modules, self.settings.floor)
        self._known = modules
        self._users = np.zeros(0, dtype=np.uint64)
        self._user_counts = [np.zeros((0, 2, modules.n_table_cells(m)), dtype=np.float32) for m in range(len(modules))]
        self._pooled = [np.zeros((2, modules.n_table_cells(m))) for m in range(len(modules))]
        self._seen = 0
        self._decay = 1.0
        self._limit, self._reference = 1.0, 1.0

    def observe(self, batch: Batch) -> None:
        """Add successes and observations to each user's counts and to the pooled ones.

        Raises:
            InputError: If a row cannot be learned from; then no row is added.
        """
        check_batch(batch, self.modules)
        if len(batch) == 0:
            return
        if self._seen == 0:
            sizes = np.abs(batch.rewards)
            self._limit = float(np.quantile(sizes, LIMIT_QUANTILE)) or float(sizes.max()) or 1.0
            self._reference = median_variance(batch.se)
        self._seen += len(batch)
        keep = 0.5 ** (len(batch) / self.settings.half_life)
        weight = precision(batch.se, self._reference, self.settings.precision_cap)
        success = np.clip(0.5 + batch.rewards / (2 * self._limit), 0.0, 1.0) * weight
        place = self._places(batch.observations.users, add=True)
        sent = self.modules.sends(batch.actions)
        for m in range(len(self.modules)):
            rows = np.ones(len(batch), dtype=bool) if m == 0 else sent
            cell = self._known.table_cell(m, batch.actions)[rows]
            size = self._known.n_table_cells(m)
            for part, column in enumerate((success, weight)):
                self._pooled[m][part] = keep * self._pooled[m][part] + np.bincount(cell, column[rows], minlength=size)
                if place is not None:
                    # Scaling up the new counts replaces discounting those of every user.
                    np.add.at(self._user_counts[m][:, part], (place[rows], cell), column[rows] / (self._decay * keep))
        self._decay *= keep
        if self._decay < 1e-6:
            self._user_counts = [counts * np.float32(self._decay) for counts in self._user_counts]
            self._decay = 1.0

    def _places(self, users: UIntArray | None, *, add: bool = False) -> IntArray | None:
        """Return each user's row (N,) in the counts, -1 for a new user; with `add`, create rows for new users."""
        if users is None:
            return None
        if add:
            every = np.union1d(self._users, users)
            if len(every) > len(self._users):
                old = np.searchsorted(every, self._users)
                for m, counts in enumerate(self._user_counts):
                    self._user_counts[m] = np.zeros((len(every), *counts.shape[1:]), dtype=np.float32)
                    self._user_counts[m][old] = counts
                self._users = every
        if not len(self._users):
            return np.full(len(users), -1, dtype=np.int64)
        place = np.minimum(np.searchsorted(self._users, users), len(self._users) - 1)
        return np.where(self._users[place] == users, place, -1)

    def _pooled_means(self, m: int) -> FloatArray:
        """Return the probability of success of all users together (cells,); labels share it between actions."""
        success, weight = self._pooled[m]
        nu = self.settings.pooled_strength
        label = label_columns(self._known[m])
        if label.shape[1]:
            # All cells of an action have its labels, whatever the choice they are conditioned on.
            label = np.tile(label, (len(weight) // len(label), 1))
            z = np.concatenate([np.ones((len(label), 1)), label], axis=1)
            excess = success - 0.5 * weight
            reliability = weight * nu / (weight + nu)
            ratio = np.divide(excess, weight, out=np.zeros_like(excess), where=weight > 0)
            shared = np.linalg.solve((z.T * reliability) @ z + nu * np.eye(z.shape[1]), z.T @ (reliability * ratio))
            prior_mean = np.clip(0.5 + z @ shared, 0.01, 0.99)
        else:
            prior_mean = np.full(len(weight), 0.5)
        return np.asarray((success + nu * prior_mean) / (weight + nu))

    def _parameters(self, observations: Observations, m: int) -> tuple[FloatArray, FloatArray]:
        """Return the successes and failures (N, *shape(m)) of each row's Beta distributions, prior included."""
        pooled = self._pooled_means(m)
        place = self._places(observations.users)
        nu = self.settings.strength
        success = np.tile(nu * pooled, (len(observations), 1))
        failure = np.tile(nu * (1 - pooled), (len(observations), 1))
        if place is not None and len(self._users):
            seen = place >= 0
            counts = self._user_counts[m][place[seen]] * self._decay
            success[seen] += counts[:, 0]
            failure[seen] += np.maximum(counts[:, 1] - counts[:, 0], 0.0)
        known, present = self._known, self.modules
        return select_present(success, known, present, m), select_present(failure, known, present, m)

    def action_probabilities(self, observations: Observations) -> list[FloatArray]:
        """Return each action's probability of the largest draw, mixed with the floor."""
        parts = self.modules.split(self.modules.feasible_mask(observations.action_mask))
        out = []
        for m, floor in enumerate(self._floors):
            mask = expand_mask(self.modules, m, parts[m])
            shares = np.zeros(mask.shape)
            for start in range(0, len(observations), ROWS_PER_CHUNK):
                rows = slice(start, start + ROWS_PER_CHUNK)
                success, failure = self._parameters(observations[rows], m)
                for group in self.modules.groups(m):
                    shares[rows][..., group] = largest_draw(
                        success[..., group], failure[..., group], mask[rows][..., group]
                    )
            uniform = np.sum([uniform_over_eligible(mask, group) for group in self.modules.groups(m)], axis=0)
            out.append((1.0 - floor) * shares + floor * uniform)
        return out

    def preferences(self, observations: Observations) -> list[FloatArray]:
        """Return the expected degree of success, (N, *shape(m)) per module."""
        pairs = [self._parameters(observations, m) for m in range(len(self.modules))]
        return [success / (success + failure) for success, failure in pairs]

    def expected_rewards(self, observations: Observations) -> list[FloatArray]:
        """Return the mean minus and plus one standard deviation, (2, N, *shape(m)) per module, in reward units."""
        out = []
        for m in range(len(self.modules)):
            success, failure = self._parameters(observations, m)
            n = success + failure
            mean = success / n
            sd = np.sqrt(mean * (1 - mean) / (n + 1))
            out.append(np.stack([mean - sd - 0.5, mean + sd - 0.5]) * 2 * self._limit)
        return out

    def state_dict(self) -> dict[str, Any]:
        """Return each user's counts of all known actions, the pooled counts, and the random state."""
        return super().state_dict() | {
            "known": self._known.to_dict(),
            "users": torch.from_numpy(self._users.view(np.int64).copy()),
            "user_counts": [torch.from_numpy(counts.copy()) for counts in self._user_counts],
            "pooled": [torch.from_numpy(pooled.copy()) for pooled in self._pooled],
            "seen": self._seen,
            "units": [self._limit, self._reference, self._decay],
        }

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Restore what `state_dict` returned; the set of actions may have changed since."""
        before = ActionSpace.from_dict(state["known"])
        known = known_actions(self.modules, before)
        super().load_state_dict(state)
        self._known = known
        self._users = state["users"].numpy().copy().view(np.uint64)
        self._seen = int(state["seen"])
        self._limit, self._reference, self._decay = state["units"]
        for m in range(len(known)):
            place = previous_cells(before, known, m)
            for counts, name in ((self._user_counts, "user_counts"), (self._pooled, "pooled")):
                saved = np.moveaxis(state[name][m].numpy(), -1, 0)
                fresh = np.zeros((known.n_table_cells(m), *saved.shape[1:]), dtype=saved.dtype)
                counts[m] = np.ascontiguousarray(np.moveaxis(carry_over(saved, place, fresh), 0, -1))


def largest_draw(success: FloatArray, failure: FloatArray, mask: BoolArray) -> FloatArray:
    r"""Return the probability (..., A) that each of A independent Beta draws is the largest of those in the mask.

    .. math:: P(a) = \int f_a(x) \prod_{b \ne a} F_b(x) dx

    The grid covers the range of all densities, each normalised to sum to 1 on it. The result sums to 1, or is 0
    throughout where the mask is empty.

    Args:
        success: First parameters (..., A), positive.
        failure: Second parameters (..., A), positive.
        mask: Draws that take part (..., A).
    """
    n = success + failure
    mean = success / n
    sd = np.sqrt(mean * (1 - mean) / (n + 1))
    low = np.where(mask, mean - 5 * sd, 1.0).min(-1).clip(0.0, 1.0)
    high = np.where(mask, mean + 5 * sd, 0.0).max(-1).clip(0.0, 1.0)
    high = np.maximum(high, low + 1e-9)
    x = low[..., None] + (high - low)[..., None] * ((np.arange(GRID_POINTS) + 0.5) / GRID_POINTS)
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
