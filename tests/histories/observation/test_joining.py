"""Users who join with a message: a caution where the time before counts as observed, and none on ordinary logs."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from crosschannel.core.action_space import ActionSpace, Module
from crosschannel.core.arrays import BoolArray, IntArray
from crosschannel.core.hashing import keys
from crosschannel.core.times import DAY, HOUR
from crosschannel.histories.goals import Goal
from crosschannel.histories.history import DecisionLog, EventLog, History
from crosschannel.histories.observation.goal_events import goal_notes

USERS, DAYS = 300, 42


def log(
    *, welcome: float, joiners: float = 0.5, known: bool = True, active_before: bool = False, seed: int = 0
) -> History:
    """Return a log in which users join over time, and the first decision of a joiner sends with a probability.

    Args:
        welcome: This probability; all others are .3.
        joiners: Share of the users who join after the first day.
        known: Whether all users count as observed from the start of the log on.
        active_before: Whether joiners have events before they join.
        seed: Seed.
    """
    rng = np.random.default_rng(seed)
    start = np.where(rng.random(USERS) < joiners, rng.integers(2, DAYS - 2, USERS), 0)
    user, day = (part.ravel() for part in np.meshgrid(np.arange(USERS), np.arange(DAYS), indexing="ij"))
    kept = day >= start[user]
    user, day = user[kept], day[kept]
    chance = np.where((day == start[user]) & (start[user] > 0), welcome, 0.3)
    sent = rng.random(len(user)) < chance
    n = rng.poisson(0.2 * USERS * DAYS)
    who, when = rng.integers(0, USERS, n), rng.integers(0, DAYS * DAY, n)
    there = active_before | (when >= start[who] * DAY + 10 * HOUR)
    who, when = who[there], when[there]
    observed_from = np.zeros(USERS, dtype=np.int64) if known else start * DAY + 10 * HOUR * (start > 0)
    events = EventLog(user=who, time=when, event=np.zeros(len(who), dtype=np.int64), value=np.ones(len(who)))
    return replace(history_of(user, day, sent, events), observed_from=observed_from)


def history_of(user: IntArray, day: IntArray, sent: BoolArray, events: EventLog) -> History:
    """Return a history of decisions at ten o'clock, sorted by user and day, and of orders and opens."""
    ids = np.array([f"{u}-{k}" for u, k in zip(user.tolist(), day.tolist(), strict=True)], dtype=object)
    return History.from_arrays(
        DecisionLog(
            id=ids,
            key=keys(ids),
            user=user,
            time=day * DAY + 10 * HOUR,
            actions=sent[:, None].astype(np.int64),
            propensity=np.full((len(user), 1), np.nan),
            joint=np.full(len(user), np.nan),
        ),
        events,
        modules=ActionSpace([Module("channel", ("none", "email"))]),
        user_ids=np.array([f"u{i:03d}" for i in range(USERS)], dtype=object),
        event_names=("order", "open"),
        span=(0, DAYS * DAY),
    )


def ordinary(seed: int, per_week: int | None, messages: float = 0.5) -> History:
    """Return a log of users who are there from the start: decisions on some days, a cap, rare orders, many opens.

    Args:
        seed: Seed.
        per_week: At most so many messages within 7 days; None for one within 4 days.
        messages: The mean over users of the probability of a message that the cap allows; a fifth get none.
    """
    rng = np.random.default_rng(seed)
    chance = np.where(rng.random(USERS) < 0.2, 0.0, messages * 2 * rng.random(USERS))
    length, most = (4, 1) if per_week is None else (7, per_week)
    decided = rng.random((DAYS, USERS)) < 0.4 * rng.random(USERS)
    sent = np.zeros((DAYS, USERS), dtype=bool)
    for day in range(DAYS):
        allowed = sent[max(day - length + 1, 0) : day].sum(axis=0) < most
        sent[day] = decided[day] & allowed & (rng.random(USERS) < chance)
    user, day = np.nonzero(decided.T)
    opened, opener = (np.repeat(part, 3) for part in np.nonzero(sent))
    orders = rng.poisson(0.03 * USERS * DAYS)
    who = np.concatenate([rng.integers(0, USERS, orders), opener])
    delay = rng.integers(1, 12 * HOUR, len(opener))
    when = np.concatenate([rng.integers(0, DAYS * DAY, orders), opened * DAY + 10 * HOUR + delay])
    name = np.repeat([0, 1], [orders, len(opener)])
    events = EventLog(user=who, time=when, event=name, value=np.ones(len(who)))
    return history_of(user, day, sent.T[decided.T], events)


def notes(history: History, goals: tuple[Goal, ...] = (Goal("order"),)) -> list[str]:
    """Return the cautions on users who join, among those on the goals."""
    return [note for note in goal_notes(history, goals) if "first decision" in note]


def test_users_who_join_with_a_message_or_without_one_are_named() -> None:
    for seed in range(5):
        (note,) = notes(log(welcome=1.0, seed=seed))
        assert "have 0 goal events before their first decision" in note
        assert "100% of these decisions sent a message" in note
        assert "`history.observed_from`" in note
        assert len(notes(log(welcome=0.0, seed=seed))) == 1


def test_other_logs_have_no_caution() -> None:
    for seed in range(20):
        assert not notes(log(welcome=0.3, seed=seed))
        assert not notes(log(welcome=1.0, joiners=0.0, seed=seed))
    assert not notes(log(welcome=1.0, known=False))
    assert not notes(log(welcome=1.0, active_before=True))


@pytest.mark.parametrize("per_week", [None, 1, 3])
def test_users_who_were_there_have_none_whatever_the_cap(per_week: int | None) -> None:
    """Opens cannot be before the first message, with a cap first decisions send more: also with opens as goals."""
    for seed in range(20):
        history = ordinary(seed, per_week)
        assert not notes(history)
        assert not notes(history, (Goal("open"),))
        assert not notes(history, (Goal("order"), Goal("open", weight=0.1)))


def test_churn_that_cannot_come_before_is_not_counted() -> None:
    history = log(welcome=1.0)
    assert not notes(replace(history, event_names=("unsubscribed",)), (Goal("unsubscribed", weight=-1.0),))
