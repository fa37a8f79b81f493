"""How fast goals are summed in windows: ratios to one sort of the event times, and to pandas, in the same run.

Measured twice, each time like with like:

- from a history: what `reward.measure` does with one, which is sorted by (user, time) once, when it is read:
  totals of one goal, four bisections for the ends of the windows of every decision, and their differences.
  The peer too starts from events sorted as it needs them, with their running totals.
- from raw arrays in any order: the history is built from them, and the peer sorts and sums for itself.

`np.sort` of integers has vector instructions where the processor has AVX2: 13 to 17 ns an event on the machine of the
figures below. Its stable sort has none, 84 to 103 ns, and is printed beside it; without the instructions
(`NPY_DISABLE_CPU_FEATURES=X86_V3`) `np.sort` of 1,000,000 takes 74 ns. One thread, `OPENBLAS_NUM_THREADS=1
python -m pytest -s benchmarks/test_reward.py -m benchmark`, on a machine that others used as well:

- 1,000,000 events and 100,000 decisions, sorted: 0.87 to 1.08 x sort in ten runs, median 0.92; 0.13 to 0.23 x stable;
- 10,000,000 and 1,000,000, sorted: 0.77 to 0.86 x sort in five runs, 0.12 to 0.14 x stable sort;
- raw: 5.5 x and 6.7 x sort, 4 to 8 x faster than pandas: packing and sorting keys takes 1.5 x, the rest moves columns;
- ten users with 100,000 events each take 0.83 to 1.06 x the time of 50,000 with 20: their rows are counted by cells of
  time, which costs each event once more; bisecting them costs 1.4 x.

What was tried and did not pay: `np.searchsorted` on sorted queries (35 to 52 ns each, the lock-step takes 25), whole or
in pieces; steps that stop at the mean length, with the rest searched apart.
"""

from __future__ import annotations

import tracemalloc
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from time import perf_counter

import numpy as np
import pandas as pd
import pytest
from pytest_benchmark.fixture import BenchmarkFixture

from crosschannel.core.action_space import ActionSpace, Module
from crosschannel.core.hashing import keys
from crosschannel.core.times import DAY
from crosschannel.histories.history import DecisionLog, EventLog, History
from crosschannel.reward import Goal
from crosschannel.reward.measurement.amounts import window_amounts
from crosschannel.reward.measurement.limits import Windows
from crosschannel.reward.measurement.ties import boundaries

pytestmark = pytest.mark.benchmark

GOAL = Goal("spend", measure="value")
LENGTH = 3 * DAY
DAYS = 60


@dataclass(frozen=True)
class Raw:
    """Events and decisions spread evenly over users and 60 days, in no order."""

    event_user: np.ndarray
    event_time: np.ndarray
    value: np.ndarray
    user: np.ndarray
    time: np.ndarray
    users: int


def raw_log(events: int, decisions: int, users: int, seed: int = 0) -> Raw:
    rng = np.random.default_rng(seed)
    return Raw(
        user=rng.integers(0, users, decisions),
        time=rng.integers(10 * DAY, 50 * DAY, decisions),
        event_user=rng.integers(0, users, events),
        event_time=rng.integers(0, DAYS * DAY, events),
        value=rng.random(events) * 50,
        users=users,
    )


def history_of(raw: Raw) -> History:
    n = len(raw.user)
    ids = np.arange(n)
    return History.from_arrays(
        DecisionLog(
            id=ids,
            key=keys(ids[:1]).repeat(n),
            user=raw.user,
            time=raw.time,
            actions=np.zeros((n, 1), dtype=np.int64),
            propensity=np.full((n, 1), 0.5),
            joint=np.full(n, 0.5),
        ),
        EventLog(raw.event_user, raw.event_time, np.zeros(len(raw.value), dtype=np.int64), raw.value),
        modules=ActionSpace([Module("channel", ("none", "push"))]),
        user_ids=np.arange(raw.users),
        event_names=("spend",),
        span=(0, DAYS * DAY),
    )


def sums(history: History) -> list[np.ndarray]:
    """The goal's amounts before and after every decision."""
    end = np.full(len(history.decisions), LENGTH)
    windows = Windows.build(history, boundaries(history, [GOAL]), LENGTH, LENGTH, end)
    return window_amounts(GOAL, 32, history, history.decisions.time, windows.before.rows, windows.after.rows)


def peer_events(user: np.ndarray, time: np.ndarray, value: np.ndarray) -> pd.DataFrame:
    """What `merge_asof` needs: events by time, each with its user's running total."""
    events = pd.DataFrame({"user": user, "time": time, "value": value}).sort_values("time", kind="stable")
    return events.assign(total=events.groupby("user")["value"].cumsum())[["user", "time", "total"]]


def by_merge_asof(events: pd.DataFrame, user: np.ndarray, time: np.ndarray) -> list[np.ndarray]:
    """The same with pandas: one merge for each end of a window."""

    def total(shift: int, inclusive: bool) -> np.ndarray:
        asked = pd.DataFrame({"user": user, "time": time + shift, "row": np.arange(len(user))}).sort_values("time")
        found = pd.merge_asof(asked, events, on="time", by="user", allow_exact_matches=inclusive)
        return found.set_index("row").total.fillna(0.0).sort_index().to_numpy()

    return [total(0, False) - total(-LENGTH, False), total(LENGTH, True) - total(0, True)]


def shortest(*functions: Callable[[], object], rounds: int) -> list[float]:
    """Shortest of some calls of each function, in seconds; they take turns, so that all meet the same machine."""
    times = np.zeros((rounds, len(functions)))
    for row in times:
        for k, function in enumerate(functions):
            begin = perf_counter()
            function()
            row[k] = perf_counter() - begin
    return [float(time) for time in times.min(axis=0)]


def peak_bytes(function: Callable[[], object]) -> int:
    """Peak of what a call allocates."""
    tracemalloc.start()
    function()
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    return peak


def test_the_two_ways_agree() -> None:
    raw = raw_log(20_000, 2_000, 500)
    history = history_of(raw)
    d, events = history.decisions, peer_events(raw.event_user, raw.event_time, raw.value)
    for mine, theirs in zip(sums(history), by_merge_asof(events, d.user, d.time), strict=True):
        np.testing.assert_allclose(mine, theirs, atol=1e-6)


@pytest.mark.parametrize(
    ("events", "decisions", "limit"), [(1_000_000, 100_000, 1.0), (10_000_000, 1_000_000, 1.0)], ids=["1M", "10M"]
)
def test_window_sums_of_a_history_against_a_sort_and_pandas(
    benchmark: BenchmarkFixture, events: int, decisions: int, limit: float
) -> None:
    raw = raw_log(events, decisions, events // 20)
    history = history_of(raw)
    d, prepared = history.decisions, peer_events(raw.event_user, raw.event_time, raw.value)
    benchmark.pedantic(sums, args=(history,), rounds=3, warmup_rounds=1)
    mine, sort = shortest(lambda: sums(history), lambda: np.sort(raw.event_time), rounds=15)
    (plain,) = shortest(lambda: np.sort(raw.event_time, kind="stable"), rounds=2)
    (peer,) = shortest(lambda: by_merge_asof(prepared, d.user, d.time), rounds=1)
    memory = peak_bytes(lambda: sums(history)) / events
    benchmark.extra_info |= {"sort": mine / sort, "stable_sort": mine / plain, "merge_asof": peer / mine}
    print(
        f"\n{events:,}, sorted: {mine / sort:.2f} x sort ({sort / events * 1e9:.1f} ns an event), "
        f"{mine / plain:.2f} x stable sort ({plain / events * 1e9:.1f} ns), {peer / mine:.1f} x merge_asof, "
        f"{memory:.1f} bytes an event"
    )
    assert mine <= limit * sort
    assert peer >= 5 * mine
    assert memory <= 20


@pytest.mark.parametrize(("events", "decisions"), [(1_000_000, 100_000), (10_000_000, 1_000_000)], ids=["1M", "10M"])
def test_window_sums_of_raw_arrays_against_a_sort_and_pandas(
    benchmark: BenchmarkFixture, events: int, decisions: int
) -> None:
    """Ordering rows moves four columns; `np.sort` moves one, with vector instructions. So no limit by the sort here."""
    raw = raw_log(events, decisions, events // 20)

    def ours() -> object:
        return sums(history_of(raw))

    def theirs() -> object:
        return by_merge_asof(peer_events(raw.event_user, raw.event_time, raw.value), raw.user, raw.time)

    benchmark.pedantic(ours, rounds=2)
    mine, sort = shortest(ours, lambda: np.sort(raw.event_time), rounds=4)
    (peer,) = shortest(theirs, rounds=1)
    memory = peak_bytes(ours) / events
    benchmark.extra_info |= {"sort": mine / sort, "merge_asof": peer / mine, "bytes_per_event": memory}
    print(f"\n{events:,}, raw: {mine / sort:.2f} x sort, {peer / mine:.1f} x merge_asof, {memory:.1f} bytes an event")
    assert peer >= 2 * mine


def test_linear_in_the_number_of_events(benchmark: BenchmarkFixture) -> None:
    """Time per event from 2,500,000 to 20,000,000, decisions and users growing alike."""
    per_event = {}
    for events in (2_500_000, 5_000_000, 10_000_000, 20_000_000):
        history = history_of(raw_log(events, events // 10, events // 20))
        per_event[events] = shortest(partial(sums, history), rounds=4)[0] / events
        if events == 20_000_000:
            benchmark.pedantic(sums, args=(history,), rounds=2)
    benchmark.extra_info |= {str(events): cost * 1e9 for events, cost in per_event.items()}
    print("\n" + ", ".join(f"{events:,}: {cost * 1e9:.1f} ns an event" for events, cost in per_event.items()))
    # Eight times the rows; what they cost more per event is cache misses, not steps of the algorithm.
    assert per_event[20_000_000] <= 1.25 * per_event[2_500_000]


def test_a_few_users_with_very_many_events_cost_no_more(benchmark: BenchmarkFixture) -> None:
    many, few = (history_of(raw_log(1_000_000, 100_000, users)) for users in (50_000, 10))
    benchmark.pedantic(sums, args=(few,), rounds=3)
    heavy, light = shortest(lambda: sums(few), lambda: sums(many), rounds=15)
    ratio = heavy / light
    benchmark.extra_info["ratio"] = ratio
    print(f"\n10 users with 100,000 events each take {ratio:.2f} x the time of 50,000 with 20")
    assert ratio <= 1.0
