"""The variance of rewards by context: found where there is one, next to none where there is not."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from crosschannel.agents.ensemble.noise import learn_noise, noise_factor, row_weights

pytestmark = pytest.mark.numerics

TRUTH = torch.tensor([0.8, -0.4, 0.0, 0.0])


def errors(n: int, truth: torch.Tensor, seed: int) -> tuple[torch.Tensor, torch.Tensor]:
    g = torch.Generator().manual_seed(seed)
    context = torch.randn(n, len(truth), generator=g)
    return context, torch.randn(n, generator=g) * noise_factor(context, truth).sqrt()


@pytest.mark.parametrize("unit", [1.0, 1e-6, 1e6])
def test_it_is_found_in_any_unit(unit: float) -> None:
    """Of 20,000 rows: the information of one coefficient is n / 2 on standard normal features, an error of .01."""
    context, error = errors(20_000, TRUTH, seed=0)
    found = learn_noise(context, error.square() * unit)
    torch.testing.assert_close(found, TRUTH, atol=0.05, rtol=0)


def test_it_is_the_maximum_of_its_formula() -> None:
    context, error = errors(500, TRUTH, seed=1)
    square = (error.square() / error.square().mean()).double()
    found = learn_noise(context, square).double().requires_grad_()
    constant = torch.zeros((), dtype=torch.float64, requires_grad=True)
    optimiser = torch.optim.LBFGS(
        [found, constant], tolerance_grad=1e-10, tolerance_change=1e-14, max_iter=200, line_search_fn="strong_wolfe"
    )

    def loss() -> torch.Tensor:
        optimiser.zero_grad()
        eta = constant + context.double() @ found
        spread = max(0.5 * float((square - 1).square().mean()), 1.0)
        value = 0.5 * (eta + square * (-eta).exp()).sum() + 0.5 * spread * len(TRUTH) / 0.5**2 * found.square().sum()
        value.backward()
        return value

    start = found.detach().clone()
    optimiser.step(loss)
    torch.testing.assert_close(found.detach(), start, atol=1e-4, rtol=0)


def test_where_there_is_none_rows_keep_their_weight() -> None:
    """50 data sets of 200 rows: factors differ from 1 by less than the prior's own deviation of a factor exp(.5)."""
    deviations = []
    for seed in range(50):
        context, error = errors(200, torch.zeros(4), seed)
        deviations.append(float(noise_factor(context, learn_noise(context, error.square())).log().std()))
    assert np.mean(deviations) < 0.25


def test_weighing_by_it_makes_regressions_more_precise() -> None:
    """100 regressions of 1,000 rows: errors shrink by the share that Aitken's theorem gives, .67 of the variance."""
    truth, plain, weighed = torch.tensor([1.0, 0.0, 0.0, 0.0]), [], []
    for seed in range(100):
        context, error = errors(1000, truth, seed)
        weight = row_weights(torch.ones(1000), noise_factor(context, learn_noise(context, error.square())), 4.0)
        for out, w in ((plain, torch.ones(1000)), (weighed, weight)):
            gram = context.t() @ (w.unsqueeze(1) * context)
            out.append(torch.linalg.solve(gram, context.t() @ (w * error))[1:].square().sum())
    assert float(torch.stack(weighed).mean() / torch.stack(plain).mean()) < 0.75


@pytest.mark.parametrize("square", [torch.zeros(50), torch.full((50,), 1e30)])
def test_errors_of_any_size_give_finite_factors(square: torch.Tensor) -> None:
    context = torch.randn(50, 4, generator=torch.Generator().manual_seed(0)) * 10.0
    assert torch.isfinite(noise_factor(context, learn_noise(context, square))).all()


def test_rare_and_skewed_rewards_leave_rows_their_weight() -> None:
    """30 data sets of 5,000 rows in which 3 % have a log-normal reward, whatever the context.

    They say little of the variance, so that next to nothing is learned: the effective share of the rows stays above
    nine tenths. As if they were normal, half of it went.
    """
    shares = []
    for seed in range(30):
        rng = np.random.default_rng(seed)
        context = torch.from_numpy(rng.standard_normal((5000, 12)).astype(np.float32))
        reward = np.where(rng.random(5000) < 0.03, rng.lognormal(0.0, 1.0, 5000), 0.0)
        square = torch.from_numpy((reward - reward.mean()) ** 2)
        weight = row_weights(torch.ones(5000), noise_factor(context, learn_noise(context, square)), 4.0)
        shares.append(float(weight.sum() ** 2 / (weight.square().sum() * 5000)))
    assert min(shares) > 0.9


def test_an_effect_that_sets_in_where_rewards_are_noisy_is_not_given_up() -> None:
    """What linear policies lose of .5 max(x, 0) - .15 with noise exp(.75 x), over 40 logs of 3,000 rows.

    By the full variance they are fitted to quiet users and lose far more than by the root of it; where the effect is
    linear, the root loses less than no weights at all.
    """
    lost = {"bent": {0.0: 0.0, 0.5: 0.0, 1.0: 0.0}, "linear": {0.0: 0.0, 0.5: 0.0, 1.0: 0.0}}
    fresh = torch.randn(20_000, generator=torch.Generator().manual_seed(99))
    effects = {"bent": lambda x: 0.5 * x.clamp_min(0.0) - 0.15, "linear": lambda x: 0.2 * x}
    for seed in range(40):
        g = torch.Generator().manual_seed(seed)
        x, sent = torch.randn(3000, generator=g), (torch.rand(3000, generator=g) < 0.5).float()
        noise = torch.randn(3000, generator=g) * (0.75 * x).exp()
        factor = noise_factor(x[:, None], learn_noise(x[:, None], noise.square()))
        design = torch.stack([torch.ones(3000), x, sent, sent * x], 1)
        for name, effect in effects.items():
            for power in lost[name]:
                weighed = design.t() * factor**-power
                found = torch.linalg.solve(weighed @ design, weighed @ (sent * effect(x) + noise))
                gains = effect(fresh)
                sends = found[2] + found[3] * fresh > 0
                lost[name][power] += float((gains.clamp_min(0.0) - gains * sends).mean())
    assert lost["bent"][0.5] < 0.75 * lost["bent"][1.0]
    assert lost["linear"][0.5] < lost["linear"][0.0]
    print(lost)
