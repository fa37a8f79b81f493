"""Closed-form heads against dense least squares, and what their prior learns."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch

from agents.heads import (
    CURVES,
    NETWORK,
    ROUNDING,
    Coordinates,
    Prior,
    Sums,
    add_rows,
    learn_scales,
    solve,
    squared_error,
    trust,
    untrained,
)

BLOCKS = torch.tensor([0, 1, 1, 1, 2, 2, 3])
A, F, C = 2, 7, 3


def rows(n: int, seed: int = 0) -> tuple[torch.Tensor, ...]:
    g = torch.Generator().manual_seed(seed)
    phi = torch.randn(n, F, generator=g, dtype=torch.float64)
    phi[:, 0] = 1.0
    action = torch.randint(A, (n,), generator=g)
    weight = torch.rand(n, generator=g, dtype=torch.float64) + 0.5
    return phi, action, torch.randn(n, C, generator=g, dtype=torch.float64), weight


def by_fold(phi: torch.Tensor, action: torch.Tensor, targets: torch.Tensor, weight: torch.Tensor) -> Sums:
    sums = Sums.empty(2, A, F, targets.shape[1])
    fold = torch.arange(len(phi)) % 2
    add_rows(sums, lambda x, out: out.copy_(x), phi, action, targets, weight, torch.ones(len(phi)), fold)
    return sums


def sums_of(*data: torch.Tensor) -> Sums:
    sums = by_fold(*data)
    return sums[0] + sums[1]


def prior(variance: float = 0.04, noise: float = 1.0) -> Prior:
    scales = variance * torch.tensor([[1.0, 2.0, 0.5, 1.0], [0.3, 1.0, 2.0, 4.0]], dtype=torch.float64)
    return Prior(variance, scales, noise)


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
            *[np.full(F, ROUNDING * weight[action == a].sum() / p.noise) for a in range(A)],
        ]
    )
    w = weight.numpy()[:, None] / p.noise
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
    found = solve(Sums.empty(1, A, F, C)[0], p, BLOCKS, common, own)
    scale = p.variance[:, BLOCKS].sqrt().unsqueeze(2)
    torch.testing.assert_close(found, scale[0] * common + scale[1] * own)


def test_coordinates_have_mean_0_and_blocks_of_variance_1() -> None:
    phi, action, targets, weight = rows(500)
    phi[:, 1:] = phi[:, 1:] * 3.0 + 2.0
    sums = sums_of(phi, action, targets, weight)
    coordinates = Coordinates.of(sums.gram.sum(0), BLOCKS)
    mapped = (phi - coordinates.mean) * coordinates.scale
    share = (weight / weight.sum()).unsqueeze(1)
    mean = (mapped * share).sum(0)
    variance = ((mapped - mean).square() * share).sum(0)
    torch.testing.assert_close(mean[1:], torch.zeros(F - 1, dtype=torch.float64), atol=1e-9, rtol=0)
    for block in (1, 2, 3):
        assert float(variance[block == BLOCKS].sum()) == pytest.approx(1.0)
    direct, applied = sums_of(mapped, action, targets, weight), coordinates.apply(sums)
    torch.testing.assert_close(applied.gram, direct.gram, atol=1e-6, rtol=1e-9)
    torch.testing.assert_close(applied.moment, direct.moment, atol=1e-6, rtol=1e-9)
    coefficients = torch.randn(A, F, C, generator=torch.Generator().manual_seed(1), dtype=torch.float64)
    torch.testing.assert_close(phi @ coordinates.back(coefficients), mapped @ coefficients)


def test_squared_error_is_the_sum_over_rows() -> None:
    phi, action, targets, weight = rows(80)
    coefficients = torch.randn(A, F, 1, generator=torch.Generator().manual_seed(4), dtype=torch.float64)
    predicted = (phi * coefficients[action, :, 0]).sum(1)
    target = targets[:, 0]
    direct = (weight * (target - predicted).square()).sum() - (weight * target.square()).sum()
    assert squared_error(sums_of(phi, action, targets, weight), coefficients) == pytest.approx(float(direct))


def test_faded_sums_count_old_rows_for_less() -> None:
    data = rows(100)
    faded, direct = by_fold(*data), by_fold(*data[:3], 0.25 * data[3])
    faded.fade(0.25)
    torch.testing.assert_close(faded.gram, direct.gram)
    torch.testing.assert_close(faded.square, direct.square)
    assert faded.rows.tolist() == [12.5, 12.5]


def problem(n: int, strength: float, seed: int) -> Sums:
    """Targets of noise variance 1 and an effect of features 1 to 3, each action's its own."""
    phi, action, _, _ = rows(n, seed)
    g = torch.Generator().manual_seed(seed + 1)
    truth = torch.tensor([[1.0, -1.0, 1.0], [1.0, 1.0, -1.0]], dtype=torch.float64)
    target = torch.randn(n, generator=g, dtype=torch.float64)
    target += strength * (phi[:, 1:4] * truth[action]).sum(1)
    sums = sums_of(phi, action, target[:, None], torch.ones(n, dtype=torch.float64))
    return Coordinates.of(sums.gram.sum(0), BLOCKS).apply(sums)


@pytest.mark.parametrize("strength", [0.0, 0.3])
def test_scales_and_noise_are_learned_from_the_data(strength: float) -> None:
    """A block that explains much gets a wide prior, one that explains nothing a narrow one, wherever they began."""
    for start in (0.001, 0.04, 0.6):
        begin = replace(prior(variance=start), guess=1e-4)
        learned = learn_scales(problem(20_000, strength, 8), begin, BLOCKS, steps=30)
        explained = 3 * float(learned.variance[:, 1].sum())  # three coefficients, each on a third of the variance
        if strength:
            assert 0.3 * 9 * strength**2 < explained < 3 * 9 * strength**2
        else:
            assert explained < 0.02
        assert float(learned.variance[0, 2]) < 0.005
        assert torch.equal(learned.variance[NETWORK | CURVES], begin.variance[NETWORK | CURVES])
        assert learned.noise == pytest.approx(1.0, abs=4 * np.sqrt(2 / 20_000))


def test_few_steps_suffice_from_far_away() -> None:
    """From a hundredth of the right scale it is there within a factor of 2 after 10 steps, over 20 data sets."""
    for seed in range(20):
        data = problem(1000, 0.3, seed)
        start = replace(prior(variance=1e-4), guess=1e-4)
        near, there = (learn_scales(data, start, BLOCKS, steps).variance[1, 1] for steps in (10, 60))
        assert 0.5 < float(near / there) < 2.0


@pytest.mark.parametrize("useful", [False, True])
def test_the_trained_block_is_trusted_as_far_as_it_predicts_held_out_rows(useful: bool) -> None:
    g = torch.Generator().manual_seed(2)
    phi, action, _, _ = rows(8000)
    noise = torch.randn(8000, generator=g, dtype=torch.float64)
    train, held = slice(0, 4000), slice(4000, 8000)
    if useful:
        noise += 0.4 * phi[:, 6]
    else:  # the feature has seen the noise of the rows that it was trained on, and of no others
        phi[train, 6] += 0.3 * noise[train]
    fitted, fresh = (
        sums_of(phi[part], action[part], noise[part, None], torch.ones(4000, dtype=torch.float64))
        for part in (train, held)
    )
    found = trust(fitted, fresh, prior(), BLOCKS, NETWORK).variance
    assert (found[NETWORK] > 0.005).all() if useful else (found[NETWORK] < 0.0005).all()
    assert torch.equal(found[~NETWORK], prior().variance[~NETWORK])


def test_what_explains_nothing_is_hardly_ever_trusted() -> None:
    """Of 200 data sets without any effect at most 2 may convince; without the threshold about a third would.

    Twice the gain in log likelihood by a variance too many is at most chi-squared where it is judged on other rows, so
    that 4 is exceeded in far less than one of 200: 2 leaves room for chance, not for a rule that does not work.
    """
    trusted = 0
    for seed in range(200):
        phi, action, targets, weight = rows(400, seed)
        fitted, fresh = (
            sums_of(*(column[part] for column in (phi, action, targets[:, :1], weight / weight)))
            for part in (slice(0, 200), slice(200, 400))
        )
        trusted += bool((trust(fitted, fresh, prior(), BLOCKS, CURVES).variance[CURVES] > 1e-4).any())
    assert trusted <= 2


def test_constant_features_do_no_harm() -> None:
    phi, action, targets, weight = rows(300)
    phi[:, 6] = 0.0
    phi[:, 4:6] = 1000.0
    sums = sums_of(phi.float().double(), action, targets, weight)
    coefficients = solve(Coordinates.of(sums.gram.sum(0), BLOCKS).apply(sums), prior(), BLOCKS)
    assert torch.isfinite(coefficients).all()
    assert float(coefficients.abs().max()) < 5.0
