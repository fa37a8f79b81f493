"""Window sums against a loop over rows, and which decisions are controls."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from crosschannel.core.errors import ConfigError
from crosschannel.core.hashing import keys
from crosschannel.core.times import duration
from crosschannel.histories.history import EventLog
from crosschannel.reward import DidReward, Goal, Matching, Reason, RewardSpec, measure
from crosschannel.reward.effects import TreatmentEffects
from crosschannel.reward.measurement import amounts
from tests.reward.samples import DECAYING, rebuilt, rich_history
from tests.samples import random_history

pytestmark = pytest.mark.numerics


def slow_amount(history, user, low, high, *, closed_low, goal, t):
    """One user's amount of a goal in a window, the slow and obvious way; credit decays with the distance from t."""
    e = history.events
    names = np.asarray(history.event_names)[e.event]
    wanted = names == goal.event if not goal.event.endswith("*") else np.char.startswith(names, goal.event[:-1])
    inside = (e.time >= low) & (e.time < high) if closed_low else (e.time > low) & (e.time <= high)
    rows = wanted & inside & (e.user == user)
    credit = np.ones(rows.sum()) if goal.half_life is None else 0.5 ** (np.abs(e.time[rows] - t) / goal.decay)
    return float((credit * (e.value[rows] if goal.measure == "value" else 1.0)).sum())


def integral(goal, near, far):
    """The credit's integral over the distances from near to far, by the midpoint rule."""
    x = near + (np.arange(20_000) + 0.5) * (far - near) / 20_000
    return float((0.5 ** (x / goal.decay)).mean() * (far - near)) if goal.half_life else float(far - near)


def slow_side(history, user, t, *, length, other, post, goal, before):
    """One side's goal value per post window: whole, or limited in blocks as long as the shorter side."""
    size = length if goal.clip is None else min(length, other)
    value, mass = 0.0, 0.0
    for b in range(length // size):
        near, far = b * size, (b + 1) * size
        low, high = (t - far, t - near) if before else (t + near, t + far)
        credit = integral(goal, near, far)
        amount = slow_amount(history, user, low, high, closed_low=before, goal=goal, t=t)
        amount *= integral(goal, 0, post) / credit
        value += credit * (amount if goal.clip is None else min(amount, goal.clip))
        mass += credit
    return goal.weight * value / mass


def slow_values(history, user, t, pre, end, post, goals):
    """One decision's goal values before and after."""
    return [
        sum(slow_side(history, user, t, length=a, other=b, post=post, goal=g, before=before) for g in goals)
        for a, b, before in ((pre, end, True), (end, pre, False))
    ]


@settings(max_examples=15, deadline=None)
@given(
    seed=st.integers(0, 1000),
    pre=st.sampled_from(["8h", "1d", "36h", "3d"]),
    post=st.sampled_from(["1d", "30h"]),
    clip=st.sampled_from([None, 40.0]),
)
def test_windows_equal_a_loop_over_rows(seed, pre, post, clip):
    history = random_history(seed, users=6, days=8)
    goals = (Goal("order", 2.0, measure="value", clip=clip), Goal("visit", -0.5), Goal("*", 0.25))
    outcomes = measure(history, RewardSpec(goals=goals, pre=pre, post=post))
    d = history.decisions
    for i in range(len(d)):
        before, after = slow_values(history, d.user[i], d.time[i], duration(pre), duration(post), duration(post), goals)
        assert outcomes.pre[i] == pytest.approx(before, abs=1e-9)
        assert outcomes.post[i] == pytest.approx(after, abs=1e-9)


@settings(max_examples=6, deadline=None)
@given(seed=st.integers(0, 1000), post=st.sampled_from(["1d", "60h"]), pairs=st.sampled_from([1, 7, 1 << 20]))
def test_decaying_and_truncated_windows_equal_a_loop_over_rows(seed, post, pairs):
    """With chunks of one pair, of a few and of all: where they are cut changes nothing."""
    history = rich_history(seed, users=6)
    goals = (*DECAYING, Goal("visit", 0.5, clip=2.0))
    spec = RewardSpec(goals=goals, pre="36h", post=post, overlap="truncate", min_post="6h")
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(amounts, "PAIRS_PER_CHUNK", pairs)
        outcomes = measure(history, spec)
    d, pre, full = history.decisions, duration("36h"), duration(post)
    sent = d.actions[:, 0] > 0
    for i in range(len(d)):
        u, t = d.user[i], d.time[i]
        later = d.time[sent & (d.user == u) & (d.time > t)]
        end = min(full, int(later.min()) - t) if len(later) else full
        if end < duration("6h"):
            assert not outcomes.observed[i]
            continue
        before, after = slow_values(history, u, t, pre, end, full, goals)
        assert outcomes.pre[i] == pytest.approx(before, rel=1e-6, abs=1e-8)
        assert outcomes.post[i] == pytest.approx(after, rel=1e-6, abs=1e-8)


@pytest.mark.parametrize(
    ("pre", "post", "overlap", "goal"),
    [
        ("1d", "1d", "shared", Goal("order", clip=3.0)),
        ("3d", "1d", "shared", Goal("order", clip=3.0)),
        ("1d", "3d", "shared", Goal("order", clip=6.0)),
        ("60h", "1d", "shared", Goal("order", winsor=0.8)),
        ("3d", "1d", "shared", Goal("order", clip=2.0, credit="exponential", half_life="1d")),
        ("2d", "3d", "truncate", Goal("order", clip=6.0)),
        ("1d", "3d", "truncate", Goal("order", winsor=0.8)),
    ],
)
def test_a_limit_makes_no_effect_where_there_is_none(pre, post, overlap, goal):
    """Messages to the active, without effect: 10,000 users, so that limits on unequal lengths are off by many errors.

    Orders arrive at a steady rate by user, and messages two days apart go to the more active. In all but the first
    case a limit on the whole window, before scaling, is off by 10 to 44 errors here, and one after scaling by up to 8.
    """
    rng = np.random.default_rng(7)
    users, day = 10_000, duration("1d")
    rate = rng.choice([0.5, 2.0, 4.0], users)
    slots = np.array([5, 7])
    user, when = np.repeat(np.arange(users), 2), np.tile(slots, users) * day
    sent = rng.random(len(user)) < rate[user] / 6.0
    count = rng.poisson(rate * 12)
    base = random_history(0)
    ids = np.arange(len(user)).astype(str).astype(object)
    decisions = replace(
        base.decisions,
        id=ids,
        key=keys(ids),
        user=user,
        time=when,
        actions=np.stack([sent.astype(np.int64), np.zeros(len(user), dtype=np.int64)], axis=1),
        propensity=np.full((len(user), 2), np.nan),
        joint=np.full(len(user), np.nan),
        propensity_source=np.zeros(0, dtype=np.int64),
        policy=None,
        arm=None,
        eligible=np.ones((len(user), 5), dtype=bool),
    )
    n = int(count.sum())
    events = EventLog(np.repeat(np.arange(users), count), rng.integers(0, 12 * day, n), np.zeros(n, int), np.ones(n))
    names = np.arange(users).astype(str).astype(object)
    log = rebuilt(base, decisions, events, user_ids=names, span=(0, 12 * day), users=None)
    spec = RewardSpec(goals=(goal,), pre=pre, post=post, overlap=overlap, time_bucket="1d", min_post="12h")
    effect = TreatmentEffects.fit(DidReward(spec), log).effect()
    assert abs(effect.value) < 3.5 * effect.se


def test_windows_cut_too_short_give_no_reward_and_are_counted():
    history = rich_history(1)
    spec = RewardSpec(goals=(Goal("order"),), pre="1d", post="2d", overlap="truncate", min_post="12h", min_controls=2)
    outcomes = measure(history, spec)
    frame = DidReward(spec).fit(history).transform(history)
    d = history.decisions
    sent = d.actions[:, 0] > 0
    inside = (d.time - duration("1d") >= history.span[0]) & (d.time + duration("2d") <= history.span[1])
    for i in range(len(d)):
        gap = d.time[sent & (d.user == d.user[i])] - d.time[i]
        short = bool(((gap > 0) & (gap < duration("12h"))).any())
        assert outcomes.observed[i] == (inside[i] and not short)
        assert (frame.reason[i] == Reason.TOO_SHORT) == (inside[i] and short)
    assert 0 < frame.counts()[Reason.TOO_SHORT.text] < inside.sum()
    np.testing.assert_array_equal(outcomes.overlap, measure(history, replace(spec, overlap="shared")).overlap)


def test_truncating_removes_the_next_messages_effect():
    """Each message adds events at a constant rate for two days, and the next one often comes within them.

    Sharing windows counts the next message's effect as well; cut windows, scaled up, give that of one message. Slots
    are drawn at random, so the untouched windows before are alike.
    """
    rng = np.random.default_rng(0)
    users, day = 4000, duration("1d")
    slots = np.array([10, 11])
    user, when = np.repeat(np.arange(users), 2), np.tile(slots, users) * day
    sent = np.stack([rng.random(users) < 0.5, np.zeros(users, dtype=bool)], axis=1)
    # Whoever got the first message gets the second more often.
    sent[:, 1] = rng.random(users) < np.where(sent[:, 0], 0.7, 0.2)
    count = rng.poisson(2.0, user.shape) * sent.ravel()
    event_user = np.concatenate([np.repeat(user, count), np.repeat(np.arange(users), 20)])
    event_time = np.concatenate(
        [np.repeat(when, count) + rng.integers(1, 2 * day, count.sum()), rng.integers(0, 20 * day, 20 * users)]
    )
    history = random_history(0, users=2)
    ids = np.array([f"d{i}" for i in range(2 * users)], dtype=object)
    decisions = replace(
        history.decisions,
        id=ids,
        key=keys(ids),
        user=user,
        time=when,
        actions=np.stack([sent.ravel().astype(np.int64), np.zeros(2 * users, dtype=np.int64)], axis=1),
        propensity=np.full((2 * users, 2), np.nan),
        joint=np.full(2 * users, np.nan),
        propensity_source=np.zeros(0, dtype=np.int64),
    )
    one = np.ones(len(event_user))
    events = EventLog(user=event_user, time=event_time, event=np.zeros(len(one), dtype=np.int64), value=one)
    log = rebuilt(history, decisions, events, user_ids=np.arange(users).astype(str).astype(object), span=(0, 20 * day))
    spec = RewardSpec(goals=(Goal("order"),), pre="2d", post="2d")
    first = log.decisions.time == 10 * day

    def effect(overlap: str) -> tuple[float, float]:
        frame = DidReward(replace(spec, overlap=overlap)).fit(log).transform(log)
        mine = frame.reward[first & (log.decisions.actions[:, 0] > 0)]
        return float(mine.mean()), float(np.sqrt(2 * mine.var() / len(mine)))

    shared, error = effect("shared")
    assert shared - 2.0 > 3 * error  # 0.5 more second messages, half of whose effect falls into the window
    cut, error = effect("truncate")
    assert abs(cut - 2.0) < 3 * error


def test_winsor_limits_are_learned_in_fit_and_applied_as_they_are():
    train, other = rich_history(1), rich_history(2)
    spec = RewardSpec(goals=(Goal("order", 2.0, measure="value", winsor=0.7),), pre="2d", post="1d", min_controls=2)
    # The limit acts on blocks of a day: the pre window has two.
    free = measure(train, replace(spec, pre="1d", goals=(Goal("order", 1.0, measure="value"),)))
    seen = measure(train, spec).observed
    amount = np.concatenate([free.pre[seen], free.post[seen]])
    amount = np.sort(amount[amount != 0])
    limit = amount[int(np.ceil(0.7 * len(amount))) - 1]
    outcomes = measure(train, spec)
    assert outcomes.preprocessing.limits[0] == pytest.approx(limit, rel=1e-12)
    assert outcomes.post.max() == 2.0 * outcomes.preprocessing.limits[0]
    assert (free.post > limit).any()
    fitted = DidReward(spec).fit(train)
    clipped = replace(spec, goals=(Goal("order", 2.0, measure="value", clip=float(outcomes.preprocessing.limits[0])),))
    np.testing.assert_array_equal(fitted.transform(other).post, measure(other, clipped).post)
    assert measure(other, spec).preprocessing.limits[0] != outcomes.preprocessing.limits[0]


@pytest.mark.parametrize(
    ("ties", "pre", "post"), [("before", (2, 3), (4, 5)), ("after", (1, 2), (3, 4))], ids=["before", "after"]
)
def test_windows_divide_time_without_gap_or_overlap(ties, pre, post):
    """An event at t is on the declared side, and one at the far end of a window on the other."""
    history = replace(random_history(0, users=1, days=8), ties=ties)
    t = history.decisions.time[1]
    day = duration("1d")
    times = np.array([t - day - 1, t - day, t - 1, t, t + 1, t + day, t + day + 1])
    events = replace(
        history.events,
        user=np.zeros(7, dtype=np.int64),
        time=times,
        event=np.zeros(7, dtype=np.int64),
        value=10.0 ** np.arange(7),
    )
    spec = RewardSpec(goals=(Goal("order", measure="value"),), pre="1d", post="1d")
    outcomes = measure(replace(history, events=events), spec)
    assert outcomes.pre[1] == sum(10**k for k in pre)
    assert outcomes.post[1] == sum(10**k for k in post)


def test_overlap_and_controls():
    history = random_history(3, users=30)
    spec = RewardSpec(goals=(Goal("order"),), pre="2d", post="1d", controls="untouched")
    outcomes = measure(history, spec)
    excluded = measure(history, replace(spec, controls="not_sent", overlap="exclude"))
    simple = measure(history, replace(spec, controls="not_sent"))
    np.testing.assert_array_equal(outcomes.control, excluded.control)
    np.testing.assert_array_equal(simple.control, ~simple.treated & simple.observed)
    d = history.decisions
    sent = d.actions[:, 0] > 0
    for i in range(len(d)):
        mine = sent & (d.user == d.user[i]) & (np.arange(len(d)) != i)
        gap = d.time[mine] - d.time[i]
        expected = bool(((gap >= -duration("2d")) & (gap < duration("1d"))).any())
        assert outcomes.overlap[i] == expected
        assert outcomes.control[i] == (not sent[i] and not expected and outcomes.observed[i])


def test_windows_outside_the_log_are_not_observed():
    history = random_history(1)
    outcomes = measure(history, RewardSpec(goals=(Goal("order"),), pre="3d", post="1d"))
    assert not outcomes.observed[history.decisions.time < duration("3d")].any()
    assert outcomes.observed[history.decisions.time >= duration("3d")].all()


@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        (lambda: Goal("order", measure="sum"), "neither 'count' nor 'value'"),
        (lambda: Goal("order", weight=float("nan")), "not a finite number"),
        (lambda: Goal("order", clip=-1.0), "clip -1.0 is not a positive number"),
        (lambda: RewardSpec(goals=()), "no goals"),
        (lambda: RewardSpec(pre="3 weeks"), "not a duration"),
        (lambda: RewardSpec(overlap="drop"), "neither 'shared' nor 'exclude' nor 'truncate'"),  # type: ignore[arg-type]
        (lambda: RewardSpec(min_controls=1), "below 2"),
        (lambda: RewardSpec(controls="all"), "neither 'not_sent' nor 'untouched' nor 'holdout'"),  # type: ignore
        (lambda: RewardSpec(controls="holdout"), "go together"),
        (lambda: RewardSpec(holdout_arms=("a",)), "go together"),
        (lambda: RewardSpec(overlap="truncate", min_post="4d"), "min_post 4d is longer than post 3d"),
        (lambda: RewardSpec(seasonality="5h"), "does not divide the week"),
        (lambda: RewardSpec(seasonality="6h", seasonality_weeks=0.0), "not a positive number"),
        (lambda: Goal("order", clip=1.0, winsor=0.9), "both clip and winsor"),
        (lambda: Goal("order", winsor=99.0), "not a quantile"),
        (lambda: Goal("order", credit="linear"), "neither 'uniform' nor 'exponential'"),  # type: ignore[arg-type]
        (lambda: Goal("order", credit="exponential"), "go together"),
        (lambda: Goal("order", half_life="1d"), "go together"),
        (lambda: Matching(strata=0), "below 1"),
        (lambda: Matching(within=("region", "region")), "twice"),
        (lambda: Matching(fallback=("cell",)), "may name 'strata', 'within' and 'time'"),  # type: ignore[arg-type]
    ],
)
def test_wrong_settings_are_explained(wrong, message):
    with pytest.raises(ConfigError, match=message):
        wrong()


def test_unknown_goal_event_names_the_known():
    with pytest.raises(ConfigError, match=r"reward\.goals: the history has no event 'ordr'.*order"):
        measure(random_history(0), RewardSpec(goals=(Goal("ordr"),)))
