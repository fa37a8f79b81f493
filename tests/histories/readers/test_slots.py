"""Slots on a calendar: the grid of times through changes of the clocks, and which slot a moment falls into."""

from __future__ import annotations

from zoneinfo import ZoneInfo

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from crosschannel.core.times import DAY, HOUR, duration
from crosschannel.histories.readers.slots import SlotGrid, UserSlots, bounds

ZONES = ["UTC", "Europe/Berlin", "Europe/Dublin", "America/New_York", "Australia/Lord_Howe", "Asia/Kathmandu"]
START = 19_700 * DAY
grids = st.builds(
    SlotGrid,
    every=st.sampled_from(["1d", "2d", "7d", "12h", "6h", "1h", "30min"]),
    at=st.builds("{:02d}:{:02d}".format, st.integers(0, 23), st.integers(0, 59)),
    time_zone=st.sampled_from(ZONES),
)


@given(grid=grids, first=st.integers(0, 400 * DAY), length=st.integers(0, 40 * DAY))
@settings(max_examples=150, deadline=None)
def test_slots_stand_at_the_same_time_of_the_clock(grid: SlotGrid, first: int, length: int):
    """Against the standard library, one slot at a time: every time on the wall in the range, skipped ones moved."""
    first += START
    found = bounds(grid, first, first + length)
    zone, step = ZoneInfo(grid.time_zone), min(duration(grid.every), DAY)
    at = (int(grid.at[:2]) * 60 + int(grid.at[3:])) * 60_000_000
    days = max(duration(grid.every) // DAY, 1)
    expected = set()
    for day in range(first // DAY - 2, (first + length) // DAY + 3):
        if (day - 4) % days:
            continue
        for clock in range(at % step, DAY, step):
            wall = np.datetime64(day * DAY + clock, "us").item().replace(tzinfo=zone)
            # fold=0 is the first of two times; a skipped one gets the offset before the change, and lies behind it.
            utc = wall.astimezone(ZoneInfo("UTC"))
            back = utc.astimezone(zone).replace(tzinfo=None)
            moment = int(np.datetime64(utc.replace(tzinfo=None), "us").astype(np.int64))
            if back != wall.replace(tzinfo=None):
                before = utc.astimezone(zone).utcoffset() - wall.utcoffset()
                # The first minute of the new clock: half-hour and hour changes happen on the hour or the half.
                gap = int(before.total_seconds()) * 1_000_000
                late = next(m for m in range(moment // 60_000_000, -1, -1) if _offset(m - 1, zone) != _offset(m, zone))
                assert 0 <= moment - late * 60_000_000 < gap
                moment = late * 60_000_000
            if first <= moment <= first + length:
                expected.add(moment)
    assert found.tolist() == sorted(expected)


def _offset(minute: int, zone: ZoneInfo) -> float:
    utc = np.datetime64(minute * 60_000_000, "us").item().replace(tzinfo=ZoneInfo("UTC"))
    return utc.astimezone(zone).utcoffset().total_seconds()


@given(
    times=st.lists(st.integers(0, 60), max_size=8, unique=True),
    users=st.lists(st.tuples(st.integers(-2, 62), st.integers(-2, 62)), min_size=1, max_size=5),
    moment=st.integers(-3, 65),
)
@settings(max_examples=300, deadline=None)
def test_a_moment_falls_into_the_slot_that_began_last(times, users, moment):
    """Against the definition, user by user and slot by slot."""
    grid = np.array(sorted(times), dtype=np.int64)
    start, leave = (np.array(part, dtype=np.int64) for part in zip(*users, strict=True))
    slots = UserSlots.build(grid, start, leave)
    rows = [(u, int(t)) for u in range(len(users)) for t in grid[:-1] if start[u] < t < leave[u]]
    assert list(zip(slots.user.tolist(), slots.time.tolist(), strict=True)) == rows
    found = slots.row(np.arange(len(users)), np.full(len(users), moment))
    for u in range(len(users)):
        end = dict(zip(grid[:-1].tolist(), grid[1:].tolist(), strict=True))
        mine = [i for i, (user, t) in enumerate(rows) if user == u and t <= moment < end[t]]
        assert found[u] == (mine[0] if mine else -1)


@pytest.mark.parametrize(
    ("day", "hours"), [("2024-03-30", 23), ("2024-03-31", 24), ("2024-10-26", 25), ("2024-10-27", 24)]
)
def test_a_period_is_as_long_as_the_day(day: str, hours: int):
    grid = SlotGrid("1d", "09:00", "Europe/Berlin")
    begin = int(np.datetime64(day, "us").astype(np.int64))
    times = bounds(grid, begin, begin + 3 * DAY)
    assert (times[1] - times[0]) / HOUR == hours


def test_weeks_begin_on_mondays():
    times = bounds(SlotGrid("7d", "09:00"), START, START + 30 * DAY).astype("datetime64[us]")
    assert {time.item().weekday() for time in times} == {0}
