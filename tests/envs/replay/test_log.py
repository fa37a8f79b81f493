"""What becomes a step of a replay, what does not, and that nothing of it can change or leak."""

from __future__ import annotations

import copy
import pickle
from dataclasses import fields, replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from crosschannel.core.errors import ConfigError
from crosschannel.core.hashing import keys
from crosschannel.core.times import DAY
from crosschannel.envs.replay.env import CrossChannelReplay
from crosschannel.envs.replay.log import CHURNED, FEW_STEPS, NOT_FINITE, ReplayLog
from crosschannel.envs.replay.order import PassOrder
from crosschannel.histories.features import ContextFeatures
from crosschannel.histories.history import EventLog, History
from crosschannel.reward import Reason
from tests.envs.replay.samples import rewards_of, sample_history, sample_log, steps_of


def test_steps_are_the_identified_decisions_up_to_leaving_counted_by_a_loop():
    history = sample_history(3)
    rewards = rewards_of(history)
    log = ReplayLog.build(history, rewards, ContextFeatures.fit(history))
    d, e = history.decisions, history.events
    churn = history.event_names.index("unsubscribed")
    rows, churned, ids = [], [], []
    for user in range(history.n_users):
        left = e.time[(e.user == user) & (e.event == churn)]
        mine = [i for i in np.flatnonzero(d.user == user) if not (len(left) and d.time[i] > left.min())]
        mine = [i for i in mine if np.isfinite(rewards.reward[i])]
        if len(mine) >= 2:
            rows += mine
            churned.append(len(left) > 0)
            ids.append(history.user_ids[user])
    assert sorted(log.decision_row.tolist()) == rows
    assert log.churned.tolist() == churned
    assert 0 < log.churned.sum() < log.n_users
    assert log.user_ids.tolist() == ids
    assert log.dropped_users == history.n_users - len(ids)
    chosen = log.decision_row
    np.testing.assert_array_equal(log.rewards, rewards.reward[chosen])
    np.testing.assert_array_equal(log.se, rewards.se[chosen])
    np.testing.assert_array_equal(log.available_at, rewards.available_at[chosen])
    for name, column in {"actions": "actions", "keys": "key", "propensity": "propensity", "joint": "joint"}.items():
        np.testing.assert_array_equal(getattr(log, name), getattr(d, column)[chosen])
    np.testing.assert_array_equal(log.action_mask, history.modules.feasible_mask(history.eligible[chosen]))
    np.testing.assert_array_equal(log.context, ContextFeatures.fit(history).transform(history)[chosen])
    np.testing.assert_array_equal(log.user_ids[log.user], history.user_ids[d.user[chosen]])


def test_rows_are_slot_by_slot_and_following_leads_through_each_user_in_time():
    log = sample_log(3)
    seen = []
    for user in range(log.n_users):
        row, mine = user, []
        while row >= 0:
            mine.append(row)
            row = int(log.next_row[row])
        assert mine == steps_of(log, user)
        assert (np.diff(log.time[mine]) > 0).all()
        seen += mine
    assert sorted(seen) == list(range(len(log)))
    slot = np.empty(len(log), dtype=int)
    for user in range(log.n_users):
        slot[steps_of(log, user)] = np.arange(len(steps_of(log, user)))
    assert (np.diff(slot * log.n_users + log.user) > 0).all()
    assert len(np.unique(np.bincount(log.user))) > 2


def test_every_decision_is_a_step_or_counted_under_one_reason():
    history = sample_history(1)
    rewards = rewards_of(history)
    missing = rewards.reward.copy()
    ok = np.flatnonzero(rewards.identified)
    missing[ok[::7]] = np.nan
    se = rewards.se.copy()
    se[ok[1::7]] = np.nan
    rewards = replace(rewards, reward=missing, se=se)
    log = ReplayLog.build(history, rewards, ContextFeatures.fit(history))
    assert len(log) + sum(log.skipped.values()) == len(history.decisions)
    assert log.skipped[Reason.OUTSIDE_OBSERVATION.text] > 0
    assert log.skipped[CHURNED] > 0
    assert 0 < log.skipped[NOT_FINITE] <= len(ok[::7]) + len(ok[1::7])
    assert not np.isin(log.decision_row, np.concatenate([ok[::7], ok[1::7]])).any()
    assert np.isfinite(log.rewards).all()
    assert np.isfinite(log.se).all()
    for part in (f"{len(log):,} of {len(history.decisions):,} decisions", CHURNED, NOT_FINITE, "Propensities logged"):
        assert part in log.summary()


def test_users_with_too_few_steps_are_dropped_and_counted():
    history = sample_history(2, leaving=0.0)
    rewards = rewards_of(history)
    d = history.decisions
    first, second = (np.flatnonzero(rewards.identified & (d.user == user)) for user in (0, 1))
    few = rewards.reward.copy()
    few[first[1:]] = np.nan
    few[second] = np.nan
    rewards = replace(rewards, reward=few)
    features = ContextFeatures.fit(history)
    log = ReplayLog.build(history, rewards, features)
    assert log.dropped_users == 2
    assert log.skipped[FEW_STEPS] == 1
    assert np.bincount(log.user).min() >= 2
    kept = ReplayLog.build(history, rewards, features, min_steps=1)
    assert kept.dropped_users == 1
    assert len(kept) == len(log) + 1
    longer = ReplayLog.build(history, rewards, features, min_steps=8)
    assert np.bincount(longer.user).min() >= 8


def test_the_history_says_which_events_are_churn():
    history = sample_history(4)
    rewards, features = rewards_of(history), ContextFeatures.fit(history)
    assert not ReplayLog.build(history.with_churn_events(()), rewards, features).churned.any()
    visits = ReplayLog.build(history.with_churn_events(("visit",)), rewards, features, min_steps=1)
    assert visits.churned.all()


def test_nothing_left_is_an_error_that_says_why():
    history = sample_history(0)
    rewards = rewards_of(history)
    features = ContextFeatures.fit(history)
    nothing = replace(rewards, reward=np.full(len(rewards), np.nan))
    with pytest.raises(ConfigError, match=r"nothing to replay.*window extends beyond.*shorter reward windows"):
        ReplayLog.build(history, nothing, features)
    with pytest.raises(ConfigError, match="compute the rewards from the history"):
        ReplayLog.build(history.select_users(np.arange(40) > 0), rewards, features)
    with pytest.raises(ConfigError, match="min_steps is 0"):
        ReplayLog.build(history, rewards, features, min_steps=0)


def test_the_log_is_read_only_also_after_pickling_and_one_log_serves_all_copies():
    log = sample_log()
    again = pickle.loads(pickle.dumps(log))
    for one in (log, again):
        for field in fields(one):
            value = getattr(one, field.name)
            if isinstance(value, np.ndarray):
                with pytest.raises(ValueError, match="read-only"):
                    value[:1] = value[:1]
    for field in fields(log):
        a, b = getattr(log, field.name), getattr(again, field.name)
        assert np.array_equal(a, b) if isinstance(a, np.ndarray) else a == b
    assert copy.deepcopy(log) is log
    assert again.fingerprint == log.fingerprint != sample_log(1).fingerprint


def test_users_are_found_by_id():
    log = sample_log()
    assert log.users_of(log.user_ids[[7, 0, 7]]).tolist() == [7, 0, 7]
    with pytest.raises(ConfigError, match="1 of the users asked for \\('nobody'\\)"):
        log.users_of([log.user_ids[0], "nobody"])


def test_an_order_serves_every_user_once_a_pass_and_differs_between_passes_and_seeds():
    user_keys = keys(np.arange(60))
    order = PassOrder(user_keys, 5)
    passes = order.users(np.arange(60 * 20)).reshape(20, 60)
    np.testing.assert_array_equal(np.sort(passes, axis=1), np.tile(np.arange(60), (20, 1)))
    assert len(np.unique(passes, axis=0)) == 20
    # Asked for in any order, one by one, from a new object, the answer is the same.
    positions = np.random.default_rng(0).permutation(60 * 20)
    again = PassOrder(user_keys, 5)
    assert [int(again.users(np.array([p]))[0]) for p in positions] == passes.ravel()[positions].tolist()
    assert (PassOrder(user_keys, 25).users(np.arange(60)) != passes[0]).any()


def test_blocks_are_random_sets_that_ascend_from_a_random_user_on():
    user_keys = keys(np.arange(60))
    plain, blocks = PassOrder(user_keys, 5), PassOrder(user_keys, 5, block=8)
    for number in range(3):
        positions = np.arange(60 * number, 60 * (number + 1))
        for block in np.unique(positions // 8):
            together = positions[positions // 8 == block]
            users, first = blocks.users(together), plain.users(together)[0]
            assert sorted(users) == sorted(plain.users(together))
            assert users[0] == first
            assert (np.diff((users - first) % 60) > 0).all()


def test_first_users_of_a_pass_are_uniform():
    order = PassOrder(keys(np.arange(10)), 1)
    first = order.users(np.arange(3000) * 10)
    counts = np.bincount(first, minlength=10)
    # 3000 draws among 10: chi-square with 9 degrees of freedom is below 27.9 in 99.9 % of cases.
    assert ((counts - 300.0) ** 2 / 300.0).sum() < 27.9


def observations_up_to(log: ReplayLog, history: History, user: str, time: int) -> dict[int, tuple[bytes, bytes]]:
    """What the policy sees of one user at every slot up to a time, by decision row."""
    if user not in log.user_ids:
        return {}
    env = CrossChannelReplay(log=log)
    observation, _ = env.reset(seed=1, options={"user": user})
    seen, ended = {}, False
    while not ended:
        before = observation
        observation, _, terminated, truncated, info = env.step(env.action_space.sample())
        ended = terminated or truncated
        if history.decisions.time[info["decision_row"]] <= time:
            seen[int(info["decision_row"])] = (before["context"].tobytes(), before["action_mask"].tobytes())
    return seen


@settings(max_examples=25, deadline=None)
@given(seed=st.integers(0, 10**6), user=st.integers(0, 39), slot=st.integers(0, 9))
def test_events_at_or_after_a_slot_leave_its_observation_equal_to_the_bit(seed, user, slot):
    history = sample_history(6, leaving=0.0)
    features = ContextFeatures.fit(history)
    row = history.decision_offsets[user] + slot
    time = int(history.decisions.time[row])
    rng = np.random.default_rng(seed)
    e = history.events
    past = e.time < time
    keep = past | (rng.random(len(e)) < 0.5)
    extra = int(rng.integers(1, 200))
    shift = rng.integers(0, 2 * DAY, int(keep.sum())) * ~past[keep]
    shift[rng.random(len(shift)) < 0.5] = 0
    changed = EventLog(
        user=np.concatenate([e.user[keep], rng.integers(0, 40, extra), [user]]),
        time=np.concatenate([e.time[keep] + shift, rng.integers(time, 14 * DAY, extra), [time]]),
        event=np.concatenate([e.event[keep], rng.integers(0, 3, extra), [0]]),
        value=np.concatenate([e.value[keep] * np.where(past[keep], 1, 3), rng.integers(1, 99, extra), [7.0]]),
    )
    other = History.from_arrays(
        history.decisions,
        changed,
        modules=history.modules,
        user_ids=history.user_ids,
        event_names=history.event_names,
        span=history.span,
    )
    name = str(history.user_ids[user])
    before = observations_up_to(ReplayLog.build(history, rewards_of(history), features), history, name, time)
    after = observations_up_to(ReplayLog.build(other, rewards_of(other), features), other, name, time)
    common = before.keys() & after.keys()
    assert all(before[row] == after[row] for row in common)
    # The user's slots before t are replayed in both, unless the changes left too few steps.
    assert common or not after or not before


def test_an_event_before_a_slot_does_change_its_observation():
    history = sample_history(6, leaving=0.0)
    features = ContextFeatures.fit(history)
    row = int(history.decision_offsets[3]) + 5
    time, e = int(history.decisions.time[row]), history.events
    more = EventLog(
        user=np.append(e.user, 3),
        time=np.append(e.time, time - 1),
        event=np.append(e.event, 0),
        value=np.append(e.value, 9.0),
    )
    other = History.from_arrays(
        history.decisions, more, modules=history.modules, user_ids=history.user_ids,
        event_names=history.event_names, span=history.span,
    )  # fmt: skip
    seen = [
        observations_up_to(ReplayLog.build(h, rewards_of(h), features), h, "u003", time)[row] for h in (history, other)
    ]
    assert seen[0] != seen[1]
