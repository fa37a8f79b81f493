"""Read a history from CSV, Parquet or JSON-lines files by a mapping of column names."""

from __future__ import annotations

import codecs
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from crosschannel.core.action_space import ActionSpace
from crosschannel.core.errors import ConfigError, Fault, InputError, nearest
from crosschannel.core.table_validator import TableValidator
from crosschannel.histories.history import History
from crosschannel.histories.observation import OBSERVATION_COLUMNS
from crosschannel.histories.propensities.sources import check_source
from crosschannel.histories.readers.data_files import open_files
from crosschannel.histories.readers.json_paths import column_of, extract, flag_absent
from crosschannel.histories.validation import DECISION_COLUMNS, EVENT_COLUMNS, OPTIONAL_DECISION_COLUMNS
from crosschannel.histories.values.action_names import check_action_names
from crosschannel.histories.values.times import check_time_settings, read_times


@dataclass(frozen=True)
class TableSource:
    """One file or a folder of files, and the names of its columns.

    Attributes:
        path: A file that ends in .csv, .tsv, .txt, .parquet, .json, .jsonl or .ndjson, which may be compressed (.gz,
            .bz2, .xz, or alone in a .zip); or a folder of such files, also in folders below it, whose names may be
            columns (`date=2024-03-04`).
        columns: For native columns, their names in the file if they differ (`time: sent_at`), or paths into a column of
            JSON (`channel: properties.channel`). In the table of users this may rename attributes as well; every other
            column there is an attribute under its own name.
        constants: Values of native columns that the file does not have (`event: order`).
        time_format: Format of times (`%d/%m/%Y %H:%M`) that are not ISO 8601.
        time_unit: Unit of times that are numbers: us, ms, s, min, h or d since `time_origin`.
        time_origin: The time, in UTC, of the number 0.
        time_zone: Time zone of times that do not state theirs (`Europe/Athens`): text without `Z`, an offset, `%z` or
            `%Z`, and Parquet columns without a zone. A date without a time of day is the beginning of the day there.
        separator: Separator between the fields of a text file; by default a tab for .tsv, and a comma for .csv.
        encoding: Encoding of a text file (`latin-1`); by default UTF-8, or UTF-16 if the file begins with its mark.
    """

    path: Path
    columns: Mapping[str, str] = field(default_factory=dict)
    constants: Mapping[str, str] = field(default_factory=dict)
    time_format: str | None = None
    time_unit: str | None = None
    time_origin: str = "1970-01-01"
    time_zone: str = "UTC"
    separator: str | None = None
    encoding: str | None = None

    def __post_init__(self) -> None:
        try:
            check_time_settings(self)
        except ConfigError as error:
            raise ConfigError(f"{self.path}: {error}") from None
        if self.separator is not None and len(self.separator) != 1:
            raise ConfigError(f'{self.path}: separator {self.separator!r} is not one character, such as ";" or "\\t"')
        try:
            codecs.lookup(self.encoding or "utf-8")
        except LookupError:
            raise ConfigError(
                f"{self.path}: unknown encoding {self.encoding!r}: write it as latin-1 or utf-16"
            ) from None
        if both := sorted(set(self.columns) & set(self.constants)):
            raise ConfigError(f"{self.path}: {both} are given as columns and as constants: choose one")
        theirs = list(self.columns.values())
        if twice := sorted({name for name in theirs if theirs.count(name) > 1}):
            raise ConfigError(f"{self.path}: the columns {twice} are mapped twice")

    def theirs(self, native: str) -> str:
        """Return the name of a native column in the file."""
        return self.columns.get(native, native)


@dataclass(frozen=True)
class TableMapping:
    """The files of a history, and the names of their columns.

    Attributes:
        decisions: The file of decisions.
        events: Files of events, which are concatenated.
        modules: The action space: entries with `name`, `actions` and optionally `parent`, `requires`, `labels`,
            `condition_on` and `nothing`. The first action of the first module sends nothing. Where the names show that
            it is another one, they are refused; `nothing`, which repeats that first action, overrules the names.
        users: The file of users, if there is one.
        propensity_source: The source of the propensities of rows that do not name it themselves
            (`source_of_propensity`), by default `logged`; with `missing` these propensities are not used.
        span: Start and end of the observation period, such as `[2024-05-01, 2024-06-30T18:00]` (UTC), if it is longer
            than from the first to the last event.
        name: The history's name, for reports.
    """

    decisions: TableSource
    events: tuple[TableSource, ...] = ()
    modules: tuple[Mapping[str, Any], ...] = ()
    users: TableSource | None = None
    propensity_source: str | None = None
    span: tuple[str, str] | None = None
    name: str = "history"

    def __post_init__(self) -> None:
        if self.span is not None:
            span_of(self.span)
        if not self.events:
            raise ConfigError("the mapping has no `events`: give at least one file of events")
        modules = ActionSpace.from_dict(self.modules)
        check_action_names(modules)
        if self.propensity_source is not None:
            check_source(self.propensity_source)
        for table, sources, known in (
            ("decisions", (self.decisions,), decision_columns(modules)),
            ("events", self.events, (*EVENT_COLUMNS, "value")),
        ):
            for one in sources:
                for native in (*one.columns, *one.constants):
                    if native not in known:
                        raise ConfigError(f"unknown native column {native!r} of {table}. {nearest(native, known)}")


def span_of(span: tuple[str, str]) -> tuple[int, int]:
    """Return the start and end of an observation period in microseconds since 1970 UTC.

    Raises:
        ConfigError: If they are not two ascending times.
    """
    try:
        times = pd.DatetimeIndex(pd.to_datetime(list(span), utc=True, format="ISO8601")).tz_localize(None)
    except ValueError:
        raise ConfigError(f"span {list(span)} is not two times: write them as 2024-05-01T09:30") from None
    first, last = times.to_numpy().astype("datetime64[us]").astype(np.int64).tolist()
    if not first < last:
        raise ConfigError(f"span {list(span)} ends before it begins")
    return first, last


def decision_columns(modules: ActionSpace) -> tuple[str, ...]:
    """Return all native columns that decisions may have."""
    derived = [f"{prefix}_{name}" for name in modules.names for prefix in ("propensity", "eligible")]
    return (*DECISION_COLUMNS, *modules.names, *OPTIONAL_DECISION_COLUMNS, *derived)


def read_tables(mapping: TableMapping) -> History:
    """Read files by a mapping; columns that are neither mapped nor native are ignored, except attributes of users.

    There are two steps, each of which reports all its faults at once: files, columns and times; then everything that
    `History.from_tables` validates. Messages have the files' own column names and row numbers.

    Raises:
        InputError: With every fault of a step.
    """
    modules = ActionSpace.from_dict(mapping.modules)
    faults: list[Fault] = []
    known, required = decision_columns(modules), (*DECISION_COLUMNS, *modules.names)
    decisions = read_source(mapping.decisions, known, required, faults)
    events = [read_source(source, (*EVENT_COLUMNS, "value"), EVENT_COLUMNS, faults) for source in mapping.events]
    users = None if mapping.users is None else read_source(mapping.users, None, ("user_id",), faults)
    if faults:
        raise InputError(faults)
    pieces = {"decisions": [decisions], "events": events, "users": [] if users is None else [users]}
    try:
        history = History.from_tables(
            decisions.frame,
            pd.concat([rows.frame for rows in events], ignore_index=True) if len(events) > 1 else events[0].frame,
            modules,
            None if users is None else users.frame,
            span=None if mapping.span is None else span_of(mapping.span),
            propensity_source=mapping.propensity_source,
            name=mapping.name,
            place=lambda table, row: "{1} row {2}".format(*_place(pieces[table], row)),
        )
    except InputError as error:
        raise InputError([_in_names_of_file(fault, pieces) for fault in error.faults]) from None
    return replace(history, notes=(*empty_note([decisions, *events]), *history.notes))


@dataclass(frozen=True)
class SourceRows:
    """The rows of a source in the native columns, of all its files.

    Attributes:
        source: The source.
        frame: Its rows, file after file.
        files: The path and the number of rows of each file.
        empty: How many files of 0 bytes were left out.
    """

    source: TableSource
    frame: pd.DataFrame
    files: tuple[tuple[str, int], ...] = ()
    empty: int = 0

    def place(self, row: int) -> tuple[str, int]:
        """Return the file of a row, and its number there, both counted from 1."""
        for path, n in self.files:
            if row <= n:
                return path, row
            row -= n
        return str(self.source.path), row


def read_source(
    source: TableSource, known: Sequence[str] | None, required: Sequence[str], faults: list[Fault]
) -> SourceRows:
    """Read a source in the native columns; `known` are those to read, or None for all of them (attributes)."""
    opened = open_files(source.path, faults, separator=source.separator, encoding=source.encoding)
    frames: list[pd.DataFrame] = []
    for path, found in opened.tables:
        table = TableValidator(found.frame, str(path), faults)
        frames.append(_native(table, source, known, required, found.unreadable))
    files = tuple((str(path), len(frame)) for (path, _), frame in zip(opened.tables, frames, strict=True))
    filled = [frame for frame in frames if len(frame)] or frames[:1]
    frame = pd.concat(filled, ignore_index=True) if len(filled) > 1 else (filled or [pd.DataFrame()])[0]
    return SourceRows(source, frame, files, opened.empty)


def _native(
    table: TableValidator,
    source: TableSource,
    known: Sequence[str] | None,
    required: Sequence[str],
    unreadable: Mapping[str, str],
) -> pd.DataFrame:
    """Return the rows of one file in the native columns."""
    theirs_of: dict[str, str] = {}
    for native in dict.fromkeys([*required, *source.columns, *(known or ())]):
        theirs = source.theirs(native)
        if native in source.constants:
            continue
        if _found(table, source, native):
            theirs_of[native] = theirs
        elif native in required or native in source.columns:
            remedy = "Correct the mapping." if native in source.columns else "Map one of the file's columns to it."
            flag_absent(table, theirs, f"the file has no such column for {native!r}", remedy, unreadable)
    _flag_similar(table, source, [*required, *(known or ())], theirs_of)
    if known is None:
        for native, theirs in source.columns.items():
            if theirs != native and table.has(native) and native not in source.columns.values():
                problem = (
                    f"the mapping takes {native!r} from {theirs!r}, but the file has a column of this name as well"
                )
                table.flag(problem, "Rename or drop one of them.", column=native)
        used = {column_of(table.frame.columns, theirs) for theirs in theirs_of.values()}
        theirs_of |= {name: name for name in map(str, table.frame.columns) if name not in used}
        for name in unreadable:
            flag_absent(table, name, "", "", unreadable)
    found = extract(table, {theirs: np.ones(len(table), dtype=bool) for theirs in theirs_of.values()})
    out = pd.DataFrame({native: found[theirs] for native, theirs in theirs_of.items()}, index=table.frame.index)
    for native, value in source.constants.items():
        out[native] = value
    times = OBSERVATION_COLUMNS if known is None else ("time",)
    values = TableValidator(pd.DataFrame(found), table.file, table.faults)
    for native in times:
        if native in theirs_of:
            out[native] = read_times(values, theirs_of[native], source)
    return out


def _flag_similar(
    table: TableValidator, source: TableSource, natives: Sequence[str], theirs_of: Mapping[str, str]
) -> None:
    """Flag columns whose names are those of native ones but for case, spaces or dashes: they would be ignored."""
    used = {column_of(table.frame.columns, theirs) for theirs in theirs_of.values()}
    plain = {_plain_name(native): native for native in natives if native not in source.constants}
    for name in map(str, table.frame.columns):
        native = plain.get(_plain_name(name))
        if native is None or name in used:
            continue
        if native in theirs_of and (theirs_of[native] == name or _plain_name(theirs_of[native]) != _plain_name(name)):
            continue  # mapped to another column
        table.flag(
            f"the name is that of {native!r} but for case or spaces, so that the column would be ignored",
            "Rename or drop it, or map it.",
            column=name,
        )


def _plain_name(name: str) -> str:
    return re.sub(r"[\s_\-\ufeff]+", "_", name.strip(" \t\r\n\ufeff\"'")).casefold()


def _found(table: TableValidator, source: TableSource, native: str) -> bool:
    """Return whether a file has a native column; only a mapped one may be a path into a column of JSON."""
    theirs = source.theirs(native)
    return table.has(theirs) or (native in source.columns and column_of(table.frame.columns, theirs) is not None)


def empty_note(sources: Sequence[SourceRows]) -> tuple[str, ...]:
    """Return a note on the files of 0 bytes that were left out, if there are any."""
    empty = sum(rows.empty for rows in sources)
    return (f"left out: {empty:,} files of 0 bytes",) if empty else ()


def _place(sources: Sequence[SourceRows], row: int) -> tuple[TableSource, str, int]:
    """Return the source of a row of concatenated sources, its file, and its number there, counted from 1."""
    for rows in sources[:-1]:
        if row <= len(rows.frame):
            return (rows.source, *rows.place(row))
        row -= len(rows.frame)
    return (sources[-1].source, *sources[-1].place(row))


def _in_names_of_file(fault: Fault, pieces: Mapping[str, Sequence[SourceRows]]) -> Fault:
    """Return the fault with the file, row number and column names of the user's file."""
    source, row = pieces[fault.file][0].source, fault.row
    file = str(source.path)
    if row is not None:
        source, file, row = _place(pieces[fault.file], row)

    def rename(text: str) -> str:
        return re.sub(r"`([^`]+)`", lambda match: f"`{source.theirs(match[1])}`", text)

    return replace(
        fault,
        file=file,
        row=row,
        column=None if fault.column is None else source.theirs(fault.column),
        problem=rename(fault.problem),
        remedy=rename(fault.remedy),
    )
