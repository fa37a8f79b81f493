"""Outliers of heavy tails are clipped; light tails, rare events and skewed amounts are left as they are."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

import numpy as np
import pytest
import torch
from scipy.optimize import brentq

from crosschannel.agents import EnsembleThompson, make_agent
from crosschannel.agents.ensemble import units
from crosschannel.agents.ensemble.units import RewardUnits, clip_limit
from tests.agents.samples import PLAIN, SMALL, everything, observations_of, random_batch

pytestmark = pytest.mark.numerics

Draw = Callable[[np.random.Generator, int], np.ndarray]


def limit(rewards: np.ndarray, coefficients: float = 40, cells: int = 4, weight: np.ndarray | None = None) -> float:
    error = torch.from_numpy(np.asarray(rewards - np.median(rewards), dtype=float))
    cell = torch.arange(len(error)) % cells
    weights = torch.ones(len(error)) if weight is None else torch.from_numpy(weight)
    return clip_limit(error, cell, weights, coefficients)


HEAVY: dict[str, Draw] = {
    "t(2.2)": lambda rng, n: rng.standard_t(2.2, n),
    "t(1.5)": lambda rng, n: rng.standard_t(1.5, n),
    "normal with a few errors of recording": lambda rng, n: (
        rng.standard_normal(n) + 1e4 * (np.arange(n) % 500 == 7) * rng.choice([-1, 1], n)
    ),
}
LEFT: dict[str, Draw] = {
    "0 or 1": lambda rng, n: (rng.random(n) < 0.3).astype(float),
    "rare orders": lambda rng, n: (rng.random(n) < 0.01).astype(float),
    "rare losses": lambda rng, n: -3.0 * (rng.random(n) < 0.005),
    "visits and orders": lambda rng, n: 0.1 * rng.poisson(0.2, n) + (rng.random(n) < 0.01),
    "amounts": lambda rng, n: (rng.random(n) < 0.05) * rng.lognormal(2.0, 1.0, n),
    "few of both signs": lambda rng, n: (rng.random(n) < 0.01) * rng.choice([-1.0, 1.0], n),
    "uniform": lambda rng, n: rng.random(n),
    "constant": lambda _, n: np.ones(n),
    "nothing": lambda _, n: np.zeros(n),
}


@pytest.mark.parametrize("name", HEAVY)
@pytest.mark.parametrize("n", [500, 5_000, 50_000])
def test_symmetric_heavy_tails_are_clipped(name: str, n: int) -> None:
    found = [limit(HEAVY[name](np.random.default_rng(seed), n), coefficients=300) for seed in range(5)]
    assert np.isfinite(found).all()


@pytest.mark.parametrize("name", LEFT)
@pytest.mark.parametrize("n", [2_000, 50_000])
def test_what_matters_is_left_as_it_is(name: str, n: int) -> None:
    for seed in range(5):
        rewards = LEFT[name](np.random.default_rng(seed), n)
        assert (np.abs(rewards - np.median(rewards)) > limit(rewards)).sum() < 5  # which have no sign yet


@pytest.mark.parametrize("n", [1_000, 10_000, 100_000])
def test_normal_rewards_are_hardly_clipped(n: int) -> None:
    """The limit is at least sqrt(1 / .1) = 3.2 standard deviations, beyond which there is one row in 700."""
    rewards = np.random.default_rng(0).standard_normal(n)
    assert (np.abs(rewards) > limit(rewards)).mean() < 0.003


@pytest.mark.parametrize("coefficients", [30.0, 100.0, 900.0])
def test_the_limit_solves_its_equation(coefficients: float) -> None:
    rng = np.random.default_rng(2)
    rewards, weight = rng.standard_t(2.2, 6_000), rng.uniform(0.5, 1.0, 6_000)
    error = rewards - np.median(rewards)

    def excess(size: float) -> float:
        return float((weight * np.minimum(error**2 / size**2, 1.0)).sum() - min(coefficients, 0.1 * weight.sum()))

    assert limit(rewards, coefficients, weight=weight) == pytest.approx(brentq(excess, 0.01, 1e4), rel=1e-6)


def test_the_limit_grows_with_the_rows_and_rows_of_no_weight_do_not_matter() -> None:
    rewards = np.random.default_rng(0).standard_t(2.2, 64_000)
    found = [limit(rewards[:n]) for n in (1_000, 8_000, 64_000)]
    assert found[0] < found[1] < found[2]
    weight = np.repeat([1.0, 0.0], [8_000, 56_000])
    error = rewards - np.median(rewards[:8_000])
    same = clip_limit(torch.from_numpy(error), torch.arange(64_000) % 4, torch.from_numpy(weight), 40)
    assert same == pytest.approx(found[1], rel=1e-6)


def test_an_action_whose_gain_lies_in_its_tail_is_not_clipped() -> None:
    """Noise of both signs everywhere, and one action that adds rare large gains."""
    rng = np.random.default_rng(3)
    rewards = rng.standard_t(2.2, 20_000)
    cell = torch.arange(20_000) % 4
    gains = np.where((cell.numpy() == 2) & (rng.random(20_000) < 0.02), 400.0, 0.0)
    plain, with_gains = (
        clip_limit(torch.from_numpy(r - np.median(r)), cell, torch.ones(20_000), 40) for r in (rewards, rewards + gains)
    )
    assert plain < 100
    assert with_gains > 390


@pytest.mark.parametrize("n", [1, 2, 3])
def test_single_rows_are_not_clipped(n: int) -> None:
    rewards = np.array([1.0, -1e9, 3.0])[:n]
    assert limit(rewards) == float("inf")


def test_units_follow_the_unit_of_the_reward() -> None:
    rng = np.random.default_rng(0)
    reward, deviation = rng.standard_t(2.2, 5_000), rng.uniform(0.5, 2.0, 5_000)
    rest = (np.ones(5_000), np.ones(5_000))
    cell = torch.arange(5_000) % 4
    first, second = (
        RewardUnits.fit(*(torch.from_numpy(each) for each in (scaled, deviation, *rest)), cell, 40)
        for scaled in (reward, 100.0 * reward + 7.0)
    )
    assert second.mean == pytest.approx(100.0 * first.mean + 7.0)
    assert second.scale == pytest.approx(100.0 * first.scale)
    assert second.limit == pytest.approx(first.limit)
    standardised = first.standardise(torch.from_numpy(reward), torch.from_numpy(deviation))
    assert float((standardised.abs() / torch.from_numpy(deviation)).max()) == pytest.approx(first.limit)


def agent_on(rewards: np.ndarray, seed: int) -> EnsembleThompson:
    agent = make_agent("ensemble_thompson", PLAIN, 4, {**SMALL, "half_life": 0.0}, seed)
    assert isinstance(agent, EnsembleThompson)
    batch = random_batch(len(rewards), seed=seed)
    effect = batch.observations.context[:, 0] * (batch.actions[:, 0] == 1)
    agent.observe(replace(batch, rewards=rewards + effect, se=np.ones(len(rewards))))
    agent.update(5)
    return agent


def error_of(agent: EnsembleThompson) -> float:
    """The root mean squared error of the estimated gain of the first action over nothing."""
    seen = observations_of(everything(500, PLAIN), seed=9)
    mean = agent.expected_rewards(seen)[0].mean(0)
    return float(np.sqrt(np.square(mean[:, 1] - mean[:, 0] - seen.context[:, 0]).mean()))


def test_heavy_tails_do_less_harm_than_without_a_limit(monkeypatch: pytest.MonkeyPatch) -> None:
    noise = [np.random.default_rng(seed).standard_t(1.5, 3_000) for seed in range(6)]
    with_limit = [error_of(agent_on(each, seed)) for seed, each in enumerate(noise)]
    monkeypatch.setattr(units, "clip_limit", lambda *_: float("inf"))
    without = [error_of(agent_on(each, seed)) for seed, each in enumerate(noise)]
    assert np.mean(with_limit) < 0.85 * np.mean(without)


@pytest.mark.parametrize("name", [name for name in LEFT if name != "amounts"])
def test_other_rewards_teach_the_same_bits(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    rewards = LEFT[name](np.random.default_rng(1), 3_000)
    effect = (random_batch(3_000).actions[:, 0] == 1) * (np.random.default_rng(2).random(3_000) < 0.1)
    seen = observations_of(everything(50, PLAIN))
    found = []
    for _ in range(2):
        agent = make_agent("ensemble_thompson", PLAIN, 4, SMALL, 0)
        agent.observe(replace(random_batch(3_000), rewards=rewards + effect, se=np.ones(3_000)))
        agent.update(3)
        found.append(agent.expected_rewards(seen)[0])  # type: ignore[attr-defined]
        monkeypatch.setattr(units, "clip_limit", lambda *_: float("inf"))
    np.testing.assert_array_equal(*found)
