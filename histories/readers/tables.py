"""Read a history from CSV, Parquet or JSON-lines files by a mapping of column names."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from typing import Any, Literal

import numpy as np
import pandas as pd

from crosschannel.core.action_space import ActionSpace
from crosschannel.core.errors import ConfigError, Fault, InputError, nearest, raise_faults
from crosschannel.core.table_validator import TableValidator
from crosschannel.histories.history import History
from crosschannel.histories.propensities.sources import check_source
from crosschannel.histories.readers.decided.checking import check_arms
from crosschannel.histories.readers.decided.days import source_of_decisions
from crosschannel.histories.readers.decided.joining import join_decisions, read_decisions
from crosschannel.histories.readers.repeats import Duplicates, find_repeats
from crosschannel.histories.readers.slots import SlotGrid, check_slots
from crosschannel.histories.readers.sources import (
    SourceRows,
    TableSource,
    anonymous_rows,
    concat_decisions,
    decision_columns,
    empty_note,
    read_source,
    span_of,
    without_rows,
)
from crosschannel.histories.readers.stream.sent_tables import history_of_sends
from crosschannel.histories.values.action_names import check_action_names
from crosschannel.histories.values.validation import DECISION_COLUMNS, EVENT_COLUMNS, OPTIONAL_EVENT_COLUMNS

#: In a smaller log it may be chance that every decision is a send.
MIN_ROWS_TO_CALL_SENDS = 20


@dataclass(frozen=True)
class TableMapping:
    """The files of a history, and the names of their columns.

    Attributes:
        decisions: The file of decisions: one row for each slot, also where nothing was sent; or, with `slots`, one row
            for each message that was sent. These need no `decision_id`, and may be a list of files that name their
            columns, times and numbers in ways of their own.
        events: Files of events, which are concatenated.
        modules: The action space: entries with `name`, `actions` and optionally `parent`, `requires`, `labels`,
            `condition_on` and `nothing`. The first action of the first module sends nothing. Where the names show that
            it is another one, they are refused; `nothing`, which repeats that first action, overrules the names.
        users: The file of users, if there is one.
        slots: If the decisions are sends only: a `SlotGrid`, slots at fixed times, in which nothing was sent unless the
            slot's period has a send; or `sends_only`, no other slots, so that nothing can be learned about sending
            nothing. As in `StreamMapping`.
        decided: The decisions that a policy of this package made, such as the files that `decide` wrote, in native
            columns with their propensities. Without `slots` they are further rows of `decisions`, and take the place of
            those of the same users and times; with slots see `StreamMapping`.
        duplicates: If events (with `slots`, sends as well) of the same user have the same `message_id`: `error`, or
            `keep_first`, which keeps the earliest and counts the others.
        anonymous: If a decision or event has no user: `error`, or `leave_out`, which is counted.
        propensity_source: The source of the propensities of rows that do not name it themselves
            (`source_of_propensity`), by default `logged`; with `missing` these propensities are not used.
        span: Start and end of the observation period, such as `[2024-05-01, 2024-06-30T18:00]` (UTC), if it is longer
            than from the first to the last event.
        name: The history's name, for reports.
    """

    decisions: TableSource | tuple[TableSource, ...]
    events: tuple[TableSource, ...] = ()
    modules: tuple[Mapping[str, Any], ...] = ()
    users: TableSource | None = None
    slots: str | SlotGrid | None = None
    decided: TableSource | None = None
    duplicates: Duplicates = "error"
    anonymous: Literal["error", "leave_out"] = "error"
    propensity_source: str | None = None
    span: tuple[str, str] | None = None
    name: str = "history"

    def __post_init__(self) -> None:
        if self.span is not None:
            span_of(self.span)
        if not self.events:
            raise ConfigError("the mapping has no `events`: give at least one file of events")
        modules = ActionSpace.from_mapping(self.modules)
        check_action_names(modules)
        if self.propensity_source is not None:
            check_source(self.propensity_source)
        if not self.decision_sources:
            raise ConfigError("the mapping has no `decisions`: give at least one file")
        if self.slots is not None:
            check_slots(self.slots, with_users=self.users is not None)
        elif len(self.decision_sources) > 1:
            raise ConfigError(
                "`decisions` may be a list of files only with `slots`, where they list messages that were sent; files "
                "of one layout may be a folder: give its `path`"
            )
        of_sends = () if self.slots is None else ("message_id",)
        # Sends have no ids of decisions that an event could name.
        of_events = OPTIONAL_EVENT_COLUMNS if self.slots is None else ("value",)
        for table, sources, known in (
            ("decisions", self.decision_sources, (*decision_columns(modules), *of_sends)),
            ("events", self.events, (*EVENT_COLUMNS, *of_events, "message_id")),
        ):
            for one in sources:
                for native in (*one.columns, *one.constants):
                    if native not in known:
                        raise ConfigError(f"unknown native column {native!r} of {table}. {nearest(native, known)}")

    @property
    def decision_sources(self) -> tuple[TableSource, ...]:
        """Return the files of decisions."""
        return (self.decisions,) if isinstance(self.decisions, TableSource) else tuple(self.decisions)


def read_tables(mapping: TableMapping) -> History:
    """Read files by a mapping; columns that are neither mapped nor native are ignored, except attributes of users.

    There are two steps, each of which reports all its faults at once: files, columns and times; then everything that
    `History.from_tables` validates. Messages have the files' own column names and row numbers.

    Raises:
        InputError: With every fault of a step.
    """
    modules = ActionSpace.from_mapping(mapping.modules)
    faults: list[Fault] = []
    known, required = decision_columns(modules), (*DECISION_COLUMNS, *modules.names)
    if mapping.slots is not None:
        required = tuple(native for native in required if native != "decision_id")
    sources = [
        read_source(source, _with_message_id(source, known), required, faults) for source in mapping.decision_sources
    ]
    decisions = sources[0]
    if mapping.slots is None:
        _refuse_sends(decisions, modules, faults)
    known_of_events = (*EVENT_COLUMNS, *(OPTIONAL_EVENT_COLUMNS if mapping.slots is None else ("value",)))
    events = [
        read_source(source, _with_message_id(source, known_of_events), EVENT_COLUMNS, faults)
        for source in mapping.events
    ]
    users = None if mapping.users is None else read_source(mapping.users, None, ("user_id",), faults)
    decided = None
    if mapping.decided is not None and mapping.slots is None:
        decided = read_decisions(source_of_decisions(mapping.decided), modules, faults)
    raise_faults(faults)
    if decided is not None:
        check_arms(decided)
    if mapping.slots is not None:
        return history_of_sends(mapping, mapping.slots, sources, events, users)
    notes = list(empty_note([decisions, *events]))
    if mapping.anonymous == "leave_out":
        masks = [anonymous_rows(TableValidator(rows.frame, "", []), "user_id") for rows in (decisions, *events)]
        decisions, *events = (without_rows(*one) for one in zip((decisions, *events), masks, strict=True))
        notes.append(f"left out: {sum(int(mask.sum()) for mask in masks):,} anonymous rows")
    events, repeated = _without_repeats(events, mapping.duplicates)
    notes += repeated
    all_decisions, frames = [decisions], [rows.frame for rows in events]
    if decided is not None:
        joined = join_decisions(decisions, decided, modules)
        all_decisions, frames = [joined.log, joined.decided], [joined.renamed_in(frame) for frame in frames]
        notes += joined.notes
    pieces = {"decisions": all_decisions, "events": events, "users": [] if users is None else [users]}
    try:
        history = History.from_tables(
            concat_decisions([rows.frame for rows in all_decisions], modules),
            pd.concat(frames, ignore_index=True) if len(frames) > 1 else frames[0],
            modules,
            None if users is None else users.frame,
            span=None if mapping.span is None else span_of(mapping.span),
            propensity_source=mapping.propensity_source,
            name=mapping.name,
            place=lambda table, row: "{1} row {2}".format(*_place(pieces[table], row)),
        )
    except InputError as error:
        raise InputError([_in_names_of_file(fault, pieces) for fault in error.faults]) from None
    return replace(history, notes=(*notes, *history.notes))


def _with_message_id(source: TableSource, known: Sequence[str]) -> tuple[str, ...]:
    """Return the native columns of a source, with the message id if it is mapped."""
    return (*known, "message_id") if "message_id" in source.columns else tuple(known)


def _without_repeats(events: Sequence[SourceRows], duplicates: Duplicates) -> tuple[list[SourceRows], list[str]]:
    """Return events without those that repeat an earlier message, and notes; `message_id` identifies messages.

    Raises:
        InputError: If ids are missing or not unique, or if repeats are not to be left out.
    """
    if not any("message_id" in rows.frame for rows in events):
        return list(events), []
    frame = pd.concat([rows.frame for rows in events], ignore_index=True)
    table = TableValidator(frame, "events", [])
    time, valid = table.times("time")
    if table.faults or any(table.missing(name).any() for name in ("user_id", "event")):
        return list(events), []  # faults that the history reports with all others
    named = np.concatenate([np.full(len(rows.frame), "message_id" in rows.frame) for rows in events])
    repeats = find_repeats(
        table.texts("message_id"),
        table.texts("user_id"),
        table.texts("event"),
        time,
        named & valid,
        duplicates,
        partial(table.flag_rows, "message_id"),
    )
    if table.faults:
        raise InputError([_in_names_of_file(fault, {"events": events}) for fault in table.faults])
    parts = np.split(repeats.rows, np.cumsum([len(rows.frame) for rows in events])[:-1])
    notes = [f"left out: {np.count_nonzero(repeats.rows):,} duplicates", *repeats.notes()]
    return [without_rows(rows, part) for rows, part in zip(events, parts, strict=True)], notes


def _refuse_sends(decisions: SourceRows, modules: ActionSpace, faults: list[Fault]) -> None:
    """Add a fault if every decision is a send: then nothing can be compared with sending nothing."""
    module = modules[0]
    if module.name not in decisions.frame or len(decisions.frame) < MIN_ROWS_TO_CALL_SENDS:
        return
    actions = TableValidator(decisions.frame[[module.name]], "", []).texts(module.name)
    if ((actions != module.actions[0]) & (actions != "")).all():
        problem = (
            f"every row is a send: no row has the action {module.actions[0]!r}, so that nothing can be compared with it"
        )
        remedy = (
            'Set `slots` in the mapping: a grid such as {every: 1d, at: "10:00"} makes the slots in which nothing was '
            "sent, and their propensities are estimated; `sends_only` if there were no other slots."
        )
        faults.append(Fault(str(decisions.source.path), problem, remedy, decisions.source.theirs(module.name)))


def _place(sources: Sequence[SourceRows], row: int) -> tuple[TableSource, str, int]:
    """Return the source of a row of concatenated sources, its file, and its number there, counted from 1."""
    for rows in sources[:-1]:
        if row <= len(rows.frame):
            return (rows.source, *rows.place(row))
        row -= len(rows.frame)
    return (sources[-1].source, *sources[-1].place(row))


def _in_names_of_file(fault: Fault, pieces: Mapping[str, Sequence[SourceRows]]) -> Fault:
    """Return the fault with the file, row number and column names of the user's file."""
    source, row = pieces[fault.file][0].source, fault.row
    file = str(source.path)
    if row is not None:
        source, file, row = _place(pieces[fault.file], row)

    def rename(text: str) -> str:
        return re.sub(r"`([^`]+)`", lambda match: f"`{source.theirs(match[1])}`", text)

    return replace(
        fault,
        file=file,
        row=row,
        column=None if fault.column is None else source.theirs(fault.column),
        problem=rename(fault.problem),
        remedy=rename(fault.remedy),
    )
