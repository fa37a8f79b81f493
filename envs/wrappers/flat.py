"""Wrappers with flat observations for standard agents: the context, followed by the mask of eligible actions."""

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

from crosschannel.core.arrays import BoolArray, Float32Array, IntArray
from crosschannel.core.errors import ConfigError

Observation = Mapping[str, npt.NDArray[Any]]


def flatten(observation: Observation) -> Float32Array:
    """Concatenate context (..., D) and action mask (..., A) to (..., D + A) float32, with the mask as 0 and 1.

    A policy that was trained with `FlatContext` needs observations of this form in deployment.
    """
    mask = np.asarray(observation["action_mask"], dtype=np.float32)
    return np.concatenate([observation["context"], mask], axis=-1)


def flat_space(space: gym.Space[Any]) -> gym.Space[Any]:
    """Return the space (D + A,) of flat observations.

    Raises:
        ConfigError: If the observations are not a `Dict` of `context` and `action_mask`.
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
    """Returns `Box` observations (D + A,) float32 instead of a `Dict`: see `flatten`.

    Actions stay `MultiDiscrete`. Agents that sample under a mask get it for the current slot from `action_masks()`,
    with the name and the layout (all modules one after the other) that masked policy-gradient agents expect (Huang &
    Ontanon, 2022, "A closer look at invalid action masking in policy gradient algorithms", FLAIRS). Other agents may
    choose ineligible actions, which the market executes as sending nothing.

    Args:
        env: An env whose observations are a `Dict` of `context` and `action_mask`.
    """

    def __init__(self, env: gym.Env[Any, IntArray]) -> None:
        RecordConstructorArgs.__init__(self)
        gym.ObservationWrapper.__init__(self, env)
        self.observation_space = flat_space(env.observation_space)
        self._mask: BoolArray | None = None

    def observation(self, observation: Observation) -> Float32Array:
        """Return the flat observation."""
        self._mask = np.array(observation["action_mask"], dtype=bool)
        return flatten(observation)

    def action_masks(self) -> BoolArray:
        """Return the eligible actions (sum of actions,) of the current slot, as a copy.

        Raises:
            ResetNeeded: If there was no observation yet.
        """
        return copy_of_mask(self._mask)


class FlatContextVector(VectorObservationWrapper[Float32Array, IntArray, Any, npt.NDArray[Any]]):
    """`FlatContext` for many users: observations (N, D + A), `action_masks()` (N, sum of actions).

    Args:
        env: A vector env whose observations are a `Dict` of `context` and `action_mask`.
    """

    def __init__(self, env: VectorEnv[Any, IntArray, npt.NDArray[Any]]) -> None:
        super().__init__(env)
        self.single_observation_space = flat_space(env.single_observation_space)
        self.observation_space = batch_space(self.single_observation_space, env.num_envs)
        self._mask: BoolArray | None = None

    def observations(self, observations: Observation) -> Float32Array:
        """Return the flat observations."""
        self._mask = np.array(observations["action_mask"], dtype=bool)
        return flatten(observations)

    def action_masks(self) -> BoolArray:
        """Return the eligible actions (N, sum of actions) of the current slots, as a copy.

        Raises:
            ResetNeeded: If there was no observation yet.
        """
        return copy_of_mask(self._mask)


def copy_of_mask(mask: BoolArray | None) -> BoolArray:
    """Return a copy of the mask.

    Raises:
        ResetNeeded: If there is none yet.
    """
    if mask is None:
        raise gym.error.ResetNeeded("there was no observation yet: call reset() first")
    return mask.copy()
