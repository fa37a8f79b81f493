"""Wrappers that price unsubscribes, with a Lagrange multiplier that rises until a budget is kept."""

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


def dual_ascent_step(multiplier: float, rate: float, excess: float) -> float:
    r"""Return the multiplier after a step of dual ascent, :math:`[\lambda + \eta (C - d)]_+`; `excess` is C - d."""
    return max(0.0, multiplier + rate * excess)


def check_settings(budget: float, rate: float, multiplier: float) -> None:
    """Check the settings of the wrappers.

    Raises:
        ConfigError: If the budget is not a share, the rate is not positive, or the multiplier is negative.
    """
    if not 0.0 <= budget <= 1.0:
        raise ConfigError(f"budget {budget} is not a share of users between 0 and 1")
    if not rate > 0.0:
        raise ConfigError(f"rate {rate} is not above 0: the multiplier would never change")
    if not multiplier >= 0.0:
        raise ConfigError(f"multiplier {multiplier} is below 0: it would reward unsubscribes")


def refuse_replay(info: Mapping[str, Any]) -> None:
    """Check that the env is not a replay, whose episodes do not end because of the agent's actions.

    Raises:
        ConfigError: If the information of a reset has a replay's mode.
    """
    if "mode" in info:
        raise ConfigError(
            "episodes of a replay end with the log or at a rejection, whatever the agent would have caused: a price on "
            "unsubscribes teaches the agent nothing. Use the market, or make 'unsubscribed' a goal of the reward"
        )


class LagrangianCost(gym.Wrapper[Any, IntArray, Any, IntArray], RecordConstructorArgs):
    r"""Subtracts a price for each unsubscribe from the reward, and adapts the price until the budget is kept.

    .. math:: r'_t = r_t - \lambda c_t, \qquad \lambda \leftarrow [\lambda + \eta (C - d)]_+

    where :math:`c_t` is 1 at the step at which the user unsubscribes or leaves (the episode terminates), else 0, C is
    its sum over the episode, and d is the budget: the share of users that may be lost. The multiplier is updated at the
    end of each episode. An agent that maximises the new reward maximises the old one subject to :math:`E[C] \le d`; at
    the optimum :math:`\lambda` is the marginal value of one more lost user (Altman, 1999, "Constrained Markov decision
    processes"; Tessler, Mankowitz & Mannor, 2019, "Reward constrained policy optimization", ICLR). The multiplier
    should change more slowly than the agent learns: use a small `rate`. A goal with a price for unsubscribes, such as
    the market has by default, counts in addition.

    `info["cost"]` is :math:`c_t`, `info["multiplier"]` the :math:`\lambda` of this step's reward. To resume a run, set
    `multiplier` to its last value.

    Args:
        env: An env whose episodes depend on the agent's actions: the market.
        budget: The share d of episodes that may end with an unsubscribe.
        rate: Step size :math:`\eta` of the dual ascent, in reward units.
        multiplier: Initial :math:`\lambda`, in reward units.
    """

    def __init__(self, env: gym.Env[Any, IntArray], budget: float, rate: float = 0.01, multiplier: float = 0.0) -> None:
        RecordConstructorArgs.__init__(self, budget=budget, rate=rate, multiplier=multiplier)
        gym.Wrapper.__init__(self, env)
        check_settings(budget, rate, multiplier)
        self.budget = budget
        self.rate = rate
        self.multiplier = multiplier

    def reset(self, *, seed: int | None = None, options: dict[str, Any] | None = None) -> tuple[Any, dict[str, Any]]:
        """Start an episode; the multiplier does not change.

        Raises:
            ConfigError: If the env is a replay.
        """
        observation, info = self.env.reset(seed=seed, options=options)
        refuse_replay(info)
        return observation, info

    def step(self, action: IntArray) -> tuple[Any, float, bool, bool, dict[str, Any]]:
        """Step; the reward is net of the price of an unsubscribe."""
        observation, reward, terminated, truncated, info = self.env.step(action)
        cost, multiplier = float(terminated), self.multiplier
        if terminated or truncated:
            self.multiplier = dual_ascent_step(multiplier, self.rate, cost - self.budget)
        added = {"cost": cost, "multiplier": multiplier}
        return observation, float(reward) - multiplier * cost, terminated, truncated, info | added


class LagrangianCostVector(EpisodeStateVector):
    """`LagrangianCost` for many users with one multiplier: a step updates it by the excess of all ended episodes.

    Args:
        env: A vector env whose episodes depend on the agent's actions: the market.
        budget: The share of episodes that may end with an unsubscribe.
        rate: Step size of the dual ascent per episode, in reward units.
        multiplier: Initial multiplier, in reward units.
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
        """Reset all rows, or those of the option `reset_mask` (N,); the multiplier does not change.

        Raises:
            ConfigError: If the env is a replay.
        """
        observations, info = super().reset(seed=seed, options=options)
        refuse_replay(info)
        return observations, info

    def start_episodes(self, rows: BoolArray) -> None:
        """Keep the multiplier, the only state."""

    def transform_step(self, step: VectorStep) -> tuple[FloatArray, dict[str, Any]]:
        """Return the rewards net of the price of unsubscribes."""
        cost, multiplier = step.terminated.astype(np.float64), self.multiplier
        self.multiplier = dual_ascent_step(multiplier, self.rate, float(cost.sum() - self.budget * step.over.sum()))
        added = {"cost": cost, "multiplier": np.where(step.acting, multiplier, 0.0)}
        marks = {f"_{name}": step.acting.copy() for name in added}
        return step.rewards - multiplier * cost, added | marks
