"""A history as it was before a time is what a log that ended then would have been."""

from __future__ import annotations

import numpy as np
import pytest

from crosschannel.core.errors import ConfigError
from crosschannel.core.times import DAY
from crosschannel.envs.market import Market, MarketConfig, simulate_history
from crosschannel.histories.features import ContextFeatures
from crosschannel.histories.observation.slicing import digests_by_day, since, until
from crosschannel.reward import DidReward, RewardSpec


@pytest.fixture(scope="module")
def history():
    return simulate_history(Market(MarketConfig(users=60, days=6, warmup_days=3)))[0]


def test_until_leaves_out_what_came_later(history):
    time = int(history.decisions.time.min()) + 3 * DAY
    past = until(history, time)
    assert past.decisions.time.max() < time
    assert past.events.time.max() < time
    assert past.span == (history.span[0], time)
    assert len(past.decisions) == (history.decisions.time < time).sum()
    assert until(history, history.span[1]) is history


def test_contexts_and_rewards_do_not_see_what_came_later(history):
    time = int(history.decisions.time.min()) + 4 * DAY
    past, features = until(history, time), ContextFeatures.fit(history)
    rows = np.flatnonzero(history.decisions.time < time)
    assert np.array_equal(features.transform(past), features.transform(history)[rows])
    model = DidReward(RewardSpec(pre="1d", post="1d", min_controls=2))
    early = model.fit_transform(past)
    late = model.fit_transform(history).reward[rows]
    known = early.identified
    assert known.any()
    assert np.array_equal(early.reward[known], late[known])
    assert (early.available_at[known] <= time).all()


def test_since_makes_earlier_time_unobserved(history):
    time = int(history.decisions.time.min()) + 2 * DAY
    recent = since(history, time)
    assert recent.decisions.time.min() >= time
    assert recent.events.time.min() >= time
    assert (recent.observed_from >= time).all()
    assert since(history, history.span[0]) is history


def test_times_outside_the_log_are_refused(history):
    with pytest.raises(ConfigError, match="begins later"):
        until(history, history.span[0])
    with pytest.raises(ConfigError, match="ends before"):
        since(history, history.span[1])


def test_a_digest_changes_with_its_own_day_only(history):
    first = int(history.decisions.time.min())
    whole = digests_by_day(history, first, DAY, 6)
    assert len(set(whole)) == 6
    assert digests_by_day(until(history, first + 4 * DAY), first, DAY, 4) == whole[:4]
