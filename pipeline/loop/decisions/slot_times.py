"""The time of decisions: one that the log covers, and into a folder by date one of its slots."""

from __future__ import annotations

import numpy as np

from crosschannel.core.arrays import IntArray
from crosschannel.core.errors import ConfigError
from crosschannel.core.times import DAY, SECOND, WEEK, duration, parse_moment, timestamps
from crosschannel.histories.context.earlier import NOT_YET
from crosschannel.histories.history import History
from crosschannel.histories.readers.slots import SlotGrid, bounds
from crosschannel.pipeline.command_line import logger
from crosschannel.pipeline.configuration import HistoryConfig

#: The times of day of a daily or six-hourly grid of slots, in UTC where clocks change.
MOST_TIMES_OF_DAY = 8


def declared_grid(config: HistoryConfig) -> SlotGrid | None:
    """Return the grid of slots that a source declares; None where the log itself has the slots."""
    mapping = {"tables": config.tables, "stream": config.stream}.get(config.source)
    slots = None if mapping is None else mapping.slots
    return slots if isinstance(slots, SlotGrid) else None


def shows_slots(history: History, at: int, period: int) -> bool:
    """Return whether the recent part of a log has all decisions from which `slot_at` finds the slot of a moment."""
    if history.earlier is None:
        return True
    time = history.decisions.time
    last = int(time[time <= at].max(initial=NOT_YET))
    return last != NOT_YET and last - max(WEEK, 2 * period) >= history.earlier.time


def slot_at(history: History, at: int, period: int, grid: SlotGrid | None = None) -> int:
    """Return the last slot up to a moment, in microseconds; the moment itself where the log has no grid or decision.

    Slots lie on the declared grid, or else where those of the log's last week lie (its last two periods, if these are
    longer): at multiples of the period, or at a few times of day.

    Args:
        history: The log.
        at: The moment, microseconds since 1970 UTC.
        period: Time from one slot to the next, microseconds (`LogPace.period`).
        grid: The slots that the source declares, if it does.
    """
    if grid is not None:
        slots = bounds(grid, at - max(2 * duration(grid.every), WEEK), at)
        return int(slots[-1])
    time = history.decisions.time
    if not len(time):
        return at  # the first decisions of all
    earlier = time[time <= at]
    time = earlier if len(earlier) else time
    recent = np.unique(time[time > time.max() - max(WEEK, 2 * period)])
    if len(recent) > 1 and not ((recent - recent[0]) % period).any():
        return int(at - (at - recent[0]) % period)
    of_day = np.unique(recent % DAY)
    if len(of_day) > MOST_TIMES_OF_DAY:
        return at
    midnight = at - at % DAY
    slots = np.concatenate([of_day + midnight - DAY, of_day + midnight])
    return int(slots[slots <= at].max())


def moment_to_decide(text: str | None, history: History, max_log_age: int) -> int:
    """Return the time of decisions that is asked for, by default the end of the log, which must cover it.

    Args:
        text: The time as it was given.
        history: The log.
        max_log_age: Largest time from the log's end, microseconds.

    Raises:
        ConfigError: If the text is not a time, or the log does not cover it.
    """
    at = asked_moment(text, history.span)
    time = history.decisions.time
    check_covered(text, at, history.span, int(time.min()) if len(time) else history.span[0], max_log_age)
    return at


def asked_moment(text: str | None, span: tuple[int, int]) -> int:
    """Return the time that is asked for; by default the end of the span of a log.

    Raises:
        ConfigError: If the text is not a time.
    """
    try:
        return span[1] if text is None else parse_moment(text)
    except ConfigError as error:
        raise ConfigError(f"--at {error}") from None


def check_covered(text: str | None, at: int, span: tuple[int, int], first: int | None, max_log_age: int) -> None:
    """Check that a log covers a time that is asked for.

    Args:
        text: The time as it was given; None for the end of the log.
        at: The time, microseconds since 1970 UTC.
        span: Start and end of the log.
        first: Time of its first decision; None where that is not known yet.
        max_log_age: Largest time from the log's end, microseconds.

    Raises:
        ConfigError: If it does not.
    """
    start, end = span
    if text is None or max(start, start if first is None else first) < at <= end + max_log_age:
        return
    since, until, begin = timestamps(np.array([start, end, start if first is None else first]))
    decided = "" if first is None else f" and whose first decision is at {begin:%Y-%m-%d %H:%M}"
    raise ConfigError(
        f"--at {text} is not covered by the log, which runs from {since:%Y-%m-%d %H:%M} to {until:%Y-%m-%d %H:%M} UTC"
        f"{decided}: read a newer log (--history.path), or allow an older one (--max-log-age)"
    )


def last_slot(history: History, moment: int, period: int, grid: SlotGrid | None) -> int:
    """Return the last slot up to a moment (`slot_at`); say so if it is earlier, or if the next slot has passed as well.

    What is decided for a slot that has passed was not sent then, and yet counts as decided when the log is read.
    """
    at = slot_at(history, moment, period, grid)
    if at != moment:
        slot, given = timestamps(np.array([at, moment]))
        logger.info(f"deciding for the slot at {slot:%Y-%m-%d %H:%M} UTC, the last one up to {given:%Y-%m-%d %H:%M}")
        if moment - at > period / 2:
            logger.warning(
                f"that slot was {_in_words(moment - at)} ago, and the next one comes in "
                f"{_in_words(at + period - moment)}: run the job after the slot (--at is in UTC)"
            )
    if history.span[1] > at + period:
        slot, end = timestamps(np.array([at, history.span[1]]))
        logger.warning(
            f"the log goes on to {end:%Y-%m-%d %H:%M} UTC, beyond the next slot after {slot:%Y-%m-%d %H:%M}: messages "
            "that are decided now come too late for that slot. Do not send them, and remove the day if it was written: "
            "its decisions would count as made then"
        )
    return at


def _in_words(time: int) -> str:
    """Return a time (microseconds) in hours and minutes."""
    hours, minutes = divmod(round(time / (60 * SECOND)), 60)
    return f"{hours} h {minutes} min" if hours else f"{minutes} min"


def few_times(times: IntArray) -> IntArray:
    """Return different times of day (k,), ascending; of more than a grid has only so many that this shows."""
    return np.unique(times)[: MOST_TIMES_OF_DAY + 1]


def note_time_of_day(times: IntArray, at: int) -> None:
    """Say so if a log's slots are always at the same few times of day (k,), and the decision is for another one."""
    of_day = few_times(times)
    if len(of_day) > MOST_TIMES_OF_DAY or at % DAY in of_day:
        return
    slots = ", ".join(f"{timestamps(np.array([time]))[0]:%H:%M}" for time in of_day.tolist())
    logger.info(
        f"deciding for {timestamps(np.array([at]))[0]:%H:%M} UTC, while the log's slots are at {slots} UTC: what was "
        "learned holds at a slot; give its time by --at"
    )
