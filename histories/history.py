"""The logged history of many users: decisions and events as immutable columns, sorted by (user, time)."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, fields, replace
from functools import cached_property

import numpy as np
import pandas as pd

from crosschannel.core.action_space import ActionSpace
from crosschannel.core.arrays import BoolArray, FloatArray, IntArray, ObjectArray, UIntArray
from crosschannel.core.hashing import keys
from crosschannel.core.times import NEVER
from crosschannel.core.wording import counted, log_in_words
from crosschannel.histories.context.earlier import Earlier
from crosschannel.histories.fingerprint import fingerprint_of
from crosschannel.histories.logs import DecisionLog as DecisionLog
from crosschannel.histories.logs import EventLog as EventLog
from crosschannel.histories.logs import (
    codes_of_names,
    decisions_frame,
    events_frame,
    have_codes,
    renumber_messages,
    rows_after_selection,
    sort_logs,
    take_rows,
)
from crosschannel.histories.observation.observed_logs import observed_logs
from crosschannel.histories.observation.users import (
    ObservedFrom,
    Ties,
    first_rows,
    span_notes,
    tie_notes,
    tied_events,
)
from crosschannel.histories.propensities.sources import (
    count_sources,
    describe_sources,
    summarise_sources,
)
from crosschannel.histories.values.action_names import check_action_names
from crosschannel.histories.values.validation import check_tables
from crosschannel.histories.windows import Timeline

DEFAULT_CHURN_EVENTS = ("unsubscribed", "app_removed")


#: How a note begins that contradicts every effect of the log.
CAUTION = "caution: "


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
        observed_from: When each user's own observation begins, within the span, microseconds (U,). Time before it is
            not known, which differs from time without events.
        observed_until: When it ends (U,). Churn does not end it: what follows a churn event is an outcome.
        users: Static attributes, one row per user in the order of `user_ids`, or None.
        name: The history's name, for reports.
        notes: What a reader left out or estimated, one line each, for the summary.
        churn_events: Events after which nothing can be sent to a user any more; `name*` stands for all names with this
            prefix. All but those of `DEFAULT_CHURN_EVENTS` must be events of the history.
        ties: How an event at exactly the time of a decision of its user is ordered. `before`: it came first, such as
            the event that triggered a message. `after`: it followed, such as orders with a date only after a campaign
            that was sent in the morning. None: not declared; it counts as before, and rewards are refused where many
            goal events tie. Contexts never have it.
        earlier: What users did before the recent part that alone was read (`pipeline.loop.recent`), for contexts of
            users now; None where the history is whole.
        churned_before: When users churned whose churn event is no row of this part of a history, microseconds (U,),
            `NEVER` for all others; None where all rows are there.
    """

    decisions: DecisionLog
    events: EventLog
    modules: ActionSpace
    user_ids: ObjectArray
    event_names: tuple[str, ...]
    span: tuple[int, int]
    observed_from: IntArray
    observed_until: IntArray
    users: pd.DataFrame | None = None
    name: str = "history"
    notes: tuple[str, ...] = ()
    churn_events: tuple[str, ...] = DEFAULT_CHURN_EVENTS
    ties: Ties | None = None
    earlier: Earlier | None = None
    churned_before: IntArray | None = None

    def __post_init__(self) -> None:
        _ = self.churn_codes  # raises if the history does not have one of the events
        for table in (self.decisions, self.events):
            for f in fields(table):
                array = getattr(table, f.name)
                if array is not None:
                    array.setflags(write=False)
        for array in (self.user_ids, self.observed_from, self.observed_until):
            array.setflags(write=False)

    @property
    def n_users(self) -> int:
        """Number of users."""
        return len(self.user_ids)

    @cached_property
    def propensity_source(self) -> str:
        """Source of the propensities: one of `PROPENSITY_SOURCES`, or `mixed` where decisions differ in it."""
        return summarise_sources(count_sources(self.decisions.propensity_source))

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
        rows = np.flatnonzero(have_codes(self.events.event, self.churn_codes.tolist(), len(self.event_names)))
        out = np.full(self.n_users, NEVER, dtype=np.int64)
        user, first = np.unique(self.events.user[rows], return_index=True)
        out[user] = self.events.time[rows[first]]
        if self.earlier is not None:
            out = np.minimum(out, self.earlier.churned_at)
        if self.churned_before is not None:
            out = np.minimum(out, self.churned_before)
        out.setflags(write=False)
        return out

    @cached_property
    def arm_codes(self) -> tuple[IntArray, list[str]]:
        """Codes of the decisions' arms (n,), -1 where there is none, and the names of the codes, the last for none."""
        codes, names = pd.factorize(np.asarray(self.decisions.arm, dtype=object))
        return np.asarray(codes, dtype=np.int64), [*map(str, names), str(None)]

    @cached_property
    def tied(self) -> BoolArray:
        """Which events have exactly the time of a decision of their user (e,)."""
        events = Timeline(self.events.time, self.event_offsets)
        decisions = Timeline(self.decisions.time, self.decision_offsets)
        return tied_events(events, decisions, self.decisions.user)

    @cached_property
    def churn_codes(self) -> IntArray:
        """Codes of the churn events that the history has."""
        absent = set(DEFAULT_CHURN_EVENTS) - set(self.event_names)
        return self.event_codes([name for name in self.churn_events if name not in absent], "churn_events")

    def event_codes(self, names: Sequence[str], setting: str = "") -> IntArray:
        """Return the codes of events by name; `name*` stands for every event whose name has this prefix.

        Args:
            names: The names.
            setting: The setting that names them, such as `reward.goals`, for the error.

        Raises:
            ConfigError: If no event of the history has the name.
        """
        return codes_of_names(names, self.event_names, setting)

    def with_notes(self, notes: Iterable[str]) -> History:
        """Return the history with further notes; those that it has already are not repeated."""
        return replace(self, notes=tuple(dict.fromkeys((*self.notes, *notes))))

    @property
    def cautions(self) -> tuple[str, ...]:
        """The notes that contradict every effect of the log."""
        return tuple(note.removeprefix(CAUTION) for note in self.notes if note.startswith(CAUTION))

    def are_events(self, names: Sequence[str], setting: str = "") -> BoolArray:
        """Return which events have one of the names (e,), as in `event_codes`."""
        return have_codes(self.events.event, self.event_codes(names, setting).tolist(), len(self.event_names))

    def select_users(self, chosen: BoolArray) -> History:
        """Return the history of the users chosen by a mask (U,)."""
        code = np.cumsum(chosen) - 1
        decided = chosen[self.decisions.user]
        decisions = take_rows(self.decisions, decided)
        decisions = replace(decisions, user=code[decisions.user])
        events = take_rows(self.events, chosen[self.events.user])
        events = renumber_messages(replace(events, user=code[events.user]), rows_after_selection(decided))
        users = None if self.users is None else self.users.loc[chosen].reset_index(drop=True)
        return replace(
            self,
            decisions=decisions,
            events=events,
            user_ids=self.user_ids[chosen],
            observed_from=self.observed_from[chosen],
            observed_until=self.observed_until[chosen],
            users=users,
            earlier=None if self.earlier is None else self.earlier.select_users(chosen),
            churned_before=None if self.churned_before is None else self.churned_before[chosen],
        )

    def with_propensities(self, propensity: FloatArray, joint: FloatArray, source: str | IntArray) -> History:
        """Return the same history with other propensities (n, M) and (n,), and their source, of all or by row."""
        return replace(self, decisions=self.decisions.with_propensities(propensity, joint, source))

    def with_churn_events(self, names: Sequence[str] | None) -> History:
        """Return the same history with other churn events; with None, with those that it has.

        Raises:
            ConfigError: If the history has no such event.
        """
        return self if names is None else replace(self, churn_events=tuple(names))

    def with_ties(self, ties: Ties | None) -> History:
        """Return the same history with another order of ties; with None, with the one that it has."""
        return self if ties is None else replace(self, ties=ties)

    def with_observed_from(self, rule: ObservedFrom | None) -> History:
        """Return the same history with users observed from their `first_row` or from the start of the `log` on.

        With None, they are observed from when they are now.
        """
        if rule is None:
            return self
        start = np.full(self.n_users, self.span[0], dtype=np.int64)
        if rule == "first_row":
            decisions, events = ((table.user, table.time) for table in (self.decisions, self.events))
            start = first_rows(self.n_users, self.span, decisions, events)
        return replace(self, observed_from=np.minimum(start, self.observed_until))

    def fingerprint(self) -> str:
        """Return a 128-bit digest, as text, of all that the history holds: equal logs have equal ones."""
        facts = (self.span, self.event_names, self.churn_events, self.ties, self.modules.to_dict())
        observed = (self.observed_from, self.observed_until)
        attributes = {} if self.users is None else {str(name): self.users[name] for name in self.users.columns}
        columns = {"user_id": self.user_ids, **attributes}
        return fingerprint_of(facts, observed, self.decisions, self.events, columns)

    def decisions_frame(self) -> pd.DataFrame:
        """Return the decisions as a table in the native folder's columns."""
        return decisions_frame(self.decisions, self.user_ids, self.modules)

    def events_frame(self) -> pd.DataFrame:
        """Return the events as a table in the native folder's columns."""
        return events_frame(self.events, self.user_ids, self.event_names, self.decisions.id)

    def summary(self) -> str:
        """Return a line with the numbers of users, decisions and events and the period, then the notes."""
        sent = int(self.modules.sends(self.decisions.actions).sum())
        users, rows = counted(self.n_users, "user"), (len(self.decisions), sent, len(self.events))
        read = log_in_words(self.name, users, *rows, len(self.event_names), self.span)
        sources = describe_sources(count_sources(self.decisions.propensity_source))
        observed = self.observed_from, self.observed_until
        notes = (*tie_notes(self.tied, self.ties), *span_notes(self.span, *observed), *self.notes)
        return "\n".join((f"{read}, propensities {sources}", *notes))

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
        observed_from: IntArray | None = None,
        observed_until: IntArray | None = None,
        propensity_source: str | None = None,
        name: str = "history",
        churn_events: Sequence[str] = DEFAULT_CHURN_EVENTS,
        ties: Ties | None = None,
    ) -> History:
        """Build a history from arrays that are known to be valid; sort them by (user, time) and make them read-only.

        `events.message` are rows of `decisions` as they are given; they are renumbered when these are sorted.
        Without `observed_from` and `observed_until` (U,) every user is observed throughout the span.
        `propensity_source` is the source of all propensities that there are, instead of the one that `decisions` has
        for each row.
        """
        if propensity_source is not None:
            decisions = decisions.with_propensities(decisions.propensity, decisions.joint, propensity_source)
        check_action_names(modules)
        decisions, events = sort_logs(decisions, events)
        return cls(
            decisions=decisions,
            events=events,
            modules=modules,
            user_ids=np.array(user_ids),
            event_names=tuple(event_names),
            span=span,
            observed_from=np.full(len(user_ids), span[0]) if observed_from is None else np.array(observed_from),
            observed_until=np.full(len(user_ids), span[1]) if observed_until is None else np.array(observed_until),
            users=users,
            name=name,
            churn_events=tuple(churn_events),
            ties=ties,
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
        ties: Ties | None = None,
        files: Mapping[str, str] | None = None,
        place: Callable[[str, int], str] | None = None,
        starts: bool = False,
    ) -> History:
        """Validate tables in the native columns and build a history from them.

        Args:
            decisions: `decision_id, user_id, time`, one column per module, and optionally `propensity_<module>`,
                `propensity`, `policy`, `arm`, `source_of_propensity`, `eligible_<module>` (eligible action names
                joined by `|`).
            events: `user_id, time, event` and optionally `value`, and `decision_id` where an event is about the message
                of a decision, such as the one that was opened.
            modules: The action space.
            users: `user_id` and static attributes; without it the users are those of the decisions. The optional
                columns `observed_from` and `observed_until` are the start and the end of a user's own observation; by
                default (and where missing) it begins with the user's first row and ends with the span; where hardly
                any user (1 %) has two decisions, it begins with the span as well.
            span: Start and end of the observation period in microseconds; by default the first and the last event (or
                decision, if there are no events), without isolated rows, which are left out with a note
                (`histories/observation/span.py`). If the events end before the last decisions, a window that extends
                beyond them was not observed, which differs from a window without events.
            propensity_source: The source of the propensities of rows that do not name it themselves, by default
                `logged`; with `missing` these propensities are not used.
            name: The history's name, for reports.
            churn_events: Events after which nothing can be sent to a user any more.
            ties: How events at exactly the time of a decision are ordered; None if not declared.
            files: The file of each table, by table name, for error messages.
            place: A function that returns the place of a row of a table, both by name and number, for notes.
            starts: Whether the log may be that of a start, before the first decision; its span is declared.

        Raises:
            InputError: With every fault found, each naming file, column, row, value and remedy.
            ConfigError: If a name in `churn_events` is neither an event of the history nor a default, if the span does
                not fit the rows, or if the rows leave open what it is.
        """
        tables = check_tables(decisions, events, modules, users, files or {}, starts=starts)
        logs = observed_logs(tables, modules, propensity_source or "logged", span, files or {}, place)
        history = cls.from_arrays(
            logs.decisions,
            logs.events,
            modules=modules,
            user_ids=tables.user_ids,
            event_names=tables.event_names,
            span=logs.span,
            observed_from=logs.observed_from,
            observed_until=logs.observed_until,
            users=tables.users,
            name=name,
            churn_events=churn_events,
            ties=ties,
        )
        return replace(history, notes=(*logs.notes, *tables.notes))


def _offsets(user: IntArray, n_users: int) -> IntArray:
    return np.searchsorted(user, np.arange(n_users + 1)).astype(np.int64)
