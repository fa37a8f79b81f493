"""What follows a replayed decision: the same user's next step, how many slots later, and how a user's steps end."""

from __future__ import annotations

import numpy as np
import pytest

from crosschannel.core.times import DAY
from crosschannel.envs.market import Market, MarketConfig, simulate_history
from crosschannel.envs.replay.log import ReplayLog
from crosschannel.envs.replay.transitions import TransitionIndex
from crosschannel.histories.features import ContextFeatures, ContextSpec
from crosschannel.reward import Goal, RewardSpec, make_reward


@pytest.fixture(scope="module")
def log() -> ReplayLog:
    goals = (Goal("order:*", 1.0),)
    history, _ = simulate_history(Market(MarketConfig(users=120, days=10, goals=goals)))
    model = make_reward("did", RewardSpec(goals=goals, pre="2d", post="1d", time_bucket="1d", overlap="exclude"))
    return ReplayLog.build(history, model.fit_transform(history), ContextFeatures.fit(history, ContextSpec()))


def test_each_step_leads_to_the_same_users_next_one(log: ReplayLog) -> None:
    transitions = TransitionIndex.from_log(log)
    for row in range(len(log)):
        later = np.flatnonzero((log.user == log.user[row]) & (log.time > log.time[row]))
        assert transitions.terminal[row] == (len(later) == 0 and log.churned[log.user[row]])
        if len(later):
            following = later[log.time[later].argmin()]
            assert transitions.next_row[row] == following
            assert transitions.steps_to_next[row] == (log.time[following] - log.time[row]) / DAY >= 1
        else:
            assert np.isnan(transitions.steps_to_next[row])
    unknown = np.isnan(transitions.steps_to_next) & ~transitions.terminal
    assert unknown.any(), "some users stay until the log ends"
    assert transitions.terminal.any(), "some users leave"
    assert (transitions.steps_to_next > 1).any(), "slots that are no steps count"
