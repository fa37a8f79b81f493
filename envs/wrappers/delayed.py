"""Wrappers that pay each reward once its window has closed, together with the decision it belongs to."""

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
from crosschannel.envs.wrappers.episodes import Array, EpisodeStateVector, VectorStep
from crosschannel.histories.windows import Timeline

Delay = int | Callable[[Mapping[str, Any]], Any]

NOT_DUE = np.iinfo(np.int64).max


@dataclass(frozen=True, eq=False)
class LogDelay:
    """Number of slots until each reward of a log is known: `DelayedReward(env, LogDelay.from_log(log))`.

    Attributes:
        slots: Number of later slots of the same user before `available_at`, for each row of the history's decisions.
    """

    slots: IntArray

    @classmethod
    def from_log(cls, log: ReplayLog) -> LogDelay:
        """Count the slots of each step's user between the step and the time at which its reward is known."""
        order = np.lexsort((log.time, log.user))
        user, time = log.user[order], log.time[order]
        slots = Timeline(time, np.searchsorted(user, np.arange(log.n_users + 1)))
        known = np.maximum(log.available_at[order], time + 1)
        out = np.zeros(int(log.decision_row.max()) + 1, dtype=np.int64)
        out[log.decision_row[order]] = slots.before(user, known) - np.arange(len(user)) - 1
        return cls(out)

    def __call__(self, info: Mapping[str, Any]) -> Any:
        """Return the delay of the decision that a step's information is about; (N,) for many users."""
        return self.slots[info["decision_row"]]


def slots_of(delay: Delay, info: Mapping[str, Any]) -> Any:
    """Return the delay, in slots, of the decision that a step's information is about."""
    return delay(info) if callable(delay) else delay


def check_delay(delay: Delay) -> Delay:
    """Check and return the delay.

    Raises:
        ConfigError: If it is negative.
    """
    if not callable(delay) and delay < 0:
        raise ConfigError(f"a delay of {delay} slots is negative: give at least 0")
    return delay


class DelayedReward(gym.Wrapper[Any, IntArray, Any, IntArray], RecordConstructorArgs):
    """Pays each reward when it is known, not at its own step, so that an agent learns no earlier than in production.

    A step pays the sum of the rewards that are known by the next slot; `info["arrived"]` lists them, as pairs of the
    decision's slot in the episode, from 0, and its reward. The delay is 0 slots for a window that closes by the next
    slot, such as that of the market's own reward, which is of the slot's day; it is 2 slots for a window of three days
    with one slot per day. Rewards that are not yet known when the episode ends are paid at its last step, so that the
    return of an episode does not change. A slot that a replay rejects has no reward.

    Args:
        env: Any env.
        slots: The delay in slots; or a function of a step's information, if the delay varies: `LogDelay` for a replay.
    """

    def __init__(self, env: gym.Env[Any, IntArray], slots: Delay) -> None:
        RecordConstructorArgs.__init__(self, slots=slots)
        gym.Wrapper.__init__(self, env)
        self.slots = check_delay(slots)
        self._slot = 0
        self._open: list[tuple[int, int, float]] = []

    def reset(self, *, seed: int | None = None, options: dict[str, Any] | None = None) -> tuple[Any, dict[str, Any]]:
        """Start an episode; rewards that an unfinished episode has not paid yet are dropped."""
        self._slot, self._open = 0, []
        return self.env.reset(seed=seed, options=options)

    def step(self, action: IntArray) -> tuple[Any, float, bool, bool, dict[str, Any]]:
        """Step, and pay the rewards that are known by now."""
        observation, reward, terminated, truncated, info = self.env.step(action)
        slot, over = self._slot, terminated or truncated
        waiting = self._open
        if info.get("accepted", True):
            # A replay gives the user's slot: in mode `reject`, earlier steps may have been first slots of other users.
            made = int(info.get("slot", slot))
            waiting = [*waiting, (slot + int(slots_of(self.slots, info)), made, float(reward))]
        self._slot += 1
        self._open = [] if over else [entry for entry in waiting if entry[0] > slot]
        arrived = tuple((made, paid) for due, made, paid in waiting if over or due <= slot)
        paid = sum((paid for _, paid in arrived), 0.0)
        return observation, paid, terminated, truncated, info | {"arrived": arrived}


class DelayedRewardVector(EpisodeStateVector):
    """`DelayedReward` for many users; `info["arrived"]` has three arrays (k,): `row`, `slot` and `reward`.

    Args:
        env: Any vector env with `AutoresetMode.NEXT_STEP`.
        slots: The delay in slots; or a function from a step's information to the delay of each row (N,).
    """

    def __init__(self, env: VectorEnv[Any, IntArray, Array], slots: Delay) -> None:
        super().__init__(env)
        self.slots = check_delay(slots)
        self._slot = np.zeros(env.num_envs, dtype=np.int64)
        self._first = np.zeros(env.num_envs, dtype=np.int64)
        # One column per slot of the episode, more for longer episodes: the slot at which a reward is due, and rewards.
        self._due = np.full((env.num_envs, 8), NOT_DUE)
        self._waiting = np.zeros((env.num_envs, 8))

    def start_episodes(self, rows: BoolArray) -> None:
        """Drop the rewards that are not paid yet."""
        self._slot[rows] = self._first[rows] = 0
        self._due[rows] = NOT_DUE

    def transform_step(self, step: VectorStep) -> tuple[FloatArray, dict[str, Any]]:
        """Pay the rewards that are known by now."""
        if int(self._slot.max()) >= self._due.shape[1]:
            self._due = np.concatenate([self._due, np.full_like(self._due, NOT_DUE)], axis=1)
            self._waiting = np.concatenate([self._waiting, np.zeros_like(self._waiting)], axis=1)
        slot = self._slot.copy()
        if "slot" in step.info:  # as for one user: earlier steps were those of other users
            self._first = np.where(step.acting, slot - step.info["slot"], self._first)
        rows = np.flatnonzero(step.acting & step.info.get("accepted", step.acting))
        if len(rows):
            delay = np.broadcast_to(slots_of(self.slots, step.info), slot.shape)
            self._due[rows, slot[rows]] = (slot + delay)[rows]
            self._waiting[rows, slot[rows]] = step.rewards[rows]
        self._slot[step.acting] += 1
        row, made = np.nonzero((self._due < NOT_DUE) & ((self._due <= slot[:, None]) | step.over[:, None]))
        reward = self._waiting[row, made]
        self._due[row, made] = NOT_DUE
        # Added up slot by slot, as in the single wrapper, so that both pay the same to the last bit.
        paid = np.bincount(row, weights=reward, minlength=self.num_envs)
        return paid.astype(np.float64), {"arrived": {"row": row, "slot": made - self._first[row], "reward": reward}}
