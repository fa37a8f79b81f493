"""Validate tables in the native columns and convert them to arrays, or report every fault."""

from __future__ import annotations

import difflib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd

from crosschannel.core.action_space import ActionSpace
from crosschannel.core.arrays import BoolArray, FloatArray, IntArray, ObjectArray
from crosschannel.core.errors import Fault, InputError, nearest
from crosschannel.core.table_validator import TableValidator, first_true
from crosschannel.core.times import NEVER
from crosschannel.histories.observation.users import OBSERVATION_COLUMNS, check_order, declared_times
from crosschannel.histories.propensities.sources import (
    MISSING,
    PROPENSITY_SOURCES,
    SOURCE_COLUMN,
    check_source,
    read_sources,
)
from crosschannel.histories.values.action_columns import action_codes, eligible_mask, propensities
from crosschannel.histories.values.action_names import check_action_names
from crosschannel.histories.values.attributes import read_attributes
from crosschannel.histories.values.event_messages import message_notes, messages_of_events
from crosschannel.histories.values.identifiers import id_notes, lost_digits, means_nobody, read_user_ids

DECISION_COLUMNS = ("decision_id", "user_id", "time")
OPTIONAL_DECISION_COLUMNS = ("propensity", "policy", "arm", SOURCE_COLUMN)
#: With fewer values, three digits after a point may be chance.
MIN_VALUES_WITH_POINTS = 10
EVENT_COLUMNS = ("user_id", "time", "event")
OPTIONAL_EVENT_COLUMNS = ("value", "decision_id")
#: What programs write where an event has no name, without case.
_NO_NAMES = ("", "null", "none", "nil", "nan", "nat", "n/a", "<na>", "undefined", "inf", "-inf")


@dataclass(frozen=True)
class Tables:
    """Validated tables as arrays, n decisions, e events, U users, in the order of their files.

    Attributes:
        decision_id: Unique ids (n,), integers or text.
        decision_user: Codes into `user_ids` (n,).
        decision_time: Microseconds since 1970 UTC (n,).
        actions: Codes (n, M); 0 in the later modules where nothing is sent.
        propensity: Probability of each module's choice given the earlier ones (n, M); NaN where not logged.
        joint: Probability of the whole action (n,); NaN where not logged.
        propensity_source: Codes into `PROPENSITY_SOURCES` (n,), -1 where the table names no source.
        policy: The policy that decided (n,), or None.
        arm: Experiment arm (n,), or None.
        eligible: Which actions could have been taken (n, sum of actions), or None if the log has no eligibility.
        event_user: Codes into `user_ids` (e,).
        event_time: Microseconds since 1970 UTC (e,).
        event: Codes into `event_names` (e,).
        value: Values (e,), 1.0 for events that have none.
        message: Row of the decision that each event names (e,), as in `EventLog.message`; None without that column.
        user_ids: Ids (U,), sorted.
        event_names: Names of the event codes, sorted.
        users: The table of users in the order of `user_ids`, without their times of observation, or None.
        observed_from: When the users' observation begins, microseconds (U,), `NEVER` where not declared; None if the
            table of users has no such column.
        observed_until: When it ends (U,), the same.
        notes: What may be wrong with ids and attributes of users, for the history's summary.
    """

    decision_id: ObjectArray
    decision_user: IntArray
    decision_time: IntArray
    actions: IntArray
    propensity: FloatArray
    joint: FloatArray
    propensity_source: IntArray
    policy: ObjectArray | None
    arm: ObjectArray | None
    eligible: BoolArray | None
    event_user: IntArray
    event_time: IntArray
    event: IntArray
    value: FloatArray
    user_ids: ObjectArray
    event_names: tuple[str, ...]
    users: pd.DataFrame | None
    message: IntArray | None = None
    observed_from: IntArray | None = None
    observed_until: IntArray | None = None
    notes: tuple[str, ...] = ()

    def propensities(self, source: str) -> tuple[FloatArray, FloatArray, IntArray]:
        """Return propensities (n, M) and (n,) and their sources (n,), `source` where the table names none.

        Propensities whose source is `missing` are not used.
        """
        check_source(source)
        named = self.propensity_source
        code = np.where(named < 0, PROPENSITY_SOURCES.index(source), named)
        unused = code == MISSING
        return np.where(unused[:, None], np.nan, self.propensity), np.where(unused, np.nan, self.joint), code


def check_tables(
    decisions: pd.DataFrame,
    events: pd.DataFrame,
    modules: ActionSpace,
    users: pd.DataFrame | None,
    files: Mapping[str, str],
    *,
    starts: bool = False,
) -> Tables:
    """Validate tables in the native columns and return them as arrays.

    Nothing is repaired silently:

    - Times are datetimes or ISO 8601 text; a time without a zone is UTC.
    - Ids may be integers or text. If tables differ in that, ids are compared as text.
    - Where nothing is sent, the columns of the later modules have no meaning: actions become 0, and propensities 1.
    - Rows may have propensities or not: those without are `missing`. A row that has those of some modules only is a
      fault. If every module has a propensity and the joint one is missing, it is their product.
    - `source_of_propensity` names each row's source; where it is empty, that of the whole log applies.
    - `eligible_<module>` lists action names joined by `|`; an empty entry means that no action is eligible. If other
      modules have such a column and a module has none, all its actions are eligible.
    - Events that never have a value get the value 1; a value that is missing in some of an event's rows is a fault.
    - An event's `decision_id` may be missing, or name a decision that the log does not have, which is counted in a
      note; one of another user's decision is a fault.
    - Other columns are ignored.

    Args:
        decisions: As in `History.from_tables`.
        events: As in `History.from_tables`.
        modules: What could be chosen.
        users: `user_id`, optionally `observed_from` and `observed_until` (times), and attributes; or None.
        files: The file of each table, by table name, for messages.
        starts: Whether the log may be that of a start, before the first decision.

    Raises:
        InputError: With one fault for each kind of problem in each table.
        ConfigError: If the names of the modules' actions are ambiguous, or show that the first one is a message.
    """
    check_action_names(modules)
    faults: list[Fault] = []
    d = TableValidator(decisions, files.get("decisions", "decisions"), faults)
    e = TableValidator(events, files.get("events", "events"), faults)
    u = None if users is None else TableValidator(users, files.get("users", "users"), faults)
    _check_columns(d, e, u, modules)
    if len(d) == 0 and not starts:
        remedy = (
            "Check the path and the filters; slots in which nothing was sent are rows as well. To `start` without any, "
            "write the log by day (docs/simulation.md)."
        )
        d.flag("the log has no decisions", remedy)

    user_ids, decision_user, event_user, order = _users(d, e, u)
    decision_id = _decision_ids(d)
    decision_time, timed = d.times("time")
    event_time, _ = e.times("time")
    if d.has("time"):
        twice = pd.DataFrame({"user": decision_user, "time": decision_time}).duplicated().to_numpy()
        d.flag_rows(
            "time",
            twice & timed & (decision_user >= 0),
            "the user has another decision at the same time",
            "Merge them into one action, or give each slot its own time.",
        )
    actions = action_codes(d, modules)
    propensity, joint = propensities(d, modules, actions)
    source = read_sources(d, propensity, joint)
    eligible = eligible_mask(d, modules, actions)
    event, event_names = _events(e)
    value = _values(e, event, event_names)
    message = messages_of_events(e, decision_id, decision_user, event_user)
    policy, arm = d.labels("policy"), d.labels("arm")
    observed_from, observed_until = (declared_times(u, column, NEVER) for column in OBSERVATION_COLUMNS)
    if u is not None and observed_from is not None and observed_until is not None:
        check_order(u, np.where(observed_from == NEVER, 0, observed_from), observed_until)
    if arm is not None:
        codes, names = pd.factorize(arm)
        _flag_spaces(d, "arm", codes, [str(name) for name in names])
    frame, notes = None, list[str]()
    if u is not None:
        frame, notes = read_attributes(u, u.frame.drop(columns=list(OBSERVATION_COLUMNS), errors="ignore"))
    if faults:
        raise InputError(faults)
    arms = () if arm is None else tuple(sorted({str(one) for one in pd.unique(arm) if one is not None}))
    notes += _case_notes("events", event_names) + _case_notes("arms", arms)
    notes += _thousands_notes(e, event, event_names)
    notes += message_notes(message, event_time, decision_time)
    rows = np.bincount(np.append(decision_user, event_user), minlength=len(user_ids))
    return Tables(
        decision_id=decision_id,
        decision_user=decision_user,
        decision_time=decision_time,
        actions=modules.canonical(actions),
        propensity=propensity,
        joint=joint,
        propensity_source=source,
        policy=policy,
        arm=arm,
        eligible=eligible,
        event_user=event_user,
        event_time=event_time,
        event=event,
        value=value,
        user_ids=user_ids,
        event_names=event_names,
        # Sorted like the ids, so that the order of the table changes nothing.
        users=None if frame is None else frame.iloc[order].reset_index(drop=True),
        message=message,
        observed_from=None if observed_from is None else observed_from[order],
        observed_until=None if observed_until is None else observed_until[order],
        notes=(*id_notes(user_ids, rows), *notes),
    )


def _check_columns(d: TableValidator, e: TableValidator, u: TableValidator | None, modules: ActionSpace) -> None:
    d.require([*DECISION_COLUMNS, *modules.names])
    e.require(EVENT_COLUMNS)
    derived = [f"{prefix}_{name}" for prefix in ("propensity", "eligible") for name in modules.names]
    taken = {*DECISION_COLUMNS, *OPTIONAL_DECISION_COLUMNS, *derived}
    for name in modules.names:
        if name in taken:
            d.flag("a module has the name of another native column", "Rename the module.", column=name)
    for column in map(str, d.frame.columns):
        if column.startswith(("propensity_", "eligible_")) and column not in {*derived, *modules.names}:
            d.flag("the column names no module", f"Rename or drop it. {nearest(column, derived)}", column=column)
    for table, optional in ((d, OPTIONAL_DECISION_COLUMNS), (e, OPTIONAL_EVENT_COLUMNS)):
        known = {*DECISION_COLUMNS, *EVENT_COLUMNS, *taken, *modules.names}
        _flag_misspelled(table, optional, known)
    if u is not None:
        u.require(["user_id"])
        names: list[Any] = list(u.frame.columns)
        for column in names:
            if not isinstance(column, str):
                u.flag("the name of the attribute is not text", "Rename the column.", column=str(column))


def _flag_misspelled(table: TableValidator, optional: Sequence[str], known: set[str]) -> None:
    """Flag columns whose names resemble those of missing optional ones, as they would be ignored silently."""
    absent = [column for column in optional if not table.has(column)]
    for column in map(str, table.frame.columns):
        close = difflib.get_close_matches(column.lower(), absent, n=1, cutoff=0.82)
        if close and column not in known:
            table.flag("the column is unknown", f"Rename or drop it. Did you mean {close[0]!r}?", column=column)


def _users(
    d: TableValidator, e: TableValidator, u: TableValidator | None
) -> tuple[ObjectArray, IntArray, IntArray, IntArray]:
    """Return the ids of all users, their codes in decisions and events, and their rows in the table of users.

    Ids (U,) are sorted, codes (n,) and (e,) are -1 for unknown users, and rows (U,) are empty without a table.
    """
    tables = [table for table in (u, d, e) if table is not None and table.has("user_id") and len(table)]
    columns = dict(zip(map(id, tables), read_user_ids([(table, "user_id") for table in tables]), strict=True))
    order = np.arange(0)
    if u is not None and u.has("user_id"):
        where, remedy = "the table of users", "Add the user to that table, or leave the row out."
        user_ids = np.array([], dtype=object)
        if (column := columns.get(id(u))) is not None:
            twice = pd.Series(column.code).duplicated().to_numpy() & ~column.missing
            u.flag_rows("user_id", twice, "the user has an earlier row", "Keep one row for each user.")
            user_ids = column.present
            order = np.argsort(column.find(user_ids), kind="stable")
    else:
        decided = columns.get(id(d))
        user_ids = np.array([], dtype=object) if decided is None else decided.present
        where = "the decisions"
        remedy = "Add a table that lists all users, or leave out events of users without a decision."
    codes = []
    for table in (d, e):
        found = columns.get(id(table))
        code = np.full(len(table), -1, dtype=np.int64) if found is None else found.find(user_ids)
        # Without any decision that alone is the fault, and not every row of the events.
        if found is not None and (u is not None or len(d)):
            unknown = (code < 0) & ~found.flagged
            table.flag_rows("user_id", unknown, f"the user is not in {where}", remedy)
        codes.append(code)
    return user_ids, codes[0], codes[1], order


def _decision_ids(d: TableValidator) -> ObjectArray:
    if not d.has("decision_id"):
        return np.arange(len(d))
    missing = d.missing("decision_id")
    whole = d.integers("decision_id")
    ids = np.asarray(d.texts("decision_id") if whole is None else whole)
    d.flag_rows("decision_id", missing, "the decision id is missing", "Give every decision a unique id.")
    if whole is None:
        wrong = (means_nobody(ids) | lost_digits(ids)) & ~missing
        d.flag_rows("decision_id", wrong, "this is not an id, or a rounded one", "Give every decision a unique id.")
    d.flag_rows(
        "decision_id",
        pd.Series(ids).duplicated().to_numpy() & ~missing,
        "another decision has the same id",
        "Drop the copy, or give every decision a unique id.",
    )
    return ids


def _events(e: TableValidator) -> tuple[IntArray, tuple[str, ...]]:
    """Return codes (e,) of the events, -1 where missing, and the sorted names."""
    if not e.has("event"):
        return np.full(len(e), -1, dtype=np.int64), ()
    # Names are few and rows are many: what is asked of a name is asked once.
    code, names = pd.factorize(e.texts("event"))
    nameless = np.array([str(name).strip().lower() in _NO_NAMES for name in names], dtype=bool)
    missing = e.missing("event") | np.append(nameless, True)[code]
    e.flag_rows("event", missing, "the event has no name", "Name the event, or leave the row out.")
    used = np.unique(code[~missing])
    order = used[np.argsort(np.asarray(names, dtype=object)[used].astype(str), kind="stable")]
    place = np.full(len(names) + 1, -1, dtype=np.int64)
    place[order] = np.arange(len(order))
    codes = np.where(missing, -1, place[code])
    known = tuple(str(names[name]) for name in order)
    wild = np.array([name.endswith("*") for name in known] + [False], dtype=bool)
    e.flag_rows(
        "event", wild[codes], "the event's name ends with *", "Rename it: `name*` stands for all with a prefix."
    )
    _flag_spaces(e, "event", codes, known)
    return codes.astype(np.int64), known


def _flag_spaces(table: TableValidator, column: str, codes: IntArray, names: Sequence[str]) -> None:
    """Flag rows whose name (codes (n,), -1 where missing) equals another one up to spaces at its ends."""
    known = set(names)
    spaced = np.array([name != name.strip() and name.strip() in known for name in names] + [False], dtype=bool)
    problem = "another row has the same name without spaces at its ends"
    table.flag_rows(column, spaced[codes], problem, "Remove the spaces.")


def _case_notes(what: str, names: Sequence[str]) -> list[str]:
    """Return a note on names that differ in case alone, which count as different ones."""
    first: dict[str, str] = {}
    found = [
        f"{first[name.casefold()]!r} and {name!r}" for name in names if first.setdefault(name.casefold(), name) != name
    ]
    return [f"{what}: {', '.join(found)} differ only in case, and are read as different ones"] if found else []


def _thousands_notes(e: TableValidator, event: IntArray, names: tuple[str, ...]) -> list[str]:
    """Return a note on each event whose values may have a point between thousands: 130.000 for 130 thousand."""
    if not e.has("value") or e.frame["value"].dtype.kind != "O":
        return []
    text = pd.Series(e.texts("value"), dtype=object)
    alike, known = text.str.fullmatch(r"\d{1,3}(\.\d{3})+").to_numpy(dtype=bool), (text != "").to_numpy(dtype=bool)
    notes = []
    for code in np.unique(event[alike & (event >= 0)]):
        rows = known & (event == code)
        if rows.sum() >= MIN_VALUES_WITH_POINTS and alike[rows].all():
            notes.append(
                f"all {int(rows.sum()):,} values of {names[code]!r} have three digits after a point, such as "
                f"{text[int(np.flatnonzero(rows)[0])]}: if it separates thousands, they are read a thousand times too "
                "small"
            )
    return notes


def _values(e: TableValidator, event: IntArray, names: tuple[str, ...]) -> FloatArray:
    """Return values (e,) of the events, 1.0 for events that never have one."""
    if not e.has("value"):
        return np.ones(len(e))
    values, missing = e.numbers("value")
    e.flag_rows("value", np.isinf(values), "the value is infinite", "Correct it, or leave the row out.")
    named = event >= 0
    valued = np.bincount(event[named & ~missing], minlength=len(names)) > 0
    gaps = np.zeros(len(e), dtype=bool)
    gaps[named] = missing[named] & valued[event[named]]
    if (row := first_true(gaps)) is not None:
        e.flag_rows(
            "value",
            gaps,
            f"the value is missing, although other events {names[event[row]]!r} have one",
            "Add the value; leave it empty only for an event that never has one.",
        )
    return np.where(missing, 1.0, values)
