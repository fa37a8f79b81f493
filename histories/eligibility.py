"""What may be sent to whom now: from a file, or as at each user's last slot before a time."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pandas as pd

from crosschannel.core.arrays import BoolArray
from crosschannel.core.errors import Fault, InputError
from crosschannel.core.table_validator import Sheet
from crosschannel.histories.action_columns import eligible_mask
from crosschannel.histories.history import History
from crosschannel.histories.readers.source_files import read_any


def last_eligible(history: History, at: int) -> BoolArray:
    """The actions (U, sum of actions) that were eligible at each user's last slot before a time in microseconds.

    A user without such a slot gets nothing sent. Where the log does not say what was eligible, everything is.
    """
    d = history.decisions
    mask = np.ones((history.n_users, history.modules.total), dtype=bool)
    if d.eligible is not None:
        mask[:, 1:] = False
        before = np.flatnonzero(d.time < at)
        # Rows ascend in time within a user, so that the last one written is the user's latest.
        latest = np.full(history.n_users, -1, dtype=np.int64)
        latest[d.user[before]] = before
        seen = np.flatnonzero(latest >= 0)
        mask[seen] = d.eligible[latest[seen]]
    return mask


def read_eligible(path: Path, history: History) -> BoolArray:
    """The actions (U, sum of actions) that a CSV or Parquet file says are eligible.

    Its columns are `user_id` and `eligible_<module>` (action names joined by `|`); a module without a column has all of
    its actions eligible, a user without a row gets nothing sent.

    Raises:
        InputError: If the file cannot be read, names an unknown user, module or action, or a user twice.
    """
    modules, faults = history.modules, list[Fault]()
    columns = [f"eligible_{name}" for name in modules.names]
    sheet = Sheet(read_any(path, text=["user_id", *columns]), str(path), faults)
    sheet.require(["user_id"])
    for column in map(str, sheet.frame.columns):
        if column not in ("user_id", *columns):
            sheet.add("the column is not read", f"Drop it, or use one of {', '.join(columns)}.", column=column)
    if not any(sheet.has(column) for column in columns):
        sheet.add("no module has a column", f"Give at least one of {', '.join(columns)}.")
    if faults:
        raise InputError(faults)
    texts, missing = sheet.texts("user_id"), sheet.missing("user_id")
    user = pd.Index(history.user_ids.astype(str)).get_indexer(pd.Index(texts.astype(str)))
    sheet.note("user_id", missing, "the user id is missing", "Give every row its user.")
    sheet.note("user_id", (user < 0) & ~missing, "the log has no such user", "Leave the row out, or read a newer log.")
    sheet.note("user_id", pd.Series(texts).duplicated().to_numpy() & ~missing, "the user stands twice", "Keep one row.")
    listed = eligible_mask(sheet, modules, np.zeros((len(sheet), len(modules)), dtype=np.int64))
    if faults or listed is None:
        raise InputError(faults)
    mask = np.zeros((history.n_users, modules.total), dtype=bool)
    mask[:, 0] = True
    mask[user] = listed
    mask[:, 0] = True
    return mask


def without_churned(mask: BoolArray, history: History, at: int) -> BoolArray:
    """Return a copy of a mask (U, sum of actions) with nothing to send to users who churned before a time."""
    out = mask.copy()
    out[history.churned_at < at, 1:] = False
    return out
