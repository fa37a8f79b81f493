"""Estimate the value of a policy over several slots from the log of another one, and compare it with the ground truth.

    python examples/trajectories.py

In the market's scenario `fatigue` each message tires the user, and none may follow for two days. A policy that sends
more often finds users who are more tired, or whom it may not contact: valued slot by slot, at the contexts of the log,
it looks better than it is.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import tyro

from crosschannel.core import ActionSpace, BoolArray, FloatArray, IntArray
from crosschannel.envs.market import (
    Choice,
    Market,
    MarketConfig,
    MarketState,
    evaluate_policy,
    sample_choice,
    shares_of_eligible,
    simulate_history,
)
from crosschannel.evaluation import (
    DR,
    LoggedDecisions,
    OutcomeModel,
    TrajectoryEvaluation,
    evaluate,
    evaluate_trajectories,
    first_slots,
)
from crosschannel.histories import History
from crosschannel.reward import DidReward, RewardSpec

MESSAGE = ("evening", "food", "percent_20", "friendly", "by_name")


@dataclass(frozen=True)
class Sending:
    """Sends with a fixed probability wherever it may, by any channel that reaches the user, always the same message."""

    chance: float
    name: str = "sending"

    def probabilities(self, modules: ActionSpace, mask: BoolArray) -> list[FloatArray]:
        """Return one array (N, A_m) per module, from eligible actions (N, sum of actions)."""
        parts = modules.split(mask)
        channel, can = shares_of_eligible(np.ones(parts[0].shape[1] - 1), parts[0][:, 1:])
        sent = self.chance * can
        content = [
            np.tile(np.array(module.actions) == action, (len(mask), 1)).astype(np.float64)
            for module, action in zip(list(modules)[1:], MESSAGE, strict=True)
        ]
        return [np.column_stack([1 - sent, sent[:, None] * channel]), *content]

    def choose(self, market: Market, state: MarketState) -> Choice:
        """Sample an action for each user."""
        return sample_choice(self.probabilities(market.modules, market.mask(state)), state)


def context_of(history: History, sent: BoolArray) -> FloatArray:
    """Return part of the state (decisions, 2): may the user be contacted, and how many messages there were before."""
    before: IntArray = np.cumsum(sent) - sent
    user = history.decisions.user
    first = np.searchsorted(user, user)
    may = history.eligible[:, 1 : len(history.modules[0].actions)].any(1)
    return np.stack([may, before - before[first]], axis=1).astype(np.float64)


def main(
    users: int = 30_000, days: int = 12, logged: float = 0.3, evaluated: float = 0.6, seed: int = 0
) -> tuple[TrajectoryEvaluation, float]:
    """Log one policy and evaluate another; return its estimates and its true value.

    Args:
        users: Users of the log, and of the deployment that gives the true value.
        days: Days of the market, one slot per day: the horizon.
        logged: The logging policy's probability to send.
        evaluated: The evaluated policy's probability to send.
        seed: Seed of the market.
    """
    market = Market(MarketConfig(users=users, days=days, seed=seed, scenario="fatigue"))
    history, _ = simulate_history(market, Sending(logged))
    policy, decisions = Sending(evaluated), history.decisions
    log, sent = LoggedDecisions.from_history(history), history.modules.sends(decisions.actions)

    # A message's windows hold no other message, so that its reward is of its own slot; sending nothing has no effect.
    model = DidReward(RewardSpec(goals=market.config.goals, pre="2d", post="1d", overlap="exclude"))
    rewards = np.where(sent, model.fit_transform(history).reward, 0.0)

    p = policy.probabilities(history.modules, history.eligible)
    context = context_of(history, sent)
    # A user with fewer slots than days has unsubscribed: no later message, so no later effect.
    last = np.append(decisions.user[1:] != decisions.user[:-1], True)
    churned = last & (np.bincount(decisions.user)[decisions.user] < days)
    rng = np.random.default_rng(seed)
    index = first_slots(decisions.user, decisions.time, days, churned)
    name = f"sending at {evaluated:g}"
    evaluation = evaluate_trajectories(log, p, rewards, index, rng=rng, context=context, policy=name)
    print(evaluation)

    outcome = OutcomeModel.fit(history.modules, context, decisions.actions, rewards, decisions.user)
    q = outcome.q_values(context, decisions.actions, p)
    alone = evaluate(log, p, rewards, rng=rng, q_values=q, estimators=[DR()]).get("dr").value
    slots = len(log) / users
    print(f"\nSlot by slot, at the contexts of the log: {alone.point:.4f} +- {alone.se:.4f} per decision, ", end="")
    print(f"{slots * alone.point:.4f} +- {slots * alone.se:.4f} over the {slots:.2f} decisions of a user")
    truth = evaluate_policy(market, policy, users)
    print(f"True value, on {users:,} fresh users: {truth.mean:.4f} +- {truth.se:.4f}")
    return evaluation, truth.mean


if __name__ == "__main__":
    tyro.cli(main, description=__doc__)
