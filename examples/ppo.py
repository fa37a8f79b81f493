"""Train PPO of Stable-Baselines3 on the simulated market, through wrappers and without changes to either side.

    pip install stable-baselines3
    python examples/ppo.py
    python examples/ppo.py --steps 400000 --seed 1

The reward is what an app can see: the goal value of each slot's day, whether or not a message caused it. The policies
are compared by what the market knows: the true incremental value of their messages on the same new users.
"""

from __future__ import annotations

from typing import Any

import gymnasium as gym
import numpy as np
import tyro
from stable_baselines3 import PPO

import crosschannel.envs  # noqa: F401 - registers the environments
from crosschannel.envs.market import ContextPolicy, Market, MarketConfig, PolicyChoice, PolicyValue, evaluate_policy
from crosschannel.envs.wrappers import FlatContextVector, RecordOutcomesVector, StableBaselinesVec, flatten
from crosschannel.histories import ContextFeatures


def learner(config: MarketConfig, users: int, seed: int, gamma: float) -> tuple[PPO, ContextFeatures]:
    """Build PPO over `users` simulated users side by side, and the context features that it sees.

    A rollout is one episode of every user. In the default scenario a message acts until the next slot, so `gamma = 0`
    neglects little and avoids the noise of all later orders; with lasting fatigue it would send too much.
    """
    market: Any = gym.make_vec(
        "CrossChannelMarket-v0", num_envs=users, config=config, vectorization_mode="vector_entry_point"
    )
    env = StableBaselinesVec(FlatContextVector(RecordOutcomesVector(market)))
    model = PPO(
        "MlpPolicy",
        env,
        n_steps=config.days,
        batch_size=users * config.days // 8,
        n_epochs=4,
        learning_rate=1e-3,
        gamma=gamma,
        seed=seed,
        device="cpu",
    )
    return model, market.unwrapped.features


def deploy(model: PPO, features: ContextFeatures, market: Market, users: int) -> PolicyValue:
    """Return the true value of PPO's policy on new users."""

    def act(context: np.ndarray, mask: np.ndarray) -> PolicyChoice:
        actions, _ = model.predict(flatten({"context": context, "action_mask": mask}), deterministic=False)
        return PolicyChoice(actions, np.ones(actions.shape))  # only logs need probabilities

    return evaluate_policy(market, ContextPolicy("ppo", features, act), users)


def main(
    steps: int = 100_000, users: int = 512, fresh_users: int = 4_000, days: int = 28, seed: int = 0, gamma: float = 0.0
) -> dict[str, PolicyValue]:
    """Train PPO, and compare its policy with uniform actions.

    Args:
        steps: Number of decisions to train on.
        users: Number of users simulated side by side.
        fresh_users: Number of new users to evaluate the policies on.
        days: Decision slots per user.
        seed: Seed of the market, of its users and of PPO.
        gamma: PPO's discount factor.
    """
    config = MarketConfig(days=days, seed=seed)
    market = Market(config)
    model, features = learner(config, users, seed, gamma)
    values = {
        "uniform": evaluate_policy(market, "uniform", fresh_users),
        "before": deploy(model, features, market, fresh_users),
    }
    model.learn(steps)
    values["after"] = deploy(model, features, market, fresh_users)
    for name, value in values.items():
        print(
            f"{name:8} true incremental goal value per user {value.mean:+.3f} +- {1.96 * value.se:.3f}, "
            f"{value.sends.mean():.1f} messages, {value.unsubscribed.mean():.1%} unsubscribed"
        )
    gain, se = values["after"].minus(values["uniform"])
    print(f"PPO minus uniform, the same {fresh_users:,} users: {gain:+.3f} +- {1.96 * se:.3f}")
    return values


if __name__ == "__main__":
    tyro.cli(main, description=__doc__)
