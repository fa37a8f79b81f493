"""One number for the whole action, for agents that know only `Discrete` actions."""

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

MAX_JOINT = 10_000


class JointAction(gym.ActionWrapper[Any, np.int64, IntArray], RecordConstructorArgs):
    """Numbers the joint actions: action j is row j of `modules.joint_actions`, and 0 sends nothing.

    Unlike `MultiDiscrete`, it lists each action once (nothing is sent in one way only) and none whose modules do not
    fit together. The number of joint actions is the product of the modules' sizes: right for small sets, where one in
    hundreds is tried often enough to be learned about.

    Over a `FlatContext`, `action_masks()` gives the eligible joint actions (J,).

    Args:
        env: An env with `MultiDiscrete` actions.
        modules: Its modules, such as `env.unwrapped.market.modules` or `env.unwrapped.log.modules`.
    """

    def __init__(self, env: gym.Env[Any, IntArray], modules: ActionSpace) -> None:
        RecordConstructorArgs.__init__(self, modules=modules)
        gym.ActionWrapper.__init__(self, env)
        self.modules = modules
        self.action_space = spaces.Discrete(joint_size(modules, env.action_space))

    def action(self, action: np.int64) -> IntArray:
        """The codes (M,) of a joint action; raises `InvalidAction` if there is no such one."""
        if not self.action_space.contains(action):
            raise gym.error.InvalidAction(f"action {action!r} is not in {self.action_space}")
        return np.array(self.modules.joint_actions[action])

    def action_masks(self) -> BoolArray:
        """The eligible joint actions (J,) of the slot that is seen now; sending nothing always is."""
        mask = self.env.get_wrapper_attr("action_masks")()
        return np.asarray(self.modules.joint_mask(mask[None])[0])


class JointActionVector(VectorActionWrapper[Any, IntArray, IntArray, npt.NDArray[Any]]):
    """The same for many users: actions (N,), `action_masks()` (N, J) over a `FlatContextVector`.

    Args:
        env: A vector env with `MultiDiscrete` actions.
        modules: Its modules.
    """

    def __init__(self, env: VectorEnv[Any, IntArray, npt.NDArray[Any]], modules: ActionSpace) -> None:
        super().__init__(env)
        self.modules = modules
        self.single_action_space = spaces.Discrete(joint_size(modules, env.single_action_space))
        self.action_space = batch_space(self.single_action_space, env.num_envs)

    def actions(self, actions: IntArray) -> IntArray:
        """The codes (N, M) of joint actions (N,); raises `InvalidAction` if one is none."""
        if not self.action_space.contains(np.asarray(actions)):
            raise gym.error.InvalidAction(f"some actions are not in {self.single_action_space}")
        return self.modules.joint_actions[actions]

    def action_masks(self) -> BoolArray:
        """The eligible joint actions (N, J) of the slots that are seen now; sending nothing always is."""
        return self.modules.joint_mask(self.env.action_masks())  # type: ignore[attr-defined]


def joint_size(modules: ActionSpace, space: gym.Space[Any]) -> int:
    """How many joint actions there are.

    Raises:
        ConfigError: If the modules are not those of the action space, or there are more than `MAX_JOINT`.
    """
    if not isinstance(space, spaces.MultiDiscrete) or tuple(space.nvec) != modules.sizes:
        raise ConfigError(
            f"the actions are {space}, the modules' sizes {modules.sizes}: hand over the env's own modules"
        )
    size = float(np.prod([float(size) for size in modules.sizes]))
    if size > MAX_JOINT:
        raise ConfigError(f"{modules} has up to {size:,.0f} joint actions, above {MAX_JOINT:,}: keep MultiDiscrete")
    return len(modules.joint_actions)
