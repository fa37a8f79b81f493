"""Adapter of a native vector env to the `VecEnv` of Stable-Baselines3, so that its agents train on many users at once.

It needs Stable-Baselines3, `pip install stable-baselines3`; `envs.wrappers` imports it when it is first used.
"""

from __future__ import annotations

from typing import Any

import gymnasium as gym
import numpy as np
import numpy.typing as npt
from gymnasium.vector import VectorEnv

from crosschannel.core.errors import ConfigError

try:
    from stable_baselines3.common.vec_env import VecEnv
except ImportError as error:
    raise ImportError("StableBaselinesVec needs Stable-Baselines3: pip install stable-baselines3") from error

Array = npt.NDArray[Any]
Observations = Array | dict[str, Array]


class StableBaselinesVec(VecEnv):
    """Steps all users of a vector env with array operations, many times as fast as one env per user.

    At the step that ends an episode, Stable-Baselines3 expects the first observation of the next episode, and the last
    one as `terminal_observation` in the information. Rows whose episode has ended are therefore reset in the same step,
    with the option `reset_mask`; the number of steps does not change. `infos` are empty except at the end of an
    episode, where `outcome` has the totals of a `RecordOutcomesVector` inside this wrapper.

    Observations may be a `Dict`, as an env returns them (`MultiInputPolicy`), or arrays, which need
    `FlatContextVector` around all other wrappers (`MlpPolicy`, and agents that call `action_masks`).

    Args:
        env: A vector env.
    """

    def __init__(self, env: VectorEnv[Any, Array, Array]) -> None:
        self.env = env
        super().__init__(env.num_envs, env.single_observation_space, env.single_action_space)
        self._actions = np.empty(0, dtype=np.int64)

    def reset(self) -> Observations:
        """Start all episodes, with the seed of the last call to `seed` since the previous reset.

        Raises:
            ConfigError: If the env is a replay.
        """
        observations: Observations
        observations, info = self.env.reset(seed=self._seeds[0])
        if "mode" in info:
            raise ConfigError(
                "a replay pays the reward of the logged action, which Stable-Baselines3 would take for that of its own "
                "action: learn from info['executed_action'] with an agent of this package, or use the market"
            )
        self._reset_seeds()
        return observations

    def step_async(self, actions: Array) -> None:
        """Store the actions (N, M) for `step_wait`."""
        self._actions = actions

    def step_wait(self) -> tuple[Observations, Array, Array, list[dict[str, Any]]]:
        """Step all users, and start the next episode of each user whose episode has ended."""
        observations, rewards, terminated, truncated, info = self.env.step(self._actions)
        over = terminated | truncated
        infos: list[dict[str, Any]] = [{} for _ in range(self.num_envs)]
        outcome = info.get("outcome", {})
        for row in np.flatnonzero(over).tolist():
            infos[row] = {
                "terminal_observation": _row(observations, row),
                "TimeLimit.truncated": bool(truncated[row]),
                "outcome": {name: float(total[row]) for name, total in outcome.items() if not name.startswith("_")},
            }
        if over.any():
            observations, _ = self.env.reset(options={"reset_mask": over})
        return observations, rewards.astype(np.float32), over, infos

    def close(self) -> None:
        """Close the env."""
        self.env.close()

    def env_method(self, method_name: str, *args: Any, indices: Any = None, **kwargs: Any) -> list[Any]:
        """Call a method of the vector env with one row per user, such as `action_masks`; return a list of rows."""
        rows = getattr(self.env, method_name)(*args, **kwargs)
        return [rows[row] for row in self._get_indices(indices)]

    def get_attr(self, attr_name: str, indices: Any = None) -> list[Any]:
        """Return an attribute of the vector env, the same for each user.

        Raises:
            AttributeError: If there is no such attribute.
        """
        return [getattr(self.env, attr_name) for _ in self._get_indices(indices)]

    def set_attr(self, attr_name: str, value: Any, indices: Any = None) -> None:
        """Set an attribute of the vector env.

        Raises:
            ConfigError: If indices are given: the users share the attribute.
        """
        if indices is not None:
            raise ConfigError(f"all users share {attr_name!r}: set it without indices")
        setattr(self.env, attr_name, value)

    def env_is_wrapped(self, wrapper_class: type[gym.Wrapper[Any, Any, Any, Any]], indices: Any = None) -> list[bool]:
        """Return False for each user: no user has a wrapper of its own."""
        del wrapper_class
        return [False for _ in self._get_indices(indices)]


def _row(observations: Observations, row: int) -> Observations:
    """Return a copy of one user's observation."""
    if isinstance(observations, dict):
        return {name: np.array(values[row]) for name, values in observations.items()}
    return np.array(observations[row])
