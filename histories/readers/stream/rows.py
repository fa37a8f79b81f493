"""The rows of an event stream: users, times and event names as arrays, other columns file by file."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import pandas as pd

from crosschannel.core.arrays import BoolArray, IntArray, ObjectArray
from crosschannel.core.errors import Fault
from crosschannel.core.table_validator import TableValidator
from crosschannel.core.times import NEVER


@dataclass(frozen=True)
class StreamFile:
    """One file of a stream.

    Attributes:
        table: Its rows, with the columns and paths that the mapping names.
        names: The table's column of each native one that it has.
    """

    table: TableValidator
    names: Mapping[str, str]


@dataclass(frozen=True)
class StreamRows:
    """The n rows of a stream, file after file, and its U users.

    Attributes:
        source: The path or paths of the stream, for messages.
        files: Its files.
        faults: All faults found so far.
        ends: The number of rows up to the end of each file.
        user: Codes into `user_ids` (n,), 0 for anonymous rows.
        user_ids: Ids (U,), sorted.
        anonymous: Which rows (n,) have no user, and are left out.
        time: Microseconds since 1970 UTC (n,).
        event: Codes into `names` (n,).
        names: Names of the events, sorted.
        users: The table of users with their attributes in the order of its file, or None.
        start: Start of each user (U,), microseconds; None if the mapping has no `start_attribute`.
        empty: How many files of 0 bytes were left out.
        notes: What the history's summary says of its anonymous ids.
        zoneless: Files with times that state no zone and are read as UTC.
    """

    source: str
    files: tuple[StreamFile, ...]
    faults: list[Fault]
    ends: IntArray
    user: IntArray
    user_ids: ObjectArray
    anonymous: BoolArray
    time: IntArray
    event: IntArray
    names: tuple[str, ...]
    users: pd.DataFrame | None
    start: IntArray | None
    empty: int
    notes: tuple[str, ...] = ()
    zoneless: tuple[str, ...] = ()

    def __len__(self) -> int:
        return len(self.time)

    def named(self, names: Sequence[str]) -> BoolArray:
        """Return which rows (n,) are events with one of the names."""
        return np.asarray(np.isin(np.asarray(self.names, dtype=object), list(names))[self.event])

    def place(self, row: int) -> tuple[StreamFile, int]:
        """Return the file of a row, and its number there, counted from 1."""
        k = int(np.searchsorted(self.ends, row, side="right"))
        return self.files[k], row + 1 - (int(self.ends[k - 1]) if k else 0)

    def name_row(self, row: int) -> str:
        """Return the file and the number of a row as text."""
        file, number = self.place(row)
        return f"{file.table.file} row {number}"

    def flag_rows(self, native: str, bad: BoolArray, problem: str, remedy: str) -> None:
        """Add one fault for each file that has rows of a mask (n,), with its name of a native column."""
        for file, part in zip(self.files, np.split(bad, self.ends[:-1]), strict=True):
            if part.any():
                file.table.flag_rows(file.names[native], part, problem, remedy)

    def has(self, native: str) -> bool:
        """Return whether a file has a native column."""
        return any(native in file.names for file in self.files)

    def native_texts(self, native: str) -> ObjectArray:
        """Return a native column as text (n,); empty where missing."""
        out = [
            file.table.texts(file.names[native]) if native in file.names else np.full(len(file.table), "", dtype=object)
            for file in self.files
        ]
        return np.concatenate(out)

    def texts(self, path: str, rows: IntArray) -> ObjectArray:
        """Return the values of a path as text in the given, ascending rows; empty where missing."""
        return self._values(rows, lambda _: path, TableValidator.texts)

    def raw(self, path: str, rows: IntArray) -> ObjectArray:
        """Return the values of a path without conversion in the given, ascending rows."""
        return self._values(rows, lambda _: path, _raw)

    def event_values(self, values: Mapping[str, str], rows: IntArray) -> ObjectArray:
        """Return the values of events in the given, ascending rows, None where there are none.

        A file's own column of values counts before the paths of its events' names.
        """
        out = np.full(len(rows), None, dtype=object)
        own = np.array(["value" in file.names for file in self.files])[np.searchsorted(self.ends, rows, side="right")]
        out[own] = self._values(rows[own], lambda file: file.names["value"], _raw)
        paths = [value_path(values, name) for name in self.names]
        for path in dict.fromkeys(path for path in paths if path is not None):
            mine = ~own & np.array([one == path for one in paths], dtype=bool)[self.event[rows]]
            out[mine] = self.raw(path, rows[mine])
        return out

    def first_time(self, rows: BoolArray) -> IntArray:
        """Return the earliest time of each user (U,) among the rows of a mask (n,), `NEVER` for users without one."""
        out = np.full(len(self.user_ids), NEVER, dtype=np.int64)
        np.minimum.at(out, self.user[rows], self.time[rows])
        return out

    def _values(
        self, rows: IntArray, path: Callable[[StreamFile], str], read: Callable[[TableValidator, str], ObjectArray]
    ) -> ObjectArray:
        cuts = np.searchsorted(rows, self.ends[:-1])
        starts = self.ends - [len(file.table) for file in self.files]
        # A file without a row that needs the column may not have it.
        parts = [
            read(TableValidator(file.table.frame[[path(file)]].iloc[part - start], file.table.file, []), path(file))
            for file, part, start in zip(self.files, np.split(rows, cuts), starts, strict=True)
            if len(part)
        ]
        return np.concatenate(parts or [np.array([], dtype=object)])


def value_path(values: Mapping[str, str], event: str) -> str | None:
    """Return the path of an event's value, or None if no entry matches the event."""
    name = value_name(values, event)
    return None if name is None else values[name]


def value_name(values: Mapping[str, str], event: str) -> str | None:
    """Return the first entry that matches an event; `name*` matches all names with this prefix."""
    return next((name for name in values if matches(name, event)), None)


def matches(name: str, event: str) -> bool:
    """Return whether an entry matches an event: it is its name, or `name*` with its prefix."""
    return name == event or (name.endswith("*") and event.startswith(name[:-1]))


def _raw(table: TableValidator, column: str) -> ObjectArray:
    return table.frame[column].to_numpy(dtype=object)
