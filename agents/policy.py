"""Base classes of agents: sampling from exact probabilities, a random state, and voting estimates."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterator, Mapping
from typing import Any

import numpy as np

from crosschannel.agents.base import Batch, Decisions, Observations
from crosschannel.agents.buffers.buffer import check_batch
from crosschannel.agents.sampling import floor_by_module, greedy_shares, sample_actions, vote_shares
from crosschannel.agents.settings import Floor
from crosschannel.core.action_space import ActionSpace
from crosschannel.core.arrays import FloatArray
from crosschannel.core.serialization import generator_state, restore_generator

ROWS_PER_CHUNK = 2048


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
    r"""A policy that samples one of K estimates for every decision and acts greedily on it.

    The probability of an action is therefore its share of the votes, mixed with a floor (`vote_shares`): exact given
    the K estimates, which are part of the agent's state.

    Args:
        modules: The action space.
        seed: Seed of the sampled actions.
        floor: Probability of a uniform draw, one number or one by module name.
        exploration_scale: Scale of the estimates' deviations from their mean when sampling; 1 is standard Thompson
            sampling, 0 is greedy.
    """

    def __init__(self, modules: ActionSpace, seed: int, floor: Floor, exploration_scale: float) -> None:
        super().__init__(modules, seed)
        self._floors = floor_by_module(modules, floor)
        self._exploration_scale = exploration_scale

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
                mean = estimates.mean(0)
                votes = mean + self._exploration_scale * (estimates - mean)
                out[m][rows] = vote_shares(self.modules, m, votes, parts[m][rows], self._floors[m])
        return out

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
