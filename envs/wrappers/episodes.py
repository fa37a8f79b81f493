"""What vector wrappers share that follow each row's episode: which rows act, and which begin anew."""

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
class Step:
    """What a step of N rows brought, before the wrapper.

    Attributes:
        acting: Which rows made a decision; the others began anew (N,).
        rewards: What the env paid (N,).
        terminated: Whose user unsubscribed or left (N,).
        over: Whose episode ended, in either way (N,).
        info: The env's information.
    """

    acting: BoolArray
    rewards: FloatArray
    terminated: BoolArray
    over: BoolArray
    info: dict[str, Any]


class EpisodesVector(VectorWrapper[Any, IntArray, Any, IntArray, Array], ABC):
    """A vector wrapper that is told when a row's episode begins, and of each step which rows act.

    Rows whose episode has ended do not act at the next step, at which they begin a new one (`AutoresetMode.NEXT_STEP`),
    unless they were reset before by the option `reset_mask`.
    """

    def __init__(self, env: VectorEnv[Any, IntArray, Array]) -> None:
        super().__init__(env)
        mode = env.metadata.get("autoreset_mode")
        if mode not in (AutoresetMode.NEXT_STEP, AutoresetMode.DISABLED):
            raise ConfigError(f"the env's autoreset mode is {mode}: make it with AutoresetMode.NEXT_STEP")
        self._over = np.zeros(env.num_envs, dtype=bool)

    def reset(self, *, seed: Any = None, options: dict[str, Any] | None = None) -> tuple[Any, dict[str, Any]]:
        """Resets all rows, or those of the option `reset_mask` (N,)."""
        mask = (options or {}).get("reset_mask")  # read first: some envs take it out of the options
        rows = np.ones(self.num_envs, dtype=bool) if mask is None else np.array(mask)
        observations, info = self.env.reset(seed=seed, options=options)
        self._over[rows] = False
        self.begin(rows)
        return observations, info

    def step(self, actions: IntArray) -> tuple[Any, FloatArray, BoolArray, BoolArray, dict[str, Any]]:
        """Steps all rows; those whose episode has ended begin anew instead."""
        acting = ~self._over
        observations, rewards, terminated, truncated, info = self.env.step(actions)
        self._over = terminated | truncated
        self.begin(~acting)
        rewards, told = self.follow(Step(acting, rewards, terminated, self._over, info))
        return observations, rewards, terminated, truncated, info | told

    @abstractmethod
    def begin(self, rows: BoolArray) -> None:
        """Forgets the last episode of the rows (N,)."""

    @abstractmethod
    def follow(self, step: Step) -> tuple[FloatArray, dict[str, Any]]:
        """What the wrapper pays (N,), and what it adds to the information."""
