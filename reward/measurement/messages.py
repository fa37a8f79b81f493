"""When messages are active, and whether another message of the user is active around a decision."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from crosschannel.core.action_space import ActionSpace
from crosschannel.core.arrays import BoolArray, IntArray
from crosschannel.core.times import DAY
from crosschannel.histories.history import History
from crosschannel.histories.windows import Timeline


@dataclass(frozen=True)
class Messages:
    """The sent decisions of a history.

    A message is active from its send until the days in its action's label `duration` have passed (an offer that
    runs for a week, a campaign of coupons); without such a label, at the moment of the send alone.

    Attributes:
        sends: When messages were sent.
        ends: The last microsecond at which they were active, sorted by (user, end).
        own_end: The same for every decision, sent or not, in the history's order (n,).
        sent: Whether a decision sent a message (n,).
    """

    sends: Timeline
    ends: Timeline
    own_end: IntArray
    sent: BoolArray

    @classmethod
    def from_history(cls, history: History) -> Messages:
        """Collect the messages of a history."""
        d = history.decisions
        sent = history.modules.sends(d.actions)
        user, time = d.user[sent], d.time[sent]
        own_end = d.time + np.maximum(active_time(history.modules, d.actions), 1) - 1
        end = own_end[sent]
        offsets = np.searchsorted(user, np.arange(history.n_users + 1)).astype(np.int64)
        order = np.arange(len(end))
        if (end != time).any():
            order = np.lexsort((end, user))
        return cls(Timeline(time, offsets), Timeline(end[order], offsets), own_end, sent)

    def others_active(self, history: History, first: int, last: int) -> BoolArray:
        """Return whether another message of the user is active within `[t + first, t + last)` of each decision (n,)."""
        return self.count_others(history, first, last) > 0

    def count_others(self, history: History, first: int, last: int) -> IntArray:
        """Return how many other messages of the user are active within `[t + first, t + last)` of each decision (n,).

        Count those sent before the interval ends, less those that ended before it begins, less the decision's own.
        """
        d = history.decisions
        count = self.sends.before(d.user, d.time + last) - self.ends.before(d.user, d.time + first)
        own = self.sent & (last > 0) & (self.own_end >= d.time + first)
        return np.asarray(count - own)


def active_time(modules: ActionSpace, actions: IntArray) -> IntArray:
    """Return how long the message of each action (n, M) is active, microseconds (n,); 0 where no label says so."""
    longest = np.zeros(len(actions), dtype=np.int64)
    for m, module in enumerate(modules):
        days = [float(module.labels.get(action, {}).get("duration", 0.0)) for action in module.actions]
        length = np.rint(np.array(days) * DAY).astype(np.int64)
        longest = np.maximum(longest, length[actions[:, m]])
    return np.where(modules.sends(actions), longest, 0)
