"""How often cost events happen in a log: at all, and where no message can have caused them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from operator import add

import numpy as np
import pandas as pd

from crosschannel.agents import rate_per_week
from crosschannel.core.arrays import BoolArray, IntArray
from crosschannel.core.times import NEVER, WEEK
from crosschannel.histories.arms import BUSINESS_AS_USUAL
from crosschannel.histories.history import History
from crosschannel.histories.observation.slicing import until
from crosschannel.histories.windows import Timeline


@dataclass(frozen=True)
class CostCounts:
    """Numbers of cost events and the time in which they were observed; `+` adds other users.

    Both begin with a user's first decision (or first one under business as usual), and end with the user's observation
    or with churn.

    Attributes:
        events: Number of each event.
        time: Time of all users together, microseconds.
        idle_events: Number of each event outside the windows after messages.
        idle_time: Time outside the windows after messages, microseconds.
    """

    events: tuple[int, ...]
    time: int
    idle_events: tuple[int, ...]
    idle_time: int

    @classmethod
    def of(cls, history: History, events: Sequence[str], window: int, counted: BoolArray | None = None) -> CostCounts:
        """Count a history's cost events.

        Args:
            history: The log.
            events: The cost events.
            window: Time after a message in which it causes cost events, microseconds.
            counted: The decisions (n,) of which a user's first one begins the user's time, which ends with the first
                later one that is not among them; all by default.
        """
        d, log = history.decisions, history.events
        counted = np.ones(len(d), dtype=bool) if counted is None else counted
        first = _first_times(history, counted)
        has = first < NEVER
        other = _first_times(history, ~counted & (d.time > first[d.user]))
        end = np.minimum(np.minimum(history.churned_at, history.observed_until), other)
        within = (log.time >= first[log.user]) & (log.time <= end[log.user])
        observed = int(np.maximum(end - first, 0)[has].sum())

        sent = history.modules.sends(d.actions)
        user, time = d.user[sent], d.time[sent]  # by user, then by time
        until = np.minimum(time + window, end[user])
        until[:-1] = np.where(user[1:] == user[:-1], np.minimum(until[:-1], time[1:]), until[:-1])
        after_messages = int(np.maximum(until - np.maximum(time, first[user]), 0).sum())
        messages = Timeline(time, np.searchsorted(user, np.arange(history.n_users + 1)))
        earlier = messages.before(log.user, log.time - window)
        idle = within & (messages.before(log.user, log.time, inclusive=True) == earlier)
        found = [history.are_events([event]) for event in events]
        return cls(
            events=tuple(int((each & within).sum()) for each in found),
            time=observed,
            idle_events=tuple(int((each & idle).sum()) for each in found),
            idle_time=observed - after_messages,
        )

    @classmethod
    def in_arm(cls, history: History, events: Sequence[str], window: int) -> CostCounts | None:
        """Count the cost events of the arm `business_as_usual`; None without it."""
        arm = history.decisions.arm
        if arm is None or not (usual := np.asarray(arm == BUSINESS_AS_USUAL, dtype=bool)).any():
            return None
        return cls.of(history, events, window, usual)

    @classmethod
    def before(cls, history: History, events: Sequence[str], window: int, began: int) -> CostCounts:
        """Count the cost events of all users before there were arms, from a time on, microseconds.

        Business was as usual for all of them, those who have churned since included. The earlier time of the users of
        the arm `business_as_usual` alone would have no churn in it, since whoever had churned got no decision in it:
        what is usual is what `in_arm` counts and this.
        """
        if began <= history.span[0]:
            return cls(events=(0,) * len(events), time=0, idle_events=(0,) * len(events), idle_time=0)
        return cls.of(until(history, began), events, window)

    def __add__(self, other: CostCounts) -> CostCounts:
        return CostCounts(
            events=tuple(map(add, self.events, other.events)),
            time=self.time + other.time,
            idle_events=tuple(map(add, self.idle_events, other.idle_events)),
            idle_time=self.idle_time + other.idle_time,
        )

    def by_event(self, names: Sequence[str]) -> dict[str, int]:
        """Return the number of each event."""
        return dict(zip(names, self.events, strict=True))

    def rates(self, names: Sequence[str]) -> dict[str, float]:
        """Return the number of each event per user and week: see `rate_per_week`."""
        return {name: rate_per_week(count, self.time) for name, count in zip(names, self.events, strict=True)}

    def organic(self, names: Sequence[str]) -> dict[str, float]:
        r"""Return the number of each event per user and week without a message.

        .. math:: \text{events outside the windows after messages} / \text{time outside of them}

        It is 0 where no time is outside. The assumption is that users would have these events as often at the times
        when messages were sent to them, were they not sent.
        """
        weeks = max(self.idle_time, 0) / WEEK
        return {
            name: count / weeks if weeks > 0.0 else 0.0 for name, count in zip(names, self.idle_events, strict=True)
        }


def arms_began(history: History) -> int:
    """Return the time of the first decision that has an arm, microseconds; `NEVER` without any."""
    arm = history.decisions.arm
    if arm is None:
        return NEVER
    return int(history.decisions.time[np.asarray(pd.notna(arm) & (arm != ""), dtype=bool)].min(initial=NEVER))


def _first_times(history: History, chosen: BoolArray) -> IntArray:
    """Return the time of each user's first decision among the chosen (n,), microseconds (U,); `NEVER` without any."""
    first = np.full(history.n_users, NEVER)
    rows = np.flatnonzero(chosen)[::-1]  # by user, then by time: the earliest is written last
    first[history.decisions.user[rows]] = history.decisions.time[rows]
    return first
