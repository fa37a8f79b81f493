"""Read ids of users, and recognise those that mean nobody, have lost digits, or name one user in two ways."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
import pandas as pd
import pyarrow as pa
import pyarrow.compute as pc

from crosschannel.core.arrays import BoolArray, IntArray, ObjectArray
from crosschannel.core.table_validator import TableValidator, first_true

#: What programs write where there is no user, without case and without spaces at the ends.
NOBODY = frozenset(
    (
        *("", "null", "none", "nil", "nan", "n/a", "#n/a", "<na>", "nat", "undefined", "void"),
        *("anonymous", "anon", "anonymous_user", "anonymous user", "unknown", "unknown_user", "unknown user"),
        *(
            "guest",
            "guest_user",
            "guest user",
            "nobody",
            "no_user",
            "no user",
            "visitor",
            "logged_out",
            "not_logged_in",
        ),
        *("missing", "empty", "blank", "-", "--", "---", "_", "?", ".", "\\n", "\\\\n", '""', "''", "{}", "[]"),
        *("not set", "not available", "not provided", "not applicable", "redacted", "hidden", "deleted"),
        *("[object object]", "false", "-1", "-1.0"),
    )
)
#: UUIDs and other long ids of zeros, or of f, alone. `0` and `00000000` are ordinary: users may be numbered from 0.
_ZEROS = r"^(0{8}-0{4}-0{4}-0{4}-0{12}|f{8}-?f{4}-?f{4}-?f{4}-?f{12}|0{16,})$"
#: A number that a spreadsheet or a floating-point column rounded: `1.23457E+11`, `1e+05`.
_SCIENTIFIC = r"^[+-]?(\d+(\.\d*)?[eE]\+|\d\.\d+[eE])\d+$"
_UUID = r"^(urn:uuid:)?\{?([0-9a-f]{8})-?([0-9a-f]{4})-?([0-9a-f]{4})-?([0-9a-f]{4})-?([0-9a-f]{12})\}?$"
#: Ids in which upper and lower case mean the same: e-mail addresses, and hexadecimal digits of at least 16.
_CASELESS = r"^([^@\s]+@[^@\s]+\.[^@\s]+|[0-9a-f]{16,})$"
_NUMBER = r"^\+?0*(\d+?)(\.0*)?$"
_INVISIBLE = "\ufeff\u200b\u200c\u200d\u2060"

#: A user is named in the notes who has at least this share of the rows, and this many times those of the next user: the
#: id may stand for many people.
CROWD_SHARE, CROWD_RATIO, CROWD_USERS = 0.05, 10, 20
#: A table writes the same users differently if this many of its ids, and more than this share, equal those of earlier
#: tables only up to case.
MIN_IDS_OF_OTHER_CASE, MAX_SHARE_OF_OTHER_CASE = 5, 0.5


@dataclass(frozen=True)
class IdColumn:
    """A column of user ids.

    Attributes:
        code: The id of each row, as an index into `names` (n,).
        names: The different ids (k,): integers if those of all tables are, else text.
        missing: Which rows have no user (n,).
        flagged: Which rows have a fault already (n,).
    """

    code: IntArray
    names: ObjectArray
    missing: BoolArray
    flagged: BoolArray

    @property
    def ids(self) -> ObjectArray:
        """The id of each row (n,)."""
        return self.names[self.code]

    @property
    def present(self) -> ObjectArray:
        """The different ids of rows that have a user, in the order of `sorted_ids`."""
        return sorted_ids(self.names[np.unique(self.code[~self.missing])])

    def find(self, known: ObjectArray) -> IntArray:
        """Return the index of each row's user among known ids (n,), -1 where there is none."""
        index = pd.Index(known).get_indexer(pd.Index(self.names))
        return np.where(self.missing, -1, index[self.code]).astype(np.int64)


def sorted_ids(ids: ObjectArray) -> ObjectArray:
    """Return different ids (k,) in ascending order: by value if all are whole numbers, also as text, else as text.

    Users have this order in every history, so that neither the order of a table nor the type of its ids matters.
    """
    return ids[order_of_ids(ids, by_value=are_numbers(ids))]


def are_numbers(ids: ObjectArray) -> bool:
    """Return whether ids (k,) are all whole numbers, also as text."""
    return ids.dtype.kind != "O" or bool(pc.all(_matches(_strings(ids), r"^\d{1,18}$"), min_count=0).as_py())


def order_of_ids(ids: ObjectArray, *, by_value: bool) -> IntArray:
    """Return the rows of different ids (k,) in ascending order: by the values of whole numbers, or as text."""
    return np.argsort(ids.astype(np.int64) if by_value else ids, kind="stable")


def read_user_ids(
    columns: Sequence[tuple[TableValidator, str]], *, leave_out: Sequence[bool] | None = None
) -> list[IdColumn]:
    """Read the columns of user ids of several tables; the first table's spelling of an id is the right one.

    Faults are added for ids that are missing, mean nobody or lost digits, and for a user who is written in two ways, in
    one column or across tables; the case of a whole table is such a way. Ids are integers if those of all tables are,
    else text.

    Args:
        columns: Tables, and their columns of ids.
        leave_out: For each of them, whether rows without an id, or with one that means nobody, are left out: they are
            `missing` and not a fault. By default they are faults.
    """
    numbers = [table.integers(name) for table, name in columns]
    whole = [one for one in numbers if one is not None]
    values = whole if len(whole) == len(columns) else [table.texts(name) for table, name in columns]
    allowed = [False] * len(columns) if leave_out is None else leave_out
    out = [_read_column(*column, ids, allow) for column, ids, allow in zip(columns, values, allowed, strict=True)]
    if len(whole) == len(columns):
        return out
    names = np.concatenate([column.names for column in out])
    known = np.asarray(pd.unique(pd.Series(names[names != ""], dtype=object)))
    if not len(known):
        return out
    right = known[first_spelling(known)]
    right = _in_first_case(known, right, [column.names for column in out])
    index = pd.Index(known)
    for k, ((table, name), column) in enumerate(zip(columns, out, strict=True)):
        place = index.get_indexer(pd.Index(column.names))
        other = (place >= 0) & (right[place] != column.names)
        again = other[column.code] & ~column.flagged
        if (row := first_true(again)) is not None:
            table.flag_rows(
                name,
                again,
                f"the same user is also written {right[place[column.code[row]]]!r}",
                "Write ids in one way in all files and rows. Different users must differ in more than spaces, zeros "
                "before a number, or the case of an e-mail address.",
            )
            out[k] = IdColumn(column.code, column.names, column.missing, column.flagged | again)
    return out


def _in_first_case(known: ObjectArray, right: ObjectArray, tables: Sequence[ObjectArray]) -> ObjectArray:
    """Return the right spellings of known ids (k,), with those of earlier tables where a table has another case.

    One id may differ from another in case and be another user (base 64), but not most ids of a table.
    """
    lower = np.asarray(pc.utf8_lower(_strings(known)).to_numpy(zero_copy_only=False), dtype=object)
    index, out = pd.Index(known), right.copy()
    earlier, spelling = np.zeros(len(known), dtype=bool), dict[str, Any]()
    for names in tables:
        place = index.get_indexer(pd.Index(names[names != ""]))
        new = place[~earlier[place]]
        again = new[np.array([lower[k] in spelling for k in new], dtype=bool)]
        if len(again) >= MIN_IDS_OF_OTHER_CASE and len(again) > MAX_SHARE_OF_OTHER_CASE * len(place):
            out[again] = [spelling[lower[k]] for k in again]
        earlier[place] = True
        spelling |= {lower[k]: right[k] for k in new if lower[k] not in spelling}
    return out


def id_notes(ids: ObjectArray, rows: IntArray) -> list[str]:
    """Return notes on user ids (U,) that may merge or divide people, given the number of rows of each (U,)."""
    notes = []
    if count := differ_in_case(ids):
        first = _first_equal(pc.utf8_lower(_strings(ids)))
        k = int(np.argmax(first < np.arange(len(ids))))
        notes.append(
            f"users: {count:,} ids differ from another one only in case, such as {ids[k]!r} and {ids[first[k]]!r}: "
            "they are read as different users"
        )
    if len(ids) >= CROWD_USERS:
        second, most = np.sort(rows)[-2:].tolist()
        ratio = most / max(second, 1)
        if most >= CROWD_SHARE * rows.sum() and ratio >= CROWD_RATIO:
            notes.append(
                f"users: {ids[int(np.argmax(rows))]!s} has {most:,} of {rows.sum():,} rows, {ratio:,.0f} times as many "
                "as the next user: if the id stands for many people, leave its rows out"
            )
    return notes


def _read_column(table: TableValidator, name: str, ids: ObjectArray, leave_out: bool) -> IdColumn:
    code, names = pd.factorize(ids)
    names = np.asarray(names)
    missing = table.missing(name)
    nobody = means_nobody(names)[code] & ~missing
    if not leave_out:
        remedy = "Give every row its user, or leave the row out (`anonymous: leave_out` in the mapping)."
        table.flag_rows(name, missing, "the user id is missing", remedy)
        table.flag_rows(name, nobody, "the user id means nobody: such rows are of many people", remedy)
    series = table.frame[name]
    floating = pd.api.types.is_float_dtype(series)
    lost = lost_digits(series.to_numpy(dtype=np.float64, na_value=np.nan)) if floating else lost_digits(names)[code]
    lost &= ~missing
    table.flag_rows(
        name,
        lost,
        "the user id is a rounded number: different users may have become one",
        "Export ids as text or as integers, without passing through a spreadsheet or a floating-point column.",
    )
    return IdColumn(code.astype(np.int64), names, missing | nobody, missing | nobody | lost)


def means_nobody(ids: npt.NDArray[Any]) -> BoolArray:
    """Return which ids (n,) mean that there is no user: empty ones, `null`, `anonymous`, `(not set)`, UUIDs of zeros.

    Case, and spaces, quotes and brackets around the word, do not matter. 0 is an ordinary id, since users may be
    numbered from 0; of numbers only -1 means nobody.
    """
    array = np.asarray(ids)
    if array.dtype.kind in "iu":
        return np.asarray(array == -1)
    word = pc.utf8_lower(_trimmed(array))
    inside = pc.utf8_trim_whitespace(pc.utf8_trim(word, "()<>[]{}\"'"))
    return _booleans(pc.or_(_among(word, NOBODY), pc.or_(_among(inside, NOBODY), _matches(inside, _ZEROS))))


def lost_digits(ids: npt.NDArray[Any]) -> BoolArray:
    """Return which ids (n,) are numbers that were rounded: floats from 2^53 on, or text such as `1.23457E+11`."""
    array = np.asarray(ids)
    if array.dtype.kind == "f":
        return np.asarray(np.abs(array) >= 2.0**53)
    if array.dtype.kind in "iu":
        return np.zeros(len(array), dtype=bool)
    return _booleans(_matches(_trimmed(array), _SCIENTIFIC))


def first_spelling(ids: ObjectArray) -> IntArray:
    """Return, for each id (k,), the index of the first one that evidently names the same user; its own if it is first.

    The same user is named by ids that are equal up to spaces and invisible characters at the ends, forms of Unicode,
    zeros before a whole number or after its point (`42`, `042`, `42.0`), the case of e-mail addresses and of long
    hexadecimal ids, or dashes and braces of UUIDs. Case alone is not evident: ids in base 64 differ by it.

    Args:
        ids: Different ids, as text or integers (k,).
    """
    array = np.asarray(ids)
    if array.dtype.kind in "iu":
        return np.arange(len(array))
    text = pc.replace_substring_regex(_trimmed(array), _NUMBER, r"\1")
    lower = pc.utf8_lower(text)
    text = pc.if_else(_matches(lower, _UUID), pc.replace_substring_regex(lower, _UUID, r"\2\3\4\5\6"), text)
    return _first_equal(pc.if_else(_matches(lower, _CASELESS), lower, text))


def known_spelling(ids: npt.NDArray[Any], known: npt.NDArray[Any]) -> ObjectArray:
    """Return, for ids (n,) that are not known, the known id that evidently names the same user, else empty text.

    Args:
        ids: Ids as texts (n,).
        known: The known ids (k,), texts or integers.
    """
    out = np.full(len(ids), "", dtype=object)
    names = np.asarray(known).astype(str).astype(object)
    other = np.flatnonzero(~np.isin(np.asarray(ids).astype(str), names.astype(str)))
    if len(other):
        first = first_spelling(np.concatenate([names, np.asarray(ids, dtype=object)[other]]))[len(names) :]
        out[other] = np.append(names, "")[np.minimum(first, len(names))]
    return out


def flag_other_spellings(table: TableValidator, column: str, known: npt.NDArray[Any]) -> BoolArray:
    """Flag the ids of a table that the log writes in another way, such as with zeros before a number; return them (n,).

    Args:
        table: The table.
        column: Its column of ids.
        known: The ids of the log's users (k,).
    """
    spelling = known_spelling(table.texts(column), known)
    other = np.asarray((spelling != "") & ~table.missing(column))
    if (row := first_true(other)) is not None:
        table.flag_rows(
            column,
            other,
            f"the log writes this user {spelling[row]!r}",
            "Write ids as the log does. Spreadsheets drop the zeros before a number: keep the column as text.",
        )
    return other


def differ_in_case(ids: ObjectArray) -> int:
    """Return how many different ids (k,) equal an earlier one up to the case of their letters."""
    array = np.asarray(ids)
    if array.dtype.kind in "iu":
        return 0
    first = _first_equal(pc.utf8_lower(_strings(array)))
    return int(np.count_nonzero(first < np.arange(len(first))))


def _strings(array: npt.NDArray[Any]) -> pa.Array:
    """Return ids as an Arrow array of text, empty where missing."""
    text = np.where(pd.isna(array), "", array.astype(object))
    if pd.api.types.infer_dtype(text, skipna=False) != "string":
        text = np.array([str(one) for one in text], dtype=object)
    try:
        return pa.array(text, type=pa.large_string())
    except UnicodeEncodeError:  # half of a pair of UTF-16, which JSON may hold
        return pa.array([one.encode("utf-8", "backslashreplace").decode() for one in text], type=pa.large_string())


def _trimmed(array: npt.NDArray[Any]) -> pa.Array:
    """Return ids as text in one form of Unicode, without spaces and invisible characters at the ends."""
    text = pc.utf8_normalize(_strings(array), form="NFKC")
    return pc.utf8_trim_whitespace(pc.utf8_trim(text, _INVISIBLE))


def _matches(text: pa.Array, pattern: str) -> pa.Array:
    return pc.match_substring_regex(text, pattern)


def _among(text: pa.Array, words: Iterable[str]) -> pa.Array:
    return pc.is_in(text, value_set=pa.array(sorted(words), type=text.type))


def _booleans(mask: pa.Array) -> BoolArray:
    return np.asarray(mask.to_numpy(zero_copy_only=False), dtype=bool)


def _first_equal(text: pa.Array) -> IntArray:
    code = np.asarray(text.dictionary_encode().indices.to_numpy(zero_copy_only=False), dtype=np.int64)
    first = np.full(int(code.max(initial=-1)) + 1, len(code), dtype=np.int64)
    np.minimum.at(first, code, np.arange(len(code)))
    return first[code]
