"""How fast the environments step, as ratios to what was measured in the same run."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from time import perf_counter

import numpy as np
import pytest
from gymnasium.vector import SyncVectorEnv
from pytest_benchmark.fixture import BenchmarkFixture

from crosschannel.envs.market import Market, MarketConfig, simulate_history
from crosschannel.envs.replay import CrossChannelReplay, CrossChannelReplayVector, ReplayLog
from crosschannel.histories.features import ContextFeatures
from crosschannel.reward import DidReward, RewardSpec

pytestmark = pytest.mark.benchmark

SINGLES = 256


@pytest.fixture(scope="module")
def log() -> ReplayLog:
    config = MarketConfig(users=10_020, days=28)
    history, _ = simulate_history(Market(config))
    rewards = DidReward(RewardSpec(goals=config.goals, pre="2d", post="1d")).fit_transform(history)
    return ReplayLog.build(history, rewards, ContextFeatures.fit(history))


def test_native_vector_replay_against_single_envs_and_plain_copies(benchmark: BenchmarkFixture, log: ReplayLog) -> None:
    """A pass over all users at once, each step beside a plain copy of as many observations."""
    users, steps = log.n_users, 26
    native, reading = (CrossChannelReplayVector(users, log=log) for _ in range(2))
    single = SyncVectorEnv([partial(CrossChannelReplay, log=log, shard=(i, SINGLES)) for i in range(SINGLES)])
    single.reset(seed=[0] * SINGLES)
    actions = np.zeros((users, len(log.modules)), dtype=np.int64)

    def copy(begin: int) -> None:
        log.context[begin : begin + users].copy()
        log.action_mask[begin : begin + users].copy()

    # Each step's shortest time in several passes: whatever else runs slows some of them, seldom all.
    shortest = {name: np.full(steps, np.inf) for name in ("native", "read", "copy", "single")}

    def measure(name: str, step: int, function: Callable[[], object]) -> None:
        start = perf_counter()
        function()
        shortest[name][step] = min(shortest[name][step], perf_counter() - start)

    for _ in range(25):
        native.reset(seed=0)
        reading.reset(seed=0)
        for step in range(steps):
            measure("native", step, lambda: native.step(actions))
            measure("read", step, lambda: reading.step(actions)[-1]["se"])
            measure("copy", step, partial(copy, min(step * users, len(log) - users)))
    for _ in range(20):
        for step in range(steps):
            measure("single", step, lambda: single.step(actions[:SINGLES]))
    benchmark.pedantic(native.step, args=(actions,), rounds=20)
    rate = {name: steps * (SINGLES if name == "single" else users) / times.sum() for name, times in shortest.items()}
    benchmark.extra_info |= {
        "users": users,
        "decisions per second": rate["native"],
        "times SyncVectorEnv": rate["native"] / rate["single"],
        "share of plain copies": rate["native"] / rate["copy"],
        "share with the information read": rate["read"] / rate["copy"],
        "bytes per observation": log.context[0].nbytes + log.action_mask[0].nbytes,
    }
    print({name: f"{value:.3g}" for name, value in benchmark.extra_info.items()})
    # Guards with room for a busy machine, below the ratios that were measured.
    assert rate["native"] >= 100 * rate["single"]
    assert rate["native"] >= 0.2 * rate["copy"]
