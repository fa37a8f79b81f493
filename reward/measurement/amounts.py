"""Amounts of a goal in the windows around decisions, exact and without a loop over users or decisions."""

from __future__ import annotations

from itertools import pairwise

import numpy as np

from crosschannel.core.arrays import BoolArray, FloatArray, IntArray
from crosschannel.histories.goals import Goal
from crosschannel.histories.history import History
from crosschannel.histories.windows import from_fixed, running, to_fixed

# Pairs of a decision and an event that are in memory at once.
PAIRS = 1 << 20
# Rows whose amounts are worked out at once: they stay in the cache.
CHUNK = 1 << 16


def goal_events(goal: Goal, history: History) -> tuple[BoolArray, FloatArray]:
    """Which events of a history a goal means (e,), and the amount of every event in the goal's units (e,)."""
    chosen = np.isin(history.events.event, history.event_codes([goal.event]))
    return chosen, history.events.value if goal.measure == "value" else np.ones(len(history.events))


def window_amounts(
    goal: Goal, history: History, time: IntArray, *windows: tuple[IntArray, IntArray]
) -> list[FloatArray]:
    """Amounts (n,) of a goal, before weight and limit, in one or more windows of each decision.

    Args:
        goal: The goal.
        history: The events.
        time: When the decisions were made (n,): credit fades with the distance from it.
        *windows: Windows as event rows (n,) from the first up to, not including, the last.
    """
    if goal.decay is None:
        total = _running_total(goal, history)
        return [_differences(total, first, last) for first, last in windows]
    chosen, amount = goal_events(goal, history)
    count = running(chosen.astype(np.int64))
    when, value = history.events.time[chosen], amount[chosen]
    return [_faded(goal.decay, when, value, time, count[first], count[last]) for first, last in windows]


def _running_total(goal: Goal, history: History) -> IntArray:
    """Running totals (e + 1,) of a goal's amounts in fixed point, in chunks: only the totals themselves stay."""
    codes, events = history.event_codes([goal.event]), history.events
    every = len(codes) == len(history.event_names)
    total = np.empty(len(events) + 1, dtype=np.int64)
    total[0] = 0
    for start in range(0, len(events), CHUNK):
        rows = slice(start, start + CHUNK)
        event = events.event[rows]
        amount = events.value[rows] if goal.measure == "value" else np.ones(len(event))
        if not every:
            amount = np.where(event == codes[0] if len(codes) == 1 else np.isin(event, codes), amount, 0.0)
        fixed = to_fixed(amount)
        fixed[:1] += total[start]
        np.cumsum(fixed, out=total[1:][rows])
    return total


def _differences(total: IntArray, first: IntArray, last: IntArray) -> FloatArray:
    """Sums (n,) over rows `first` up to `last` from running totals, in chunks that stay in cache."""
    out = np.empty(len(first))
    for start in range(0, len(first), CHUNK):
        rows = slice(start, start + CHUNK)
        out[rows] = from_fixed(total[last[rows]] - total[first[rows]])
    return out


def _faded(
    half_life: int, when: IntArray, value: FloatArray, time: IntArray, first: IntArray, last: IntArray
) -> FloatArray:
    """Sums (n,) of `value * 2^(-distance / half_life)` over rows `first` up to `last`.

    Each pair of a decision and an event adds a fixed-point number of its own, so that the sums are exact and depend
    on nobody else. Pairs are laid out in chunks, so that memory stays bounded.
    """
    size = last - first
    ends = running(size)
    out = np.zeros(len(time), dtype=np.int64)
    cuts = np.searchsorted(ends, np.arange(0, int(ends[-1]), PAIRS))
    for low, high in pairwise(np.unique(np.concatenate([[0], cuts, [len(time)]]))):
        begins = running(size[low:high])
        owner = np.repeat(np.arange(low, high), size[low:high])
        row = np.arange(begins[-1]) - begins[owner - low] + first[owner]
        distance = np.abs(when[row] - time[owner]) / half_life
        total = running(to_fixed(value[row] * np.exp2(-distance)))
        out[low:high] = total[begins[1:]] - total[begins[:-1]]
    return from_fixed(out)
