"""The times at which a run decides: the grid of its log, to which a moment is rounded down."""

from __future__ import annotations

import numpy as np

from crosschannel.core.times import DAY, WEEK, duration
from crosschannel.histories.context.earlier import NOT_YET
from crosschannel.histories.history import History
from crosschannel.histories.readers.slots import SlotGrid, bounds
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
