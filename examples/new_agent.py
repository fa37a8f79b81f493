"""An agent of your own: a class with the parts of `agents.Agent`, named in the configuration as `package.module:Class`.

python examples/new_agent.py                                            learns from a small log, and is judged
python train.py --agent.name examples.new_agent:BestSoFar               the same agent in a run, from this folder
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import gymnasium as gym
import numpy as np
import torch
import tyro

import crosschannel.envs  # noqa: F401 - registers the environments
from crosschannel.agents import Agent, Batch, Observations, make_agent
from crosschannel.agents.baselines import Baseline
from crosschannel.agents.sampling import vote_shares
from crosschannel.core.action_space import ActionSpace
from crosschannel.core.arrays import FloatArray
from crosschannel.envs.market import (
    ContextPolicy,
    Market,
    MarketConfig,
    PolicyValue,
    evaluate_policy,
    simulate_history,
)
from crosschannel.envs.replay import ReplayLog
from crosschannel.histories.features import ContextFeatures
from crosschannel.reward import DidReward, RewardSpec


class BestSoFar(Baseline):
    """Takes of each module the eligible action with the best mean reward so far; a share `floor` of draws is uniform.

    The base class draws the actions and keeps the random state; `modules`, the layout of masks and the exact
    probabilities of what is drawn come from the package.
    """

    def __init__(
        self,
        modules: ActionSpace,
        context_dim: int,
        config: Mapping[str, Any] | None = None,
        seed: int = 0,
        device: str = "cpu",
    ) -> None:
        super().__init__(modules, context_dim, None, seed, device)
        self.floor = float((config or {}).get("floor", 0.1))
        self.total, self.count = np.zeros(modules.total), np.ones(modules.total)

    def action_probabilities(self, observations: Observations) -> list[FloatArray]:
        """The floor shared by the eligible actions, the rest for the best of them: exact, as every log needs them."""
        masks = self.modules.split(self.modules.feasible_mask(observations.action_mask))
        means = self.modules.split(self.total / self.count)
        return [
            vote_shares(self.modules, m, np.broadcast_to(mean, mask.shape)[None], mask, self.floor)
            for m, (mean, mask) in enumerate(zip(means, masks, strict=True))
        ]

    def observe(self, batch: Batch) -> None:
        """Adds each reward to the actions it was earned with; later modules made no choice where nothing was sent."""
        for m, columns in enumerate(self.modules.slices):
            rows = np.full(len(batch), m == 0) | self.modules.sends(batch.actions)
            np.add.at(self.total, columns.start + batch.actions[rows, m], batch.rewards[rows])
            np.add.at(self.count, columns.start + batch.actions[rows, m], 1.0)

    def state_dict(self) -> dict[str, Any]:
        """What a checkpoint keeps."""
        learned = {"total": torch.from_numpy(self.total.copy()), "count": torch.from_numpy(self.count.copy())}
        return super().state_dict() | learned

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """The inverse of `state_dict`."""
        super().load_state_dict(state)
        self.total, self.count = state["total"].numpy().copy(), state["count"].numpy().copy()


def learn(log: ReplayLog, agent: Agent, seed: int) -> None:
    """Serves the log's users once; the agent learns from what was executed, whatever it would have done itself."""
    env: Any = gym.make_vec("CrossChannelReplay-v0", num_envs=256, log=log, vectorization_mode="vector_entry_point")
    observation, _ = env.reset(seed=seed)
    while env.passes_completed < 1:
        seen = Observations(observation["context"], observation["action_mask"].astype(bool))
        observation, reward, _, _, info = env.step(agent.act(seen).actions)
        rows = info["_executed_action"] & (info["pass"] < 1)
        agent.observe(
            Batch(seen[rows], info["executed_action"][rows], reward[rows], info["se"][rows], info["key"][rows])
        )


def main(users: int = 4_000, fresh_users: int = 4_000, seed: int = 0) -> dict[str, PolicyValue]:
    """Simulates a log of business as usual, learns from it, and asks the market what that was worth.

    Args:
        users: Users of the log.
        fresh_users: Users whom the policies are judged on.
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
