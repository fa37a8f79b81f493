"""Read and write a log that grows by a folder a day, each written once and as a whole.

LOG/history.yaml                  modules, names of events, when the first day begins, length of a day
LOG/users.parquet                 user_id, observed_from, observed_until, attributes
LOG/2024-01-15/decisions.parquet  decisions made elsewhere on the day that begins then (may have no row)
LOG/2024-01-15/events.parquet     events of that day
"""

from __future__ import annotations

import os
import shutil
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from crosschannel.core.action_space import ActionSpace
from crosschannel.core.errors import ConfigError, Fault, InputError
from crosschannel.core.files import read_yaml, replacing, write_yaml
from crosschannel.core.times import duration, parse_moment
from crosschannel.histories.history import DEFAULT_CHURN_EVENTS, History
from crosschannel.histories.observation.users import Ties
from crosschannel.histories.readers.decided.days import day_name, with_arms
from crosschannel.histories.readers.decided.joining import JoinedDecisions, join_days
from crosschannel.histories.readers.source_files import fail, read_parquet
from crosschannel.histories.readers.sources import SourceRows, TableSource

FORMAT = "crosschannel daily log"
FORMAT_VERSION = 1
DESCRIPTION_FILE, USERS_FILE = "history.yaml", "users.parquet"
TABLES = ("decisions", "events")
_KEYS = {"format", "version", "name", "start", "day", "event_names", "churn_events", "ties", "modules"}


@dataclass(frozen=True)
class DailyLog:
    """A log with a folder for each day.

    Attributes:
        path: Its folder.
        name: Its name.
        modules: The action space.
        event_names: Names of its events.
        start: When the first day begins, microseconds since 1970 UTC.
        day: Length of a day, such as `1d`.
        churn_events: Events after which nothing can be sent to a user.
        ties: Order of an event at the time of a decision; None where it is not declared.
    """

    path: Path
    name: str
    modules: ActionSpace
    event_names: tuple[str, ...]
    start: int
    day: str = "1d"
    churn_events: tuple[str, ...] = DEFAULT_CHURN_EVENTS
    ties: Ties | None = None

    def create(self) -> None:
        """Write the description of a log without days."""
        self.path.mkdir(parents=True, exist_ok=True)
        content = {
            "format": FORMAT,
            "version": FORMAT_VERSION,
            "name": self.name,
            "start": _text(self.start),
            "day": self.day,
            "event_names": list(self.event_names),
            "churn_events": list(self.churn_events),
            "ties": self.ties,
            "modules": self.modules.to_dict(),
        }
        write_yaml(content, self.path / DESCRIPTION_FILE)

    @classmethod
    def open(cls, path: Path) -> DailyLog:
        """Read the description of a log.

        Raises:
            InputError: If there is none, or it is damaged or of another version.
        """
        file = path / DESCRIPTION_FILE
        content = read_yaml(file)
        remedy = "Write it as `DailyLog.create` does."
        if not isinstance(content, Mapping) or content.get("version") != FORMAT_VERSION:
            raise fail(file, f"this does not describe a {FORMAT}, version {FORMAT_VERSION}", remedy)
        if set(content) != _KEYS:
            unknown, missing = sorted(set(content) - _KEYS), sorted(_KEYS - set(content))
            parts = [
                f"{word} {', '.join(map(str, keys))}"
                for word, keys in (("unknown", unknown), ("missing", missing))
                if keys
            ]
            raise fail(file, f"keys of a {FORMAT}, version {FORMAT_VERSION}: {'; '.join(parts)}", remedy)
        try:
            duration(str(content["day"]))
            return cls(
                path=path,
                name=str(content["name"]),
                modules=ActionSpace.from_dict(content["modules"]),
                event_names=tuple(map(str, content["event_names"])),
                start=parse_moment(str(content["start"])),
                day=str(content["day"]),
                churn_events=tuple(map(str, content["churn_events"])),
                ties=content["ties"],
            )
        except (ConfigError, TypeError, AttributeError) as error:
            raise fail(file, str(error), remedy) from error

    @property
    def period(self) -> int:
        """Length of a day, microseconds."""
        return duration(self.day)

    @property
    def exists(self) -> bool:
        """Whether the log has a description already."""
        return (self.path / DESCRIPTION_FILE).is_file()

    def folder(self, time: int) -> Path:
        """Return the folder of the day that begins at a time."""
        return self.path / day_name(time, self.period)

    def days(self) -> list[int]:
        """Return the times at which the days that were written begin, ascending."""
        found = [self.start]
        while self.folder(found[-1]).is_dir():
            found.append(found[-1] + self.period)
        return found[:-1]

    @property
    def end(self) -> int:
        """When the last day ends that was written; the start of the log where none was."""
        return max((time + self.period for time in self.days()), default=self.start)

    def write_users(self, users: pd.DataFrame) -> None:
        """Replace the table of users."""
        with replacing(self.path / USERS_FILE) as draft:
            users.to_parquet(draft, index=False)

    def write_day(self, time: int, decisions: pd.DataFrame, events: pd.DataFrame) -> None:
        """Write the day that begins at a time, as a whole or not at all."""
        target = self.folder(time)
        draft = target.with_name(f".{target.name}.part")
        shutil.rmtree(draft, ignore_errors=True)  # what a killed process left
        draft.mkdir()
        for name, table in (("decisions", decisions), ("events", events)):
            table.to_parquet(draft / f"{name}.parquet", index=False)
        draft.rename(target)

    def read(
        self,
        decided: Path | None = None,
        since: int | None = None,
        decided_since: int | None = None,
        users: pd.DataFrame | None = None,
    ) -> History:
        """Read the days that were written.

        Args:
            decided: Folder of decisions that `decide` wrote, by date: see `read_history`.
            since: When the first day begins that is read; by default all are. Then no decision gets the arm that only
                its user's file names.
            decided_since: Time of the first decisions of the folder that are read; by default all are.
            users: The table of users, where it was read already.

        Raises:
            InputError: If a file is absent or damaged, a day is missing between others, or the tables have faults.
        """
        days = self.days()
        if not days:
            raise fail(self.path, "the log has no day yet", "Write the first day.")
        self.refuse_gaps(days)
        span = self.start, days[-1] + self.period
        days = [time for time in days if since is None or time >= since]
        decisions, events = (self._rows(f"{name}.parquet", days) for name in TABLES)
        joined: JoinedDecisions | None = None
        table = decisions.frame
        if decided is not None:
            joined = join_days(decisions, decided, self.modules, decided_since)
            table = joined.frame(self.modules)
        try:
            history = History.from_tables(
                table,
                events.frame if joined is None else joined.renamed_in(events.frame),
                self.modules,
                read_parquet(self.path / USERS_FILE) if users is None else users,
                span=span,
                name=self.name,
                ties=self.ties,
                files=dict(zip(TABLES, TABLES, strict=True)),
                starts=True,
            )
        except InputError as error:
            placed = [self._placed(fault, joined or decisions, events) for fault in error.faults]
            raise InputError(placed) from None
        history = with_event_names(history, self.event_names, self.path / DESCRIPTION_FILE).with_churn_events(
            self.churn_events
        )
        if joined is not None:
            history = replace(history, notes=(*joined.notes, *history.notes))
        return history if decided is None or since is not None else with_arms(history, decided)

    def _rows(self, file: str, days: list[int]) -> SourceRows:
        """Return the rows of a table of all days."""
        paths = [self.folder(time) / file for time in days]
        frames = [read_parquet(path) for path in paths]
        sizes = tuple((str(path), len(frame)) for path, frame in zip(paths, frames, strict=True))
        # A table without rows has no types.
        some = [frame for frame in frames if len(frame)] or frames[:1]
        return SourceRows(TableSource(self.path, files=file), pd.concat(some, ignore_index=True), sizes)

    @staticmethod
    def _placed(fault: Fault, decisions: JoinedDecisions | SourceRows, events: SourceRows) -> Fault:
        """Return a fault with the file of its day and its row there."""
        if fault.file not in TABLES or fault.row is None:
            return fault
        file, row = (decisions if fault.file == TABLES[0] else events).place(fault.row)
        return replace(fault, file=file, row=row)

    def refuse_gaps(self, days: list[int]) -> None:
        """Check that no day is missing between the days of a log.

        Raises:
            InputError: If one is.
        """
        wanted = {day_name(time, self.period) for time in days}
        folders = [entry.name for entry in os.scandir(self.path) if entry.is_dir() and not entry.name.startswith(".")]
        if later := sorted(set(folders) - wanted):
            missing = day_name(days[-1] + self.period, self.period)
            problem = f"the day {missing} is missing, while {later[0]} is there"
            raise InputError([Fault(str(self.path), problem, "Write the missing day, if need be without rows.")])


def with_event_names(history: History, names: tuple[str, ...], file: Path) -> History:
    """Return a history whose codes of events are those of a description, also of events that did not occur.

    Args:
        history: The history.
        names: Names of the events by code.
        file: The file that has an event without a code, for the error.

    Raises:
        InputError: If an event has no code.
    """
    if unknown := sorted(set(history.event_names) - set(names)):
        problem = f"these events are not in {DESCRIPTION_FILE}: {', '.join(unknown)}"
        raise fail(file, problem, "Add them to `event_names` there.", column="event")
    code = np.array([names.index(name) for name in history.event_names], dtype=np.int64)
    found = History.from_arrays(
        history.decisions,
        replace(history.events, event=code[history.events.event]),
        modules=history.modules,
        user_ids=history.user_ids,
        event_names=names,
        span=history.span,
        users=history.users,
        observed_from=history.observed_from,
        observed_until=history.observed_until,
        name=history.name,
        ties=history.ties,
    )
    return replace(found, notes=history.notes)


def is_daily_log(path: Path) -> bool:
    """Return whether a folder is a log by day."""
    file = path / DESCRIPTION_FILE
    return file.is_file() and is_daily(read_yaml(file))


def is_daily(content: Any) -> bool:
    """Return whether the content of a `history.yaml` is that of a log by day."""
    return isinstance(content, Mapping) and content.get("format") == FORMAT


def _text(time: int) -> str:
    return f"{np.datetime64(time, 'us')}Z"
