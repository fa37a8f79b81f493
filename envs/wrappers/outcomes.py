"""Records what each episode brought: reward, slots, messages, unsubscribes and, where it is known, what they caused."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import gymnasium as gym
import numpy as np
from gymnasium.utils import RecordConstructorArgs
from gymnasium.vector import VectorEnv

from crosschannel.core.arrays import BoolArray, FloatArray, IntArray
from crosschannel.core.errors import ConfigError
from crosschannel.envs.wrappers.episodes import Array, EpisodesVector, Step

#: What only a market knows of a step.
CAUSED = ("incremental", "true_effect")


def refuse_rejection(info: Mapping[str, Any]) -> None:
    """In mode `reject` an episode ends where the log parts from the agent: its totals are of no policy's episodes.

    Raises:
        ConfigError: If the information of a reset tells of that mode.
    """
    if "reject" in np.ravel(info.get("mode", "")).tolist():
        raise ConfigError(
            "a replay in mode 'reject' breaks episodes off where the log rejects the agent, and totals of such "
            "episodes are of no policy: average over the slots with info['accepted'] instead"
        )


def amounts(reward: Any, terminated: Any, info: Mapping[str, Any]) -> dict[str, Any]:
    """What a step adds to each total: numbers for one user, arrays (N,) for many.

    Raises:
        ConfigError: If the information does not say what was executed.
    """
    if "executed_action" not in info:
        raise ConfigError(f"info has {sorted(info)}, but no executed_action: wrap an env of this package")
    return {
        "reward": reward,
        "slots": np.ones_like(reward),
        "sends": np.not_equal(np.asarray(info["executed_action"])[..., 0], 0),
        "unsubscribed": terminated,
        **{name: info[name] for name in CAUSED if name in info},
    }


class RecordOutcomes(gym.Wrapper[Any, IntArray, Any, IntArray], RecordConstructorArgs):
    """Sums up each episode; `info["outcome"]` of its last step has the totals as floats.

    - `reward`: the sum of what was paid: the goal value on the market. On a replay in mode `logged` it is the logged
      policy's incremental reward, and never the agent's return.
    - `slots`, `sends`: decisions, and those at which a message was sent: executed, not only chosen.
    - `unsubscribed`: 1 if the episode terminated, as the user unsubscribed or left.
    - `incremental`, `true_effect`: the part of the goal value that the messages caused, and its expectation. Only a
      market knows them.

    `means()` averages the totals over all episodes that have ended. Where a further wrapper changes the reward,
    this one belongs under it to record goal values, and over it to record what the agent was paid.

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
        """Begins an episode, with totals of 0.

        Raises:
            ConfigError: If the env is a replay in mode `reject`.
        """
        self._totals = {}
        observation, info = self.env.reset(seed=seed, options=options)
        refuse_rejection(info)
        return observation, info

    def step(self, action: IntArray) -> tuple[Any, float, bool, bool, dict[str, Any]]:
        """Steps, and adds up what the step brought."""
        observation, reward, terminated, truncated, info = self.env.step(action)
        for name, value in amounts(reward, terminated, info).items():
            self._totals[name] = self._totals.get(name, 0.0) + float(value)
        if terminated or truncated:
            info = info | {"outcome": dict(self._totals)}
            self.episodes += 1
            for name, value in self._totals.items():
                self._sums[name] = self._sums.get(name, 0.0) + value
        return observation, float(reward), terminated, truncated, info

    def means(self) -> dict[str, float]:
        """The mean of each total over the episodes that have ended; empty before the first has."""
        return {name: value / self.episodes for name, value in self._sums.items()}


class RecordOutcomesVector(EpisodesVector):
    """The same for many users: `info["outcome"]` has each total (N,), and `info["_outcome"]` (N,) whose episode ended.

    Args:
        env: A vector env of a market or a replay.
    """

    def __init__(self, env: VectorEnv[Any, IntArray, Array]) -> None:
        super().__init__(env)
        self._totals: dict[str, FloatArray] = {}
        self._sums: dict[str, float] = {}
        self.episodes = 0

    def reset(self, *, seed: Any = None, options: dict[str, Any] | None = None) -> tuple[Any, dict[str, Any]]:
        """Resets all rows, or those of the option `reset_mask` (N,).

        Raises:
            ConfigError: If the env is a replay in mode `reject`.
        """
        observations, info = super().reset(seed=seed, options=options)
        refuse_rejection(info)
        return observations, info

    def begin(self, rows: BoolArray) -> None:
        """Totals of 0."""
        for total in self._totals.values():
            total[rows] = 0.0

    def follow(self, step: Step) -> tuple[FloatArray, dict[str, Any]]:
        """Adds up what the step brought."""
        acting, over = step.acting, step.over
        if acting.any():
            for name, value in amounts(step.rewards, step.terminated, step.info).items():
                total = self._totals.setdefault(name, np.zeros(self.num_envs))
                total[acting] += np.asarray(value, dtype=np.float64)[acting]
        outcome: dict[str, Array] = {}
        self.episodes += int(over.sum())
        for name, total in self._totals.items():
            outcome |= {name: np.where(over, total, 0.0), f"_{name}": over.copy()}
            self._sums[name] = self._sums.get(name, 0.0) + float(total[over].sum())
        return step.rewards, {"outcome": outcome, "_outcome": over.copy()}

    def means(self) -> dict[str, float]:
        """The mean of each total over the episodes that have ended; empty before the first has."""
        return {name: value / self.episodes for name, value in self._sums.items()} if self.episodes else {}
