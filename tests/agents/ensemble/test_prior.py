"""How the heads' prior is fitted: scales and noise by evidence, two blocks by held-out rows."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch

from crosschannel.agents.ensemble.heads import FeatureScaler, SufficientStatistics, solve
from crosschannel.agents.ensemble.prior import (
    ABSOLUTE_BLOCK,
    MIN_LOG_LIKELIHOOD_GAIN,
    MIN_ROWS_TO_LEARN_NOISE,
    NETWORK_BLOCK,
    PRIOR_SCALES,
    learn_scales,
    local_minimum,
    select_prior_scale,
)
from tests.agents.ensemble.samples import BLOCKS, A, prior, rows, sums_of

pytestmark = pytest.mark.numerics


def problem(n: int, strength: float, seed: int) -> SufficientStatistics:
    """Targets of noise variance 1 and an effect of features 1 to 3, each action's its own."""
    phi, action, _, _ = rows(n, seed)
    g = torch.Generator().manual_seed(seed + 1)
    truth = torch.tensor([[1.0, -1.0, 1.0], [1.0, 1.0, -1.0]], dtype=torch.float64)
    target = torch.randn(n, generator=g, dtype=torch.float64)
    target += strength * (phi[:, 1:4] * truth[action]).sum(1)
    sums = sums_of(phi, action, target[:, None], torch.ones(n, dtype=torch.float64))
    return FeatureScaler.fit(sums.gram.sum(0), BLOCKS).transform(sums)


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
        assert torch.equal(
            learned.variance[NETWORK_BLOCK | ABSOLUTE_BLOCK], begin.variance[NETWORK_BLOCK | ABSOLUTE_BLOCK]
        )
        assert learned.noise == pytest.approx(1.0, abs=4 * np.sqrt(2 / 20_000))


def test_the_noise_of_few_rows_stays_as_it_is_believed() -> None:
    begin = prior(noise=0.7)
    assert learn_scales(problem(MIN_ROWS_TO_LEARN_NOISE, 0.3, 8), begin, BLOCKS, steps=5).noise == 0.7
    assert learn_scales(problem(MIN_ROWS_TO_LEARN_NOISE + 1, 0.3, 8), begin, BLOCKS, steps=5).noise > 0.8


def test_few_steps_suffice_from_far_away() -> None:
    """From a hundredth of the right scale it is there within a factor of 2 after 10 steps, over 20 data sets."""
    for seed in range(20):
        data = problem(1000, 0.3, seed)
        start = replace(prior(variance=1e-4), guess=1e-4)
        near, there = (learn_scales(data, start, BLOCKS, steps).variance[1, 1] for steps in (10, 60))
        assert 0.5 < float(near / there) < 2.0


@pytest.mark.parametrize("useful", [False, True])
def test_the_networks_block_gets_the_scale_that_predicts_held_out_rows(useful: bool) -> None:
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
    found = select_prior_scale(fitted, fresh, prior(), BLOCKS, NETWORK_BLOCK).variance
    assert (found[NETWORK_BLOCK] > 0.005).all() if useful else (found[NETWORK_BLOCK] < 0.0005).all()
    assert torch.equal(found[~NETWORK_BLOCK], prior().variance[~NETWORK_BLOCK])


def test_a_block_without_effect_hardly_ever_gets_a_wider_prior() -> None:
    """Of 200 data sets without any effect at most 2 may get a wider prior; without the threshold about a third would.

    Twice the gain in log likelihood by a variance too many is at most chi-squared where it is judged on other rows, so
    that 4 is exceeded in far less than one of 200: 2 leaves room for chance, not for a rule that does not work.
    """
    widened = 0
    for seed in range(200):
        phi, action, targets, weight = rows(400, seed)
        fitted, fresh = (
            sums_of(*(column[part] for column in (phi, action, targets[:, :1], weight / weight)))
            for part in (slice(0, 200), slice(200, 400))
        )
        widened += bool(
            (select_prior_scale(fitted, fresh, prior(), BLOCKS, ABSOLUTE_BLOCK).variance[ABSOLUTE_BLOCK] > 1e-4).any()
        )
    assert widened <= 2


def halves(n: int, seed: int, effect: float) -> tuple[SufficientStatistics, SufficientStatistics]:
    """Statistics of rows with effects of |x| and of the trained feature that differ by action, and of as many more."""
    phi, action, targets, weight = rows(2 * n, seed)
    sign = torch.tensor([1.0, -1.0], dtype=torch.float64)[action]
    target = targets[:, :1] + (effect * sign * (phi[:, 4] + phi[:, 6])).unsqueeze(1)
    parts = (slice(0, n), slice(n, 2 * n))
    fitted, fresh = (sums_of(phi[part], action[part], target[part], weight[part]) for part in parts)
    return fitted, fresh


@pytest.mark.parametrize("which", [NETWORK_BLOCK, ABSOLUTE_BLOCK])
@pytest.mark.parametrize("effect", [0.0, 0.05, 0.1, 0.3])
@pytest.mark.parametrize("noise", [0.2, 1.0, 5.0])
def test_the_scale_is_what_solving_again_for_each_variance_finds(
    which: torch.Tensor, effect: float, noise: float
) -> None:
    begin = prior(noise=noise)
    for seed in range(5):
        train, held_out = halves(300, seed, effect)
        errors = []
        for value in PRIOR_SCALES:
            candidate = replace(begin, variance=begin.variance.masked_fill(which, value))
            found = solve(train, candidate, BLOCKS)
            errors.append(float((found * (held_out.gram @ found - 2.0 * held_out.moment)).sum()))
        best = int(np.argmin(errors))
        gain_is_clear = errors[0] - errors[best] > 2.0 * MIN_LOG_LIKELIHOOD_GAIN * noise
        chosen = select_prior_scale(train, held_out, begin, BLOCKS, which).variance[which]
        torch.testing.assert_close(chosen, torch.full_like(chosen, PRIOR_SCALES[best if gain_is_clear else 0]))


def test_a_step_is_that_of_the_formula_on_the_dense_posterior() -> None:
    """One regression on the common part and both deviations, its posterior covariance by inversion."""
    phi, action, targets, weight = rows(2000, 3)
    target, begin = 0.6 * targets[:, 0] + 0.5 * phi[:, 1] + phi[:, 2] * action, prior(noise=0.8)
    own = torch.nn.functional.one_hot(action, A)
    design = torch.cat([phi, *(own[:, a, None] * phi for a in range(A))], 1)
    block = torch.cat([BLOCKS, *[4 + BLOCKS] * A])
    variance = begin.variance.flatten()
    weighted = design * weight.unsqueeze(1)
    covariance = torch.linalg.inv(design.T @ weighted + torch.diag(1 / variance[block]))
    mean = covariance @ weighted.T @ target
    noise = float((weight * target * (target - design @ mean)).sum()) / 2000
    found = learn_scales(sums_of(phi, action, target[:, None], weight), begin, BLOCKS, steps=1)
    assert found.noise == pytest.approx(noise, rel=1e-3)
    for b in set(range(8)) - set((NETWORK_BLOCK | ABSOLUTE_BLOCK).flatten().nonzero().flatten().tolist()):
        here = block == b
        determined = int(here.sum()) - float(covariance.diagonal()[here].sum() / variance[b])
        expected = (float(mean[here].square().sum()) / noise + 0.1 * begin.guess) / (determined + 0.1)
        assert float(found.variance.flatten()[b]) == pytest.approx(min(max(expected, 1e-6), 4.0), rel=5e-3)


@pytest.mark.parametrize("first", range(5))
def test_descent_ends_at_the_minimum(first: int) -> None:
    for best in range(5):
        assert local_minimum(lambda place, best=best: abs(place - best), 5, first) == best
