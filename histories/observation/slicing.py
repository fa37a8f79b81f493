"""Parts of a history in time: as it was at an earlier time, and without what is long past."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import replace

import numpy as np
import pandas as pd

from crosschannel.core.arrays import ObjectArray, UIntArray
from crosschannel.core.errors import ConfigError
from crosschannel.core.hashing import keys, label_keys
from crosschannel.core.times import NEVER
from crosschannel.histories.history import History
from crosschannel.histories.logs import renumber_messages, rows_after_selection, take_rows


def until(history: History, time: int) -> History:
    """Return what a history had strictly before a time; later time is not observed, and decisions for it are left out.

    Users whose observation begins later are left out.

    Args:
        history: The history.
        time: Microseconds since 1970 UTC, within the history's span.

    Raises:
        ConfigError: If the time is not after the start of the span.
    """
    start, end = history.span
    if time <= start:
        raise ConfigError(f"{history.name} begins later than the time up to which it is wanted")
    decided, known = history.decisions.time < time, history.observed_from < time
    if time >= end and decided.all() and known.all():
        return history
    events = take_rows(history.events, history.events.time < time)
    past = replace(
        history,
        decisions=take_rows(history.decisions, decided),
        events=renumber_messages(events, rows_after_selection(decided)),
        span=(start, min(time, end)),
        observed_from=np.minimum(history.observed_from, time),
        observed_until=np.minimum(history.observed_until, time),
    )
    return past if known.all() else past.select_users(known)


def since(history: History, time: int) -> History:
    """Return a history without what came before a time, which then counts as not observed, but for who had churned.

    Args:
        history: The history.
        time: Microseconds since 1970 UTC, before the end of the history's span.

    Raises:
        ConfigError: If the time is not before the end of the span.
    """
    start, end = history.span
    if time >= end:
        raise ConfigError(f"{history.name} ends before the time from which on it is wanted")
    if time <= start:
        return history
    decided = history.decisions.time >= time
    events = take_rows(history.events, history.events.time >= time)
    return replace(
        history,
        decisions=take_rows(history.decisions, decided),
        events=renumber_messages(events, rows_after_selection(decided)),
        span=(time, end),
        observed_from=np.maximum(history.observed_from, time),
        observed_until=np.maximum(history.observed_until, time),
        earlier=None,
        churned_before=np.where(history.churned_at < time, history.churned_at, NEVER),
    )


def digests_by_day(history: History, first: int, day: int, count: int, known: Sequence[str] = ()) -> list[str]:
    """Return a digest of what each day of a history holds: its decisions and its events, of all users.

    A column that tells nothing on a day (no policy, arm or message, or everything eligible) counts as absent: the first
    decisions of a policy in use bring such columns, and change no day before.

    Args:
        history: The history.
        first: When the first day begins, microseconds since 1970 UTC; what came before belongs to it.
        day: Length of a day, microseconds.
        count: Number of days.
        known: Digests of the first days, which are not computed again.
    """
    found = [hashlib.blake2b(digest_size=16) for _ in range(count - len(known))]
    d, e = history.decisions, history.events
    message = np.zeros(0, dtype=np.uint64)
    if e.message is not None:
        message = np.where(e.message >= 0, d.key[np.maximum(e.message, 0)], np.uint64(0))
    if known:
        late = e.time >= first + len(known) * day
        message = message[late] if len(message) else message
        d, e = take_rows(d, d.time >= first + len(known) * day), take_rows(e, late)
    barred = None if d.eligible is None else ~np.asarray(d.eligible, dtype=bool)
    optional = (barred, _keys_or_zero(d.policy), _keys_or_zero(d.arm))
    tables = (
        (d.time, (history.user_keys[d.user], d.time, d.key, d.actions, d.propensity, d.joint, *optional)),
        (e.time, (history.user_keys[e.user], e.time, e.event, e.value, message if len(message) else None)),
    )
    for time, columns in tables:
        number = np.maximum((time - first) // day, 0)
        order = np.argsort(number, kind="stable")
        edges = np.searchsorted(number[order], np.arange(len(known), count + 1))
        for k in range(len(found)):
            rows = order[edges[k] : edges[k + 1]]
            for column in columns:
                part = None if column is None else np.ascontiguousarray(column[rows])
                found[k].update(b"-" if part is None or not part.any() else part.tobytes())
    return [*known, *(digest.hexdigest() for digest in found)]


def _keys_or_zero(labels: ObjectArray | None) -> UIntArray | None:
    """Return the keys (n,) of labels, 0 where there is none."""
    return None if labels is None else np.where(pd.isna(labels) | (labels == ""), np.uint64(0), label_keys(labels))


def digest_of_users(history: History, time: int) -> str:
    """Return a digest of what is known of the users who were observed before a time: attributes and observation.

    Args:
        history: The history.
        time: Microseconds since 1970 UTC; a later end of a user's observation is not known then.
    """
    known = history.observed_from < time
    digest = hashlib.blake2b(digest_size=16)
    columns = [] if history.users is None else [history.users[name] for name in history.users.columns]
    for column in columns:
        digest.update(keys(np.asarray(column, dtype=object).astype(str).astype(object)[known]).tobytes())
    for values in (history.user_keys, history.observed_from, np.minimum(history.observed_until, time)):
        digest.update(np.ascontiguousarray(values[known]).tobytes())
    digest.update(repr((history.modules.to_dict(), history.event_names, history.churn_events, history.ties)).encode())
    return digest.hexdigest()
