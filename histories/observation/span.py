"""The observation period of a log: from its first to its last row, without isolated rows and their wrong clocks.

One event with a wrong device clock would extend the period by months in which nothing was recorded, and every slot
there would count as "nothing sent, nothing happened". So the period of a log without a declared span ends where its
rows do:

- A gap *isolates* the rows beyond it if it is longer than a day, `MIN_GAP_RATIO` times as long as every gap nearer to
  the middle of the log, and `MIN_GAP_OF_LAST_ROWS` times as long as the `MIN_ROWS` rows before it took.
- Isolated rows are *left out*, each with a note, if they are few: at most `MAX_ISOLATED_SHARE` of the decisions and of
  the events (one row of a table of 20 to 200).
- If they are more, but at most `MAX_DOUBTFUL_SHARE`, and would more than double the period, it is *refused*: only a
  declared span can tell a pilot or an outage from wrong clocks.
- Whatever else is thin at an end, with less than `THIN_RATE` of the other rows a day, is *named*, and stays.

The assumption: a log does not pause before its last hundredth for ten times as long as it ever paused before, and for
twice as long as the 20 rows before took. Nights, holidays, growth from a few rows on, and interest that fades after a
campaign stay: rows become sparse there before they end.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from crosschannel.core.arrays import BoolArray, IntArray
from crosschannel.core.errors import ConfigError
from crosschannel.core.times import DAY, timestamps
from crosschannel.core.wording import counted

MIN_GAP_RATIO = 10
MIN_GAP_OF_LAST_ROWS = 2
MAX_ISOLATED_SHARE = 0.01
MAX_DOUBTFUL_SHARE = 0.1
THIN_RATE = 0.05
#: A thin end that is shorter than this is not worth a note.
MIN_THIN_TIME = 2 * DAY
#: Fewer rows than this show too little to call a gap long.
MIN_ROWS = 20
#: A declared span may be this many times as long as its rows, and a year longer.
MAX_SPAN_RATIO = 10
#: Rows that a note lists one by one.
MAX_ROWS_LISTED = 5

Place = Callable[[int], str]


@dataclass(frozen=True)
class Observation:
    """The observation period of a log of n rows.

    Attributes:
        span: Its start and end, microseconds since 1970 UTC.
        inside: Which rows (n,) are not isolated.
        notes: What was left out, for the history's summary.
    """

    span: tuple[int, int]
    inside: BoolArray
    notes: tuple[str, ...] = ()


def observe(
    time: IntArray,
    event: BoolArray,
    place: Place,
    declared: tuple[int, int] | None = None,
    ends: BoolArray | None = None,
) -> Observation:
    """Return the observation period of a log.

    Args:
        time: Times of all rows (n,), microseconds since 1970 UTC, in any order.
        event: Which of them are events (n,), as opposed to decisions or sends.
        place: A function that returns a row's file and number there, for notes.
        declared: The declared span, if there is one; nothing is left out then, and the rows outside are counted.
        ends: The rows (n,) at whose first and last the period starts and ends; by default all of them.

    Raises:
        ConfigError: If the declared span does not fit the rows, or the rows leave open what the period is.
    """
    if declared is not None:
        return Observation(declared, np.ones(len(time), dtype=bool), _check_declared(time, event, declared))
    order = np.argsort(time, kind="stable")
    last = _kept(time[order], event[order], place, order, "after")
    backwards = order[::-1]
    first = len(time) - _kept(-time[backwards], event[backwards], place, backwards, "before")
    inside = np.zeros(len(time), dtype=bool)
    inside[order[first:last]] = True
    bounds = inside & ends if ends is not None and (inside & ends).any() else inside
    span = int(time[bounds].min()), int(time[bounds].max())
    notes = [*_isolated_note(time, order[:first], order[first:last], place, "before")]
    notes += _isolated_note(time, order[last:], order[first:last], place, "after")
    notes += _thin_notes(np.sort(time[bounds]))
    return Observation(span, inside, tuple(notes))


def _kept(time: IntArray, event: BoolArray, place: Place, rows: IntArray, side: str) -> int:
    """Return how many rows of an ascending log stay if isolated ones at its end are left out."""
    n = len(time)
    if n < MIN_ROWS:
        return n
    start = n // 4
    gap = np.diff(time[start:])
    nearer = np.append(0, np.maximum.accumulate(gap)[:-1])
    took = time[start:-1] - time[np.maximum(np.arange(start, n - 1) - MIN_ROWS + 1, 0)]
    long = gap > np.maximum.reduce([np.full(len(gap), DAY), MIN_GAP_RATIO * nearer, MIN_GAP_OF_LAST_ROWS * took])
    events = np.cumsum(event)[start:-1]
    decisions = np.arange(start + 1, n) - events
    totals = np.array([int(event.sum()), n - int(event.sum())])
    beyond = totals[:, None] - np.stack([events, decisions])
    few = (beyond <= np.where(totals < MIN_ROWS, 0, np.maximum(totals * MAX_ISOLATED_SHARE, 1))[:, None]).all(axis=0)
    if (isolated := np.flatnonzero(long & few)).size:
        return start + 1 + int(isolated[0])
    some = (beyond <= np.maximum(totals * MAX_DOUBTFUL_SHARE, 1)[:, None]).all(axis=0)
    if (doubtful := np.flatnonzero(long & some & (time[-1] - time[start:-1] > time[start:-1] - time[0]))).size:
        at = start + int(doubtful[0])
        raise ConfigError(_doubt(time, place, rows, at, side))
    return n


def _doubt(time: IntArray, place: Place, rows: IntArray, at: int, side: str) -> str:
    sign = 1 if side == "after" else -1
    edge, first, end = sign * time[at], sign * time[at + 1], sign * time[-1]
    begin = sign * time[0]
    without, full = sorted((begin, edge)), sorted((begin, end))
    return (
        f"{len(time) - at - 1:,} of {len(time):,} rows are {abs(first - edge) / DAY:,.1f} days or more {side} all "
        f"others ({place(int(rows[at + 1]))}, {_text(first)} UTC): their clocks may be wrong, or nothing was recorded "
        f"in between. Set `span`: [{_stamp(without[0])}, {_stamp(without[1])}] without them, or [{_stamp(full[0])}, "
        f"{_stamp(full[1])}] if the whole time was observed"
    )


def _isolated_note(time: IntArray, out: IntArray, kept: IntArray, place: Place, side: str) -> list[str]:
    if not len(out):
        return []
    listed = [f"{place(int(row))}, {_text(time[row])}" for row in out[:MAX_ROWS_LISTED]]
    more = ", ..." if len(out) > MAX_ROWS_LISTED else ""
    gap = time[out].min() - time[kept].max() if side == "after" else time[kept].min() - time[out].max()
    return [
        f"left out as isolated: {len(out):,} rows {gap / DAY:,.1f} days or more {side} all others, so that their "
        f"clocks may be wrong ({'; '.join(listed)}{more}); set `span` if these times are right"
    ]


def _thin_notes(time: IntArray) -> list[str]:
    """Return a note for each end of an ascending log that is thin: few rows take much of its time."""
    n, whole = len(time), int(time[-1] - time[0])
    few = np.arange(1, int(n * MAX_DOUBTFUL_SHARE) + 1)
    notes = []
    for end, took in (("first", time[few] - time[0]), ("last", time[-1] - time[n - 1 - few])):
        # Rows a day in the end and in the rest, without dividing by a rest that takes no time; and the same for the gap
        # with which the end begins, so that it has no ordinary rows.
        gap = np.diff(took, prepend=0)
        thin = few * (whole - took) < THIN_RATE * (n - few) * took
        thin &= whole - took < THIN_RATE * (n - few) * gap
        if thin.any() and (length := int(took[thin].max())) >= MIN_THIN_TIME:
            rows = int(few[thin].max())
            notes.append(
                f"the {end} {length / DAY:,.1f} of {whole / DAY:,.1f} days have {rows:,} of {n:,} rows: set `span` if "
                "not everything was recorded then"
            )
    return notes


def _check_declared(time: IntArray, event: BoolArray, span: tuple[int, int]) -> tuple[str, ...]:
    """Refuse a declared span that does not fit the rows; return a note on the rows outside."""
    first, last = span
    shown = f"span [{_stamp(first)}, {_stamp(last)}]"
    if not first < last:
        raise ConfigError(f"{shown} ends before it begins, or has no length")
    outside = (time < first) | (time > last)
    if not len(time):
        return ()
    begin, end = int(time.min()), int(time.max())
    if outside.all():
        raise ConfigError(
            f"{shown} has none of the {len(time):,} rows, which are from {_text(begin)} to {_text(end)} UTC"
        )
    inner = time[~outside]
    length = int(inner.max() - inner.min())
    if last - first > MAX_SPAN_RATIO * length + 366 * DAY:
        raise ConfigError(
            f"{shown} is {(last - first) / DAY:,.0f} days long, but its rows are within {length / DAY:,.1f} days (to "
            f"{_text(inner.max())} UTC): correct the years"
        )
    if not outside.any():
        return ()
    events = int(event[outside].sum())
    return (
        f"outside the observation period: {int(outside.sum()) - events:,} decisions or sends, and "
        f"{counted(events, 'event')}",
    )


def _text(time: int) -> str:
    return f"{timestamps(np.array([time]))[0]:%Y-%m-%d %H:%M}"


def _stamp(time: int) -> str:
    # Times beyond the year 2262 have no timestamp in nanoseconds.
    return str(np.datetime64(int(time), "us").astype("datetime64[s]"))
