"""The hours before a message: clocks that are off by an hour, and messages that follow orders."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from crosschannel.core.hashing import keys
from crosschannel.core.times import DAY, HOUR
from crosschannel.histories.history import History
from crosschannel.histories.logs import DecisionLog, EventLog
from crosschannel.reward.effects import diagnose
from crosschannel.reward.effects.checks.hours_before import NAME, check_hours_before, hours_before, outcomes_before
from crosschannel.reward.effects.checks.rewards import run_reward_tests
from crosschannel.reward.effects.estimates import Effect
from tests.reward.effects.checks.logs import MODULES, START, Rule, at_random, by_level, daily_log, did


def prompt_log(seed: int, late: int = 0, rule: Rule = at_random, users: int = 600, first: int = 0) -> History:
    """A log of messages that make .4 orders, three hours later on average, with times that are `late` microseconds.

    With `first` each such order came so many microseconds earlier: it is what the message followed.
    """
    history = daily_log(seed, rule, users=users, effect=0.0)
    rng, d, e = np.random.default_rng(seed), history.decisions, history.events
    sent = np.flatnonzero(history.modules.sends(d.actions))
    rows = np.repeat(sent, rng.poisson(0.4, len(sent)))
    time = d.time[rows] + np.minimum(rng.exponential(3 * HOUR, len(rows)).astype(np.int64) + 1, DAY - 1) - first
    kept = (time >= history.span[0]) & (time < history.span[1])
    user, when = np.concatenate([e.user, d.user[rows[kept]]]), np.concatenate([e.time, time[kept]])
    order = np.lexsort((when, user))
    n = np.zeros(len(order), dtype=np.int64)
    events = EventLog(user=user[order], time=when[order], event=n, value=np.ones(len(order)))
    return History.from_arrays(
        replace(d, time=d.time + late),
        events,
        modules=history.modules,
        user_ids=history.user_ids,
        event_names=("order",),
        span=history.span,
    )


@pytest.mark.parametrize(("late", "first"), [(HOUR, 0), (0, 2 * HOUR)])
def test_messages_an_hour_late_or_after_an_order_refuse_values(late: int, first: int):
    """An hour takes a quarter of the effect out of the window, and subtracts it: half of .4 is left."""
    history = prompt_log(0, late, first=first)
    tests = run_reward_tests(did(history), history)
    assert NAME in tests.refusal
    assert any("`time_zone`" in remedy for remedy in tests.remedies)
    assert "just before the message" in diagnose(did(history), history).verdict


def test_right_clocks_pass():
    """At the level of 5 %: at most 6 of 40 logs with a probability of .99."""
    failed = 0
    for seed in range(20):
        for rule in (at_random, by_level):
            history = prompt_log(seed, rule=rule, users=120)
            failed += hours_before(did(history), history).status == "failed"
    assert failed <= 6


def gapped_log(
    seed: int, gap: int, each: int, chance: float = 0.25, late: int = 0, users: int = 150, days: int = 14
) -> History:
    """Draw a log of random messages to users without one in the last `gap` hours, in slots every `each` hours.

    A message makes .4 orders, three hours later on average, beside .5 a day; times of messages are `late` microseconds.
    """
    rng, slots = np.random.default_rng(seed), days * 24 // each
    sent = np.zeros((slots, users), dtype=bool)
    for k in range(slots):
        recent = sent[max(k - gap // each + 1, 0) : k].any(axis=0)
        sent[k] = ~recent & (rng.random(users) < chance)
    user, slot = (part.ravel() for part in np.meshgrid(np.arange(users), np.arange(slots), indexing="ij"))
    actions, end = sent.T.ravel(), days * DAY
    rows = np.flatnonzero(actions)
    rows = np.repeat(rows, rng.poisson(0.4, len(rows)))
    n = rng.poisson(0.5 * users * days)
    who = np.concatenate([user[rows], rng.integers(0, users, n)])
    after = 1 + rng.exponential(3 * HOUR, len(rows)).astype(np.int64)
    when = np.concatenate([slot[rows] * each * HOUR + after, rng.integers(0, end, n)])
    order = np.flatnonzero(when < end)
    order = order[np.lexsort((when[order], who[order]))]
    ids = np.array([f"{u}-{k}" for u, k in zip(user.tolist(), slot.tolist(), strict=True)], dtype=object)
    nothing = np.full(len(user), np.nan)
    return History.from_arrays(
        DecisionLog(
            id=ids,
            key=keys(ids),
            user=user,
            time=START + slot * each * HOUR + late,
            actions=actions[:, None].astype(np.int64),
            propensity=nothing[:, None],
            joint=nothing,
        ),
        EventLog(
            user=who[order],
            time=START + when[order],
            event=np.zeros(len(order), dtype=np.int64),
            value=np.ones(len(order)),
        ),
        modules=MODULES,
        user_ids=np.array([f"u{i:04d}" for i in range(users)], dtype=object),
        event_names=("order",),
        span=(START, START + end),
    )


@pytest.mark.parametrize(("gap", "each", "chance"), [(6, 2, 0.1), (12, 4, 0.25), (24, 4, 0.25), (48, 8, 0.25)])
def test_right_clocks_pass_whatever_the_gap_between_messages(gap: int, each: int, chance: float):
    """Controls had messages in the gap, sent decisions none. At 5 %: at most 3 of 10 with a probability of .999."""
    found = []
    for seed in range(10):
        history = gapped_log(seed, gap, each, chance)
        found.append(hours_before(did(history), history))
    assert sum(check.status == "failed" for check in found) <= 3


def test_a_late_clock_is_found_with_a_gap_between_messages():
    history = gapped_log(0, 48, 8, late=HOUR, users=300)
    assert hours_before(did(history), history).status == "failed"


def test_decisions_with_another_message_before_are_left_out():
    """On both sides: in a log of a slot a day no decision counts whose user had a message the day before."""
    history = prompt_log(0, users=60)
    fitted, d = did(history), history.decisions
    sent = history.modules.sends(d.actions).reshape(60, -1)
    outcomes = outcomes_before(fitted.outcomes, history, fitted.model.spec)
    after_one = np.zeros_like(sent)
    after_one[:, 1:] = sent[:, :-1]
    assert not outcomes.observed[after_one.ravel()].any()
    kept = outcomes.observed & ~after_one.ravel()
    assert kept[outcomes.treated].any()
    assert kept[outcomes.control].any()


def test_a_clock_of_whole_hours_says_nothing():
    history = prompt_log(0, users=60)
    events = replace(history.events, time=history.events.time // HOUR * HOUR)
    assert hours_before(did(history), replace(history, events=events)) is None


def test_what_it_says():
    effect = Effect("all", 0.3, 0.02, n_treated=900, n_controls=900, n_users=300)
    before = replace(effect, value=0.05, se=0.01)
    assert check_hours_before(before, effect).status == "failed"
    assert check_hours_before(replace(before, se=0.05), effect).status == "passed"
    # Less than 5 % of the effect, however certain.
    assert check_hours_before(replace(before, value=0.01, se=0.001), effect).status == "passed"
    assert check_hours_before(replace(before, se=np.nan), effect) is None
