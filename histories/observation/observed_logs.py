"""The logs of a history from validated tables: rows within the observation period, and each user's own part of it."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass

import numpy as np

from crosschannel.core.action_space import ActionSpace
from crosschannel.core.arrays import IntArray
from crosschannel.core.hashing import keys
from crosschannel.core.times import NEVER
from crosschannel.histories.logs import DecisionLog, EventLog, renumber_messages, rows_after_selection, take_rows
from crosschannel.histories.observation.span import observe
from crosschannel.histories.observation.users import starts_of_observation
from crosschannel.histories.values.validation import Tables


@dataclass(frozen=True)
class ObservedLogs:
    """The rows of tables that lie in the observation period, in the tables' order, U users.

    Attributes:
        decisions: The decisions.
        events: The events.
        span: Start and end of the observation period, microseconds since 1970 UTC.
        observed_from: When each user's own observation begins (U,), microseconds, within the span.
        observed_until: When it ends (U,).
        notes: What was left out, for the history's summary.
    """

    decisions: DecisionLog
    events: EventLog
    span: tuple[int, int]
    observed_from: IntArray
    observed_until: IntArray
    notes: tuple[str, ...]


def observed_logs(
    tables: Tables,
    modules: ActionSpace,
    propensity_source: str,
    span: tuple[int, int] | None,
    files: Mapping[str, str],
    place: Callable[[str, int], str] | None,
) -> ObservedLogs:
    """Return the rows of validated tables that lie in the observation period, and when users were observed.

    Args:
        tables: The validated tables.
        modules: The action space.
        propensity_source: The source of the propensities of rows that do not name it themselves.
        span: The declared observation period; without it the period ends where the rows do.
        files: The file of each table, by table name, for notes.
        place: A function that returns the place of a row of a table, both by name and number, instead of these files.

    Raises:
        ConfigError: If the span does not fit the rows, or if the rows leave open what it is.
    """
    n, n_users = len(tables.decision_time), len(tables.user_ids)
    is_event = np.arange(n + len(tables.event_time)) >= n

    def name_row(row: int) -> str:
        table, number = ("decisions", row + 1) if row < n else ("events", row - n + 1)
        return place(table, number) if place else f"{files.get(table, table)} row {number}"

    time = np.append(tables.decision_time, tables.event_time)
    observed = observe(time, is_event, name_row, span, is_event)
    decided, happened, span = observed.inside[:n], observed.inside[n:], observed.span
    decisions = take_rows(_decisions(tables, modules, propensity_source), decided)
    events = renumber_messages(take_rows(_events(tables), happened), rows_after_selection(decided))
    start = starts_of_observation(n_users, span, (decisions.user, decisions.time), (events.user, events.time))
    end = np.full(n_users, span[1])
    if tables.observed_from is not None:
        start = np.where(tables.observed_from == NEVER, start, np.clip(tables.observed_from, *span))
    if tables.observed_until is not None:
        end = np.where(tables.observed_until == NEVER, end, np.clip(tables.observed_until, *span))
    return ObservedLogs(
        decisions=decisions,
        events=events,
        span=span,
        observed_from=np.minimum(start, end),
        observed_until=end,
        notes=observed.notes,
    )


def _decisions(tables: Tables, modules: ActionSpace, propensity_source: str) -> DecisionLog:
    propensity, joint, source = tables.propensities(propensity_source)
    return DecisionLog(
        id=tables.decision_id,
        key=keys(tables.decision_id),
        user=tables.decision_user,
        time=tables.decision_time,
        actions=modules.canonical(tables.actions),
        propensity=propensity,
        joint=joint,
        policy=tables.policy,
        arm=tables.arm,
        eligible=tables.eligible,
        propensity_source=source,
    )


def _events(tables: Tables) -> EventLog:
    return EventLog(
        user=tables.event_user,
        time=tables.event_time,
        event=tables.event,
        value=tables.value,
        message=tables.message,
    )
