"""Means over a policy equal those by enumeration of all messages, whatever the modules depend on."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from crosschannel.agents.ensemble.mixtures import mixing_matrix
from crosschannel.agents.funnel.averages import PolicyMeans
from crosschannel.agents.funnel.design import Design
from crosschannel.agents.funnel.policy import flat_prices
from crosschannel.agents.funnel.values import Effects, hazards_of, mixed, value_of
from crosschannel.core.action_space import ActionSpace
from tests.agents.funnel.enumeration import Enumeration
from tests.agents.funnel.samples import SPACES, contexts, random_heads

N, WIDTH = 4, 2
FREE = flat_prices(SPACES["tables"], None)


def random_shares(modules: ActionSpace, seed: int, channel: int | None = None) -> list[torch.Tensor]:
    """Random probabilities (cells, N) of every module within each group, those of the first without sending nothing."""
    rng = np.random.default_rng(seed)
    out = []
    for m in range(len(modules)):
        share = np.zeros((N, *modules.shape(m)))
        for group in modules.groups(m):
            share[..., group] = rng.dirichlet(np.ones(len(group)), share.shape[:-1])
        if m == 0:
            share[:, 0] = 0.0
            if channel is not None:
                share[:] = np.arange(modules.sizes[0]) == channel
            share /= share.sum(1, keepdims=True)
        out.append(torch.from_numpy(share.reshape(N, -1).T.copy()).float())
    return out


@pytest.mark.parametrize("tested", [True, False])
@pytest.mark.parametrize("name", SPACES)
def test_the_value_of_every_cell_is_the_mean_over_the_policy_of_the_others(name: str, tested: bool) -> None:
    modules = SPACES[name]
    design, x = Design.build(modules, WIDTH), contexts(N, WIDTH)
    heads = random_heads(design, costs=2, tested=tested)
    prices = np.array([3.0, 1.0])
    truth = Enumeration.build(design, heads, x)
    assert (truth.parts[0] > 0.0).all()
    assert (truth.parts[0] < 1.0).all()
    assert (truth.hazards > 1e-6).all()
    assert (truth.hazards < 1.0).all()
    effects = Effects.build(design, heads, x, None)
    # Where engagement is not told apart in one channel, a mean over several channels is an approximation.
    shares = random_shares(modules, 1, None if tested else 2)
    charged = [torch.rand(size, N, generator=torch.Generator().manual_seed(m)) for m, size in enumerate(modules.sizes)]
    means = PolicyMeans(modules, effects, shares, heads.tested.float(), charged)
    price = np.sum([each.numpy().T[:, modules.joint_actions[1:, m]] for m, each in enumerate(charged)], axis=0)
    policy = [share.double().numpy() for share in shares]
    for m in range(len(modules)):
        total = means.of_cells(m)
        wanted = truth.given(m, truth.values(prices), policy)
        reached = np.isfinite(wanted)
        assert reached.any()
        found = value_of(heads, total, torch.from_numpy(prices).float()).numpy()
        np.testing.assert_allclose(found[reached], wanted[reached], rtol=2e-4, atol=2e-4)
        wanted = truth.given(m, price, policy)
        np.testing.assert_allclose(total.price.numpy()[np.isfinite(wanted)], wanted[np.isfinite(wanted)], rtol=1e-5)
        for c, hazard in enumerate(hazards_of(heads, total)):
            beyond = truth.given(m, truth.hazards[c] - 1e-6, policy)
            np.testing.assert_allclose(hazard.numpy()[reached], beyond[reached], rtol=2e-4, atol=1e-6)


def test_a_row_without_probability_is_averaged_over_what_it_depends_on() -> None:
    modules = SPACES["tables"]
    design, x = Design.build(modules, WIDTH), contexts(N, WIDTH)
    heads = random_heads(design)
    shares = random_shares(modules, 1)
    shares[1].view(3, 3, N)[:, 0] = 0.0  # no message is sent in the morning
    means = PolicyMeans(modules, Effects.build(design, heads, x, None), shares, heads.tested.float(), FREE)
    even = [each.clone() for each in shares]
    even[1].view(3, 3, N)[:, 0] = 0.5  # equally often in every channel
    wanted = PolicyMeans(modules, Effects.build(design, heads, x, None), even, heads.tested.float(), FREE)
    morning = slice(0, 2)
    found, expected = means.of_cells(2), wanted.of_cells(2)
    for name in ("linear", "logs", "together"):
        torch.testing.assert_close(getattr(found, name)[..., morning, :], getattr(expected, name)[..., morning, :])


def test_mixtures_are_linear_in_the_members() -> None:
    design, x = Design.build(SPACES["tables"], WIDTH), contexts(N, WIDTH)
    heads = random_heads(design, members=4)
    matrix = torch.from_numpy(mixing_matrix(4, 8, 0)).float()
    plain, mixtures = (Effects.build(design, heads, x, each) for each in (None, matrix))
    pairs = [(plain.logs, mixtures.logs), *zip(plain.log_cells, mixtures.log_cells, strict=True)]
    linear = zip((plain.linear, *plain.linear_cells), (mixtures.linear, *mixtures.linear_cells), strict=True)
    pairs += [(a, mixed(b, mixtures.mixing)) for a, b in linear]
    assert (plain.voters, mixtures.voters) == (1 + 4, 1 + 8)
    for a, b in pairs:
        torch.testing.assert_close(b[:, :1], a[:, :1])
        wanted = a[:, :1] + torch.einsum("lk,pk...->pl...", matrix, a[:, 1:] - a[:, :1])
        torch.testing.assert_close(b[:, 1:], wanted, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("name", SPACES)
def test_means_with_other_shares_of_some_modules_equal_those_from_the_start(name: str) -> None:
    modules = SPACES[name]
    design, x = Design.build(modules, WIDTH), contexts(N, WIDTH)
    heads = random_heads(design, members=4)
    matrix = torch.from_numpy(mixing_matrix(4, 8, 0)).float()
    effects, free = Effects.build(design, heads, x, matrix), flat_prices(modules, None)
    before, after = random_shares(modules, 1), random_shares(modules, 2)
    price = torch.tensor([2.0])
    for m in range(len(modules)):
        means = PolicyMeans(modules, effects, before, heads.tested.float(), free)
        for k in range(len(modules)):
            means.values(heads, k, price)  # all means are known before one module's shares change
        shares = [after[k] if k == m else each for k, each in enumerate(before)]
        fresh = PolicyMeans(modules, effects, shares, heads.tested.float(), free)
        changed = means.with_shares({m: after[m]})
        for k in range(len(modules)):
            found, wanted = (each.values(heads, k, price) for each in (changed, fresh))
            torch.testing.assert_close(found, wanted, rtol=0, atol=0)


def test_hazards_far_above_1_do_not_overflow() -> None:
    design, x = Design.build(SPACES["plain"], WIDTH), contexts(N, WIDTH)
    heads = random_heads(design)
    heads.hazard[:, :, design.starts[1] :] = 200.0
    shares = random_shares(SPACES["plain"], 1)
    free = flat_prices(SPACES["plain"], None)
    means = PolicyMeans(SPACES["plain"], Effects.build(design, heads, x, None), shares, heads.tested.float(), free)
    for m in range(3):
        found = hazards_of(heads, means.of_cells(m))[0]
        assert found.isfinite().all()
        torch.testing.assert_close(found[:, 1:], torch.full_like(found[:, 1:], 1.0 - 1e-6))
