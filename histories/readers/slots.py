"""Decision slots on a calendar: when each user could have been sent something, whether or not anything was."""

from __future__ import annotations

import re
from dataclasses import dataclass
from functools import cached_property
from typing import Literal

import numpy as np
import pandas as pd

from crosschannel.core.arrays import IntArray
from crosschannel.core.errors import ConfigError
from crosschannel.core.times import DAY, duration

MONDAY = np.datetime64("1970-01-05", "D")


@dataclass(frozen=True)
class SlotGrid:
    """Slots at fixed times of a clock on the wall, the same for all users, from a user's start until the user leaves.

    A slot's period lasts until the next slot. The clocks may change: a slot at 09:00 stays at 09:00, and its period has
    23 or 25 hours that day. A time of day that is skipped is the moment of the change instead, and one that comes twice
    is the first of the two.

    A user's slots begin after the start, so that the user was known at each of them, and never depend on what came
    later: they end with the user's leaving or with the stream, not with the user's last event, since a slot would
    otherwise be there because of what followed it. A period that the stream does not wholly cover is none, since a send
    may have been missed.

    Attributes:
        every: How far slots lie apart: a whole number of days (`1d`, `7d`: Mondays), or a part of a day that divides it
            (`6h`, `30min`).
        at: The time of day of a slot, such as `09:00`; the others of the day follow from it.
        time_zone: Whose clock that is.
        start: Where neither `start_events` nor `start_attribute` say so: `first_event`, after the user's first row in
            the stream, or `stream`, with the stream itself, where all users were there all along.
        start_events: Events that begin a user's slots, such as a sign-up; users without one have no slots.
        start_attribute: Column of the table of users that says since when (a time).
        leave_events: Events that end a user's slots for good, such as `Unsubscribed`.
        several: Where more than one send falls into a period: `error`, or `first`: the first one is the slot's action,
            and the later ones stay in the history as events under their own names, and are counted.
    """

    every: str
    at: str
    time_zone: str = "UTC"
    start: Literal["first_event", "stream"] = "first_event"
    start_events: tuple[str, ...] = ()
    start_attribute: str | None = None
    leave_events: tuple[str, ...] = ()
    several: Literal["error", "first"] = "error"

    def __post_init__(self) -> None:
        length = duration(self.every)
        if length % 60_000_000:
            raise ConfigError(f"every {self.every!r} is not a whole number of minutes")
        if length % DAY and DAY % length:
            raise ConfigError(f"every {self.every!r} is neither a number of days nor a part of a day that divides it")
        if not re.fullmatch(r"([01]\d|2[0-3]):[0-5]\d", self.at):
            raise ConfigError(f"at {self.at!r} is not a time of day: write it as '09:00', in quotation marks")
        try:
            pd.Timestamp("2024-01-01", tz=self.time_zone)
        except (ValueError, KeyError):
            raise ConfigError(f"the time zone {self.time_zone!r} is not known: write it as Europe/Athens") from None
        if (self.start != "first_event") + bool(self.start_events) + (self.start_attribute is not None) > 1:
            raise ConfigError("give one of `start`, `start_events` and `start_attribute`, not several")


def bounds(grid: SlotGrid, first: int, last: int) -> IntArray:
    """The times (J + 1,) of a grid from `first` to `last`, ascending, all in microseconds since 1970 UTC.

    The last one begins no slot: it ends the period of the one before.
    """
    length = duration(grid.every)
    ends = pd.to_datetime(np.array([first, last], dtype="datetime64[us]")).tz_localize("UTC").tz_convert(grid.time_zone)
    begin, end = ends.tz_localize(None).to_numpy().astype("datetime64[D]")
    days = np.arange(begin - 1, end + 2)
    days = days[(days - MONDAY).astype(np.int64) % max(length // DAY, 1) == 0]
    at = int(grid.at[:2]) * 60 + int(grid.at[3:])
    clock = np.sort((at * 60_000_000 + np.arange(0, DAY, min(length, DAY))) % DAY)
    wall = pd.DatetimeIndex((days.astype("datetime64[us]")[:, None] + clock.astype("timedelta64[us]")).ravel())
    known = wall.tz_localize(
        grid.time_zone, ambiguous=np.ones(len(wall), dtype=bool), nonexistent="shift_forward"
    ).tz_convert("UTC")
    # A time that is skipped may be moved onto the next slot's: the two are one.
    time = np.unique(known.tz_localize(None).to_numpy().astype("datetime64[us]").astype(np.int64))
    return time[(time >= first) & (time <= last)]


@dataclass(frozen=True)
class UserSlots:
    """The slots of U users on a common grid, one row each, sorted by (user, time).

    Attributes:
        bounds: Times of the grid (J + 1,), the last of which begins no slot.
        first: Where in the grid each user's slots begin (U,).
        offsets: User u owns rows `offsets[u]:offsets[u + 1]` (U + 1,).
    """

    bounds: IntArray
    first: IntArray
    offsets: IntArray

    @classmethod
    def of(cls, bounds: IntArray, start: IntArray, leave: IntArray) -> UserSlots:
        """The slots of each user strictly between a start (U,) and a leave (U,), in microseconds."""
        times = bounds[:-1]
        first = np.searchsorted(times, start, side="right").astype(np.int64)
        count = np.maximum(np.searchsorted(times, leave, side="left") - first, 0)
        return cls(bounds, first, np.append(0, np.cumsum(count)).astype(np.int64))

    def __len__(self) -> int:
        return int(self.offsets[-1])

    @cached_property
    def user(self) -> IntArray:
        """The user of each row."""
        return np.repeat(np.arange(len(self.first)), np.diff(self.offsets))

    @cached_property
    def place(self) -> IntArray:
        """Which time of the grid each row has."""
        return np.arange(len(self)) - (self.offsets[:-1] - self.first)[self.user]

    @property
    def time(self) -> IntArray:
        """The time of each row, microseconds."""
        return self.bounds[self.place]

    def row(self, user: IntArray, time: IntArray) -> IntArray:
        """The row in whose period each (user, time) falls, -1 where in none; a period begins with its slot."""
        place = np.searchsorted(self.bounds, time, side="right") - 1 - self.first[user]
        inside = (place >= 0) & (place < np.diff(self.offsets)[user])
        return np.where(inside, self.offsets[user] + place, -1)
