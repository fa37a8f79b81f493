"""Closed-form regression with shared parts, against the dense formulas for all coefficients at once."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from crosschannel.agents.linear.regression import (
    Prior,
    RefitSchedule,
    RegressionStatistics,
    deviations,
    evidence,
    fit,
    learn_scale,
)
from crosschannel.core.action_changes import design_matrix
from tests.agents.samples import TABLES

pytestmark = pytest.mark.numerics

A, F, N = 5, 3, 200


def problem(seed: int = 0) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
    """Features, cells, rewards, weights, and a design with two labels."""
    rng = np.random.default_rng(seed)
    z = np.concatenate([np.ones((A, 1)), rng.integers(0, 2, (A, 2)).astype(float)], axis=1)
    return rng.normal(size=(N, F)), rng.integers(0, A - 1, N), rng.normal(size=N), rng.uniform(0.5, 2.0, N), z


def dense(seed: int = 0) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Posterior mean and covariance of all coefficients (A * F), from the covariance that the prior implies."""
    phi, cell, reward, weight, z = problem(seed)
    prior = Prior.build(torch.from_numpy(z), F, 0.3)
    own, shared = prior.own.numpy(), prior.shared.numpy()
    covariance = np.zeros((A, F, A, F))
    for f in range(F):
        covariance[:, f, :, f] = (z * shared[:, f]) @ z.T + own[f] * np.eye(A)
    x = np.zeros((N, A, F))
    x[np.arange(N), cell] = phi
    x = x.reshape(N, A * F)
    precision = np.linalg.inv(covariance.reshape(A * F, A * F)) + (x.T * weight) @ x
    inverse = np.linalg.inv(precision)
    return inverse @ (x.T @ (weight * reward)), inverse, x


def sums_of(seed: int = 0) -> tuple[RegressionStatistics, Prior]:
    phi, cell, reward, weight, z = problem(seed)
    sums = RegressionStatistics.from_rows(*(torch.from_numpy(array) for array in (phi, cell, reward, weight)), cells=A)
    return sums, Prior.build(torch.from_numpy(z), F, 0.3)


def test_the_mean_is_that_of_the_whole_system() -> None:
    found = fit(*sums_of())
    np.testing.assert_allclose(found.mean.numpy().ravel(), dense()[0], atol=1e-10)


def test_draws_have_the_posteriors_covariance() -> None:
    """Not by sampling: the draws are linear in the normals, so unit normals show the whole matrix."""
    sums, prior = sums_of()
    count = 3 + A
    basis = torch.eye(count * F, dtype=torch.float64).reshape(count * F, count, F)
    root = deviations(fit(sums, prior), prior, basis).reshape(count * F, A * F).numpy()
    np.testing.assert_allclose(root.T @ root, dense()[1], atol=1e-10)


def test_members_are_fitted_each_on_their_own_weights() -> None:
    phi, cell, reward, weight, z = problem()
    weights = np.stack([weight, np.ones(N), weight**2])
    columns = [torch.from_numpy(array) for array in (phi, cell, reward)]
    together = RegressionStatistics.from_rows(*columns, torch.from_numpy(weights), cells=A)
    prior = Prior.build(torch.from_numpy(z), F, 0.3)
    means = fit(together, prior).mean
    for k in range(3):
        alone = RegressionStatistics.from_rows(*columns, torch.from_numpy(weights[k]), cells=A)
        np.testing.assert_allclose(means[k], fit(alone, prior).mean, atol=1e-10)
        np.testing.assert_allclose(together.residual(means)[k], alone.residual(means[k]), atol=1e-10)


def test_sums_of_parts_are_those_of_the_whole_and_fade() -> None:
    phi, cell, reward, weight, _ = problem()
    columns = [torch.from_numpy(array) for array in (phi, cell, reward, weight)]
    whole = RegressionStatistics.from_rows(*columns, cells=A)
    first, second = (
        RegressionStatistics.from_rows(*(column[rows] for column in columns), cells=A)
        for rows in (slice(90), slice(90, None))
    )
    for name, value in vars(first.plus(second)).items():
        np.testing.assert_allclose(value, getattr(whole, name), atol=1e-10)
    np.testing.assert_allclose(first.plus(second, keep=0.5).gram, 0.5 * first.gram + second.gram)


def test_the_residual_is_the_mean_squared_error() -> None:
    phi, cell, reward, weight, _ = problem()
    sums, prior = sums_of()
    coefficients = fit(sums, prior).mean
    error = reward - (phi * coefficients.numpy()[cell]).sum(1)
    assert float(sums.residual(coefficients)) == pytest.approx(np.average(error**2, weights=weight))
    spread = np.average((reward - np.average(reward, weights=weight)) ** 2, weights=weight)
    assert float(sums.variance()) == pytest.approx(spread)


def test_evidence_is_the_likelihood_with_all_coefficients_integrated_out() -> None:
    """Against the normal density of all rewards, whose covariance the prior implies; differences between two priors."""
    phi, cell, reward, _, z = problem()
    ones = np.ones(N)
    sums = RegressionStatistics.from_rows(*(torch.from_numpy(array) for array in (phi, cell, reward, ones)), cells=A)
    found, expected = [], []
    for scale in (0.1, 0.4):
        prior = Prior.build(torch.from_numpy(z), F, scale)
        found.append(evidence(sums, fit(sums, prior), prior))
        own, shared = prior.own.numpy(), prior.shared.numpy()
        covariance = np.eye(N)
        for f in range(F):
            cells = (z * shared[:, f]) @ z.T + own[f] * np.eye(A)
            covariance += np.outer(phi[:, f], phi[:, f]) * cells[np.ix_(cell, cell)]
        square = reward @ np.linalg.solve(covariance, reward)
        expected.append(-0.5 * np.linalg.slogdet(covariance)[1] - 0.5 * N * np.log(square / N))
    assert found[1] - found[0] == pytest.approx(expected[1] - expected[0], abs=1e-8)


@pytest.mark.parametrize("true", [0.02, 0.1, 1.0])
def test_the_scale_of_effects_is_learned(true: float) -> None:
    """30 actions with effects of a known scale, 30,000 rows, from a guess of .1: within a factor of 2."""
    rng = np.random.default_rng(2)
    cells, width = 30, 4
    own = true * rng.normal(size=(cells, width)) / np.sqrt([1, 3, 3, 3])
    cell = rng.integers(0, cells, 30_000)
    phi = np.concatenate([np.ones((30_000, 1)), rng.normal(size=(30_000, width - 1))], axis=1)
    reward = (phi * own[cell]).sum(1) + rng.normal(size=30_000)
    sums = RegressionStatistics.from_rows(
        *(torch.from_numpy(array) for array in (phi, cell, reward, np.ones(30_000))), cells=cells
    )
    scale = 0.1
    for _ in range(3):
        scale = learn_scale(sums, torch.ones(cells, 1, dtype=torch.float64), width, scale, 0.1)
    assert true / 2 <= scale <= true * 2


def test_an_action_never_seen_begins_with_what_its_labels_earned() -> None:
    """Actions 0 to 3 earn what their labels say; the last one was never taken and shares both labels."""
    rng = np.random.default_rng(1)
    z = np.array([[1, 1, 0], [1, 0, 1], [1, 1, 0], [1, 0, 0], [1, 1, 1]], dtype=float)
    cell = rng.integers(0, 4, 20_000)
    earns = z @ np.array([0.0, 0.3, 0.2])
    phi = np.concatenate([np.ones((20_000, 1)), rng.normal(size=(20_000, F - 1))], axis=1)
    reward = earns[cell] + rng.normal(size=20_000)
    sums = RegressionStatistics.from_rows(*(torch.from_numpy(a) for a in (phi, cell, reward, np.ones(20_000))), cells=A)
    labelled = fit(sums, Prior.build(torch.from_numpy(z), F, 0.3)).mean[4, 0]
    plain = fit(sums, Prior.build(torch.ones(A, 1, dtype=torch.float64), F, 0.3)).mean[4, 0]
    # With four actions, labels and actions of the same prior variance share the credit about evenly.
    assert float(labelled) > 0.25
    assert abs(float(plain) - earns[:4].mean()) < 0.05, "without labels it begins with what all share"


def test_the_design_of_a_table_knows_the_action_and_the_choice() -> None:
    hour, tone = design_matrix(TABLES, 1), design_matrix(TABLES, 2)
    assert hour.shape == (6, 1 + 2 + 3)
    np.testing.assert_array_equal(hour[3], [1, 0, 1, 0, 1, 0])  # email, evening
    np.testing.assert_array_equal(tone, [[1, 1, 0], [1, 0, 1], [1, 0, 0]])


def test_a_fit_is_due_as_rows_grow_and_once_at_the_end() -> None:
    schedule = RefitSchedule(2.0)
    rows = [10, 12, 19, 20, 30, 30, 30, 30, 59, 60]
    assert [schedule.due(seen) for seen in rows] == [
        True, False, False, True, False, True, False, False, False, True,
    ]  # fmt: skip


def test_a_restored_schedule_continues() -> None:
    first, second = RefitSchedule(2.0), RefitSchedule(2.0)
    first.due(10)
    first.due(15)
    second.load_state_dict(first.state_dict())
    assert second.due(15)
    assert not second.due(15)
