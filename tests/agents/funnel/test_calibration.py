"""The weights of a funnel and of the regression of all sends, by rewards whose truth is known."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from torch import Tensor

from crosschannel.agents.funnel.calibration import PRIOR_SD, Blend, BlendSums, JudgedMessages, Predictions

N = 20_000


def normals(*shape: int, seed: int = 0) -> Tensor:
    return torch.from_numpy(np.random.default_rng(seed).standard_normal(shape)).float()


def judged_messages(
    reward: Tensor, value: Tensor, predictions: Predictions, user: Tensor, fold: Tensor, common: Tensor
) -> JudgedMessages:
    return JudgedMessages(common=common, reward=reward, value=value, user=user, fold=fold, predictions=predictions)


def blend(
    reward: Tensor,
    funnel: Tensor,
    all_sends: Tensor | None = None,
    cost: Tensor | None = None,
    missed: Tensor | None = None,
    judged: Tensor | None = None,
    value: Tensor | None = None,
    user: Tensor | None = None,
    context: Tensor | None = None,
) -> Blend:
    """Return the weights by n messages; by default the value is the reward beyond its costs, all sends tell nothing."""
    nothing = torch.zeros_like(funnel)
    cost = nothing if cost is None else cost
    predictions = Predictions(
        judged=funnel if judged is None else judged,
        funnel=funnel,
        missed=nothing if missed is None else missed,
        all_sends=normals(len(funnel), seed=9) if all_sends is None else all_sends,
        cost=cost,
    )
    user = torch.arange(len(funnel)) if user is None else user
    common = torch.ones(len(funnel), 1)
    common = common if context is None else torch.cat([common, context], 1)
    value = reward + cost if value is None else value
    block = judged_messages(reward, value, predictions, user, user % 2, common)
    return BlendSums.from_messages(common.shape[1], [block]).blend(1.0)


def test_right_predictions_keep_their_weight() -> None:
    f = normals(N)
    found = blend(f + normals(N, seed=1), f)
    assert abs(found.slope - 1.0) < 4.0 * found.slope_se
    assert found.slope_se == pytest.approx(N**-0.5, rel=0.1)
    assert found.funnel == pytest.approx(1.0, abs=0.04)
    assert found.all_sends == pytest.approx(0.0, abs=0.04)
    assert abs(found.intercept) < 4.0 * N**-0.5


def test_half_of_the_truth_counts_twice() -> None:
    f = normals(N)
    found = blend(2.0 * f + normals(N, seed=1), f)
    assert found.slope == pytest.approx(2.0, abs=0.04)
    assert found.funnel == pytest.approx(2.0, abs=0.04)


def test_noise_gives_way_to_the_regression_of_all_sends() -> None:
    f, q = normals(2, N)
    found = blend(q + normals(N, seed=1), f, q)
    assert abs(found.slope) < 4.0 * found.slope_se
    assert found.funnel == pytest.approx(0.0, abs=0.04)
    assert found.all_sends == pytest.approx(1.0, abs=0.04)


def test_the_weights_do_not_hide_that_the_prediction_is_wrong() -> None:
    f, personal, noise = normals(3, N)
    found = blend(f + noise, f, judged=f + personal)
    assert found.funnel == pytest.approx(1.0, abs=0.04)
    assert found.slope == pytest.approx(0.5, abs=0.04)


def test_what_tells_actions_apart_decides_and_not_what_all_messages_share() -> None:
    """The funnel knows the context's part, which is the larger one, and the other regression what actions differ by."""
    x, apart, noise, wrong = normals(4, N)
    value = 3.0 * x + apart + noise
    for half in (0.0, 2.0 * (torch.arange(N) % 2)):  # a part that differs by half must not tell either
        found = blend(value + half, 3.0 * x + 0.5 * wrong - half, 2.5 * x + apart, context=x.unsqueeze(1))
        assert found.funnel < 0.04
        assert found.all_sends > 0.9


def test_the_coefficients_of_the_context_are_of_each_half() -> None:
    """Each half is predicted by the other's slopes, so that with one slope for both the right one would lose."""
    x, apart, noise = normals(3, N)
    of_half = (1.0 - 2.0 * (torch.arange(N) % 2)) * x
    found = blend(of_half + apart + noise, -of_half + apart, context=x.unsqueeze(1))
    assert found.funnel > 0.0
    assert found.all_sends < 0.1 * found.funnel


def test_values_decide_and_rewards_set_the_scale() -> None:
    f, q, noise = normals(3, N)
    found = blend(0.5 * f + noise, f, q, value=f + 0.1 * noise)
    assert found.funnel == pytest.approx(0.5, abs=0.04)
    assert found.all_sends == pytest.approx(0.0, abs=0.01)


def test_what_surrogates_miss_counts_as_far_as_it_predicts() -> None:
    f, m, noise = normals(3, N)
    for part, expected in ((1.0, 1.0), (0.5, 0.5), (0.0, 0.0)):
        found = blend(f + part * m + noise, f, f, missed=m, value=f + 0.5 * noise)
        assert found.missed == pytest.approx(expected, abs=0.04)
        assert found.funnel == pytest.approx(1.0, abs=0.04)
        assert abs(found.slope - 1.0) < 4.0 * found.slope_se
    assert blend(f - m + noise, f, missed=m, value=f + 0.5 * noise).missed == 0.0
    assert blend(f + noise, f).missed == 0.0


def test_a_value_is_never_turned_around() -> None:
    f, q = normals(2, N)
    found = blend(-f + 0.5 * q + normals(N, seed=1), f, q)
    assert found.slope == pytest.approx(-1.0, abs=0.04)
    assert found.funnel == 0.0
    assert found.all_sends == pytest.approx(0.5, abs=0.04)
    found = blend(f - q + normals(N, seed=1), f, q)
    assert found.funnel == pytest.approx(1.0, abs=0.04)
    assert found.all_sends == 0.0
    found = blend(-f - q + normals(N, seed=1), f, q)
    assert (found.funnel, found.all_sends) == (0.0, 0.0)


def test_without_information_half_of_each_is_followed() -> None:
    f, q = 1e-3 * normals(2, 100)
    found = blend(normals(100, seed=1), f, q)
    assert found.funnel == pytest.approx(0.5, abs=0.01)
    assert found.all_sends == pytest.approx(0.5, abs=0.01)


def test_where_both_are_the_same_the_funnel_is_followed() -> None:
    """What surrogates miss is within the funnel: half of it would be lost otherwise."""
    f = normals(N)
    found = blend(f + normals(N, seed=1), f, f)
    assert found.funnel == pytest.approx(1.0, abs=0.04)
    assert found.all_sends == 0.0


@pytest.mark.parametrize("unit", [1e-9, 1e9])
@pytest.mark.parametrize("noise", [1.0, 0.0])
def test_units_do_not_matter(unit: float, noise: float) -> None:
    f, q, m = normals(3, 500)
    reward = 0.8 * f + 0.3 * q + m + noise * normals(500, seed=1)
    one, other = blend(reward, f, q, missed=m), blend(unit * reward, unit * f, unit * q, missed=unit * m)
    for name in ("funnel", "all_sends", "missed", "slope", "slope_se"):
        assert getattr(other, name) == pytest.approx(getattr(one, name), rel=1e-4, abs=1e-6), name


def test_costs_count_once_and_are_not_weighed() -> None:
    f, cost = normals(N), normals(N, seed=2).abs()
    found = blend(f - cost + normals(N, seed=1), f, cost=cost)
    assert found.funnel == pytest.approx(1.0, abs=0.04)
    assert found.slope == pytest.approx(1.0, abs=0.04)


def test_constant_predictions_have_weights_and_no_slope() -> None:
    for reward, f in (
        (normals(50), torch.zeros(50)),
        (torch.ones(50), torch.ones(50)),
        (torch.zeros(50), torch.zeros(50)),
    ):
        found = blend(reward, f, torch.zeros(50))
        assert np.isfinite([found.funnel, found.all_sends]).all()
        assert np.isnan([found.intercept, found.slope, found.slope_se]).all()
        assert min(found.funnel, found.all_sends) >= 0.0


def test_few_users_give_no_standard_error() -> None:
    f = normals(200)
    for users, known in ((19, False), (20, True)):
        found = blend(f + normals(200, seed=1), f, user=torch.arange(200) % users)
        assert np.isfinite(found.slope)
        assert np.isfinite(found.slope_se) == known


def test_means_of_the_halves_do_not_count_against_the_predictions() -> None:
    """Each half is predicted by the mean of the other: with one mean for both the slope would be -1 here."""
    f, half = 0.1 * normals(N), torch.arange(N) % 2
    means = 3.0 * half
    found = blend(f + means + normals(N, seed=1), f - means)
    assert abs(found.slope - 1.0) < 4.0 * found.slope_se
    assert found.slope_se == pytest.approx(10.0 * N**-0.5, rel=0.1)


@pytest.mark.parametrize("seed", range(3))
def test_the_weights_follow_from_sums_as_written_out(seed: int) -> None:
    judged, f, m, q, c, x, noise = normals(7, 400, seed=seed).double()
    judged += f
    parts = torch.stack([judged, f, m, q, c])
    user = torch.from_numpy(np.random.default_rng(seed).integers(0, 60, 400))
    half = (user % 7 < 3).long()
    v = f + 0.7 * q + 0.5 * x + noise
    y = v + 0.3 * m - c + normals(400, seed=seed + 1).double()
    common = torch.stack([torch.ones(400).double(), x], 1)
    blocks = [
        judged_messages(y[at], v[at], Predictions(*parts[:, at]), user[at], half[at], common[at])
        for at in (torch.arange(0, 400, 2), torch.arange(1, 400, 2))
    ]
    some = [
        BlendSums.from_messages(
            2, [judged_messages(y[at], v[at], Predictions(*parts[:, at]), user[at], half[at], common[at])]
        )
        for at in (user < 30, user >= 30)
    ]
    found = (BlendSums.zeros(2) + some[0] + some[1]).blend(0.5)
    assert BlendSums.from_messages(2, blocks).blend(0.5).to_dict() == pytest.approx(found.to_dict(), rel=1e-9)

    target = y + c - v
    missed = float((m @ target) / (m @ m + target.square().mean() / PRIOR_SD**2))
    assert found.missed == pytest.approx(min(max(missed, 0.0), 1.0), rel=1e-9)
    levels = torch.stack([half == 0, half == 1, (half == 0) * x, (half == 1) * x], 1).double()
    rest = torch.stack([v, f, q], 1)
    rest -= levels @ torch.linalg.lstsq(levels, rest).solution
    ridge = rest[:, 0].square().mean() / PRIOR_SD**2
    both = rest[:, 1:].t() @ rest[:, 1:] + ridge * torch.eye(2).double()
    weights = torch.linalg.solve(both, rest[:, 1:].t() @ rest[:, 0] + 0.5 * ridge)
    assert (weights > 0.0).all()  # the bound at 0 does not bind
    first, second = weights / weights.sum()
    total = first * (f + found.missed * m) + second * q
    residual = y + c - total
    scale = 1.0 + (total @ residual) / (total @ total + residual.square().mean() / PRIOR_SD**2)
    assert [found.funnel, found.all_sends] == pytest.approx([float(scale * first), float(scale * second)], rel=1e-6)

    line = torch.stack([half == 0, half == 1, judged - c], 1).double()
    inverse = torch.linalg.inv(line.t() @ line)
    fitted = inverse @ (line.t() @ y)
    score = torch.zeros(60, 3).double().index_add_(0, user, line * (y - line @ fitted).unsqueeze(1))
    users = len(torch.unique(user))
    variance = (inverse @ score.t() @ score @ inverse)[2, 2] * users / (users - 1)
    assert found.slope == pytest.approx(float(fitted[2]), rel=1e-9)
    assert found.slope_se == pytest.approx(float(variance.sqrt()), rel=1e-9)
    assert found.personal == 0.5


def clustered(users: int, each: int, seed: int) -> Blend:
    """Rewards and predictions that a user's rows share for the most part."""
    user = torch.arange(users).repeat_interleave(each)
    f = normals(users, seed=seed)[user] + 0.3 * normals(users * each, seed=seed + 1)
    noise = normals(users, seed=seed + 2)[user] + normals(users * each, seed=seed + 3)
    return blend(f + noise, f, user=user)


@pytest.mark.parametrize("runs", [60, pytest.param(600, marks=pytest.mark.slow)])
def test_the_standard_error_counts_a_users_rows_as_one(runs: int) -> None:
    found = [clustered(150, 8, 10 * seed) for seed in range(runs)]
    spread = float(np.std([each.slope for each in found], ddof=1))
    stated = float(np.mean([each.slope_se for each in found]))
    # A sample standard deviation of n values has a relative error of 1 / sqrt(2 n); the sandwich is a little small.
    assert stated == pytest.approx(spread, rel=4.0 / (2.0 * runs) ** 0.5 + 0.03)
    alone = blend(*(lambda f: (f + normals(1200, seed=5), f))(normals(1200)))
    assert stated > 1.5 * alone.slope_se
