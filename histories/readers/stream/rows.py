"""Opens the files of an event stream: rows in the files' own columns, with the users, times and names they hold."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pandas as pd

from crosschannel.core.arrays import BoolArray, IntArray
from crosschannel.core.errors import Fault, InputError, nearest
from crosschannel.core.table_validator import ObjectArray, Sheet
from crosschannel.histories.readers.source_files import CSV_ENDINGS, PARQUET_ENDINGS, fail, read_any
from crosschannel.histories.readers.stream.json_paths import extract
from crosschannel.histories.readers.stream.mapping import ROW_COLUMNS, StreamMapping
from crosschannel.histories.readers.tables import TableSource, read_source, read_times
from crosschannel.histories.validation import EVENT_COLUMNS


@dataclass(frozen=True)
class StreamRows:
    """The n rows of a stream, file after file, and its U users.

    Attributes:
        sheets: One a file, with the columns and paths that the mapping names.
        faults: All faults found so far.
        ends: The number of rows up to the end of each file.
        user: Codes into `user_ids` (n,).
        user_ids: Ids (U,): in the order of the table of users, sorted where there is none.
        time: Microseconds since 1970 UTC (n,).
        event: Codes into `names` (n,).
        names: Names of the events, sorted.
        users: The table of users with their attributes, or None.
        start: Since when each user was there (U,), microseconds; None where the mapping names no such attribute.
    """

    sheets: tuple[Sheet, ...]
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
        """Which rows (n,) are events of the given names."""
        return np.asarray(np.isin(np.asarray(self.names, dtype=object), list(names))[self.event])

    def place(self, row: int) -> tuple[str, int]:
        """The file of a row, and its number there, counted from 1."""
        k = int(np.searchsorted(self.ends, row, side="right"))
        return self.sheets[k].file, row + 1 - (int(self.ends[k - 1]) if k else 0)

    def note(self, column: str, bad: BoolArray, problem: str, remedy: str) -> None:
        """Notes one fault in each file that has rows of a mask (n,)."""
        for sheet, part in zip(self.sheets, np.split(bad, self.ends[:-1]), strict=True):
            sheet.note(column, part, problem, remedy)

    def texts(self, column: str, rows: IntArray) -> ObjectArray:
        """A column as text in the given, ascending rows; empty where missing."""
        return np.concatenate([sheet.texts(column) for sheet in self._parts(column, rows)] or [np.array([], object)])

    def raw(self, column: str, rows: IntArray) -> ObjectArray:
        """A column as it stands in the given, ascending rows."""
        parts = [sheet.frame[column].to_numpy(dtype=object) for sheet in self._parts(column, rows)]
        return np.concatenate(parts or [np.array([], dtype=object)])

    def _parts(self, column: str, rows: IntArray) -> list[Sheet]:
        cuts = np.searchsorted(rows, self.ends[:-1])
        starts = self.ends - [len(sheet) for sheet in self.sheets]
        parts = zip(self.sheets, np.split(rows, cuts), starts, strict=True)
        # A file without a row that needs the column may lack it.
        return [Sheet(s.frame[[column]].iloc[part - start], s.file, []) for s, part, start in parts if len(part)]


def open_stream(mapping: StreamMapping) -> StreamRows:
    """Opens all files of a stream and its table of users.

    Raises:
        InputError: With the faults of files, columns and times; or else of users and of names of events.
    """
    faults: list[Fault] = []
    source = mapping.rows
    user_id, time, event = (source.theirs(native) for native in EVENT_COLUMNS)
    sheets = [sheet for file in _files(source.path) if (sheet := _sheet(file, mapping, faults)) is not None]
    users = None if mapping.users is None else read_source(mapping.users, None, ("user_id",), faults)
    stop(faults)
    parsed = [pd.DataFrame({time: read_times(sheet, time, source)}) for sheet in sheets]
    since, users = _start(mapping, users, faults)
    stop(faults)

    times = np.concatenate(
        [Sheet(frame, sheet.file, faults).times(time)[0] for frame, sheet in zip(parsed, sheets, strict=True)]
    )
    user, user_ids = _user_codes(user_id, sheets, mapping.users, users, faults)
    names: list[ObjectArray] = []
    for sheet in sheets:
        sheet.note(event, sheet.missing(event), "the event has no name", "Name the event, or leave the row out.")
        names.append(sheet.texts(event))
    code, known = pd.factorize(np.concatenate(names), sort=True)
    _check_names(mapping, tuple(known), faults)
    if not len(code):
        faults.append(Fault(str(source.path), "the stream has no rows", "Check the path."))
    stop(faults)
    ends = np.cumsum([len(sheet) for sheet in sheets])
    stream = StreamRows(
        tuple(sheets), faults, ends, user, user_ids, times, code.astype(np.int64), tuple(map(str, known)), users, since
    )
    _check_paths(mapping, stream)
    return stream


def stop(faults: Sequence[Fault]) -> None:
    """Raises the faults found so far, if there are any."""
    if faults:
        raise InputError(faults)


def value_path(values: Mapping[str, str], event: str) -> str | None:
    """Where an event's value stands, or None if no entry is for it."""
    name = value_name(values, event)
    return None if name is None else values[name]


def value_name(values: Mapping[str, str], event: str) -> str | None:
    """The entry for an event: the first name that fits, `name*` fitting all that begin so."""
    return next((name for name in values if _fits(name, event)), None)


def _fits(name: str, event: str) -> bool:
    return name == event or (name.endswith("*") and event.startswith(name[:-1]))


def _files(path: Path) -> list[Path]:
    if not path.is_dir():
        return [path]
    endings = (*CSV_ENDINGS, *PARQUET_ENDINGS)
    # Names that begin so are marks of other programs (`_SUCCESS`, `._part.csv`).
    entries = sorted(entry for entry in path.iterdir() if not entry.name.startswith((".", "_")))
    remedy = f"Give a folder of files that end in one of {', '.join(endings)}, and nothing else."
    if not entries:
        raise fail(path, "the folder has no file of a stream", remedy)
    if other := [entry for entry in entries if entry.is_dir() or not entry.name.endswith(endings)]:
        raise InputError(
            [Fault(str(entry), "this is no file of a stream that could be read", remedy) for entry in other]
        )
    return entries


def _sheet(file: Path, mapping: StreamMapping, faults: list[Fault]) -> Sheet | None:
    """One file in the columns and paths that the mapping names, or None where it cannot be read."""
    source = mapping.rows
    try:
        raw = Sheet(read_any(file, separator=source.separator), str(file), faults)
    except InputError as error:
        faults.extend(error.faults)
        return None
    natives = [native for native in ROW_COLUMNS if native in EVENT_COLUMNS or native in source.columns]
    found = extract(raw, {source.theirs(native): np.ones(len(raw), dtype=bool) for native in natives})
    event = source.theirs("event")
    if event in found:
        code, names = pd.factorize(Sheet(pd.DataFrame({event: found[event]}), str(file), []).texts(event))
        wanted = {path: np.isin(names, list(events))[code] for path, events in _needs(mapping, list(names)).items()}
        found |= extract(raw, {path: rows for path, rows in wanted.items() if path not in found and rows.any()})
    return Sheet(pd.DataFrame(found), str(file), faults)


def _check_paths(mapping: StreamMapping, stream: StreamRows) -> None:
    """With a slip in a path, every value there would be read as one that was never given."""
    file, values = str(mapping.rows.path), mapping.values
    places = [
        (path, [event for event in stream.names if value_name(values, event) == name]) for name, path in values.items()
    ]
    if (arm := mapping.rows.columns.get("arm")) is not None:
        places.append((arm, list(stream.names)))
    for name, path in values.items():
        if not any(_fits(name, event) for event in stream.names):
            remedy = "Correct the name in `values`, or take it out."
            stream.faults.append(Fault(file, f"no event begins as {name!r}", remedy, path))
    for path, events in places:
        # An entry whose events all have one before it is not needed anywhere.
        if events and (stream.texts(path, np.flatnonzero(stream.named(events))) == "").all():
            problem = "the mapping names this place, and no row that needs it has a value there"
            stream.faults.append(Fault(file, problem, "Correct the path, or take it out of the mapping.", path))
    stop(stream.faults)


def _needs(mapping: StreamMapping, names: Sequence[str]) -> dict[str, set[str]]:
    """For each path of a property, the events whose rows need it."""
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
    """Since when each user of the table was there, and the table without that column, which is no attribute."""
    column = getattr(mapping.slots, "start_attribute", None)
    if column is None or mapping.users is None or users is None:
        return None, users
    sheet = Sheet(users, str(mapping.users.path), faults)
    if not sheet.has(column):
        hint = nearest(column, users.columns)
        sheet.add("the file has no such column for `start_attribute`", f"Correct the mapping. {hint}", column=column)
        return None, users
    frame = pd.DataFrame({column: read_times(sheet, column, mapping.users)})
    return Sheet(frame, sheet.file, faults).times(column)[0], users.drop(columns=column)


def _user_codes(
    column: str, sheets: Sequence[Sheet], source: TableSource | None, users: pd.DataFrame | None, faults: list[Fault]
) -> tuple[IntArray, ObjectArray]:
    """The user of each row, and the ids of all users: integers if all tables have such, else text."""
    table = None if users is None or source is None else Sheet(users, str(source.path), faults)
    columns = [(sheet, column) for sheet in sheets] + ([] if table is None else [(table, "user_id")])
    numbers = [sheet.integers(name) for sheet, name in columns]
    ids: list[ObjectArray] = [number for number in numbers if number is not None]
    if len(ids) < len(columns):
        ids = [sheet.texts(name) for sheet, name in columns]
    missing = [sheet.missing(name) for sheet, name in columns]
    for (sheet, name), gaps in zip(columns, missing, strict=True):
        sheet.note(name, gaps, "the user id is missing", "Give every row its user, or leave the row out.")
    if table is None:
        code, known = pd.factorize(np.concatenate(ids), sort=True)
        return code.astype(np.int64), np.asarray(known)
    *rows, known = ids
    twice = pd.Series(known).duplicated().to_numpy(dtype=bool)
    table.note("user_id", twice & ~missing[-1], "the user stands in the table twice", "Keep one row for each user.")
    index = pd.Index(known[~twice])
    codes = [index.get_indexer(pd.Index(part)).astype(np.int64) for part in rows]
    for sheet, code, gaps in zip(sheets, codes, missing[:-1], strict=True):
        remedy = "Add the user to that table, or leave the row out."
        sheet.note(column, (code < 0) & ~gaps, "the user is not in the table of users", remedy)
    return np.concatenate(codes), known


def _check_names(mapping: StreamMapping, known: Sequence[str], faults: list[Fault]) -> None:
    """A name with a slip in it would be read as an event that never happened."""
    meant = [name for sends in mapping.sends for name in sends.events] + list(mapping.events or ())
    meant += [name for name in mapping.values if not name.endswith("*")]
    if not isinstance(mapping.slots, str):
        meant += [*mapping.slots.start_events, *mapping.slots.leave_events]
    faults += [
        Fault(
            file=str(mapping.rows.path),
            problem="the mapping names this event, and no row has it",
            remedy=f"Correct the name, or take it out of the mapping. {nearest(name, known)}",
            column=mapping.rows.theirs("event"),
            value=name,
        )
        for name in dict.fromkeys(meant)
        if name not in known
    ]
