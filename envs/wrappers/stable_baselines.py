"""A native vector env as the `VecEnv` of Stable-Baselines3, so that its agents learn from many users at once.

Not imported by `envs.wrappers`: it needs Stable-Baselines3, `pip install stable-baselines3`.
"""

from __future__ import annotations

from typing import Any

import gymnasium as gym
import numpy as np
import numpy.typing as npt
from gymnasium.vector import VectorEnv
from stable_baselines3.common.vec_env import VecEnv

from crosschannel.core.errors import ConfigError

Array = npt.NDArray[Any]


class StableBaselinesVec(VecEnv):
    """Steps all users of a vector env as arrays: many times as fast as one env a user.

    Stable-Baselines3 wants the first slot of the next user at the step at which an episode ends, and the last
    observation as `terminal_observation` beside it. The rows that have ended are therefore reset at once, by the option
    `reset_mask`; no step is lost, and none is added. `infos` are empty but at an episode's end, where `outcome` holds
    what `RecordOutcomesVector` has recorded, if it is beneath.

    Args:
        env: A vector env whose observations are arrays: `FlatContextVector`, with any other wrapper beneath.
    """

    def __init__(self, env: VectorEnv[Array, Array, Array]) -> None:
        self.env = env
        super().__init__(env.num_envs, env.single_observation_space, env.single_action_space)
        self._actions = np.empty(0, dtype=np.int64)

    def reset(self) -> Array:
        """Begins all episodes, with the seed of the last call to `seed`, if there was one since.

        Raises:
            ConfigError: If the env is a replay.
        """
        observations, info = self.env.reset(seed=self._seeds[0])
        if "mode" in info:
            raise ConfigError(
                "a replay pays what the logged action earned, and Stable-Baselines3 would learn it as the worth of its "
                "own: learn from info['executed_action'] with an agent of this package, or use the market"
            )
        self._reset_seeds()
        return observations

    def step_async(self, actions: Array) -> None:
        """Keeps the actions (N, M) for `step_wait`."""
        self._actions = actions

    def step_wait(self) -> tuple[Array, Array, Array, list[dict[str, Any]]]:
        """Steps all users, and begins the next episode where one has ended."""
        observations, rewards, terminated, truncated, info = self.env.step(self._actions)
        over = terminated | truncated
        infos: list[dict[str, Any]] = [{} for _ in range(self.num_envs)]
        outcome = info.get("outcome", {})
        for row in np.flatnonzero(over):
            infos[row] = {
                "terminal_observation": observations[row],
                "TimeLimit.truncated": bool(truncated[row]),
                "outcome": {name: float(total[row]) for name, total in outcome.items() if not name.startswith("_")},
            }
        if over.any():
            observations, _ = self.env.reset(options={"reset_mask": over})
        return observations, rewards.astype(np.float32), over, infos

    def close(self) -> None:
        """Closes the env."""
        self.env.close()

    def env_method(self, method_name: str, *args: Any, indices: Any = None, **kwargs: Any) -> list[Any]:
        """Calls a method of the vector env that gives one row a user, such as `action_masks`; a list of rows."""
        rows = getattr(self.env, method_name)(*args, **kwargs)
        return [rows[row] for row in self._get_indices(indices)]

    def get_attr(self, attr_name: str, indices: Any = None) -> list[Any]:
        """The vector env's attribute, the same for each user.

        Raises:
            AttributeError: If it has none of this name.
        """
        return [getattr(self.env, attr_name) for _ in self._get_indices(indices)]

    def set_attr(self, attr_name: str, value: Any, indices: Any = None) -> None:
        """Sets an attribute of the vector env.

        Raises:
            ConfigError: If it is to be set for some users only: they share it.
        """
        if indices is not None:
            raise ConfigError(f"the users share {attr_name!r}: set it for all of them, without indices")
        setattr(self.env, attr_name, value)

    def env_is_wrapped(self, wrapper_class: type[gym.Wrapper[Any, Any, Any, Any]], indices: Any = None) -> list[bool]:
        """No user has a wrapper of its own."""
        del wrapper_class
        return [False for _ in self._get_indices(indices)]
