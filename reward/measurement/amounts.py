"""Amounts of a goal in the windows around decisions, exact and without a loop over users or decisions."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise

import numpy as np

from crosschannel.core.arrays import BoolArray, FloatArray, IntArray
from crosschannel.histories.fixed_point import (
    check_resolution,
    check_sums,
    from_fixed,
    largest_sum,
    sums_fit,
    to_fixed,
)
from crosschannel.histories.goals import GOALS_SETTING, Goal
from crosschannel.histories.history import History
from crosschannel.histories.logs import have_codes
from crosschannel.histories.windows import running_totals

# Pairs of a decision and an event that are in memory at once.
PAIRS_PER_CHUNK = 1 << 20
# Rows whose amounts are computed at once: they stay in the cache.
ROWS_PER_CHUNK = 1 << 16


def goal_events(goal: Goal, history: History) -> tuple[BoolArray, FloatArray]:
    """Return which events of a history count for a goal (e,), and the amount of every event in the goal's unit (e,)."""
    chosen = history.are_events([goal.event], GOALS_SETTING)
    return chosen, history.events.value if goal.measure == "value" else np.ones(len(history.events))


def largest_amounts(goals: Sequence[Goal], history: History) -> FloatArray:
    """Return an upper bound of the amount of each goal in a window of any user (G,): see `fixed_point.largest_sum`.

    Raises:
        ConfigError: If most amounts of a goal are too small beside its largest: see `fixed_point.check_resolution`.
    """
    out = []
    for goal in goals:
        chosen, amount = goal_events(goal, history)
        out.append(largest_sum(amount, chosen, history.event_offsets))
        if goal.measure == "value":
            check_resolution(amount[chosen], out[-1], goal.event)
    return np.array(out)


def window_amounts(
    goal: Goal, bits: int, history: History, time: IntArray, *windows: tuple[IntArray, IntArray]
) -> list[FloatArray]:
    """Return the amounts (n,) of a goal, before weight and limit, in one or more windows of each decision.

    Args:
        goal: The goal.
        bits: Binary places of its exact sums.
        history: The events.
        time: When the decisions were made (n,): credit decays with the distance from it.
        *windows: Windows as event rows (n,) from the first up to, not including, the last.

    Raises:
        ConfigError: If the amounts of a user are too large for these sums.
    """
    if goal.decay is None:
        total = _running_total(goal, bits, history)
        return [_differences(total, bits, first, last) for first, last in windows]
    chosen, amount = goal_events(goal, history)
    check_sums(np.where(chosen, amount, 0.0), history.event_offsets, bits, goal.event)
    count = running_totals(chosen.astype(np.int64))
    when, value = history.events.time[chosen], amount[chosen]
    return [_decayed_sums(goal.decay, bits, when, value, time, count[first], count[last]) for first, last in windows]


def _running_total(goal: Goal, bits: int, history: History) -> IntArray:
    """Return running totals (e + 1,) of a goal's amounts in fixed point, by chunks: only the totals stay in memory.

    Raises:
        ConfigError: If the amounts of a user are too large.
    """
    codes, events = history.event_codes([goal.event], GOALS_SETTING), history.events
    every = len(codes) == len(history.event_names)
    total = np.empty(len(events) + 1, dtype=np.int64)
    total[0], squares = 0, 0.0
    for start in range(0, len(events), ROWS_PER_CHUNK):
        rows = slice(start, start + ROWS_PER_CHUNK)
        event = events.event[rows]
        amount = events.value[rows] if goal.measure == "value" else np.ones(len(event))
        if not every:
            mine = event == codes[0] if len(codes) == 1 else have_codes(event, codes.tolist(), len(history.event_names))
            amount = np.where(mine, amount, 0.0)
        with np.errstate(over="ignore", invalid="ignore"):  # sums that do not fit are refused below
            squares += float(amount @ amount)
            fixed = to_fixed(amount, bits)
        fixed[:1] += total[start]
        np.cumsum(fixed, out=total[1:][rows])
    if not sums_fit(squares, len(events), bits):  # few logs need a look at each user
        chosen, amount = goal_events(goal, history)
        check_sums(np.where(chosen, amount, 0.0), history.event_offsets, bits, goal.event)
    return total


def _differences(total: IntArray, bits: int, first: IntArray, last: IntArray) -> FloatArray:
    """Return sums (n,) over rows `first` up to `last` from running totals, by chunks that stay in the cache."""
    out = np.empty(len(first))
    for start in range(0, len(first), ROWS_PER_CHUNK):
        rows = slice(start, start + ROWS_PER_CHUNK)
        out[rows] = from_fixed(total[last[rows]] - total[first[rows]], bits)
    return out


def _decayed_sums(
    half_life: int, bits: int, when: IntArray, value: FloatArray, time: IntArray, first: IntArray, last: IntArray
) -> FloatArray:
    """Return sums (n,) of `value * 2^(-distance / half_life)` over rows `first` up to `last`.

    Each pair of a decision and an event adds its own fixed-point number, so that the sums are exact and do not depend
    on other users. Pairs are laid out by chunks, so that memory stays bounded.
    """
    size = last - first
    ends = running_totals(size)
    out = np.zeros(len(time), dtype=np.int64)
    cuts = np.searchsorted(ends, np.arange(0, int(ends[-1]), PAIRS_PER_CHUNK))
    for low, high in pairwise(np.unique(np.concatenate([[0], cuts, [len(time)]]))):
        begins = running_totals(size[low:high])
        owner = np.repeat(np.arange(low, high), size[low:high])
        row = np.arange(begins[-1]) - begins[owner - low] + first[owner]
        distance = np.abs(when[row] - time[owner]) / half_life
        total = running_totals(to_fixed(value[row] * np.exp2(-distance), bits))
        out[low:high] = total[begins[1:]] - total[begins[:-1]]
    return from_fixed(out, bits)
