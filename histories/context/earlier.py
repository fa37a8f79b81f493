"""What contexts need of the time before a history whose recent part alone was read: totals of each user, exactly."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, fields, replace
from typing import Any

import numpy as np
import pandas as pd

from crosschannel.core.arrays import BoolArray, IntArray, ObjectArray
from crosschannel.core.times import DAY, HOUR, NEVER, wall_clock

#: Stands for the time of something that has not happened.
NOT_YET = np.iinfo(np.int64).min


@dataclass(frozen=True)
class Earlier:
    """What U users did before a time, which a history has no rows of.

    All numbers are whole, so that contexts with them equal those of the whole history to the last bit.

    Attributes:
        time: The time, microseconds since 1970 UTC.
        shown_by: Names of the events that show when a user is active.
        time_zone: Zone of the hours and days.
        last_event: Time of each event's last occurrence (U, E), by the history's codes; `NOT_YET` where there is none.
        last_message: Time of the last message (U,).
        sent: Number of decisions by action of the first module (U, A).
        churned_at: Time of the first churn event (U,), `NEVER` where there is none.
        by_hour: Number of events that show activity by hour of the day (U, 24), since the start of the observation.
        by_weekday: The same by day of the week (U, 7), Monday first.
    """

    time: int
    shown_by: tuple[str, ...]
    time_zone: str
    last_event: IntArray
    last_message: IntArray
    sent: IntArray
    churned_at: IntArray
    by_hour: IntArray
    by_weekday: IntArray

    @classmethod
    def none(cls, users: int, events: int, actions: int, shown_by: Sequence[str], time_zone: str) -> Earlier:
        """Return that nothing happened."""
        return cls(
            time=NOT_YET,
            shown_by=tuple(shown_by),
            time_zone=time_zone,
            last_event=np.full((users, events), NOT_YET),
            last_message=np.full(users, NOT_YET),
            sent=np.zeros((users, actions), dtype=np.int64),
            churned_at=np.full(users, NEVER),
            by_hour=np.zeros((users, 24), dtype=np.int64),
            by_weekday=np.zeros((users, 7), dtype=np.int64),
        )

    def select_users(self, chosen: BoolArray) -> Earlier:
        """Return what the users chosen by a mask (U,) did."""
        return replace(self, **{name: getattr(self, name)[chosen] for name in self._by_user()})

    def for_users(self, known: ObjectArray, user_ids: ObjectArray) -> Earlier:
        """Return the same for other users (V,), by the ids of the present ones (U,); new ones have done nothing."""
        place = pd.Index(known).get_indexer(pd.Index(user_ids))
        nothing = Earlier.none(1, self.last_event.shape[1], self.sent.shape[1], self.shown_by, self.time_zone)
        rows: dict[str, Any] = {}
        for name in self._by_user():
            found = getattr(self, name)
            rows[name] = np.concatenate([found, getattr(nothing, name).astype(found.dtype)])[place]
        return replace(self, **rows)

    def count_by_hour(self, hours: BoolArray) -> IntArray:
        """Return the number of events in some hours of the day (24,), (U,)."""
        return np.asarray(self.by_hour @ hours.astype(np.int64))

    def count_by_weekday(self, days: Sequence[int]) -> IntArray:
        """Return the number of events on some days of the week (U,)."""
        return np.asarray(self.by_weekday[:, list(days)].sum(1))

    def _by_user(self) -> list[str]:
        return [f.name for f in fields(self) if f.name not in ("time", "shown_by", "time_zone")]


def hours_and_weekdays(time: IntArray, time_zone: str) -> tuple[IntArray, IntArray]:
    """Return the hour of the day and the day of the week (n,) of times (n,) in a zone, 0 for Monday."""
    local = wall_clock(time, time_zone)
    return np.asarray(local % DAY // HOUR), np.asarray((local // DAY + 3) % 7)  # 1970 began on a Thursday


def count_by_user(user: IntArray, part: IntArray, users: int, parts: int) -> IntArray:
    """Return the number of rows of each user by part (U, parts)."""
    return np.bincount(user * parts + part, minlength=users * parts).reshape(users, parts)


def latest_by_user(user: IntArray, part: IntArray, time: IntArray, users: int, parts: int) -> IntArray:
    """Return the latest time of each user's rows by part (U, parts); `NOT_YET` where there is none."""
    out = np.full(users * parts, NOT_YET)
    np.maximum.at(out, user * parts + part, time)
    return out.reshape(users, parts)
