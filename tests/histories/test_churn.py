"""Churn as a fact of a history: which events it is, since when each user has churned, and what it is kept through."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pandas as pd
import pytest

from crosschannel.core.action_space import ActionSpace, Module
from crosschannel.core.errors import ConfigError
from crosschannel.core.times import DAY, NEVER
from crosschannel.histories.eligibility import without_churned
from crosschannel.histories.history import DEFAULT_CHURN_EVENTS, History
from crosschannel.histories.splits import split_time
from tests.samples import random_history


def churned_by_a_loop(history: History, names: set[str]) -> list[int]:
    e = history.events
    codes = [code for code, name in enumerate(history.event_names) if name in names]
    times = [e.time[(e.user == user) & np.isin(e.event, codes)] for user in range(history.n_users)]
    return [int(mine.min()) if len(mine) else NEVER for mine in times]


@pytest.mark.parametrize(
    ("event_names", "churn_events", "meant"),
    [
        (("order", "app_removed"), None, {"app_removed"}),
        (("unsubscribed", "app_removed"), None, {"unsubscribed", "app_removed"}),
        (("order", "visit"), None, set()),
        (("order", "closed_account"), ("closed_account",), {"closed_account"}),
        (("closed:web", "closed:app"), ("closed:*", "unsubscribed"), {"closed:web", "closed:app"}),
        (("order", "app_removed"), (), set()),
    ],
)
def test_a_user_churns_with_the_first_of_the_churn_events(event_names, churn_events, meant):
    history = replace(random_history(1, rate=0.3), event_names=event_names).with_churn_events(churn_events)
    assert history.churn_events == (DEFAULT_CHURN_EVENTS if churn_events is None else churn_events)
    assert history.churned_at.tolist() == churned_by_a_loop(history, meant)
    assert not meant or 0 < (history.churned_at == NEVER).sum() < history.n_users


def test_a_churn_event_must_be_in_the_log_unless_it_is_a_default():
    history = random_history(0)
    assert (history.churned_at == NEVER).all()
    with pytest.raises(ConfigError, match="churn_events: the history has no event 'removed'"):
        history.with_churn_events(("removed",))
    with pytest.raises(ConfigError, match="churn_events: the history has no event 'removed'"):
        replace(history, churn_events=("unsubscribed", "removed"))


def test_tables_may_say_which_events_are_churn():
    decisions = pd.DataFrame({"decision_id": [1], "user_id": [1], "time": ["2024-05-01"], "channel": ["none"]})
    events = pd.DataFrame({"user_id": [1, 1], "time": ["2024-05-02", "2024-05-03"], "event": ["order", "closed"]})
    modules = ActionSpace([Module("channel", ("none", "email"))])
    history = History.from_tables(decisions, events, modules, churn_events=["closed"])
    assert history.churned_at.tolist() == [int(np.datetime64("2024-05-03", "us").astype(np.int64))]


def test_parts_of_a_history_keep_its_churn_events():
    history = random_history(2).with_churn_events(("visit",))
    chosen = np.arange(history.n_users) % 3 == 0
    part = history.select_users(chosen)
    assert part.churn_events == ("visit",)
    assert part.churned_at.tolist() == history.churned_at[chosen].tolist()
    before, _ = split_time(history, 5 * DAY)
    assert before.churn_events == ("visit",)
    assert (before.churned_at[history.churned_at >= 5 * DAY] == NEVER).all()


def test_other_churn_events_make_another_fingerprint():
    history = random_history(2)
    assert history.fingerprint() == random_history(2).fingerprint()
    assert history.with_churn_events(("visit",)).fingerprint() != history.fingerprint()


def test_nothing_can_be_sent_to_users_who_churned_before():
    history = random_history(3, rate=0.3).with_churn_events(("visit",))
    at = 6 * DAY
    mask = np.ones((history.n_users, history.modules.total), dtype=bool)
    out = without_churned(mask, history, at)
    churned = np.array(churned_by_a_loop(history, {"visit"})) < at
    assert 0 < churned.sum() < history.n_users
    assert mask.all()
    assert out[:, 0].all()
    assert (out[:, 1:].any(axis=1) == ~churned).all()
