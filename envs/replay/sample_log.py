"""The small market history that the replay environments walk where no log is given."""

from __future__ import annotations

from functools import cache

from crosschannel.envs.market import Market, MarketConfig
from crosschannel.envs.replay.log import ReplayLog
from crosschannel.histories.features import ContextFeatures
from crosschannel.reward import DidReward, RewardSpec

CONFIG = MarketConfig(users=200, days=14, seed=0)
REWARD = RewardSpec(goals=CONFIG.goals, pre="2d", post="1d", min_controls=10)


@cache
def embedded_log() -> ReplayLog:
    """Two weeks of 200 simulated users with DiD rewards: the same log at every call."""
    history, _ = Market(CONFIG).history()
    rewards = DidReward(REWARD).fit_transform(history)
    return ReplayLog.build(history, rewards, ContextFeatures.fit(history))
