"""Say which files a log consists of and how each is read, so that they can be divided by user one by one."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial
from hashlib import md5
from pathlib import Path

import pandas as pd

from crosschannel.core.action_space import ActionSpace
from crosschannel.core.errors import Fault, raise_faults
from crosschannel.core.files import read_yaml
from crosschannel.core.table_validator import TableValidator
from crosschannel.core.wording import counted
from crosschannel.histories.buckets.manifest import DECISIONS, EVENTS, WHOLE
from crosschannel.histories.buckets.partition import NotByUser
from crosschannel.histories.history import DEFAULT_CHURN_EVENTS
from crosschannel.histories.observation.users import Ties
from crosschannel.histories.propensities.sources import MIXED
from crosschannel.histories.readers.daily import USERS_FILE, DailyLog, is_daily
from crosschannel.histories.readers.data_files import data_files
from crosschannel.histories.readers.folder import DESCRIPTION_FILE, faults_of_users, read_description
from crosschannel.histories.readers.source_files import read_parquet
from crosschannel.histories.readers.sources import (
    TableSource,
    anonymous_rows,
    decision_columns,
    read_source,
    span_of,
)
from crosschannel.histories.readers.tables import TableMapping
from crosschannel.histories.values.validation import DECISION_COLUMNS, EVENT_COLUMNS, OPTIONAL_EVENT_COLUMNS


@dataclass(frozen=True)
class SourceFile:
    """A file of decisions or events.

    Attributes:
        table: The table that its rows belong to.
        part: The name of its part in each bucket.
        path: The file.
        column: Name of its column of user ids.
        source: How its columns are mapped; None if they are native.
        known: The native columns that are read, where they are mapped.
        required: Those of them that it must have.
        leave_out_nobody: Whether rows without a user are left out.
    """

    table: str
    part: str
    path: Path
    column: str = "user_id"
    source: TableSource | None = None
    known: tuple[str, ...] = ()
    required: tuple[str, ...] = ()
    leave_out_nobody: bool = False

    def read(self, path: Path) -> pd.DataFrame:
        """Return the rows of the file, or of another one with some of its rows, in native columns.

        Raises:
            InputError: If it cannot be read, or lacks a column.
        """
        if self.source is None:
            return read_parquet(path)
        faults: list[Fault] = []
        inner = TableSource(**{**vars(self.source), "path": path, "files": None})
        frame = read_source(inner, self.known, self.required, faults).frame
        raise_faults(faults)
        if self.leave_out_nobody:
            frame = frame[~anonymous_rows(TableValidator(frame, "", []), "user_id")].reset_index(drop=True)
        return frame

    def digest(self) -> str:
        """Return a checksum of the file and of how it is read."""
        found = md5(
            repr((self.table, self.column, self.known, self.leave_out_nobody, self._settings())).encode(),
            usedforsecurity=False,
        )
        with self.path.open("rb") as content:
            for block in iter(partial(content.read, 2**20), b""):
                found.update(block)
        return found.hexdigest()

    def _settings(self) -> list[tuple[str, str]]:
        if self.source is None:
            return []
        return sorted((name, repr(value)) for name, value in vars(self.source).items() if name != "path")


@dataclass(frozen=True, kw_only=True)
class Plan:
    """What a log consists of.

    Attributes:
        name: Its name.
        modules: The action space.
        files: Its files of decisions and events, in the order in which they are read.
        users: The table of users in native columns; None if the users are those of the decisions.
        users_file: The file of that table, for messages.
        span: The declared observation period, microseconds; None if it is that of the rows.
        event_names: Declared names of events; None if they are those of the rows.
        churn_events: Events after which nothing can be sent to a user.
        ties: Order of an event at the time of a decision.
        propensity_source: Source of the propensities of rows that do not name it.
        notes: What was left out.
        attributes: Whether the users have attributes.
        rows: The numbers of rows that the log says it has, by table; None if it does not.
    """

    name: str
    modules: ActionSpace
    files: tuple[SourceFile, ...]
    users: pd.DataFrame | None
    users_file: str = "users"
    span: tuple[int, int] | None = None
    event_names: tuple[str, ...] | None = None
    churn_events: tuple[str, ...] = DEFAULT_CHURN_EVENTS
    ties: Ties | None = None
    propensity_source: str | None = None
    notes: tuple[str, ...] = field(default=())
    attributes: bool = True
    rows: Mapping[str, int] | None = None


def plan_folder(path: Path) -> Plan:
    """Return the plan of a native folder, or of a log by day.

    Raises:
        InputError: If its description is damaged, or a table has another number of rows than it says.
    """
    if (path / DESCRIPTION_FILE).is_file() and is_daily(read_yaml(path / DESCRIPTION_FILE)):
        return _plan_days(DailyLog.open(path))
    content = read_description(path)
    source, users = content["propensity_source"], read_parquet(path / "users.parquet")
    raise_faults(faults_of_users(path, content, users))
    return Plan(
        name=content["name"],
        modules=content["modules"],
        files=tuple(SourceFile(table, WHOLE, path / f"{table}.parquet") for table in (DECISIONS, EVENTS)),
        users=users,
        users_file=str(path / "users.parquet"),
        span=content["span"],
        event_names=tuple(content["event_names"]),
        churn_events=tuple(content["churn_events"]),
        ties=content["ties"],
        propensity_source=None if source == MIXED else source,
        attributes=content["attributes"] is not None,
        rows=content["rows"],
    )


def _plan_days(log: DailyLog) -> Plan:
    days = log.days()
    log.refuse_gaps(days)
    folders = [log.folder(time) for time in days]
    return Plan(
        name=log.name,
        modules=log.modules,
        files=tuple(
            SourceFile(table, folder.name, folder / f"{table}.parquet")
            for table in (DECISIONS, EVENTS)
            for folder in folders
        ),
        users=read_parquet(log.path / USERS_FILE),
        users_file=str(log.path / USERS_FILE),
        span=(log.start, days[-1] + log.period),
        event_names=log.event_names,
        churn_events=log.churn_events,
        ties=log.ties,
    )


def plan_tables(mapping: TableMapping) -> Plan:
    """Return the plan of mapped tables.

    Raises:
        InputError: If a file cannot be found, or the table of users cannot be read.
        NotByUser: If rows of one user may depend on those of others, or the column of users is not a plain one.
    """
    for name, setting in (("slots", mapping.slots), ("decided", mapping.decided)):
        if setting is not None:
            raise NotByUser(f"the mapping has `{name}`, which rest on all users")
    if any("message_id" in source.columns for source in mapping.events):
        raise NotByUser("the mapping has `message_id`, whose repeats may be in any file")
    modules = ActionSpace.from_mapping(mapping.modules)
    of_decisions = (decision_columns(modules), (*DECISION_COLUMNS, *modules.names))
    of_events = ((*EVENT_COLUMNS, *OPTIONAL_EVENT_COLUMNS), EVENT_COLUMNS)
    nobody = mapping.anonymous == "leave_out"
    files, empty = _files_of(DECISIONS, mapping.decision_sources, *of_decisions, nobody)
    more, also_empty = _files_of(EVENTS, mapping.events, *of_events, nobody)
    users, faults = None, list[Fault]()
    if mapping.users is not None:
        users = read_source(mapping.users, None, ("user_id",), faults).frame
        raise_faults(faults)
    left_out = empty + also_empty
    return Plan(
        name=mapping.name,
        modules=modules,
        files=(*files, *more),
        users=users,
        users_file="" if mapping.users is None else str(mapping.users.path),
        span=None if mapping.span is None else span_of(mapping.span),
        propensity_source=mapping.propensity_source,
        notes=(f"left out: {counted(left_out, 'file')} of 0 bytes",) if left_out else (),
    )


def _files_of(
    table: str, sources: Sequence[TableSource], known: tuple[str, ...], required: tuple[str, ...], nobody: bool
) -> tuple[list[SourceFile], int]:
    out, empty = list[SourceFile](), 0
    for k, source in enumerate(sources):
        column = source.theirs("user_id")
        if "user_id" in source.constants:
            raise NotByUser(f"all rows of {source.path} have one user")
        found, none = data_files(source.path, source.files)
        empty += none
        for file in found:
            used = {source.theirs(native) for native in known}
            if used & set(file.partition):
                raise NotByUser(f"{file.path} has columns in the names of its folders")
            relative = file.path.relative_to(source.path) if file.path != source.path else Path(file.path.name)
            part = f"{k}-{_label(relative)}"
            out.append(
                SourceFile(
                    table=table,
                    part=part,
                    path=file.path,
                    column=column,
                    source=source,
                    known=known,
                    required=required,
                    leave_out_nobody=nobody,
                )
            )
    return out, empty


def _label(path: Path) -> str:
    """Return a name for a file of a source that no other one has."""
    plain = re.sub(r"[^A-Za-z0-9]+", "-", path.with_suffix("").as_posix()).strip("-")[-80:]
    return f"{plain}-{md5(path.as_posix().encode(), usedforsecurity=False).hexdigest()[:6]}"
