"""Half-lives are learned where rewards drift, and only there."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

import numpy as np
import pytest
import torch

from crosschannel.agents import EnsembleThompson, make_agent
from crosschannel.agents.ensemble.drift import learn_half_life
from tests.agents.samples import PLAIN, SMALL, everything, observations_of, random_batch

pytestmark = pytest.mark.numerics

WIDTH, CELLS = 6, 4
Effect = Callable[[np.ndarray], np.ndarray]  # of ages in rows, oldest first: the weight of the second set of effects


def half_life(n: int, seed: int, effect: Effect, signal: float, gap: int = 1, noise: str = "normal") -> float:
    """Learn from rows whose effects move from one set to another; `gap` - 1 rows of others lie between two rows."""
    rng = np.random.default_rng(seed)
    x = rng.standard_normal((n, WIDTH))
    cell = rng.integers(0, CELLS, n)
    first, second = rng.standard_normal((2, CELLS, WIDTH))
    angle = effect(np.arange(n) * gap)
    mean = np.cos(angle) * (x * first[cell]).sum(1) + np.sin(angle) * (x * second[cell]).sum(1)
    error = rng.standard_normal(n) if noise == "normal" else rng.standard_t(3, n)
    target = signal * mean + error
    columns = (x, cell, target / target.std(), np.ones(n), np.arange(n)[::-1] * float(gap))
    context, cells, reward, weight, age = (torch.from_numpy(np.ascontiguousarray(each)) for each in columns)
    return learn_half_life(context.float(), cells, reward.float(), weight.float(), age.float(), CELLS)


def never(rows: np.ndarray) -> np.ndarray:
    return np.zeros(len(rows))


@pytest.mark.parametrize("n", [500, 3_000, 20_000])
@pytest.mark.parametrize("signal", [0.0, 0.05, 1.0, 20.0])
def test_rewards_that_do_not_drift_are_not_discounted(n: int, signal: float) -> None:
    """The likelihood must grow by a factor of exp(15), which chance reaches about never: 24 logs each."""
    for seed in range(4):
        assert half_life(n, seed, never, signal) == 0.0
        assert half_life(n, seed, never, signal, noise="t") == 0.0


@pytest.mark.parametrize("period", [5_000, 40_000])
def test_the_faster_the_drift_the_shorter_the_half_life(period: int) -> None:
    """Effects that rotate once in a period are wrong after a quarter, and there is little noise."""
    found = [half_life(20_000, seed, lambda rows: 2 * np.pi * rows / period, 1.0) for seed in range(4)]
    assert min(found) >= period / 200
    assert max(found) <= period / 4


def test_after_a_sudden_change_older_rows_count_less() -> None:
    for seed in range(4):
        found = half_life(20_000, seed, lambda rows: np.pi * (rows > 14_000), 1.0)
        assert 0.0 < found <= 6_000


def test_a_slow_drift_under_much_noise_is_left_alone() -> None:
    """Discounting would cost more rows than the drift does harm."""
    for seed in range(4):
        assert half_life(20_000, seed, lambda rows: 2 * np.pi * rows / 2_000_000, 0.1) == 0.0


def test_ages_are_counted_in_rows_of_all_modules() -> None:
    found = [half_life(10_000, 1, lambda rows, g=g: 2 * np.pi * rows / (g * 8_000), 1.0, gap=g) for g in (1, 5)]
    assert found[0] > 0
    assert found[1] == pytest.approx(5 * found[0], rel=1e-3)


def test_cells_without_rows_and_single_cells_are_no_obstacle() -> None:
    rng = np.random.default_rng(0)
    x, r = rng.standard_normal((4_000, 3)), rng.standard_normal(4_000)
    age = torch.arange(4_000).flip(0).float()
    context, target = torch.from_numpy(x).float(), torch.from_numpy(r).float()
    for cells in (1, 7):
        cell = torch.zeros(4_000, dtype=torch.int64)
        assert learn_half_life(context, cell, target, torch.ones(4_000), age, cells) == 0.0
        assert learn_half_life(context, cell, torch.zeros(4_000), torch.ones(4_000), age, cells) == 0.0


def drifting(settings: dict[str, object], batches: int, flip: int, seed: int = 0) -> EnsembleThompson:
    """An agent that learns from uniform choices; from batch `flip` on the effects have the opposite sign."""
    agent = make_agent("ensemble_thompson", PLAIN, 4, {**SMALL, **settings}, seed)
    assert isinstance(agent, EnsembleThompson)
    for each in range(batches):
        agent.observe(flipped(each, flip))
        agent.update(1)
    return agent


def flipped(each: int, flip: int):  # type: ignore[no-untyped-def]
    batch = random_batch(500, seed=each)
    effect = batch.observations.context[:, 0] * (batch.actions[:, 0] == 1) * (1.0 if each < flip else -1.0)
    return replace(batch, rewards=0.5 * batch.rewards + effect)


def slope(agent: EnsembleThompson) -> float:
    """The estimated effect of the first feature on the action that it matters for."""
    seen = observations_of(everything(500, PLAIN))
    mean = agent.expected_rewards(seen)[0].mean(0)
    gain = mean[:, 1] - mean[:, 0]
    return float(np.polyfit(seen.context[:, 0], gain, 1)[0])


def test_an_agent_forgets_what_no_longer_holds_without_a_setting() -> None:
    """A third of the rows say one thing, the others the opposite."""
    assert slope(drifting({"half_life": 0.0}, 45, 15)) > -0.5
    assert slope(drifting({}, 45, 15)) < -0.9
    assert slope(drifting({}, 45, 99)) > 0.9


def test_a_half_life_that_is_set_is_kept() -> None:
    for given in (0.0, 700.0):
        agent = drifting({"half_life": given}, 12, 6)
        assert [learner.half_life for learner in agent._learners] == [given, given]


def test_a_stationary_agent_keeps_all_rows() -> None:
    agent = drifting({}, 20, 99)
    assert [learner.half_life for learner in agent._learners] == [0.0, 0.0]


def test_learned_half_lives_resume_to_the_same_bits() -> None:
    first = drifting({}, 30, 20)
    assert first._learners[0].half_life > 0
    second = make_agent("ensemble_thompson", PLAIN, 4, SMALL, 0)
    assert isinstance(second, EnsembleThompson)
    second.load_state_dict(first.state_dict())
    seen = observations_of(everything(100, PLAIN))
    for agent in (first, second):
        for each in range(30, 40):
            agent.observe(flipped(each, 20))
            agent.update(1)
    assert first._learners[0].half_life == second._learners[0].half_life > 0
    for a, b in zip(first.action_probabilities(seen), second.action_probabilities(seen), strict=True):
        np.testing.assert_array_equal(a, b)
