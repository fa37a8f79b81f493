"""A price on unsubscribes that rises until they keep to a budget."""

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


def ascend(multiplier: float, rate: float, excess: float) -> float:
    r"""A step of dual ascent, :math:`[\lambda + \eta (C - d)]_+`, where `excess` is the cost above the budget."""
    return max(0.0, multiplier + rate * excess)


def check_settings(budget: float, rate: float, multiplier: float) -> None:
    """Checks what the wrappers are given.

    Raises:
        ConfigError: If the budget is no share of users, or the rate or the multiplier is not positive or 0.
    """
    if not 0.0 <= budget <= 1.0:
        raise ConfigError(f"budget {budget} is not a share of users between 0 and 1")
    if not rate > 0.0:
        raise ConfigError(f"rate {rate} is not above 0: the multiplier would never move")
    if not multiplier >= 0.0:
        raise ConfigError(f"multiplier {multiplier} is below 0: it would reward unsubscribes")


def refuse_replay(info: Mapping[str, Any]) -> None:
    """A replay's episodes end as the log ends, or where it rejects the agent: no share of them is the agent's doing.

    Raises:
        ConfigError: If the information of a reset tells of a replay's mode.
    """
    if "mode" in info:
        raise ConfigError(
            "a replay ends where its log ends or rejects the agent, whatever the agent would have caused: a price on "
            "its unsubscribes teaches nothing. Use the market, or weigh 'unsubscribed' as a goal of the reward"
        )


class LagrangianCost(gym.Wrapper[Any, IntArray, Any, IntArray], RecordConstructorArgs):
    r"""Takes a price for an unsubscribe from the reward, and moves the price until the budget is kept.

    .. math:: r'_t = r_t - \lambda c_t, \qquad \lambda \leftarrow [\lambda + \eta (C - d)]_+

    where :math:`c_t` is 1 at the step at which the user unsubscribes or leaves (the episode terminates), C its sum over
    the episode, d the budget: the share of users that may be lost. The multiplier moves at each episode's end. An
    agent that answers to it maximises the reward subject to :math:`E[C] \le d`; at the optimum :math:`\lambda` is what
    one more lost user would be worth (Altman, 1999, "Constrained Markov decision processes"; Tessler, Mankowitz &
    Mannor, 2019, "Reward constrained policy optimization", ICLR). The multiplier should move more slowly than the agent
    learns: take a small `rate`. A goal that prices unsubscribes already, as the market's does by default, counts
    on top.

    `info["cost"]` is :math:`c_t`, `info["multiplier"]` the :math:`\lambda` of this step's reward. A run that goes on
    later sets `multiplier` to where it was.

    Args:
        env: An env whose episodes depend on the agent's actions: the market.
        budget: The share d of episodes that may end with an unsubscribe.
        rate: Step size :math:`\eta` of the dual ascent, in reward units.
        multiplier: Where :math:`\lambda` begins, in reward units.
    """

    def __init__(self, env: gym.Env[Any, IntArray], budget: float, rate: float = 0.01, multiplier: float = 0.0) -> None:
        RecordConstructorArgs.__init__(self, budget=budget, rate=rate, multiplier=multiplier)
        gym.Wrapper.__init__(self, env)
        check_settings(budget, rate, multiplier)
        self.budget = budget
        self.rate = rate
        self.multiplier = multiplier

    def reset(self, *, seed: int | None = None, options: dict[str, Any] | None = None) -> tuple[Any, dict[str, Any]]:
        """Begins an episode; the multiplier stays.

        Raises:
            ConfigError: If the env is a replay.
        """
        observation, info = self.env.reset(seed=seed, options=options)
        refuse_replay(info)
        return observation, info

    def step(self, action: IntArray) -> tuple[Any, float, bool, bool, dict[str, Any]]:
        """Steps; the reward is net of the price of an unsubscribe."""
        observation, reward, terminated, truncated, info = self.env.step(action)
        cost, multiplier = float(terminated), self.multiplier
        if terminated or truncated:
            self.multiplier = ascend(multiplier, self.rate, cost - self.budget)
        told = {"cost": cost, "multiplier": multiplier}
        return observation, float(reward) - multiplier * cost, terminated, truncated, info | told


class LagrangianCostVector(EpisodesVector):
    """The same for many users, who share one multiplier: each step moves it by the excess of all episodes that ended.

    Args:
        env: A vector env whose episodes depend on the agent's actions: the market.
        budget: The share of episodes that may end with an unsubscribe.
        rate: Step size of the dual ascent for each episode, in reward units.
        multiplier: Where it begins, in reward units.
    """

    def __init__(
        self, env: VectorEnv[Any, IntArray, Array], budget: float, rate: float = 0.01, multiplier: float = 0.0
    ) -> None:
        super().__init__(env)
        check_settings(budget, rate, multiplier)
        self.budget = budget
        self.rate = rate
        self.multiplier = multiplier

    def reset(self, *, seed: Any = None, options: dict[str, Any] | None = None) -> tuple[Any, dict[str, Any]]:
        """Resets all rows, or those of the option `reset_mask` (N,); the multiplier stays.

        Raises:
            ConfigError: If the env is a replay.
        """
        observations, info = super().reset(seed=seed, options=options)
        refuse_replay(info)
        return observations, info

    def begin(self, rows: BoolArray) -> None:
        """Nothing is kept from step to step but the multiplier."""

    def follow(self, step: Step) -> tuple[FloatArray, dict[str, Any]]:
        """The rewards net of the price of the unsubscribes."""
        cost, multiplier = step.terminated.astype(np.float64), self.multiplier
        self.multiplier = ascend(multiplier, self.rate, float(cost.sum() - self.budget * step.over.sum()))
        told = {"cost": cost, "multiplier": np.where(step.acting, multiplier, 0.0)}
        marks = {f"_{name}": step.acting.copy() for name in told}
        return step.rewards - multiplier * cost, told | marks
