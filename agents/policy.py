"""Base classes of agents: sampling from exact probabilities, a random state, and voting estimates."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterator, Mapping
from typing import Any

import numpy as np
import torch

from crosschannel.agents.base import Batch, Decisions, Observations
from crosschannel.agents.buffers.buffer import check_batch
from crosschannel.agents.ensemble.mixtures import competing_cells, mix, mixing_matrix, vote_shares_on_device
from crosschannel.agents.sampling import expand_mask, floor_by_module, greedy_shares, sample_actions
from crosschannel.agents.settings import Floor
from crosschannel.agents.votes import ChannelVotes, votes_beyond_nothing
from crosschannel.core.action_space import ActionSpace
from crosschannel.core.arrays import BoolArray, FloatArray
from crosschannel.core.serialization import generator_state, restore_generator

ROWS_PER_CHUNK = 512


class Policy(ABC):
    """A policy that samples its actions from the probabilities that it states, so that these are exact.

    Args:
        modules: The action space.
        seed: Seed of the sampled actions.
    """

    def __init__(self, modules: ActionSpace, seed: int) -> None:
        self.modules = modules
        self._draws = np.random.default_rng([seed, 1])

    def act(self, observations: Observations, *, explore: bool = True) -> Decisions:
        """Sample from the policy; without `explore`, take the action that it prefers."""
        if explore:
            return sample_actions(self.modules, self.action_probabilities(observations), self._draws)
        preferred = greedy_shares(self.modules, self.preferences(observations), observations.action_mask)
        return sample_actions(self.modules, preferred, self._draws)

    @abstractmethod
    def action_probabilities(self, observations: Observations) -> list[FloatArray]:
        """Return the exact probabilities, one array (N, *modules.shape(m)) per module."""

    def preferences(self, observations: Observations) -> list[FloatArray]:
        """Return scores, one array (N, *modules.shape(m)) per module, whose largest is the preferred action."""
        return self.action_probabilities(observations)

    def observe(self, batch: Batch) -> None:
        """Check the rows; this policy does not learn from rewards.

        Raises:
            InputError: If a row cannot be learned from.
        """
        check_batch(batch, self.modules)

    def update(self, steps: int = 1) -> dict[str, float]:  # noqa: ARG002
        """Return no scalars: there is nothing to learn."""
        return {}

    def state_dict(self) -> dict[str, Any]:
        """Return the random state."""
        return {"rng": generator_state(self._draws)}

    def policy_state_dict(self) -> dict[str, Any]:
        """Return the part of the state that decisions need; here that is the whole state."""
        return self.state_dict()

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Restore what `state_dict` returned."""
        restore_generator(self._draws, state["rng"])


class VotingPolicy(Policy):
    r"""A policy that samples a voter for every decision and acts greedily on it: one of K estimates, or a mixture.

    The probability of an action is therefore its share of the votes, mixed with a floor (`vote_shares`): exact given
    the K estimates, which are part of the agent's state. The mixtures are those of `agents.ensemble.mixtures`.

    Args:
        modules: The action space.
        seed: Seed of the sampled actions and of the mixtures.
        floor: Probability of a uniform draw, one number or one by module name.
        exploration_scale: Scale of the estimates' deviations from their mean when sampling; 1 is standard Thompson
            sampling, 0 is greedy.
        mixtures: Fixed linear combinations of the estimates that vote, an even number and at least 2 K; with 0 the
            estimates themselves vote.
    """

    def __init__(
        self, modules: ActionSpace, seed: int, floor: Floor, exploration_scale: float, mixtures: int = 0
    ) -> None:
        super().__init__(modules, seed)
        self._floors = floor_by_module(modules, floor)
        self._exploration_scale, self._mixtures, self._mixing_seed = exploration_scale, mixtures, seed

    @abstractmethod
    def expected_rewards(self, observations: Observations) -> list[FloatArray]:
        """Return K estimates of each module's actions, (K, N, *modules.shape(m)) per module, in reward units.

        They vary as the posterior does, whatever `exploration_scale` is.
        """

    def action_probabilities(self, observations: Observations) -> list[FloatArray]:
        """Return the vote shares, mixed with the floors."""
        parts = self.modules.split(self.modules.feasible_mask(observations.action_mask))
        out = [np.zeros((len(observations), *self.modules.shape(m))) for m in range(len(self.modules))]
        for rows, chunk in chunks(observations):
            for m, estimates in enumerate(self.expected_rewards(chunk)):
                out[m][rows] = self._shares_of_votes(m, estimates, parts[m][rows])
        return out

    def _shares_of_votes(self, m: int, estimates: FloatArray, mask: BoolArray) -> FloatArray:
        """Return module m's probabilities (N, *shape(m)) from K estimates of N rows and their mask (N, A)."""
        n, voting = estimates.shape[1], self._voters(estimates)
        eligible = torch.from_numpy(expand_mask(self.modules, m, mask).reshape(n, -1))
        shares = vote_shares_on_device(voting, eligible, competing_cells(self.modules, m), self._floors[m])
        return np.asarray(shares.numpy().reshape(n, *self.modules.shape(m)))

    def _voters(self, estimates: FloatArray) -> torch.Tensor:
        """Return what votes on a module's cells (cells, L, N), from K estimates (K, N, *shape(m))."""
        members, n = estimates.shape[:2]
        matrix = self._mixing_matrix(members)
        values = torch.from_numpy(np.ascontiguousarray(estimates)).reshape(members, n, -1).permute(2, 0, 1)
        return mix(torch.cat([values.mean(1, keepdim=True), values], 1), matrix.to(values.dtype))

    def _mixing_matrix(self, members: int) -> torch.Tensor:
        """Return the matrix (L, K) of the mixtures that vote, their deviations scaled for exploration."""
        return torch.from_numpy(self._exploration_scale * mixing_matrix(members, self._mixtures, self._mixing_seed))

    def votes(self, observations: Observations, *, explore: bool = True) -> ChannelVotes:
        """Return the votes on the first module's actions, before shadow prices; there are no hazards."""
        parts = [self.expected_rewards(chunk)[0] for _, chunk in chunks(observations)]
        found = [self._voters(part) if explore else torch.from_numpy(part.mean(0)).T[:, None] for part in parts]
        values = torch.cat(found, 2).permute(1, 2, 0).float().numpy()
        mask = observations.action_mask
        if explore:
            later, floor = self.action_probabilities(observations)[1:], self._floors[0]
        else:
            later, floor = greedy_shares(self.modules, self.preferences(observations), mask)[1:], 0.0
        return votes_beyond_nothing(self.modules, values, mask, later, floor)

    def preferences(self, observations: Observations) -> list[FloatArray]:
        """Return the mean of the estimates."""
        out = [np.zeros((len(observations), *self.modules.shape(m))) for m in range(len(self.modules))]
        for rows, chunk in chunks(observations):
            for m, estimates in enumerate(self.expected_rewards(chunk)):
                out[m][rows] = estimates.mean(0)
        return out


def chunks(observations: Observations) -> Iterator[tuple[slice, Observations]]:
    """Yield chunks of rows, so that K estimates of each row fit in memory."""
    for start in range(0, len(observations), ROWS_PER_CHUNK):
        rows = slice(start, start + ROWS_PER_CHUNK)
        yield rows, observations[rows]
