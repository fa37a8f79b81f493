"""Engagement equals a loop over events, with and without ids, ties and shared events."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from crosschannel.core.action_space import ActionSpace, Module
from crosschannel.core.hashing import keys
from crosschannel.core.times import DAY, HOUR, duration
from crosschannel.histories.history import DecisionLog, EventLog, History
from crosschannel.histories.logs import NO_MESSAGE, UNKNOWN_MESSAGE, take_rows
from crosschannel.reward import FunnelSpec
from crosschannel.reward.funnel.engagement import measure_engagement
from crosschannel.reward.reason import Reason
from tests.reward.funnel.worlds import EXCLUSION, FUNNEL, simulate

MODULES = ActionSpace([Module("channel", ("none", "email", "push", "sms")), Module("offer", ("small", "large"))])
EVENTS = ("opened:email", "opened:push", "clicked", "visit")
START = 20_000 * DAY
FUNNELS = {
    "each its own": FunnelSpec({"email": "opened:email", "push": "opened:push", "sms": "clicked"}, "9h"),
    "one for all": FunnelSpec("opened*", "9h"),
    "overlapping": FunnelSpec({"email": "opened*", "push": "opened:push", "sms": "*"}, "9h"),
    "some": FunnelSpec({"push": "clicked"}),
}


def random_log(seed: int, users: int = 12, named: float = 0.0) -> History:
    """Decisions and events on a grid of hours, so that many tie."""
    rng = np.random.default_rng(seed)
    n, e = users * 14, users * 50
    user = np.repeat(np.arange(users), 14)
    time = START + np.concatenate([np.sort(rng.choice(8 * 24, 14, replace=False)) for _ in range(users)]) * HOUR
    actions = np.stack([rng.integers(0, 4, n), rng.integers(0, 2, n)], axis=1)
    event_user = rng.integers(0, users, e)
    message = np.where(rng.random(e) < named, rng.integers(0, 14, e) + 14 * event_user, NO_MESSAGE)
    message[(message >= 0) & (rng.random(e) < 0.2)] = UNKNOWN_MESSAGE
    ids = np.array([f"d{i:04d}" for i in range(n)], dtype=object)
    return History.from_arrays(
        DecisionLog(
            id=ids,
            key=keys(ids),
            user=user,
            time=time,
            actions=MODULES.canonical(actions),
            propensity=np.full((n, 2), np.nan),
            joint=np.full(n, np.nan),
        ),
        EventLog(
            user=event_user,
            time=START + rng.integers(0, 8 * 24, e) * HOUR + rng.integers(0, 2, e) * 7,
            event=rng.integers(0, len(EVENTS), e),
            value=np.ones(e),
            message=message if named else None,
        ),
        modules=MODULES,
        user_ids=np.array([f"u{i:02d}" for i in range(users)], dtype=object),
        event_names=EVENTS,
        span=(START, START + 8 * DAY),
    )


def by_loop(history: History, funnel: FunnelSpec, post: str) -> np.ndarray:
    """The same, event by event: 1 or 0 for sent decisions, as if all channels told it."""
    window = duration(funnel.window or post)
    patterns = funnel.channels(history.modules[0].actions[1:])
    d, e = history.decisions, history.events
    out = np.where(d.actions[:, 0] > 0, 0.0, np.nan)
    channel = [history.modules[0].actions[code] for code in d.actions[:, 0]]

    def tells(event: str, on: str) -> bool:
        pattern = patterns.get(on)
        return pattern is not None and (event == pattern or (pattern.endswith("*") and event.startswith(pattern[:-1])))

    def follows(event_time: int, decision_time: int) -> bool:
        return event_time >= decision_time if history.ties == "after" else event_time > decision_time

    for row in range(len(e)):
        name = history.event_names[e.event[row]]
        if e.message is not None and e.message[row] != NO_MESSAGE:
            candidates = [int(e.message[row])] if e.message[row] >= 0 else []
        else:
            mine = np.flatnonzero((d.user == e.user[row]) & (d.actions[:, 0] > 0))
            before = [i for i in mine if follows(e.time[row], d.time[i]) and tells(name, channel[i])]
            candidates = before[-1:]
        for i in candidates:
            end = d.time[i] + window
            inside = follows(e.time[row], d.time[i]) and not follows(e.time[row], end)
            if inside and d.actions[i, 0] > 0 and tells(name, channel[i]):
                out[i] = 1.0
    return out


@pytest.mark.parametrize("funnel", FUNNELS.values(), ids=FUNNELS)
@pytest.mark.parametrize("named", [0.0, 0.5, 1.0])
@pytest.mark.parametrize("ties", [None, "after"])
def test_it_equals_a_loop_over_events(funnel, named, ties):
    history = random_log(3, named=named).with_ties(ties)
    if ties == "after":  # without events off the hour: their clock is then that of the decisions
        events = replace(history.events, time=history.events.time // HOUR * HOUR)
        history = replace(history, events=events)
    found, expected = measure_engagement(history, funnel, "1d"), by_loop(history, funnel, "1d")
    known = found.reason == Reason.IDENTIFIED
    assert known.sum() > 20
    np.testing.assert_array_equal(found.engaged[known], expected[known])
    assert np.isnan(found.engaged[~known]).all()
    if named < 1:
        assert 0 < found.engaged[known].mean() < 1


def test_reasons_say_why_engagement_is_not_known():
    history = random_log(5)
    found = measure_engagement(history, FUNNELS["some"], "1d")
    d = history.decisions
    sent, push = d.actions[:, 0] > 0, d.actions[:, 0] == 2
    late = d.time + 1 + DAY > history.span[1] + 1
    assert (found.reason[~sent] == Reason.NOT_SENT).all()
    assert (found.reason[sent & ~push] == Reason.NO_ENGAGEMENT_EVENT).all()
    assert (found.reason[push & late] == Reason.OUTSIDE_OBSERVATION).all()
    assert (found.reason[push & ~late] == Reason.IDENTIFIED).all()
    assert min(late[push].sum(), (~late)[push].sum()) > 0


def test_it_is_not_known_after_churn_or_beyond_a_users_own_observation():
    history = random_log(6)
    d = history.decisions
    gone = replace(history, churn_events=("visit",), event_names=EVENTS)
    found = measure_engagement(gone, FUNNELS["each its own"], "1d")
    after = (d.time > gone.churned_at[d.user]) & (d.actions[:, 0] > 0)
    assert (found.reason[after] == Reason.CHURNED).all()
    assert after.sum() > 10
    until = np.full(history.n_users, START + 4 * DAY)
    short = replace(history, observed_until=until)
    late = (d.time + 9 * HOUR >= START + 4 * DAY + 1) & (d.actions[:, 0] > 0)
    found = measure_engagement(short, FUNNELS["each its own"], "1d")
    assert (found.reason[late] == Reason.USER_NOT_OBSERVED).all() or np.isin(
        found.reason[late], (Reason.USER_NOT_OBSERVED, Reason.OUTSIDE_OBSERVATION)
    ).all()


def test_a_channel_without_any_event_is_unknown_and_not_unseen():
    history = simulate(EXCLUSION, 0, 80)
    names = history.event_names
    kept = history.events.event != names.index("opened:push")
    without = replace(history, events=take_rows(history.events, kept))
    found = measure_engagement(without, FUNNEL, "1d")
    push = history.decisions.actions[:, 0] == 2
    assert (found.reason[push] == Reason.NO_ENGAGEMENT_EVENT).all()
    np.testing.assert_array_equal(found.engaged[~push], measure_engagement(history, FUNNEL, "1d").engaged[~push])


def test_the_id_of_a_message_decides_where_two_came_in_a_row():
    """The first of two e-mails is opened after the second one: only the id says so."""
    modules = ActionSpace([Module("channel", ("none", "email"))])
    ids = np.array(["first", "second"], dtype=object)
    decisions = DecisionLog(
        id=ids,
        key=keys(ids),
        user=np.zeros(2, dtype=np.int64),
        time=START + np.array([0, HOUR]),
        actions=np.ones((2, 1), dtype=np.int64),
        propensity=np.full((2, 1), np.nan),
        joint=np.full(2, np.nan),
    )
    zero = np.zeros(1, dtype=np.int64)

    def engaged(message: np.ndarray | None) -> list[float]:
        events = EventLog(zero, zero + START + 2 * HOUR, zero, np.ones(1), message)
        history = History.from_arrays(
            decisions,
            events,
            modules=modules,
            user_ids=np.array(["u"], dtype=object),
            event_names=("opened",),
            span=(START, START + 3 * DAY),
        )
        return measure_engagement(history, FunnelSpec("opened"), "1d").engaged.tolist()

    assert engaged(None) == [0.0, 1.0]
    assert engaged(np.array([0])) == [1.0, 0.0]
    assert np.isnan(engaged(np.array([UNKNOWN_MESSAGE]))).all()  # then the channel has no event at all


def test_it_is_known_when_its_window_has_closed():
    history = random_log(7)
    found = measure_engagement(history, FUNNELS["each its own"], "1d")
    late = history.decisions.time > START + DAY  # by then each channel has had an event
    np.testing.assert_array_equal(found.available_at[late], history.decisions.time[late] + 9 * HOUR)
    # Later events change nothing that is available.
    for hours in (*range(0, 30, 3), 70, 120):
        until = START + hours * HOUR
        cut = replace(history, events=take_rows(history.events, history.events.time <= until))
        early = (found.available_at <= until) & (found.reason == Reason.IDENTIFIED)
        again = measure_engagement(cut, FUNNELS["each its own"], "1d")
        np.testing.assert_array_equal(found.engaged[early], again.engaged[early])
        assert hours < 30 or early.any()
