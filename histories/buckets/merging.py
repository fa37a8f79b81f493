"""Merge the histories of buckets into that of all their users."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import fields, replace
from typing import Any

import numpy as np
import numpy.typing as npt
import pandas as pd

from crosschannel.core.errors import ConfigError
from crosschannel.histories.history import History
from crosschannel.histories.logs import NO_MESSAGE, DecisionLog, EventLog
from crosschannel.histories.values.event_messages import message_notes
from crosschannel.histories.values.identifiers import id_notes, order_of_ids


def with_columns(history: History, columns: Sequence[str]) -> History:
    """Return a bucket's history with the optional columns that other buckets have, where it has no entry of them.

    Args:
        history: The bucket's history.
        columns: Names of the columns that the whole history has: `eligible`, `policy`, `arm`, `message`.
    """
    decisions, events = history.decisions, history.events
    n = len(decisions)
    if "eligible" in columns and decisions.eligible is None:
        decisions = replace(decisions, eligible=np.ones((n, history.modules.total), dtype=bool))
    for name in ("policy", "arm"):
        if name in columns and getattr(decisions, name) is None:
            decisions = replace(decisions, **{name: np.full(n, None, dtype=object)})
    if "message" in columns and events.message is None:
        events = replace(events, message=np.full(len(events), NO_MESSAGE, dtype=np.int64))
    return replace(history, decisions=decisions, events=events)


def merge(parts: Sequence[History], *, by_value: bool) -> History:
    """Return the history of all users of several histories, with users in the order of their ids.

    A user is in one part only. All parts have the same modules, names of events, observation period, columns and notes.

    Args:
        parts: The histories.
        by_value: Whether ids are in the order of their values as whole numbers, or of their text.

    Raises:
        ConfigError: If there is no part.
    """
    if not parts:
        raise ConfigError("there are no buckets to read: the folder has no users")
    first = parts[0]
    ids = _joined([part.user_ids for part in parts])
    order = order_of_ids(ids, by_value=by_value)
    rank = np.empty(len(ids), dtype=np.int64)
    rank[order] = np.arange(len(ids))
    before = np.cumsum([0, *(part.n_users for part in parts)])
    rows_before = np.cumsum([0, *(len(part.decisions) for part in parts)])
    columns: dict[type, dict[str, Any]] = {}
    for log in (DecisionLog, EventLog):
        tables = [part.decisions if log is DecisionLog else part.events for part in parts]
        columns[log] = {
            f.name: _joined([getattr(table, f.name) for table in tables])
            for f in fields(log)
            if getattr(tables[0], f.name) is not None and f.name not in ("user", "message")
        }
        user = [table.user + start for table, start in zip(tables, before, strict=False)]
        columns[log]["user"] = rank[np.concatenate(user)]
    messages = [part.events.message for part in parts if part.events.message is not None]
    if messages:
        columns[EventLog]["message"] = np.concatenate(
            [np.where(one >= 0, one + start, one) for one, start in zip(messages, rows_before, strict=False)]
        )
    users = None if first.users is None else pd.concat([part.users for part in parts], ignore_index=True)
    history = History.from_arrays(
        DecisionLog(**columns[DecisionLog]),
        EventLog(**columns[EventLog]),
        modules=first.modules,
        user_ids=ids[order],
        event_names=first.event_names,
        span=first.span,
        users=None if users is None else users.iloc[order].reset_index(drop=True),
        observed_from=np.concatenate([part.observed_from for part in parts])[order],
        observed_until=np.concatenate([part.observed_until for part in parts])[order],
        name=first.name,
        churn_events=first.churn_events,
        ties=first.ties,
    )
    return replace(history, notes=first.notes)


def notes_on_all(history: History) -> tuple[str, ...]:
    """Return the notes on ids and messages that only the history of all users can have."""
    d, e = history.decisions, history.events
    rows = np.bincount(np.append(d.user, e.user), minlength=history.n_users)
    return (*id_notes(history.user_ids, rows), *message_notes(e.message, e.time, d.time))


def _joined(arrays: Sequence[npt.NDArray[Any]]) -> npt.NDArray[Any]:
    """Concatenate the columns of several parts; parts without rows do not decide about the type."""
    filled = [array for array in arrays if len(array)] or list(arrays[:1])
    return np.concatenate(filled)
