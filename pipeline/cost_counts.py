"""How often cost events happen in a log: at all, and where no message can have caused them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from operator import add

import numpy as np

from crosschannel.agents import rate_per_week
from crosschannel.core.times import NEVER, WEEK
from crosschannel.histories.history import History
from crosschannel.histories.windows import Timeline


@dataclass(frozen=True)
class CostCounts:
    """Numbers of cost events and the time in which they were observed; `+` adds other users.

    Both begin with a user's first decision, and end with the user's observation or with churn.

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
    def of(cls, history: History, events: Sequence[str], window: int) -> CostCounts:
        """Count a history's cost events.

        Args:
            history: The log.
            events: The cost events.
            window: Time after a message in which it causes cost events, microseconds.
        """
        d, log = history.decisions, history.events
        begin, stop = history.decision_offsets[:-1], history.decision_offsets[1:]
        has = begin < stop
        first = np.full(history.n_users, NEVER)
        first[has] = d.time[begin[has]]
        end = np.minimum(history.churned_at, history.observed_until)
        within = (log.time >= first[log.user]) & (log.time <= end[log.user])
        observed = int(np.maximum(end - first, 0)[has].sum())

        sent = history.modules.sends(d.actions)
        user, time = d.user[sent], d.time[sent]  # by user, then by time
        until = np.minimum(time + window, end[user])
        until[:-1] = np.where(user[1:] == user[:-1], np.minimum(until[:-1], time[1:]), until[:-1])
        after_messages = int(np.maximum(until - time, 0).sum())
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

    def __add__(self, other: CostCounts) -> CostCounts:
        return CostCounts(
            events=tuple(map(add, self.events, other.events)),
            time=self.time + other.time,
            idle_events=tuple(map(add, self.idle_events, other.idle_events)),
            idle_time=self.idle_time + other.idle_time,
        )

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
