"""Open a bucketed folder, and read a bucket or all of them as a history."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import pandas as pd

from crosschannel.core.action_space import ActionSpace
from crosschannel.core.arrays import ObjectArray
from crosschannel.core.errors import ConfigError, Fault, InputError, raise_faults
from crosschannel.core.table_validator import TableValidator
from crosschannel.histories.buckets.leaves import leaf_of
from crosschannel.histories.buckets.manifest import (
    DECISIONS,
    EVENTS,
    MANIFEST_FILE,
    TABLES,
    USERS,
    Manifest,
    number_of,
    read_part,
)
from crosschannel.histories.buckets.merging import merge, notes_on_all, with_columns
from crosschannel.histories.history import History
from crosschannel.histories.observation.users import OBSERVATION_COLUMNS
from crosschannel.histories.readers.daily import with_event_names
from crosschannel.histories.readers.decided.checking import check_arms
from crosschannel.histories.readers.decided.days import (
    decisions_by_date,
    read_arms,
    read_latest_arms,
    with_arms_of_users,
)
from crosschannel.histories.readers.decided.joining import JoinedDecisions, join_decisions, read_decisions
from crosschannel.histories.readers.source_files import fail
from crosschannel.histories.readers.sources import SourceRows, TableSource, without_rows
from crosschannel.histories.values.identifiers import are_numbers
from crosschannel.histories.values.validation import DECISION_COLUMNS, EVENT_COLUMNS

_NO_SOURCE = TableSource(Path("buckets"))


@dataclass(frozen=True)
class Buckets:
    """A bucketed folder.

    Attributes:
        folder: The folder.
        manifest: What all buckets share.
    """

    folder: Path
    manifest: Manifest

    @property
    def paths(self) -> list[Path]:
        """The buckets that have users, in order; `read_bucket` reads each. Some may have no decision or no event."""
        filled = {file.partition("/")[0] for file in self.manifest.files}
        return [self.folder / name for name in sorted(filled)]

    @property
    def n(self) -> int:
        """Number of buckets, also of those without users."""
        return self.manifest.buckets

    @property
    def leaves(self) -> int:
        """Number of leaves; a leaf belongs to the bucket `leaf % n`."""
        return self.manifest.leaves

    @property
    def modules(self) -> ActionSpace:
        """The action space."""
        return self.manifest.modules

    @property
    def span(self) -> tuple[int, int]:
        """Start and end of the observation period, microseconds."""
        return self.manifest.span

    def verify(self) -> None:
        """Check the content of every file against its checksum.

        Raises:
            InputError: With a fault for each bucket that lacks a file or has another one.
        """
        self.manifest.verify(self.folder, checksums=True)

    def read(self, path: Path, decided: Path | None = None) -> History:
        """Read a bucket: the history of its users, as they are in that of all users, with the notes of the folder.

        Args:
            path: The bucket.
            decided: Folder of decisions that `decide` wrote, by date: see `read_history`.

        Raises:
            InputError: If a file is not what the manifest says, or its tables have faults.
        """
        number = number_of(path)
        if number is None or number >= self.n:
            raise fail(path, f"this is not one of {self.n} buckets", "Name one of `open_buckets(folder).paths`.")
        rows = {table: self._rows(number, table) for table in TABLES}
        if decided is not None:
            history = self._joined(rows, decided, number)
            self._check_users(path, number, history.user_ids)
            return merge([history], by_value=self.manifest.numbered)
        history = self._history(rows, rows[DECISIONS].frame, rows[EVENTS].frame)
        self._check_users(path, number, history.user_ids)
        return merge([with_columns(history, self.manifest.columns)], by_value=self.manifest.numbered)

    def user_ids(self, path: Path) -> ObjectArray:
        """Return the ids of a bucket's users as texts, in the order of its table of users, which alone is read.

        Raises:
            InputError: If the table is not what the manifest says.
        """
        number = number_of(path)
        assert number is not None  # it is one of `paths`
        return self._rows(number, USERS).frame["user_id"].astype(str).to_numpy(dtype=object)

    def read_all(self, decided: Path | None = None) -> History:
        """Read all buckets as one history, which is that of the log that was divided.

        Args:
            decided: Folder of decisions that `decide` wrote, by date: see `read_history`.

        Raises:
            InputError: If a file is not what the manifest says, or its tables have faults.
        """
        if decided is not None:
            return self._read_joined(decided)
        history = merge([self.read(path) for path in self.paths], by_value=self.manifest.numbered)
        return replace(history, notes=(*history.notes, *notes_on_all(history)))

    def _read_joined(self, decided: Path) -> History:
        """Read all buckets with decisions by date in the place of the log's own."""
        rows = {
            table: _concatenated([self._rows(n, table) for path in self.paths if (n := number_of(path)) is not None])
            for table in TABLES
        }
        history = self._joined(rows, decided)
        return replace(history, notes=(*history.notes, *notes_on_all(history)))

    def _joined(self, rows: dict[str, SourceRows], decided: Path, number: int | None = None) -> History:
        """Return the history of tables with decisions by date in place of their own; in a bucket, its users'."""
        faults: list[Fault] = []
        chosen = read_decisions(decisions_by_date(decided), self.modules, faults)
        raise_faults(faults)
        if number is None:
            check_arms(chosen)
        else:
            ids = TableValidator(chosen.frame, str(decided), faults).texts("user_id")
            chosen = without_rows(chosen, leaf_of(ids, self.leaves) % self.n != number)
        joined = join_decisions(rows[DECISIONS], chosen, self.modules)
        history = self._history(rows, joined.frame(self.modules), joined.renamed_in(rows[EVENTS].frame), joined)
        history = replace(history, notes=(*joined.notes, *history.notes))
        history = with_columns(history, self.manifest.columns)
        arms = (read_arms if number is None else read_latest_arms)(decided, history.user_ids)
        history = with_arms_of_users(history, decided, arms)
        # Counts of one bucket would stand for the whole log: `merge` keeps the notes of the first part.
        return history if number is None else replace(history, notes=self.manifest.notes)

    def _history(
        self,
        rows: dict[str, SourceRows],
        decisions: pd.DataFrame,
        events: pd.DataFrame,
        places: JoinedDecisions | None = None,
    ) -> History:
        """Return the history of some of the users from tables of their rows; `places` says where decisions stand."""
        manifest, users = self.manifest, rows[USERS].frame
        try:
            history = History.from_tables(
                decisions,
                events,
                manifest.modules,
                users[["user_id", *OBSERVATION_COLUMNS]],
                span=manifest.span,
                propensity_source=manifest.propensity_source,
                name=manifest.name,
                ties=manifest.ties,
                files={table: table for table in TABLES},
                starts=True,
            )
        except InputError as error:
            known: dict[str, SourceRows | JoinedDecisions] = {**rows, **({} if places is None else {DECISIONS: places})}
            raise InputError([_placed(fault, known, self.folder) for fault in error.faults]) from None
        except ConfigError as error:
            raise fail(self.folder / MANIFEST_FILE, str(error), "Write the folder again.", column="span") from None
        history = with_event_names(history, manifest.event_names, self.folder / MANIFEST_FILE)
        history = replace(history.with_churn_events(manifest.churn_events), notes=manifest.notes)
        return replace(history, users=self._attributes(users, history.user_ids))

    def _rows(self, number: int, table: str) -> SourceRows:
        """Return the rows of a table of a bucket, part after part."""
        columns = {
            USERS: ("user_id", *OBSERVATION_COLUMNS),
            DECISIONS: (*DECISION_COLUMNS, *self.manifest.modules.names),
            EVENTS: EVENT_COLUMNS,
        }[table]
        files = self.manifest.files_of(number, table)
        frames = [read_part(self.folder / file, self.manifest.files[file]) for file in files]
        sizes = tuple((str(self.folder / file), len(frame)) for file, frame in zip(files, frames, strict=True))
        # A table without rows has no types.
        filled = [frame for frame in frames if len(frame)] or [pd.DataFrame(columns=list(columns), dtype=object)]
        frame = filled[0] if len(filled) == 1 else pd.concat(filled, ignore_index=True)
        return SourceRows(_NO_SOURCE, frame, sizes)

    def _check_users(self, path: Path, number: int, ids: ObjectArray) -> None:
        other = leaf_of(ids, self.leaves) % self.n != number
        if other.any():
            k = int(np.argmax(other))
            problem = f"the user belongs to the bucket {leaf_of(ids[k : k + 1], self.leaves)[0] % self.n}"
            remedy = "Buckets were exchanged or renamed: copy them again, or write the folder again."
            raise fail(path, problem, remedy, column="user_id", value=ids[k])
        if self.manifest.numbered and not are_numbers(ids):
            problem = f"ids are said to be whole numbers, but those of {path.name} are not"
            raise fail(self.folder / MANIFEST_FILE, problem, "Write the folder again.", column="numbered")

    def _attributes(self, users: pd.DataFrame, ids: ObjectArray) -> pd.DataFrame | None:
        """Return the attributes of users in the order of their ids, in the types that they have in all buckets."""
        kinds = self.manifest.attributes
        if kinds is None:
            return None
        place = pd.Index(users["user_id"].astype(str)).get_indexer(pd.Index([str(one) for one in ids]))
        return users[list(kinds)].iloc[place].reset_index(drop=True).astype(dict(kinds))


def open_buckets(folder: Path) -> Buckets:
    """Open a bucketed folder, and check that every file is there and has its size.

    Raises:
        InputError: If it is not a bucketed folder, or of another version, or a bucket lacks a file or has another one.
    """
    buckets = Buckets(folder, Manifest.read(folder))
    buckets.manifest.verify(folder)
    return buckets


def read_bucket(path: Path, decided: Path | None = None) -> History:
    """Read one bucket of a bucketed folder, without a look at the files of the others: see `Buckets.read`.

    Raises:
        InputError: If its files are not what the manifest says, or its tables have faults.
    """
    return Buckets(path.parent, Manifest.read(path.parent)).read(path, decided)


def is_bucketed(folder: Path) -> bool:
    """Return whether a folder is a bucketed one."""
    return (folder / MANIFEST_FILE).is_file()


def is_bucket(path: Path) -> bool:
    """Return whether a folder is a bucket of a bucketed one."""
    return number_of(path) is not None and is_bucketed(path.parent)


def _concatenated(rows: Sequence[SourceRows]) -> SourceRows:
    """Return the rows of several buckets as those of one table."""
    filled = [one.frame for one in rows if len(one.frame)] or [one.frame for one in rows[:1]]
    files = tuple(file for one in rows for file in one.files)
    return SourceRows(rows[0].source, pd.concat(filled, ignore_index=True), files)


def _placed(fault: Fault, tables: Mapping[str, SourceRows | JoinedDecisions], folder: Path) -> Fault:
    """Return a fault with the file of its day and its row there."""
    if fault.file not in tables:
        return fault
    if fault.row is None:
        return replace(fault, file=str(folder / fault.file))
    file, row = tables[fault.file].place(fault.row)
    return replace(fault, file=file, row=row)
