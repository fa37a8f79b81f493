"""When messages are in force, and whether another one of the user falls into a stretch of time around a decision."""

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

    A message is in force from its send until the days in its action's label `duration` have passed (an offer that
    runs for a week, a campaign of coupons); without such a label at the moment of the send alone.

    Attributes:
        sends: When messages were sent.
        ends: The last microsecond at which they were in force, sorted anew.
        own_end: The same for every decision, sent or not (n,).
        sent: Whether a decision sent a message (n,).
    """

    sends: Timeline
    ends: Timeline
    own_end: IntArray
    sent: BoolArray

    @classmethod
    def of(cls, history: History) -> Messages:
        """The messages of a history."""
        d = history.decisions
        sent = history.modules.sends(d.actions)
        user, time = d.user[sent], d.time[sent]
        own_end = d.time + np.maximum(running_time(history.modules, d.actions), 1) - 1
        end = own_end[sent]
        offsets = np.searchsorted(user, np.arange(history.n_users + 1)).astype(np.int64)
        order = np.arange(len(end))
        if (end != time).any():
            order = np.lexsort((end, user))
        return cls(Timeline(time, offsets), Timeline(end[order], offsets), own_end, sent)

    def others(self, history: History, first: int, last: int) -> BoolArray:
        """Whether another message of the user is in force within `[t + first, t + last)` of each decision (n,).

        Those sent before the stretch ends, less those no longer in force when it begins, less the decision's own.
        """
        d = history.decisions
        count = self.sends.before(d.user, d.time + last) - self.ends.before(d.user, d.time + first)
        own = self.sent & (last > 0) & (self.own_end >= d.time + first)
        return np.asarray(count - own > 0)


def running_time(modules: ActionSpace, actions: IntArray) -> IntArray:
    """How long the message of each action (n, M) is in force, microseconds (n,); 0 where no label says so."""
    longest = np.zeros(len(actions), dtype=np.int64)
    for m, module in enumerate(modules):
        days = [float(module.labels.get(action, {}).get("duration") or 0.0) for action in module.actions]
        length = np.rint(np.array(days) * DAY).astype(np.int64)
        longest = np.maximum(longest, length[actions[:, m]])
    return np.where(modules.sends(actions), longest, 0)
