"""Divide the users of a log: their attributes read once for all, and from when on each is observed."""

from __future__ import annotations

from dataclasses import dataclass
from hashlib import md5
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from crosschannel.core.arrays import IntArray, ObjectArray
from crosschannel.core.errors import Fault, raise_faults
from crosschannel.core.table_validator import TableValidator
from crosschannel.core.times import NEVER, timestamps
from crosschannel.histories.buckets.checking import read_columns
from crosschannel.histories.buckets.leaves import leaf_of
from crosschannel.histories.buckets.manifest import DECISIONS, EVENTS, USERS, FileRecord, place_of
from crosschannel.histories.buckets.plans import Plan
from crosschannel.histories.buckets.writing import write_table
from crosschannel.histories.observation.users import (
    MAX_SHARE_WITH_TWO_DECISIONS,
    OBSERVATION_COLUMNS,
    ObservedFrom,
    check_order,
    declared_times,
    first_rows,
)
from crosschannel.histories.values.attributes import read_attributes
from crosschannel.histories.values.identifiers import are_numbers, read_user_ids


@dataclass(frozen=True)
class DividedUsers:
    """The users of a log in buckets.

    Attributes:
        files: The files that were written.
        attributes: The type of each attribute, by name; None if the log has no table of users.
        numbered: Whether all ids are whole numbers.
        digest: A checksum of the table.
    """

    files: dict[str, FileRecord]
    attributes: dict[str, str] | None
    numbered: bool
    digest: bytes


def divide_users(
    plan: Plan,
    folder: Path,
    files: dict[str, FileRecord],
    span: tuple[int, int],
    n: int,
    leaves: int,
    observed_from: ObservedFrom | None,
) -> DividedUsers:
    """Write the users of each bucket.

    The table of users is read as a whole, since what an attribute holds is decided for all users at once; decisions and
    events are read by bucket, and only where it is not declared from when on a user is observed.

    Raises:
        InputError: If the table of users has faults.
    """
    table = plan.users if plan.users is not None else _deciding_users(folder, files)
    faults: list[Fault] = []
    users = TableValidator(table, plan.users_file or DECISIONS, faults)
    users.require(["user_id"])
    raise_faults(faults)
    ids, order = _ids(users)
    start, end = (declared_times(users, column, NEVER) for column in OBSERVATION_COLUMNS)
    if start is not None and end is not None:
        check_order(users, np.where(start == NEVER, 0, start), end)
    attributes = None
    if plan.users is not None and plan.attributes:
        frame, _ = read_attributes(users, users.frame.drop(columns=list(OBSERVATION_COLUMNS), errors="ignore"))
        attributes = frame.drop(columns="user_id").iloc[order].reset_index(drop=True)
    raise_faults(faults)
    until = np.full(len(ids), span[1])
    if end is not None:
        until = np.where(end[order] == NEVER, span[1], np.clip(end[order], *span))
    bucket = leaf_of(ids, leaves) % n
    start = np.full(len(ids), NEVER) if start is None or observed_from else start[order]
    known = start != NEVER
    start = np.where(known, np.clip(start, *span), span[0])
    if not known.all() and _first_row_counts(folder, files, observed_from):
        start = np.where(known, start, _first_rows(folder, files, ids, bucket, span))
    observed = (timestamps(np.minimum(start, until)), timestamps(until))
    out = pd.DataFrame({"user_id": ids, **dict(zip(OBSERVATION_COLUMNS, observed, strict=True))})
    if attributes is not None:
        out = pd.concat([out, attributes], axis=1)
    written = dict(
        write_table(folder, int(b), USERS, "", out[bucket == b].reset_index(drop=True)) for b in np.unique(bucket)
    )
    digest = md5("".join(one.md5 for one in written.values()).encode(), usedforsecurity=False).digest()
    kinds = None if attributes is None else {name: str(attributes[name].dtype) for name in attributes.columns}
    return DividedUsers(written, kinds, are_numbers(ids), digest)


def _ids(users: TableValidator) -> tuple[ObjectArray, IntArray]:
    """Return the ids of all users, ascending, and their rows in the table."""
    if not len(users):
        return np.array([], dtype=object), np.arange(0)
    column = read_user_ids([(users, "user_id")])[0]
    twice = pd.Series(column.code).duplicated().to_numpy() & ~column.missing
    users.flag_rows("user_id", twice, "the user has an earlier row", "Keep one row for each user.")
    raise_faults(users.faults)
    return column.present, np.argsort(column.find(column.present), kind="stable")


def _deciding_users(folder: Path, files: dict[str, FileRecord]) -> pd.DataFrame:
    """Return the users of the decisions."""
    found = [read_columns(folder / name, ["user_id"])["user_id"].unique() for name in _parts(files, DECISIONS)]
    return pd.DataFrame({"user_id": pd.Series(np.concatenate(found)).drop_duplicates(ignore_index=True)})


def _first_row_counts(folder: Path, files: dict[str, FileRecord], rule: ObservedFrom | None) -> bool:
    """Return whether users are observed from their first row on, and not from the start of the log."""
    if rule is not None:
        return rule == "first_row"
    deciding = several = 0
    for _, names in _by_bucket(files, DECISIONS):
        counts = pd.concat([read_columns(folder / name, ["user_id"])["user_id"] for name in names]).value_counts()
        deciding += len(counts)
        several += int((counts > 1).sum())
    return not deciding or several / deciding > MAX_SHARE_WITH_TWO_DECISIONS


def _first_rows(
    folder: Path, files: dict[str, FileRecord], ids: ObjectArray, bucket: IntArray, span: tuple[int, int]
) -> IntArray:
    """Return from when on each user (U,) is known."""
    out = np.full(len(ids), span[1])
    rows = {table: dict(_by_bucket(files, table)) for table in (DECISIONS, EVENTS)}
    for b in np.unique(bucket):
        mine = bucket == b
        index = pd.Index(ids[mine].astype(str))
        found = [_user_times(folder, rows[table].get(int(b), []), index) for table in (DECISIONS, EVENTS)]
        out[mine] = first_rows(int(mine.sum()), span, found[0], found[1])
    return out


def _user_times(folder: Path, names: list[str], index: pd.Index[Any]) -> tuple[IntArray, IntArray]:
    """Return the users and times of the rows of some parts; rows of others are left to the check of the bucket."""
    users, times = [np.zeros(0, dtype=np.int64)], [np.zeros(0, dtype=np.int64)]
    for name in names:
        table = TableValidator(read_columns(folder / name, ["user_id", "time"]), name, [])
        time, valid = table.times("time")
        user = index.get_indexer(pd.Index(table.texts("user_id")))
        valid &= user >= 0
        users.append(user[valid])
        times.append(time[valid])
    return np.concatenate(users), np.concatenate(times)


def _parts(files: dict[str, FileRecord], table: str) -> list[str]:
    return [name for name in files if place_of(name)[1] == table]


def _by_bucket(files: dict[str, FileRecord], table: str) -> list[tuple[int, list[str]]]:
    out: dict[int, list[str]] = {}
    for name in _parts(files, table):
        out.setdefault(place_of(name)[0], []).append(name)
    return sorted(out.items())
