"""The logged history of many users: decisions and events as immutable columns, sorted by (user, time)."""

from __future__ import annotations

import hashlib
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
from crosschannel.core.sorting import argsort_by_user_and_time
from crosschannel.core.times import NEVER, timestamps
from crosschannel.histories.validation import check_tables
from crosschannel.histories.values.action_names import check_action_names

Table = TypeVar("Table", "DecisionLog", "EventLog")

PROPENSITY_SOURCES = ("logged", "by design", "estimated", "missing")
DEFAULT_CHURN_EVENTS = ("unsubscribed", "app_removed")


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

    Build one with `from_tables` (pandas tables, which are validated) or `from_arrays` (arrays that are known to be
    valid, for simulators). All arrays are read-only.

    Attributes:
        decisions: The decision slots.
        events: Goal and message events.
        modules: The action space.
        user_ids: Ids of all users (U,); users without a decision or an event are allowed.
        event_names: Names of the event codes.
        span: Start and end of the observation period in microseconds; nothing outside was recorded.
        users: Static attributes, one row per user in the order of `user_ids`, or None.
        propensity_source: The source of the propensities: one of `PROPENSITY_SOURCES`.
        name: The history's name, for reports.
        notes: What a reader left out or estimated, one line each, for the summary.
        churn_events: Events after which nothing can be sent to a user any more; `name*` stands for all names with this
            prefix. All but those of `DEFAULT_CHURN_EVENTS` must be events of the history.
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
    churn_events: tuple[str, ...] = DEFAULT_CHURN_EVENTS

    def __post_init__(self) -> None:
        self._churn_codes()  # raises if the history does not have one of the events
        for table in (self.decisions, self.events):
            for f in fields(table):
                array = getattr(table, f.name)
                if array is not None:
                    array.setflags(write=False)
        self.user_ids.setflags(write=False)

    @property
    def n_users(self) -> int:
        """Number of users."""
        return len(self.user_ids)

    @cached_property
    def decision_offsets(self) -> IntArray:
        """First row of each user's decisions (U + 1,): those of user u are `offsets[u]:offsets[u + 1]`."""
        return _offsets(self.decisions.user, self.n_users)

    @cached_property
    def event_offsets(self) -> IntArray:
        """First row of each user's events (U + 1,)."""
        return _offsets(self.events.user, self.n_users)

    @cached_property
    def user_keys(self) -> UIntArray:
        """Stable 64-bit hashes of the user ids (U,)."""
        out = keys(self.user_ids)
        out.setflags(write=False)
        return out

    @property
    def eligible(self) -> BoolArray:
        """Action mask of each decision (n, sum of actions); if the log has no eligibility, every action is eligible."""
        if self.decisions.eligible is not None:
            return self.decisions.eligible
        return np.ones((len(self.decisions), self.modules.total), dtype=bool)

    @cached_property
    def churned_at(self) -> IntArray:
        """Time of each user's first churn event (U,), microseconds; `NEVER` for users who have not churned."""
        rows = np.flatnonzero(np.isin(self.events.event, self._churn_codes()))
        out = np.full(self.n_users, NEVER, dtype=np.int64)
        user, first = np.unique(self.events.user[rows], return_index=True)
        out[user] = self.events.time[rows[first]]
        out.setflags(write=False)
        return out

    def _churn_codes(self) -> IntArray:
        absent = set(DEFAULT_CHURN_EVENTS) - set(self.event_names)
        try:
            return self.event_codes([name for name in self.churn_events if name not in absent])
        except ConfigError as error:
            raise ConfigError(f"churn_events: {error}") from None

    def event_codes(self, names: Sequence[str]) -> IntArray:
        """Return the codes of events by name; `name*` stands for every event whose name has this prefix.

        Raises:
            ConfigError: If no event of the history has the name.
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
        """Return the history of the users chosen by a mask (U,)."""
        code = np.cumsum(chosen) - 1
        decisions = take_rows(self.decisions, chosen[self.decisions.user])
        decisions = replace(decisions, user=code[decisions.user])
        events = take_rows(self.events, chosen[self.events.user])
        events = replace(events, user=code[events.user])
        users = None if self.users is None else self.users.loc[chosen].reset_index(drop=True)
        return replace(self, decisions=decisions, events=events, user_ids=self.user_ids[chosen], users=users)

    def with_propensities(self, propensity: FloatArray, joint: FloatArray, source: str) -> History:
        """Return the same history with other propensities (n, M) and (n,), and their source."""
        decisions = replace(self.decisions, propensity=propensity, joint=joint)
        return replace(self, decisions=decisions, propensity_source=source)

    def with_churn_events(self, names: Sequence[str] | None) -> History:
        """Return the same history with other churn events; with None, with those that it has.

        Raises:
            ConfigError: If the history has no such event.
        """
        return self if names is None else replace(self, churn_events=tuple(names))

    def fingerprint(self) -> str:
        """Return a 128-bit digest, as text, of all that the history holds: equal logs have equal ones."""
        digest = hashlib.blake2b(digest_size=16)

        def add(*parts: object) -> None:
            for part in parts:
                digest.update(repr(part).encode())

        add(self.span, self.event_names, self.churn_events, self.modules.to_dict())
        for table in (self.decisions, self.events):
            for f in fields(table):
                array = getattr(table, f.name)
                add(f.name, None if array is None else array.shape)
                if array is not None:
                    flat = keys(array) if array.dtype.kind in "OU" else array
                    digest.update(np.ascontiguousarray(flat).tobytes())
        columns = {} if self.users is None else {str(name): self.users[name] for name in self.users.columns}
        for name, column in {"user_id": self.user_ids, **columns}.items():
            add(name)
            digest.update(keys(np.asarray(column, dtype=object).astype(str).astype(object)).tobytes())
        return digest.hexdigest()

    def decisions_frame(self) -> pd.DataFrame:
        """Return the decisions as a table in the native folder's columns."""
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
        """Return the events as a table in the native folder's columns."""
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
        """Return a line with the numbers of users, decisions and events and the period, then the notes."""
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
        churn_events: Sequence[str] = DEFAULT_CHURN_EVENTS,
    ) -> History:
        """Build a history from arrays that are known to be valid; sort them by (user, time) and make them read-only."""
        check_action_names(modules)
        d = argsort_by_user_and_time(decisions.user, decisions.time)
        e = argsort_by_user_and_time(events.user, events.time, events.event)
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
            churn_events=tuple(churn_events),
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
        churn_events: Sequence[str] = DEFAULT_CHURN_EVENTS,
        files: Mapping[str, str] | None = None,
    ) -> History:
        """Validate tables in the native columns and build a history from them.

        Args:
            decisions: `decision_id, user_id, time`, one column per module, and optionally `propensity_<module>`,
                `propensity`, `policy`, `arm`, `eligible_<module>` (eligible action names joined by `|`).
            events: `user_id, time, event` and optionally `value`.
            modules: The action space.
            users: `user_id` and static attributes; without it the users are those of the decisions.
            span: Start and end of the observation period in microseconds; by default the first and the last event (or
                decision, if there are no events). If the events end before the last decisions, a window that extends
                beyond them was not observed, which differs from a window without events.
            propensity_source: By default `logged` if there are propensities, else `missing`.
            name: The history's name, for reports.
            churn_events: Events after which nothing can be sent to a user any more.
            files: The file of each table, by table name, for error messages.

        Raises:
            InputError: With every fault found, each naming file, column, row, value and remedy.
            ConfigError: If a name in `churn_events` is neither an event of the history nor a default.
        """
        tables = check_tables(decisions, events, modules, users, files or {})
        times = tables.event_time if len(tables.event_time) else tables.decision_time
        has_any = not (np.isnan(tables.propensity).all() and np.isnan(tables.joint).all())
        history = cls.from_arrays(
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
            churn_events=churn_events,
        )
        return replace(history, notes=tables.notes)


def _offsets(user: IntArray, n_users: int) -> IntArray:
    return np.searchsorted(user, np.arange(n_users + 1)).astype(np.int64)


def take_rows(table: Table, rows: npt.NDArray[Any]) -> Table:
    """Return the chosen rows of a log, by mask or by index."""
    chosen = {f.name: getattr(table, f.name) for f in fields(table)}
    index = np.flatnonzero(rows) if rows.dtype == bool else rows
    return replace(table, **{name: array.take(index, axis=0) for name, array in chosen.items() if array is not None})
