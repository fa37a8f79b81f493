"""How many of the decided messages were delivered, by events that name the decision or only its user."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from crosschannel.core.errors import ConfigError
from crosschannel.core.times import DAY, HOUR
from crosschannel.histories import History
from crosschannel.histories.history import EventLog
from crosschannel.pipeline.loop.decisions.delivery import delivered_share
from tests.pipeline.loop.samples import START, daily_log

NAMES = ("delivered", "bounced", "visit")


def log_of(events: list[tuple[int, int, str, int]], own: bool = True) -> History:
    """A log whose decisions are a policy's, with events of (user, time, name, row of the decision or -1)."""
    history = daily_log(30)
    d = history.decisions
    policy = np.full(len(d), "0123456789ab" if own else "campaign", dtype=object)
    columns = list(zip(*events, strict=True))
    log = EventLog(
        user=np.array(columns[0]),
        time=np.array(columns[1]),
        event=np.array([NAMES.index(name) for name in columns[2]]),
        value=np.ones(len(events)),
        message=np.array(columns[3]),
    )
    return History.from_arrays(
        replace(d, policy=policy),
        log,
        modules=history.modules,
        user_ids=history.user_ids,
        event_names=NAMES,
        span=history.span,
    )


def sends() -> tuple[np.ndarray, History]:
    history = daily_log(30)
    return np.flatnonzero(history.modules.sends(history.decisions.actions)), history


@pytest.mark.parametrize("named", [True, False])
def test_each_channel_has_its_share(named):
    rows, history = sends()
    d = history.decisions
    told = rows[::3]
    events = [(int(d.user[k]), int(d.time[k]) + HOUR, "delivered", int(k) if named else -1) for k in told]
    found = delivered_share(log_of(events), ["delivered"], 6 * HOUR).set_index("channel")
    for code, channel in ((1, "email"), (2, "push")):
        mine = d.actions[rows, 0] == code
        assert found.decided[channel] == mine.sum()
        assert found.delivered[channel] == (d.actions[told, 0] == code).sum()
    assert found.share["all"] == pytest.approx(len(told) / len(rows))
    other = delivered_share(log_of(events, own=False), ["delivered"], 6 * HOUR).set_index("channel")
    assert other.decided["all"] == 0
    assert np.isnan(other.share["all"])


def test_events_before_too_late_or_about_another_message_do_not_count():
    rows, history = sends()
    d = history.decisions
    k = int(rows[0])
    user, time = int(d.user[k]), int(d.time[k])
    silent = int(np.flatnonzero(~history.modules.sends(d.actions))[0])
    one = (user, time + HOUR, "delivered", k)
    for events, n in (
        ([one], 1),
        ([one, one], 1),
        ([(user, time, "delivered", k)], 1),
        ([(user, time + 6 * HOUR, "delivered", k)], 1),
        ([(user, time + 6 * HOUR + 1, "delivered", k)], 0),
        ([(user, time - 1, "delivered", k)], 0),
        ([(user, time + HOUR, "visit", k), (user, time - HOUR, "delivered", -1)], 0),
        ([(user, time + HOUR, "delivered", -2)], 0),
        ([(int(d.user[silent]), int(d.time[silent]), "delivered", silent)], 0),
        ([one, (user, time + 2 * HOUR, "bounced", k)], 0),
    ):
        padding = [(0, START + HOUR, name, -2) for name in NAMES]
        found = delivered_share(log_of([*events, *padding]), ["delivered"], 6 * HOUR, failed=["bounced"])
        assert found.delivered.iloc[-1] == n, events


def test_what_has_not_failed_counts_where_nothing_tells_of_deliveries():
    rows, history = sends()
    d = history.decisions
    events = [(int(d.user[k]), int(d.time[k]) + HOUR, "bounced", int(k)) for k in rows[:7]]
    found = delivered_share(log_of(events), [], 6 * HOUR, failed=["bounced"])
    assert found.delivered.iloc[-1] == len(rows) - 7


def test_messages_count_once_their_time_is_over_and_from_a_time_on():
    rows, history = sends()
    d = history.decisions
    k = int(rows[0])
    log = log_of([(int(d.user[k]), int(d.time[k]) + HOUR, "delivered", k)])
    last = int(d.time.max())
    assert delivered_share(log, ["delivered"], HOUR).decided.iloc[-1] == len(rows)
    closed = delivered_share(log, ["delivered"], history.span[1] - last + 1).decided.iloc[-1]
    assert closed == (d.time[rows] < last).sum()
    late = delivered_share(log, ["delivered"], HOUR, since=last - DAY).decided.iloc[-1]
    assert late == (d.time[rows] >= last - DAY).sum()
    with pytest.raises(ConfigError, match="no event"):
        delivered_share(log, [], HOUR)
    with pytest.raises(ConfigError, match="no event 'arrived'"):
        delivered_share(log, ["arrived"], HOUR)
