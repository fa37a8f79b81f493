"""The market from day to day is the market of the log, with users who come and go."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest

from crosschannel.core.errors import ConfigError
from crosschannel.core.times import DAY
from crosschannel.envs.market import LiveMarket, Market, MarketConfig, Population, make_policy, simulate_history
from crosschannel.envs.market.vocabulary import START

CONFIG = MarketConfig(users=80, days=5, warmup_days=3, seed=7)


def lived(population: Population) -> tuple[LiveMarket, pd.DataFrame]:
    """The market after its last day under business as usual, and all its events."""
    market = Market(CONFIG)
    live, policy = LiveMarket.start(market, population), make_policy("business_as_usual", market)
    for _ in range(CONFIG.days):
        live.step(policy.choose(market, live.state).actions)
    return live, pd.concat([live.events_frame(day) for day in range(CONFIG.horizon)])


def test_without_coming_and_going_its_events_are_those_of_the_log() -> None:
    _, events = lived(Population(late=0.0, leaving=0.0))
    wanted = simulate_history(Market(CONFIG))[0].events_frame()
    columns = ["user_id", "time", "event", "value"]
    found, wanted = (frame[columns].sort_values(columns).reset_index(drop=True) for frame in (events, wanted))
    pd.testing.assert_frame_equal(found, wanted, check_dtype=False)


def test_nothing_is_seen_of_users_who_are_not_there() -> None:
    live, events = lived(Population(late=0.4, leaving=0.1))
    row = pd.Index(live.user_ids).get_indexer(pd.Index(events["user_id"]))
    time = events["time"].to_numpy(dtype="datetime64[us]").astype(np.int64)
    assert (time >= START + live.joins[row] * DAY).all()
    assert (time < START + live.leaves[row] * DAY).all()
    late = (live.joins > 0).mean()
    assert 0.2 < late < 0.6
    assert (live.joins[live.joins > 0] >= CONFIG.warmup_days).all()
    assert (live.leaves < CONFIG.horizon).any()


def test_the_table_of_users_does_not_know_the_future() -> None:
    market = Market(CONFIG)
    live, policy = LiveMarket.start(market, Population(late=0.4, leaving=0.1)), make_policy("no_send", market)
    for _ in range(CONFIG.days):
        users = live.users_frame()
        known = pd.Index(live.user_ids).get_indexer(pd.Index(users["user_id"]))
        assert (live.joins[known] <= live.day).all()
        gone = users["observed_until"].notna().to_numpy()
        assert np.array_equal(gone, live.leaves[known] <= live.day)
        live.step(policy.choose(market, live.state).actions)


def test_who_leaves_gets_nothing_and_who_joins_may() -> None:
    market = Market(CONFIG)
    live, policy = LiveMarket.start(market, Population(late=0.4, leaving=0.1)), make_policy("uniform", market)
    while live.day < CONFIG.horizon:
        here = live.present
        result = live.step(policy.choose(market, live.state).actions)
        sent = result.executed[:, 0] > 0
        assert not sent[~here].any()
        assert sent[here].any()


@pytest.mark.parametrize("name", ["late", "leaving"])
def test_shares_are_checked(name: str) -> None:
    with pytest.raises(ConfigError, match=name):
        Population(**{name: 1.0})
