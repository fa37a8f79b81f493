"""Digests of what a log holds by day and of its users, from sums that add up over parts of the users."""

from __future__ import annotations

import numpy as np
import pandas as pd

from crosschannel.core.arrays import BoolArray, IntArray, ObjectArray, UIntArray
from crosschannel.core.hashing import DIGEST_SALTS, keys, label_keys, mix, row_hashes, sums_by_group, sums_of_hashes
from crosschannel.histories.history import History
from crosschannel.histories.logs import take_rows

_DECISIONS, _EVENTS, _USERS = range(3)


def words_by_day(history: History, first: int, day: int, count: int, known: int = 0) -> UIntArray:
    """Return sums of hashes of what each day of a history holds (count - known, 2): its decisions and its events.

    A column that tells nothing (no policy, arm or message, or everything eligible) counts as absent, row by row: the
    first decisions of a policy in use bring such columns, and change no day before. The sums of parts of the users add
    up, modulo 2^64, to those of all.

    Args:
        history: The history.
        first: When the first day begins, microseconds since 1970 UTC; what came before belongs to it.
        day: Length of a day, microseconds.
        count: Number of days.
        known: Number of first days that are left out.
    """
    out = np.zeros((count - known, len(DIGEST_SALTS)), dtype=np.uint64)
    if not len(out):
        return out
    d, e = history.decisions, history.events
    start = first + known * day if known else np.iinfo(np.int64).min
    end = first + count * day
    happened = (e.time >= start) & (e.time < end)
    message = np.zeros(len(e), dtype=np.uint64)
    if e.message is not None and len(d):
        message = np.where(e.message >= 0, d.key[np.maximum(e.message, 0)], np.uint64(0))
    d, e, message = take_rows(d, (d.time >= start) & (d.time < end)), take_rows(e, happened), message[happened]
    optional = (_barred(d.eligible, len(d)), _keys_or_zero(d.policy, len(d)), _keys_or_zero(d.arm, len(d)))
    user, columns = history.user_keys, (d.time, d.key, *d.actions.T, *d.propensity.T, d.joint, *optional)
    tables = (
        (_DECISIONS, d.time, row_hashes(user[d.user], columns)),
        (_EVENTS, e.time, row_hashes(user[e.user], (e.time, e.event, e.value, message))),
    )
    for table, time, rows in tables:
        number = np.maximum((time - first) // day, 0) - known
        out += sums_by_group(rows, number, len(out), table)
    return out


def words_of_users(history: History, times: IntArray) -> UIntArray:
    """Return sums of hashes of what is known of the users who were observed before some times (K,), as (K, 2).

    That is their attributes and their observation, whose end is not known before it. The sums of parts of the users add
    up, modulo 2^64, to those of all.

    Args:
        history: The history.
        times: Microseconds since 1970 UTC.
    """
    users = pd.DataFrame() if history.users is None else history.users.drop(columns="user_id", errors="ignore")
    columns = (np.asarray(users[name], dtype=object) for name in sorted(users.columns))
    texts = [keys(column.astype(str).astype(object)) for column in columns]
    known = row_hashes(history.user_keys, (history.observed_from, *texts))
    out = np.zeros((len(times), len(DIGEST_SALTS)), dtype=np.uint64)
    for k, time in enumerate(times):
        at = history.observed_from < time
        end = np.minimum(history.observed_until[at], time).view(np.uint64)
        out[k] = sums_of_hashes(mix(known[at] ^ end), _USERS)
    return out


def digests(words: UIntArray) -> list[str]:
    """Return sums (n, 2) as digests of 32 hexadecimal digits."""
    return ["".join(f"{int(word):016x}" for word in each) for each in words]


def _barred(eligible: BoolArray | None, n: int) -> UIntArray:
    """Return hashes (n,) of what was not eligible (n, A), 0 where everything was."""
    if eligible is None:
        return np.zeros(n, dtype=np.uint64)
    barred = ~np.asarray(eligible, dtype=bool)
    found = row_hashes(np.zeros(n, dtype=np.uint64), list(np.packbits(barred, axis=1).T))
    return np.where(barred.any(1), found, np.uint64(0))


def _keys_or_zero(labels: ObjectArray | None, n: int) -> UIntArray:
    """Return the keys (n,) of labels, 0 where there is none."""
    if labels is None:
        return np.zeros(n, dtype=np.uint64)
    return np.where(pd.isna(labels) | (labels == ""), np.uint64(0), label_keys(labels))
