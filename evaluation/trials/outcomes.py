"""Outcomes of the users of a trial: goal events and values since the enrolment at each look, and before."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol

import numpy as np

from crosschannel.core.arrays import FloatArray, IntArray
from crosschannel.histories.goals import Goal
from crosschannel.histories.history import History
from crosschannel.histories.logs import have_codes

VALUE = "value"


@dataclass(frozen=True)
class Part:
    """One kind of event in an outcome: its code, its weight, and whether its value counts instead of its number."""

    code: int
    weight: float
    by_value: bool


@dataclass(frozen=True)
class Outcome:
    """What is compared between arms, as an amount per user.

    Attributes:
        name: The event, or `value` for the weighted sum of all goals.
        measure: `count` or `value`.
        sign: 1 if more is better, -1 if less is.
        parts: The events it is the sum of.
    """

    name: str
    measure: str
    sign: int
    parts: tuple[Part, ...]

    @property
    def service(self) -> str:
        """What follows the colon in the name of the event, such as the service; empty where there is none."""
        return self.name.partition(":")[2]


def outcomes_of_goals(history: History, goals: Sequence[Goal]) -> tuple[Outcome, ...]:
    """Return the outcomes of goals: their weighted sum, then each event alone.

    Limits and fading of goals (`clip`, `winsor`, `credit`) are about windows around decisions; a user's total has none.

    Raises:
        ConfigError: If the history does not have an event.
    """
    total: list[Part] = []
    single: dict[tuple[int, str], Outcome] = {}
    for goal in goals:
        for code in history.event_codes([goal.event], "trial.goals, by default reward.goals"):
            part = Part(int(code), goal.weight, goal.measure == "value")
            total.append(part)
            name, sign = history.event_names[int(code)], 1 if goal.weight > 0 else -1
            single.setdefault(
                (int(code), goal.measure), Outcome(name, goal.measure, sign, (Part(int(code), 1.0, part.by_value),))
            )
    # The weighted sum of one kind of event is that event.
    return (
        tuple(single.values()) if len(single) == 1 else (Outcome(VALUE, "weighted", 1, tuple(total)), *single.values())
    )


def amounts(history: History, outcome: Outcome, user: IntArray, begin: IntArray, edges: IntArray) -> FloatArray:
    """Return what each user's outcome amounts to from its begin up to each edge, not included.

    Args:
        history: The log.
        outcome: The outcome.
        user: Codes of the users (n,), ascending.
        begin: When each one's time begins, microseconds (n,).
        edges: Ends (K,), ascending, the same for all; or one or more for each user (n, K).

    Returns:
        Amounts (n, K).
    """
    events = history.events
    rows = np.flatnonzero(have_codes(events.event, [part.code for part in outcome.parts], len(history.event_names)))
    weight = np.zeros((len(history.event_names), 2))
    for part in outcome.parts:
        weight[part.code, int(part.by_value)] += part.weight
    code = events.event[rows]
    value = weight[code, 0]
    if weight[:, 1].any():
        value = value + weight[code, 1] * events.value[rows]
    return _sums(events.user[rows], events.time[rows], value, history.n_users, user, begin, edges)


class UserAmounts(Protocol):
    """Adds up what users did: in one history (`Amounts`), or bucket by bucket."""

    def __call__(
        self, outcomes: Sequence[Outcome], user: IntArray, begin: IntArray, edges: IntArray
    ) -> Sequence[FloatArray]:
        """Return the amounts (n, K) of each outcome; the other arguments are those of `amounts`."""

    def sends(self, actions: Sequence[int | None], user: IntArray, begin: IntArray, end: int) -> Sequence[FloatArray]:
        """Return the messages (n,) of each action; the arguments are those of `sends`."""


class Amounts:
    """What outcomes amount to in a history, added up once for the same users and times."""

    def __init__(self, history: History) -> None:
        self._history = history
        self._known: dict[tuple[Outcome, bytes, bytes, bytes], FloatArray] = {}

    def __call__(
        self, outcomes: Sequence[Outcome], user: IntArray, begin: IntArray, edges: IntArray
    ) -> list[FloatArray]:
        """Return the amounts (n, K) of each outcome."""
        times = user.tobytes(), begin.tobytes(), edges.tobytes()
        for one in outcomes:
            if (one, *times) not in self._known:
                self._known[one, *times] = amounts(self._history, one, user, begin, edges)
        return [self._known[one, *times] for one in outcomes]

    def sends(self, actions: Sequence[int | None], user: IntArray, begin: IntArray, end: int) -> list[FloatArray]:
        """Return the messages (n,) of each action."""
        return [sends(self._history, action, user, begin, end) for action in actions]


def sends(history: History, action: int | None, user: IntArray, begin: IntArray, end: int) -> FloatArray:
    """Return the messages of each user between two times (n,): those of an action of the first module, or all."""
    decisions = history.decisions
    sent = history.modules.sends(decisions.actions)
    rows = np.flatnonzero(sent if action is None else sent & (decisions.actions[:, 0] == action))
    ones = np.ones(len(rows))
    edges = np.array([end], dtype=np.int64)
    return _sums(decisions.user[rows], decisions.time[rows], ones, history.n_users, user, begin, edges)[:, 0]


def _sums(
    of_user: IntArray, time: IntArray, value: FloatArray, n_users: int, user: IntArray, begin: IntArray, edges: IntArray
) -> FloatArray:
    """Add values by user, from each one's begin up to the edges, (K,) for all or (n, K); return (n, K)."""
    place = np.full(n_users, -1, dtype=np.int64)
    place[user] = np.arange(len(user))
    row, n_edges = place[of_user], edges.shape[-1]
    inside = row >= 0
    row, time, value = row[inside], time[inside], value[inside]
    # The first edge that is later than the event.
    same = edges.ndim == 1
    first = np.searchsorted(edges, time, side="right") if same else (time[:, None] >= edges[row]).sum(axis=1)
    kept = (time >= begin[row]) & (first < n_edges)
    flat = np.bincount(row[kept] * n_edges + first[kept], value[kept], minlength=len(user) * n_edges)
    return np.asarray(np.cumsum(flat.reshape(len(user), n_edges), axis=1))
