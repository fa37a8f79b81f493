"""Give the rows of anonymous ids their user: the one whom rows with both ids name."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Literal

import numpy as np
import pandas as pd

from crosschannel.core.arrays import BoolArray, ObjectArray
from crosschannel.core.table_validator import TableValidator
from crosschannel.histories.readers.sources import anonymous_rows
from crosschannel.histories.readers.stream.rows import StreamFile

#: A native column of anonymous ids: of devices, cookies, or visitors who have not signed in.
ANONYMOUS_ID = "anonymous_id"


@dataclass(frozen=True)
class Owners:
    """Whose the rows without a user are, which have an anonymous id.

    Attributes:
        user: The user of each row (n,): its own, or the one whom the anonymous id names; empty if there is none.
        merged: Which rows (n,) got their user by the anonymous id.
        several: Which rows (n,) have no user, as their anonymous id names several.
        unknown: Which rows (n,) have no user, as their anonymous id names none.
    """

    user: ObjectArray
    merged: BoolArray
    several: BoolArray
    unknown: BoolArray


def find_owners(user: ObjectArray, anonymous_id: ObjectArray) -> Owners:
    """Return the user of each row, given users and anonymous ids (n,), empty where missing.

    An anonymous id names the users of all rows that have both, earlier or later: an identify event, a sign-up, or any
    event after it. If it names one user, all rows with it are this user's. If it names several (a shared device),
    nobody can know whose the others are, so that they are nobody's.
    """
    user_code, users = pd.factorize(user)
    code, _ = pd.factorize(anonymous_id)
    named = (user != "") & (anonymous_id != "")
    pairs = np.unique(code[named].astype(np.int64) * max(len(users), 1) + user_code[named])
    device, owner = np.divmod(pairs, max(len(users), 1))
    count = np.bincount(device, minlength=int(code.max(initial=-1)) + 1)
    owner_of = np.zeros(len(count), dtype=np.int64)
    owner_of[device] = owner
    blank = (user == "") & (anonymous_id != "")
    merged = blank & (count[code] == 1)
    out = user.copy()
    out[merged] = np.asarray(users, dtype=object)[owner_of[code[merged]]]
    return Owners(out, merged, blank & (count[code] > 1), blank & (count[code] == 0))


def merge_anonymous(
    files: Sequence[StreamFile], anonymous: Literal["error", "leave_out", "keep"]
) -> tuple[tuple[StreamFile, ...], tuple[str, ...]]:
    """Return the files with the users that their anonymous ids name, and notes; add faults to the files' tables.

    Args:
        files: The files of a stream.
        anonymous: What to do with rows that have no user either way; with `keep` the anonymous id is the user.
    """
    if not any(ANONYMOUS_ID in file.names for file in files):
        return tuple(files), ()
    user = np.concatenate([_ids(file, "user_id") for file in files])
    device = np.concatenate([_ids(file, ANONYMOUS_ID) for file in files])
    owners = find_owners(user, device)
    out, kept = owners.user, (owners.several | owners.unknown) & (anonymous == "keep")
    out[kept] = device[kept]
    clash = kept & np.isin(out, np.unique(user[user != ""].astype(str)).astype(object))
    cuts = np.cumsum([len(file.table) for file in files])[:-1]
    for file, shared, same in zip(files, np.split(owners.several, cuts), np.split(clash, cuts), strict=True):
        if anonymous == "error":
            _flag(
                file,
                shared,
                "the row has no user, and its anonymous id names several",
                "Give the row its user; or set `anonymous`: `leave_out` leaves such rows out, and `keep` makes the "
                "anonymous id a user of its own.",
            )
        _flag(
            file,
            same,
            "the anonymous id is also the id of a user, and would be merged with this user",
            "Give anonymous ids a prefix, or set `anonymous: leave_out` in the mapping.",
        )
    filled = owners.merged | kept
    changed = [
        _with_users(file, ids, rows) if rows.any() else file
        for file, ids, rows in zip(files, np.split(out, cuts), np.split(filled, cuts), strict=True)
    ]
    return tuple(changed), (_note(owners, device, anonymous),)


def _ids(file: StreamFile, native: str) -> ObjectArray:
    """Return a column of ids as text (n,), empty where they are missing or mean nobody."""
    if native not in file.names:
        return np.full(len(file.table), "", dtype=object)
    column = file.names[native]
    return np.where(anonymous_rows(file.table, column), "", file.table.texts(column)).astype(object)


def _flag(file: StreamFile, rows: BoolArray, problem: str, remedy: str) -> None:
    if rows.any():
        file.table.flag_rows(file.names[ANONYMOUS_ID], rows, problem, remedy)


def _with_users(file: StreamFile, ids: ObjectArray, rows: BoolArray) -> StreamFile:
    """Return a file with other users in some rows (n,)."""
    column = file.names["user_id"]
    users = np.where(rows, ids, file.table.texts(column)).astype(object)
    frame = file.table.frame.assign(**{column: pd.Series(users, index=file.table.frame.index, dtype=object)})
    return replace(file, table=TableValidator(frame, file.table.file, file.table.faults))


def _note(owners: Owners, device: ObjectArray, anonymous: str) -> str:
    left = {"keep": "kept as users of their own", "leave_out": "left out"}.get(anonymous, "refused")

    def count(rows: BoolArray) -> str:
        return f"{np.count_nonzero(rows):,} rows of {len(np.unique(device[rows].astype(str))):,} anonymous ids"

    return (
        f"identities: {count(owners.merged)} became rows of the user whom the id names; {left}: "
        f"{count(owners.several)} that name several users, {count(owners.unknown)} that name none"
    )
