"""Reads a history from one event stream of a customer-data platform: sends become decisions, all else is events.

A stream holds what was sent, and no slot in which nothing was. The mapping says how those arise (`slots`), since no
default would be right: either there are none (`sends_only`), or slots lie on a calendar (`SlotGrid`).

On a grid every decision has its slot's time, also where a message was sent later in the slot's period. Three things
must hold of a decision's time, and they decide this:

- Slots with and without a send must be comparable. With the sends' own times, the hour would tell which slots are
  which: no propensity could be estimated, and no control would have windows at the hours of a treated slot.
- The window before must hold none of the message's effect: the slot is never later than the send.
- Nothing that came after the time may have made the decision. That holds if what was sent in a period was settled when
  the slot began. A message that answers something the user did between the slot and the send (an abandoned cart) breaks
  it: what brought about the message then counts as its effect. The stream cannot tell, but it shows how much room there
  is for it: the notes of the history say how far sends lie behind their slots, and how often their users did something
  in between, beside the same share of slots without a send. The remedy is a finer grid, or one that begins just before
  the sends go out.

So the reward of a decision is that of sending within the period, against not sending in it, counted from the slot on.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

import numpy as np
import pandas as pd

from crosschannel.core.action_space import ActionSpace
from crosschannel.core.arrays import BoolArray, IntArray
from crosschannel.core.errors import Fault, InputError
from crosschannel.core.sorting import by_user_and_time
from crosschannel.core.table_validator import ObjectArray
from crosschannel.core.times import HOUR, NEVER, timestamps
from crosschannel.histories.history import History
from crosschannel.histories.readers.slots import SlotGrid, UserSlots, bounds
from crosschannel.histories.readers.stream.mapping import StreamMapping
from crosschannel.histories.readers.stream.rows import StreamRows, open_stream, stop, value_path
from crosschannel.histories.readers.tables import decision_columns, span_of
from crosschannel.histories.windows import Timeline


def read_stream(mapping: StreamMapping) -> History:
    """Reads a stream by a mapping.

    Reading has steps, and each reports all its faults at once, with file, row, column, value and remedy: files, columns
    and times; users and names of events; duplicates; sends that share a slot; all that `History.from_tables` validates.

    - Sends outside of all slots (before a user's first one, after the last whole period, after leaving) and, where the
      grid says `several: first`, later sends of a period are no decisions. They stay in the history as events under
      their own names. The history's notes count them, and all that was left out.
    - A slot's `arm` is that of its user's latest row before the slot which names one, and missing where none does.
    - Ids of decisions, where no `decision_id` is mapped, are `user@time`, so that a longer stream gives the same ids.

    Raises:
        InputError: With every fault found in a step.
    """
    modules = ActionSpace.from_dict(mapping.modules)
    stream = open_stream(mapping)
    span = span_of(mapping.span) if mapping.span else (int(stream.time.min()), int(stream.time.max()))
    kept = _without_duplicates(mapping, stream)
    rule = _rules(mapping, stream)
    sends = np.flatnonzero(kept & (rule >= 0))
    if isinstance(mapping.slots, SlotGrid):
        _refuse_nothing(mapping, modules, stream, rule)
        leave = _first(stream, kept & stream.named(mapping.slots.leave_events))
        slots = _user_slots(mapping, mapping.slots, stream, kept, span, leave)
        staying = sends[stream.time[sends] < leave[stream.user[sends]]]
        origin = _origins(mapping, stream, slots, staying)
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
        raise InputError([_in_their_words(fault, mapping, stream, rule, places) for fault in error.faults]) from None
    notes = [
        f"stream: {len(stream):,} rows in {len(stream.sheets):,} files, {len(sends):,} of them sends; left out: "
        f"{np.count_nonzero(~kept):,} duplicates, {np.count_nonzero(other & ~chosen):,} events not among `events`"
    ]
    if isinstance(mapping.slots, SlotGrid):
        notes += _grid_notes(mapping.slots, history, stream, origin, unplaced)
    elif history.modules.sends(history.decisions.actions).all():
        notes.append(
            "slots are sends only: nothing can be learned about sending nothing, and difference in differences has no "
            "controls"
        )
    return replace(history, users=None if stream.users is None else history.users, notes=tuple(notes))


def _without_duplicates(mapping: StreamMapping, stream: StreamRows) -> BoolArray:
    """Which rows (n,) are kept: all, but for later rows with the id of an earlier one where the mapping says so."""
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
    stream.note(column, missing, "the message id is missing", "Fill it in, or leave `message_id` out of the mapping.")
    remedy = "Ids must tell rows apart: choose another column for `message_id`, or correct the export."
    stream.note(column, again & ~same, "another user, event or time has the same message id", remedy)
    if mapping.duplicates == "error":
        remedy = "Remove the copies, or declare `duplicates: keep_first`."
        stream.note(column, same, "the row stands in the stream twice", remedy)
    stop(stream.faults)
    return np.asarray(~same)


def _rules(mapping: StreamMapping, stream: StreamRows) -> IntArray:
    """Which entry of the mapping's `sends` each row is of (n,), -1 where of none."""
    rule = np.full(len(stream), -1, dtype=np.int64)
    for k, sends in enumerate(mapping.sends):
        rule[stream.named(sends.events)] = k
    return rule


def _refuse_nothing(mapping: StreamMapping, modules: ActionSpace, stream: StreamRows, rule: IntArray) -> None:
    """On a grid a row that says that nothing was sent would be counted as a send, or hide one."""
    name, nothing = modules.names[0], modules[0].actions[0]
    bad = np.zeros(len(stream), dtype=bool)
    for k, sends in enumerate(mapping.sends):
        rows = np.flatnonzero(rule == k)
        bad[rows] = (
            sends.constants[name] == nothing
            if name in sends.constants
            else (stream.texts(sends.columns[name], rows) == nothing)
        )
    problem = "this says that nothing was sent, and on a grid every slot without a send says so by itself"
    remedy = "Take such rows out of `sends`; or, where the log has all of them, use slots `sends_only`."
    stream.note(mapping.rows.theirs("event"), bad, problem, remedy)
    stop(stream.faults)


def _user_slots(
    mapping: StreamMapping, grid: SlotGrid, stream: StreamRows, kept: BoolArray, span: tuple[int, int], leave: IntArray
) -> UserSlots:
    times = bounds(grid, *span)
    if len(times) < 2:
        problem = f"the stream does not cover one whole period of {grid.every} at {grid.at} {grid.time_zone}"
        remedy = "Use a finer grid; or give `span`, if the stream was recorded for longer than its rows tell."
        stop([Fault(str(mapping.rows.path), problem, remedy)])
    if stream.start is not None:
        start = stream.start
    elif grid.start_events:
        start = _first(stream, kept & stream.named(grid.start_events))
    elif grid.start == "stream":
        start = np.full(len(stream.user_ids), times[0] - 1)
    else:
        start = _first(stream, kept)
    return UserSlots.of(times, start, leave)


def _first(stream: StreamRows, rows: BoolArray) -> IntArray:
    """The earliest time of each user (U,) among the rows of a mask (n,), `NEVER` where there is none."""
    out = np.full(len(stream.user_ids), NEVER, dtype=np.int64)
    np.minimum.at(out, stream.user[rows], stream.time[rows])
    return out


def _origins(mapping: StreamMapping, stream: StreamRows, slots: UserSlots, sends: IntArray) -> IntArray:
    """The row of the send that each slot got, -1 where it got none; the first one where there are several."""
    assert isinstance(mapping.slots, SlotGrid)
    slot = slots.row(stream.user[sends], stream.time[sends])
    order = np.lexsort((stream.time[sends], slot))
    order = order[slot[order] >= 0]
    later = np.append(False, slot[order][1:] == slot[order][:-1])[: len(order)]
    if mapping.slots.several == "error" and later.any():
        bad = np.zeros(len(stream), dtype=bool)
        bad[sends[order[later]]] = True
        stream.note(
            mapping.rows.theirs("time"),
            bad,
            f"the user has an earlier send in the same slot's period of {mapping.slots.every}",
            "Use a finer grid; or `several: first`, which keeps the later ones as events and counts them.",
        )
        stop(stream.faults)
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
    """Slots as a table in the native columns; `origin` is the row of each slot's send, -1 where there is none."""
    sent = np.flatnonzero(origin >= 0)
    # Ascending rows of the stream, and the slots to which their values go.
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
    """The arm of each slot: the latest that the user's rows up to it name; a later one may be due to a send."""
    arms = stream.texts(path, np.arange(len(stream)))
    named = np.flatnonzero(arms != "")
    named = named[by_user_and_time(stream.user[named], stream.time[named])]
    offsets = np.searchsorted(stream.user[named], np.arange(len(stream.user_ids) + 1)).astype(np.int64)
    latest = Timeline(stream.time[named], offsets).before(user, time, inclusive=True) - 1
    out = np.full(len(time), None, dtype=object)
    known = latest >= offsets[user]
    out[known] = arms[named[latest[known]]]
    return out


def _events(mapping: StreamMapping, stream: StreamRows, rows: IntArray) -> pd.DataFrame:
    """Rows of the stream, ascending, as events in the native columns."""
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
    """A table whose texts stay as they are: to look at each in order to guess its type takes a third of the reading."""
    kept = {name: pd.Series(part, dtype="object") if part.dtype == object else part for name, part in columns.items()}
    return pd.DataFrame(kept)


def _grid_notes(
    grid: SlotGrid, history: History, stream: StreamRows, origin: IntArray, unplaced: IntArray
) -> list[str]:
    """What the grid made of the sends, and how much room it leaves for what came between a slot and its send."""
    d, sent = history.decisions, np.flatnonzero(origin >= 0)
    empty = np.bincount(d.user, minlength=history.n_users) == 0
    notes = [
        f"slots every {grid.every} at {grid.at} {grid.time_zone}: {len(origin):,}, {len(sent):,} with a send; kept as "
        f"events, and no decisions: {len(unplaced):,} sends outside of all slots or behind another one of their slot; "
        f"{np.count_nonzero(empty):,} users without a slot"
    ]
    if not len(sent):
        return notes
    lag = stream.time[origin[sent]] - d.time[sent]
    timeline = Timeline(history.events.time, history.event_offsets)

    def busy(rows: IntArray, stretch: IntArray) -> float:
        after = timeline.before(d.user[rows], d.time[rows], inclusive=True)
        return float(np.mean(timeline.before(d.user[rows], d.time[rows] + stretch) > after))

    unsent = np.flatnonzero(origin < 0)
    text = (
        f"sends come {np.median(lag) / HOUR:.1f} h (median) to {lag.max() / HOUR:.1f} h after their slot; their users "
        f"had an event in between in {busy(sent, lag):.1%}"
    )
    if len(unsent):
        text += f", and in {busy(unsent, np.resize(lag, len(unsent))):.1%} of slots without a send in as long a stretch"
    return [*notes, text]


def _in_their_words(
    fault: Fault, mapping: StreamMapping, stream: StreamRows, rule: IntArray, places: dict[str, IntArray]
) -> Fault:
    """A fault of the native tables, with the stream's own file, row and column."""
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
