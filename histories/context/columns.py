"""Raw columns of a context: what a log says about each user strictly before a time."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import numpy.typing as npt

from crosschannel.core.arrays import FloatArray, IntArray
from crosschannel.core.times import DAY, WEEK, wall_clock
from crosschannel.histories.context.activity import activity_columns
from crosschannel.histories.context.earlier import NOT_YET
from crosschannel.histories.context.layout import ANY_MESSAGE, Layout
from crosschannel.histories.fixed_point import check_sums, from_fixed, to_fixed
from crosschannel.histories.history import History
from crosschannel.histories.logs import have_codes
from crosschannel.histories.observation.users import last_known_date
from crosschannel.histories.windows import Timeline, running_totals


def clock_columns(time: IntArray, time_zone: str) -> Iterator[tuple[str, FloatArray]]:
    """Yield the hour of the day and the day of the week of times (N,) in a time zone, as sine and cosine."""
    time = wall_clock(time, time_zone)
    for name, period in (("day", DAY), ("week", WEEK)):
        angle = 2 * np.pi * ((time % period) / period)
        yield f"clock {name} sin", np.sin(angle)
        yield f"clock {name} cos", np.cos(angle)


def raw_columns(layout: Layout, history: History, user: IntArray, time: IntArray) -> Iterator[tuple[str, FloatArray]]:
    """Yield raw columns (N,) of what was known about each user strictly before each time.

    An event that has a date only is known from the end of that day on: an order dated today may come after the
    decision, and no log of this morning has it. Counts and sums are over `[time - window, time)`, and `observed` is the
    share of that window in which the user was observed; days since the last event are NaN if there is none.
    """
    events = history.events
    timeline = Timeline(events.time, history.event_offsets)
    now = timeline.before(user, time)
    starts = [timeline.before(user, time - length) for _, length in layout.windows]
    first, valued, earlier = timeline.offsets[user], dict(layout.valued), history.earlier
    every_now, every_start = now, starts
    for label, members in layout.groups:
        codes = [code for code, name in enumerate(history.event_names) if name in members]
        chosen = have_codes(events.event, codes, len(history.event_names))
        now, starts = every_now, every_start
        if label in layout.dated and chosen.any():
            known = last_known_date(time, events.time[chosen])
            now = timeline.before(user, known)
            starts = [timeline.before(user, known - length) for _, length in layout.windows]
        counted = running_totals(chosen.astype(np.int64))
        summed = None
        if label in valued:
            amount = np.where(chosen, events.value, 0.0)
            check_sums(amount, timeline.offsets, valued[label], label)
            summed = running_totals(to_fixed(amount, valued[label]))
        for (text, _), start in zip(layout.windows, starts, strict=True):
            yield f"count {label} {text}", (counted[now] - counted[start]).astype(np.float64)
            if summed is not None:
                yield f"sum {label} {text}", from_fixed(summed[now] - summed[start], valued[label])
        before = None if earlier is None else earlier.last_event[:, codes].max(1, initial=NOT_YET)[user]
        yield f"days since {label}", _days_since(chosen, events.time, first, now, time, before)

    if layout.sendable:
        yield from _message_columns(layout, history, user, time)
    yield from observed_shares(layout, time - history.observed_from[user])
    if layout.clock:
        yield from clock_columns(time, layout.time_zone)
    if layout.activity is not None:
        yield from activity_columns(layout.activity, history, user, time, every_now)


def observed_shares(layout: Layout, since_start: IntArray) -> Iterator[tuple[str, FloatArray]]:
    """Yield the share of each window (N,) in which the user was observed, given microseconds since the start (N,).

    With it, a count of 0 in a window that lies before the user's own observation differs from one without events.
    """
    for text, length in layout.windows if layout.groups or layout.sendable else ():
        yield f"observed {text}", np.clip(since_start, 0, length) / length


def _message_columns(
    layout: Layout, history: History, user: IntArray, time: IntArray
) -> Iterator[tuple[str, FloatArray]]:
    decisions = history.decisions
    timeline = Timeline(decisions.time, history.decision_offsets)
    now = timeline.before(user, time)
    starts = [timeline.before(user, time - length) for _, length in layout.windows]
    first, earlier = timeline.offsets[user], history.earlier
    for label, code in layout.sendable:
        chosen = decisions.actions[:, 0] != 0 if code == ANY_MESSAGE else decisions.actions[:, 0] == code
        sent = running_totals(chosen.astype(np.int64))
        for (text, _), start in zip(layout.windows, starts, strict=True):
            yield f"sent {label} {text}", (sent[now] - sent[start]).astype(np.float64)
        ever = sent[now] - sent[first]
        if earlier is not None:
            ever += (earlier.sent[:, 1:].sum(1) if code == ANY_MESSAGE else earlier.sent[:, code])[user]
        yield f"sent {label} ever", ever.astype(np.float64)
    any_sent = decisions.actions[:, 0] != 0
    before = None if earlier is None else earlier.last_message[user]
    yield "days since message", _days_since(any_sent, decisions.time, first, now, time, before)
    for label, m, code, length in layout.active:
        total = running_totals((any_sent & (decisions.actions[:, m] == code)).astype(np.int64))
        yield f"active {label}", (total[now] - total[timeline.before(user, time - length)]).astype(np.float64)


def _days_since(
    chosen: npt.NDArray[np.bool_],
    times: IntArray,
    first: IntArray,
    now: IntArray,
    time: IntArray,
    before: IntArray | None,
) -> FloatArray:
    """Return days (N,) since the last chosen row, or since `before` the history (N,) where it has none."""
    rows = np.flatnonzero(chosen)
    latest = np.append(rows, -1)[np.searchsorted(rows, now) - 1]  # the last entry stands for none
    known = latest >= first
    stamp = times[np.where(known, latest, 0)] if len(times) else np.zeros(len(now), dtype=np.int64)
    if before is not None:
        happened = before != NOT_YET
        stamp, known = np.where(known, stamp, np.where(happened, before, 0)), known | happened
    return np.where(known, (time - stamp) / DAY, np.nan)
