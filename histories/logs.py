"""The two logs of a history as columns: decisions, one for each slot, and events."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field, fields, replace
from typing import Any, TypeVar

import numpy as np
import numpy.typing as npt
import pandas as pd

from crosschannel.core.action_space import ActionSpace
from crosschannel.core.arrays import BoolArray, FloatArray, IntArray, ObjectArray, UIntArray
from crosschannel.core.errors import ConfigError
from crosschannel.core.times import timestamps
from crosschannel.histories.propensities.sources import SOURCE_COLUMN, source_codes, source_names
from crosschannel.histories.sorting import argsort_by_user_and_time

Table = TypeVar("Table", "DecisionLog", "EventLog")

#: `EventLog.message` of an event that names no decision, and of one that names a decision which the log does not have.
NO_MESSAGE, UNKNOWN_MESSAGE = -1, -2
#: What stands for the id of a decision that the log does not have, where events are written as a table.
_NOT_IN_THIS_LOG = "(not in this log)"


@dataclass(frozen=True)
class DecisionLog:
    """Decisions of a history, one entry per slot, whether or not a message was sent.

    Attributes:
        id: Ids (n,), unique.
        key: Stable 64-bit hashes of the ids (n,).
        user: Codes into `History.user_ids` (n,), ascending.
        time: Microseconds since 1970 UTC (n,), ascending within a user.
        actions: Canonical codes (n, M).
        propensity: Logged probability of each module's choice given the earlier ones (n, M); NaN where unknown.
        joint: Logged probability of the whole action (n,); NaN where unknown.
        policy: The policy that decided (n,), or None.
        arm: Experiment arm (n,), or None.
        eligible: Which actions could have been taken (n, sum of actions), or None if the log has no eligibility.
        propensity_source: Where each row's propensities come from (n,), codes into `PROPENSITY_SOURCES`; by default
            `logged`. Rows without any propensity are `missing` in any case.
    """

    id: ObjectArray
    key: UIntArray
    user: IntArray
    time: IntArray
    actions: IntArray
    propensity: FloatArray
    joint: FloatArray
    policy: ObjectArray | None = None
    arm: ObjectArray | None = None
    eligible: BoolArray | None = None
    propensity_source: IntArray = field(default_factory=lambda: np.zeros(0, dtype=np.int64))

    def __post_init__(self) -> None:
        source = self.propensity_source if len(self.propensity_source) else "logged"
        object.__setattr__(self, "propensity_source", source_codes(self.propensity, self.joint, source))

    def __len__(self) -> int:
        return len(self.time)

    def with_propensities(self, propensity: FloatArray, joint: FloatArray, source: str | IntArray) -> DecisionLog:
        """Return the same decisions with other propensities (n, M) and (n,), and their source, of all or by row."""
        return replace(
            self, propensity=propensity, joint=joint, propensity_source=source_codes(propensity, joint, source)
        )


@dataclass(frozen=True)
class EventLog:
    """Events of a history.

    Attributes:
        user: Codes into `History.user_ids` (e,), ascending.
        time: Microseconds since 1970 UTC (e,), ascending within a user.
        event: Codes into `History.event_names` (e,).
        value: Values (e,).
        message: Row of the decision whose message the event is about (e,), such as the one that was opened;
            `NO_MESSAGE` where the event names none, `UNKNOWN_MESSAGE` where it names one that the log does not have.
            None if no event of the log names one.
    """

    user: IntArray
    time: IntArray
    event: IntArray
    value: FloatArray
    message: IntArray | None = None

    def __len__(self) -> int:
        return len(self.time)


def take_rows(table: Table, rows: npt.NDArray[Any]) -> Table:
    """Return the chosen rows of a log, by mask or by index."""
    chosen = {f.name: getattr(table, f.name) for f in fields(table)}
    index = np.flatnonzero(rows) if rows.dtype == bool else rows
    return replace(table, **{name: array.take(index, axis=0) for name, array in chosen.items() if array is not None})


def renumber_messages(events: EventLog, new_row: IntArray) -> EventLog:
    """Return events whose decisions have other rows: `new_row` by old row, `UNKNOWN_MESSAGE` where it is left out."""
    if events.message is None:
        return events
    named = events.message >= 0
    message = np.array(events.message)
    message[named] = new_row[message[named]]
    return replace(events, message=message)


def sort_logs(decisions: DecisionLog, events: EventLog) -> tuple[DecisionLog, EventLog]:
    """Return both logs sorted by (user, time), with the events' messages as rows of the sorted decisions."""
    order = argsort_by_user_and_time(decisions.user, decisions.time)
    new_row = np.empty(len(order), dtype=np.int64)
    new_row[order] = np.arange(len(order))
    in_order = take_rows(events, argsort_by_user_and_time(events.user, events.time, events.event))
    return take_rows(decisions, order), renumber_messages(in_order, new_row)


def rows_after_selection(chosen: BoolArray) -> IntArray:
    """Return the row of every decision (n,) among the chosen ones, `UNKNOWN_MESSAGE` for the others."""
    return np.where(chosen, np.cumsum(chosen) - 1, UNKNOWN_MESSAGE)


def decisions_frame(decisions: DecisionLog, user_ids: ObjectArray, modules: ActionSpace) -> pd.DataFrame:
    """Return the decisions as a table in the native folder's columns, without propensities of which none is known."""
    d = decisions
    sent = modules.sends(d.actions)
    frame = pd.DataFrame({"decision_id": d.id, "user_id": user_ids[d.user], "time": timestamps(d.time)})
    for m, module in enumerate(modules):
        named = np.asarray(module.actions, dtype=object)[d.actions[:, m]]
        if m > 0:
            named[~sent] = None
        frame[module.name] = named
    for m, module in enumerate(modules):
        if not len(d) or not np.isnan(d.propensity[:, m]).all():
            frame[f"propensity_{module.name}"] = d.propensity[:, m]
    if not len(d) or not np.isnan(d.joint).all():
        frame["propensity"] = d.joint
    if (d.propensity_source != source_codes(d.propensity, d.joint)).any():
        frame[SOURCE_COLUMN] = source_names(d.propensity_source)
    for column in ("policy", "arm"):
        if (values := getattr(d, column)) is not None:
            frame[column] = values
    if d.eligible is not None:
        frame = frame.assign(**listed_actions(d.eligible, modules, "eligible"))
    return frame


def listed_actions(mask: BoolArray, modules: ActionSpace, prefix: str) -> dict[str, ObjectArray]:
    """Return the columns `<prefix>_<module>` with the names of the actions in a mask (n, sum of actions)."""
    columns = {}
    for module, part in zip(modules, modules.split(mask), strict=True):
        names = np.asarray(module.actions, dtype=object)
        first, pattern = _patterns(part)
        listed = np.array(["|".join(names[row]) for row in part[first]], dtype=object)
        columns[f"{prefix}_{module.name}"] = listed[pattern]
    return columns


def _patterns(mask: BoolArray) -> tuple[IntArray, IntArray]:
    """Return the first row of each different row of a mask (n, A), and which of these every row equals (n,)."""
    packed = np.packbits(mask, axis=1)
    words = np.zeros((len(mask), -(-packed.shape[1] // 8) * 8), dtype=np.uint8)
    words[:, : packed.shape[1]] = packed
    pattern = np.zeros(len(mask), dtype=np.int64)
    for word in words.view(np.uint64).T:  # numbered again after each word, so that codes stay small
        code = np.unique(word, return_inverse=True)[1].reshape(-1)
        pattern = np.unique(pattern * (code.max(initial=0) + 1) + code, return_inverse=True)[1].reshape(-1)
    return np.unique(pattern, return_index=True)[1], pattern


def without_decisions(decisions: DecisionLog, events: EventLog, dropped: BoolArray) -> tuple[DecisionLog, EventLog]:
    """Return both logs without some decisions (n,); events about them name a decision that the log does not have."""
    if not dropped.any():
        return decisions, events
    return take_rows(decisions, ~dropped), renumber_messages(events, rows_after_selection(~dropped))


def events_frame(
    events: EventLog, user_ids: ObjectArray, event_names: Sequence[str], decision_ids: ObjectArray
) -> pd.DataFrame:
    """Return the events as a table in the native folder's columns."""
    e = events
    names = np.asarray(event_names, dtype=object)
    columns = {
        "user_id": user_ids[e.user],
        "time": timestamps(e.time),
        "event": names[e.event],
        "value": e.value,
    }
    if e.message is not None:
        unknown = e.message == UNKNOWN_MESSAGE
        ids = np.asarray(decision_ids.astype(str) if unknown.any() else decision_ids, dtype=object)
        named = np.full(len(e), None, dtype=object)
        named[e.message >= 0] = ids[e.message[e.message >= 0]]
        named[unknown] = _NOT_IN_THIS_LOG
        columns["decision_id"] = named
    return pd.DataFrame(columns)


def have_codes(event: IntArray, codes: Sequence[int], n_codes: int) -> BoolArray:
    """Return which events (e,) have one of the codes, of `n_codes` that there are."""
    wanted = np.zeros(n_codes, dtype=bool)
    wanted[list(codes)] = True
    return np.asarray(wanted[event])


def codes_of_names(names: Sequence[str], known: Sequence[str], setting: str = "") -> IntArray:
    """Return the codes of events by name; `name*` stands for every known one whose name has this prefix.

    Args:
        names: The names that are wanted.
        known: The names of all events, by code.
        setting: The setting that names them, such as `reward.goals`, for the error.

    Raises:
        ConfigError: If no event has the name.
    """
    codes: list[int] = []
    for name in names:
        prefix = name[:-1] if name.endswith("*") else None
        hits = [i for i, one in enumerate(known) if one == name or (prefix is not None and one.startswith(prefix))]
        if not hits:
            where = f"{setting}: " if setting else ""
            raise ConfigError(f"{where}the history has no event {name!r}; it has {sorted(known)}")
        codes += hits
    return np.array(codes, dtype=np.int64)
