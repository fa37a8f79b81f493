"""Speed of shadow prices, as ratios to reading the same arrays once and to SciPy's HiGHS in the same run."""

from __future__ import annotations

from collections.abc import Callable
from time import perf_counter

import numpy as np
import pytest
from pytest_benchmark.fixture import BenchmarkFixture

from crosschannel.agents import Prices
from tests.agents.constraints.samples import DecisionTime, best_gain, decision_time

pytestmark = pytest.mark.benchmark


def shortest(function: Callable[[], object], rounds: int) -> float:
    """Return the time of the fastest of some calls, in seconds."""
    times = []
    for _ in range(rounds):
        begin = perf_counter()
        function()
        times.append(perf_counter() - begin)
    return min(times)


def large_decision_time(votes: int, users: int, actions: int, budgets: int) -> DecisionTime:
    """Independent values and uses in single precision; messages are the first budget."""
    rng = np.random.default_rng(0)
    values = rng.standard_normal((votes, users, actions), dtype=np.float32)
    values += rng.standard_normal((1, users, 1), dtype=np.float32)
    values[..., 0] = 0.0
    mask = rng.random((users, actions), dtype=np.float32) < 0.8
    mask[:, 0] = True
    use = rng.random((budgets, users, actions), dtype=np.float32)
    use[0] = 1.0
    use[..., 0] = 0.0
    unpriced = np.where(mask, values[0], -np.inf).argmax(-1)[:, None]
    used = np.array([np.take_along_axis(each, unpriced, 1).sum(dtype=np.float64) for each in use])
    return DecisionTime(values, mask, use, used * np.linspace(0.3, 0.8, budgets), 0.02)


def read_once(time: DecisionTime) -> None:
    """What no method can do without: the best action of each vote, and a look at each use and each mask."""
    time.values.argmax(-1)
    time.use.max()
    time.mask.any()


@pytest.mark.parametrize(
    ("votes", "users", "actions", "budgets", "most"),
    [(1, 1_000_000, 50, 1, 40), (1, 1_000_000, 50, 3, 40), (1, 1_000_000, 50, 8, 60), (64, 20_000, 6, 2, 40)],
)
def test_prices_against_reading_the_arrays_once(
    benchmark: BenchmarkFixture, votes: int, users: int, actions: int, budgets: int, most: int
) -> None:
    time = large_decision_time(votes, users, actions, budgets)
    found: list[Prices] = []
    benchmark.pedantic(lambda: found.append(time.solve()), rounds=1)
    seconds, once = [], []
    for _ in range(5):
        once.append(shortest(lambda: read_once(time), 3))
        seconds.append(shortest(time.solve, 1))
    ratio = min(seconds) / min(once)
    benchmark.extra_info |= {"ratio": ratio, "seconds": min(seconds)}
    print(f"\n{votes} x {users:,} x {actions}, {budgets} budgets: {min(seconds):.2f} s, {ratio:.0f} x reading once")
    assert (found[0].use <= time.budgets).all()
    assert (found[0].use >= 0.99 * time.budgets)[found[0].binding].all()
    assert found[0].gap <= 0.01
    assert ratio <= most


def test_prices_against_highs(benchmark: BenchmarkFixture) -> None:
    """The linear program of 2,000 users x 50 actions and three budgets."""
    time = decision_time(users=2_000, actions=50, budgets=3, shares=[0.3, 0.5, 0.7])
    benchmark.pedantic(time.solve, rounds=1)
    mine, theirs = shortest(time.solve, 5), shortest(lambda: best_gain(time), 1)
    benchmark.extra_info |= {"ratio": theirs / mine, "seconds": mine}
    print(f"\n{mine:.3f} s, HiGHS {theirs:.2f} s: {theirs / mine:.0f} x")
    assert theirs >= 4 * mine
