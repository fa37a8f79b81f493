"""How fast the ensemble decides and learns, as ratios to matrix products and to Vowpal Wabbit in the same run."""

from __future__ import annotations

from collections.abc import Callable
from time import perf_counter

import numpy as np
import pytest
import torch

from benchmarks.quality import run
from benchmarks.stream_learners import OurAgent, VowpalWabbit, vowpal_wabbit_file
from benchmarks.streams import stream
from crosschannel.agents import Batch, Observations, make_agent
from crosschannel.agents.ensemble.heads import STRIPS
from crosschannel.agents.sampling import FLOOR
from crosschannel.core.action_space import ActionSpace, Module
from crosschannel.core.hashing import mix

pytestmark = pytest.mark.benchmark

USERS, WIDTH, ACTIONS, HIDDEN = 100_000, 32, 8, 128
FIVE = ActionSpace([Module(f"m{m}", tuple(f"a{code}" for code in range(ACTIONS))) for m in range(5)])
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


def beside_products(function: Callable[[], object], rounds: int) -> tuple[float, float]:
    """Shortest of some calls, in seconds, and the best rate of products measured between them.

    Where other work shares the machine, both are the nearest to what they are without it.
    """
    times, rates = [], [matrix_product_rate()]
    for _ in range(rounds):
        times.append(shortest(function, 1))
        rates.append(matrix_product_rate())
    return min(times), max(rates)


def batch(n: int, modules: ActionSpace = FIVE) -> Batch:
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
    benchmark.pedantic(agent.act, args=(seen,), rounds=1, warmup_rounds=1)
    seconds, rate = beside_products(lambda: agent.act(seen), 6)
    share = needed / seconds / rate
    benchmark.extra_info |= {
        "share of the matrix product": share,
        "million decisions per second": USERS * 5 / seconds / 1e6,
    }
    print(f"\n{share:.0%} of {rate / 1e9:.0f} GFLOP/s; {USERS / seconds:,.0f} users a second with all their modules")
    assert share >= 0.22


def test_drawing_without_propensities_against_a_matrix_product(benchmark):
    """The same; counted are the products of the network and of one head where a member decides about a module.

    Chance decides about the floor's share, and nobody about the other modules where nothing is sent.
    """
    agent = make_agent("ensemble_thompson", FIVE, WIDTH, {"members": 10})
    agent.observe(batch(5_000))
    agent.update(1)
    seen = batch(USERS).observations
    actions = benchmark.pedantic(agent.sample, args=(seen,), rounds=1, warmup_rounds=1)
    decided = USERS + (len(FIVE) - 1) * int(FIVE.sends(actions).sum())
    needed = decided * (1 - FLOOR) * (NETWORK + 2 * FEATURES * ACTIONS)
    seconds, rate = beside_products(lambda: agent.sample(seen), 16)
    share = needed / seconds / rate
    benchmark.extra_info |= {
        "share of the matrix product": share,
        "million decisions per second": decided / seconds / 1e6,
    }
    print(f"\n{share:.0%} of {rate / 1e9:.0f} GFLOP/s; {USERS / seconds:,.0f} users a second with all their modules")
    assert share >= 0.25


def test_learning_against_a_matrix_product(benchmark):
    """100,000 rows in one go, K = 20: gradient steps of the network, sums of features, and heads, as they come.

    Counted is what learning takes if written down plainly: a gradient step is three times its forward pass, and sums
    are whole products. Of that a third of the step and the symmetric part of the sums are not computed here; the
    second share is of the products that are. The solution of the heads is in the time only.
    """
    members, rows, steps = 20, 100_000, 200
    one = ActionSpace([FIVE[0]])
    data = batch(rows, one)

    agents = [make_agent("ensemble_thompson", one, WIDTH, {"members": members}) for _ in range(17)]
    for agent in agents:
        agent.observe(data)
    gradient = steps * 512 * 3 * (NETWORK + 2 * (HIDDEN + WIDTH) * ACTIONS)
    sums = rows * (NETWORK + 2 * FEATURES * (FEATURES + 1 + members))
    strips = [len(strip) for strip in torch.arange(FEATURES).chunk(STRIPS)]
    beside = [sum(strips[i:]) + 1 + members for i in range(len(strips))]
    made = gradient * 2 / 3 + rows * (NETWORK + 2 * sum(a * b for a, b in zip(strips, beside, strict=True)))
    benchmark.pedantic(agents.pop().update, args=(steps,), rounds=1)
    seconds, rate = beside_products(lambda: agents.pop().update(steps), 16)
    share = (gradient + sums) / seconds / rate
    benchmark.extra_info |= {"share of the matrix product": share, "of products made": made / seconds / rate}
    print(f"\n{share:.0%} of {rate / 1e9:.0f} GFLOP/s; {made / seconds / rate:.0%} by the products that are made")
    assert share >= 0.22


def test_rows_per_second_against_vowpal_wabbit(benchmark, tmp_path):
    """Decisions and learning on a stream of 20,000 and 100,000 rows, K = 10, against `--bag 10`.

    Vowpal Wabbit is driven from Python, choosing like our agent before it learns, and by itself from a file of rows
    that were logged uniformly, for which it predicts too.
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
