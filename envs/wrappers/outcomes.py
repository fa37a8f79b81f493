"""Wrappers that record totals of each episode: reward, slots, messages, unsubscribes and, if known, true effects."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import gymnasium as gym
import numpy as np
from gymnasium.utils import RecordConstructorArgs
from gymnasium.vector import VectorEnv

from crosschannel.core.arrays import BoolArray, FloatArray, IntArray
from crosschannel.core.errors import ConfigError
from crosschannel.envs.wrappers.episodes import Array, EpisodeStateVector, VectorStep

#: Totals that only a market knows.
TRUE_EFFECTS = ("incremental", "true_effect")


def refuse_rejection(info: Mapping[str, Any]) -> None:
    """Check that the env is not a replay in mode `reject`, whose episodes end early at a rejection.

    Raises:
        ConfigError: If the information of a reset has that mode.
    """
    if "reject" in np.ravel(info.get("mode", "")).tolist():
        raise ConfigError(
            "a replay in mode 'reject' truncates episodes at a rejection, so that their totals are not those of the "
            "agent's policy: average over the slots with info['accepted'] instead"
        )


def step_totals(reward: Any, terminated: Any, info: Mapping[str, Any]) -> dict[str, Any]:
    """Return what a step adds to each total: numbers for one user, arrays (N,) for many.

    Raises:
        ConfigError: If the information lacks the executed action.
    """
    if "executed_action" not in info:
        raise ConfigError(f"info has {sorted(info)}, but not 'executed_action': wrap an env of this package")
    return {
        "reward": reward,
        "slots": np.ones_like(reward),
        "sends": np.not_equal(np.asarray(info["executed_action"])[..., 0], 0),
        "unsubscribed": terminated,
        **{name: info[name] for name in TRUE_EFFECTS if name in info},
    }


class RecordOutcomes(gym.Wrapper[Any, IntArray, Any, IntArray], RecordConstructorArgs):
    """Records totals of each episode, as floats, in `info["outcome"]` of its last step.

    - `reward`: the sum of rewards. On the market it is the goal value; on a replay in mode `logged` it is the
      incremental reward of the logged policy, not the agent's return.
    - `slots`, `sends`: the number of decisions, and of messages that were sent (executed, not only chosen).
    - `unsubscribed`: 1 if the episode terminated, because the user unsubscribed or left.
    - `incremental`, `true_effect`: the part of the goal value that the messages caused, and its expectation; on the
      market only.

    `means()` averages the totals over all episodes that have ended. If another wrapper changes the reward, put this one
    inside it to record goal values, or outside it to record the changed reward.

    Args:
        env: A market or a replay.
    """

    def __init__(self, env: gym.Env[Any, IntArray]) -> None:
        RecordConstructorArgs.__init__(self)
        gym.Wrapper.__init__(self, env)
        self._totals: dict[str, float] = {}
        self._sums: dict[str, float] = {}
        self.episodes = 0

    def reset(self, *, seed: int | None = None, options: dict[str, Any] | None = None) -> tuple[Any, dict[str, Any]]:
        """Start an episode, with totals of 0.

        Raises:
            ConfigError: If the env is a replay in mode `reject`.
        """
        self._totals = {}
        observation, info = self.env.reset(seed=seed, options=options)
        refuse_rejection(info)
        return observation, info

    def step(self, action: IntArray) -> tuple[Any, float, bool, bool, dict[str, Any]]:
        """Step, and add to the totals."""
        observation, reward, terminated, truncated, info = self.env.step(action)
        for name, value in step_totals(reward, terminated, info).items():
            self._totals[name] = self._totals.get(name, 0.0) + float(value)
        if terminated or truncated:
            info = info | {"outcome": dict(self._totals)}
            self.episodes += 1
            for name, value in self._totals.items():
                self._sums[name] = self._sums.get(name, 0.0) + value
        return observation, float(reward), terminated, truncated, info

    def means(self) -> dict[str, float]:
        """Return the mean of each total over the episodes that have ended; empty before the first one."""
        return {name: value / self.episodes for name, value in self._sums.items()}


class RecordOutcomesVector(EpisodeStateVector):
    """`RecordOutcomes` for many users: `info["outcome"]` has totals (N,), `info["_outcome"]` (N,) whose episode ended.

    Args:
        env: A vector env of a market or a replay.
    """

    def __init__(self, env: VectorEnv[Any, IntArray, Array]) -> None:
        super().__init__(env)
        self._totals: dict[str, FloatArray] = {}
        self._sums: dict[str, float] = {}
        self.episodes = 0

    def reset(self, *, seed: Any = None, options: dict[str, Any] | None = None) -> tuple[Any, dict[str, Any]]:
        """Reset all rows, or those of the option `reset_mask` (N,).

        Raises:
            ConfigError: If the env is a replay in mode `reject`.
        """
        observations, info = super().reset(seed=seed, options=options)
        refuse_rejection(info)
        return observations, info

    def start_episodes(self, rows: BoolArray) -> None:
        """Set the totals to 0."""
        for total in self._totals.values():
            total[rows] = 0.0

    def transform_step(self, step: VectorStep) -> tuple[FloatArray, dict[str, Any]]:
        """Add to the totals."""
        acting, over = step.acting, step.over
        if acting.any():
            for name, value in step_totals(step.rewards, step.terminated, step.info).items():
                total = self._totals.setdefault(name, np.zeros(self.num_envs))
                total[acting] += np.asarray(value, dtype=np.float64)[acting]
        outcome: dict[str, Array] = {}
        self.episodes += int(over.sum())
        for name, total in self._totals.items():
            outcome |= {name: np.where(over, total, 0.0), f"_{name}": over.copy()}
            self._sums[name] = self._sums.get(name, 0.0) + float(total[over].sum())
        return step.rewards, {"outcome": outcome, "_outcome": over.copy()}

    def means(self) -> dict[str, float]:
        """Return the mean of each total over the episodes that have ended; empty before the first one."""
        return {name: value / self.episodes for name, value in self._sums.items()} if self.episodes else {}
