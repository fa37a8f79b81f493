"""The posterior is that of a ridge regression written out; variances tell the modules that matter from the others."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from crosschannel.agents.funnel.design import Design
from crosschannel.agents.funnel.regression import (
    INTERCEPT_VARIANCE,
    _probes,
    _traces,
    centred,
    fit,
    fit_known_noise,
    refit,
)
from crosschannel.agents.funnel.sums import sum_rows
from crosschannel.core.action_space import ActionSpace
from tests.agents.funnel.samples import PLAIN, TABLES, contexts, dense, messages

GUESS = 0.01


def problem(n: int, seed: int, offer: float = 1.0, noise: float = 1.0) -> tuple[Design, Tensor, Tensor, Tensor]:
    """Rows whose target depends on the channel and, by so much, on the offer; never on the tone."""
    design, x, actions = Design.build(PLAIN, 2), contexts(n, 2, seed), messages(n, PLAIN, seed)
    a = torch.from_numpy(actions)
    y = 0.3 * (a[:, 0] == 1) + offer * torch.tensor([-0.3, 0.0, 0.3])[a[:, 2]] + noise * contexts(n, 1, seed + 1)[:, 0]
    return design, x, design.cells_of(actions), y[:, None]


def test_the_mean_is_that_of_a_ridge_regression_with_the_same_variances() -> None:
    design, x, actions = Design.build(TABLES, 2), contexts(300, 2), messages(300, TABLES)
    cells, y = design.cells_of(actions), contexts(300, 1, seed=1)
    found = fit(design, sum_rows(design, x, cells, y), GUESS)
    phi = dense(design, x, cells)
    precision = phi.t() @ phi + design.precision(found.variance)
    torch.testing.assert_close(
        found.mean, torch.linalg.solve(precision, phi.t() @ y[:, 0].double()), rtol=1e-4, atol=1e-5
    )
    torch.testing.assert_close(found.root @ found.root.t(), precision, rtol=1e-5, atol=1e-4)
    residual = float(y[:, 0].double() @ (y[:, 0].double() - phi @ found.mean)) / 300
    assert found.noise == pytest.approx(residual, rel=1e-4)
    half = sum_rows(design, x[:150], cells[:150], y[:150])
    again = refit(design, half, found.variance, found.noise)
    wanted = torch.linalg.solve(
        phi[:150].t() @ phi[:150] + design.precision(found.variance), phi[:150].t() @ y[:150, 0].double()
    )
    torch.testing.assert_close(again.mean, wanted, rtol=1e-4, atol=1e-5)
    assert again.noise == found.noise


def test_draws_have_the_posteriors_mean_and_covariance() -> None:
    design, x, cells, y = problem(400, 0)
    found = fit(design, sum_rows(design, x, cells, y), GUESS)
    draws = 20_000
    normals = torch.randn(design.columns, draws, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    drawn = found.draws(normals)
    covariance = found.noise * torch.cholesky_inverse(found.root)
    scale = covariance.diagonal().sqrt()
    assert ((drawn.mean(1) - found.mean).abs() / scale).max() < 1e-9
    correlation = torch.cov(drawn) / scale[:, None] / scale
    # The standard error of a sample correlation is at most 1 / sqrt(draws), that of a variance sqrt(2 / draws).
    error = (correlation - covariance / scale[:, None] / scale).abs().max()
    assert error < 5.0 * (2.0 / draws) ** 0.5


def test_few_draws_vary_as_much_as_many() -> None:
    normals = torch.randn(4, 3, 5000, generator=torch.Generator().manual_seed(0))
    few = centred(normals, 1)
    assert few.mean(1).abs().max() < 1e-6
    assert few.square().mean().item() == pytest.approx(1.0, abs=5.0 * (2.0 / few.numel()) ** 0.5 * 1.5**0.5)
    assert not centred(normals[:, :1], 1).any()  # a single draw is the best estimate


@pytest.mark.parametrize("seed", [0, pytest.param(range(1, 20), marks=pytest.mark.slow)])
def test_a_module_that_moves_nothing_is_shrunk_to_0(seed: int | range) -> None:
    for each in [seed] if isinstance(seed, int) else seed:
        design, x, cells, y = problem(4000, 100 + each)
        found = fit(design, sum_rows(design, x, cells, y), GUESS)
        sd = (found.variance * found.noise).sqrt()
        channel, tone, offer = (sd[design.block[start]].item() for start in design.starts[:3])
        assert sd[0].item() == pytest.approx((INTERCEPT_VARIANCE * found.noise) ** 0.5)
        assert tone < 0.05  # an effect of each tone is known to about 0.03
        assert channel > 0.08
        assert 0.12 < offer < 0.7  # its effects have a standard deviation of 0.3
        at = slice(design.starts[1], design.starts[1] + 3 * design.each)
        assert found.mean[at].abs().max() < 0.1


@pytest.mark.parametrize("seed", [0, pytest.param(range(1, 20), marks=pytest.mark.slow)])
def test_the_one_feature_that_tells_who_differs_is_found_among_many(seed: int | range) -> None:
    for each in [seed] if isinstance(seed, int) else seed:
        width, n = 40, 3000
        x, actions = contexts(n, width, 200 + each), messages(n, PLAIN, 200 + each)
        design = Design.build(PLAIN, width)
        liked = torch.tensor([-0.3, 0.0, 0.3])[torch.from_numpy(actions)[:, 2]]
        y = liked * x[:, 0] + 0.5 * x[:, 1] + contexts(n, 1, 300 + each)[:, 0]
        found = fit(design, sum_rows(design, x, design.cells_of(actions), y[:, None]), GUESS)
        common, offers = found.variance[1 : 1 + width], found.variance[design.block[design.starts[2] :][1 : 1 + width]]
        assert common.argmax() == 1
        assert offers.argmax() == 0
        assert offers[0] > 5.0 * offers[1:].median()  # one variance for all would shrink it as much as the others
        last = design.starts[2] + 2 * design.each + 1
        slope = float(found.mean[last] - found.mean[last - 2 * design.each]) / width**0.5
        assert abs(slope - 0.6) < 0.2  # of the difference, from a thousand rows each: a standard error of .045, shrunk


def test_without_rows_and_without_variation() -> None:
    design, x, cells, y = problem(200, 0)
    nothing = fit(design, sum_rows(design, x[:0], cells[:0], y[:0]), GUESS)
    assert not nothing.mean.any()
    constant = fit(design, sum_rows(design, x, cells, torch.full_like(y, 3.0)), GUESS)
    predicted = dense(design, x, cells) @ constant.mean
    torch.testing.assert_close(predicted, torch.full_like(predicted, 3.0), rtol=1e-2, atol=0.0)
    zero = fit(design, sum_rows(design, x, cells, torch.zeros_like(y)), GUESS)
    assert zero.mean.abs().max() < 1e-9
    assert zero.root.isfinite().all()


@pytest.mark.parametrize("unit", [1e-8, 1e-3, 1e3])
def test_units_do_not_matter(unit: float) -> None:
    design, x, cells, y = problem(2000, 3)
    one = fit(design, sum_rows(design, x, cells, y), GUESS)
    other = fit(design, sum_rows(design, x, cells, unit * y), GUESS)
    torch.testing.assert_close(other.mean / unit, one.mean, rtol=1e-3, atol=1e-5)
    torch.testing.assert_close(other.variance, one.variance, rtol=1e-2, atol=1e-6)


def test_rows_with_weights_have_the_noise_1() -> None:
    design, x, cells, y = problem(500, 1)
    weight = contexts(500, 1, seed=9)[:, 0].abs() + 0.1
    found = fit_known_noise(design, sum_rows(design, x, cells, y, weight), GUESS, None, 3, intercept=2.0)
    assert found.noise == 1.0
    assert found.variance[0] == 2.0
    phi, w = dense(design, x, cells), weight.double()
    precision = phi.t() @ (w[:, None] * phi) + design.precision(found.variance)
    wanted = torch.linalg.solve(precision, phi.t() @ (w * y[:, 0].double()))
    torch.testing.assert_close(found.mean, wanted, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("width", [2, 40])
def test_traces_are_those_of_the_inverse(width: int) -> None:
    """Exact with few columns; else the root of the mean square error of P probes is at most the root of 2 / P."""
    design, x = Design.build(PLAIN, width), contexts(900, width)
    cells = design.cells_of(messages(900, PLAIN))
    found = fit(design, sum_rows(design, x, cells, contexts(900, 1, seed=1)), GUESS)
    probes = _probes(design.columns)
    estimated = _traces(design, found.root, probes)
    covariance = torch.cholesky_inverse(found.root)
    precision = design.precision(torch.ones(design.blocks, dtype=torch.float64))
    few = probes.shape[1] == design.columns
    assert few == (width == 2)
    for b in range(design.blocks):
        mine = design.block == b
        exact = float((precision[mine][:, mine] * covariance[mine][:, mine]).sum())
        assert float(estimated[b]) == pytest.approx(exact, rel=1e-9 if few else 4.0 * (2.0 / probes.shape[1]) ** 0.5)


@pytest.mark.parametrize("space", [PLAIN, TABLES])
@pytest.mark.parametrize("width", [0, 1, 2])
@pytest.mark.parametrize("slopes", [True, False])
def test_any_number_of_rows_and_features_has_finite_coefficients_and_variances(
    space: ActionSpace, width: int, slopes: bool
) -> None:
    design = Design.build(space, width)
    design = design if slopes else design.with_intercepts_only()
    for n in (0, 1, 5, 300):
        x, cells = contexts(n, width), design.cells_of(messages(n, space))
        found = fit(design, sum_rows(design, x, cells, contexts(n, 1, seed=1)), GUESS)
        assert found.mean.isfinite().all()
        assert found.variance.isfinite().all()
        assert (found.variance > 0.0).all()
        if not n:
            assert bool((found.variance[1:] == GUESS).all())  # nothing is known of any block
