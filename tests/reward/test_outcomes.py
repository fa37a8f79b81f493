"""Window sums against a loop over rows, and which decisions are controls."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from samples import random_history

from histories.errors import ConfigError
from histories.times import duration
from reward import Goal, RewardSpec, measure


def slow_window(history, user, low, high, *, closed_low, goal):
    """One user's goal value in a window, the slow and obvious way."""
    e = history.events
    names = np.asarray(history.event_names)[e.event]
    wanted = names == goal.event if not goal.event.endswith("*") else np.char.startswith(names, goal.event[:-1])
    inside = (e.time >= low) & (e.time < high) if closed_low else (e.time > low) & (e.time <= high)
    rows = wanted & inside & (e.user == user)
    amount = float(e.value[rows].sum()) if goal.measure == "value" else float(rows.sum())
    return goal.weight * (amount if goal.clip is None else min(amount, goal.clip))


@settings(max_examples=15, deadline=None)
@given(
    seed=st.integers(0, 1000),
    pre=st.sampled_from(["1d", "36h", "2d"]),
    post=st.sampled_from(["1d", "30h"]),
    clip=st.sampled_from([None, 40.0]),
)
def test_windows_equal_a_loop_over_rows(seed, pre, post, clip):
    history = random_history(seed, users=6, days=8)
    goals = (Goal("order", 2.0, "value", clip), Goal("visit", -0.5), Goal("*", 0.25))
    spec = RewardSpec(goals=goals, pre=pre, post=post)
    outcomes = measure(history, spec)
    d = history.decisions
    for i in range(len(d)):
        u, t = d.user[i], d.time[i]
        before = sum(slow_window(history, u, t - duration(pre), t, closed_low=True, goal=g) for g in goals)
        after = sum(slow_window(history, u, t, t + duration(post), closed_low=False, goal=g) for g in goals)
        assert outcomes.pre[i] == pytest.approx(before * duration(post) / duration(pre), abs=1e-9)
        assert outcomes.post[i] == pytest.approx(after, abs=1e-9)


def test_window_ends_are_half_open():
    """An event at t belongs to neither side of a decision at t; at t - pre and at t + post it counts."""
    history = random_history(0, users=1, days=8)
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
    assert outcomes.pre[1] == 10 + 100
    assert outcomes.post[1] == 10_000 + 100_000


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
        (lambda: Goal("order", clip=-1.0), "clip -1.0 is not between"),
        (lambda: RewardSpec(goals=()), "no goals"),
        (lambda: RewardSpec(pre="3 weeks"), "not a duration"),
        (lambda: RewardSpec(overlap="drop"), "neither 'shared' nor 'exclude'"),  # type: ignore[arg-type]
        (lambda: RewardSpec(min_controls=1), "below 2"),
    ],
)
def test_wrong_settings_are_explained(wrong, message):
    with pytest.raises(ConfigError, match=message):
        wrong()


def test_unknown_goal_event_names_the_known():
    with pytest.raises(ConfigError, match=r"no event 'ordr'.*order"):
        measure(random_history(0), RewardSpec(goals=(Goal("ordr"),)))
