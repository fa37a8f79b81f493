"""How fast the market is: run with `-m benchmark`."""

from __future__ import annotations

import time

import numpy as np
import pytest

from envs.market import Market, MarketConfig
from envs.market.env import MarketEnv
from envs.market.vector import MarketVectorEnv


@pytest.mark.benchmark
def test_a_log_of_20_000_users_takes_under_10_seconds():
    start = time.perf_counter()
    history, _ = Market(MarketConfig()).history()
    assert len(history.decisions) > 500_000
    assert time.perf_counter() - start < 10


@pytest.mark.benchmark
def test_many_users_at_once_take_less_than_a_hundredth_of_single_ones():
    single, many = MarketEnv(), MarketVectorEnv(4000)
    single.reset(seed=0)
    many.reset(seed=0)
    action = np.array([1, 0, 0, 0])
    start = time.perf_counter()
    for _ in range(20):
        single.step(action * 0)
    one = (time.perf_counter() - start) / 20
    start = time.perf_counter()
    for _ in range(5):
        many.step(np.tile(action, (4000, 1)))
    assert (time.perf_counter() - start) / 5 / 4000 < one / 100
