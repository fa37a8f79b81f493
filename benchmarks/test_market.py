"""How fast the market is, as ratios to what was measured in the same run."""

from __future__ import annotations

import resource
from time import perf_counter

import numpy as np
import pytest
from pytest_benchmark.fixture import BenchmarkFixture

from crosschannel.envs.market import Market, MarketConfig, MarketEnv, MarketVectorEnv, Uniform, simulate_history
from crosschannel.envs.market.dynamics.draws import Purpose, uniform

pytestmark = pytest.mark.benchmark

USERS = 100_000


def shortest(benchmark: BenchmarkFixture) -> float:
    """The shortest call that was measured, in seconds."""
    assert benchmark.stats is not None  # something was measured
    return float(benchmark.stats.stats.min)


def gibibytes() -> float:
    """The largest memory that this process has had so far."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20


def test_a_history_of_100_000_users_against_plain_draws_of_its_organic_visits(benchmark: BenchmarkFixture) -> None:
    """A whole log takes a small multiple of the draws of all users, days, services and blocks that it begins with."""
    market = Market(MarketConfig(users=USERS))
    keys = market.keys(USERS)

    def draws() -> None:
        days, services, blocks = np.arange(market.config.horizon), np.arange(4), np.arange(5)
        for start in range(0, USERS, 4096):
            some = keys[start : start + 4096, None, None, None]
            uniform(some, Purpose.ORGANIC_VISITS, days[:, None, None], services[:, None], blocks)

    begin = perf_counter()
    draws()
    plain = perf_counter() - begin
    before = gibibytes()
    history, truth = benchmark.pedantic(simulate_history, args=(market,), rounds=1, iterations=1)
    took = shortest(benchmark)
    benchmark.extra_info |= {
        "seconds": took,
        "times plain draws": took / plain,
        "GiB before": before,
        "GiB at most": gibibytes(),
        "decisions": len(history.decisions),
        "events": len(history.events),
    }
    print({name: f"{value:.3g}" for name, value in benchmark.extra_info.items()})
    assert len(truth) == len(history.decisions) > 25 * USERS
    assert gibibytes() <= max(4.0, before)  # what other benchmarks of this process took before is not the market's
    assert took < 40 * plain  # a guard with room for a busy machine, above the ratio of 17 that was measured


def test_expected_effects_by_factors_against_the_list_of_all_joint_actions(benchmark: BenchmarkFixture) -> None:
    market = Market(MarketConfig(users=200, days=6))
    state = market.reset(market.keys(1000))
    p = [np.full((1000, size), 1.0 / size) for size in market.modules.sizes]

    def enumerated() -> np.ndarray:
        table = market.true_effect(state, market.modules.joint_actions[None])
        return np.asarray((market.modules.all_joint_probabilities(p) * table).sum(1))

    found = benchmark.pedantic(market.expected_effect, args=(state, p), rounds=5, warmup_rounds=1)
    begin = perf_counter()
    assert found == pytest.approx(enumerated(), abs=1e-12)
    slow = perf_counter() - begin
    benchmark.extra_info["times faster"] = slow / shortest(benchmark)
    print({name: f"{value:.3g}" for name, value in benchmark.extra_info.items()})
    assert slow > 10 * shortest(benchmark)


def test_many_users_at_once_against_single_ones(benchmark: BenchmarkFixture) -> None:
    single, many = MarketEnv(), MarketVectorEnv(4000)
    single.reset(seed=0)
    many.reset(seed=0)
    policy = Uniform()
    actions = policy.choose(many.market, many.market.reset(many.market.keys(4000))).actions
    begin = perf_counter()
    for _ in range(20):
        single.step(np.zeros(6, dtype=np.int64))
    one = (perf_counter() - begin) / 20
    benchmark.pedantic(many.step, args=(actions,), rounds=8, warmup_rounds=1)
    ratio = one / (shortest(benchmark) / 4000)
    benchmark.extra_info["times single envs"] = ratio
    print(f"{ratio:.3g} times as many steps a second as single envs")
    assert ratio > 100
