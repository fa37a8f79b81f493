"""Join the decisions that a policy made (files of `decide`) to the slots of a grid and to the sends that followed."""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np
import pandas as pd

from crosschannel.core.action_space import ActionSpace
from crosschannel.core.arrays import BoolArray, IntArray, ObjectArray
from crosschannel.core.errors import Fault, raise_faults
from crosschannel.core.table_validator import TableValidator
from crosschannel.histories.readers.decided.checking import NOT_CARRIED_OUT, check_arms, notes_on_delivery
from crosschannel.histories.readers.decided.days import source_of_decisions
from crosschannel.histories.readers.slots import UserSlots
from crosschannel.histories.readers.sources import SourceRows, TableSource, decision_columns, read_source
from crosschannel.histories.readers.stream.rows import StreamRows
from crosschannel.histories.sorting import argsort_by_user_and_time
from crosschannel.histories.values.identifiers import flag_other_spellings
from crosschannel.histories.values.validation import DECISION_COLUMNS
from crosschannel.histories.windows import Timeline

#: If a larger share of the decided messages follows a slot later, decisions and slots do not fit each other.
MAX_SHARE_SENT_LATER = 0.5


@dataclass(frozen=True)
class Decided:
    """The k decisions that a policy made, sorted by user and time.

    Attributes:
        rows: Their file or files.
        frame: Their native columns; the ids of users are those of the stream.
        user: Codes of the users (k,).
        time: Microseconds since 1970 UTC (k,).
        sent: Whether the decision was to send something (k,).
        action: The actions of the first module (k,).
        order: The row of each in the files, counted from 0 (k,).
    """

    rows: SourceRows
    frame: pd.DataFrame
    user: IntArray
    time: IntArray
    sent: BoolArray
    action: ObjectArray
    order: IntArray

    def __len__(self) -> int:
        return len(self.time)


def read_decided(source: TableSource, modules: ActionSpace, stream: StreamRows) -> Decided:
    """Read decisions in the native columns, whose users must be users of the stream.

    Raises:
        InputError: If a file cannot be read, a column is missing, or a row has no user or time of the stream.
    """
    faults: list[Fault] = []
    known = decision_columns(modules)
    rows = read_source(source_of_decisions(source), known, (*DECISION_COLUMNS, *modules.names), faults)
    raise_faults(faults)
    check_arms(rows)
    table = TableValidator(rows.frame, str(source.path), faults)
    time, _ = table.times("time")
    user = pd.Index(stream.user_ids.astype(str)).get_indexer(pd.Index(table.texts("user_id").astype(str)))
    problem, remedy = "the log has no such user", "Read the log to which these decisions belong, or leave the row out."
    unknown = (user < 0) & ~flag_other_spellings(table, "user_id", stream.user_ids)
    table.flag_rows("user_id", unknown, problem, remedy)
    raise_faults([_place(rows, fault) for fault in faults])
    order = argsort_by_user_and_time(user.astype(np.int64), time)
    user, time = user[order].astype(np.int64), time[order]
    action = table.texts(modules.names[0])[order]
    frame = rows.frame.iloc[order].reset_index(drop=True).assign(user_id=stream.user_ids[user])
    sent = np.asarray(action != modules[0].actions[0])
    return Decided(rows=rows, frame=frame, user=user, time=time, sent=sent, action=action, order=order)


@dataclass(frozen=True)
class Joined:
    """What decisions say about the slots and sends of a stream.

    Attributes:
        delivered: Which of the sends carry out a decision, so that they are not decisions of their own.
        replaced: Which slots a decision replaces, unless they have a send of their own.
        notes: Counts for the history's summary.
    """

    delivered: BoolArray
    replaced: BoolArray
    notes: tuple[str, ...]


def join(decided: Decided, stream: StreamRows, slots: UserSlots, sends: IntArray, actions: ObjectArray) -> Joined:
    """Join decisions to the slots of a grid and to sends.

    A decision belongs to the slot that is nearest to its time, and takes its place. A send between the decision and the
    end of that slot's period delivers it.

    Args:
        decided: The decisions.
        stream: The stream.
        slots: The slots of the grid.
        sends: Rows of the stream that are sends, ascending.
        actions: The action of the first module of each send.

    Raises:
        InputError: If a user has two decisions of one slot, a send is not the one that was decided, or most sends
            follow in the period of a later slot than their decision.
    """
    place = np.searchsorted(slots.bounds, decided.time, side="right") - 1
    upper = np.minimum(place + 1, len(slots.bounds) - 1)
    nearer = np.abs(slots.bounds[upper] - decided.time) < np.abs(decided.time - slots.bounds[np.maximum(place, 0)])
    place = np.where(nearer | (place < 0), upper, place)
    # Beyond the grid its periods go on: what was decided today and yesterday is not of one slot.
    period = int(slots.bounds[-1] - slots.bounds[-2])
    beyond = np.maximum(np.ceil((decided.time - slots.bounds[-1]) / period - 0.5), 0).astype(np.int64)
    _refuse_second_decisions(decided, place + beyond)
    begin = slots.bounds[place]
    end = slots.bounds[np.minimum(place + 1, len(slots.bounds) - 1)]
    # Beyond the grid a period is as long as its last one.
    end = np.where(end > decided.time, end, decided.time + period)

    offsets = np.searchsorted(decided.user, np.arange(len(stream.user_ids) + 1)).astype(np.int64)
    user, time = stream.user[sends], stream.time[sends]
    latest = Timeline(decided.time, offsets).before(user, time, inclusive=True) - 1
    delivered = latest >= offsets[user]
    delivered[delivered] = time[delivered] < end[latest[delivered]]
    differs = np.zeros(len(sends), dtype=bool)
    differs[delivered] = actions[delivered] != decided.action[latest[delivered]]
    bad = np.zeros(len(stream), dtype=bool)
    bad[sends[differs]] = True
    problem = "the decision for this time was another one"
    remedy = f"Correct the decisions: {NOT_CARRIED_OUT}"
    stream.flag_rows("event", bad, problem, remedy)
    raise_faults(stream.faults)

    carried_out = np.zeros(len(decided), dtype=bool)
    carried_out[latest[delivered]] = True
    left = sends[~delivered]
    _refuse_later_sends(decided, decided.sent & ~carried_out, end + period, stream, left)

    row = slots.row(decided.user, begin)
    replaced = np.zeros(len(slots), dtype=bool)
    replaced[row[row >= 0]] = True
    note = (
        f"decisions of a policy: {len(decided):,}, {np.count_nonzero(decided.sent):,} of them to send; "
        f"{np.count_nonzero(decided.sent & ~carried_out):,} of these have no send in the log, and count as decided"
    )
    due = decided.sent & (end <= stream.time.max(initial=0))
    return Joined(delivered, replaced, (note, *notes_on_delivery(due, carried_out)))


def _refuse_second_decisions(decided: Decided, place: IntArray) -> None:
    """Refuse two decisions of a user for one slot (k,): `decide` ran twice, and one of them was not carried out."""
    again = np.append(False, (np.diff(decided.user) == 0) & (np.diff(place) == 0))[: len(decided)]
    faults: list[Fault] = []
    problem = "the user has an earlier decision of the same slot, and only one of them can have been carried out"
    remedy = "Keep the file of the decisions that were carried out, and leave the other out."
    TableValidator(decided.frame, str(decided.rows.source.path), faults).flag_rows("time", again, problem, remedy)
    raise_faults([place_decided(decided, fault) for fault in faults])


def _refuse_later_sends(
    decided: Decided, unsent: BoolArray, until: IntArray, stream: StreamRows, left: IntArray
) -> None:
    """Refuse decisions most of which have their sends in the period of a later slot, such as those of the night before.

    Args:
        decided: The decisions (k,).
        unsent: Which of them are to send, and have no send in their own period (k,).
        until: When the period of the next slot ends (k,).
        stream: The stream.
        left: Rows of the stream that are sends without a decision.
    """
    left = left[argsort_by_user_and_time(stream.user[left], stream.time[left])]
    offsets = np.searchsorted(stream.user[left], np.arange(len(stream.user_ids) + 1)).astype(np.int64)
    row = Timeline(stream.time[left], offsets).before(decided.user, decided.time)
    late = unsent & (row < offsets[decided.user + 1])
    late[late] = stream.time[left[row[late]]] < until[late]
    if np.count_nonzero(late) <= MAX_SHARE_SENT_LATER * np.count_nonzero(decided.sent):
        return
    faults: list[Fault] = []
    problem = "the message was sent in the period of a later slot than the one that is nearest to the decision"
    remedy = "Set `at` of the slots so that they are nearer to these decisions than the slots before."
    TableValidator(decided.frame, str(decided.rows.source.path), faults).flag_rows("time", late, problem, remedy)
    raise_faults([place_decided(decided, fault) for fault in faults])


def place_decided(decided: Decided, fault: Fault) -> Fault:
    """Return a fault of a decision, counted from 1, with its file, row and column there."""
    row = None if fault.row is None else int(decided.order[fault.row - 1]) + 1
    return _place(decided.rows, replace(fault, row=row))


def _place(rows: SourceRows, fault: Fault) -> Fault:
    file, row = (str(rows.source.path), None) if fault.row is None else rows.place(fault.row)
    column = None if fault.column is None else rows.source.theirs(fault.column)
    return Fault(
        file=file,
        problem=fault.problem,
        remedy=fault.remedy,
        column=column,
        row=row,
        value=fault.value,
        count=fault.count,
    )
