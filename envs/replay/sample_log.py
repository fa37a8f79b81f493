"""A small simulated log: what the replay environments replay if no log is given."""

from __future__ import annotations

from functools import cache

from crosschannel.envs.market import Market, MarketConfig, simulate_history
from crosschannel.envs.replay.log import ReplayLog
from crosschannel.histories.features import ContextFeatures
from crosschannel.reward import DidReward, RewardSpec

SAMPLE_MARKET = MarketConfig(users=200, days=14, seed=0)
SAMPLE_REWARD = RewardSpec(goals=SAMPLE_MARKET.goals, pre="2d", post="1d", min_controls=10)


@cache
def embedded_log() -> ReplayLog:
    """Return two weeks of 200 simulated users with DiD rewards, the same log at every call."""
    history, _ = simulate_history(Market(SAMPLE_MARKET))
    rewards = DidReward(SAMPLE_REWARD).fit_transform(history)
    return ReplayLog.build(history, rewards, ContextFeatures.fit(history))
