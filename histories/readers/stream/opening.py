"""Open the files of an event stream, and read their users, times and event names."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace

import numpy as np
import pandas as pd

from crosschannel.core.action_space import ActionSpace
from crosschannel.core.arrays import BoolArray, IntArray, ObjectArray
from crosschannel.core.errors import Fault, InputError, nearest, raise_faults
from crosschannel.core.table_validator import TableValidator
from crosschannel.histories.readers.data_files import open_files
from crosschannel.histories.readers.json_paths import extract
from crosschannel.histories.readers.presets import OPTIONAL
from crosschannel.histories.readers.source_files import FileTable
from crosschannel.histories.readers.sources import SourceRows, TableSource, read_source
from crosschannel.histories.readers.stream.identities import merge_anonymous
from crosschannel.histories.readers.stream.mapping import ROW_COLUMNS, StreamMapping
from crosschannel.histories.readers.stream.rows import StreamFile, StreamRows, matches, value_name, value_path
from crosschannel.histories.values.decimals import with_decimal_point
from crosschannel.histories.values.identifiers import read_user_ids, sorted_ids
from crosschannel.histories.values.times import needs_zone, read_times
from crosschannel.histories.values.validation import EVENT_COLUMNS


def open_stream(mapping: StreamMapping) -> StreamRows:
    """Open all files of a stream and its table of users.

    Raises:
        InputError: With the faults of files, columns and times; or else of users and event names.
    """
    faults: list[Fault] = []
    files: list[StreamFile] = []
    sources: list[TableSource] = []
    empty = 0
    for source in mapping.sources:
        opened = open_files(source.path, faults, separator=source.separator, encoding=source.encoding)
        files += [_open_file(str(path), found, source, mapping, faults) for path, found in opened.tables]
        sources += [source] * len(opened.tables)
        empty += opened.empty
    users = None if mapping.users is None else read_source(mapping.users, None, ("user_id",), faults)
    raise_faults(faults)
    times: list[pd.Series] = []
    zoneless: list[str] = []
    for file, source in zip(files, sources, strict=True):
        column = file.names["time"]
        times.append(pd.Series(read_times(file.table, column, mapping.filled(source))))
        if needs_zone(file.table, column, mapping.filled(source)):
            zoneless.append(file.table.file)
    stream = assemble(mapping, files, times, users, faults, empty, zoneless)
    _check_message_ids(mapping, stream)
    _check_paths(mapping, stream)
    return stream


def assemble(
    mapping: StreamMapping,
    files: Sequence[StreamFile],
    times: Sequence[pd.Series],
    users: SourceRows | None,
    faults: list[Fault],
    empty: int,
    zoneless: Sequence[str] = (),
) -> StreamRows:
    """Return the rows of opened files; see `open_stream` for what is raised.

    Args:
        mapping: How the stream is read.
        files: The files.
        times: The times of each file's rows, as read in its source's format and zone.
        users: The table of users, or None.
        faults: The list to which faults are added.
        empty: How many files of 0 bytes were left out.
        zoneless: Files with times that state no zone and are read as UTC.
    """
    start, attributes = _start(mapping, users, faults)
    raise_faults(faults)
    parsed = [
        TableValidator(pd.DataFrame({file.names["time"]: time}), file.table.file, faults).times(file.names["time"])[0]
        for file, time in zip(files, times, strict=True)
    ]
    files, notes = merge_anonymous(files, mapping.anonymous)
    user, user_ids, order, anonymous = _user_codes(mapping, files, users, faults)
    names: list[ObjectArray] = []
    for file in files:
        event = file.names["event"]
        gaps = file.table.missing(event)
        file.table.flag_rows(event, gaps, "the event has no name", "Name the event, or leave the row out.")
        names.append(file.table.texts(event))
    code, known = pd.factorize(np.concatenate(names), sort=True)
    source = ", ".join(dict.fromkeys(str(one.path) for one in mapping.sources))
    _check_names(mapping, tuple(known), source, faults)
    if anonymous.all():
        faults.append(Fault(source, "the stream has no rows of a user", "Check the path, and the column of users."))
    raise_faults(faults)
    return StreamRows(
        source=source,
        files=tuple(files),
        faults=faults,
        ends=np.cumsum([len(file.table) for file in files]),
        user=user,
        user_ids=user_ids,
        anonymous=anonymous,
        time=np.concatenate(parsed),
        event=code.astype(np.int64),
        names=tuple(map(str, known)),
        users=attributes,
        start=None if start is None else start[order],
        empty=empty,
        notes=notes,
        zoneless=tuple(zoneless),
    )


def _open_file(
    path: str, found: FileTable, source: TableSource, mapping: StreamMapping, faults: list[Fault]
) -> StreamFile:
    """Read the columns and paths of the mapping in one file."""
    raw = TableValidator(found.frame, path, faults)
    names = _names(found, source, mapping)
    columns = _native_columns(raw, names, source, mapping, found)
    for native, value in source.constants.items():
        names[native] = native
        columns[native] = pd.Series([value] * len(raw), dtype=object)
    event = names["event"]
    if event in columns:
        code, known = pd.factorize(TableValidator(pd.DataFrame({event: columns[event]}), path, []).texts(event))
        wanted = {one: np.isin(known, list(events))[code] for one, events in _needs(mapping, list(known)).items()}
        wanted = {one: rows for one, rows in wanted.items() if one not in columns and rows.any()}
        columns |= extract(raw, wanted, found.unreadable)
    if source.decimal == ",":
        for one in _numbers(mapping, names) & set(columns):
            columns[one] = with_decimal_point(TableValidator(pd.DataFrame(columns), path, faults), one)
    return StreamFile(TableValidator(pd.DataFrame(columns, index=raw.frame.index), path, faults), names)


def _numbers(mapping: StreamMapping, names: Mapping[str, str]) -> set[str]:
    """Return the columns and paths whose values are numbers."""
    propensities = [
        path
        for sends in mapping.sends
        for native, path in sends.columns.items()
        if native.startswith("propensity") and native not in ActionSpace.from_mapping(mapping.modules).names
    ]
    return {*mapping.values.values(), *propensities, names.get("value", "value")}


def _names(found: FileTable, source: TableSource, mapping: StreamMapping) -> dict[str, str]:
    """Return the file's column, or the path, of each native column that the mapping has."""
    filled = mapping.filled(source)
    natives = [native for native in (*ROW_COLUMNS, "value") if native in EVENT_COLUMNS or native in filled.columns]
    names = {native: filled.theirs(native) for native in natives if native not in filled.constants}
    return names if mapping.vendor is None else mapping.vendor.names_in(found.frame.columns, source, names)


def _native_columns(
    raw: TableValidator, names: dict[str, str], source: TableSource, mapping: StreamMapping, found: FileTable
) -> dict[str, pd.Series]:
    """Return the native columns of a file under their names; remove from `names` what a preset finds without values."""
    every = np.ones(len(raw), dtype=bool)
    if mapping.vendor is None:
        return extract(raw, dict.fromkeys(names.values(), every), found.unreadable)
    known = found.frame.columns
    nobody = mapping.vendor.has_no_users(known, source, names)
    wanted = [path for native, path in names.items() if not (nobody and native == "user_id")]
    columns = extract(raw, dict.fromkeys(wanted, every), found.unreadable)
    if nobody:
        columns[names["user_id"]] = pd.Series([None] * len(raw), dtype=object)
    for native, other in mapping.vendor.fallbacks_in(known, source, names).items():
        first = TableValidator(pd.DataFrame(columns), raw.file, []).missing(names[native])
        columns[names[native]] = columns[names[native]].mask(first, extract(raw, {other: first})[other])
    for native in OPTIONAL:
        path = names.get(native)
        if path in columns and native not in source.columns and columns[path].isna().all():
            del names[native]
    return columns


def _check_message_ids(mapping: StreamMapping, stream: StreamRows) -> None:
    """Refuse to look for copies where a preset finds no file with ids of messages."""
    if mapping.duplicates != "error" and not stream.has("message_id"):
        path = mapping.filled(mapping.sources[0]).theirs("message_id")
        problem = f"no row has an id of its message, which `duplicates: {mapping.duplicates}` needs"
        remedy = "Map the column that identifies a message as `message_id`, or leave `duplicates` out."
        raise InputError([Fault(stream.source, problem, remedy, path)])


def _check_paths(mapping: StreamMapping, stream: StreamRows) -> None:
    """Refuse paths without any value: with a misspelled path, all values would silently be missing."""
    values = mapping.values
    for name, path in values.items():
        events = [event for event in stream.names if value_name(values, event) == name]
        if not any(matches(name, event) for event in stream.names):
            remedy = "Correct the name in `values`, or remove it."
            stream.faults.append(Fault(stream.source, f"no event matches {name!r}", remedy, path))
        # An entry is unused if earlier entries match all its events.
        elif events and (stream.texts(path, np.flatnonzero(stream.named(events))) == "").all():
            _flag_nowhere(stream, path)
    if stream.has("arm") and (stream.native_texts("arm") == "").all():
        _flag_nowhere(stream, next(file.names["arm"] for file in stream.files if "arm" in file.names))
    raise_faults(stream.faults)


def _flag_nowhere(stream: StreamRows, path: str) -> None:
    problem = "no row of the mapping's events has a value at this path"
    stream.faults.append(Fault(stream.source, problem, "Correct the path, or remove it from the mapping.", path))


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
    mapping: StreamMapping, users: SourceRows | None, faults: list[Fault]
) -> tuple[IntArray | None, pd.DataFrame | None]:
    """Return the start of each user of the table, and the table without that column, which is not an attribute."""
    column = getattr(mapping.slots, "start_attribute", None)
    if users is None or column is None:
        return None, None if users is None else users.frame
    table = _users_table(users, faults)
    if not table.has(column):
        hint = nearest(column, users.frame.columns)
        table.flag("the file has no such column for `start_attribute`", f"Correct the mapping. {hint}", column=column)
        return None, users.frame
    before = len(faults)
    frame = pd.DataFrame({column: read_times(table, column, users.source)})
    start = TableValidator(frame, table.file, faults).times(column)[0]
    _place_faults(users, faults, before)
    return start, users.frame.drop(columns=column)


def _user_codes(
    mapping: StreamMapping, files: Sequence[StreamFile], users: SourceRows | None, faults: list[Fault]
) -> tuple[IntArray, ObjectArray, IntArray, BoolArray]:
    """Return the user of each row, the sorted ids of all users, their rows in their table, and the anonymous rows.

    Anonymous are rows without an id, or with one that means nobody. Ids are integers if those of all tables are, else
    text.
    """
    before = len(faults)
    attributes = None if users is None else _users_table(users, faults)
    listed = [] if attributes is None else [(attributes, "user_id")]
    found = read_user_ids(
        [*listed, *((file.table, file.names["user_id"]) for file in files)],
        leave_out=[False] * len(listed) + [mapping.anonymous != "error"] * len(files),
    )
    rows = found[len(listed) :]
    order = np.arange(0)
    if attributes is None or users is None:
        known = sorted_ids(np.asarray(pd.unique(pd.Series(np.concatenate([one.present for one in rows])))))
    else:
        twice = pd.Series(found[0].code).duplicated().to_numpy(dtype=bool) & ~found[0].missing
        attributes.flag_rows("user_id", twice, "the user has an earlier row", "Keep one row for each user.")
        _place_faults(users, faults, before)
        known = found[0].present
        order = np.argsort(found[0].find(known), kind="stable")
    codes = [one.find(known) for one in rows]
    for file, code, one in zip(files, codes, rows, strict=True):
        remedy = "Add the user to that table, or leave the row out."
        bad = (code < 0) & ~one.flagged
        file.table.flag_rows(file.names["user_id"], bad, "the user is not in the table of users", remedy)
    anonymous = np.concatenate([one.missing for one in rows])
    return np.where(anonymous, 0, np.concatenate(codes)), known, order, anonymous


def _users_table(users: SourceRows, faults: list[Fault]) -> TableValidator:
    return TableValidator(users.frame, str(users.source.path), faults)


def _place_faults(users: SourceRows, faults: list[Fault], before: int) -> None:
    """Give the faults of the table of users since `before` the file and row where they are."""
    for k, fault in enumerate(faults[before:], start=before):
        if fault.file == str(users.source.path) and fault.row is not None:
            file, row = users.place(fault.row)
            faults[k] = replace(fault, file=file, row=row)


def _check_names(mapping: StreamMapping, known: Sequence[str], source: str, faults: list[Fault]) -> None:
    """Refuse names that no row has: a misspelled name would silently count as an event that did not occur."""
    wanted = [name for sends in mapping.sends for name in sends.events] + list(mapping.events or ())
    wanted += [name for name in mapping.values if not name.endswith("*")]
    if not isinstance(mapping.slots, str):
        wanted += [*mapping.slots.start_events, *mapping.slots.leave_events]
    faults += [
        Fault(
            file=source,
            problem="the mapping names this event, but no row has it",
            remedy=f"Correct the name, or remove it from the mapping. {nearest(name, known)}",
            column=mapping.filled(mapping.sources[0]).theirs("event"),
            value=name,
        )
        for name in dict.fromkeys(wanted)
        if name not in known
    ]
