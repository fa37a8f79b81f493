"""How fast goals are summed in windows: ratios to one sort of the event times, and to pandas, in the same run.

Measured is what `reward.measure` does with a history: totals of one goal, four bisections for the ends of the pre and
the post window of every decision, and their differences. A history is sorted by (user, time) once, when it is read.
"""

from __future__ import annotations

import tracemalloc
from collections.abc import Callable
from time import perf_counter

import numpy as np
import pandas as pd
import pytest

from histories.hashing import keys
from histories.history import DecisionLog, EventLog, History
from histories.modules import Module, Modules
from histories.times import DAY
from histories.windows import Timeline
from reward import Goal
from reward.amounts import window_amounts

pytestmark = pytest.mark.benchmark

GOAL = Goal("spend", measure="value")
LENGTH = 3 * DAY
DAYS = 60


def log(events: int, decisions: int, users: int, seed: int = 0) -> History:
    """Events and decisions spread evenly over users and 60 days."""
    rng = np.random.default_rng(seed)
    ids = np.arange(decisions)
    return History.from_arrays(
        DecisionLog(
            id=ids,
            key=keys(ids[:1]).repeat(decisions),
            user=rng.integers(0, users, decisions),
            time=rng.integers(10 * DAY, 50 * DAY, decisions),
            actions=rng.integers(0, 2, (decisions, 1)),
            propensity=np.full((decisions, 1), 0.5),
            joint=np.full(decisions, 0.5),
        ),
        EventLog(
            user=rng.integers(0, users, events),
            time=rng.integers(0, DAYS * DAY, events),
            event=np.zeros(events, dtype=np.int64),
            value=rng.random(events) * 50,
        ),
        modules=Modules([Module("channel", ("none", "push"))]),
        user_ids=np.arange(users),
        event_names=("spend",),
        span=(0, DAYS * DAY),
    )


def sums(history: History, offsets: np.ndarray) -> list[np.ndarray]:
    """The goal's amounts before and after every decision."""
    d = history.decisions
    events = Timeline(history.events.time, offsets)
    before = events.before(d.user, d.time - LENGTH), events.before(d.user, d.time)
    after = (
        events.before(d.user, d.time, inclusive=True),
        events.before(d.user, d.time + LENGTH, inclusive=True),
    )
    return window_amounts(GOAL, history, d.time, before, after)


def by_merge_asof(history: History) -> list[np.ndarray]:
    """The same with pandas: running totals per user, and one merge for each end of a window."""
    e, d = history.events, history.decisions
    events = pd.DataFrame({"user": e.user, "time": e.time, "total": pd.Series(e.value).groupby(e.user).cumsum()})
    events = events.sort_values("time", kind="stable")

    def total(shift: int, inclusive: bool) -> np.ndarray:
        asked = pd.DataFrame({"user": d.user, "time": d.time + shift, "row": np.arange(len(d))}).sort_values("time")
        found = pd.merge_asof(asked, events, on="time", by="user", allow_exact_matches=inclusive)
        return found.set_index("row").total.fillna(0.0).sort_index().to_numpy()

    return [total(0, False) - total(-LENGTH, False), total(LENGTH, True) - total(0, True)]


def shortest(function: Callable[[], object], rounds: int) -> float:
    """Shortest of some calls, in seconds."""
    times = []
    for _ in range(rounds):
        begin = perf_counter()
        function()
        times.append(perf_counter() - begin)
    return min(times)


def test_the_two_ways_agree():
    history = log(20_000, 2_000, 500)
    for mine, theirs in zip(sums(history, history.event_offsets), by_merge_asof(history), strict=True):
        np.testing.assert_allclose(mine, theirs, atol=1e-6)


@pytest.mark.parametrize(
    ("events", "decisions", "limit"), [(1_000_000, 100_000, 1.0), (10_000_000, 1_000_000, 1.2)], ids=["1M", "10M"]
)
def test_window_sums_against_a_sort_and_pandas(benchmark, events, decisions, limit):
    history = log(events, decisions, events // 20)
    offsets = history.event_offsets
    times = np.random.default_rng(1).permutation(history.events.time)
    benchmark.pedantic(sums, args=(history, offsets), rounds=3, warmup_rounds=1)
    mine, sort = shortest(lambda: sums(history, offsets), 5), shortest(lambda: np.sort(times), 5)
    peer = shortest(lambda: by_merge_asof(history), 1)
    tracemalloc.start()
    sums(history, offsets)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    bytes_per_event = peak / events
    benchmark.extra_info |= {"sort": mine / sort, "merge_asof": peer / mine, "bytes_per_event": bytes_per_event}
    print(
        f"\n{events:,}: {mine / sort:.2f} x sort, {peer / mine:.1f} x merge_asof, {bytes_per_event:.1f} bytes an event"
    )
    assert mine <= limit * sort
    assert peer >= 2 * mine
    assert bytes_per_event <= 40


def test_linear_in_the_number_of_events(benchmark):
    """Time per event from 2,500,000 to 20,000,000, decisions and users growing alike."""
    per_event = {}
    for events in (2_500_000, 5_000_000, 10_000_000, 20_000_000):
        history = log(events, events // 10, events // 20)
        offsets = history.event_offsets
        per_event[events] = shortest(lambda h=history, o=offsets: sums(h, o), 4) / events
        if events == 20_000_000:
            benchmark.pedantic(sums, args=(history, offsets), rounds=2)
    benchmark.extra_info |= {str(events): cost * 1e9 for events, cost in per_event.items()}
    print("\n" + ", ".join(f"{events:,}: {cost * 1e9:.1f} ns an event" for events, cost in per_event.items()))
    # Eight times the rows; what they cost more per event is cache misses, not steps of the algorithm.
    assert per_event[20_000_000] <= 1.25 * per_event[2_500_000]


def test_a_few_users_with_very_many_events_cost_no_more(benchmark):
    many, few = log(1_000_000, 100_000, 50_000), log(1_000_000, 100_000, 10)
    a, b = many.event_offsets, few.event_offsets
    benchmark.pedantic(sums, args=(few, b), rounds=3)
    ratio = shortest(lambda: sums(few, b), 7) / shortest(lambda: sums(many, a), 7)
    benchmark.extra_info["ratio"] = ratio
    print(f"\n10 users with 100,000 events each take {ratio:.2f} x the time of 50,000 with 20")
    assert ratio <= 1.0
