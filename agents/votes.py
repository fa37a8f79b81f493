"""What voters think of the first module's actions, before shadow prices: from it follow prices and probabilities."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol, runtime_checkable

import numpy as np
import numpy.typing as npt

from crosschannel.agents.base import Observations
from crosschannel.agents.sampling import vote_shares
from crosschannel.core.action_space import ActionSpace
from crosschannel.core.arrays import BoolArray, Float32Array, FloatArray
from crosschannel.core.errors import ConfigError


class NoVotes(ConfigError):
    """An agent whose policy cannot keep constraints, because it has not learned from the components of rewards."""


@dataclass(frozen=True)
class ChannelVotes:
    """Votes at N slots.

    Attributes:
        modules: The action space.
        values: Values of the first module's actions by voter (L, N, A): action 0 sends nothing and is worth 0.
        hazards: Expected number of each cost event by the best estimate, by the first module's action (C, N, A).
        cost_names: The cost events (C).
        mask: Eligible actions of the first module, without those that cannot be completed (N, A).
        later: The policy's probabilities of the later modules (N, *shape(m)), given the channel.
        floor: Probability of a uniform draw in the first module.
    """

    modules: ActionSpace
    values: Float32Array
    hazards: FloatArray
    cost_names: tuple[str, ...]
    mask: BoolArray
    later: tuple[FloatArray, ...]
    floor: float

    def probabilities(self, costs: FloatArray | None = None) -> list[FloatArray]:
        """Return the policy's probabilities, one array (N, *shape(m)) per module.

        Args:
            costs: What each action of the first module costs at shadow prices (N, A); by default nothing.
        """
        values = self.values if costs is None else self.values - costs
        return [vote_shares(self.modules, 0, values, self.mask, self.floor), *self.later]


@runtime_checkable
class PriceableAgent(Protocol):
    """An agent whose policy can keep constraints: it shows the votes that shadow prices act on."""

    def votes(self, observations: Observations, *, explore: bool = True) -> ChannelVotes:
        """Return the votes of N slots; without exploration, those of the best estimate alone.

        Raises:
            NoVotes: If the agent has not learned what votes on cost events need.
        """
        ...


def votes_beyond_nothing(
    modules: ActionSpace,
    values: npt.NDArray[np.floating],
    action_mask: BoolArray,
    later: Sequence[FloatArray],
    floor: float,
) -> ChannelVotes:
    """Return votes from estimates of every action, sending nothing included, of an agent that knows no hazards.

    Args:
        modules: The action space.
        values: Estimates of the first module's actions by voter (L, N, A), in reward units.
        action_mask: Eligible actions (N, sum of actions).
        later: The policy's probabilities of the later modules (N, *shape(m)).
        floor: Probability of a uniform draw in the first module.
    """
    beyond = np.asarray(values - values[..., :1], dtype=np.float32)
    mask = modules.feasible_mask(action_mask)[:, modules.slices[0]]
    return ChannelVotes(
        modules=modules,
        values=beyond,
        hazards=np.zeros((0, *mask.shape)),
        cost_names=(),
        mask=mask,
        later=tuple(later),
        floor=floor,
    )
