"""Determine which actions are eligible for each user now: from a file, or from the last slots of the log.

Where neither says anything, everything would be eligible. `consent_columns` finds the columns of the users' table that
contradict this, so that a program can ask.
"""

from __future__ import annotations

import itertools
import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from crosschannel.core.action_space import ActionSpace
from crosschannel.core.arrays import BoolArray, ObjectArray
from crosschannel.core.errors import Fault, InputError
from crosschannel.core.table_validator import TableValidator
from crosschannel.histories.history import History
from crosschannel.histories.readers.source_files import read_any
from crosschannel.histories.values.action_columns import eligible_mask
from crosschannel.histories.values.identifiers import flag_other_spellings


def last_eligible(history: History, at: int, ignored: BoolArray | None = None) -> BoolArray:
    """Return the actions (U, sum of actions) that were eligible at each user's last slot before a time.

    Nothing can be sent to users without such a slot. If the log has no eligibility, every action is eligible.

    Args:
        history: The log.
        at: The time, microseconds since 1970 UTC.
        ignored: Decisions (n,) that do not say what was eligible. If everything was at all others, the log has none.
    """
    d = history.decisions
    mask = np.ones((history.n_users, history.modules.total), dtype=bool)
    counts = np.ones(len(d), dtype=bool) if ignored is None else ~ignored
    if d.eligible is None or (ignored is not None and d.eligible[counts].all()):
        return mask
    mask[:, 1:] = False
    before = np.flatnonzero((d.time < at) & counts)
    # Rows ascend in time within a user, so the last assignment is that of the user's latest row.
    latest = np.full(history.n_users, -1, dtype=np.int64)
    latest[d.user[before]] = before
    seen = np.flatnonzero(latest >= 0)
    mask[seen] = d.eligible[latest[seen]]
    return mask


def read_eligible(path: Path, history: History) -> BoolArray:
    """Read the eligible actions (U, sum of actions) from a CSV or Parquet file.

    Its columns are `user_id` and `eligible_<module>` (action names joined by `|`). All actions of a module without a
    column are eligible; nothing can be sent to users without a row.

    Raises:
        InputError: If the file cannot be read, has no row, an unknown user, module or action, or has a user twice.
    """
    return eligible_of_users(path, history.modules, history.user_ids)


def eligible_of_users(path: Path, modules: ActionSpace, user_ids: ObjectArray) -> BoolArray:
    """Return the same for a log's users by their ids (U,): see `read_eligible`."""
    faults = list[Fault]()
    columns = [f"eligible_{name}" for name in modules.names]
    table = TableValidator(read_any(path, text=["user_id", *columns]), str(path), faults)
    table.require(["user_id"])
    for column in map(str, table.frame.columns):
        if column not in ("user_id", *columns):
            table.flag("the column is unknown", f"Drop it, or use one of {', '.join(columns)}.", column=column)
    if not any(table.has(column) for column in columns):
        table.flag("no module has a column", f"Add at least one of {', '.join(columns)}.")
    if not len(table):
        remedy = "Export it again. Where nothing may be sent to anybody, give each user a row with `none`."
        table.flag("the file has no row, so that nothing could be sent to anybody", remedy)
    if faults:
        raise InputError(faults)
    texts, missing = table.texts("user_id"), table.missing("user_id")
    user = pd.Index(user_ids.astype(str)).get_indexer(pd.Index(texts.astype(str)))
    table.flag_rows("user_id", missing, "the user id is missing", "Give every row its user.")
    unknown = (user < 0) & ~missing & ~flag_other_spellings(table, "user_id", user_ids)
    table.flag_rows("user_id", unknown, "the log has no such user", "Leave the row out, or read a newer log.")
    twice = pd.Series(texts).duplicated().to_numpy() & ~missing
    table.flag_rows("user_id", twice, "the user has an earlier row", "Keep one row for each user.")
    listed = eligible_mask(table, modules, np.zeros((len(table), len(modules)), dtype=np.int64))
    if faults or listed is None:
        raise InputError(faults)
    mask = np.zeros((len(user_ids), modules.total), dtype=bool)
    mask[:, 0] = True
    mask[user] = listed
    mask[:, 0] = True
    return mask


def read_user_list(path: Path, history: History) -> BoolArray:
    """Read a list of users from a CSV or Parquet file with the column `user_id`; return who is on it (U,).

    Raises:
        InputError: If the file cannot be read, or names no user of the history.
    """
    return users_on_list(path, history.user_ids)


def users_on_list(path: Path, user_ids: ObjectArray) -> BoolArray:
    """Return the same for a log's users by their ids (U,): see `read_user_list`."""
    faults = list[Fault]()
    table = TableValidator(read_any(path, text=["user_id"]), str(path), faults)
    table.require(["user_id"])
    if not faults and not flag_other_spellings(table, "user_id", user_ids).any():
        listed = np.isin(user_ids.astype(str), table.texts("user_id").astype(str))
        if listed.any():
            return np.asarray(listed)
        table.flag("the log has none of these users", "Check the ids, or read a newer log.", column="user_id")
    raise InputError(faults)


def without_churned(mask: BoolArray, history: History, at: int) -> BoolArray:
    """Return a copy of a mask (U, sum of actions) with nothing to send to users who churned before a time."""
    out = mask.copy()
    out[history.churned_at < at, 1:] = False
    return out


def consent_columns(users: pd.DataFrame | None, channels: Sequence[str]) -> list[str]:
    """Return the attributes of users whose names are about consent, or about whether a channel reaches the user.

    A name counts if a word of it, or two together, match `_CONSENT` (`marketing_consent`, `emailOptOut`); if it
    has a channel beside a word of `_PERMISSION` (`email_ok`, `can_sms`, `push_token`); or if it is the name of a
    channel and its values are true or false.

    Args:
        users: The users' attributes.
        channels: Names of the channels.
    """
    named = {word for channel in channels for word in _words(channel)}
    found = []
    for column in [] if users is None else map(str, users.columns):
        words = _words(column)
        together = [*words, *(first + second for first, second in itertools.pairwise(words))]
        has_channel = any(word in named or _CHANNEL.fullmatch(word) for word in words)
        if (
            any(_CONSENT.fullmatch(word) for word in together)
            or (has_channel and any(_PERMISSION.fullmatch(word) for word in words))
            or (column in channels and users is not None and _is_flag(users[column]))
        ):
            found.append(column)
    return [name for name in found if name != "user_id"]


def _words(name: str) -> list[str]:
    """Return the words of a name in snake_case or camelCase, in lower case."""
    return re.findall(r"[a-z0-9]+", re.sub(r"(?<=[a-z0-9])(?=[A-Z])", "_", name).lower())


def _is_flag(values: pd.Series[Any]) -> bool:
    return set(values.dropna().astype(str).str.lower()) <= {"true", "false", "0", "1", "0.0", "1.0", "yes", "no"}


_CONSENT = re.compile(
    r"consent(s|ed)?|opt(ed)?(in|out)s?|(un)?subscri(be[dr]?|ptions?)|unsubs?|(un)?(reach|contact|deliver)able"
    r"|deliverability|mailable|emailable|textable|pushable|marketing|newsletters?|gdpr|dsgvo|rgpd|ccpa|lgpd|tcpa|casl"
    r"|dnc|dnd|donot(contact)?|suppress(ed|ion)?|block(ed|list|listed)|blacklist(ed)?|denylist|stoplist|muted"
    r"|bounce[ds]?|complain(ed|ts?)|permi(tted|ssions?)|disallowed|revoked|withdrawn|object(ed|ion)|notifications?"
    r"|(push|device|fcm|apns)tokens?|einwilligung|werbung|widerspruch"
)
_CHANNEL = re.compile(
    r"e?mails?|mailing|push|sms|mms|rcs|texts?|phone|calls?|whatsapp|inapp|messenger|messag(e|es|ing)|contact|channel"
    r"|viber|telegram|letter|post"
)
_PERMISSION = re.compile(
    r"ok|okay|(en|dis)abled?|(in)?valid|verified|confirmed|status|state|can|may|has|have|no|not|never|allow(s|ed)?"
    r"|accept(s|ed)?|receives?|wants?|(in)?active|available|tokens?|flag|registered|pref(s|erences?)?|stop(ped)?|agreed?"
    r"|opt(ed)?|on|off"
)
