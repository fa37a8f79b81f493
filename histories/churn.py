"""Who is gone: users who unsubscribed or removed the app, and from when on."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from crosschannel.core.arrays import IntArray
from crosschannel.histories.history import History

GONE_EVENTS = ("unsubscribed", "app_removed")
NEVER = np.iinfo(np.int64).max


def gone_at(history: History, names: Sequence[str] = GONE_EVENTS) -> IntArray:
    """When each user was first gone (U,), microseconds since 1970 UTC; `NEVER` where a user never was.

    Args:
        history: Events of any kinds.
        names: Events after which a user is gone. A history need not have those of `GONE_EVENTS`.

    Raises:
        ConfigError: If another event is named that the history does not have.
    """
    known = [name for name in names if name in history.event_names or name not in GONE_EVENTS]
    rows = np.flatnonzero(np.isin(history.events.event, history.event_codes(known)))
    out = np.full(history.n_users, NEVER, dtype=np.int64)
    user, first = np.unique(history.events.user[rows], return_index=True)
    out[user] = history.events.time[rows[first]]
    return out
