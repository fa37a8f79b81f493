"""A history as it was before a time is what a log that ended then would have been."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from crosschannel.core.errors import ConfigError
from crosschannel.core.times import DAY
from crosschannel.envs.market import Market, MarketConfig, simulate_history
from crosschannel.histories.features import ContextFeatures
from crosschannel.histories.logs import take_rows
from crosschannel.histories.observation.digests import digests, words_by_day, words_of_users
from crosschannel.histories.observation.slicing import since, until
from crosschannel.reward import DidReward, Reason, RewardSpec


def digests_by_day(*of, **known):
    return digests(words_by_day(*of, **known))


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


def test_users_who_churned_before_a_part_have_churned_in_it(history):
    """They are neither controls nor learned from, however long ago the event was."""
    first, time = int(history.decisions.time.min()), int(history.decisions.time.min()) + 3 * DAY
    e = history.events
    early = np.flatnonzero((e.time >= first) & (e.time < time))[::5]
    event = e.event.copy()
    event[early] = history.event_names.index("unsubscribed")
    churned = replace(history, events=replace(e, event=event))
    assert (churned.churned_at < time).sum() >= 5
    recent = since(churned, time)
    np.testing.assert_array_equal(recent.churned_at, churned.churned_at)
    chosen = np.arange(history.n_users) % 2 == 0
    np.testing.assert_array_equal(recent.select_users(chosen).churned_at, churned.churned_at[chosen])
    reason = DidReward(RewardSpec(pre="1d", post="1d", min_controls=2)).fit_transform(recent).reason
    gone = (churned.churned_at < time)[recent.decisions.user]
    assert gone.any()
    assert (reason[gone] == Reason.CHURNED).all()


def test_a_digest_of_days_that_are_known_is_not_computed_again(history):
    first = int(history.decisions.time.min())
    whole = digests_by_day(history, first, DAY, 6)
    assert digests_by_day(history, first, DAY, 6, known=2) == whole[2:]


def test_columns_that_come_with_a_later_day_change_no_day_before(history):
    """The first decisions of a policy in use have a policy, an arm and what was eligible; rows before have none."""
    d, e = history.decisions, history.events
    first = int(d.time.min())
    bare = replace(history, decisions=replace(d, policy=None, arm=None, eligible=None), events=replace(e, message=None))
    new = d.time >= first + 4 * DAY
    eligible = np.ones((len(d), history.modules.total), dtype=bool)
    eligible[new, 1] = False
    columns = {
        "policy": np.where(new, "51e6c03ec831", None),
        "arm": np.where(new, "agent", None),
        "eligible": eligible,
    }
    before = digests_by_day(bare, first, DAY, 6)
    for name, column in columns.items():
        after = digests_by_day(replace(bare, decisions=replace(bare.decisions, **{name: column})), first, DAY, 6)
        assert after[:4] == before[:4], name
        assert after[4] != before[4], name


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


def test_words_of_parts_of_the_users_add_up_whatever_their_order(history):
    """So that a log in buckets has the digests of the same log in memory; each row counts, also a repeated one."""
    first, times = int(history.decisions.time.min()), np.array([history.span[0], history.span[1]])
    mine = np.arange(history.n_users) % 3 == 0
    parts = [history.select_users(mine), history.select_users(~mine)]
    for words in (lambda one: words_by_day(one, first, DAY, 6), lambda one: words_of_users(one, times)):
        assert np.array_equal(words(parts[0]) + words(parts[1]), words(history))
    e = history.events
    twice = replace(history, events=take_rows(e, np.sort(np.append(np.arange(len(e)), [5, 5]))))
    assert not np.array_equal(words_by_day(twice, first, DAY, 6), words_by_day(history, first, DAY, 6))
    other = replace(history, observed_from=history.observed_from + (np.arange(history.n_users) == 3))
    assert not np.array_equal(words_of_users(other, times), words_of_users(history, times))
