"""Wrappers with one number for the whole action, for agents that only support `Discrete` actions."""

from __future__ import annotations

from typing import Any

import gymnasium as gym
import numpy as np
import numpy.typing as npt
from gymnasium import spaces
from gymnasium.utils import RecordConstructorArgs
from gymnasium.vector import VectorActionWrapper, VectorEnv
from gymnasium.vector.utils import batch_space

from crosschannel.core.action_space import ActionSpace
from crosschannel.core.arrays import BoolArray, IntArray
from crosschannel.core.errors import ConfigError

MAX_JOINT_ACTIONS = 10_000


class JointAction(gym.ActionWrapper[Any, np.int64, IntArray], RecordConstructorArgs):
    """Numbers the joint actions: action j is row j of `modules.joint_actions`, and 0 sends nothing.

    Unlike `MultiDiscrete`, it lists each action once (there is one way to send nothing) and only valid combinations of
    the modules' actions. The number of joint actions grows with the product of the modules' sizes, so use it for small
    sets of actions.

    Around a `FlatContext`, `action_masks()` returns the eligible joint actions (J,).

    Args:
        env: An env with `MultiDiscrete` actions.
        modules: The env's modules, `env.unwrapped.modules`.
    """

    def __init__(self, env: gym.Env[Any, IntArray], modules: ActionSpace) -> None:
        RecordConstructorArgs.__init__(self, modules=modules)
        gym.ActionWrapper.__init__(self, env)
        self.modules = modules
        self.action_space = spaces.Discrete(joint_size(modules, env.action_space))

    def action(self, action: np.int64) -> IntArray:
        """Return the codes (M,) of a joint action; raise `InvalidAction` if it does not exist."""
        if not self.action_space.contains(action):
            raise gym.error.InvalidAction(f"action {action!r} is not in {self.action_space}")
        return np.array(self.modules.joint_actions[action])

    def action_masks(self) -> BoolArray:
        """Return the eligible joint actions (J,) of the current slot; sending nothing is always eligible."""
        mask = self.env.get_wrapper_attr("action_masks")()
        return np.asarray(self.modules.joint_mask(mask[None])[0])


class JointActionVector(VectorActionWrapper[Any, IntArray, IntArray, npt.NDArray[Any]]):
    """`JointAction` for many users: actions (N,), `action_masks()` (N, J) around a `FlatContextVector`.

    Args:
        env: A vector env with `MultiDiscrete` actions.
        modules: The env's modules.
    """

    def __init__(self, env: VectorEnv[Any, IntArray, npt.NDArray[Any]], modules: ActionSpace) -> None:
        super().__init__(env)
        self.modules = modules
        self.single_action_space = spaces.Discrete(joint_size(modules, env.single_action_space))
        self.action_space = batch_space(self.single_action_space, env.num_envs)

    def actions(self, actions: IntArray) -> IntArray:
        """Return the codes (N, M) of joint actions (N,); raise `InvalidAction` if one does not exist."""
        if not self.action_space.contains(np.asarray(actions)):
            raise gym.error.InvalidAction(f"some actions are not in {self.single_action_space}")
        return self.modules.joint_actions[actions]

    def action_masks(self) -> BoolArray:
        """Return the eligible joint actions (N, J) of the current slots; sending nothing is always eligible."""
        return self.modules.joint_mask(self.env.action_masks())  # type: ignore[attr-defined]


def joint_size(modules: ActionSpace, space: gym.Space[Any]) -> int:
    """Return the number of joint actions.

    Raises:
        ConfigError: If the modules do not fit the action space, or there are more than `MAX_JOINT_ACTIONS`.
    """
    if not isinstance(space, spaces.MultiDiscrete) or tuple(space.nvec) != modules.sizes:
        raise ConfigError(
            f"the actions are {space}, but the modules' sizes {modules.sizes}: pass the env's own modules"
        )
    size = float(np.prod([float(size) for size in modules.sizes]))
    if size > MAX_JOINT_ACTIONS:
        raise ConfigError(
            f"{modules} has up to {size:,.0f} joint actions, more than {MAX_JOINT_ACTIONS:,}: use MultiDiscrete"
        )
    return len(modules.joint_actions)
