"""Each user's own time of observation, and the order of events and decisions that have the same time."""

from __future__ import annotations

from typing import Literal

import numpy as np

from crosschannel.core.arrays import BoolArray, IntArray
from crosschannel.core.table_validator import TableValidator
from crosschannel.core.times import DAY, HOUR
from crosschannel.core.wording import counted
from crosschannel.histories.windows import Timeline

#: How events at exactly the time of a decision of their user are ordered: see `History.ties`.
Ties = Literal["before", "after"]
#: From when on users are observed where no table declares it: see `HistoryConfig.observed_from`.
ObservedFrom = Literal["first_row", "log"]

OBSERVATION_COLUMNS = ("observed_from", "observed_until")
#: A log in which no larger share of the users has two decisions is a campaign trial.
MAX_SHARE_WITH_TWO_DECISIONS = 0.01
MINUTE, QUARTER = HOUR // 60, HOUR // 4
#: With fewer events it may be chance that all have the same time of day.
MIN_EVENTS_TO_CALL_DATES = 10
#: Lengths to which clocks cut times.
RESOLUTIONS = (12 * HOUR, 8 * HOUR, 6 * HOUR, 4 * HOUR, 3 * HOUR, 2 * HOUR, HOUR, 2 * QUARTER, QUARTER)
#: Times of day that dates of several time zones have at most, and how far these are apart.
MAX_ZONES, MAX_HOURS_OF_ZONES = 6, 5
MIN_EVENTS_OF_A_ZONE = 20
#: As many times show that a large log does not have dates, before all are sorted.
SAMPLE = 2000
#: Among times, a time of day with this share of them, and this many times as many as any other, is that of dates.
MIN_SHARE_OF_DATES = 0.2
MIN_RATIO_OF_DATES = 5


def starts_of_observation(
    n_users: int, span: tuple[int, int], decisions: tuple[IntArray, IntArray], events: tuple[IntArray, IntArray]
) -> IntArray:
    """Return from when on users (U,) are observed where nothing declares it, from rows of (user, time).

    That is each user's first row. But where hardly any user has two decisions (a campaign trial, in which a few users
    came twice), the first row of most users is the decision itself, and nothing would ever precede it: then users are
    taken to exist from the start of the log on, those with a message and those without.
    """
    several = np.bincount(decisions[0])
    if len(decisions[0]) and np.mean(several[several > 0] > 1) <= MAX_SHARE_WITH_TWO_DECISIONS:
        return np.full(n_users, span[0], dtype=np.int64)
    return first_rows(n_users, span, decisions, events)


def first_rows(
    n_users: int, span: tuple[int, int], decisions: tuple[IntArray, IntArray], events: tuple[IntArray, IntArray]
) -> IntArray:
    """Return from when on each user (U,) is known: the earliest row within the span among tables of (user, time).

    A user's first row is a stopping time: whether it has come never depends on what follows, so that starting there
    selects nobody by an outcome. Before it, a user who did nothing and one who did not exist look alike. If the row is
    an event, observation begins a microsecond after it: in a log of dates, a window that began with the event itself
    would have at least one event, whatever the user does otherwise.

    Args:
        n_users: Number of users U.
        span: Start and end of the observation period, microseconds.
        decisions: User codes and times of the decisions.
        events: User codes and times of the events.

    Returns:
        Microseconds (U,); the end of the span for users without a row.
    """
    out = np.full(n_users, span[1], dtype=np.int64)
    for (user, time), later in ((decisions, 0), (events, 1)):
        inside = time >= span[0]
        np.minimum.at(out, user[inside], time[inside] + later)
    return np.minimum(out, span[1])


def declared_times(table: TableValidator | None, column: str, otherwise: int) -> IntArray | None:
    """Return an optional column of times (U,) of the table of users, `otherwise` where missing; None without it."""
    if table is None or not table.has(column):
        return None
    time, known = table.times(column, required=False)
    return np.where(known, time, otherwise)


def check_order(table: TableValidator, start: IntArray | None, end: IntArray | None) -> None:
    """Flag users (U,) whose observation ends before it begins."""
    if start is not None and end is not None:
        problem = "the user's observation ends before it begins"
        table.flag_rows(OBSERVATION_COLUMNS[1], end < start, problem, "Correct the two times.")


def tied_events(events: Timeline, decisions: Timeline, user: IntArray) -> BoolArray:
    """Return which events (e,) have exactly the time of a decision of their user.

    Args:
        events: The events' times.
        decisions: The decisions' times.
        user: User codes of the decisions (n,).
    """
    first = events.before(user, decisions.time)
    tied = first < events.offsets[user + 1]
    tied[tied] = events.time[first[tied]] == decisions.time[tied]
    begin = first[tied]
    end = events.before(user[tied], decisions.time[tied], inclusive=True)
    edges = np.zeros(len(events.time) + 1, dtype=np.int64)
    np.add.at(edges, begin, 1)
    np.add.at(edges, end, -1)
    return np.asarray(np.cumsum(edges)[:-1] > 0)


def tie_notes(tied: BoolArray, ties: Ties | None) -> list[str]:
    """Return a note on the events (e,) at exactly the time of a decision, if there are any."""
    if not tied.any():
        return []
    order, declared = ties or "before", f"declared by ties: {ties}" if ties else "`ties` is not declared"
    return [
        f"at exactly the time of a decision of their user: {counted(int(tied.sum()), 'event')} ({tied.mean():.1%}), "
        f"counted as {order} it ({declared})"
    ]


def span_notes(span: tuple[int, int], start: IntArray, end: IntArray) -> list[str]:
    """Return a note on the users (U,) who are observed for a part of the span only, if there are any."""
    late, early = int((start > span[0]).sum()), int((end < span[1]).sum())
    if not late and not early:
        return []
    return [
        f"{late:,} users are observed from later than the start of the log on, and {early:,} until before its end: "
        "time outside is not known, which differs from time without events"
    ]


def are_dates(time: IntArray) -> bool:
    """Return whether times are dates without a time of day: all at one time of day, or at two an hour apart.

    Local midnights have two times of day in UTC where clocks change. Exports also stamp a whole day's rows with the
    time of a nightly job, which says no more than a date.
    """
    if len(time) < MIN_EVENTS_TO_CALL_DATES or len(np.unique(time[:SAMPLE] % DAY)) > 2:
        return False
    of_day = np.unique(time % DAY)
    if len(of_day) > 2 or len(np.unique(time // DAY)) < 2:
        return False
    apart = int(of_day[-1] - of_day[0])
    return len(of_day) == 1 or apart in (HOUR, DAY - HOUR)


def are_dates_of_several_zones(time: IntArray) -> bool:
    """Return whether times are dates of users in neighbouring time zones: a few times of day, within some hours.

    So are the midnights of a country with four zones. Whole hours of a coarse clock cover more of the day.
    """
    if len(time) < MIN_EVENTS_TO_CALL_DATES or len(np.unique(time[:SAMPLE] % DAY)) > MAX_ZONES:
        return False
    of_day = np.unique(time % DAY)
    if not 2 < len(of_day) <= MAX_ZONES or len(time) < MIN_EVENTS_OF_A_ZONE * len(of_day):
        return False
    gaps = np.diff(of_day, append=of_day[0] + DAY)
    return bool((of_day % QUARTER == of_day[0] % QUARTER).all() and DAY - gaps.max() <= MAX_HOURS_OF_ZONES * HOUR)


def has_dates(time: IntArray) -> bool:
    """Return whether some of the times (n,) are dates without a time of day."""
    return are_dates(time) or are_dates_of_several_zones(time) or bool(dates_among_times(time).any())


def last_known_date(time: IntArray, dates: IntArray) -> IntArray:
    """Return before which of the `dates` an event is known at times (n,): dates of the same day are not."""
    start = start_of_date(time, dates)
    return start - MAX_HOURS_OF_ZONES * HOUR if are_dates_of_several_zones(dates) else start


def resolution(time: IntArray) -> int:
    """Return the largest of `RESOLUTIONS` to which times (n,) were cut or rounded, microseconds; 1 for none."""
    if len(time) < MIN_EVENTS_TO_CALL_DATES:
        return 1
    for length in RESOLUTIONS:
        if (time[:SAMPLE] % length == time[0] % length).all() and (time % length == time[0] % length).all():
            return length
    return 1


def dates_among_times(time: IntArray) -> BoolArray:
    """Return which times (n,) are evidently dates without a time of day, where the others have one.

    Two systems may write events of one name: shops that know the day, and an app that knows the second. The first have
    one time of day in common, the others differ in theirs; whole hours of a coarse clock are no dates.
    """
    none = np.zeros(len(time), dtype=bool)
    if len(time) < MIN_EVENTS_TO_CALL_DATES or are_dates(time):
        return none
    sample = time[:: max(1, len(time) // SAMPLE)]
    if np.unique(sample % DAY, return_counts=True)[1].max() < MIN_SHARE_OF_DATES / 2 * len(sample):
        return none
    of_day, count = np.unique(time % DAY, return_counts=True)
    usual = int(of_day[np.argmax(count)])
    apart = np.abs(of_day - usual)
    alike = np.isin(apart, (0, HOUR, DAY - HOUR))  # clocks change
    largest = int(count.max())
    others = int(count[~alike].max(initial=0))
    if largest < MIN_SHARE_OF_DATES * len(time) or largest < MIN_RATIO_OF_DATES * others:
        return none
    dates = np.asarray(time % DAY == usual)
    return dates if len(np.unique(time[dates] // DAY)) > 1 else none


def start_of_date(time: IntArray, dates: IntArray) -> IntArray:
    """Return when the day of each time (n,) begins, where `dates` are those of days: local midnights, for instance.

    The time of day at which days begin is that of the latest date before the time, as clocks change.
    """
    known = np.unique(beginnings(dates))
    latest = known[np.maximum(np.searchsorted(known, time, side="right") - 1, 0)]
    return np.asarray(time - (time - latest) % DAY)


def beginnings(dates: IntArray) -> IntArray:
    """Return when the days begin that `dates` (n,) stand for: then, or a day before the end where they are ends.

    Exports close a day at 23:59 or 23:59:59. In any time zone that is the last minute of a quarter of an hour, and
    midnight is the first.
    """
    rest = QUARTER - dates % QUARTER
    return np.asarray(np.where(rest <= MINUTE, dates + rest - DAY, dates))
