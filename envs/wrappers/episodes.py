"""Base class of vector wrappers that keep state for each row's episode."""

from __future__ import annotations

from abc import ABC, abstractmethod
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
from gymnasium.vector import AutoresetMode, VectorEnv, VectorWrapper

from crosschannel.core.arrays import BoolArray, FloatArray, IntArray
from crosschannel.core.errors import ConfigError

Array = npt.NDArray[Any]


@dataclass(frozen=True)
class VectorStep:
    """Result of a step of N rows, before the wrapper changes it.

    Attributes:
        acting: Whether the row made a decision; the other rows started a new episode (N,).
        rewards: Rewards of the env (N,).
        terminated: Whether the user unsubscribed or left (N,).
        over: Whether the episode ended, terminated or truncated (N,).
        info: Information of the env.
    """

    acting: BoolArray
    rewards: FloatArray
    terminated: BoolArray
    over: BoolArray
    info: dict[str, Any]


class EpisodeStateVector(VectorWrapper[Any, IntArray, Any, IntArray, Array], ABC):
    """A vector wrapper that knows when a row's episode starts, and which rows act at each step.

    Rows whose episode has ended do not act at the next step, which starts a new one (`AutoresetMode.NEXT_STEP`), unless
    they were reset before with the option `reset_mask`.
    """

    def __init__(self, env: VectorEnv[Any, IntArray, Array]) -> None:
        super().__init__(env)
        mode = env.metadata.get("autoreset_mode")
        if mode not in (AutoresetMode.NEXT_STEP, AutoresetMode.DISABLED):
            raise ConfigError(f"the env's autoreset mode is {mode}: create it with AutoresetMode.NEXT_STEP")
        self._over = np.zeros(env.num_envs, dtype=bool)

    def reset(self, *, seed: Any = None, options: dict[str, Any] | None = None) -> tuple[Any, dict[str, Any]]:
        """Reset all rows, or those of the option `reset_mask` (N,)."""
        mask = (options or {}).get("reset_mask")  # read first: some envs remove it from the options
        rows = np.ones(self.num_envs, dtype=bool) if mask is None else np.array(mask)
        observations, info = self.env.reset(seed=seed, options=options)
        self._over[rows] = False
        self.start_episodes(rows)
        return observations, info

    def step(self, actions: IntArray) -> tuple[Any, FloatArray, BoolArray, BoolArray, dict[str, Any]]:
        """Step all rows; those whose episode has ended start a new one instead."""
        acting = ~self._over
        observations, rewards, terminated, truncated, info = self.env.step(actions)
        self._over = terminated | truncated
        self.start_episodes(~acting)
        step = VectorStep(acting=acting, rewards=rewards, terminated=terminated, over=self._over, info=info)
        rewards, added = self.transform_step(step)
        return observations, rewards, terminated, truncated, info | added

    @abstractmethod
    def start_episodes(self, rows: BoolArray) -> None:
        """Reset what the wrapper keeps of the episodes of the rows (N,)."""

    @abstractmethod
    def transform_step(self, step: VectorStep) -> tuple[FloatArray, dict[str, Any]]:
        """Return the rewards (N,) of the wrapper, and what it adds to the information."""
