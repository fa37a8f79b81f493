"""A wrapper of your own: what an agent is paid, or sees, changes, and the environment does not.

    python examples/new_wrapper.py

A message costs money, and it annoys even those who do not unsubscribe. This wrapper subtracts a price for each message
that was sent, for one user and for many.
"""

from __future__ import annotations

from typing import Any

import gymnasium as gym
import numpy as np
import tyro
from gymnasium.utils import RecordConstructorArgs
from gymnasium.vector import VectorEnv, VectorWrapper

import crosschannel.envs  # noqa: F401 - registers the environments
from crosschannel.core import FloatArray, IntArray
from crosschannel.envs.wrappers import RecordOutcomes

PRICES = {"email": 0.002, "push": 0.001, "sms": 0.05, "in_app": 0.0}


def price_list(env: Any, prices: dict[str, float]) -> FloatArray:
    """Return the price of each action of an env's first module, 0 where it has none."""
    return np.array([prices.get(name, 0.0) for name in env.modules[0].actions])


class MessagePrice(gym.Wrapper[Any, IntArray, Any, IntArray], RecordConstructorArgs):
    """Subtracts the price of the executed message: an ineligible choice is executed as sending nothing, and is free.

    Args:
        env: A market or a replay.
        prices: Price of each action of the first module, by its name; others cost nothing.
    """

    def __init__(self, env: gym.Env[Any, IntArray], prices: dict[str, float]) -> None:
        RecordConstructorArgs.__init__(self, prices=prices)
        gym.Wrapper.__init__(self, env)
        self.prices = price_list(env.unwrapped, prices)

    def step(self, action: IntArray) -> tuple[Any, Any, bool, bool, dict[str, Any]]:
        """Take a step, and pay for its message."""
        observation, reward, terminated, truncated, info = self.env.step(action)
        price = float(self.prices[info["executed_action"][0]])
        return observation, float(reward) - price, terminated, truncated, info | {"price": price}


class MessagePriceVector(VectorWrapper):
    """The same for many users.

    Args:
        env: A vector of markets or replays.
        prices: As above.
    """

    def __init__(self, env: VectorEnv[Any, Any, Any], prices: dict[str, float]) -> None:
        super().__init__(env)
        self.prices = price_list(env.unwrapped, prices)

    def step(self, actions: IntArray) -> tuple[Any, Any, Any, Any, dict[str, Any]]:
        """Take a step for all users; those who just begin an episode have executed nothing."""
        observation, reward, terminated, truncated, info = self.env.step(actions)
        took = info.get("_executed_action", np.ones(len(reward), dtype=bool))
        price = np.where(took, self.prices[info["executed_action"][:, 0]], 0.0)
        return observation, reward - price, terminated, truncated, info | {"price": price}


def main(episodes: int = 50, seed: int = 0) -> dict[str, float]:
    """Let a policy that sends at random act on the market, and compare what it earned with what it was paid.

    Args:
        episodes: Number of users.
        seed: Seed of the market and of the policy.
    """
    env = MessagePrice(RecordOutcomes(gym.make("CrossChannelMarket-v0")), PRICES)
    env.action_space.seed(seed)
    paid = earned = messages = 0.0
    for episode in range(episodes):
        env.reset(seed=seed + episode)
        done = False
        while not done:
            _, reward, terminated, truncated, info = env.step(env.action_space.sample())
            paid, done = paid + float(reward), terminated or truncated
        earned, messages = earned + info["outcome"]["reward"], messages + info["outcome"]["sends"]
    print(f"{episodes} users, {messages:.0f} messages: earned {earned:.2f}, paid {paid:.2f}")
    return {"earned": earned, "paid": paid, "messages": messages}


if __name__ == "__main__":
    tyro.cli(main, description=__doc__)
