"""Effects differ by the module that an action is conditioned on, and are shared where there would be too many."""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np
import pytest
import torch

from crosschannel.agents import Observations, make_agent
from crosschannel.agents.funnel import design as module
from crosschannel.agents.funnel.design import Design
from crosschannel.agents.funnel.hazards import predict
from crosschannel.agents.funnel.model import fit_heads
from crosschannel.agents.funnel.values import Effects
from crosschannel.core.action_space import ActionSpace
from crosschannel.core.arrays import FloatArray, IntArray
from tests.agents.funnel.samples import PLAIN, TABLES, Floats, World, contexts, messages, random_heads, rows_of

GIVEN_CHANNEL = ActionSpace([PLAIN[0], *(replace(one, condition_on="channel") for one in PLAIN[1:])])


@dataclass(frozen=True)
class ByChannel(World):
    """Which offer earns most depends on one feature by email and on another by push, where it earns twice as much."""

    def gain(self, x: Floats, actions: IntArray) -> FloatArray:
        offer, push = np.array([1.0, 0.0, -1.0])[actions[:, 2]], actions[:, 0] == 2
        return np.asarray(np.where(push, 2.0, 1.0) * (1.0 + offer * np.where(push, -x[:, 2], x[:, 1])))


def earned(world: World, modules: ActionSpace, rows: int = 12_000) -> float:
    """Mean true value of the greedy choices that an agent learns from a log."""
    agent = make_agent("ensemble_thompson", modules, context_dim=3, seed=0)
    agent.observe(replace(world, modules=modules).log(rows, seed=100))
    agent.update(1)
    x = contexts(2_000, 3, seed=7).numpy()
    everything = np.ones((len(x), modules.total), dtype=bool)
    chosen = agent.act(Observations(x, everything), explore=False).actions
    return float(np.where(modules.sends(chosen), world.value(x, chosen), 0.0).mean())


def best(world: World) -> float:
    """Mean true value of the best action in each context."""
    x = contexts(2_000, 3, seed=7).numpy()
    every = [world.value(x, np.tile(action, (len(x), 1))) for action in PLAIN.joint_actions[1:]]
    return float(np.maximum(np.max(every, axis=0), 0.0).mean())


def test_an_offer_may_earn_by_one_channel_what_it_loses_by_another() -> None:
    """Effects that add up mix the two features."""
    world = ByChannel(price=0.1)
    assert earned(world, GIVEN_CHANNEL) > 0.9 * best(world)
    assert earned(world, PLAIN) < 0.8 * best(world)


def test_effects_that_are_alike_are_learned_as_well_given_the_channel() -> None:
    world = World()
    assert earned(world, GIVEN_CHANNEL) > 0.97 * earned(world, PLAIN)


def test_tables_that_take_too_many_columns_share_effects(monkeypatch: pytest.MonkeyPatch) -> None:
    whole = Design.build(TABLES, 3)
    assert not whole.shared
    alike = whole.without_conditions()
    monkeypatch.setattr(module, "MAX_COLUMNS", 2 * whole.columns - 1)
    found = Design.build(TABLES, 3)
    assert found.shared
    assert found.each == 4
    assert found.columns == alike.columns == 7 + 4 * TABLES.total
    actions = messages(30, TABLES)
    np.testing.assert_array_equal(found.cells_of(actions).numpy(), actions)


def test_shared_effects_are_those_of_the_action_in_every_row_of_the_table() -> None:
    design = Design.build(TABLES, 3).without_conditions()
    effects = Effects.build(design, random_heads(design), contexts(20, 3), None)
    for m in range(len(TABLES)):
        table = effects.linear_cells[m]
        assert table.shape[2] == TABLES.n_table_cells(m)
        by_row = table.unflatten(2, (-1, TABLES.sizes[m]))  # type: ignore[no-untyped-call]
        torch.testing.assert_close(by_row, by_row[:, :, :1].expand_as(by_row), rtol=0, atol=0)


def test_few_messages_teach_effects_that_are_shared() -> None:
    """Then the model is that of a design without conditions, told in the columns of the whole design."""
    whole, world = Design.build(GIVEN_CHANNEL, 3), World(modules=GIVEN_CHANNEL)
    alike = whole.without_conditions()
    rows = rows_of(world.log(110))
    sent = len(rows.messages(GIVEN_CHANNEL))
    assert alike.columns <= sent < whole.columns
    found, expected = (
        fit_heads(each, rows, torch.tensor([2.0]), 4, torch.Generator().manual_seed(0)) for each in (whole, alike)
    )
    assert found is not None
    assert expected is not None
    x, actions = contexts(40, 3, seed=5), messages(40, GIVEN_CHANNEL, seed=5)
    for wide, narrow in zip(found.value.flatten(0, 1), expected.value.flatten(0, 1), strict=True):
        torch.testing.assert_close(
            predict(whole, wide.double(), x, whole.cells_of(actions)),
            predict(alike, narrow.double(), x, alike.cells_of(actions)),
        )
    torch.testing.assert_close(found.sd, expected.sd)
