"""The user's seasonality against a loop over blocks, and the bias that it removes."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from crosschannel.core.hashing import keys
from crosschannel.core.times import DAY, HOUR, WEEK, duration
from crosschannel.histories.history import EventLog, History
from crosschannel.reward import DidReward, Goal, Reason, RewardSpec, measure
from crosschannel.reward.measurement.seasonality import PopulationSeasonality
from tests.reward.samples import rebuilt, rich_history
from tests.samples import random_history

pytestmark = pytest.mark.numerics


def slow_level(history, user, b, block, until, weeks):
    """Normal amount of one block of the week: own and population's, from whole blocks before `until`."""
    e = history.events
    first = -(-history.span[0] // block) * block
    last = until // block * block
    starts = [s for s in range(first, last, block) if s % WEEK == b * block]
    if not starts:
        return np.nan
    inside = np.zeros(len(e), dtype=bool)
    for s in starts:
        inside |= (e.time >= s) & (e.time < s + block)
    inside &= e.event == 0
    common = e.value[inside].sum() / history.n_users / len(starts)
    own = e.value[inside & (e.user == user)].sum()
    return (own + weeks * common) / (len(starts) + weeks)


def slow_normal(history, spec, user, t, low, high):
    """Normal amount in the window from low to high, block by block."""
    goal, block = spec.goals[0], duration(spec.seasonality)
    total = 0.0
    for start in range(low // block * block, high, block):
        a, c = max(start, low), min(start + block, high)
        if c > a:
            distances = sorted((abs(a - t), abs(c - t)))
            mass = goal.mass(*distances)
            level = slow_level(
                history, user, start % WEEK // block, block, t - duration(spec.pre), spec.seasonality_weeks
            )
            total += float(mass) * level / block
    return total


@settings(max_examples=6, deadline=None)
@given(
    seed=st.integers(0, 100),
    block=st.sampled_from(["12h", "1d", "3.5d"]),
    post=st.sampled_from(["30h", "9d"]),
    half_life=st.sampled_from([None, "1d"]),
)
def test_seasonality_equals_a_loop_over_blocks(seed, block, post, half_life):
    history = rich_history(seed, users=5, days=30)
    credit = "uniform" if half_life is None else "exponential"
    goal = Goal("order", 1.0, measure="value", credit=credit, half_life=half_life)
    spec = RewardSpec(goals=(goal,), pre="2d", post=post, seasonality=block, seasonality_weeks=1.5)
    free = measure(history, replace(spec, seasonality=None))
    net = measure(history, spec)
    scale = float(goal.mass(0, duration(post)) / goal.mass(0, duration("2d")))
    d = history.decisions
    for i in range(len(d)):
        u, t = d.user[i], int(d.time[i])
        before = slow_normal(history, spec, u, t, t - duration("2d"), t)
        after = slow_normal(history, spec, u, t, t, t + duration(post))
        if np.isnan(before + after):
            assert not net.observed[i]
            assert net.reason[i] == Reason.NO_SEASONALITY or not free.observed[i]
        else:
            assert net.pre[i] == pytest.approx(free.pre[i] - scale * before, rel=1e-9, abs=1e-7)
            assert net.post[i] == pytest.approx(free.post[i] - after, rel=1e-9, abs=1e-7)


def test_decisions_without_an_earlier_week_give_no_reward_and_are_counted():
    history = rich_history(0, days=28)
    spec = RewardSpec(goals=(Goal("order"),), pre="1d", post="1d", seasonality="1d", min_controls=2)
    frame = DidReward(spec).fit(history).transform(history)
    early = history.decisions.time - DAY < history.span[0] + 2 * DAY
    late = history.decisions.time - DAY >= history.span[0] + WEEK + DAY
    inside = (history.decisions.time - DAY >= history.span[0]) & (history.decisions.time + DAY <= history.span[1])
    assert (frame.reason[early & inside] == Reason.NO_SEASONALITY).all()
    assert not (frame.reason[late] == Reason.NO_SEASONALITY).any()


def habits(seed: int, users: int = 1500, weeks: int = 8) -> tuple[History, float]:
    """Users order on one evening of the week each, and are mostly messaged shortly before it; the effect is 0.5."""
    rng = np.random.default_rng(seed)
    favourite = rng.integers(0, 7, users)
    user, slot = (a.ravel() for a in np.meshgrid(np.arange(users), np.arange(6, weeks), indexing="ij"))
    # Slots come at 16:00, on the favourite day or two days earlier, and the former are sent more often.
    on_time = rng.random(len(user)) < 0.5
    time = slot * WEEK + (favourite[user] - 2 * ~on_time) % 7 * DAY + 16 * HOUR
    sent = rng.random(len(user)) < np.where(on_time, 0.8, 0.3)
    week = np.arange(weeks)
    evening = (week[None, :] * WEEK + favourite[:, None] * DAY + 18 * HOUR).ravel()
    base = rng.random(len(evening)) < 0.7
    extra = sent & (rng.random(len(user)) < 0.5)
    event_user = np.concatenate([np.repeat(np.arange(users), weeks)[base], user[extra]])
    event_time = np.concatenate(
        [evening[base] + rng.integers(0, HOUR, base.sum()), time[extra] + rng.integers(1, 12 * HOUR, extra.sum())]
    )
    sample = random_history(0, users=2)
    ids = np.array([f"d{i}" for i in range(len(user))], dtype=object)
    decisions = replace(
        sample.decisions,
        id=ids,
        key=keys(ids),
        user=user,
        time=time,
        actions=np.stack([sent.astype(np.int64), np.zeros(len(user), dtype=np.int64)], axis=1),
        propensity=np.full((len(user), 2), np.nan),
        joint=np.full(len(user), np.nan),
        propensity_source=np.zeros(0, dtype=np.int64),
    )
    n = len(event_user)
    events = EventLog(user=event_user, time=event_time, event=np.zeros(n, dtype=np.int64), value=np.ones(n))
    names = np.arange(users).astype(str).astype(object)
    return rebuilt(sample, decisions, events, user_ids=names, span=(0, (weeks + 1) * WEEK)), 0.5


def test_seasonality_removes_the_bias_of_sends_that_follow_habits():
    """Sends just before the user's own evening look twice as good as they are, until that evening is expected."""
    history, truth = habits(0)
    spec = RewardSpec(goals=(Goal("order"),), pre="12h", post="12h", seasonality_weeks=0.25)

    def effect(seasonality: str | None) -> tuple[float, float]:
        frame = DidReward(replace(spec, seasonality=seasonality)).fit(history).transform(history)
        mine = frame.reward[(history.decisions.actions[:, 0] > 0) & frame.identified]
        return float(mine.mean()), float(2 * mine.std() / np.sqrt(len(mine)))

    naive, error = effect(None)
    assert naive - truth > 4 * error
    assert naive - truth > 0.2
    adjusted, error = effect("6h")
    assert abs(adjusted - truth) < 0.1
    assert abs(adjusted - truth) < (naive - truth) / 3


def test_who_is_observed_within_one_block_only_counts_in_none():
    """They were counted as leaving a block that they never began, and raised the mean of all others there."""
    history = random_history(0, users=40)
    block, goals = DAY, (Goal("order"),)
    middle = (history.span[0] // block + 5) * block
    brief = np.arange(40) < 20
    start = np.where(brief, middle + HOUR, history.span[0])
    end = np.where(brief, middle + 3 * HOUR, history.span[1])
    whole = PopulationSeasonality.fit(history.select_users(~brief), goals, [32], block)
    found = PopulationSeasonality.fit(replace(history, observed_from=start, observed_until=end), goals, [32], block)
    assert whole.amount.any()
    np.testing.assert_array_equal(found.amount, whole.amount)
