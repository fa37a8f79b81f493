"""Ridge by elimination of one module: the same coefficients as from the whole matrix, in time linear in its actions."""

from __future__ import annotations

import time

import numpy as np
import pytest

from crosschannel.core.action_space import ActionSpace, Module
from crosschannel.evaluation import OutcomeModel
from crosschannel.evaluation.outcomes import normal_equations
from crosschannel.evaluation.outcomes.normal_equations import NormalEquations
from crosschannel.evaluation.outcomes.outcome_model import action_indicators
from crosschannel.evaluation.support import distinct_actions

pytestmark = pytest.mark.numerics


def names(prefix: str, size: int) -> tuple[str, ...]:
    return tuple(f"{prefix}{k}" for k in range(size))


SPACES = {
    "one module": ActionSpace([Module("campaign", names("c", 30))]),
    "the largest first": ActionSpace([Module("campaign", names("c", 20)), Module("tone", names("t", 3))]),
    "the largest last": ActionSpace([Module("channel", names("c", 3)), Module("campaign", names("x", 25))]),
    "in the middle": ActionSpace(
        [Module("channel", names("c", 4)), Module("campaign", names("x", 15)), Module("hour", names("h", 6))]
    ),
}


def drawn(modules: ActionSpace, n: int, features: int, seed: int = 0):
    """Decisions with a reward, of actions that are not all taken."""
    rng = np.random.default_rng(seed)
    actions = np.stack([(rng.random(n) ** 2 * size).astype(int) for size in modules.sizes], axis=1)
    context = rng.normal(size=(n, features))
    rewards = context[:, 0] * (actions[:, 0] % 3 == 0) + rng.normal(size=n)
    return context, modules.canonical(actions), rewards, np.arange(n) % (n // 5)


@pytest.mark.parametrize("name", list(SPACES))
def test_elimination_gives_the_coefficients_of_the_whole_matrix(name, monkeypatch):
    modules = SPACES[name]
    fits = []
    for dense in (10**6, 0):
        monkeypatch.setattr(normal_equations, "MAX_DENSE", dense)
        fits.append(OutcomeModel.fit(modules, *drawn(modules, 600, 5)))
    whole, eliminated = fits
    assert whole.penalty == eliminated.penalty
    for a, b in zip(whole.coefficients, eliminated.coefficients, strict=True):
        np.testing.assert_allclose(a, b, rtol=1e-8, atol=1e-10)
    for penalty, error in whole.cv_errors.items():
        assert eliminated.cv_errors[penalty] == pytest.approx(error, rel=1e-10)


@pytest.mark.parametrize("name", list(SPACES))
def test_iteration_gives_the_coefficients_of_the_whole_matrix(name, monkeypatch):
    modules = SPACES[name]
    whole = OutcomeModel.fit(modules, *drawn(modules, 600, 5))
    monkeypatch.setattr(normal_equations, "MAX_DENSE", 0)
    monkeypatch.setattr(normal_equations, "MAX_SCHUR", 0)
    iterated = OutcomeModel.fit(modules, *drawn(modules, 600, 5))
    assert whole.penalty == iterated.penalty
    for a, b in zip(whole.coefficients, iterated.coefficients, strict=True):
        np.testing.assert_allclose(a, b, rtol=1e-5, atol=1e-7)


@pytest.mark.parametrize("name", list(SPACES))
def test_the_sums_are_those_of_the_whole_design(name):
    modules = SPACES[name]
    context, actions, rewards, _ = drawn(modules, 300, 3)
    z = np.concatenate([np.ones((300, 1)), context], axis=1)
    distinct, pattern = distinct_actions(modules, actions)
    h = action_indicators(modules, distinct)
    sums = NormalEquations.from_decisions(z, h, pattern, rewards)
    design = (h[pattern][:, :, None] * z[:, None, :]).reshape(300, -1)
    coefficients = np.random.default_rng(1).normal(size=(h.shape[1], z.shape[1]))
    error = rewards - design @ coefficients.reshape(-1)
    assert sums.squared_error(coefficients) == pytest.approx(error @ error, rel=1e-10)
    np.testing.assert_allclose(sums.cross.reshape(-1), design.T @ rewards, atol=1e-10)
    whole = sums._dense(np.arange(h.shape[1]), np.zeros_like(coefficients))
    np.testing.assert_allclose(whole, design.T @ design, atol=1e-9)


def seconds(size: int) -> float:
    modules = ActionSpace([Module("campaign", names("c", size)), Module("tone", names("t", 4))])
    data = drawn(modules, 6000, 12)
    best = float("inf")
    for _ in range(2):
        start = time.perf_counter()
        OutcomeModel.fit(modules, *data)
        best = min(best, time.perf_counter() - start)
    return best


def test_ten_times_the_actions_take_at_most_thirty_times_as_long():
    """500 actions against 50; as one matrix it would be a thousand times as long."""
    assert seconds(500) < 30 * seconds(50)
