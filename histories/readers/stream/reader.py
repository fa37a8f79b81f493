"""Read a history from one event stream of a customer-data platform: sends become decisions, other rows are events.

A stream has the messages that were sent, but not the slots in which nothing was sent. The mapping's `slots` define
these, without a default, as none would be right in general: either there are none (`sends_only`), or slots lie on a
calendar (`SlotGrid`).

On a grid the time of a decision is that of its slot, even if the message was sent later in the slot's period, for three
reasons:

- Slots with and without a send must be comparable. With the sends' own times, the hour would reveal which slots have a
  send: no propensity could be estimated, and controls would not have windows at the hours of treated slots.
- The window before must not contain any effect of the message: the slot is never later than the send.
- The decision must not depend on anything after its time. This holds if the sends of a period are determined when the
  slot begins. It does not hold for a message that responds to what the user did between the slot and the send (an
  abandoned cart): the cause of the message would count as its effect. The stream cannot reveal that, but the notes of
  the history indicate how often it may happen: they give the time between slots and sends, and the share of sends whose
  users had an event in between, next to the same share of slots without a send. The remedy is a finer grid, or one just
  before the sends.

So the reward of a decision compares sending within the period with not sending in it, from the slot on.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

import numpy as np
import pandas as pd

from crosschannel.core.action_space import ActionSpace
from crosschannel.core.arrays import BoolArray, IntArray, ObjectArray
from crosschannel.core.errors import Fault, InputError, raise_faults
from crosschannel.core.sorting import argsort_by_user_and_time
from crosschannel.core.times import HOUR, NEVER, timestamps
from crosschannel.histories.history import History
from crosschannel.histories.readers.slots import SlotGrid, UserSlots, bounds
from crosschannel.histories.readers.stream.mapping import StreamMapping
from crosschannel.histories.readers.stream.rows import StreamRows, open_stream, value_path
from crosschannel.histories.readers.tables import decision_columns, span_of
from crosschannel.histories.windows import Timeline


def read_stream(mapping: StreamMapping) -> History:
    """Read a stream by a mapping.

    There are several steps, each of which reports all its faults at once, with file, row, column, value and remedy:
    files, columns and times; users and event names; duplicates; sends that share a slot; everything that
    `History.from_tables` validates.

    - Sends outside all slots (before a user's first one, after the last complete period, after leaving) and, with
      `several: first`, later sends of a period are not decisions. They remain in the history as events under their own
      names. The history's notes count them, and what was left out.
    - A slot's `arm` is that of the user's latest row up to the slot that has one; it is missing if no row has.
    - Without a mapped `decision_id` the ids of decisions are `user@time`, so that a longer stream gives the same ids.

    Raises:
        InputError: With every fault of a step.
    """
    modules = ActionSpace.from_dict(mapping.modules)
    stream = open_stream(mapping)
    span = span_of(mapping.span) if mapping.span else (int(stream.time.min()), int(stream.time.max()))
    kept = _without_duplicates(mapping, stream)
    rule = _send_rules(mapping, stream)
    sends = np.flatnonzero(kept & (rule >= 0))
    if isinstance(mapping.slots, SlotGrid):
        _refuse_unsent(mapping, modules, stream, rule)
        leave = _first_time(stream, kept & stream.named(mapping.slots.leave_events))
        slots = _user_slots(mapping, mapping.slots, stream, kept, span, leave)
        present = sends[stream.time[sends] < leave[stream.user[sends]]]
        origin = _origins(mapping, stream, slots, present)
        user, time = slots.user, slots.time
    else:
        origin, user, time = sends, stream.user[sends], stream.time[sends]

    other = kept & (rule < 0)
    chosen = other if mapping.events is None else other & stream.named(mapping.events)
    unplaced = np.setdiff1d(sends, origin)
    rows = np.sort(np.append(np.flatnonzero(chosen), unplaced))
    try:
        history = History.from_tables(
            _decisions(mapping, modules, stream, rule, origin, user, time),
            _events(mapping, stream, rows),
            modules,
            pd.DataFrame({"user_id": stream.user_ids}) if stream.users is None else stream.users,
            span=span,
            propensity_source=mapping.propensity_source,
            name=mapping.name,
        )
    except InputError as error:
        places = {"decisions": origin, "events": rows}
        raise InputError(
            [_in_names_of_stream(fault, mapping, stream, rule, places) for fault in error.faults]
        ) from None
    notes = [
        f"stream: {len(stream):,} rows in {len(stream.tables):,} files, {len(sends):,} of them sends; left out: "
        f"{np.count_nonzero(~kept):,} duplicates, {np.count_nonzero(other & ~chosen):,} events missing from `events`"
    ]
    if isinstance(mapping.slots, SlotGrid):
        notes += _grid_notes(mapping.slots, history, stream, origin, unplaced)
    elif history.modules.sends(history.decisions.actions).all():
        notes.append(
            "slots are sends only: nothing can be learned about sending nothing, and difference in differences has no "
            "controls"
        )
    return replace(history, users=None if stream.users is None else history.users, notes=(*notes, *history.notes))


def _without_duplicates(mapping: StreamMapping, stream: StreamRows) -> BoolArray:
    """Return which rows (n,) are kept: all except, with `keep_first`, those that repeat the id of an earlier row."""
    column = mapping.rows.columns.get("message_id")
    if column is None:
        return np.ones(len(stream), dtype=bool)
    ids = stream.texts(column, np.arange(len(stream)))
    code, known = pd.factorize(ids)
    first = np.zeros(len(known), dtype=np.int64)
    first[code[::-1]] = np.arange(len(code))[::-1]
    earlier = first[code]
    missing = ids == ""
    again = (earlier < np.arange(len(code))) & ~missing
    same = again & (stream.user == stream.user[earlier])
    same &= (stream.event == stream.event[earlier]) & (stream.time == stream.time[earlier])
    stream.flag_rows(
        column, missing, "the message id is missing", "Fill it in, or leave `message_id` out of the mapping."
    )
    remedy = "Ids must be unique: choose another column for `message_id`, or correct the export."
    stream.flag_rows(
        column, again & ~same, "an earlier row with another user, event or time has the same message id", remedy
    )
    if mapping.duplicates == "error":
        remedy = "Remove the copies, or set `duplicates: keep_first`."
        stream.flag_rows(column, same, "the row repeats an earlier one", remedy)
    raise_faults(stream.faults)
    return np.asarray(~same)


def _send_rules(mapping: StreamMapping, stream: StreamRows) -> IntArray:
    """Return the index of the entry of `sends` that each row matches (n,), -1 for none."""
    rule = np.full(len(stream), -1, dtype=np.int64)
    for k, sends in enumerate(mapping.sends):
        rule[stream.named(sends.events)] = k
    return rule


def _refuse_unsent(mapping: StreamMapping, modules: ActionSpace, stream: StreamRows, rule: IntArray) -> None:
    """Refuse rows on a grid whose action is to send nothing: they would count as a send, or hide one."""
    name, nothing = modules.names[0], modules[0].actions[0]
    bad = np.zeros(len(stream), dtype=bool)
    for k, sends in enumerate(mapping.sends):
        rows = np.flatnonzero(rule == k)
        bad[rows] = (
            sends.constants[name] == nothing
            if name in sends.constants
            else (stream.texts(sends.columns[name], rows) == nothing)
        )
    problem = "the action is to send nothing, which a grid assumes for every slot without a send"
    remedy = "Remove such rows from `sends`; or, if the log has all of them, use slots `sends_only`."
    stream.flag_rows(mapping.rows.theirs("event"), bad, problem, remedy)
    raise_faults(stream.faults)


def _user_slots(
    mapping: StreamMapping, grid: SlotGrid, stream: StreamRows, kept: BoolArray, span: tuple[int, int], leave: IntArray
) -> UserSlots:
    times = bounds(grid, *span)
    if len(times) < 2:
        problem = f"the stream does not cover one complete period of {grid.every} at {grid.at} {grid.time_zone}"
        remedy = "Use a finer grid; or give `span`, if the observation period is longer than the rows."
        raise_faults([Fault(str(mapping.rows.path), problem, remedy)])
    if stream.start is not None:
        start = stream.start
    elif grid.start_events:
        start = _first_time(stream, kept & stream.named(grid.start_events))
    elif grid.start == "stream":
        start = np.full(len(stream.user_ids), times[0] - 1)
    else:
        start = _first_time(stream, kept)
    return UserSlots.build(times, start, leave)


def _first_time(stream: StreamRows, rows: BoolArray) -> IntArray:
    """Return the earliest time of each user (U,) among the rows of a mask (n,), `NEVER` for users without one."""
    out = np.full(len(stream.user_ids), NEVER, dtype=np.int64)
    np.minimum.at(out, stream.user[rows], stream.time[rows])
    return out


def _origins(mapping: StreamMapping, stream: StreamRows, slots: UserSlots, sends: IntArray) -> IntArray:
    """Return the row of each slot's send, the first if there are several, and -1 for none."""
    assert isinstance(mapping.slots, SlotGrid)
    slot = slots.row(stream.user[sends], stream.time[sends])
    order = np.lexsort((stream.time[sends], slot))
    order = order[slot[order] >= 0]
    later = np.append(False, slot[order][1:] == slot[order][:-1])[: len(order)]
    if mapping.slots.several == "error" and later.any():
        bad = np.zeros(len(stream), dtype=bool)
        bad[sends[order[later]]] = True
        stream.flag_rows(
            mapping.rows.theirs("time"),
            bad,
            f"the user has an earlier send in the same slot's period of {mapping.slots.every}",
            "Use a finer grid; or `several: first`, which keeps later sends as events and counts them.",
        )
        raise_faults(stream.faults)
    origin = np.full(len(slots), -1, dtype=np.int64)
    origin[slot[order[~later]]] = sends[order[~later]]
    return origin


def _decisions(
    mapping: StreamMapping,
    modules: ActionSpace,
    stream: StreamRows,
    rule: IntArray,
    origin: IntArray,
    user: IntArray,
    time: IntArray,
) -> pd.DataFrame:
    """Return slots as a table in the native columns; `origin` is the row of each slot's send, -1 for none."""
    sent = np.flatnonzero(origin >= 0)
    # Rows of the stream in ascending order, and the slots to which their values belong.
    sent = sent[np.argsort(origin[sent], kind="stable")]
    source = origin[sent]
    ids = stream.user_ids[user]
    on_grid = isinstance(mapping.slots, SlotGrid)
    moment, moments = pd.factorize(time)
    whole = moments.astype("datetime64[us]").astype("datetime64[m]" if on_grid else "datetime64[us]")
    texts = whole.astype(str).astype(object)
    frame: dict[str, Any] = {
        "decision_id": ids.astype(str).astype(object) + ("@" + texts)[moment],
        "user_id": ids,
        "time": timestamps(time),
        modules.names[0]: np.full(len(time), modules[0].actions[0], dtype=object),
    }
    for native in decision_columns(modules):
        for k, sends in enumerate(mapping.sends):
            if native not in sends.columns and native not in sends.constants:
                continue
            mine = rule[source] == k
            column = frame.setdefault(native, np.full(len(time), None, dtype=object))
            if native in sends.constants:
                column[sent[mine]] = sends.constants[native]
            elif native.startswith("propensity") and native not in modules.names:
                column[sent[mine]] = stream.raw(sends.columns[native], source[mine])
            else:
                column[sent[mine]] = stream.texts(sends.columns[native], source[mine])
    if (path := mapping.rows.columns.get("arm")) is not None:
        frame["arm"] = _arms(stream, path, user, time)
    return _frame(frame)


def _arms(stream: StreamRows, path: str, user: IntArray, time: IntArray) -> ObjectArray:
    """Return the arm of each slot: that of the user's latest row up to it, as a later one may depend on the send."""
    arms = stream.texts(path, np.arange(len(stream)))
    named = np.flatnonzero(arms != "")
    named = named[argsort_by_user_and_time(stream.user[named], stream.time[named])]
    offsets = np.searchsorted(stream.user[named], np.arange(len(stream.user_ids) + 1)).astype(np.int64)
    latest = Timeline(stream.time[named], offsets).before(user, time, inclusive=True) - 1
    out = np.full(len(time), None, dtype=object)
    known = latest >= offsets[user]
    out[known] = arms[named[latest[known]]]
    return out


def _events(mapping: StreamMapping, stream: StreamRows, rows: IntArray) -> pd.DataFrame:
    """Return rows of the stream, ascending, as events in the native columns."""
    value = np.full(len(rows), None, dtype=object)
    paths = [value_path(mapping.values, name) for name in stream.names]
    for path in dict.fromkeys(path for path in paths if path is not None):
        mine = np.array([one == path for one in paths], dtype=bool)[stream.event[rows]]
        value[mine] = stream.raw(path, rows[mine])
    return _frame(
        {
            "user_id": stream.user_ids[stream.user[rows]],
            "time": timestamps(stream.time[rows]),
            "event": np.asarray(stream.names, dtype=object)[stream.event[rows]],
            "value": value,
        }
    )


def _frame(columns: Mapping[str, Any]) -> pd.DataFrame:
    """Return a table whose text columns stay objects; inferring their types would take a third of the reading time."""
    kept = {name: pd.Series(part, dtype="object") if part.dtype == object else part for name, part in columns.items()}
    return pd.DataFrame(kept)


def _grid_notes(
    grid: SlotGrid, history: History, stream: StreamRows, origin: IntArray, unplaced: IntArray
) -> list[str]:
    """Return notes on the slots and sends of a grid, and on events between slots and their sends."""
    d, sent = history.decisions, np.flatnonzero(origin >= 0)
    empty = np.bincount(d.user, minlength=history.n_users) == 0
    notes = [
        f"slots every {grid.every} at {grid.at} {grid.time_zone}: {len(origin):,}, {len(sent):,} with a send; kept as "
        f"events instead of decisions: {len(unplaced):,} sends outside all slots or after another send of their slot; "
        f"{np.count_nonzero(empty):,} users without a slot"
    ]
    if not len(sent):
        return notes
    lag = stream.time[origin[sent]] - d.time[sent]
    timeline = Timeline(history.events.time, history.event_offsets)

    def busy(rows: IntArray, length: IntArray) -> float:
        """Return the share of slots with an event of the user within a length (microseconds) after them."""
        after = timeline.before(d.user[rows], d.time[rows], inclusive=True)
        return float(np.mean(timeline.before(d.user[rows], d.time[rows] + length) > after))

    unsent = np.flatnonzero(origin < 0)
    text = (
        f"sends are {np.median(lag) / HOUR:.1f} h (median) to {lag.max() / HOUR:.1f} h after their slot; "
        f"{busy(sent, lag):.1%} of them follow an event of the user in between"
    )
    if len(unsent):
        share = busy(unsent, np.resize(lag, len(unsent)))
        text += f", and {share:.1%} of slots without a send have an event in an equally long interval"
    return [*notes, text]


def _in_names_of_stream(
    fault: Fault, mapping: StreamMapping, stream: StreamRows, rule: IntArray, places: dict[str, IntArray]
) -> Fault:
    """Return a fault of the native tables with the stream's file, row and column."""
    if fault.file not in places or fault.row is None:
        source = mapping.users if fault.file == "users" and mapping.users else mapping.rows
        return replace(fault, file=str(source.path))
    row = int(places[fault.file][fault.row - 1])
    if row < 0:
        return fault
    file, number = stream.place(row)
    column = fault.column or ""
    if fault.file == "decisions" and rule[row] >= 0:
        column = mapping.sends[rule[row]].columns.get(column, column)
    elif column == "value":
        column = value_path(mapping.values, stream.names[stream.event[row]]) or column
    return replace(fault, file=file, row=number, column=mapping.rows.columns.get(column, column))
