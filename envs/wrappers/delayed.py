"""Pays each reward when its window has closed, and says which decision it belongs to."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import gymnasium as gym
import numpy as np
from gymnasium.utils import RecordConstructorArgs
from gymnasium.vector import VectorEnv

from crosschannel.core.arrays import BoolArray, FloatArray, IntArray
from crosschannel.core.errors import ConfigError
from crosschannel.envs.replay.log import ReplayLog
from crosschannel.envs.wrappers.episodes import Array, EpisodesVector, Step
from crosschannel.histories.windows import Timeline

Delay = int | Callable[[Mapping[str, Any]], Any]

NEVER = np.iinfo(np.int64).max


@dataclass(frozen=True, eq=False)
class LogDelay:
    """After how many further slots each reward of a log is known: `DelayedReward(env, LogDelay.of(env.unwrapped.log))`.

    Attributes:
        slots: By row of the history's decisions: how many later slots of the same user lie before `available_at`.
    """

    slots: IntArray

    @classmethod
    def of(cls, log: ReplayLog) -> LogDelay:
        """Counts the slots of each step's user between the step and the time at which its reward is known."""
        order = np.lexsort((log.time, log.user))
        user, time = log.user[order], log.time[order]
        slots = Timeline(time, np.searchsorted(user, np.arange(log.n_users + 1)))
        known = np.maximum(log.available_at[order], time + 1)
        out = np.zeros(int(log.decision_row.max()) + 1, dtype=np.int64)
        out[log.decision_row[order]] = slots.before(user, known) - np.arange(len(user)) - 1
        return cls(out)

    def __call__(self, info: Mapping[str, Any]) -> Any:
        """The delay of the decision that a step's information is about; (N,) for many users."""
        return self.slots[info["decision_row"]]


def slots_of(delay: Delay, info: Mapping[str, Any]) -> Any:
    """The delay in slots of what a step's information is about."""
    return delay(info) if callable(delay) else delay


def known_delay(delay: Delay) -> Delay:
    """The delay itself.

    Raises:
        ConfigError: If it is a negative number.
    """
    if not callable(delay) and delay < 0:
        raise ConfigError(f"a delay of {delay} slots lies in the past: give at least 0")
    return delay


class DelayedReward(gym.Wrapper[Any, IntArray, Any, IntArray], RecordConstructorArgs):
    """Pays a reward not at its own step but when it is known, so that an agent learns no earlier than it could.

    A step pays the sum of what has arrived by the slot that it shows next; `info["arrived"]` says what that was:
    pairs of a decision's slot in the episode, from 0, and its reward. A delay of 0 slots is that of a window that
    closes by the next slot, such as the market's own reward, that of the slot's day; with a window of three days
    and a slot a day it is 2. What is still open when the episode ends arrives at its last step: nothing is
    lost, and the sum over an episode is that of the env. A slot that a replay rejects has no reward: none arrives.

    Args:
        env: Any env.
        slots: The delay in slots; or a function of a step's information, where windows and slots are not even:
            `LogDelay` for a replay.
    """

    def __init__(self, env: gym.Env[Any, IntArray], slots: Delay) -> None:
        RecordConstructorArgs.__init__(self, slots=slots)
        gym.Wrapper.__init__(self, env)
        self.slots = known_delay(slots)
        self._slot = 0
        self._open: list[tuple[int, int, float]] = []

    def reset(self, *, seed: int | None = None, options: dict[str, Any] | None = None) -> tuple[Any, dict[str, Any]]:
        """Begins an episode; what was still open of one that was broken off never arrives."""
        self._slot, self._open = 0, []
        return self.env.reset(seed=seed, options=options)

    def step(self, action: IntArray) -> tuple[Any, float, bool, bool, dict[str, Any]]:
        """Steps, and pays what has arrived."""
        observation, reward, terminated, truncated, info = self.env.step(action)
        slot, over = self._slot, terminated or truncated
        waiting = self._open
        if info.get("accepted", True):
            # A replay tells the user's slot: in mode `reject` first slots that were passed over were others' users'.
            made = int(info.get("slot", slot))
            waiting = [*waiting, (slot + int(slots_of(self.slots, info)), made, float(reward))]
        self._slot += 1
        self._open = [] if over else [entry for entry in waiting if entry[0] > slot]
        arrived = tuple((made, paid) for due, made, paid in waiting if over or due <= slot)
        paid = sum((paid for _, paid in arrived), 0.0)
        return observation, paid, terminated, truncated, info | {"arrived": arrived}


class DelayedRewardVector(EpisodesVector):
    """The same for many users; `info["arrived"]` has what arrived as `row`, `slot` and `reward`, three arrays (k,).

    Args:
        env: Any vector env with `AutoresetMode.NEXT_STEP`.
        slots: The delay in slots; or a function of a step's information that gives each row's (N,).
    """

    def __init__(self, env: VectorEnv[Any, IntArray, Array], slots: Delay) -> None:
        super().__init__(env)
        self.slots = known_delay(slots)
        self._slot = np.zeros(env.num_envs, dtype=np.int64)
        self._first = np.zeros(env.num_envs, dtype=np.int64)
        # One column a slot of the episode, more as episodes grow longer: until when each reward waits, and the rewards.
        self._due = np.full((env.num_envs, 8), NEVER)
        self._waiting = np.zeros((env.num_envs, 8))

    def begin(self, rows: BoolArray) -> None:
        """Nothing is open."""
        self._slot[rows] = self._first[rows] = 0
        self._due[rows] = NEVER

    def follow(self, step: Step) -> tuple[FloatArray, dict[str, Any]]:
        """Pays what has arrived."""
        if int(self._slot.max()) >= self._due.shape[1]:
            self._due = np.concatenate([self._due, np.full_like(self._due, NEVER)], axis=1)
            self._waiting = np.concatenate([self._waiting, np.zeros_like(self._waiting)], axis=1)
        slot = self._slot.copy()
        if "slot" in step.info:  # as for one user: steps before the user's first slot were other users'
            self._first = np.where(step.acting, slot - step.info["slot"], self._first)
        rows = np.flatnonzero(step.acting & step.info.get("accepted", step.acting))
        if len(rows):
            delay = np.broadcast_to(slots_of(self.slots, step.info), slot.shape)
            self._due[rows, slot[rows]] = (slot + delay)[rows]
            self._waiting[rows, slot[rows]] = step.rewards[rows]
        self._slot[step.acting] += 1
        row, made = np.nonzero((self._due < NEVER) & ((self._due <= slot[:, None]) | step.over[:, None]))
        reward = self._waiting[row, made]
        self._due[row, made] = NEVER
        # Added up slot by slot, as the single wrapper does, so that both pay the same to the last bit.
        paid = np.bincount(row, weights=reward, minlength=self.num_envs)
        return paid.astype(np.float64), {"arrived": {"row": row, "slot": made - self._first[row], "reward": reward}}
