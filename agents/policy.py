"""What the simple agents share: drawing from exact probabilities, a random state, and votes."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterator, Mapping
from typing import Any

import numpy as np

from crosschannel.agents.base import Batch, Decisions, Observations
from crosschannel.agents.buffers.buffer import check_batch
from crosschannel.agents.sampling import Floor, draw, floors, greedy, vote_shares
from crosschannel.core.action_space import ActionSpace
from crosschannel.core.arrays import FloatArray
from crosschannel.core.serialization import generator_state, restore_generator

CHUNK = 2048


class Policy(ABC):
    """A policy that draws its actions from the probabilities that it states, so that these are exact.

    Args:
        modules: What can be chosen.
        seed: Seed of the draws.
    """

    def __init__(self, modules: ActionSpace, seed: int) -> None:
        self.modules = modules
        self._draws = np.random.default_rng([seed, 1])

    def act(self, observations: Observations, *, explore: bool = True) -> Decisions:
        """Draws from the policy; without `explore`, takes the action that it prefers."""
        if explore:
            return draw(self.modules, self.action_probabilities(observations), self._draws)
        preferred = greedy(self.modules, self.preferences(observations), observations.action_mask)
        return draw(self.modules, preferred, self._draws)

    @abstractmethod
    def action_probabilities(self, observations: Observations) -> list[FloatArray]:
        """Exact probabilities, one array (N, *modules.shape(m)) a module."""

    def preferences(self, observations: Observations) -> list[FloatArray]:
        """What is largest for the preferred action, one array (N, *modules.shape(m)) a module: the probabilities."""
        return self.action_probabilities(observations)

    def observe(self, batch: Batch) -> None:
        """Nothing is learned from rewards; they are checked all the same.

        Raises:
            InputError: If a row cannot be learned from.
        """
        check_batch(batch, self.modules)

    def update(self, steps: int = 1) -> dict[str, float]:  # noqa: ARG002
        """Nothing to learn."""
        return {}

    def state_dict(self) -> dict[str, Any]:
        """The random state."""
        return {"rng": generator_state(self._draws)}

    def policy_state_dict(self) -> dict[str, Any]:
        """What deciding needs: the whole state, where no more than that is kept."""
        return self.state_dict()

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """The inverse of `state_dict`."""
        restore_generator(self._draws, state["rng"])


class Voting(Policy):
    r"""A policy that draws one of K estimates for every decision and takes what is best by it.

    The probability of an action is therefore its share of the votes, mixed with a floor (`agents.choice.vote_shares`):
    exact given the K estimates, which are part of the agent's state.

    Args:
        modules: What can be chosen.
        seed: Seed of the draws.
        floor: Share of uniform draws, one number or one by module's name.
        spread: How far the estimates that vote stray from their mean, in their own deviations: 1 is Thompson sampling
            proper, less explores less, and with 0 all vote for what is best by the mean.
    """

    def __init__(self, modules: ActionSpace, seed: int, floor: Floor, spread: float) -> None:
        super().__init__(modules, seed)
        self._floors = floors(modules, floor)
        self._spread = spread

    @abstractmethod
    def expected_rewards(self, observations: Observations) -> list[FloatArray]:
        """The K estimates of each module's actions, (K, N, *modules.shape(m)) a module, in reward units.

        Their spread is that of what is believed, whatever the setting of the votes.
        """

    def action_probabilities(self, observations: Observations) -> list[FloatArray]:
        """Vote shares with their floors."""
        parts = self.modules.split(self.modules.feasible_mask(observations.action_mask))
        out = [np.zeros((len(observations), *self.modules.shape(m))) for m in range(len(self.modules))]
        for rows, chunk in chunks(observations):
            for m, estimates in enumerate(self.expected_rewards(chunk)):
                mean = estimates.mean(0)
                votes = mean + self._spread * (estimates - mean)
                out[m][rows] = vote_shares(self.modules, m, votes, parts[m][rows], self._floors[m])
        return out

    def preferences(self, observations: Observations) -> list[FloatArray]:
        """The mean of the estimates."""
        out = [np.zeros((len(observations), *self.modules.shape(m))) for m in range(len(self.modules))]
        for rows, chunk in chunks(observations):
            for m, estimates in enumerate(self.expected_rewards(chunk)):
                out[m][rows] = estimates.mean(0)
        return out


def chunks(observations: Observations) -> Iterator[tuple[slice, Observations]]:
    """Pieces of the rows that keep K estimates of each in bounded memory."""
    for start in range(0, len(observations), CHUNK):
        rows = slice(start, start + CHUNK)
        yield rows, observations[rows]
