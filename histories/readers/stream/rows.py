"""Open the files of an event stream, and read their users, times and event names."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pandas as pd

from crosschannel.core.arrays import BoolArray, IntArray, ObjectArray
from crosschannel.core.errors import Fault, InputError, nearest, raise_faults
from crosschannel.core.table_validator import TableValidator
from crosschannel.histories.identifiers import read_user_ids, sorted_ids
from crosschannel.histories.readers.source_files import CSV_ENDINGS, PARQUET_ENDINGS, fail, read_any
from crosschannel.histories.readers.stream.json_paths import extract
from crosschannel.histories.readers.stream.mapping import ROW_COLUMNS, StreamMapping
from crosschannel.histories.readers.tables import TableSource, read_source
from crosschannel.histories.validation import EVENT_COLUMNS
from crosschannel.histories.values.times import read_times


@dataclass(frozen=True)
class StreamRows:
    """The n rows of a stream, file after file, and its U users.

    Attributes:
        tables: One per file, with the columns and paths of the mapping.
        faults: All faults found so far.
        ends: The number of rows up to the end of each file.
        user: Codes into `user_ids` (n,).
        user_ids: Ids (U,), sorted.
        time: Microseconds since 1970 UTC (n,).
        event: Codes into `names` (n,).
        names: Names of the events, sorted.
        users: The table of users with their attributes in the order of its file, or None.
        start: Start of each user (U,), microseconds; None if the mapping has no `start_attribute`.
    """

    tables: tuple[TableValidator, ...]
    faults: list[Fault]
    ends: IntArray
    user: IntArray
    user_ids: ObjectArray
    time: IntArray
    event: IntArray
    names: tuple[str, ...]
    users: pd.DataFrame | None
    start: IntArray | None

    def __len__(self) -> int:
        return len(self.time)

    def named(self, names: Sequence[str]) -> BoolArray:
        """Return which rows (n,) are events with one of the names."""
        return np.asarray(np.isin(np.asarray(self.names, dtype=object), list(names))[self.event])

    def place(self, row: int) -> tuple[str, int]:
        """Return the file of a row, and its number there, counted from 1."""
        k = int(np.searchsorted(self.ends, row, side="right"))
        return self.tables[k].file, row + 1 - (int(self.ends[k - 1]) if k else 0)

    def flag_rows(self, column: str, bad: BoolArray, problem: str, remedy: str) -> None:
        """Add one fault for each file that has rows of a mask (n,)."""
        for table, part in zip(self.tables, np.split(bad, self.ends[:-1]), strict=True):
            table.flag_rows(column, part, problem, remedy)

    def texts(self, column: str, rows: IntArray) -> ObjectArray:
        """Return a column as text in the given, ascending rows; empty where missing."""
        return np.concatenate([table.texts(column) for table in self._parts(column, rows)] or [np.array([], object)])

    def raw(self, column: str, rows: IntArray) -> ObjectArray:
        """Return a column without conversion in the given, ascending rows."""
        parts = [table.frame[column].to_numpy(dtype=object) for table in self._parts(column, rows)]
        return np.concatenate(parts or [np.array([], dtype=object)])

    def _parts(self, column: str, rows: IntArray) -> list[TableValidator]:
        cuts = np.searchsorted(rows, self.ends[:-1])
        starts = self.ends - [len(table) for table in self.tables]
        parts = zip(self.tables, np.split(rows, cuts), starts, strict=True)
        # A file without a row that needs the column may not have it.
        return [
            TableValidator(table.frame[[column]].iloc[part - start], table.file, [])
            for table, part, start in parts
            if len(part)
        ]


def open_stream(mapping: StreamMapping) -> StreamRows:
    """Open all files of a stream and its table of users.

    Raises:
        InputError: With the faults of files, columns and times; or else of users and event names.
    """
    faults: list[Fault] = []
    source = mapping.rows
    user_id, time, event = (source.theirs(native) for native in EVENT_COLUMNS)
    tables = [table for file in _files(source.path) if (table := _open_table(file, mapping, faults)) is not None]
    users = None if mapping.users is None else read_source(mapping.users, None, ("user_id",), faults)
    raise_faults(faults)
    parsed = [pd.DataFrame({time: read_times(table, time, source)}) for table in tables]
    start, users = _start(mapping, users, faults)
    raise_faults(faults)

    times = np.concatenate(
        [TableValidator(frame, table.file, faults).times(time)[0] for frame, table in zip(parsed, tables, strict=True)]
    )
    user, user_ids, order = _user_codes(user_id, tables, mapping.users, users, faults)
    names: list[ObjectArray] = []
    for table in tables:
        table.flag_rows(event, table.missing(event), "the event has no name", "Name the event, or leave the row out.")
        names.append(table.texts(event))
    code, known = pd.factorize(np.concatenate(names), sort=True)
    _check_names(mapping, tuple(known), faults)
    if not len(code):
        faults.append(Fault(str(source.path), "the stream has no rows", "Check the path."))
    raise_faults(faults)
    ends = np.cumsum([len(table) for table in tables])
    stream = StreamRows(
        tables=tuple(tables),
        faults=faults,
        ends=ends,
        user=user,
        user_ids=user_ids,
        time=times,
        event=code.astype(np.int64),
        names=tuple(map(str, known)),
        users=users,
        start=None if start is None else start[order],
    )
    _check_paths(mapping, stream)
    return stream


def value_path(values: Mapping[str, str], event: str) -> str | None:
    """Return the path of an event's value, or None if no entry matches the event."""
    name = value_name(values, event)
    return None if name is None else values[name]


def value_name(values: Mapping[str, str], event: str) -> str | None:
    """Return the first entry that matches an event; `name*` matches all names with this prefix."""
    return next((name for name in values if _matches(name, event)), None)


def _matches(name: str, event: str) -> bool:
    return name == event or (name.endswith("*") and event.startswith(name[:-1]))


def _files(path: Path) -> list[Path]:
    if not path.is_dir():
        return [path]
    endings = (*CSV_ENDINGS, *PARQUET_ENDINGS)
    # Names with these prefixes are not data but markers of other programs (`_SUCCESS`, `._part.csv`).
    entries = sorted(entry for entry in path.iterdir() if not entry.name.startswith((".", "_")))
    remedy = f"Give a folder of files that end in one of {', '.join(endings)}, and nothing else."
    if not entries:
        raise fail(path, "the folder has no CSV or Parquet file", remedy)
    if other := [entry for entry in entries if entry.is_dir() or not entry.name.endswith(endings)]:
        raise InputError([Fault(str(entry), "this is not a CSV or Parquet file", remedy) for entry in other])
    return entries


def _open_table(file: Path, mapping: StreamMapping, faults: list[Fault]) -> TableValidator | None:
    """Open one file with the columns and paths of the mapping; return None if it cannot be read."""
    source = mapping.rows
    try:
        raw = TableValidator(read_any(file, separator=source.separator), str(file), faults)
    except InputError as error:
        faults.extend(error.faults)
        return None
    natives = [native for native in ROW_COLUMNS if native in EVENT_COLUMNS or native in source.columns]
    found = extract(raw, {source.theirs(native): np.ones(len(raw), dtype=bool) for native in natives})
    event = source.theirs("event")
    if event in found:
        code, names = pd.factorize(TableValidator(pd.DataFrame({event: found[event]}), str(file), []).texts(event))
        wanted = {path: np.isin(names, list(events))[code] for path, events in _needs(mapping, list(names)).items()}
        found |= extract(raw, {path: rows for path, rows in wanted.items() if path not in found and rows.any()})
    return TableValidator(pd.DataFrame(found), str(file), faults)


def _check_paths(mapping: StreamMapping, stream: StreamRows) -> None:
    """Refuse paths without any value: with a misspelled path, all values would silently be missing."""
    file, values = str(mapping.rows.path), mapping.values
    places = [
        (path, [event for event in stream.names if value_name(values, event) == name]) for name, path in values.items()
    ]
    if (arm := mapping.rows.columns.get("arm")) is not None:
        places.append((arm, list(stream.names)))
    for name, path in values.items():
        if not any(_matches(name, event) for event in stream.names):
            remedy = "Correct the name in `values`, or remove it."
            stream.faults.append(Fault(file, f"no event matches {name!r}", remedy, path))
    for path, events in places:
        # An entry is unused if earlier entries match all its events.
        if events and (stream.texts(path, np.flatnonzero(stream.named(events))) == "").all():
            problem = "no row of the mapping's events has a value at this path"
            stream.faults.append(Fault(file, problem, "Correct the path, or remove it from the mapping.", path))
    raise_faults(stream.faults)


def _needs(mapping: StreamMapping, names: Sequence[str]) -> dict[str, set[str]]:
    """Return, for each path, the events whose rows need it."""
    needs: dict[str, set[str]] = {}
    for sends in mapping.sends:
        for path in sends.columns.values():
            needs.setdefault(path, set()).update(sends.events)
    for name in names:
        if (valued := value_path(mapping.values, name)) is not None:
            needs.setdefault(valued, set()).add(name)
    return needs


def _start(
    mapping: StreamMapping, users: pd.DataFrame | None, faults: list[Fault]
) -> tuple[IntArray | None, pd.DataFrame | None]:
    """Return the start of each user of the table, and the table without that column, which is not an attribute."""
    column = getattr(mapping.slots, "start_attribute", None)
    if column is None or mapping.users is None or users is None:
        return None, users
    table = TableValidator(users, str(mapping.users.path), faults)
    if not table.has(column):
        hint = nearest(column, users.columns)
        table.flag("the file has no such column for `start_attribute`", f"Correct the mapping. {hint}", column=column)
        return None, users
    frame = pd.DataFrame({column: read_times(table, column, mapping.users)})
    return TableValidator(frame, table.file, faults).times(column)[0], users.drop(columns=column)


def _user_codes(
    column: str,
    tables: Sequence[TableValidator],
    source: TableSource | None,
    users: pd.DataFrame | None,
    faults: list[Fault],
) -> tuple[IntArray, ObjectArray, IntArray]:
    """Return the user of each row (n,), the sorted ids of all users (U,), and their rows in the table of users (U,).

    Ids are integers if those of all tables are, else text.
    """
    attributes = None if users is None or source is None else TableValidator(users, str(source.path), faults)
    listed = [] if attributes is None else [(attributes, "user_id")]
    columns = read_user_ids([*listed, *((table, column) for table in tables)])
    if attributes is None:
        known = sorted_ids(pd.unique(np.concatenate([one.present for one in columns])))
        return np.concatenate([one.find(known) for one in columns]), known, np.arange(len(known))
    of_users, *columns = columns
    twice = pd.Series(of_users.code).duplicated().to_numpy(dtype=bool) & ~of_users.missing
    attributes.flag_rows("user_id", twice, "the user has an earlier row", "Keep one row for each user.")
    known = of_users.present
    codes = [one.find(known) for one in columns]
    for table, code, one in zip(tables, codes, columns, strict=True):
        remedy = "Add the user to that table, or leave the row out."
        table.flag_rows(column, (code < 0) & ~one.flagged, "the user is not in the table of users", remedy)
    return np.concatenate(codes), known, np.argsort(of_users.find(known), kind="stable")


def _check_names(mapping: StreamMapping, known: Sequence[str], faults: list[Fault]) -> None:
    """Refuse names that no row has: a misspelled name would silently count as an event that did not occur."""
    wanted = [name for sends in mapping.sends for name in sends.events] + list(mapping.events or ())
    wanted += [name for name in mapping.values if not name.endswith("*")]
    if not isinstance(mapping.slots, str):
        wanted += [*mapping.slots.start_events, *mapping.slots.leave_events]
    faults += [
        Fault(
            file=str(mapping.rows.path),
            problem="the mapping names this event, but no row has it",
            remedy=f"Correct the name, or remove it from the mapping. {nearest(name, known)}",
            column=mapping.rows.theirs("event"),
            value=name,
        )
        for name in dict.fromkeys(wanted)
        if name not in known
    ]
