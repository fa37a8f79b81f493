"""Cautions on goal events: times without any, copies, and one act under two names; and none on ordinary logs."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from crosschannel.core.times import DAY, HOUR, SECOND
from crosschannel.histories.goals import Goal
from crosschannel.histories.history import CAUTION, EventLog, History
from crosschannel.histories.observation.goal_events import goal_notes
from tests.samples import random_history

ORDER = (Goal("order"),)


def log(user: np.ndarray, time: np.ndarray, name: np.ndarray, value: np.ndarray | None = None) -> History:
    """Return a log of 40 users and 12 days with the given events, `order` (0) or `order_server` (1)."""
    base = random_history(0)
    return History.from_arrays(
        base.decisions,
        EventLog(user=user, time=time, event=name, value=np.ones(len(user)) if value is None else value),
        modules=base.modules,
        user_ids=base.user_ids,
        event_names=("order", "order_server"),
        span=base.span,
    )


def orders(rate: float = 1.0, seed: int = 0) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Return users, times and names of orders all over the time, `rate` a day and user."""
    rng = np.random.default_rng(seed)
    n = rng.poisson(rate * 40 * 12)
    return rng.integers(0, 40, n), rng.integers(0, 12 * DAY, n), np.zeros(n, dtype=np.int64)


def test_an_ordinary_log_has_no_caution() -> None:
    for seed in range(20):
        assert goal_notes(log(*orders(seed=seed)), ORDER) == ()
        assert goal_notes(log(*orders(0.05, seed)), ORDER) == ()


@pytest.mark.parametrize(("first", "last", "advice"), [(0, 6, "Set `span`"), (6, 12, "Set `span`"), (4, 7, "Leave")])
def test_days_without_any_goal_event_are_named(first: int, last: int, advice: str) -> None:
    user, time, name = orders()
    kept = (time < first * DAY) | (time >= last * DAY)
    (note,) = goal_notes(log(user[kept], time[kept], name[kept]), ORDER)
    assert note.startswith(f"{CAUTION}there is no 'order' from 1970-01-")
    assert "are usual" in note
    assert advice in note


def test_nights_and_weekends_are_usual() -> None:
    user, time, name = orders()
    day, hour = time // DAY, time % DAY // HOUR
    open_hours = (hour >= 9) & (hour < 17) & ~np.isin(day % 7, (5, 6))
    assert goal_notes(log(user[open_hours], time[open_hours], name[open_hours]), ORDER) == ()


def test_time_without_decisions_does_not_count() -> None:
    """Nobody unsubscribes before there are messages, and decisions of the sample begin on the third day."""
    user, time, name = orders()
    kept = time >= 2 * DAY
    assert goal_notes(log(user[kept], time[kept], name[kept]), ORDER) == ()


def test_copies_within_a_minute_are_counted() -> None:
    user, time, name = orders()
    again = np.arange(len(user)) % 10 == 0
    late = np.concatenate([time, time[again] + 40 * SECOND])
    (note,) = goal_notes(log(np.append(user, user[again]), late, np.append(name, name[again])), ORDER)
    copies = int(note.removeprefix(CAUTION).split()[0].replace(",", ""))
    assert again.sum() <= copies <= again.sum() + 3
    values = np.arange(len(late), dtype=float)
    assert goal_notes(log(np.append(user, user[again]), late, np.append(name, name[again]), values), ORDER) == ()


def test_dates_without_a_time_of_day_are_no_copies() -> None:
    user, time, name = orders(5.0)
    assert goal_notes(log(user, time - time % DAY, name), ORDER) == ()


def test_one_act_under_two_names_is_named_where_one_goal_counts_both() -> None:
    user, time, name = orders()
    two = log(np.append(user, user), np.append(time, time + 2 * SECOND), np.append(name, name + 1))
    (note,) = goal_notes(two, (Goal("order*"),))
    assert "counts 'order' and 'order_server'" in note
    assert goal_notes(two, ORDER) == ()
    other, later, _ = orders(seed=1)
    apart = log(np.append(user, other), np.append(time, later), np.append(name, np.ones(len(other), dtype=np.int64)))
    assert goal_notes(apart, (Goal("order*"),)) == ()


def test_churn_that_counts_as_good_is_named() -> None:
    user, time, _ = orders()
    left = replace(log(user, time, np.arange(len(user)) % 2), churn_events=("order_server",))
    (note,) = goal_notes(left, (Goal("order"), Goal("order_server", weight=3.0)))
    assert "its weight of 3 counts more of it as good" in note
    assert goal_notes(left, (Goal("order"), Goal("order_server", weight=-3.0))) == ()


def test_amounts_in_two_currencies_are_named() -> None:
    """A third of the users pays in yen, 160 to the euro."""
    user, time, name = orders()
    spent, value = (Goal("order", measure="value"),), np.random.default_rng(1).gamma(2.0, 15.0, len(user))
    (note,) = goal_notes(log(user, time, name, np.where(user % 3 == 0, 160 * value, value)), spent)
    assert "amounts of 'order' are of two kinds of users with nobody in between" in note
    assert "Two plans" in note


@pytest.mark.parametrize("spread", [0.5, 1.0, 2.0, 3.0])
def test_uneven_amounts_of_one_currency_are_usual(spread: float) -> None:
    """Log-normal amounts and log-normal levels of users, 100 logs of 40 users each: the least users that are judged."""
    for seed in range(25):
        user, time, name = orders(seed=seed)
        rng = np.random.default_rng(seed)
        value = np.exp(rng.normal(0, spread, 40)[user] + rng.normal(0, spread, len(user)))
        assert goal_notes(log(user, time, name, value), (Goal("order", measure="value"),)) == ()


def test_a_goal_that_the_log_does_not_have_is_left_to_the_rewards() -> None:
    assert goal_notes(log(*orders()), (Goal("refund"),)) == ()
