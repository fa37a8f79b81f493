"""Users who join with a message: a caution where the time before counts as observed, and none on ordinary logs."""

from __future__ import annotations

import numpy as np

from crosschannel.core.action_space import ActionSpace, Module
from crosschannel.core.hashing import keys
from crosschannel.core.times import DAY, HOUR
from crosschannel.histories.history import DecisionLog, EventLog, History
from crosschannel.histories.observation.joining import joining_notes

USERS, DAYS = 120, 14


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
    n = rng.poisson(0.5 * USERS * DAYS)
    who, when = rng.integers(0, USERS, n), rng.integers(0, DAYS * DAY, n)
    there = active_before | (when >= start[who] * DAY + 10 * HOUR)
    who, when = who[there], when[there]
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
        EventLog(user=who, time=when, event=np.zeros(len(who), dtype=np.int64), value=np.ones(len(who))),
        modules=ActionSpace([Module("channel", ("none", "email"))]),
        user_ids=np.array([f"u{i:03d}" for i in range(USERS)], dtype=object),
        event_names=("order",),
        span=(0, DAYS * DAY),
        observed_from=np.zeros(USERS, dtype=np.int64) if known else start * DAY + 10 * HOUR * (start > 0),
    )


def test_users_who_join_with_a_message_or_without_one_are_named() -> None:
    (note,) = joining_notes(log(welcome=1.0))
    assert "have 0 events before their first decision" in note
    assert "100% of these decisions sent a message" in note
    assert "`history.observed_from`" in note
    assert len(list(joining_notes(log(welcome=0.0)))) == 1


def test_other_logs_have_no_caution() -> None:
    for seed in range(20):
        assert not list(joining_notes(log(welcome=0.3, seed=seed)))
        assert not list(joining_notes(log(welcome=1.0, joiners=0.0, seed=seed)))
    assert not list(joining_notes(log(welcome=1.0, known=False)))
    assert not list(joining_notes(log(welcome=1.0, active_before=True)))
