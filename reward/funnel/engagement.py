"""Engagement: whether a message's own event followed it, such as the opening of an e-mail."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from crosschannel.core.arrays import BoolArray, FloatArray, IntArray
from crosschannel.core.times import NEVER, duration
from crosschannel.histories.goals import Goal
from crosschannel.histories.history import History
from crosschannel.histories.logs import NO_MESSAGE
from crosschannel.histories.windows import Timeline
from crosschannel.reward.funnel.spec import FunnelSpec
from crosschannel.reward.measurement.ties import boundaries
from crosschannel.reward.reason import Reason


@dataclass(frozen=True)
class Engagement:
    """Engagement with the messages of n decisions.

    Attributes:
        engaged: 1 or 0; NaN where it is not known (n,).
        reason: Why it is not: a code of `Reason` (n,).
        available_at: When it is known, microseconds: the window has closed, and the channel had an event at all (n,).
    """

    engaged: FloatArray
    reason: IntArray
    available_at: IntArray


def measure_engagement(history: History, funnel: FunnelSpec, post: str, told: BoolArray | None = None) -> Engagement:
    """Find the messages whose own event came within the funnel's window, or within `post` without one.

    An event that names its decision (`EventLog.message`) belongs to that one; any other to the user's latest message
    before it on a channel whose engagement it tells. A channel none of whose messages has such an event tells nothing:
    its engagement is unknown, not 0.

    Args:
        history: Decisions and events.
        funnel: The declared funnel.
        post: Length of the window where the funnel has none.
        told: Which actions of the first module tell engagement (A,), where the log that says so is larger than this
            history; by default the history itself says it.

    Raises:
        ConfigError: If the history has no such channel or event.
    """
    d, window = history.decisions, duration(funnel.window or post)
    names = history.modules[0].actions
    events = funnel.channels(names[1:])
    tells = np.zeros((len(history.event_names), len(names)), dtype=bool)
    for name, pattern in events.items():
        setting = "reward.funnel.engagement" + ("" if isinstance(funnel.engagement, str) else f".{name}")
        tells[history.event_codes([pattern], setting), names.index(name)] = True
    start = boundaries(history, [Goal(event) for event in dict.fromkeys(events.values())])
    sent = history.modules.sends(d.actions)
    rows = np.flatnonzero(np.asarray(tells.any(axis=1))[history.events.event])
    own = _own_message(history, rows, tells, start, sent)
    found = own >= 0
    row, event, since = own[found], history.events.event[rows[found]], history.events.time[rows[found]]
    within = (since >= start[row]) & (since - start[row] < window)
    within &= sent[row] & tells[event, d.actions[row, 0]]
    engaged = np.zeros(len(d), dtype=bool)
    engaged[row[within]] = True

    # A channel is known to tell engagement from its first event on.
    first = np.full(len(names), NEVER, dtype=np.int64)
    np.minimum.at(first, d.actions[row[within], 0], since[within])
    told = first < NEVER if told is None else told
    reason = np.full(len(d), Reason.IDENTIFIED, dtype=np.int64)
    end = start + window
    reason[end > history.observed_until[d.user] + 1] = Reason.USER_NOT_OBSERVED
    reason[start < history.observed_from[d.user]] = Reason.USER_NOT_OBSERVED
    reason[(start < history.span[0]) | (end > history.span[1] + 1)] = Reason.OUTSIDE_OBSERVATION
    reason[d.time > history.churned_at[d.user]] = Reason.CHURNED
    reason[~told[d.actions[:, 0]]] = Reason.NO_ENGAGEMENT_EVENT
    reason[~sent] = Reason.NOT_SENT
    known, closes_at = reason == Reason.IDENTIFIED, d.time + window
    return Engagement(
        engaged=np.where(known, engaged.astype(np.float64), np.nan),
        reason=reason,
        available_at=np.where(known, np.maximum(closes_at, first[d.actions[:, 0]]), closes_at),
    )


def _own_message(history: History, rows: IntArray, tells: BoolArray, start: IntArray, sent: BoolArray) -> IntArray:
    """Return the decision that each of some events (k,) belongs to, below 0 for none.

    Args:
        history: Decisions and events.
        rows: Rows of the events (k,).
        tells: Which event tells engagement with which channel (E, A).
        start: When the time after each decision begins, microseconds (n,).
        sent: Whether a message was sent (n,).
    """
    d, e = history.decisions, history.events
    own = np.full(len(rows), NO_MESSAGE, dtype=np.int64) if e.message is None else np.array(e.message[rows])
    unnamed = own == NO_MESSAGE
    kinds, kind_of_event = np.unique(tells, axis=0, return_inverse=True)
    for kind, channels in enumerate(kinds):
        asked = np.flatnonzero(unnamed & (kind_of_event.reshape(-1)[e.event[rows]] == kind))
        sends = np.flatnonzero(sent & channels[d.actions[:, 0]])
        if not len(asked) or not len(sends):
            continue
        offsets = np.searchsorted(d.user[sends], np.arange(history.n_users + 1)).astype(np.int64)
        user, time = e.user[rows[asked]], e.time[rows[asked]]
        last = Timeline(start[sends], offsets).before(user, time, inclusive=True) - 1
        own[asked] = np.where(last >= offsets[user], sends[last], NO_MESSAGE)
    return own
