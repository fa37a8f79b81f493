"""Events at exactly a decision's time: dates without a time of day, and events that trigger a message."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from crosschannel.core.action_space import ActionSpace, Module
from crosschannel.core.errors import ConfigError, NotIdentified
from crosschannel.core.hashing import keys
from crosschannel.core.times import DAY, HOUR
from crosschannel.histories.features import ContextFeatures, ContextSpec
from crosschannel.histories.history import DecisionLog, EventLog, History
from crosschannel.histories.logs import take_rows
from crosschannel.histories.observation.users import (
    are_dates,
    are_dates_of_several_zones,
    dates_among_times,
    resolution,
    start_of_date,
    tied_events,
)
from crosschannel.histories.windows import Timeline
from crosschannel.reward import DidReward, Goal, RewardSpec
from crosschannel.reward.effects import TreatmentEffects, event_study

MODULES = ActionSpace([Module("channel", ("none", "email"))])
SPEC = RewardSpec(goals=(Goal("order"),), pre="1d", post="1d")
START = 19_000 * DAY


def campaign(seed: int, *, effect: float, trigger: bool = False, users: int = 400, days: int = 12) -> History:
    """Sends at 9 in the morning of random days; orders at any time, more of them the day after a send.

    With a trigger, an order at 9 makes the send more likely, and the two have the same time.
    """
    rng = np.random.default_rng(seed)
    user, day = (a.ravel() for a in np.meshgrid(np.arange(users), np.arange(1, days - 1), indexing="ij"))
    slot = START + day * DAY + 9 * HOUR
    bought = (rng.random(len(user)) < 0.2) & trigger
    sent = rng.random(len(user)) < np.where(bought, 0.9, 0.3)
    count = rng.poisson(1.0 * days, users)
    extra = rng.poisson(effect, len(user)) * sent
    event_user = np.concatenate([np.repeat(np.arange(users), count), np.repeat(user, extra), user[bought]])
    hours = 9 if not trigger else 24
    event_time = np.concatenate(
        [
            START + rng.integers(0, days * DAY, count.sum()),
            np.repeat(slot, extra) + rng.integers(1, min(24 - hours, 14) * HOUR or HOUR, extra.sum()),
            slot[bought],
        ]
    )
    ids = np.arange(len(user)).astype(str).astype(object)
    return History.from_arrays(
        DecisionLog(
            id=ids,
            key=keys(ids),
            user=user,
            time=slot,
            actions=sent.astype(np.int64)[:, None],
            propensity=np.full((len(user), 1), np.nan),
            joint=np.full(len(user), np.nan),
        ),
        EventLog(event_user, event_time, np.zeros(len(event_user), dtype=np.int64), np.ones(len(event_user))),
        modules=MODULES,
        user_ids=np.arange(users).astype(str).astype(object),
        event_names=("order",),
        span=(START, START + days * DAY - 1),
    )


def as_dates(history: History, *, decisions: bool, offset: int = 0) -> History:
    """The history with the dates of its events only, and of its decisions too if asked for."""
    d, e = history.decisions, history.events
    date = replace(e, time=e.time // DAY * DAY + offset)
    slots = replace(d, time=d.time // DAY * DAY + offset) if decisions else d
    return replace(history, events=date, decisions=slots)


def effect_of(history: History) -> tuple[float, float]:
    effect = TreatmentEffects.fit(DidReward(SPEC), history).effect()
    return effect.value, effect.se


@pytest.mark.parametrize("decisions", [True, False], ids=["dates of both", "sends with their times"])
@pytest.mark.parametrize(
    "offset",
    [0, 8 * HOUR, DAY - 1_000_000, DAY + 7 * HOUR + 59 * 60_000_000],
    ids=["UTC", "Los Angeles", "23:59:59", "23:59 in Los Angeles"],
)
def test_dates_are_refused_until_their_order_is_declared(decisions, offset):
    history = as_dates(campaign(0, effect=0.5), decisions=decisions, offset=offset)
    with pytest.raises(NotIdentified, match=r"dates without a time of day.*history.ties: 'before'.*'after'"):
        DidReward(SPEC).fit(history)
    after, se = effect_of(replace(history, ties="after"))
    assert abs(after - 0.5) < 4 * se < 0.25


def test_the_same_orders_with_their_hours_have_the_same_effect():
    value, se = effect_of(campaign(0, effect=0.5))
    assert abs(value - 0.5) < 4 * se


def test_windows_of_whole_days_hold_whole_dates():
    """A constant rate has no change, whatever the rule: neither window has one date more than the other."""
    base = as_dates(campaign(1, effect=0.0), decisions=True)
    steady = np.arange(12 * 400)
    events = replace(
        base.events,
        user=steady // 12,
        time=START + steady % 12 * DAY,
        event=np.zeros(len(steady), dtype=np.int64),
        value=np.ones(len(steady)),
    )
    for ties in ("before", "after"):
        outcomes = DidReward(SPEC).measure(replace(base, events=events, ties=ties))
        assert (outcomes.pre[outcomes.observed] == 1).all()
        assert (outcomes.post[outcomes.observed] == 1).all()


def test_a_trigger_is_not_credited_to_the_message_that_it_triggers():
    """The effect is 0. Counted after, triggers are an effect; counted before, they are a difference that is tested."""
    history = campaign(2, effect=0.0, trigger=True, users=1500)
    assert 0.05 < history.tied.mean() < 0.25
    with pytest.raises(NotIdentified, match=r"\d+% of the goal events are at exactly the time"):
        effect_of(history)
    assert effect_of(replace(history, ties="after"))[0] > 0.2
    before = replace(history, ties="before")
    assert effect_of(before)[0] < 0
    study = event_study(TreatmentEffects.fit(DidReward(SPEC), before), before)
    assert study.pre_trends().p_value < 0.01


def test_a_trigger_that_is_no_goal_changes_nothing():
    """The same log with the triggers as events of their own: no goal event ties, and the effect is 0."""
    history = campaign(2, effect=0.0, trigger=True, users=1500)
    events = replace(history.events, event=history.tied.astype(np.int64))
    split = History.from_arrays(
        history.decisions,
        events,
        modules=MODULES,
        user_ids=history.user_ids,
        event_names=("order", "cart"),
        span=history.span,
    )
    value, se = effect_of(split)
    assert abs(value) < 4 * se < 0.15


def test_few_ties_count_as_before_and_are_counted_in_the_summary():
    history = campaign(3, effect=0.0)
    e, d = history.events, history.decisions
    time = e.time.copy()
    row = int(np.flatnonzero(e.user == d.user[3])[0])
    time[row] = d.time[3]
    order = np.lexsort((time, e.user))
    tied = replace(history, events=replace(e, time=time[order]))
    assert tied.tied.sum() == 1
    assert "at exactly the time of a decision of their user: 1 event (0.0%), counted as before it" in (tied.summary())
    outcomes, without = (DidReward(SPEC).measure(log) for log in (tied, _without(tied, int(np.argmax(tied.tied)))))
    assert outcomes.pre[3] == without.pre[3] + 1
    assert outcomes.post[3] == without.post[3]


def _without(history: History, row: int) -> History:
    """The history without one event."""
    return replace(history, events=take_rows(history.events, np.arange(len(history.events)) != row))


def test_dates_beside_times_are_refused_with_ties_after():
    history = as_dates(campaign(4, effect=0.0), decisions=False)
    e = history.events
    visits = replace(
        e,
        user=np.concatenate([e.user, e.user]),
        time=np.concatenate([e.time, e.time + np.arange(len(e)) * 1_000_003 % DAY]),
        event=np.repeat([0, 1], len(e)),
        value=np.ones(2 * len(e)),
    )
    mixed = History.from_arrays(
        history.decisions,
        visits,
        modules=MODULES,
        user_ids=history.user_ids,
        event_names=("order", "visit"),
        span=history.span,
        ties="after",
    )
    with pytest.raises(ConfigError, match=r"the events of \['order'\] are dates .* those of \['visit'\] have times"):
        DidReward(replace(SPEC, goals=(Goal("order"), Goal("visit")))).fit(mixed)


def test_tied_events_equal_a_loop():
    rng = np.random.default_rng(0)
    for _ in range(50):
        users = int(rng.integers(1, 5))
        e_user, d_user = np.sort(rng.integers(0, users, 30)), np.sort(rng.integers(0, users, 12))
        e_time, d_time = rng.integers(0, 9, 30), rng.integers(0, 9, 12)
        e_time, d_time = e_time[np.lexsort((e_time, e_user))], d_time[np.lexsort((d_time, d_user))]
        events, decisions = (
            Timeline(time, np.searchsorted(user, np.arange(users + 1)))
            for user, time in ((e_user, e_time), (d_user, d_time))
        )
        expected = [any((u == d_user) & (t == d_time)) for u, t in zip(e_user, e_time, strict=True)]
        assert tied_events(events, decisions, d_user).tolist() == expected


def test_dates_are_recognised_across_a_change_of_clocks():
    summer, winter = START + np.arange(20) * DAY + 7 * HOUR, START + np.arange(20, 40) * DAY + 8 * HOUR
    assert are_dates(np.concatenate([summer, winter]))
    assert not are_dates(np.concatenate([summer, winter + HOUR]))
    assert not are_dates(summer[:5])
    assert not are_dates(np.full(50, START))
    asked = np.array([summer[3] + 5 * HOUR, winter[2], winter[2] - 1, START])
    assert start_of_date(asked, np.concatenate([summer, winter])).tolist() == [
        summer[3],
        winter[2],
        winter[1],
        summer[0] - DAY,
    ]


@pytest.mark.parametrize("share", [0.98, 0.5, 0.3])
def test_dates_among_times_of_one_event_are_refused(share):
    """Read as times, .98 of dates made -.50 orders of a true effect of .50, whatever `ties` was."""
    history = campaign(5, effect=0.5)
    e, rng = history.events, np.random.default_rng(0)
    time = np.where(rng.random(len(e)) < share, e.time // DAY * DAY, e.time)
    mixed = replace(history, events=take_rows(replace(e, time=time), np.lexsort((time, e.user))))
    with pytest.raises(NotIdentified, match=r"\d+% of the events of 'order' are at exactly 00:00:00"):
        effect_of(mixed)
    with pytest.raises(ConfigError, match="no windows with `ties: after` are right for both"):
        effect_of(replace(mixed, ties="after"))
    effect_of(replace(mixed, ties="before"))


def test_hours_of_a_coarse_clock_are_no_dates_among_times():
    rng = np.random.default_rng(1)
    time = START + rng.integers(0, 30 * DAY, 3000)
    for unit in (1, HOUR, 6 * HOUR, 12 * HOUR):
        assert not dates_among_times(time // unit * unit).any()
    dates = START + rng.integers(0, 30, 3000) * DAY
    assert not dates_among_times(dates).any()
    assert dates_among_times(np.append(dates, time)).tolist() == [True] * 3000 + [False] * 3000
    assert not dates_among_times(np.append(time, dates[:300])).any()


@pytest.mark.parametrize("ties", ["before", "after", None])
def test_contexts_do_not_see_the_dates_of_their_own_day(ties):
    """An order dated today is stored at midnight, but may come after the slot at nine, and no log of nine has it."""
    history = replace(as_dates(campaign(5, effect=3.0), decisions=False), ties=ties)
    features = ContextFeatures.fit(history, ContextSpec(windows=("3d",), messages=False, clock=False))
    counts = features.covariates(history)[:, features.names.index("count order 3d")]
    d, e = history.decisions, history.events
    today = np.zeros(len(d))
    for row in range(len(d)):
        today[row] = np.count_nonzero((e.user == d.user[row]) & (e.time // DAY == d.time[row] // DAY))
    assert today[d.actions[:, 0] == 1].mean() > 2
    assert abs(np.corrcoef(counts, today)[0, 1]) < 0.06
    midnight = replace(history, decisions=replace(d, time=d.time // DAY * DAY))
    np.testing.assert_array_equal(features.covariates(midnight)[:, features.names.index("count order 3d")], counts)


def test_dates_of_several_time_zones_are_refused():
    history = campaign(6, effect=0.5)
    zone = (5 + history.events.user % 4) * HOUR
    events = replace(history.events, time=(history.events.time - zone) // DAY * DAY + zone)
    dates = replace(history, events=events)
    with pytest.raises(NotIdentified, match="dates without a time of day"):
        effect_of(dates)
    with pytest.raises(ConfigError, match="dates of several time zones"):
        effect_of(replace(dates, ties="after"))
    assert not are_dates_of_several_zones(START + np.arange(2000) % 24 * HOUR + np.arange(2000) // 24 * DAY)


@pytest.mark.parametrize("hours", [4, 12])
def test_coarse_clocks_are_refused_until_their_order_is_declared(hours):
    """Orders cut to four hours, of which nearly half had no clear order: .31 +- .03 orders where the truth is .5."""
    history = campaign(7, effect=0.5)
    d, e = history.decisions, history.events
    decisions = replace(d, time=d.time + 25 * 60_000_000)
    cut = replace(history, decisions=decisions, events=replace(e, time=e.time // (hours * HOUR) * (hours * HOUR)))
    assert resolution(cut.events.time) == hours * HOUR
    with pytest.raises(NotIdentified, match=f"as far as their clock of {hours} h says"):
        effect_of(cut)
    value, se = effect_of(replace(cut, ties="after"))
    assert abs(value - 0.5) < 4 * se
