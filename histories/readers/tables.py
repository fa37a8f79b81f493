"""Read a history from CSV or Parquet files by a mapping of column names."""

from __future__ import annotations

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
from crosschannel.histories.propensities.sources import check_source
from crosschannel.histories.readers.source_files import read_any
from crosschannel.histories.validation import DECISION_COLUMNS, EVENT_COLUMNS, OPTIONAL_DECISION_COLUMNS
from crosschannel.histories.values.action_names import check_action_names
from crosschannel.histories.values.times import check_time_settings, read_times


@dataclass(frozen=True)
class TableSource:
    """One file, and the names of its columns.

    Attributes:
        path: A file that ends in .csv, .csv.gz or .parquet.
        columns: For native columns, their names in the file if they differ (`time: sent_at`). In the table of users
            this may rename attributes as well; every other column there is an attribute under its own name.
        constants: Values of native columns that the file does not have (`event: order`).
        time_format: Format of times (`%d/%m/%Y %H:%M`) that are not ISO 8601.
        time_unit: Unit of times that are numbers: us, ms, s, min, h or d since `time_origin`.
        time_origin: The time, in UTC, of the number 0.
        time_zone: Time zone of times that do not state theirs (`Europe/Athens`): text without `Z`, an offset, `%z` or
            `%Z`, and Parquet columns without a zone. A date without a time of day is the beginning of the day there.
        separator: Separator between the fields of a CSV file.
    """

    path: Path
    columns: Mapping[str, str] = field(default_factory=dict)
    constants: Mapping[str, str] = field(default_factory=dict)
    time_format: str | None = None
    time_unit: str | None = None
    time_origin: str = "1970-01-01"
    time_zone: str = "UTC"
    separator: str = ","

    def __post_init__(self) -> None:
        try:
            check_time_settings(self)
        except ConfigError as error:
            raise ConfigError(f"{self.path}: {error}") from None
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
    pieces = {
        "decisions": [(mapping.decisions, len(decisions))],
        "events": [(source, len(frame)) for source, frame in zip(mapping.events, events, strict=True)],
        "users": [] if mapping.users is None or users is None else [(mapping.users, len(users))],
    }
    try:
        return History.from_tables(
            decisions,
            pd.concat(events, ignore_index=True) if len(events) > 1 else events[0],
            modules,
            users,
            span=None if mapping.span is None else span_of(mapping.span),
            propensity_source=mapping.propensity_source,
            name=mapping.name,
        )
    except InputError as error:
        raise InputError([_in_names_of_file(fault, pieces) for fault in error.faults]) from None


def read_source(
    source: TableSource, known: Sequence[str] | None, required: Sequence[str], faults: list[Fault]
) -> pd.DataFrame:
    """Read one file in the native columns; `known` are those to read, or None for all of them (attributes)."""
    try:
        frame = read_any(source.path, separator=source.separator)
    except InputError as error:
        faults.extend(error.faults)
        return pd.DataFrame()
    table = TableValidator(frame, str(source.path), faults)
    wanted = dict.fromkeys([*required, *source.columns])
    for native in wanted:
        theirs = source.theirs(native)
        if native not in source.constants and not table.has(theirs):
            remedy = "Correct the mapping" if native in source.columns else "Map one of the file's columns to it"
            hint = nearest(theirs, table.frame.columns)
            table.flag(f"the file has no such column for {native!r}", f"{remedy}. {hint}", column=theirs)
    if known is None:
        native_of = {name: native for native, name in source.columns.items()}
        present = {native_of.get(name, name): name for name in map(str, table.frame.columns)}
    else:
        present = {native: source.theirs(native) for native in known if table.has(source.theirs(native))}
    out = pd.DataFrame({native: table.frame[name] for native, name in present.items()}, index=table.frame.index)
    for native, value in source.constants.items():
        out[native] = value
    if "time" in present and known is not None:
        out["time"] = read_times(table, present["time"], source)
    return out


def _in_names_of_file(fault: Fault, pieces: Mapping[str, Sequence[tuple[TableSource, int]]]) -> Fault:
    """Return the fault with the file, row number and column names of the user's file."""
    sources = pieces[fault.file]
    source, _ = sources[0]
    row = fault.row
    if row is not None:
        ends = np.cumsum([n for _, n in sources])
        k = int(np.searchsorted(ends, row))
        source, row = sources[k][0], row - (int(ends[k - 1]) if k else 0)

    def rename(text: str) -> str:
        return re.sub(r"`([^`]+)`", lambda match: f"`{source.theirs(match[1])}`", text)

    return replace(
        fault,
        file=str(source.path),
        row=row,
        column=None if fault.column is None else source.theirs(fault.column),
        problem=rename(fault.problem),
        remedy=rename(fault.remedy),
    )
