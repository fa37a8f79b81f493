"""Read files of rows by a mapping of column names: CSV, Parquet, JSON lines or Avro."""

from __future__ import annotations

import codecs
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Literal

import numpy as np
import pandas as pd

from crosschannel.core.action_space import ActionSpace
from crosschannel.core.arrays import BoolArray
from crosschannel.core.errors import ConfigError, Fault, nearest
from crosschannel.core.table_validator import TableValidator
from crosschannel.core.times import parse_moment
from crosschannel.core.wording import counted
from crosschannel.histories.observation.users import OBSERVATION_COLUMNS
from crosschannel.histories.readers.data_files import open_files
from crosschannel.histories.readers.json_paths import column_of, extract, flag_absent
from crosschannel.histories.values.decimals import numbers_with_decimal_point, with_decimal_point
from crosschannel.histories.values.identifiers import means_nobody
from crosschannel.histories.values.times import check_time_settings, needs_zone, read_times
from crosschannel.histories.values.validation import DECISION_COLUMNS, OPTIONAL_DECISION_COLUMNS


@dataclass(frozen=True)
class TableSource:
    """One file or a folder of files, and the names of its columns.

    Attributes:
        path: A file that ends in .csv, .tsv, .txt, .parquet, .json, .jsonl, .ndjson or .avro, which may be compressed
            (.gz, .bz2, .xz, or alone in a .zip); or a folder of such files, also in folders below it, whose names may
            be columns (`date=2024-03-04`).
        columns: For native columns, their names in the file if they differ (`time: sent_at`), or paths into a column of
            JSON (`channel: properties.channel`). In the table of users this may rename attributes as well; every other
            column there is an attribute under its own name.
        constants: Values of native columns that the file does not have (`event: order`).
        time_format: Format of times (`%d/%m/%Y %H:%M`) that are not ISO 8601.
        time_unit: Unit of times that are numbers: us, ms, s, min, h or d since `time_origin`.
        time_origin: The time, in UTC, of the number 0.
        time_clock: Clock on which numbers count: `utc`, or `local`, that of `time_zone` (older projects of Mixpanel).
        time_zone: Time zone of times that do not state theirs (`Europe/Athens`): text without `Z`, an offset, `%z` or
            `%Z`, and Parquet columns without a zone. A date without a time of day is the beginning of the day there.
        separator: Separator between the fields of a text file; by default a tab for .tsv, and a comma for .csv.
        decimal: Decimal mark of numbers that are text: `.`, or `,` (`12,50`, `1.234,50`).
        leave_out: In the table of users, columns of the file that are not read as attributes.
        files: Name of the files that are read of a folder and of those below it (`decisions.parquet`); by default all.
        encoding: Encoding of a text file (`latin-1`); by default UTF-8, or UTF-16 if the file begins with its mark.
    """

    path: Path
    columns: Mapping[str, str] = field(default_factory=dict)
    constants: Mapping[str, str] = field(default_factory=dict)
    time_format: str | None = None
    time_unit: str | None = None
    time_origin: str = "1970-01-01"
    time_clock: Literal["utc", "local"] = "utc"
    time_zone: str = "UTC"
    separator: str | None = None
    encoding: str | None = None
    decimal: Literal[".", ","] = "."
    leave_out: tuple[str, ...] = ()
    files: str | None = None

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
class SourceRows:
    """The rows of a source in the native columns, of all its files.

    Attributes:
        source: The source.
        frame: Its rows, file after file.
        files: The path and the number of rows of each file.
        empty: How many files of 0 bytes were left out.
        left_out: Which of the files' rows are not in the frame (n,), or None if all are.
        zoneless: Files with times that state no zone and are read as UTC, since the source names no other zone.
    """

    source: TableSource
    frame: pd.DataFrame
    files: tuple[tuple[str, int], ...] = ()
    empty: int = 0
    left_out: BoolArray | None = None
    zoneless: tuple[str, ...] = ()

    def place(self, row: int) -> tuple[str, int]:
        """Return the file of a row of the frame, and its number there, both counted from 1."""
        if self.left_out is not None:
            row = int(np.flatnonzero(~self.left_out)[row - 1]) + 1
        for path, n in self.files:
            if row <= n:
                return path, row
            row -= n
        return str(self.source.path), row


def read_source(
    source: TableSource, known: Sequence[str] | None, required: Sequence[str], faults: list[Fault]
) -> SourceRows:
    """Read a source in the native columns; `known` are those to read, or None for all of them (attributes)."""
    opened = open_files(source.path, faults, separator=source.separator, encoding=source.encoding, named=source.files)
    frames: list[pd.DataFrame] = []
    zoneless: list[str] = []
    for path, found in opened.tables:
        table = TableValidator(found.frame, str(path), faults)
        if needs_zone(table, source.theirs("time"), source):
            zoneless.append(str(path))
        frames.append(_native(table, source, known, required, found.unreadable))
    files = tuple((str(path), len(frame)) for (path, _), frame in zip(opened.tables, frames, strict=True))
    filled = [frame for frame in frames if len(frame)] or frames[:1]
    frame = pd.concat(filled, ignore_index=True) if len(filled) > 1 else (filled or [pd.DataFrame()])[0]
    return SourceRows(source, frame, files, opened.empty, zoneless=tuple(zoneless))


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
            if native == "decision_id" and native not in source.columns:
                remedy = "Map one of the file's columns to it; if each row is a message that was sent, set `slots`."
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
        for name in source.leave_out:
            if name not in table.frame.columns and name not in unreadable:
                hint = nearest(name, table.frame.columns)
                table.flag("the file has no such column to leave out", f"Correct `leave_out`. {hint}", column=name)
        used |= set(source.leave_out)
        theirs_of |= {name: name for name in map(str, table.frame.columns) if name not in used}
        for name in unreadable:
            if name not in source.leave_out:
                flag_absent(table, name, "", "", unreadable)
    found = extract(table, {theirs: np.ones(len(table), dtype=bool) for theirs in theirs_of.values()})
    out = pd.DataFrame({native: found[theirs] for native, theirs in theirs_of.items()}, index=table.frame.index)
    for native, value in source.constants.items():
        out[native] = value
    values = TableValidator(pd.DataFrame(found), table.file, table.faults)
    for native in OBSERVATION_COLUMNS if known is None else ("time",):
        if native in theirs_of:
            out[native] = read_times(values, theirs_of[native], source)
    if source.decimal == ",":
        for native, theirs in theirs_of.items():
            if known is None and native not in (*required, *OBSERVATION_COLUMNS):
                out[native] = numbers_with_decimal_point(out[native])
            elif native == "value" or native.startswith("propensity"):
                out[native] = with_decimal_point(values, theirs)
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


def concat_decisions(frames: Sequence[pd.DataFrame], modules: ActionSpace) -> pd.DataFrame:
    """Return decisions in the native columns of several sources as one table.

    Where only some sources know what was eligible, everything was in the rows of the others.
    """
    if len(frames) == 1:
        return frames[0]
    listed = {f"eligible_{module.name}": "|".join(module.actions) for module in modules}
    known = {name: text for name, text in listed.items() if any(name in frame for frame in frames)}
    filled = [frame.assign(**{name: text for name, text in known.items() if name not in frame}) for frame in frames]
    other = {name for frame in filled for name in frame.columns if not _same_type(filled, name)}
    return pd.concat(
        [frame.astype({name: object for name in frame.columns if name in other}) for frame in filled], ignore_index=True
    )


def _same_type(frames: Sequence[pd.DataFrame], name: str) -> bool:
    """Return whether a column is of numbers, of times or of text alike in all tables that have it."""
    types = {frame[name].dtype for frame in frames if name in frame}
    kind = next(iter(types))
    return len(types) == 1 and (
        pd.api.types.is_float_dtype(kind)
        or pd.api.types.is_datetime64_any_dtype(kind)
        or isinstance(kind, pd.StringDtype)
    )


def without_rows(rows: SourceRows, bad: BoolArray) -> SourceRows:
    """Return a source without the rows of a mask over its frame."""
    left_out = np.zeros(sum(n for _, n in rows.files), dtype=bool) if rows.left_out is None else rows.left_out.copy()
    left_out[np.flatnonzero(~left_out)[bad]] = True
    return replace(rows, frame=rows.frame[~bad].reset_index(drop=True), left_out=left_out)


def anonymous_rows(table: TableValidator, column: str) -> BoolArray:
    """Return which rows (n,) have no user: the id is missing, or is what programs write for nobody."""
    texts, names = pd.factorize(table.texts(column))
    nobody = means_nobody(np.asarray(names, dtype=object)) if len(names) else np.zeros(0, dtype=bool)
    return np.asarray(table.missing(column) | nobody[texts])


def empty_note(sources: Sequence[SourceRows]) -> tuple[str, ...]:
    """Return a note on the files of 0 bytes that were left out, if there are any."""
    empty = sum(rows.empty for rows in sources)
    return (f"left out: {counted(empty, 'file')} of 0 bytes",) if empty else ()


def span_of(span: tuple[str, str]) -> tuple[int, int]:
    """Return the start and end of an observation period in microseconds since 1970 UTC.

    Raises:
        ConfigError: If they are not two ascending times.
    """
    try:
        first, last = (parse_moment(text) for text in span)
    except (ConfigError, ValueError):
        raise ConfigError(f"the span is not two times, but {list(span)}: write them as 2024-05-01T09:30") from None
    if not first < last:
        raise ConfigError(f"span {list(span)} ends before it begins")
    return first, last


def decision_columns(modules: ActionSpace) -> tuple[str, ...]:
    """Return all native columns that decisions may have."""
    derived = [f"{prefix}_{name}" for name in modules.names for prefix in ("propensity", "eligible")]
    return (*DECISION_COLUMNS, *modules.names, *OPTIONAL_DECISION_COLUMNS, *derived)
