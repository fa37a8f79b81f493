"""Speed of the ensemble's decisions and learning, as ratios to matrix products and Vowpal Wabbit in the same run."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from time import perf_counter

import numpy as np
import pytest
import torch
from pytest_benchmark.fixture import BenchmarkFixture

from benchmarks.quality import run
from benchmarks.stream_learners import OurAgent, VowpalWabbit, vowpal_wabbit_file
from benchmarks.streams import stream
from crosschannel.agents import Batch, EnsembleThompson, Observations, make_agent
from crosschannel.agents.ensemble.heads import GRAM_STRIPS
from crosschannel.agents.settings import DEFAULT_FLOOR
from crosschannel.core.action_space import ActionSpace, Module
from crosschannel.core.hashing import mix

pytestmark = pytest.mark.benchmark

USERS, WIDTH, ACTIONS, HIDDEN = 100_000, 32, 8, 128
FIVE = ActionSpace([Module(f"m{m}", tuple(f"a{code}" for code in range(ACTIONS))) for m in range(5)])
FEATURES = 1 + 2 * WIDTH + HIDDEN
NETWORK = 2 * WIDTH * HIDDEN


def shortest(function: Callable[[], object], rounds: int) -> float:
    """Return the time of the fastest of some calls, in seconds."""
    times = []
    for _ in range(rounds):
        begin = perf_counter()
        function()
        times.append(perf_counter() - begin)
    return min(times)


def matrix_product_rate() -> float:
    """Return the floating-point operations per second of one large product in single precision."""
    a = torch.randn(1024, 1024, generator=torch.Generator().manual_seed(0))
    return 2.0 * 1024**3 / shortest(lambda: a @ a, 10)


def beside_products(function: Callable[[], object], rounds: int) -> tuple[float, float]:
    """Return the time of the fastest of some calls, in seconds, and the best rate of products measured between them.

    On a shared machine these two are closest to what an idle machine would show.
    """
    times, rates = [], [matrix_product_rate()]
    for _ in range(rounds):
        times.append(shortest(function, 1))
        rates.append(matrix_product_rate())
    return min(times), max(rates)


def batch(n: int, modules: ActionSpace = FIVE) -> Batch:
    """Return random rows whose rewards are noise."""
    rng = np.random.default_rng(0)
    actions = modules.canonical(rng.integers(0, ACTIONS, (n, len(modules))))
    seen = Observations(rng.standard_normal((n, WIDTH)).astype(np.float32), np.ones((n, modules.total), dtype=bool))
    return Batch(
        observations=seen,
        actions=actions,
        rewards=rng.standard_normal(n),
        se=np.ones(n),
        keys=mix(np.arange(n, dtype=np.uint64)),
    )


def test_drawing_with_exact_propensities_against_a_matrix_product(benchmark: BenchmarkFixture) -> None:
    """100,000 users x 5 modules; the count includes the products of the networks and of all K = 10 voting heads."""
    members = 10
    agent = make_agent("ensemble_thompson", FIVE, WIDTH, {"members": members})
    agent.observe(batch(5_000))
    agent.update(1)
    seen = batch(USERS).observations
    needed = USERS * len(FIVE) * (NETWORK + 2 * FEATURES * ACTIONS * members)
    benchmark.pedantic(agent.act, args=(seen,), rounds=1, warmup_rounds=1)
    seconds, rate = beside_products(lambda: agent.act(seen), 6)
    share = needed / seconds / rate
    benchmark.extra_info |= {
        "share of the matrix product": share,
        "million decisions per second": USERS * 5 / seconds / 1e6,
    }
    print(f"\n{share:.0%} of {rate / 1e9:.0f} GFLOP/s; {USERS / seconds:,.0f} users a second with all their modules")
    assert share >= 0.22


def test_drawing_without_propensities_against_a_matrix_product(benchmark: BenchmarkFixture) -> None:
    """The same; the count includes the products of the network and one head for each module that a member decides.

    No head is needed for uniform draws, nor for modules after the first where nothing is sent.
    """
    agent = make_agent("ensemble_thompson", FIVE, WIDTH, {"members": 10})
    agent.observe(batch(5_000))
    agent.update(1)
    assert isinstance(agent, EnsembleThompson)
    seen = batch(USERS).observations
    actions = benchmark.pedantic(agent.sample, args=(seen,), rounds=1, warmup_rounds=1)
    decided = USERS + (len(FIVE) - 1) * int(FIVE.sends(actions).sum())
    needed = decided * (1 - DEFAULT_FLOOR) * (NETWORK + 2 * FEATURES * ACTIONS)
    seconds, rate = beside_products(lambda: agent.sample(seen), 16)
    share = needed / seconds / rate
    benchmark.extra_info |= {
        "share of the matrix product": share,
        "million decisions per second": decided / seconds / 1e6,
    }
    print(f"\n{share:.0%} of {rate / 1e9:.0f} GFLOP/s; {USERS / seconds:,.0f} users a second with all their modules")
    assert share >= 0.25


def test_learning_against_a_matrix_product(benchmark: BenchmarkFixture) -> None:
    """100,000 rows at once, K = 20: gradient steps of the network, sums of features, and the solution of the heads.

    The count is that of a plain implementation: a gradient step is three times its forward pass, and sums are whole
    products. This implementation needs no gradient of its inputs, a third of the first layer's step, and skips the
    symmetric half of the sums; the second share counts only the products that it computes. The time includes the
    solution of the heads, the count does not.
    """
    members, rows, steps = 20, 100_000, 200
    one = ActionSpace([FIVE[0]])
    data = batch(rows, one)

    agents = [make_agent("ensemble_thompson", one, WIDTH, {"members": members}) for _ in range(17)]
    for agent in agents:
        agent.observe(data)
    gradient = steps * 512 * 3 * (NETWORK + 2 * (HIDDEN + WIDTH) * ACTIONS)
    sums = rows * (NETWORK + 2 * FEATURES * (FEATURES + 1 + members))
    strips = [len(strip) for strip in torch.arange(FEATURES).chunk(GRAM_STRIPS)]
    beside = [sum(strips[i:]) + 1 + members for i in range(len(strips))]
    step = 512 * (2 * NETWORK + 3 * 2 * (HIDDEN + WIDTH) * ACTIONS)
    made = steps * step + rows * (NETWORK + 2 * sum(a * b for a, b in zip(strips, beside, strict=True)))
    benchmark.pedantic(agents.pop().update, args=(steps,), rounds=1)
    seconds, rate = beside_products(lambda: agents.pop().update(steps), 16)
    share = (gradient + sums) / seconds / rate
    benchmark.extra_info |= {"share of the matrix product": share, "of products made": made / seconds / rate}
    print(f"\n{share:.0%} of {rate / 1e9:.0f} GFLOP/s; {made / seconds / rate:.0%} of the products that are computed")
    assert share >= 0.22


def test_rows_per_second_against_vowpal_wabbit(benchmark: BenchmarkFixture, tmp_path: Path) -> None:
    """Decisions and learning on a stream of 20,000 and 100,000 rows, K = 10, against `--bag 10`.

    Vowpal Wabbit runs from Python, where it chooses before it learns as our agent does, and on its own from a file of
    uniformly logged rows, for which it predicts as well.
    """
    pytest.importorskip("vowpalwabbit")
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    python = run(VowpalWabbit(0), "nonlinear", 5_000, 0)[1]
    logged = stream("nonlinear", 20_000, 0)
    actions = np.random.default_rng(0).integers(0, ACTIONS, 20_000)
    earned = logged.reward[np.arange(20_000), actions]
    file = max(vowpal_wabbit_file(logged.context, actions, earned, tmp_path / "rows.txt") for _ in range(2))
    few = run(OurAgent(0), "nonlinear", 20_000, 0)[1]
    many = benchmark.pedantic(run, args=(OurAgent(0), "nonlinear", 100_000, 0), rounds=1)[1]
    torch.set_num_threads(threads)
    benchmark.extra_info |= {"python": many / python, "file": many / file, "20,000 rows, file": few / file}
    print(
        f"\n{few:,.0f} rows/s to 20,000, {many:,.0f} to 100,000; Vowpal Wabbit from Python {python:,.0f}: "
        f"{many / python:.1f} x; from a file {file:,.0f}: {many / file:.1f} x"
    )
    assert many >= 4 * python
    assert many >= 0.6 * file
