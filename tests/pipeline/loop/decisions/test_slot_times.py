"""A moment is rounded down to the slots of the log, however often they are and whatever clocks do."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pandas as pd
import pytest

from crosschannel.core.times import DAY, HOUR
from crosschannel.histories import History, SlotGrid
from crosschannel.pipeline.loop.decisions.slot_times import last_slot, slot_at
from tests.samples import random_history


def micros(text: str) -> int:
    return int(pd.Timestamp(text, tz="UTC").value // 1000)


def log_with(times: list[int]) -> History:
    """A log with a decision of one user at each time."""
    history = random_history(0, users=1, days=12)
    d = history.decisions
    rows = np.zeros(len(times), dtype=np.int64)
    taken = {name: getattr(d, name)[rows] for name in ("key", "user", "actions", "propensity", "joint")}
    ids = np.array([f"d{k}" for k in range(len(times))], dtype=object)
    return replace(
        history,
        decisions=replace(
            d, id=ids, time=np.array(sorted(times)), **taken, propensity_source=np.zeros(0, dtype=np.int64)
        ),
    )


START = micros("2024-03-04")
DAILY = [START + day * DAY + 10 * HOUR for day in range(20)]
SIX_HOURLY = [START + k * 6 * HOUR + HOUR for k in range(60)]
TWICE_A_DAY = [START + day * DAY + hour * HOUR for day in range(20) for hour in (9, 18)]
WEEKLY = [START + week * 7 * DAY + 9 * HOUR for week in range(4)]
ANY_TIME = [START + k * 7919 * 1_000_000 for k in range(200)]


@pytest.mark.parametrize(
    ("times", "period", "at", "expected"),
    [
        (DAILY, DAY, "2024-03-24 10:00", "2024-03-24 10:00"),
        (DAILY, DAY, "2024-03-24 10:07", "2024-03-24 10:00"),
        (DAILY, DAY, "2024-03-24 09:59", "2024-03-23 10:00"),
        (DAILY, DAY, "2024-03-10 12:00", "2024-03-10 10:00"),
        (DAILY[:1], DAY, "2024-03-06 12:00", "2024-03-06 10:00"),
        (SIX_HOURLY, 6 * HOUR, "2024-03-24 12:59", "2024-03-24 07:00"),
        (SIX_HOURLY, 6 * HOUR, "2024-03-24 00:30", "2024-03-23 19:00"),
        (TWICE_A_DAY, 9 * HOUR, "2024-03-24 17:00", "2024-03-24 09:00"),
        (TWICE_A_DAY, 9 * HOUR, "2024-03-24 08:00", "2024-03-23 18:00"),
        (WEEKLY, 7 * DAY, "2024-04-03 12:00", "2024-04-01 09:00"),
        (ANY_TIME, 2 * HOUR, "2024-03-24 17:03", "2024-03-24 17:03"),
        # Clocks changed within the log: what counts is when slots were last.
        ([t + (k >= 10) * HOUR for k, t in enumerate(DAILY)], DAY, "2024-03-24 12:00", "2024-03-24 11:00"),
    ],
)
def test_a_moment_is_rounded_down_to_the_slots_of_the_log(times, period, at, expected):
    assert slot_at(log_with(times), micros(at), period) == micros(expected)


def test_a_decision_just_before_its_slot_says_by_how_much(caplog):
    history = log_with(DAILY)
    with caplog.at_level("WARNING"):
        assert last_slot(history, micros("2024-03-10 09:58"), DAY, None) == micros("2024-03-09 10:00")
    assert "that slot was 23 h 58 min ago, and the next one comes in 2 min: run the job after the slot" in caplog.text


def test_a_slot_that_has_passed_is_said_to_be_too_late(caplog):
    history = log_with(DAILY)
    end = history.span[1]
    with caplog.at_level("WARNING"):
        assert last_slot(history, end, DAY, None) > end - DAY
        assert "too late" not in caplog.text
        last_slot(history, end - 3 * DAY, DAY, None)
    assert "come too late for that slot" in caplog.text


def test_a_declared_grid_keeps_its_local_time():
    grid = SlotGrid("1d", "10:00", "Europe/Berlin")
    history = log_with(DAILY)
    for at, expected in (
        ("2024-03-30 09:30", "2024-03-30 09:00"),
        ("2024-03-31 08:30", "2024-03-31 08:00"),
        ("2024-03-31 07:30", "2024-03-30 09:00"),
        ("2024-03-31 08:00", "2024-03-31 08:00"),
    ):
        assert slot_at(history, micros(at), DAY, grid) == micros(expected)
    monday = SlotGrid("7d", "10:00")
    assert slot_at(history, micros("2024-03-24 12:00"), 7 * DAY, monday) == micros("2024-03-18 10:00")
