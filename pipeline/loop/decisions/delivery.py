"""How many of the decided messages were delivered, by the events that the sending tool writes back."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import pandas as pd

from crosschannel.core.arrays import BoolArray, IntArray
from crosschannel.core.errors import ConfigError
from crosschannel.histories.history import History
from crosschannel.histories.logs import NO_MESSAGE
from crosschannel.histories.windows import Timeline
from crosschannel.pipeline.loop.decisions.eligible import own_decisions

#: The row of all channels together.
ALL = "all"


def delivered_share(
    history: History,
    delivered: Sequence[str],
    within: int,
    *,
    failed: Sequence[str] = (),
    since: int | None = None,
) -> pd.DataFrame:
    """Return how many of the messages that a policy decided were delivered, by channel and for `ALL` of them.

    An event belongs to the decision that it names, or if it names none, to the user's last decision to send before it.
    Messages count once the time `within` which they are told is over. What was decided stays the action, delivered or
    not: a small share says that a policy is not carried out, and its effects are then those of the attempt.

    Args:
        history: The log, with the decisions of the policy.
        delivered: Events that tell of a delivery. Without any, what has not `failed` counts as delivered.
        within: Time after a decision within which events tell of it, microseconds.
        failed: Events that tell that a message was not delivered, such as bounces; they outweigh a delivery.
        since: Decisions from this time on count, microseconds; by default all.

    Returns:
        A table with `channel`, `decided`, `delivered` and `share` (NaN where nothing was decided).

    Raises:
        ConfigError: If no event is named, or the history has no such event.
    """
    if not (delivered or failed):
        raise ConfigError("no event tells of a delivery or a failure: name some")
    d = history.decisions
    sent = own_decisions(d) & history.modules.sends(d.actions)
    counted = sent & (d.time + within <= history.span[1])
    if since is not None:
        counted &= d.time >= since
    told = _told(history, sent, delivered, within) if delivered else np.ones(len(d), dtype=bool)
    if failed:
        told &= ~_told(history, sent, failed, within)
    names, channel = history.modules[0].actions, d.actions[:, 0]
    decided = np.bincount(channel[counted], minlength=len(names))[1:]
    arrived = np.bincount(channel[counted & told], minlength=len(names))[1:]
    table = pd.DataFrame(
        {
            "channel": [*names[1:], ALL],
            "decided": np.append(decided, decided.sum()),
            "delivered": np.append(arrived, arrived.sum()),
        }
    )
    return table.assign(share=table["delivered"] / table["decided"].where(table["decided"] > 0))


def _told(history: History, sent: BoolArray, names: Sequence[str], within: int) -> BoolArray:
    """Return which decisions (n,) an event of some names is about, at their time or up to `within` after it."""
    d, e = history.decisions, history.events
    rows = np.flatnonzero(np.isin(e.event, history.event_codes(names)))
    named = np.full(len(rows), NO_MESSAGE) if e.message is None else e.message[rows]
    about = np.where(named == NO_MESSAGE, _last_sent(history, sent, e.user[rows], e.time[rows]), named)
    known = about >= 0
    about, time = about[known], e.time[rows][known]
    inside = (time >= d.time[about]) & (time - d.time[about] <= within)
    out = np.zeros(len(d), dtype=bool)
    out[about[inside]] = True
    return out


def _last_sent(history: History, sent: BoolArray, user: IntArray, time: IntArray) -> IntArray:
    """Return the row of each user's last sent decision up to a time (k,), -1 where there is none."""
    rows = np.flatnonzero(sent)
    offsets = np.searchsorted(history.decisions.user[rows], np.arange(history.n_users + 1)).astype(np.int64)
    last = Timeline(history.decisions.time[rows], offsets).before(user, time, inclusive=True) - 1
    return np.where(last >= offsets[user], rows[np.maximum(last, 0)] if len(rows) else -1, -1)
