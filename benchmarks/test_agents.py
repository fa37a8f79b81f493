"""How fast the ensemble decides and learns, as ratios to matrix products and to Vowpal Wabbit in the same run."""

from __future__ import annotations

from collections.abc import Callable
from time import perf_counter

import numpy as np
import pytest
import torch

from agents import Batch, Observations, make_agent
from agents.choice import FLOOR
from benchmarks.quality import run
from benchmarks.stream_learners import OurAgent, VowpalWabbit
from histories.hashing import mix
from histories.modules import Module, Modules

pytestmark = pytest.mark.benchmark

USERS, WIDTH, ACTIONS, HIDDEN = 100_000, 32, 8, 128
FIVE = Modules([Module(f"m{m}", tuple(f"a{code}" for code in range(ACTIONS))) for m in range(5)])
FEATURES = 1 + 2 * WIDTH + HIDDEN
NETWORK = 2 * WIDTH * HIDDEN


def shortest(function: Callable[[], object], rounds: int) -> float:
    """Shortest of some calls, in seconds."""
    times = []
    for _ in range(rounds):
        begin = perf_counter()
        function()
        times.append(perf_counter() - begin)
    return min(times)


def matrix_product_rate() -> float:
    """Floating-point operations per second of one large product, single precision."""
    a = torch.randn(1024, 1024, generator=torch.Generator().manual_seed(0))
    return 2.0 * 1024**3 / shortest(lambda: a @ a, 10)


def batch(n: int, modules: Modules = FIVE) -> Batch:
    """Random rows whose rewards are noise."""
    rng = np.random.default_rng(0)
    actions = modules.canonical(rng.integers(0, ACTIONS, (n, len(modules))))
    seen = Observations(rng.standard_normal((n, WIDTH)).astype(np.float32), np.ones((n, modules.total), dtype=bool))
    return Batch(seen, actions, rng.standard_normal(n), np.ones(n), mix(np.arange(n, dtype=np.uint64)))


def test_drawing_with_exact_propensities_against_a_matrix_product(benchmark):
    """100,000 users x 5 modules; counted are the products of the networks and of all K = 10 heads that vote."""
    members = 10
    agent = make_agent("ensemble_thompson", FIVE, WIDTH, {"members": members})
    agent.observe(batch(5_000))
    agent.update(1)
    seen = batch(USERS).observations
    needed = USERS * len(FIVE) * (NETWORK + 2 * FEATURES * ACTIONS * members)
    rate = matrix_product_rate()
    benchmark.pedantic(agent.act, args=(seen,), rounds=2, warmup_rounds=1)
    seconds = shortest(lambda: agent.act(seen), 3)
    share = needed / seconds / rate
    benchmark.extra_info |= {
        "share of the matrix product": share,
        "million decisions per second": USERS * 5 / seconds / 1e6,
    }
    print(f"\n{share:.0%} of {rate / 1e9:.0f} GFLOP/s; {USERS / seconds:,.0f} users a second with all their modules")
    assert share >= 0.1


def test_drawing_without_propensities_against_a_matrix_product(benchmark):
    """The same; counted are the products of the network and of one head where a member decides about a module.

    Chance decides about the floor's share, and nobody about the other modules where nothing is sent.
    """
    agent = make_agent("ensemble_thompson", FIVE, WIDTH, {"members": 10})
    agent.observe(batch(5_000))
    agent.update(1)
    seen = batch(USERS).observations
    rate = matrix_product_rate()
    actions = benchmark.pedantic(agent.sample, args=(seen,), rounds=2, warmup_rounds=1)
    decided = USERS + (len(FIVE) - 1) * int(FIVE.sent(actions).sum())
    needed = decided * (1 - FLOOR) * (NETWORK + 2 * FEATURES * ACTIONS)
    seconds = shortest(lambda: agent.sample(seen), 3)
    share = needed / seconds / rate
    benchmark.extra_info |= {
        "share of the matrix product": share,
        "million decisions per second": decided / seconds / 1e6,
    }
    print(f"\n{share:.0%} of {rate / 1e9:.0f} GFLOP/s; {USERS / seconds:,.0f} users a second with all their modules")
    assert share >= 0.1


def test_learning_against_a_matrix_product(benchmark):
    """100,000 rows in one go, K = 20: gradient steps of the network, sums of features, and heads, as they come."""
    members, rows, steps = 20, 100_000, 200
    one = Modules([FIVE[0]])
    data = batch(rows, one)
    agent = make_agent("ensemble_thompson", one, WIDTH, {"members": members})
    agent.observe(data)
    gradient = steps * 512 * 3 * (NETWORK + 2 * (HIDDEN + WIDTH) * ACTIONS)
    sums = rows * (NETWORK + 2 * FEATURES * (FEATURES + 1 + members))
    rate = matrix_product_rate()
    begin = perf_counter()
    benchmark.pedantic(agent.update, args=(steps,), rounds=1)
    seconds = perf_counter() - begin
    share = (gradient + sums) / seconds / rate
    benchmark.extra_info["share of the matrix product"] = share
    print(f"\n{share:.0%} of {rate / 1e9:.0f} GFLOP/s, the solution of the heads not counted as work but in the time")
    assert share >= 0.1


def test_rows_per_second_against_vowpal_wabbit(benchmark):
    """Decisions and learning on a stream of 20,000 and 100,000 rows, K = 10, against `--bag 10` from Python."""
    pytest.importorskip("vowpalwabbit")
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    theirs = run(VowpalWabbit(0), "nonlinear", 5_000, 0)[1]
    few = run(OurAgent(0), "nonlinear", 20_000, 0)[1]
    benchmark.pedantic(lambda: None, rounds=1)
    many = run(OurAgent(0), "nonlinear", 100_000, 0)[1]
    torch.set_num_threads(threads)
    benchmark.extra_info |= {"20,000 rows": few / theirs, "100,000 rows": many / theirs}
    print(f"\n{few:,.0f} rows/s to 20,000, {many:,.0f} to 100,000; Vowpal Wabbit {theirs:,.0f}: {many / theirs:.1f} x")
    assert many >= 2 * theirs
