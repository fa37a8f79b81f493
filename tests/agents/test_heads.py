"""Closed-form heads against dense least squares, and what their prior learns."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch

from agents.heads import (
    ROUNDING,
    Prior,
    Sums,
    held_out_error,
    in_coordinates,
    learn_scales,
    solve,
    standardise,
    sums_by_fold,
    trust_network,
)

BLOCKS = torch.tensor([0, 1, 1, 1, 2, 2, 3])
K, A, F = 3, 2, 7


def rows(n: int, seed: int = 0) -> tuple[torch.Tensor, ...]:
    g = torch.Generator().manual_seed(seed)
    phi = torch.randn(K, n, F, generator=g, dtype=torch.float64)
    phi[..., 0] = 1.0
    action = torch.randint(A, (n,), generator=g)
    weight = torch.rand(K, n, generator=g, dtype=torch.float64) + 0.5
    return phi, action, torch.randn(n, generator=g, dtype=torch.float64), weight


def sums(phi: torch.Tensor, action: torch.Tensor, target: torch.Tensor, weight: torch.Tensor) -> Sums:
    index = torch.arange(phi.shape[1])

    def of(part: torch.Tensor) -> torch.Tensor:
        return phi[:, part[:, 0].long()]

    by_fold = sums_by_fold(of, lambda part: weight[:, part], index[:, None].double(), action, target, index % 4, (4, A))
    return Sums(by_fold.gram.sum(0), by_fold.moment.sum(0))


def prior(seed: int = 1, variance: float = 0.04) -> Prior:
    g = torch.Generator().manual_seed(seed)
    common = torch.randn(K, F, generator=g, dtype=torch.float64)
    own = torch.randn(K, A, F, generator=g, dtype=torch.float64)
    scales = variance * torch.tensor([[1.0, 2.0, 0.5, 1.0], [0.3, 1.0, 2.0, 4.0]], dtype=torch.float64)
    return Prior(variance, scales, common, own)


def test_sums_are_those_of_a_loop_over_rows() -> None:
    phi, action, target, weight = rows(200)
    found = sums(phi, action, target, weight)
    for k in range(K):
        for a in range(A):
            chosen = action == a
            w, p = weight[k, chosen], phi[k, chosen]
            torch.testing.assert_close(found.gram[k, a], (p * w[:, None]).T @ p)
            torch.testing.assert_close(found.moment[k, a], p.T @ (w * target[chosen]))


def test_coefficients_are_those_of_one_dense_regression() -> None:
    """The common and the own parts as columns of one design, the prior as extra rows."""
    data = rows(60)
    found, common = solve(sums(*data), prior(), BLOCKS)
    phi, action, target, weight = (x.numpy() for x in data)
    p = prior()
    scale = p.variance[:, BLOCKS].sqrt().numpy()
    for k in range(K):
        design = np.zeros((60, (A + 1) * F))
        design[:, :F] = phi[k]
        for a in range(A):
            design[action == a, (a + 1) * F : (a + 2) * F] = phi[k][action == a]
        spread = np.concatenate([scale[0], *[scale[1]] * A])
        start = np.concatenate([p.common[k].numpy(), p.own[k].numpy().ravel()]) * spread
        jitter = np.concatenate([np.zeros(F), *[np.full(F, ROUNDING * weight[k][action == a].sum()) for a in range(A)]])
        root = np.sqrt(weight[k])
        left = (design * root[:, None]).T @ (design * root[:, None]) + np.diag(1 / spread**2 + jitter)
        right = design.T @ (weight[k] * target) + start / spread**2
        solution = np.linalg.solve(left, right).reshape(A + 1, F)
        np.testing.assert_allclose(common[k], solution[0], atol=1e-4)
        np.testing.assert_allclose(found[k], solution[0] + solution[1:], atol=1e-4)


def test_without_data_coefficients_are_the_prior_draws() -> None:
    nothing = Sums(torch.zeros(K, A, F, F, dtype=torch.float64), torch.zeros(K, A, F, dtype=torch.float64))
    p = prior()
    found, common = solve(nothing, p, BLOCKS)
    scale = p.variance[:, BLOCKS].sqrt()
    torch.testing.assert_close(common, p.common * scale[0])
    torch.testing.assert_close(found, (p.common * scale[0]).unsqueeze(1) + p.own * scale[1])


def test_standardised_blocks_have_mean_0_and_variance_1() -> None:
    phi, action, target, weight = rows(500)
    phi[..., 1:] = phi[..., 1:] * 3.0 + 2.0
    transform = standardise(sums(phi, action, target, weight).gram.sum(1), BLOCKS)
    mapped = phi @ transform.transpose(1, 2)
    share = (weight / weight.sum(1, keepdim=True)).unsqueeze(-1)
    mean = (mapped * share).sum(1)
    variance = ((mapped - mean.unsqueeze(1)).square() * share).sum(1)
    torch.testing.assert_close(mean[:, 1:], torch.zeros(K, F - 1, dtype=torch.float64), atol=1e-9, rtol=0)
    for block in (1, 2, 3):
        total = variance[:, block == BLOCKS].sum(1)
        torch.testing.assert_close(total, torch.ones(K, dtype=torch.float64))


def test_held_out_error_is_the_sum_over_rows() -> None:
    data = rows(80)
    phi, action, target, weight = data
    coefficients = torch.randn(K, A, F, generator=torch.Generator().manual_seed(4), dtype=torch.float64)
    predicted = torch.einsum("knf,knf->kn", phi, coefficients[:, action])
    direct = (weight * (target - predicted).square()).sum() - (weight * target.square()).sum()
    assert held_out_error(sums(*data), coefficients) == pytest.approx(float(direct))


def standardised(phi: torch.Tensor, action: torch.Tensor, target: torch.Tensor) -> Sums:
    found = sums(phi, action, target, torch.ones(K, phi.shape[1], dtype=torch.float64))
    return in_coordinates(found, standardise(found.gram.sum(1), BLOCKS))


@pytest.mark.parametrize("strength", [0.0, 0.3])
def test_scales_are_learned_from_the_data(strength: float) -> None:
    """A block that explains much gets a wide prior, one that explains nothing a narrow one, wherever they began."""
    phi, action, _, _ = rows(20_000)
    phi[:] = phi[:1].clone()
    g = torch.Generator().manual_seed(8)
    truth = torch.tensor([[1.0, -1.0, 1.0], [1.0, 1.0, -1.0]], dtype=torch.float64)
    target = torch.randn(20_000, generator=g, dtype=torch.float64)
    target += strength * (phi[0][:, 1:4] * truth[action]).sum(1)
    for start in (0.01, 0.04, 0.16):
        begin = replace(prior(variance=start), guess=1e-4)
        learned = learn_scales(standardised(phi, action, target), begin, BLOCKS, steps=50).variance
        explained = 3 * float(learned[:, 1].sum())  # three coefficients, each on a third of the block's variance
        if strength:
            assert 0.3 * 9 * strength**2 < explained < 3 * 9 * strength**2
        else:
            assert explained < 0.02
        assert float(learned[:, 2].sum()) < 0.01
        assert torch.equal(learned[:, -1], begin.variance[:, -1])


@pytest.mark.parametrize("useful", [False, True])
def test_the_trained_block_is_trusted_as_far_as_it_predicts_held_out_rows(useful: bool) -> None:
    g = torch.Generator().manual_seed(2)
    phi, action, _, _ = rows(8000)
    noise = torch.randn(8000, generator=g, dtype=torch.float64)
    train, held = slice(0, 4000), slice(4000, 8000)
    if useful:
        noise += 0.4 * phi[0, :, 6]
        phi[..., 6] = phi[0, :, 6]
    else:  # the feature has seen the noise of the rows that it was trained on, and of no others
        phi[:, train, 6] += 0.3 * noise[train]
    fitted, fresh = (
        sums(phi[:, part], action[part], noise[part], torch.ones(K, 4000, dtype=torch.float64))
        for part in (train, held)
    )
    chosen = trust_network(fitted, fresh, prior(), BLOCKS, moves=6).variance[:, -1]
    assert (chosen > 0.005).all() if useful else (chosen < 0.0005).all()


def test_constant_features_do_no_harm() -> None:
    phi, action, target, weight = rows(300)
    phi[..., 6] = 0.0
    phi[..., 4:6] = 1000.0
    found = sums(phi.float().double(), action, target, weight)
    transform = standardise(found.gram.sum(1), BLOCKS)
    coefficients, _ = solve(in_coordinates(found, transform), prior(), BLOCKS)
    assert torch.isfinite(coefficients).all()
    assert float(coefficients.abs().max()) < 5.0
