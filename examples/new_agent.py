"""Write an agent of your own: implement `crosschannel.agents.Agent` and name it as `package.module:Class`.

python examples/new_agent.py                                            learn from a small log, then evaluate
python train.py --agent.name examples.new_agent:BestSoFar --constraints.cost-events '[]'
                                                                        use the same agent in a run, from this folder
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import gymnasium as gym
import numpy as np
import torch
import tyro

import crosschannel.envs  # noqa: F401 - registers the environments
from crosschannel.agents import Agent, Baseline, Batch, Observations, make_agent, vote_shares
from crosschannel.core import ActionSpace, FloatArray
from crosschannel.envs.market import (
    ContextPolicy,
    Market,
    MarketConfig,
    PolicyValue,
    evaluate_policy,
    simulate_history,
)
from crosschannel.envs.replay import ReplayLog
from crosschannel.histories import ContextFeatures
from crosschannel.reward import DidReward, RewardSpec


class BestSoFar(Baseline):
    """Take in each module the eligible action with the best mean reward so far, or a uniform draw (setting `floor`).

    The base class samples the actions and stores the random state. It provides `modules`, the layout of masks, and the
    exact probabilities of the sampled actions.
    """

    def __init__(
        self,
        modules: ActionSpace,
        context_dim: int,
        settings: Mapping[str, Any] | None = None,
        seed: int = 0,
        device: str = "cpu",
    ) -> None:
        super().__init__(modules, context_dim, None, seed, device)
        self.floor = float((settings or {}).get("floor", 0.1))
        self.total, self.count = np.zeros(modules.total), np.ones(modules.total)

    def action_probabilities(self, observations: Observations) -> list[FloatArray]:
        """Return the exact probabilities: the floor is shared by all eligible actions, the rest goes to the best."""
        masks = self.modules.split(self.modules.feasible_mask(observations.action_mask))
        means = self.modules.split(self.total / self.count)
        return [
            vote_shares(self.modules, m, np.broadcast_to(mean, mask.shape)[None], mask, self.floor)
            for m, (mean, mask) in enumerate(zip(means, masks, strict=True))
        ]

    def observe(self, batch: Batch) -> None:
        """Add each reward to its actions; modules after the first made no choice where nothing was sent."""
        for m, columns in enumerate(self.modules.slices):
            rows = np.full(len(batch), m == 0) | self.modules.sends(batch.actions)
            np.add.at(self.total, columns.start + batch.actions[rows, m], batch.rewards[rows])
            np.add.at(self.count, columns.start + batch.actions[rows, m], 1.0)

    def state_dict(self) -> dict[str, Any]:
        """Return what a checkpoint stores."""
        learned = {"total": torch.from_numpy(self.total.copy()), "count": torch.from_numpy(self.count.copy())}
        return super().state_dict() | learned

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Restore what `state_dict` returned."""
        super().load_state_dict(state)
        self.total, self.count = state["total"].numpy().copy(), state["count"].numpy().copy()


def learn(log: ReplayLog, agent: Agent, seed: int) -> None:
    """Replay the log's users once; the agent learns from the executed actions, whatever it would have chosen."""
    env: Any = gym.make_vec("CrossChannelReplay-v0", num_envs=256, log=log, vectorization_mode="vector_entry_point")
    observation, _ = env.reset(seed=seed)
    while env.passes_completed < 1:
        seen = Observations(observation["context"], observation["action_mask"].astype(bool))
        observation, reward, _, _, info = env.step(agent.act(seen).actions)
        rows = info["_executed_action"] & (info["pass"] < 1)
        agent.observe(
            Batch(
                observations=seen[rows],
                actions=info["executed_action"][rows],
                rewards=reward[rows],
                se=info["se"][rows],
                keys=info["key"][rows],
            )
        )


def main(users: int = 4_000, fresh_users: int = 4_000, seed: int = 0) -> dict[str, PolicyValue]:
    """Simulate a log of business as usual, learn from it, and evaluate the policy on fresh users of the market.

    Args:
        users: Number of users in the log.
        fresh_users: Number of users for the evaluation.
        seed: Seed of the market and of the agent.
    """
    config = MarketConfig(users=users, seed=seed)
    market = Market(config)
    history, _ = simulate_history(market)
    model = DidReward(RewardSpec(goals=config.goals, pre="2d", post="1d", overlap="exclude"))
    features = ContextFeatures.fit(history)
    log = ReplayLog.build(history, model.fit_transform(history), features)
    agent = make_agent(f"{__name__}:BestSoFar", log.modules, features.dim, {"floor": 0.1}, seed)
    learn(log, agent, seed)

    policy = ContextPolicy("best so far", features, lambda context, mask: agent.act(Observations(context, mask)))
    judged = [evaluate_policy(market, one, fresh_users, seed) for one in (policy, "uniform", "business_as_usual")]
    for value in judged:
        print(f"{value.name:18} true incremental goal value per user {value.mean:+.3f} +- {1.96 * value.se:.3f}")
    return {value.name: value for value in judged}


if __name__ == "__main__":
    tyro.cli(main, description=__doc__)
