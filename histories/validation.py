"""Validation: turns tables in the native columns into arrays, or says everything that is wrong with them."""

from __future__ import annotations

import difflib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
import pandas as pd

from crosschannel.core.action_space import ActionSpace
from crosschannel.core.arrays import BoolArray, FloatArray, IntArray
from crosschannel.core.errors import Fault, InputError, nearest
from crosschannel.core.table_validator import ObjectArray, Sheet, first
from crosschannel.histories.action_columns import action_codes, eligible_mask, propensities

DECISION_COLUMNS = ("decision_id", "user_id", "time")
OPTIONAL_DECISION_COLUMNS = ("propensity", "policy", "arm")
EVENT_COLUMNS = ("user_id", "time", "event")


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
        policy: Who decided (n,), or None.
        arm: Experiment arm (n,), or None.
        eligible: Which actions could have been taken (n, sum of actions), or None where the log does not say.
        event_user: Codes into `user_ids` (e,).
        event_time: Microseconds since 1970 UTC (e,).
        event: Codes into `event_names` (e,).
        value: Values (e,), 1.0 for events that have none.
        user_ids: Ids (U,), in the order of the table of users; sorted where there is none.
        event_names: Names of the event codes, sorted.
        users: The table of users, or None.
    """

    decision_id: ObjectArray
    decision_user: IntArray
    decision_time: IntArray
    actions: IntArray
    propensity: FloatArray
    joint: FloatArray
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


def check_tables(
    decisions: pd.DataFrame,
    events: pd.DataFrame,
    modules: ActionSpace,
    users: pd.DataFrame | None,
    files: Mapping[str, str],
) -> Tables:
    """Checks tables in the native columns and gives them back as arrays.

    Conventions, so that nothing is repaired silently:

    - Times are datetimes or ISO 8601 text; a time without zone is UTC.
    - Ids may be integers or text. Where tables differ in that, ids are compared as text.
    - Where nothing is sent, what the later modules' columns hold has no meaning: actions become 0, and
      propensities 1.
    - A propensity column that is empty throughout counts as absent; one with some gaps is a fault. Where every
      module has a propensity and the joint one is absent, it is their product.
    - `eligible_<module>` lists action names joined by `|`; an empty entry says that none is eligible. A module
      without such a column, where others have one, has all its actions eligible.
    - An event whose name never has a value gets the value 1; one that has it in some rows only is a fault.
    - Columns with other names are not read.

    Args:
        decisions: As in `History.from_tables`.
        events: As in `History.from_tables`.
        modules: What could be chosen.
        users: `user_id` and attributes, or None.
        files: Where the tables come from, by table name, for messages.

    Raises:
        InputError: With one fault for every kind of thing that is wrong, in any table.
    """
    faults: list[Fault] = []
    d = Sheet(decisions, files.get("decisions", "decisions"), faults)
    e = Sheet(events, files.get("events", "events"), faults)
    u = None if users is None else Sheet(users, files.get("users", "users"), faults)
    _check_columns(d, e, u, modules)

    user_ids, decision_user, event_user = _users(d, e, u)
    decision_id = _decision_ids(d)
    decision_time, timed = d.times("time")
    event_time, _ = e.times("time")
    if d.has("time"):
        twice = pd.DataFrame({"user": decision_user, "time": decision_time}).duplicated().to_numpy()
        d.note(
            "time",
            twice & timed & (decision_user >= 0),
            "the user has another decision at this very time",
            "Merge them into one action, or give each slot its own time.",
        )
    actions = action_codes(d, modules)
    propensity, joint = propensities(d, modules, actions)
    eligible = eligible_mask(d, modules, actions)
    event, event_names = _events(e)
    value = _values(e, event, event_names)
    policy, arm = d.labels("policy"), d.labels("arm")
    if faults:
        raise InputError(faults)
    return Tables(
        decision_id=decision_id,
        decision_user=decision_user,
        decision_time=decision_time,
        actions=modules.canonical(actions),
        propensity=propensity,
        joint=joint,
        policy=policy,
        arm=arm,
        eligible=eligible,
        event_user=event_user,
        event_time=event_time,
        event=event,
        value=value,
        user_ids=user_ids,
        event_names=event_names,
        users=None if u is None else u.frame,
    )


def check_rewards(rewards: npt.ArrayLike, ids: npt.ArrayLike, file: str = "rewards") -> FloatArray:
    """Rewards (n,) as float64, once it is sure that a learner may have them.

    Args:
        rewards: One reward for each decision (n,).
        ids: Decision ids (n,), to name the decision that is wrong.
        file: Where the rewards come from, for messages.

    Raises:
        InputError: If a reward is missing, infinite or not a number, or their count is not that of the ids.
    """
    names = np.asarray(ids)
    faults: list[Fault] = []
    sheet = Sheet(pd.DataFrame({"reward": rewards}), file, faults)
    if len(sheet) != len(names):
        sheet.add(
            f"there are {len(sheet):,} rewards for {len(names):,} decisions",
            "Give each decision exactly one reward.",
            column="reward",
        )
        raise InputError(faults)
    values, missing = sheet.numbers("reward")
    for bad, what, remedy in (
        (missing, "NaN", "Leave out the decisions whose reward the log does not identify; never fill them in."),
        (np.isinf(values), "infinite", "Check the values of the goal events that the reward is made of."),
    ):
        if (row := first(bad)) is not None:
            sheet.note("reward", bad, f"the reward of decision {names[row]!s} is {what}", remedy)
    if faults:
        raise InputError(faults)
    return values


def _check_columns(d: Sheet, e: Sheet, u: Sheet | None, modules: ActionSpace) -> None:
    d.require([*DECISION_COLUMNS, *modules.names])
    e.require(EVENT_COLUMNS)
    if len(d) == 0:
        d.add(
            "the log has no decisions",
            "Check the path and the filters; slots in which nothing was sent are rows, too.",
        )
    derived = [f"{prefix}_{name}" for prefix in ("propensity", "eligible") for name in modules.names]
    taken = {*DECISION_COLUMNS, *OPTIONAL_DECISION_COLUMNS, *derived}
    for name in modules.names:
        if name in taken:
            d.add("a module has the name of another native column", "Rename the module.", column=name)
    for column in map(str, d.frame.columns):
        if column.startswith(("propensity_", "eligible_")) and column not in {*derived, *modules.names}:
            d.add("the column names no module", f"Rename or drop it. {nearest(column, derived)}", column=column)
    for sheet, optional in ((d, OPTIONAL_DECISION_COLUMNS), (e, ("value",))):
        known = {*DECISION_COLUMNS, *EVENT_COLUMNS, *taken, *modules.names}
        _check_misspelt(sheet, optional, known)
    if u is not None:
        u.require(["user_id"])
        names: list[Any] = list(u.frame.columns)
        for column in names:
            if not isinstance(column, str):
                u.add("the name of the attribute is not text", "Name the column in words.", column=str(column))


def _check_misspelt(sheet: Sheet, optional: Sequence[str], known: set[str]) -> None:
    """An optional column with a slip in its name would be left unread, and nobody would notice."""
    absent = [column for column in optional if not sheet.has(column)]
    for column in map(str, sheet.frame.columns):
        close = difflib.get_close_matches(column.lower(), absent, n=1, cutoff=0.82)
        if close and column not in known:
            sheet.add("the column is not read", f"Rename or drop it. Did you mean {close[0]!r}?", column=column)


def _user_column(sheet: Sheet, whole: bool) -> tuple[ObjectArray, BoolArray]:
    """User ids (n,), as integers if all tables have such, and which are missing."""
    if not sheet.has("user_id"):
        return np.full(len(sheet), "", dtype=object), np.ones(len(sheet), dtype=bool)
    missing = sheet.missing("user_id")
    sheet.note("user_id", missing, "the user id is missing", "Give every row its user, or leave the row out.")
    ids = sheet.integers("user_id") if whole else None
    return (sheet.texts("user_id") if ids is None else ids), missing


def _users(d: Sheet, e: Sheet, u: Sheet | None) -> tuple[ObjectArray, IntArray, IntArray]:
    """All user ids (U,), and the codes of the decisions' (n,) and the events' (e,) users, -1 where unknown."""
    filled = [sheet for sheet in (d, e, u) if sheet is not None and sheet.has("user_id") and len(sheet)]
    whole = all(sheet.integers("user_id") is not None for sheet in filled)
    d_ids, d_missing = _user_column(d, whole)
    if u is not None and u.has("user_id"):
        u_ids, u_missing = _user_column(u, whole)
        u.note(
            "user_id",
            pd.Series(u_ids).duplicated().to_numpy() & ~u_missing,
            "the user stands in the table twice",
            "Keep one row for each user.",
        )
        user_ids = np.asarray(pd.unique(pd.Series(u_ids[~u_missing])))
        where, remedy = "the table of users", "Add the user to that table, or leave the row out."
    else:
        user_ids = np.asarray(pd.factorize(d_ids[~d_missing], sort=True)[1])
        where = "the decisions"
        remedy = "Give a table of users that lists everyone, or leave out events of users without a decision."
    index = pd.Index(user_ids)
    codes = []
    for sheet, (ids, missing) in ((d, (d_ids, d_missing)), (e, _user_column(e, whole))):
        code = np.where(missing, -1, index.get_indexer(pd.Index(ids))).astype(np.int64)
        # Where there is no one to compare with, that is the fault, and not every row of the events.
        if u is not None or len(d):
            sheet.note("user_id", (code < 0) & ~missing, f"the user is not in {where}", remedy)
        codes.append(code)
    return user_ids, codes[0], codes[1]


def _decision_ids(d: Sheet) -> ObjectArray:
    if not d.has("decision_id"):
        return np.arange(len(d))
    missing = d.missing("decision_id")
    whole = d.integers("decision_id")
    ids = np.asarray(d.texts("decision_id") if whole is None else whole)
    d.note("decision_id", missing, "the decision id is missing", "Give every decision an id of its own.")
    d.note(
        "decision_id",
        pd.Series(ids).duplicated().to_numpy() & ~missing,
        "another decision has the same id",
        "Drop the copy, or give every decision an id of its own.",
    )
    return ids


def _events(e: Sheet) -> tuple[IntArray, tuple[str, ...]]:
    """Codes (e,) of the events, -1 where missing, and the sorted names."""
    if not e.has("event"):
        return np.full(len(e), -1, dtype=np.int64), ()
    missing = e.missing("event")
    e.note("event", missing, "the event has no name", "Name the event, or leave the row out.")
    codes, names = pd.factorize(pd.Series(e.texts("event"), dtype=object).mask(missing, None), sort=True)
    return codes.astype(np.int64), tuple(str(name) for name in names)


def _values(e: Sheet, event: IntArray, names: tuple[str, ...]) -> FloatArray:
    """Values (e,) of the events, 1.0 for events that never have one."""
    if not e.has("value"):
        return np.ones(len(e))
    values, missing = e.numbers("value")
    e.note("value", np.isinf(values), "the value is infinite", "Correct it, or leave the row out.")
    named = event >= 0
    valued = np.bincount(event[named & ~missing], minlength=len(names)) > 0
    gaps = np.zeros(len(e), dtype=bool)
    gaps[named] = missing[named] & valued[event[named]]
    if (row := first(gaps)) is not None:
        e.note(
            "value",
            gaps,
            f"the value is missing, although other events {names[event[row]]!r} have one",
            "Write the value; leave it empty only for an event that never has one.",
        )
    return np.where(missing, 1.0, values)
