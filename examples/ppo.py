"""Stable-Baselines3's PPO learns on the market through the flattening wrapper; neither side is changed.

    pip install stable-baselines3
    python examples/ppo.py
    python examples/ppo.py --steps 400000 --seed 1

It is paid what an app sees, the goal value of each slot's day, whoever caused it; it is judged by what the market
knows: the true incremental value of its messages to fresh users, the same for every policy.
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
from crosschannel.histories.features import ContextFeatures


def learner(config: MarketConfig, users: int, seed: int, gamma: float) -> tuple[PPO, ContextFeatures]:
    """PPO over `users` simulated users side by side, and the context features that it sees.

    A rollout is one episode of every user. In the default scenario messages act until the next slot, so a `gamma` of 0
    loses little of the future and saves the noise of all later orders; where fatigue lasts, it would over-send.
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
    """What PPO's policy is truly worth to fresh users."""

    def act(context: np.ndarray, mask: np.ndarray) -> PolicyChoice:
        actions, _ = model.predict(flatten({"context": context, "action_mask": mask}), deterministic=False)
        return PolicyChoice(actions, np.ones(actions.shape))  # probabilities are only for logs; here none is written

    return evaluate_policy(market, ContextPolicy("ppo", features, act), users)


def main(
    steps: int = 100_000, users: int = 512, fresh_users: int = 4_000, days: int = 28, seed: int = 0, gamma: float = 0.0
) -> dict[str, PolicyValue]:
    """Learns, and compares with sending at random.

    Args:
        steps: Decisions to learn from.
        users: Users simulated side by side.
        fresh_users: Users whom the policies are judged on.
        days: Decision slots of a user.
        seed: Seed of the market, its users and of PPO.
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
