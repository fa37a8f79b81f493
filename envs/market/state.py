"""State of the simulated users: their past so far, one row for each user."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import numpy.typing as npt

from crosschannel.core.arrays import BoolArray, IntArray
from crosschannel.envs.market.config import MarketConfig
from crosschannel.envs.market.dynamics.calendar import Calendar
from crosschannel.envs.market.dynamics.responses import Slots
from crosschannel.envs.market.dynamics.simulated_events import SimulatedEvents, organic_events
from crosschannel.envs.market.dynamics.users import Users
from crosschannel.envs.market.vocabulary import (
    CELL_BOUNDS,
    CELL_HOURS,
    DAY_SECONDS,
    EVENTS,
    MIDNIGHT,
    N_COLUMNS,
    SERVICES,
)

Int32Array = npt.NDArray[np.int32]

NEVER = -1
N_ORGANIC_EVENTS = 2 * len(SERVICES)
ROWS_PER_CHUNK = 4096


#: Arrays that a step changes, and those of organic behaviour, which no step does.
_CHANGING = ("day", "fatigue", "subscribed", "last_sent", "total", "last", "by_cell", "by_weekday")
_ORGANIC = ("organic", "organic_last", "organic_cells")


@dataclass
class MarketState:
    """N users, each before the slot of some day; `Market.step` advances them in place.

    Attributes:
        users: The users.
        day: Market day of the next slot (N,).
        fatigue: Fatigue before that slot (N,).
        subscribed: Whether the user still gets slots (N,).
        last_sent: Day of the last message (N,), or `NEVER`.
        total: Running totals at the beginning of each day (N, horizon + 1, N_COLUMNS), filled up to `day`.
        last: Second since the market's start of the last event of each kind (N, E), or `NEVER`.
        organic: Daily counts of organic behaviour on all days, future ones included (N, horizon, N_COLUMNS).
        organic_last: Last second of the organic events (visits and orders) of each day, or `NEVER`
            (N, horizon, N_ORGANIC_EVENTS).
        organic_cells: Daily counts of the organic events by cell of the day (N, horizon, cells, N_ORGANIC_EVENTS); a
            block has at most `MAX_POISSON_COUNT` visits of a service, so that counts are below 256.
        by_cell: Events of each kind before the slot, by cell of the day (N, cells, E).
        by_weekday: The same by day of the week, Monday first (N, 7, E).
        pending: Events that messages caused and that come on days from each user's `day` on, if effects have delays.
        log: All events so far, if recorded.
    """

    users: Users
    day: IntArray
    fatigue: npt.NDArray[np.float64]
    subscribed: BoolArray
    last_sent: IntArray
    total: Int32Array
    last: IntArray
    organic: npt.NDArray[np.int16]
    organic_last: Int32Array
    organic_cells: npt.NDArray[np.uint8]
    by_cell: Int32Array
    by_weekday: Int32Array
    pending: SimulatedEvents | None = None
    log: list[SimulatedEvents] | None = None

    def __len__(self) -> int:
        return len(self.day)

    def slots(self, rows: npt.NDArray[Any] | None = None) -> Slots:
        """Return the next slots of all users, or of those in the given rows."""
        if rows is None:
            return Slots(self.users, self.day, self.fatigue)
        return Slots(self.users.take(rows), self.day[rows], self.fatigue[rows])

    def copy(self) -> MarketState:
        """Return the same users at the same slot, to be advanced separately; what no step changes is shared."""
        log = None if self.log is None else list(self.log)
        return replace(self, log=log, **{name: getattr(self, name).copy() for name in _CHANGING})

    def put(self, rows: npt.NDArray[Any], other: MarketState) -> None:
        """Replace the users of the given rows by others before their first slot, in place; the log stays as it is."""
        self.users.put(rows, other.users)
        for name in (*_CHANGING, *_ORGANIC):
            getattr(self, name)[rows] = getattr(other, name)
        if self.pending is not None:
            self.pending = self.pending.take(~np.isin(self.pending.row, rows))

    def due(self, events: SimulatedEvents, rows: IntArray) -> SimulatedEvents:
        """Return the events that come on the current day of the given users, and keep those of later days.

        Args:
            events: New events of these users, `row` counted among them.
            rows: The users (n,) who take the step.
        """
        position = np.full(len(self), NEVER, dtype=np.int64)
        position[rows] = np.arange(len(rows))
        everything = replace(events, row=rows[events.row])
        if self.pending is not None:
            everything = SimulatedEvents.concatenate([self.pending, everything])
        today = (position[everything.row] != NEVER) & (everything.day == self.day[everything.row])
        self.pending = everything.take(~today)
        found = everything.take(today)
        return replace(found, row=position[found.row])

    def window(self, first: IntArray | int, last: IntArray | int) -> Int32Array:
        """Return counts (N, N_COLUMNS) in `[t - first days, t - last days)` before each user's slot at t."""
        rows = np.arange(len(self))
        begin, end = np.maximum(self.day - first, 0), np.maximum(self.day - last, 0)
        return np.asarray(self.total[rows, end] - self.total[rows, begin])

    def count_by_time(self, rows: IntArray, events: SimulatedEvents, sent: BoolArray) -> None:
        """Count the events of the slots' days by cell of the day and day of the week, but for days with a message.

        Args:
            rows: Users who are about to advance (r,).
            events: Events that messages cause on these days; their rows are those of this state.
            sent: Who of these users got a message at the slot (r,).
        """
        free = np.zeros(len(self), dtype=bool)
        free[rows[~sent]] = True
        rows, events = rows[~sent], events.take(free[events.row])
        day = self.day[rows]
        _count_organic(self.by_cell, self.by_weekday, rows, self.organic_cells[rows, day], day)
        cell = cell_of_day(events.second)
        np.add.at(self.by_cell, (events.row, cell, events.event), 1)
        np.add.at(self.by_weekday, (events.row, (events.day + (cell == MIDNIGHT)) % 7, events.event), 1)


def _count_organic(
    by_cell: Int32Array, by_weekday: Int32Array, rows: Any, counts: npt.NDArray[np.uint8], day: IntArray | int
) -> None:
    """Add organic counts (r, cells, N_ORGANIC_EVENTS) of a market day, or of one for each user, in place."""
    by_cell[rows, :, :N_ORGANIC_EVENTS] += counts
    by_weekday[rows, day % 7, :N_ORGANIC_EVENTS] += counts[:, :MIDNIGHT].sum(1, dtype=np.int32)
    by_weekday[rows, (day + 1) % 7, :N_ORGANIC_EVENTS] += counts[:, MIDNIGHT]


def cell_of_day(second: IntArray) -> IntArray:
    """Return the cell of the day (n,) of seconds after the slot (n,)."""
    return np.asarray(np.searchsorted(CELL_BOUNDS, second, side="right") - 1)


def initial_state(users: Users, config: MarketConfig, calendar: Calendar, *, record: bool) -> MarketState:
    """Simulate the warm-up, and return the users before their first slot.

    Organic behaviour does not depend on actions, so that all of it, up to the last day, is drawn here. A slot's
    observation is built from `total` and `last`, which contain past days only.
    """
    n, warmup, days = len(users), config.warmup_days, np.arange(config.horizon)
    counts = np.zeros((n, len(days), N_COLUMNS), dtype=np.int16)
    latest = np.full((n, len(days), N_ORGANIC_EVENTS), NEVER, dtype=np.int32)
    cells = np.zeros((n, len(days), len(CELL_HOURS), N_ORGANIC_EVENTS), dtype=np.uint8)
    log = []
    for start in range(0, n, ROWS_PER_CHUNK):
        chunk = users.take(slice(start, start + ROWS_PER_CHUNK))
        events = organic_events(chunk, days, config.dynamics, calendar)
        cell = events.row * len(days) + events.day
        block = slice(start, start + len(chunk))
        counts[block] = events.tally(cell, len(chunk) * len(days)).reshape(len(chunk), len(days), N_COLUMNS)
        np.maximum.at(latest[block], (events.row, events.day, events.event), events.second.astype(np.int32))
        np.add.at(cells[block], (events.row, events.day, cell_of_day(events.second), events.event), 1)
        if record:
            log.append(replace(events, row=events.row + start))
    total = np.zeros((n, len(days) + 1, N_COLUMNS), dtype=np.int32)
    np.cumsum(counts[:, :warmup], axis=1, out=total[:, 1 : warmup + 1])
    last = np.full((n, len(EVENTS)), NEVER, dtype=np.int64)
    past = latest[:, :warmup]
    stamp = np.where(past == NEVER, NEVER, past + (days[:warmup] * DAY_SECONDS)[:, None])
    last[:, :N_ORGANIC_EVENTS] = stamp.max(axis=1)
    by_cell = np.zeros((n, len(CELL_HOURS), len(EVENTS)), dtype=np.int32)
    by_weekday = np.zeros((n, 7, len(EVENTS)), dtype=np.int32)
    for day in range(warmup):
        _count_organic(by_cell, by_weekday, slice(None), cells[:, day], day)
    return MarketState(
        users=users,
        day=np.full(n, warmup, dtype=np.int64),
        fatigue=np.zeros(n),
        subscribed=np.ones(n, dtype=bool),
        last_sent=np.full(n, NEVER, dtype=np.int64),
        total=total,
        last=last,
        organic=counts,
        organic_last=latest,
        organic_cells=cells,
        by_cell=by_cell,
        by_weekday=by_weekday,
        log=log if record else None,
    )
