"""Join decisions to a log that has a row for each slot: they take the place of its rows of the same slots."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import pandas as pd

from crosschannel.core.action_space import ActionSpace
from crosschannel.core.arrays import BoolArray, IntArray, ObjectArray
from crosschannel.core.errors import Fault, raise_faults
from crosschannel.core.table_validator import TableValidator
from crosschannel.core.times import HOUR
from crosschannel.histories.readers.decided.checking import (
    NOT_CARRIED_OUT,
    check_arms,
    notes_on_delivery,
    notes_on_edits,
)
from crosschannel.histories.readers.decided.days import DECISIONS_FILE, decided_days, decisions_by_date, ends_before
from crosschannel.histories.readers.sources import (
    SourceRows,
    TableSource,
    concat_decisions,
    decision_columns,
    read_source,
    without_rows,
)
from crosschannel.histories.values.validation import DECISION_COLUMNS

#: A send of the log within this time after a decision to send is that message.
SAME_SLOT = 12 * HOUR
#: If a larger share of the decided messages is followed by one, the log's rows do not have the times of their slots.
MAX_SHARE_AT_OTHER_TIMES = 0.5


@dataclass(frozen=True)
class JoinedDecisions:
    """The decisions of a log, and those of a policy that stand in the place of some of its rows.

    Attributes:
        log: What is left of the log.
        decided: The decisions of the policy.
        renamed: The id of the policy's decision in whose place a row of the log stood, by the row's id.
        notes: Counts for the history's summary.
    """

    log: SourceRows
    decided: SourceRows
    renamed: Mapping[str, str]
    notes: tuple[str, ...]

    def frame(self, modules: ActionSpace) -> pd.DataFrame:
        """Return all decisions in the native columns: what is left of the log, then the policy's."""
        return concat_decisions([self.log.frame, self.decided.frame], modules)

    def place(self, row: int) -> tuple[str, int]:
        """Return the file of a row of `frame`, and its number there, both counted from 1."""
        n = len(self.log.frame)
        return self.log.place(row) if row <= n else self.decided.place(row - n)

    def renamed_in(self, events: pd.DataFrame) -> pd.DataFrame:
        """Return events that name the policy's decision where they named the log's row in its place."""
        if "decision_id" not in events or not self.renamed:
            return events
        ids = events["decision_id"]
        new = ids.astype(str).map(self.renamed)
        return events.assign(decision_id=ids.astype(object).where(new.isna(), new))


def read_decisions(source: TableSource, modules: ActionSpace, faults: list[Fault]) -> SourceRows:
    """Read decisions of a policy in the native columns; add the faults of their files."""
    return read_source(source, decision_columns(modules), (*DECISION_COLUMNS, *modules.names), faults)


def join_days(log: SourceRows, folder: Path, modules: ActionSpace, since: int | None = None) -> JoinedDecisions:
    """Put the decisions in a folder by date in the place of a log's rows: see `join_decisions`.

    Args:
        log: The decisions of the log, in the native columns.
        folder: The folder.
        modules: What could be chosen.
        since: Time of the first decisions that are read, microseconds since 1970 UTC; by default all are.

    Raises:
        InputError: If the folder is not one of decisions by date, or they do not fit the log.
    """
    faults: list[Fault] = []
    source = decisions_by_date(folder)
    if since is None:
        decided = read_decisions(source, modules, faults)
    else:
        recent = [day / DECISIONS_FILE for day in decided_days(folder) if not ends_before(day, since)]
        if not recent:
            return JoinedDecisions(log, SourceRows(source, log.frame.iloc[:0]), {}, ())
        parts = [read_decisions(replace(source, path=path, files=None), modules, faults) for path in recent]
        frame = pd.concat([part.frame for part in parts], ignore_index=True)
        decided = SourceRows(source, frame, tuple(file for part in parts for file in part.files))
    raise_faults(faults)
    check_arms(decided)
    joined = join_decisions(log, decided, modules)
    return replace(joined, notes=(*joined.notes, *notes_on_edits(decided, modules)))


def join_decisions(log: SourceRows, decided: SourceRows, modules: ActionSpace) -> JoinedDecisions:
    """Put the decisions of a policy in the place of the log's rows of the same users and times.

    Such a row of the log is what became of the decision: if it is a send, the message was delivered. What was decided
    stays the action, whether delivered or not. Decisions after the end of the log are further rows: the next ones have
    to know of them.

    Args:
        log: The decisions of the log, in the native columns.
        decided: The decisions of the policy.
        modules: What could be chosen.

    Raises:
        InputError: If a row of the log is a send that was not decided, or the policy has two decisions of one slot.
    """
    faults: list[Fault] = []
    mine, theirs = (TableValidator(rows.frame, str(rows.source.path), faults) for rows in (decided, log))
    time, log_time = mine.times("time")[0], theirs.times("time")[0]
    _raise(faults, decided, log)
    of_policy = _slots(mine, time)
    mine.flag_rows(
        *("time", of_policy.duplicated()),
        "the user has an earlier decision of the same time, and only one of them can have been carried out",
        "Keep the decisions that were carried out, and leave the others out.",
    )
    _raise(faults, decided, log)
    row = of_policy.get_indexer(_slots(theirs, log_time))
    both = row >= 0
    logged, chosen = _actions(theirs, modules), _actions(mine, modules)
    sent, wanted = (actions[:, 0] != modules[0].actions[0] for actions in (logged, chosen))
    other = np.zeros(len(logged), dtype=bool)
    other[both] = sent[both] & (logged[both] != chosen[row[both]]).any(1)
    theirs.flag_rows(
        *(modules.names[0], other),
        "the decision for this time was another one",
        f"Correct the decisions: {NOT_CARRIED_OUT}",
    )
    _raise(faults, decided, log)
    _refuse_other_times(theirs, mine, sent & ~both, wanted, log_time, time)
    _raise(faults, decided, log)
    note = (
        f"decisions of a policy: {len(wanted):,}, {np.count_nonzero(wanted):,} of them to send; in the place of rows "
        f"of the log: {np.count_nonzero(both):,}, {np.count_nonzero(both & sent):,} of which are sends"
    )
    # Also those without a row: a tool that failed may have written none.
    due = wanted & (time <= log_time.max(initial=0))
    delivered = np.zeros(len(wanted), dtype=bool)
    delivered[row[both & sent]] = True
    notes = (note, *notes_on_delivery(due, delivered))
    return JoinedDecisions(without_rows(log, both), decided, _renamed(log, decided, both, row), notes)


def _refuse_other_times(
    log: TableValidator,
    decided: TableValidator,
    unmatched: BoolArray,
    wanted: BoolArray,
    log_time: IntArray,
    time: IntArray,
) -> None:
    """Flag sends of the log that follow most decided messages at another time: they would be messages twice.

    Args:
        log: The log.
        decided: The decisions.
        unmatched: Rows of the log that are sends and have no decision of their time (n,).
        wanted: Decisions that are to send (k,).
        log_time: Times of the log's rows, microseconds (n,).
        time: Times of the decisions (k,).
    """
    row, place = np.flatnonzero(unmatched), np.flatnonzero(wanted)
    if not len(row) or not len(place):
        return
    sends = pd.DataFrame({"user": log.texts("user_id")[row].astype(object), "time": log_time[row], "row": row})
    ours = pd.DataFrame(
        {"user": decided.texts("user_id")[place].astype(object), "time": time[place], "decision": place}
    )
    found = pd.merge_asof(
        *(sends.sort_values("time"), ours.sort_values("time")), on="time", by="user", tolerance=SAME_SLOT
    ).dropna()
    if found["decision"].nunique() <= MAX_SHARE_AT_OTHER_TIMES * len(place):
        return
    late = np.zeros(len(unmatched), dtype=bool)
    late[found["row"].to_numpy(dtype=np.int64)] = True
    log.flag_rows(
        *("time", late),
        "the message follows a decision at another time than its slot's, and would be a second one",
        "Give these rows the times of their slots; or read the log as sends, with `slots` on a grid.",
    )


def _slots(table: TableValidator, time: IntArray) -> pd.MultiIndex:
    return pd.MultiIndex.from_arrays([table.texts("user_id"), time])


def _actions(table: TableValidator, modules: ActionSpace) -> ObjectArray:
    """Return the names of the actions (n, M); empty in the later modules where nothing is sent."""
    columns = [table.texts(name) for name in modules.names]
    sent = columns[0] != modules[0].actions[0]
    return np.stack([columns[0], *(np.where(sent, column, "") for column in columns[1:])], axis=1)


def _renamed(log: SourceRows, decided: SourceRows, both: BoolArray, row: IntArray) -> dict[str, str]:
    if "decision_id" not in log.frame:
        return {}
    old = log.frame["decision_id"].to_numpy(dtype=object)[both].astype(str)
    new = decided.frame["decision_id"].to_numpy(dtype=object)[row[both]].astype(str)
    return {one: other for one, other in zip(old.tolist(), new.tolist(), strict=True) if one != other}


def _raise(faults: list[Fault], *tables: SourceRows) -> None:
    """Raise faults, if there are any, in the files, rows and columns of their tables."""
    raise_faults([_placed(fault, tables) for fault in faults])


def _placed(fault: Fault, tables: Sequence[SourceRows]) -> Fault:
    rows = next(one for one in tables if str(one.source.path) == fault.file)
    file, number = (fault.file, None) if fault.row is None else rows.place(fault.row)
    column = None if fault.column is None else rows.source.theirs(fault.column)
    return replace(fault, file=file, row=number, column=column)
