"""Whether a log's goal events may be counted as they are: gaps, copies, two names of one act, signs, currencies."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from itertools import combinations

import numpy as np

from crosschannel.core.arrays import BoolArray, IntArray
from crosschannel.core.errors import ConfigError
from crosschannel.core.times import DAY, HOUR, SECOND, timestamps
from crosschannel.histories.goals import Goal
from crosschannel.histories.history import CAUTION, History
from crosschannel.histories.observation.joining import joining_notes

#: A time without goal events is named if it is longer than this and than three times the next longest one, and if at
#: least so many events are usual in a time of its length: chance does not leave out 20.
MIN_SILENCE, TIMES_THE_NEXT, USUAL_EVENTS = 3 * DAY, 3, 20
#: Copies follow an event of the same user, name and value within this time. They are named from a share on.
CLOSE, MIN_COPIES, MIN_SHARE_OF_COPIES = 60 * SECOND, 20, 0.02
#: With fewer times that are not whole hours a clock is too coarse to say that two events are one.
SHARE_OF_FINE_TIMES = 0.5
#: Amounts of two currencies or units: users' medians, of users with so many events, lie this factor apart, with so
#: many users and so large a share of them on either side and nobody in between.
MIN_EVENTS_OF_A_MEDIAN, MIN_USERS_OF_A_CURRENCY, MIN_SHARE_OF_A_CURRENCY, FACTOR_OF_CURRENCIES = 3, 10, 0.05, 10.0
#: Two names of one act stand beside each other in at least this share of both.
SHARE_BESIDE = 0.5


def goal_notes(history: History, goals: Sequence[Goal]) -> tuple[str, ...]:
    """Return cautions on the events that the goals count, and on users who join with a message, one line each.

    Args:
        history: The log.
        goals: The goals; those whose events the log does not have are left out.
    """
    if not len(history.decisions):
        return ()
    notes, counted = list[str](), np.zeros(len(history.events), dtype=bool)
    for goal in goals:
        try:
            rows = np.flatnonzero(history.are_events([goal.event]))
        except ConfigError:  # the rewards refuse it, and name the events that there are
            continue
        counted[rows] = True
        notes += [*_sign(history, goal, rows), *_silence(history, goal, rows), *_currencies(history, goal, rows)]
        if len(rows) and (history.events.time[rows] % HOUR != 0).mean() > SHARE_OF_FINE_TIMES:
            notes += [*_copies(history, goal, rows), *_two_names(history, goal, rows)]
    # Whoever churned is not decided about: churn is never before.
    notes += joining_notes(history, counted & ~np.isin(history.events.event, history.churn_codes))
    return tuple(f"{CAUTION}{note}" for note in dict.fromkeys(notes))


def _sign(history: History, goal: Goal, rows: IntArray) -> Iterator[str]:
    """Yield a note on a goal that counts churn as good."""
    if goal.weight > 0 and len(rows) and np.isin(history.events.event[rows], history.churn_codes).all():
        yield (
            f"{goal.event!r} is an event after which nothing can be sent to a user, and its weight of {goal.weight:g} "
            "counts more of it as good: give it a negative weight"
        )


def _currencies(history: History, goal: Goal, rows: IntArray) -> Iterator[str]:
    """Yield a note on amounts of two groups of users with nobody in between."""
    e = history.events
    rows = rows[e.value[rows] > 0]
    if goal.measure != "value" or not len(rows):
        return
    order = rows[np.lexsort((e.value[rows], e.user[rows]))]
    _, first, count = np.unique(e.user[order], return_index=True, return_counts=True)
    medians = np.sort(e.value[order[(first + count // 2)[count >= MIN_EVENTS_OF_A_MEDIAN]]])
    if len(medians) < 2 * MIN_USERS_OF_A_CURRENCY:
        return
    ratio = medians[1:] / medians[:-1]
    k = int(ratio.argmax()) + 1
    fewer = min(k, len(medians) - k)
    if ratio[k - 1] >= FACTOR_OF_CURRENCIES and fewer >= max(
        MIN_USERS_OF_A_CURRENCY, MIN_SHARE_OF_A_CURRENCY * len(medians)
    ):
        yield (
            f"amounts of {goal.event!r} are of two kinds of users with nobody in between: a usual amount is at most "
            f"{medians[k - 1]:g} for {k:,} of them, and at least {medians[k]:g} for {len(medians) - k:,}. If these are "
            "two currencies or units, convert them: the larger amounts decide every effect. Two plans, such as one by "
            "month and one by year, may stay"
        )


def _silence(history: History, goal: Goal, rows: IntArray) -> Iterator[str]:
    """Yield a note on the longest time without an event between the first and the last decision, if not by chance."""
    time, decided = np.sort(history.events.time[rows]), history.decisions.time
    first, last = int(decided.min()), int(decided.max())
    time = time[(time >= first) & (time <= last)]
    if len(time) < USUAL_EVENTS:
        return
    ends = np.concatenate([[first], time, [last]])
    gaps = np.diff(ends)
    k = int(gaps.argmax())
    longest, rest = int(gaps[k]), int(np.partition(gaps, -2)[-2])
    usual = len(time) * longest / max(last - first - longest, 1)
    if longest < MIN_SILENCE or longest < TIMES_THE_NEXT * rest or usual < USUAL_EVENTS:
        return
    start, end = timestamps(ends[k : k + 2])
    where = "Set `span` to the time in which they were" if k in (0, len(gaps) - 1) else "Leave that time out"
    yield (
        f"there is no {goal.event!r} from {start:%Y-%m-%d %H:%M} to {end:%Y-%m-%d %H:%M} UTC, where about "
        f"{usual:,.0f} are usual: if they were not recorded there, effects are too small. {where}"
    )


def _copies(history: History, goal: Goal, rows: IntArray) -> Iterator[str]:
    """Yield a note on events that follow an equal one of their user within a minute."""
    e = history.events
    order = rows[np.lexsort((e.time[rows], e.value[rows], e.event[rows], e.user[rows]))]
    same = np.ones(max(len(order) - 1, 0), dtype=bool)
    for column in (e.user, e.event, e.value):
        same &= column[order[1:]] == column[order[:-1]]
    copies = int((same & (np.diff(e.time[order]) <= CLOSE)).sum())
    if copies >= MIN_COPIES and copies >= MIN_SHARE_OF_COPIES * len(rows):
        yield (
            f"{copies:,} of {len(rows):,} {goal.event!r} follow one of the same user, name and value within a minute: "
            "if these are retries, each counts again, and effects are too large. Map their id as `message_id`, with "
            "`duplicates: keep_first`, or remove the copies"
        )


def _two_names(history: History, goal: Goal, rows: IntArray) -> Iterator[str]:
    """Yield a note on each two names that one goal counts, where most events of both stand beside one of the other."""
    e = history.events
    names, count = np.unique(e.event[rows], return_counts=True)
    for a, b in combinations(names[count >= MIN_COPIES].tolist(), 2):
        first, second = rows[e.event[rows] == a], rows[e.event[rows] == b]
        share = min(_beside(history, first, second).mean(), _beside(history, second, first).mean())
        if share >= SHARE_BESIDE:
            yield (
                f"{goal.event!r} counts {history.event_names[a]!r} and {history.event_names[b]!r}, and at least "
                f"{share:.0%} of both stand within a minute of one of the other, of the same user: if they are the "
                "same act, it counts twice. Name one of them as the goal"
            )


def _beside(history: History, rows: IntArray, others: IntArray) -> BoolArray:
    """Return which events `rows` have one of `others` of their user within a minute (k,)."""
    e = history.events
    length = (e.time.max(initial=0) + 3 * CLOSE) // SECOND

    def place(events: IntArray, shift: int) -> IntArray:
        return np.asarray(e.user[events] * length + (e.time[events] + CLOSE + shift) // SECOND)

    other = np.sort(place(others, 0))
    return np.searchsorted(other, place(rows, -CLOSE)) < np.searchsorted(other, place(rows, CLOSE), side="right")
