"""Determine which actions are eligible for each user now: from a file, or from the last slots of the log."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pandas as pd

from crosschannel.core.arrays import BoolArray
from crosschannel.core.errors import Fault, InputError
from crosschannel.core.table_validator import TableValidator
from crosschannel.histories.action_columns import eligible_mask
from crosschannel.histories.history import History
from crosschannel.histories.readers.source_files import read_any


def last_eligible(history: History, at: int) -> BoolArray:
    """Return the actions (U, sum of actions) that were eligible at each user's last slot before a time.

    Nothing can be sent to users without such a slot. If the log has no eligibility, every action is eligible.
    """
    d = history.decisions
    mask = np.ones((history.n_users, history.modules.total), dtype=bool)
    if d.eligible is not None:
        mask[:, 1:] = False
        before = np.flatnonzero(d.time < at)
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
        InputError: If the file cannot be read, has an unknown user, module or action, or has a user twice.
    """
    modules, faults = history.modules, list[Fault]()
    columns = [f"eligible_{name}" for name in modules.names]
    table = TableValidator(read_any(path, text=["user_id", *columns]), str(path), faults)
    table.require(["user_id"])
    for column in map(str, table.frame.columns):
        if column not in ("user_id", *columns):
            table.flag("the column is unknown", f"Drop it, or use one of {', '.join(columns)}.", column=column)
    if not any(table.has(column) for column in columns):
        table.flag("no module has a column", f"Add at least one of {', '.join(columns)}.")
    if faults:
        raise InputError(faults)
    texts, missing = table.texts("user_id"), table.missing("user_id")
    user = pd.Index(history.user_ids.astype(str)).get_indexer(pd.Index(texts.astype(str)))
    table.flag_rows("user_id", missing, "the user id is missing", "Give every row its user.")
    unknown = (user < 0) & ~missing
    table.flag_rows("user_id", unknown, "the log has no such user", "Leave the row out, or read a newer log.")
    twice = pd.Series(texts).duplicated().to_numpy() & ~missing
    table.flag_rows("user_id", twice, "the user has an earlier row", "Keep one row for each user.")
    listed = eligible_mask(table, modules, np.zeros((len(table), len(modules)), dtype=np.int64))
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
