"""Votes of a funnel: shares of each module's voters, and values of channels at the policy of the later modules."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch

from crosschannel.agents.ensemble.mixtures import mixing_matrix
from crosschannel.agents.funnel.design import Design
from crosschannel.agents.funnel.policy import Slots, Votes, flat_prices, vote
from crosschannel.agents.funnel.values import Effects, Heads
from crosschannel.agents.sampling import expand_mask, vote_shares
from crosschannel.core.action_space import ActionSpace
from crosschannel.core.arrays import BoolArray, FloatArray
from tests.agents.funnel.enumeration import Enumeration
from tests.agents.funnel.samples import SPACES, contexts, random_heads

N, WIDTH = 6, 2
PRICES = np.array([2.0])


def slots_of(modules: ActionSpace, mask: BoolArray, prices: FloatArray | None = None) -> Slots:
    mask = modules.feasible_mask(mask)
    eligible = tuple(
        torch.from_numpy(expand_mask(modules, m, part).reshape(len(mask), -1).T.copy())
        for m, part in enumerate(modules.split(mask))
    )
    return Slots(modules, eligible, torch.from_numpy(PRICES).float(), flat_prices(modules, prices))


def everything(modules: ActionSpace) -> BoolArray:
    return np.ones((N, modules.total), dtype=bool)


def setup(name: str, mixtures: int = 0) -> tuple[ActionSpace, Heads, Effects, Enumeration]:
    modules = SPACES[name]
    design, x = Design.build(modules, WIDTH), contexts(N, WIDTH)
    heads = random_heads(design)
    matrix = torch.from_numpy(mixing_matrix(4, mixtures, 0)).float() if mixtures else None
    return modules, heads, Effects.build(design, heads, x, matrix), Enumeration.build(design, heads, x)


def assert_consistent(modules: ActionSpace, found: Votes, truth: Enumeration) -> None:
    """The channels' values are the means over the later modules' shares."""
    first = np.full((modules.sizes[0], N), 0.5)
    policy = [first, *(share.numpy() for share in found.shares)]
    with np.errstate(invalid="ignore"):
        wanted = truth.given(0, truth.values(PRICES), policy)[:, 1:]
        hazard = truth.given(0, truth.hazards[0] - 1e-6, policy)[0, 1:]
    np.testing.assert_allclose(found.channel.numpy()[:, 1:], wanted, rtol=2e-4, atol=2e-4)
    np.testing.assert_allclose(found.hazards.numpy()[0, 1:], hazard, rtol=2e-4, atol=1e-6)
    assert not found.channel[:, 0].any()
    assert not found.hazards[:, 0].any()


@pytest.mark.parametrize("floor", [0.0, 0.1])
@pytest.mark.parametrize("name", SPACES)
def test_later_modules_have_vote_shares_and_channels_the_mean_over_them(name: str, floor: float) -> None:
    modules, heads, effects, truth = setup(name)
    floors = [floor] * len(modules)
    found = vote(slots_of(modules, everything(modules)), heads, effects, floors)
    parts = modules.split(everything(modules))
    for m in range(1, len(modules)):
        values = found.later[m - 1][1:].transpose(1, 2).numpy().reshape(-1, N, *modules.shape(m))
        wanted = vote_shares(modules, m, values, parts[m], floor)
        np.testing.assert_allclose(found.shares[m - 1].numpy().T.reshape(wanted.shape), wanted, atol=1e-12)
    assert_consistent(modules, found, truth)


@pytest.mark.parametrize("name", SPACES)
def test_the_best_estimate_alone_reaches_a_choice_that_no_module_improves(name: str) -> None:
    modules, heads, effects, truth = setup(name)
    found = vote(slots_of(modules, everything(modules)), heads, effects.best(), [0.0] * len(modules))
    values = truth.values(PRICES)[0]
    joint = modules.joint_actions[1:]
    first = np.zeros((modules.sizes[0], N))
    first[1:][found.channel[0, 1:].argmax(0), np.arange(N)] = 1.0
    chosen = truth.shares([first, *(share.numpy() for share in found.shares)]).argmax(1)
    worth = values[np.arange(N), chosen]
    for n in range(N):
        same = (joint == joint[chosen[n]]).sum(1)
        for j in np.flatnonzero(same == len(modules) - 1):  # differs in one module
            assert values[n, j] <= worth[n] + 1e-4
    assert worth.mean() > values.mean()


def test_a_parent_is_chosen_by_what_its_children_earn() -> None:
    """A kind without an effect of its own, one of whose offers is good, is preferred to a kind with a bad one."""
    modules, heads, _, _ = setup("parents")
    design, x = Design.build(modules, WIDTH), contexts(N, WIDTH)
    value = torch.zeros_like(heads.value)
    offers = design.starts[2]
    value[1:3, :, offers] = -5.0  # b1, a bogo
    value[1:3, :, offers + design.each] = 3.0  # b2, a bogo
    value[1:3, :, offers + 2 * design.each] = 1.0  # i1, an info
    heads = replace(heads, value=value, hazard=heads.hazard[:0], organic=heads.organic[:0])
    found = vote(slots_of(modules, everything(modules)), heads, Effects.build(design, heads, x, None), [0.0] * 4)
    joint = [each.numpy() for each in found.shares]
    np.testing.assert_array_equal(joint[1][:, 0], [0.0, 1.0, 1.0])
    best = found.channel[:, 1:] / heads.blend.funnel
    # kind "bogo" needs e-mail, and "info" needs push
    np.testing.assert_allclose(best[:, 0].numpy(), 3.0, rtol=1e-5)
    np.testing.assert_allclose(best[:, 1].numpy(), 1.0, rtol=1e-5)


def test_a_module_without_a_dependency_is_chosen_by_what_depends_on_it() -> None:
    modules, heads, _, _ = setup("siblings")
    design, x = Design.build(modules, WIDTH), contexts(N, WIDTH)
    value = torch.zeros_like(heads.value)
    value[1:3, :, design.starts[2] + 2 * design.each] = 1.0  # i1, an info
    heads = replace(heads, value=value, hazard=heads.hazard[:0], organic=heads.organic[:0])
    free = vote(slots_of(modules, everything(modules)), heads, Effects.build(design, heads, x, None), [0.0] * 4)
    np.testing.assert_array_equal(free.shares[0].numpy()[:, 0], [0.0, 1.0])
    prices = np.zeros((N, modules.total))
    prices[:, modules.slices[2].start + 2] = 2.0
    slots = slots_of(modules, everything(modules), prices)
    priced = vote(slots, heads, Effects.build(design, heads, x, None), [0.0] * 4)
    np.testing.assert_array_equal(priced.shares[0].numpy()[:, 0], [1.0, 0.0])  # an info costs more than it is worth


def test_ineligible_cells_have_no_share_and_slots_without_messages_are_finite() -> None:
    modules, heads, effects, truth = setup("tables", mixtures=16)
    mask = everything(modules)
    mask[0, modules.slices[1]] = [False, True, True]
    mask[1, modules.slices[3]] = False  # nothing can be sent
    mask[2, modules.slices[0]] = [True, False, True]
    found = vote(slots_of(modules, mask), heads, effects, [0.1] * 4)
    hour = found.shares[0].view(3, 3, N)
    assert not hour[:, 0, 0].any()
    torch.testing.assert_close(hour.sum(1)[:, [0, 2, 3, 4, 5]], torch.ones(3, 5, dtype=torch.float64))
    assert not found.shares[2][:, 1].any()
    for part in (found.channel, found.hazards, *found.shares, *found.later):
        assert part.isfinite().all()
    assert truth.values(PRICES).shape[1] == N
