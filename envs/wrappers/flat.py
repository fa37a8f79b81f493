"""One flat observation for standard agents: the context, and behind it the mask of eligible actions."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import gymnasium as gym
import numpy as np
import numpy.typing as npt
from gymnasium import spaces
from gymnasium.utils import RecordConstructorArgs
from gymnasium.vector import VectorEnv, VectorObservationWrapper
from gymnasium.vector.utils import batch_space

from crosschannel.core.arrays import BoolArray, IntArray
from crosschannel.core.errors import ConfigError

Float32Array = npt.NDArray[np.float32]
Observation = Mapping[str, npt.NDArray[Any]]


def flatten(observation: Observation) -> Float32Array:
    """Context (..., D) and action mask (..., A) one after the other: (..., D + A) float32, the mask as 0 and 1.

    A policy that learned behind `FlatContext` is deployed by giving it this.
    """
    mask = np.asarray(observation["action_mask"], dtype=np.float32)
    return np.concatenate([observation["context"], mask], axis=-1)


def flat_space(space: gym.Space[Any]) -> gym.Space[Any]:
    """The space (D + A,) of flattened observations.

    Raises:
        ConfigError: If the observations are no `Dict` of `context` and `action_mask`.
    """
    if not isinstance(space, spaces.Dict) or set(space) != {"context", "action_mask"}:
        raise ConfigError(f"observations are {space}, not a Dict of context and action_mask: flatten them only once")
    context, mask = space["context"], space["action_mask"]
    assert isinstance(context, spaces.Box)
    assert isinstance(mask, spaces.MultiBinary)
    return spaces.Box(
        np.concatenate([context.low, np.zeros(mask.shape, dtype=np.float32)]),
        np.concatenate([context.high, np.ones(mask.shape, dtype=np.float32)]),
        dtype=np.float32,
    )


class FlatContext(gym.ObservationWrapper[Float32Array, IntArray, Any], RecordConstructorArgs):
    """Gives `Box` observations (D + A,) float32 instead of a `Dict`: see `flatten`.

    Actions stay `MultiDiscrete`. The mask stays in reach of agents that sample under one: `action_masks()` gives it
    for the slot that is seen now, under the name and in the layout (all modules one after the other) by which masked
    policy-gradient agents ask for it (Huang & Ontanon, 2022, "A closer look at invalid action masking in policy
    gradient algorithms", FLAIRS). An agent that does not ask loses nothing but tries: the market executes an ineligible
    action as sending nothing.

    Args:
        env: An env whose observations are a `Dict` of `context` and `action_mask`.
    """

    def __init__(self, env: gym.Env[Any, IntArray]) -> None:
        RecordConstructorArgs.__init__(self)
        gym.ObservationWrapper.__init__(self, env)
        self.observation_space = flat_space(env.observation_space)
        self._mask: BoolArray | None = None

    def observation(self, observation: Observation) -> Float32Array:
        """The flat observation."""
        self._mask = np.array(observation["action_mask"], dtype=bool)
        return flatten(observation)

    def action_masks(self) -> BoolArray:
        """The eligible actions (sum of actions,) of the slot that is seen now, as a copy.

        Raises:
            ResetNeeded: If nothing was seen yet.
        """
        return seen(self._mask)


class FlatContextVector(VectorObservationWrapper[Float32Array, IntArray, Any, npt.NDArray[Any]]):
    """The same for many users: observations (N, D + A), `action_masks()` (N, sum of actions).

    Args:
        env: A vector env whose observations are a `Dict` of `context` and `action_mask`.
    """

    def __init__(self, env: VectorEnv[Any, IntArray, npt.NDArray[Any]]) -> None:
        super().__init__(env)
        self.single_observation_space = flat_space(env.single_observation_space)
        self.observation_space = batch_space(self.single_observation_space, env.num_envs)
        self._mask: BoolArray | None = None

    def observations(self, observations: Observation) -> Float32Array:
        """The flat observations."""
        self._mask = np.array(observations["action_mask"], dtype=bool)
        return flatten(observations)

    def action_masks(self) -> BoolArray:
        """The eligible actions (N, sum of actions) of the slots that are seen now, as a copy.

        Raises:
            ResetNeeded: If nothing was seen yet.
        """
        return seen(self._mask)


def seen(mask: BoolArray | None) -> BoolArray:
    """A copy of the mask.

    Raises:
        ResetNeeded: If there is none yet.
    """
    if mask is None:
        raise gym.error.ResetNeeded("no slot was seen yet: call reset() first")
    return mask.copy()
