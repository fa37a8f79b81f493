"""The History: decisions and events of many users, columnar, sorted by (user, time), immutable."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, fields, replace
from functools import cached_property
from typing import Any, TypeVar

import numpy as np
import numpy.typing as npt
import pandas as pd

from crosschannel.core.action_space import ActionSpace
from crosschannel.core.arrays import BoolArray, FloatArray, IntArray, ObjectArray, UIntArray
from crosschannel.core.errors import ConfigError
from crosschannel.core.hashing import keys
from crosschannel.core.sorting import by_user_and_time
from crosschannel.core.times import timestamps
from crosschannel.histories.validation import check_tables

Table = TypeVar("Table", "DecisionLog", "EventLog")

PROPENSITY_SOURCES = ("logged", "by design", "estimated", "missing")


@dataclass(frozen=True)
class DecisionLog:
    """Decisions of a history, one entry a slot, sent or not.

    Attributes:
        id: Ids (n,), unique.
        key: Stable 64-bit hashes of the ids (n,).
        user: Codes into `History.user_ids` (n,), ascending.
        time: Microseconds since 1970 UTC (n,), ascending within a user.
        actions: Canonical codes (n, M).
        propensity: Logged probability of each module's choice given the earlier ones (n, M); NaN where unknown.
        joint: Logged probability of the whole action (n,); NaN where unknown.
        policy: Who decided (n,), or None.
        arm: Experiment arm (n,), or None.
        eligible: Which actions could have been taken (n, sum of actions), or None where the log does not say.
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

    def __len__(self) -> int:
        return len(self.time)


@dataclass(frozen=True)
class EventLog:
    """Events of a history: `user` codes, `time` in microseconds, `event` codes into `History.event_names`, `value`."""

    user: IntArray
    time: IntArray
    event: IntArray
    value: FloatArray

    def __len__(self) -> int:
        return len(self.time)


@dataclass(frozen=True)
class History:
    """Logged cross-channel history of many users.

    Build one with `from_tables` (pandas, validated) or `from_arrays` (trusted arrays, for simulators). All arrays
    are read-only.

    Attributes:
        decisions: The decision slots.
        events: Goal and message events.
        modules: What could be chosen.
        user_ids: Ids of all users (U,); users without a decision or an event are allowed.
        event_names: Names of the event codes.
        span: First and last observed time in microseconds: what lies outside was not recorded.
        users: Static attributes, one row a user in the order of `user_ids`, or None.
        propensity_source: Where the propensities come from: one of `PROPENSITY_SOURCES`.
        name: The history's name, for reports.
        notes: What a reader left out or estimated, one line each, for the summary.
    """

    decisions: DecisionLog
    events: EventLog
    modules: ActionSpace
    user_ids: ObjectArray
    event_names: tuple[str, ...]
    span: tuple[int, int]
    users: pd.DataFrame | None = None
    propensity_source: str = "missing"
    name: str = "history"
    notes: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        for table in (self.decisions, self.events):
            for f in fields(table):
                array = getattr(table, f.name)
                if array is not None:
                    array.setflags(write=False)
        self.user_ids.setflags(write=False)

    @property
    def n_users(self) -> int:
        """How many users there are."""
        return len(self.user_ids)

    @cached_property
    def decision_offsets(self) -> IntArray:
        """Where each user's decisions begin, (U + 1,): user u owns rows `offsets[u]:offsets[u + 1]`."""
        return _offsets(self.decisions.user, self.n_users)

    @cached_property
    def event_offsets(self) -> IntArray:
        """Where each user's events begin, (U + 1,)."""
        return _offsets(self.events.user, self.n_users)

    @cached_property
    def user_keys(self) -> UIntArray:
        """Stable 64-bit hashes of the user ids (U,)."""
        out = keys(self.user_ids)
        out.setflags(write=False)
        return out

    @property
    def eligible(self) -> BoolArray:
        """The action mask of each decision (n, sum of actions): as logged, or every action where the log is silent."""
        if self.decisions.eligible is not None:
            return self.decisions.eligible
        return np.ones((len(self.decisions), self.modules.total), dtype=bool)

    def event_codes(self, names: Sequence[str]) -> IntArray:
        """Codes of events by name; a name ending in `*` stands for every event that begins so.

        Raises:
            ConfigError: If no event of the history is meant.
        """
        codes: list[int] = []
        for name in names:
            hits = [
                i
                for i, known in enumerate(self.event_names)
                if known == name or (name.endswith("*") and known.startswith(name[:-1]))
            ]
            if not hits:
                raise ConfigError(f"the history has no event {name!r}; it has {sorted(self.event_names)}")
            codes += hits
        return np.array(codes, dtype=np.int64)

    def select_users(self, chosen: BoolArray) -> History:
        """The history of the users chosen by a mask (U,)."""
        code = np.cumsum(chosen) - 1
        decisions = take_rows(self.decisions, chosen[self.decisions.user])
        decisions = replace(decisions, user=code[decisions.user])
        events = take_rows(self.events, chosen[self.events.user])
        events = replace(events, user=code[events.user])
        users = None if self.users is None else self.users.loc[chosen].reset_index(drop=True)
        return replace(self, decisions=decisions, events=events, user_ids=self.user_ids[chosen], users=users)

    def with_propensities(self, propensity: FloatArray, joint: FloatArray, source: str) -> History:
        """The same history with other propensities (n, M) and (n,), and where they come from."""
        decisions = replace(self.decisions, propensity=propensity, joint=joint)
        return replace(self, decisions=decisions, propensity_source=source)

    def decisions_frame(self) -> pd.DataFrame:
        """The decisions as a table in the native folder's columns."""
        d = self.decisions
        sent = self.modules.sends(d.actions)
        frame = pd.DataFrame({"decision_id": d.id, "user_id": self.user_ids[d.user], "time": timestamps(d.time)})
        for m, module in enumerate(self.modules):
            named = np.asarray(module.actions, dtype=object)[d.actions[:, m]]
            if m > 0:
                named[~sent] = None
            frame[module.name] = named
        for m, module in enumerate(self.modules):
            if not np.isnan(d.propensity[:, m]).all():
                frame[f"propensity_{module.name}"] = d.propensity[:, m]
        if not np.isnan(d.joint).all():
            frame["propensity"] = d.joint
        for column in ("policy", "arm"):
            if (values := getattr(d, column)) is not None:
                frame[column] = values
        if d.eligible is not None:
            for module, part in zip(self.modules, self.modules.split(d.eligible), strict=True):
                names = np.asarray(module.actions, dtype=object)
                patterns, inverse = np.unique(part, axis=0, return_inverse=True)
                listed = np.array(["|".join(names[row]) for row in patterns], dtype=object)
                frame[f"eligible_{module.name}"] = listed[inverse.reshape(-1)]
        return frame

    def events_frame(self) -> pd.DataFrame:
        """The events as a table in the native folder's columns."""
        e = self.events
        names = np.asarray(self.event_names, dtype=object)
        return pd.DataFrame(
            {
                "user_id": self.user_ids[e.user],
                "time": timestamps(e.time),
                "event": names[e.event],
                "value": e.value,
            }
        )

    def summary(self) -> str:
        """What was read, in one line: users, decisions, events and the time they span; then the notes, if any."""
        sent = int(self.modules.sends(self.decisions.actions).sum())
        first, last = timestamps(np.array(self.span))
        read = (
            f"{self.name}: {self.n_users:,} users, {len(self.decisions):,} decisions ({sent:,} sent), "
            f"{len(self.events):,} events of {len(self.event_names)} kinds, "
            f"{first:%Y-%m-%d %H:%M} to {last:%Y-%m-%d %H:%M} UTC, propensities {self.propensity_source}"
        )
        return "\n".join((read, *self.notes))

    @classmethod
    def from_arrays(
        cls,
        decisions: DecisionLog,
        events: EventLog,
        *,
        modules: ActionSpace,
        user_ids: ObjectArray,
        event_names: Sequence[str],
        span: tuple[int, int],
        users: pd.DataFrame | None = None,
        propensity_source: str = "logged",
        name: str = "history",
    ) -> History:
        """Sorts arrays that are known to be valid by (user, time) and freezes them."""
        d = by_user_and_time(decisions.user, decisions.time)
        e = by_user_and_time(events.user, events.time, events.event)
        decisions, events = take_rows(decisions, d), take_rows(events, e)
        return cls(
            decisions=decisions,
            events=events,
            modules=modules,
            user_ids=np.array(user_ids),
            event_names=tuple(event_names),
            span=span,
            users=users,
            propensity_source=propensity_source,
            name=name,
        )

    @classmethod
    def from_tables(
        cls,
        decisions: pd.DataFrame,
        events: pd.DataFrame,
        modules: ActionSpace,
        users: pd.DataFrame | None = None,
        *,
        span: tuple[int, int] | None = None,
        propensity_source: str | None = None,
        name: str = "history",
        files: Mapping[str, str] | None = None,
    ) -> History:
        """Validates tables in the native columns and builds a history of them.

        Args:
            decisions: `decision_id, user_id, time`, one column per module, and optionally `propensity_<module>`,
                `propensity`, `policy`, `arm`, `eligible_<module>` (eligible action names joined by `|`).
            events: `user_id, time, event` and optionally `value`.
            modules: What could be chosen.
            users: `user_id` and static attributes; without it the users are those of the decisions.
            span: First and last observed time in microseconds; by default those of the events (of the decisions where
                there are none). Events that end before the last decisions were not recorded to the end: a window that
                reaches further must not read as one in which nothing happened.
            propensity_source: By default `logged` where there are propensities, else `missing`.
            name: The history's name, for reports.
            files: Where the tables come from, by table name, for error messages.

        Raises:
            InputError: With every fault found, each naming file, column, row, value and remedy.
        """
        tables = check_tables(decisions, events, modules, users, files or {})
        times = tables.event_time if len(tables.event_time) else tables.decision_time
        has_any = not (np.isnan(tables.propensity).all() and np.isnan(tables.joint).all())
        return cls.from_arrays(
            DecisionLog(
                id=tables.decision_id,
                key=keys(tables.decision_id),
                user=tables.decision_user,
                time=tables.decision_time,
                actions=modules.canonical(tables.actions),
                propensity=tables.propensity,
                joint=tables.joint,
                policy=tables.policy,
                arm=tables.arm,
                eligible=tables.eligible,
            ),
            EventLog(user=tables.event_user, time=tables.event_time, event=tables.event, value=tables.value),
            modules=modules,
            user_ids=tables.user_ids,
            event_names=tables.event_names,
            span=span or (int(times.min()), int(times.max())),
            users=tables.users,
            propensity_source=propensity_source or ("logged" if has_any else "missing"),
            name=name,
        )


def _offsets(user: IntArray, n_users: int) -> IntArray:
    return np.searchsorted(user, np.arange(n_users + 1)).astype(np.int64)


def take_rows(table: Table, rows: npt.NDArray[Any]) -> Table:
    """The chosen rows of a log, by mask or by index."""
    chosen = {f.name: getattr(table, f.name) for f in fields(table)}
    index = np.flatnonzero(rows) if rows.dtype == bool else rows
    return replace(table, **{name: array.take(index, axis=0) for name, array in chosen.items() if array is not None})
