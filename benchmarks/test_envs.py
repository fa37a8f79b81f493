"""How fast the environments step, as ratios to what was measured in the same run."""

from __future__ import annotations

from functools import partial
from time import perf_counter

import numpy as np
import pytest
from gymnasium.vector import SyncVectorEnv

from envs.market import Market, MarketConfig
from envs.replay import CrossChannelReplay
from envs.replay_log import ReplayLog
from envs.replay_vector import CrossChannelReplayVector
from histories.context import ContextFeatures
from reward import DidReward, RewardSpec

pytestmark = pytest.mark.benchmark

USERS, SINGLES = 10_000, 256


@pytest.fixture(scope="module")
def log() -> ReplayLog:
    config = MarketConfig(users=12_000, days=28)
    history, _ = Market(config).history()
    rewards = DidReward(RewardSpec(goals=config.goals, pre="2d", post="1d")).fit(history).transform(history)
    return ReplayLog.build(history, rewards, ContextFeatures.fit(history))


def seconds(functions: dict, rounds: int) -> dict[str, float]:
    """Shortest time of a call of each function, in turns of 20 calls, so that whatever else runs slows all of them."""
    shortest = dict.fromkeys(functions, np.inf)
    for _ in range(rounds):
        for name, function in functions.items():
            for _ in range(20):
                begin = perf_counter()
                function()
                shortest[name] = min(shortest[name], perf_counter() - begin)
    return shortest


def test_native_vector_replay_against_single_envs_and_plain_copies(benchmark, log):
    native = CrossChannelReplayVector(USERS, log=log)
    native.reset(seed=0)
    single = SyncVectorEnv([partial(CrossChannelReplay, log=log, shard=(i, SINGLES)) for i in range(SINGLES)])
    single.reset(seed=[0] * SINGLES)
    actions = np.zeros((USERS, len(log.modules)), dtype=np.int64)
    blocks = iter(np.arange(10_000) % (len(log) // USERS) * USERS)

    def copy() -> None:
        begin = next(blocks)
        log.context[begin : begin + USERS].copy()
        log.action_mask[begin : begin + USERS].copy()

    benchmark.pedantic(native.step, args=(actions,), rounds=60, warmup_rounds=5)
    shortest = seconds(
        {"native": lambda: native.step(actions), "single": lambda: single.step(actions[:SINGLES]), "copy": copy}, 8
    )
    native_rate, single_rate = USERS / shortest["native"], SINGLES / shortest["single"]
    copy_rate = USERS / shortest["copy"]
    benchmark.extra_info |= {
        "decisions per second": native_rate,
        "times SyncVectorEnv": native_rate / single_rate,
        "share of plain copies": native_rate / copy_rate,
        "bytes per observation": log.context[0].nbytes + log.action_mask[0].nbytes,
    }
    print({name: f"{value:.3g}" for name, value in benchmark.extra_info.items()})
    assert native_rate >= 50 * single_rate  # a guard with room for a busy machine, below the ratios that were measured
