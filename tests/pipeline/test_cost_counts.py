"""Counts of cost events: all of them, and those that no message can have caused."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from crosschannel.core.arrays import BoolArray
from crosschannel.core.times import DAY, WEEK
from crosschannel.histories.history import History
from crosschannel.histories.logs import take_rows
from crosschannel.histories.observation.slicing import since, until
from crosschannel.pipeline.cost_counts import CostCounts, arms_began
from tests.samples import random_history

EVENTS = ("order", "visit")


def by_hand(history: History, window: int) -> CostCounts:
    """The same, user by user and message by message."""
    time, idle_time, events, idle_events = 0, 0, [0, 0], [0, 0]
    d, log = history.decisions, history.events
    sent = history.modules.sends(d.actions)
    for user in range(history.n_users):
        mine = d.time[d.user == user]
        if not len(mine):
            continue
        start = int(mine.min())
        end = int(min(history.churned_at[user], history.observed_until[user]))
        messages = d.time[(d.user == user) & sent]
        free, covered = max(end - start, 0), start
        for message in messages[messages < end].tolist():
            stop = min(message + window, end)
            free -= max(stop - max(message, covered), 0)
            covered = max(covered, stop)
        time, idle_time = time + max(end - start, 0), idle_time + free
        for code, name in enumerate(EVENTS):
            at = log.time[(log.user == user) & history.are_events([name])]
            at = at[(at >= start) & (at <= end)]
            after = ((at[:, None] >= messages) & (at[:, None] <= messages + window)).any(1)
            events[code] += len(at)
            idle_events[code] += int((~after).sum())
    return CostCounts(tuple(events), time, tuple(idle_events), idle_time)


@pytest.mark.parametrize("window", [DAY // 2, DAY, 3 * DAY])
@pytest.mark.parametrize("churn", [(), ("visit",)])
def test_counts_are_those_by_hand(window: int, churn: tuple[str, ...]) -> None:
    history: History = replace(random_history(4, users=25, days=12, rate=0.2), churn_events=churn)
    assert CostCounts.of(history, EVENTS, window) == by_hand(history, window)


def test_in_a_log_without_messages_all_is_organic() -> None:
    counts = CostCounts.of(random_history(7, users=10, days=8, send=0.0), EVENTS, DAY)
    assert (counts.idle_events, counts.idle_time) == (counts.events, counts.time)


def test_counts_of_users_add_up() -> None:
    history = random_history(5, users=30, days=12)
    half = np.arange(30) < 15
    parts = [CostCounts.of(history.select_users(mine), EVENTS, DAY) for mine in (half, ~half)]
    assert parts[0] + parts[1] == CostCounts.of(history, EVENTS, DAY)


def test_where_messages_cause_nothing_both_rates_are_the_same() -> None:
    """Events come at random, .1 a day: the difference of both rates is within 4 standard errors of a Poisson rate."""
    history = random_history(6, users=400, days=20)
    counts = CostCounts.of(history, EVENTS, DAY)
    for name, events, idle in zip(EVENTS, counts.events, counts.idle_events, strict=True):
        assert 0 < idle < events
        error = counts.organic(EVENTS)[name] / idle**0.5
        assert counts.organic(EVENTS)[name] == pytest.approx(counts.rates(EVENTS)[name], abs=4 * error)


def with_arms(history: History, began: int, usual: BoolArray) -> History:
    """Arms from a time on, of users (U,) of whom the others are the agent's."""
    d = history.decisions
    arm = np.where(d.time < began, None, np.where(usual[d.user], "business_as_usual", "agent"))
    return replace(history, decisions=replace(d, arm=arm))


def business_as_usual(history: History) -> CostCounts | None:
    """What an update counts: the arm, and everybody before there were arms."""
    found = CostCounts.in_arm(history, EVENTS, DAY)
    return None if found is None else CostCounts.before(history, EVENTS, DAY, arms_began(history)) + found


def test_business_as_usual_is_everybody_until_there_are_arms_and_then_the_arm() -> None:
    """Visits churn, so that most users churn before the arms begin, and have no decision in any arm."""
    history = replace(random_history(8, users=60, days=12, rate=0.1), churn_events=("visit",))
    alive = history.decisions.time <= history.churned_at[history.decisions.user]
    history = replace(history, decisions=take_rows(history.decisions, alive))
    began, usual = history.span[0] + 6 * DAY, np.arange(60) % 2 == 0
    found = business_as_usual(with_arms(history, began, usual))
    first = int(history.decisions.time[history.decisions.time >= began].min())
    before = by_hand(until(history, first), DAY)
    arm = usual & (np.bincount(history.decisions.user[history.decisions.time >= began], minlength=60) > 0)
    later = CostCounts.of(since(history.select_users(arm), first), EVENTS, 0)
    assert found is not None
    assert before.events[1] > later.events[1] > 0
    assert found.events == tuple(np.add(before.events, later.events))
    survivors = CostCounts.of(history.select_users(arm), EVENTS, DAY)  # days without churn made them so
    assert found.rates(EVENTS)["visit"] > 1.5 * survivors.rates(EVENTS)["visit"]


def test_business_as_usual_from_the_start_is_its_users() -> None:
    history, usual = random_history(9, users=30, days=10), np.arange(30) < 12
    found = business_as_usual(with_arms(history, 0, usual))
    assert found == CostCounts.of(history.select_users(usual), EVENTS, DAY)
    assert business_as_usual(history) is None


def test_users_who_are_moved_to_another_arm_count_until_then() -> None:
    """A log that names business as usual from its start, for all, of whom half are the agent's users later."""
    history = random_history(10, users=40, days=12)
    moved, usual = history.span[0] + 6 * DAY, np.arange(40) % 2 == 0
    d = history.decisions
    arm = np.where((d.time < moved) | usual[d.user], "business_as_usual", "agent")
    found = business_as_usual(replace(history, decisions=replace(d, arm=arm)))
    whole = CostCounts.of(history.select_users(usual), EVENTS, DAY)
    parts = [CostCounts.of(history.select_users(~usual), EVENTS, DAY)]
    for user in np.flatnonzero(~usual):
        one = history.select_users(np.arange(40) == user)
        later = one.decisions.time[one.decisions.time >= moved]
        parts.append(CostCounts.of(until(one, int(later[0])) if len(later) else one, EVENTS, DAY))
    assert found == sum(parts[1:], whole)
    assert found.time < whole.time + parts[0].time


def test_without_time_outside_windows_nothing_is_organic() -> None:
    assert CostCounts((3,), WEEK, (0,), 0).organic(["order"]) == {"order": 0.0}
