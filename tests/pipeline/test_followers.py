"""What follows a replayed decision: the same user's next step, how many slots later, and how a user's steps end."""

from __future__ import annotations

import numpy as np

from crosschannel.core.times import DAY
from crosschannel.envs.market import Market, MarketConfig, simulate_history
from crosschannel.envs.replay.log import ReplayLog
from crosschannel.histories.features import ContextFeatures, ContextSpec
from crosschannel.pipeline.followers import Followers
from crosschannel.reward import Goal, RewardSpec, make_reward


def test_each_step_is_followed_by_the_same_users_next_one() -> None:
    goals = (Goal("order:*", 1.0),)
    history, _ = simulate_history(Market(MarketConfig(users=120, days=10, goals=goals)))
    rewards = make_reward("did", RewardSpec(goals=goals, pre="2d", post="1d", cell="1d", overlap="exclude")).fit(
        history
    )
    log = ReplayLog.build(history, rewards.transform(history), ContextFeatures.fit(history, ContextSpec()))
    followers = Followers.of(log)
    assert followers.slot == DAY
    rows = np.random.default_rng(0).permutation(len(log))
    np.testing.assert_array_equal(followers.rows(log.keys[rows]), rows)
    seen, elapsed = followers.after(rows)
    for place, row in enumerate(rows):
        later = np.flatnonzero((log.user == log.user[row]) & (log.time > log.time[row]))
        if not len(later):
            assert elapsed[place] == 0 if log.gone[log.user[row]] else np.isnan(elapsed[place])
            continue
        following = later[log.time[later].argmin()]
        assert elapsed[place] == (log.time[following] - log.time[row]) / DAY >= 1
        np.testing.assert_array_equal(seen.context[place], log.context[following])
        np.testing.assert_array_equal(seen.action_mask[place], log.action_mask[following])
    assert seen.users is not None
    follows = elapsed > 0
    np.testing.assert_array_equal(seen.users[follows], log.user_keys[log.user[rows]][follows])
    assert np.isnan(elapsed).any()
    assert (elapsed > 1).any(), "slots that are no steps count"
