"""Decision slots on a calendar: the times at which each user could have been sent a message."""

from __future__ import annotations

import re
from dataclasses import dataclass
from functools import cached_property
from typing import Literal

import numpy as np
import pandas as pd

from crosschannel.core.arrays import IntArray
from crosschannel.core.errors import ConfigError
from crosschannel.core.times import DAY, duration, find_time_zone

SENDS_ONLY = "sends_only"
FIRST_MONDAY = np.datetime64("1970-01-05", "D")


@dataclass(frozen=True)
class SlotGrid:
    """Slots at fixed local times, the same for all users, from a user's start until the user leaves.

    A slot's period lasts until the next slot. Slots keep their local time when clocks change: a slot at 09:00 stays at
    09:00, and its period has 23 or 25 hours that day. A local time that is skipped becomes the time of the change; of a
    local time that occurs twice, the first counts.

    A user's slots begin after the start, so that the user is known at each of them, and do not depend on later events:
    they end when the user leaves or the stream ends, not with the user's last event, as a slot would otherwise exist
    because of what followed it. A period that the stream covers only partly is not a slot, as sends may be missing.

    Attributes:
        every: Time between slots: a whole number of days (`1d`, `7d`: Mondays), or a fraction of a day that divides it
            (`6h`, `30min`).
        at: Local time of one slot of the day, such as `09:00`; the others follow from `every`.
        time_zone: Time zone of the local times.
        start: Start of the slots without `start_events` and `start_attribute`: `first_event`, after the user's first
            row in the stream, or `stream`, at the beginning of the stream, if all users existed from then on.
        start_events: Events that start a user's slots, such as a sign-up; users without one have no slots.
        start_attribute: Column of the table of users with the start (a time).
        leave_events: Events that end a user's slots permanently, such as `Unsubscribed`.
        several: If a period has more than one send: `error`, or `first`: the first one is the slot's action, and the
            later ones remain in the history as events under their own names, and are counted.
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
            raise ConfigError(
                f"every {self.every!r} is neither a number of days nor a fraction of a day that divides it"
            )
        if not re.fullmatch(r"([01]\d|2[0-3]):[0-5]\d", self.at):
            raise ConfigError(f"at {self.at!r} is not a time of day: write it as '09:00', in quotes")
        find_time_zone(self.time_zone)
        if (self.start != "first_event") + bool(self.start_events) + (self.start_attribute is not None) > 1:
            raise ConfigError("give only one of `start`, `start_events` and `start_attribute`")


def check_slots(slots: str | SlotGrid, *, with_users: bool) -> None:
    """Refuse slots that a log cannot have.

    Args:
        slots: `sends_only`, or a grid.
        with_users: Whether there is a table of users.

    Raises:
        ConfigError: If they are neither, or the start is a column of a table that is not there.
    """
    if isinstance(slots, str):
        if slots != SENDS_ONLY:
            raise ConfigError(f"slots {slots!r} are neither {SENDS_ONLY!r} nor a grid, {{every: 1d, at: ...}}")
    elif slots.start_attribute is not None and not with_users:
        raise ConfigError("`start_attribute` is a column of the table of users: give `users`")


def bounds(grid: SlotGrid, first: int, last: int) -> IntArray:
    """Return the times (J + 1,) of a grid from `first` to `last`, ascending, in microseconds since 1970 UTC.

    The last one is not a slot: it ends the period of the one before.
    """
    length = duration(grid.every)
    ends = pd.to_datetime(np.array([first, last], dtype="datetime64[us]")).tz_localize("UTC").tz_convert(grid.time_zone)
    begin, end = ends.tz_localize(None).to_numpy().astype("datetime64[D]")
    days = np.arange(begin - 1, end + 2)
    days = days[(days - FIRST_MONDAY).astype(np.int64) % max(length // DAY, 1) == 0]
    at = int(grid.at[:2]) * 60 + int(grid.at[3:])
    clock = np.sort((at * 60_000_000 + np.arange(0, DAY, min(length, DAY))) % DAY)
    local = pd.DatetimeIndex((days.astype("datetime64[us]")[:, None] + clock.astype("timedelta64[us]")).ravel())
    known = local.tz_localize(
        grid.time_zone, ambiguous=np.ones(len(local), dtype=bool), nonexistent="shift_forward"
    ).tz_convert("UTC")
    # A skipped time may become equal to the next slot's; the two are one slot.
    time = np.unique(known.tz_localize(None).to_numpy().astype("datetime64[us]").astype(np.int64))
    return time[(time >= first) & (time <= last)]


@dataclass(frozen=True)
class UserSlots:
    """The slots of U users on a common grid, one row each, sorted by (user, time).

    Attributes:
        bounds: Times of the grid (J + 1,), the last of which is not a slot.
        first: Index into the grid of each user's first slot (U,).
        offsets: First row of each user (U + 1,): those of user u are `offsets[u]:offsets[u + 1]`.
    """

    bounds: IntArray
    first: IntArray
    offsets: IntArray

    @classmethod
    def build(cls, bounds: IntArray, start: IntArray, leave: IntArray) -> UserSlots:
        """Build the slots of each user strictly between a start (U,) and an end (U,), in microseconds."""
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
        """The index into the grid of each row."""
        return np.arange(len(self)) - (self.offsets[:-1] - self.first)[self.user]

    @property
    def time(self) -> IntArray:
        """The time of each row, microseconds."""
        return self.bounds[self.place]

    def row(self, user: IntArray, time: IntArray) -> IntArray:
        """Return the row whose period contains each (user, time), -1 for none; a period begins with its slot."""
        place = np.searchsorted(self.bounds, time, side="right") - 1 - self.first[user]
        inside = (place >= 0) & (place < np.diff(self.offsets)[user])
        return np.where(inside, self.offsets[user] + place, -1)
