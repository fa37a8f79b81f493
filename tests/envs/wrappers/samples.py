"""Envs to wrap: both registered ones, small, and a toy whose every number is known beforehand."""

from __future__ import annotations

from dataclasses import replace
from functools import partial

import gymnasium as gym
import numpy as np
from gymnasium import spaces
from gymnasium.vector import AutoresetMode, SyncVectorEnv

import crosschannel.envs  # noqa: F401 - registers the environments
from crosschannel.envs.market import MarketConfig
from crosschannel.envs.replay.log import ReplayLog
from crosschannel.histories.features import ContextFeatures
from crosschannel.reward import DidReward
from tests.envs.replay.samples import SPEC, sample_history

HISTORY = sample_history(users=60, days=16)
REWARDS = DidReward(replace(SPEC, post="60h")).fit_transform(HISTORY)
#: A slot a day and windows of 60 hours, so that a reward is known two or three slots later; few at the end.
LOG = ReplayLog.build(HISTORY, REWARDS, ContextFeatures.fit(HISTORY))
MARKET = MarketConfig(days=6)

SINGLE = {
    "market": partial(gym.make, "CrossChannelMarket-v0", config=MARKET, disable_env_checker=True),
    "replay": partial(gym.make, "CrossChannelReplay-v0", log=LOG, disable_env_checker=True),
}


def single(kind: str) -> gym.Env:
    return SINGLE[kind]()


def native(kind: str, n: int) -> gym.vector.VectorEnv:
    return {
        "market": partial(gym.make_vec, "CrossChannelMarket-v0", num_envs=n, config=MARKET),
        "replay": partial(gym.make_vec, "CrossChannelReplay-v0", num_envs=n, log=LOG),
    }[kind](vectorization_mode="vector_entry_point")


def side_by_side(kind: str, n: int, wrap) -> SyncVectorEnv:
    """n single envs, each wrapped, that see what the rows of the native vector env see."""
    makers = [partial(SINGLE[kind], shard=(i, n)) for i in range(n)] if kind == "replay" else [SINGLE[kind]] * n
    return SyncVectorEnv([lambda make=make: wrap(make()) for make in makers], autoreset_mode=AutoresetMode.NEXT_STEP)


class Scripted(gym.Env):
    """Pays given rewards one after the other; the action sends, and the episode ends as told."""

    def __init__(self, rewards, terminates: bool = False, accepted=None) -> None:
        self.observation_space = spaces.Dict(
            {"context": spaces.Box(-10, 10, (1,), np.float32), "action_mask": spaces.MultiBinary(2)}
        )
        self.action_space = spaces.MultiDiscrete([2])
        self.rewards, self.terminates, self.slot = list(rewards), terminates, 0
        self.accepted = accepted  # as a replay in mode `reject` tells of it; None for other envs

    def observation(self):
        return {"context": np.array([self.slot], np.float32), "action_mask": np.ones(2, np.int8)}

    def reset(self, *, seed=None, options=None):
        super().reset(seed=seed)
        self.slot = 0
        return self.observation(), {} if self.accepted is None else {"mode": "reject"}

    def step(self, action):
        reward = self.rewards[self.slot]
        self.slot += 1
        over = self.slot == len(self.rewards)
        info = {"executed_action": np.array(action)}
        if self.accepted is not None:
            info["accepted"] = self.accepted[self.slot - 1]
        return self.observation(), reward, over and self.terminates, over and not self.terminates, info


class Tempting(gym.Env):
    """One slot a user: sending pays x, uniform in (0, 1), and loses the user with probability 1/2."""

    observation_space = spaces.Box(0, 1, (1,), np.float64)
    action_space = spaces.MultiDiscrete([2])

    def reset(self, *, seed=None, options=None):
        super().reset(seed=seed)
        self.x = self.np_random.random()
        return np.array([self.x]), {}

    def step(self, action):
        lost = bool(action[0]) and self.np_random.random() < 0.5
        return np.array([0.0]), self.x * int(action[0]), lost, not lost, {"executed_action": np.array(action)}
