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

from dataclasses import replace

import numpy as np
import pandas as pd

from crosschannel.core.action_space import ActionSpace
from crosschannel.core.arrays import BoolArray, IntArray
from crosschannel.core.errors import Fault, InputError
from crosschannel.core.times import NEVER
from crosschannel.core.wording import counted
from crosschannel.histories.history import History
from crosschannel.histories.observation.users import OBSERVATION_COLUMNS
from crosschannel.histories.readers.slots import SlotGrid
from crosschannel.histories.readers.sources import concat_decisions
from crosschannel.histories.readers.stream.cleaning import CleanRows, clean
from crosschannel.histories.readers.stream.decided import Decided, join, place_decided, read_decided
from crosschannel.histories.readers.stream.mapping import StreamMapping
from crosschannel.histories.readers.stream.native import Slots, decisions_table, events_table
from crosschannel.histories.readers.stream.notes import copy_notes, grid_notes, zone_notes
from crosschannel.histories.readers.stream.opening import open_stream
from crosschannel.histories.readers.stream.placing import origins, refuse_unsent, send_actions, user_slots
from crosschannel.histories.readers.stream.rows import StreamRows, value_path


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
        ConfigError: If the span does not fit the rows, or the rows leave open what it is.
    """
    return history_of(mapping, open_stream(mapping))


def history_of(mapping: StreamMapping, stream: StreamRows, what: str = "stream") -> History:
    """Return the history of an opened stream, or of what else it is named in the notes; see `read_stream`."""
    modules = ActionSpace.from_mapping(mapping.modules)
    rule = _send_rules(mapping, stream)
    rows = clean(mapping, stream, rule >= 0)
    kept, span, grid = rows.kept, rows.span, mapping.slots
    sends = np.flatnonzero(kept & (rule >= 0))
    slots, delivered = Slots(sends, stream.user[sends], stream.time[sends]), sends[:0]
    decided: Decided | None = None
    joined: tuple[str, ...] = ()
    if isinstance(grid, SlotGrid):
        refuse_unsent(mapping, modules, stream, rule)
        decided = None if mapping.decided is None else read_decided(mapping.decided, modules, stream)
        slots, delivered, joined = _place_sends(grid, mapping, modules, stream, rows, rule, decided)

    other = kept & (rule < 0)
    chosen = other if mapping.events is None else other & stream.named(mapping.events)
    unplaced = np.setdiff1d(sends, np.append(slots.origin, delivered))
    events = np.sort(np.append(np.flatnonzero(chosen), unplaced))
    decisions = decisions_table(mapping, modules, stream, kept, rule, slots)
    try:
        history = History.from_tables(
            decisions if decided is None else concat_decisions([decisions, decided.frame], modules),
            events_table(mapping, stream, events),
            modules,
            pd.DataFrame({"user_id": stream.user_ids}) if stream.users is None else stream.users,
            span=span,
            propensity_source=mapping.propensity_source,
            name=mapping.name,
        )
    except InputError as error:
        places = {"decisions": slots.origin, "events": events}
        raise InputError(
            [_in_names_of_stream(fault, mapping, stream, rule, places, decided) for fault in error.faults]
        ) from None
    notes = [
        f"{what}: {counted(len(stream), 'row')} in {counted(len(stream.files), 'file')}, "
        f"{len(sends):,} of them sends; left out: "
        f"{rows.counts}, {counted(int(np.count_nonzero(other & ~chosen)), 'event')} missing from `events`",
        *copy_notes(stream, kept),
        *stream.notes,
        *rows.notes,
        *joined,
    ]
    if isinstance(grid, SlotGrid):
        notes += [*zone_notes(grid, stream), *grid_notes(grid, history, stream, slots, unplaced)]
    elif history.modules.sends(history.decisions.actions).all():
        notes.append(
            "slots are sends only: nothing can be learned about sending nothing, and difference in differences has no "
            "controls"
        )
    return replace(
        history,
        users=None if stream.users is None else history.users,
        observed_from=_observed_from(grid, stream, kept, rule >= 0, history),
        notes=(*notes, *history.notes),
    )


def _place_sends(
    grid: SlotGrid,
    mapping: StreamMapping,
    modules: ActionSpace,
    stream: StreamRows,
    rows: CleanRows,
    rule: IntArray,
    decided: Decided | None,
) -> tuple[Slots, IntArray, tuple[str, ...]]:
    """Return the slots of a grid without those that decisions replace, the sends that carry these out, and notes."""
    sends = np.flatnonzero(rows.kept & (rule >= 0))
    leave = stream.first_time(rows.kept & stream.named(grid.leave_events))
    placed = user_slots(grid, stream, rows.kept, rows.span, leave)
    present = sends[stream.time[sends] < leave[stream.user[sends]]]
    if decided is None:
        return Slots(origins(grid, stream, placed, present), placed.user, placed.time), sends[:0], ()
    actions = send_actions(mapping, modules, stream, rule)
    joined = join(decided, stream, placed, sends, actions[sends])
    delivered = sends[joined.delivered]
    origin = origins(grid, stream, placed, np.setdiff1d(present, delivered))
    left = (origin >= 0) | ~joined.replaced
    return Slots(origin[left], placed.user[left], placed.time[left]), delivered, joined.notes


def _observed_from(
    grid: str | SlotGrid, stream: StreamRows, kept: BoolArray, sent: BoolArray, history: History
) -> IntArray:
    """Return when each user's observation begins (U,): with the start that the grid declares, or an earlier row.

    Rows that are not events of the history count as well; after a row that is not a send (`sent`, (n,)) it begins a
    microsecond later: see `first_rows`. A column `observed_from` of the table of users comes before
    both. Leaving does not end a user's observation: what follows is an outcome.
    """
    if stream.users is not None and OBSERVATION_COLUMNS[0] in stream.users.columns:
        return history.observed_from
    start = stream.first_time(kept & ~sent)
    start = np.minimum(stream.first_time(kept & sent), start + (start < NEVER))
    if isinstance(grid, SlotGrid):
        if stream.start is not None:
            start = np.minimum(start, stream.start)
        elif grid.start == "stream":
            start = np.full(len(start), history.span[0])
    start = start[pd.Index(stream.user_ids).get_indexer(pd.Index(history.user_ids))]
    return np.minimum(np.clip(start, *history.span), history.observed_from)


def _send_rules(mapping: StreamMapping, stream: StreamRows) -> IntArray:
    """Return the index of the entry of `sends` that each row matches (n,), -1 for none."""
    rule = np.full(len(stream), -1, dtype=np.int64)
    for k, sends in enumerate(mapping.sends):
        rule[stream.named(sends.events)] = k
    return rule


def _in_names_of_stream(
    fault: Fault,
    mapping: StreamMapping,
    stream: StreamRows,
    rule: IntArray,
    places: dict[str, IntArray],
    decided: Decided | None,
) -> Fault:
    """Return a fault of the native tables with the stream's file, row and column."""
    if fault.file not in places or fault.row is None:
        from_users = fault.file == "users" and mapping.users is not None
        return replace(fault, file=str(mapping.users.path) if from_users and mapping.users else stream.source)
    if decided is not None and fault.file == "decisions" and fault.row > len(places["decisions"]):
        return place_decided(decided, replace(fault, row=fault.row - len(places["decisions"])))
    row = int(places[fault.file][fault.row - 1])
    if row < 0:
        return fault
    file, number = stream.place(row)
    column = fault.column or ""
    if fault.file == "decisions" and rule[row] >= 0:
        column = mapping.sends[rule[row]].columns.get(column, column)
    elif column == "value" and "value" not in file.names:
        column = value_path(mapping.values, stream.names[stream.event[row]]) or column
    return replace(fault, file=file.table.file, row=number, column=file.names.get(column, column))
