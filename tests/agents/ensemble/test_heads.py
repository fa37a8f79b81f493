"""Closed-form heads against dense least squares."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch

from crosschannel.agents.ensemble.heads import (
    ROUNDING_RIDGE,
    FeatureScaler,
    Prior,
    SufficientStatistics,
    solve,
    untrained,
)
from tests.agents.ensemble.samples import BLOCKS, A, C, F, by_fold, prior, rows, sums_of

pytestmark = pytest.mark.numerics


def test_sums_are_those_of_a_loop_over_rows() -> None:
    phi, action, targets, weight = rows(200)
    found = by_fold(phi, action, targets, weight)
    for fold in range(2):
        for a in range(A):
            own = (action == a) & (torch.arange(200) % 2 == fold)
            p, w = phi[own], weight[own, None]
            torch.testing.assert_close(found.gram[fold, a], p.T @ (w * p))
            torch.testing.assert_close(found.moment[fold, a], p.T @ (w * targets[own]))
        here = torch.arange(200) % 2 == fold
        torch.testing.assert_close(found.square[fold], (weight[here] * targets[here, 0].square()).sum())
    assert found.rows.tolist() == [100.0, 100.0]
    assert by_fold(phi, action, targets, weight, age_weight=0.25).rows.tolist() == [25.0, 25.0]


def dense(data: tuple[torch.Tensor, ...], p: Prior, start: np.ndarray, z: np.ndarray, shared: int) -> np.ndarray:
    """Coefficients (A, F, C) of one dense regression: its columns are all parts, the prior is extra rows.

    The parts are t (F), the first `shared` features of g for each column of z (A, L), and each action's own (F).
    """
    phi, action, targets, weight = data
    maps = []  # from all parts to the coefficients of each action
    for a in range(A):
        parts = [np.eye(F), *(share * np.eye(F)[:, :shared] for share in z[a]), *np.zeros((A, F, F))]
        parts[1 + z.shape[1] + a] = np.eye(F)
        maps.append(np.concatenate(parts, 1))
    scale = p.variance[:, BLOCKS].sqrt().numpy()
    spread = np.concatenate([scale[0], *[scale[1, :shared]] * z.shape[1], *[scale[1]] * A])
    design = np.stack([maps[a].T @ row for a, row in zip(action.tolist(), phi.numpy(), strict=True)])
    jitter = np.concatenate(
        [
            np.zeros(len(spread) - A * F),
            *[np.full(F, ROUNDING_RIDGE * weight[action == a].sum()) for a in range(A)],
        ]
    )
    w = weight.numpy()[:, None]
    left = design.T @ (w * design) + np.diag(1 / spread**2 + jitter)
    right = design.T @ (w * targets.numpy()) + start / spread[:, None]
    return np.stack(maps) @ np.linalg.solve(left, right)


def test_coefficients_are_those_of_one_dense_regression() -> None:
    data, p = rows(60), prior(noise=0.7)
    g = torch.Generator().manual_seed(4)
    common, own = (torch.randn(*shape, F, C, generator=g, dtype=torch.float64) for shape in ((), (A,)))
    found = solve(sums_of(*data), p, BLOCKS, common, own)
    start = torch.cat([common, *own]).numpy()
    np.testing.assert_allclose(found, dense(data, p, start, np.zeros((A, 0)), 0), atol=1e-4)


def test_with_a_design_they_are_those_of_the_dense_regression_with_its_columns() -> None:
    data, p = rows(60), prior(noise=0.7)
    g = torch.Generator().manual_seed(4)
    z = torch.randn(A, 3, generator=g, dtype=torch.float64)
    own = torch.randn(A, F, C, generator=g, dtype=torch.float64)
    common = torch.randn(F + 3 * (F - 1), C, generator=g, dtype=torch.float64)
    found = solve(sums_of(*data), p, BLOCKS, common, own, z)
    half = p.variance.clone()
    half[1, :-1] /= 2
    start = torch.cat([common, *own]).numpy()
    expected = dense(data, replace(p, variance=half), start, z.numpy(), untrained(BLOCKS))
    np.testing.assert_allclose(found, expected, atol=1e-4)
    assert float((found - solve(sums_of(*data), p, BLOCKS, common[:F], own)).abs().max()) > 0.1


def test_without_data_coefficients_are_the_start() -> None:
    p = prior()
    common, own = torch.ones(F, C).double(), 2.0 * torch.ones(A, F, C).double()
    found = solve(SufficientStatistics.zeros(1, A, F, C)[0], p, BLOCKS, common, own)
    scale = p.variance[:, BLOCKS].sqrt().unsqueeze(2)
    torch.testing.assert_close(found, scale[0] * common + scale[1] * own)


def test_scaled_features_have_mean_0_and_blocks_of_variance_1() -> None:
    phi, action, targets, weight = rows(500)
    phi[:, 1:] = phi[:, 1:] * 3.0 + 2.0
    sums = sums_of(phi, action, targets, weight)
    scaler = FeatureScaler.fit(sums.gram.sum(0), BLOCKS)
    mapped = (phi - scaler.mean) * scaler.scale
    share = (weight / weight.sum()).unsqueeze(1)
    mean = (mapped * share).sum(0)
    variance = ((mapped - mean).square() * share).sum(0)
    torch.testing.assert_close(mean[1:], torch.zeros(F - 1, dtype=torch.float64), atol=1e-9, rtol=0)
    for block in (1, 2, 3):
        assert float(variance[block == BLOCKS].sum()) == pytest.approx(1.0)
    direct, applied = sums_of(mapped, action, targets, weight), scaler.transform(sums)
    torch.testing.assert_close(applied.gram, direct.gram, atol=1e-6, rtol=1e-9)
    torch.testing.assert_close(applied.moment, direct.moment, atol=1e-6, rtol=1e-9)
    coefficients = torch.randn(A, F, C, generator=torch.Generator().manual_seed(1), dtype=torch.float64)
    torch.testing.assert_close(phi @ scaler.unscale(coefficients), mapped @ coefficients)


def test_faded_sums_count_old_rows_for_less() -> None:
    data = rows(100)
    faded, direct = by_fold(*data), by_fold(*data[:3], 0.25 * data[3])
    faded.discount(0.25)
    torch.testing.assert_close(faded.gram, direct.gram)
    torch.testing.assert_close(faded.square, direct.square)
    assert faded.rows.tolist() == [12.5, 12.5]


def test_constant_features_do_no_harm() -> None:
    phi, action, targets, weight = rows(300)
    phi[:, 6] = 0.0
    phi[:, 4:6] = 1000.0
    sums = sums_of(phi.float().double(), action, targets, weight)
    coefficients = solve(FeatureScaler.fit(sums.gram.sum(0), BLOCKS).transform(sums), prior(), BLOCKS)
    assert torch.isfinite(coefficients).all()
    assert float(coefficients.abs().max()) < 5.0
