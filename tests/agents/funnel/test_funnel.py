"""The agent with a funnel: exact probabilities, resume to the bit, policy files, wrong rows, changes of the actions."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from crosschannel.agents import Batch, EnsembleThompson, Observations, load_policy, make_agent, save_policy
from crosschannel.agents.funnel.model import MIN_MESSAGES
from crosschannel.agents.sampling import check_decisions, check_probabilities
from crosschannel.agents.settings import EnsembleThompsonSettings
from crosschannel.core.action_space import ActionSpace, Module
from crosschannel.core.errors import ConfigError, InputError
from tests.agents.funnel.samples import PLAIN, SPACES, World, with_components
from tests.agents.samples import everything, observations_of, random_batch

SETTINGS = {"members": 5, "hidden": [8], "mixtures": 16, "floor": 0.1}
N = 1500


def batch_of(modules: ActionSpace, n: int = N, seed: int = 0) -> Batch:
    """Random actions of any action space, with the components of rows that `World` made."""
    plain, other = World().log(n, seed), random_batch(n, modules, seed, width=3)
    assert plain.components is not None
    sends = modules.sends(other.actions)
    parts = replace(plain.components, engaged=np.where(sends, np.nan_to_num(plain.components.engaged), np.nan))
    return replace(plain, actions=other.actions, observations=other.observations, components=parts)


def agent_of(modules: ActionSpace = PLAIN, seed: int = 3, **settings: Any) -> EnsembleThompson:
    agent = make_agent("ensemble_thompson", modules, 3, SETTINGS | settings, seed=seed)
    assert isinstance(agent, EnsembleThompson)
    return agent


def trained(modules: ActionSpace = PLAIN, **settings: Any) -> EnsembleThompson:
    agent = agent_of(modules, **settings)
    agent.observe(batch_of(modules))
    agent.update()
    assert agent.funnel.heads is not None
    return agent


def assert_same_decisions(first: EnsembleThompson, second: EnsembleThompson, modules: ActionSpace = PLAIN) -> None:
    seen = observations_of(everything(60, modules), 3, seed=9)
    for a, b in zip(first.action_probabilities(seen), second.action_probabilities(seen), strict=True):
        np.testing.assert_array_equal(a, b)
    for one, other in zip(first.expected_rewards(seen), second.expected_rewards(seen), strict=True):
        np.testing.assert_array_equal(one, other)
    np.testing.assert_array_equal(first.act(seen, explore=False).actions, second.act(seen, explore=False).actions)


@pytest.mark.parametrize("name", SPACES)
def test_probabilities_are_those_of_what_is_drawn(name: str) -> None:
    modules = SPACES[name]
    agent = trained(modules)
    mask = np.random.default_rng(0).random((5, modules.total)) < 0.8
    mask[:, 0] = True
    slots, draws = observations_of(mask, 3, seed=4), 4000
    probabilities = agent.action_probabilities(slots)
    check_probabilities(modules, probabilities, mask)
    joint = modules.all_joint_probabilities(probabilities)
    np.testing.assert_allclose(joint.sum(1), 1.0, atol=1e-9)
    assert not joint[~modules.joint_mask(modules.feasible_mask(mask))].any()
    many = np.repeat(np.arange(5), draws)
    decisions = agent.act(slots[many])
    check_decisions(modules, decisions, mask[many])
    index = modules.joint_index(decisions.actions)
    np.testing.assert_allclose(decisions.joint, joint[many, index], rtol=1e-9)
    counts = np.zeros_like(joint)
    np.add.at(counts, (many, index), 1.0)
    error = np.sqrt(np.maximum(joint * (1.0 - joint), 1.0 / draws) / draws)
    assert (np.abs(counts / draws - joint) <= 4.5 * error).all()  # of some 100 frequencies
    np.testing.assert_array_equal(agent.sample(slots[:0]).shape, (0, len(modules)))


@pytest.mark.parametrize("name", SPACES)
def test_without_exploration_the_best_estimate_chooses(name: str) -> None:
    modules = SPACES[name]
    agent = trained(modules)
    slots = observations_of(everything(40, modules), 3, seed=4)
    greedy = agent.act(slots, explore=False)
    np.testing.assert_array_equal(greedy.joint, 1.0)
    found = agent.funnel.votes(modules, slots, None, [0.0] * len(modules))
    assert found.values.shape[0] == 1
    best = np.where(found.mask, found.values[0], -np.inf).argmax(1)
    np.testing.assert_array_equal(greedy.actions[:, 0], best)
    assert (agent.votes(slots).values.shape) == (16, 40, modules.sizes[0])


def test_slots_without_an_eligible_message() -> None:
    agent = trained()
    mask = everything(4, PLAIN)
    mask[1, 1:3] = False  # no channel
    mask[2, PLAIN.slices[2]] = False  # no offer
    slots = observations_of(mask, 3)
    found = agent.votes(slots)
    assert not found.values[:, 1:3].any()
    assert not found.hazards[:, 1:3].any()
    probabilities = agent.action_probabilities(slots)
    np.testing.assert_array_equal(probabilities[0][1:3, 0], 1.0)
    check_probabilities(PLAIN, probabilities, mask)
    for explore in (True, False):
        assert not agent.act(slots, explore=explore).actions[1:3].any()
    assert all(np.isfinite(part).all() for part in agent.expected_rewards(slots))
    nobody = agent.action_probabilities(slots[:0])
    assert [part.shape for part in nobody] == [(0, 3)] * 3
    assert [part.shape for part in agent.expected_rewards(slots[:0])] == [(5, 0, 3)] * 3


def test_expected_rewards_are_in_the_chunks_that_they_are_computed_in() -> None:
    agent = trained()
    slots = observations_of(everything(1100, PLAIN), 3)
    for whole, part in zip(agent.expected_rewards(slots), agent.expected_rewards(slots[1030:]), strict=True):
        np.testing.assert_allclose(whole[:, 1030:], part, rtol=1e-4, atol=1e-5)
    for p, few in zip(agent.action_probabilities(slots), agent.action_probabilities(slots[1030:]), strict=True):
        np.testing.assert_allclose(p[1030:], few, atol=1.0 / 16)  # rounding may decide a vote


@pytest.mark.parametrize("name", ["plain", "tables"])
def test_a_checkpoint_in_the_middle_resumes_to_the_bit(name: str) -> None:
    modules = SPACES[name]

    def step(agent: EnsembleThompson, i: int) -> None:
        agent.observe(batch_of(modules, 300 * 4**i, seed=i))
        agent.update()

    straight, first = agent_of(modules), agent_of(modules)
    for i in range(3):
        step(straight, i)
    step(first, 0)
    second = agent_of(modules, seed=99)
    second.load_state_dict(first.state_dict())
    second = agent_of(modules)
    second.load_state_dict(first.state_dict())
    for i in (1, 2):
        step(second, i)
    assert_same_decisions(straight, second, modules)
    seen = observations_of(everything(60, modules), 3, seed=9)
    np.testing.assert_array_equal(straight.act(seen).actions, second.act(seen).actions)
    assert straight.update() == second.update()


def test_policy_files_decide_equally_and_do_not_learn(tmp_path: Path) -> None:
    agent = trained()
    spec = {"name": "ensemble_thompson", "context_dim": 3, "settings": SETTINGS, "seed": 3}
    save_policy(agent, tmp_path / "policy.pt", spec)
    other = load_policy(tmp_path / "policy.pt")
    loaded = other[0] if isinstance(other, tuple) else other
    assert isinstance(loaded, EnsembleThompson)
    assert_same_decisions(agent, loaded)
    with pytest.raises(ConfigError, match="cannot learn"):
        loaded.observe(World().log(10))


def test_capacity_keeps_the_newest_components() -> None:
    small, large = agent_of(capacity=700), agent_of()
    old, new = World().log(500, 1), World().log(700, 2)
    for agent in (small, large):
        if agent is small:
            agent.observe(old)
            agent.observe(new[:300])
            agent.observe(new[300:])
        else:
            agent.observe(new)
        agent.update()
    seen = observations_of(everything(60, PLAIN), 3, seed=9)
    for a, b in zip(small.expected_rewards(seen), large.expected_rewards(seen), strict=True):
        np.testing.assert_allclose(a, b, rtol=1e-2, atol=1e-3)


def test_all_values_unknown_or_too_few_messages_leave_the_agent_without_a_funnel() -> None:
    seen = observations_of(everything(20, PLAIN), 3)
    few = agent_of()
    few.observe(World().log(MIN_MESSAGES, 0))
    assert "calibration_slope" not in few.update()
    unknown, log = agent_of(), World().log(400, 0)
    unknown.observe(with_components(log, value=np.full(400, np.nan)))
    unknown.update()
    one_user = agent_of()
    one_user.observe(World().log(400, 0, users=1))
    one_user.update()
    for agent in (few, unknown, one_user):
        assert agent.funnel.heads is None
        check_probabilities(PLAIN, agent.action_probabilities(seen), everything(20, PLAIN))
        assert agent.votes(seen).cost_names == ()


def test_rows_without_users_count_as_users_of_their_own() -> None:
    agent, log = agent_of(), World().log(N)
    agent.observe(replace(log, observations=replace(log.observations, users=None)))
    assert "calibration_slope" in agent.update()


def test_rows_with_and_without_components_do_not_mix() -> None:
    log = World().log(300)
    assert log.components is not None
    other = replace(log.components, cost_names=("unsubscribe",))
    dearer = replace(log.components, cost_weights=np.array([3.0]))
    agent = agent_of()
    agent.observe(log)
    for parts in (None, other, dearer):
        with pytest.raises(ConfigError, match="same components"):
            agent.observe(replace(log, components=parts))
    agent = agent_of()
    agent.observe(replace(log, components=None))
    with pytest.raises(ConfigError, match="same components"):
        agent.observe(log)


@pytest.mark.parametrize(
    ("changes", "place"),
    [
        ({"engaged": 0.5}, "components.engaged"),
        ({"engaged": np.inf}, "components.engaged"),
        ({"value": -np.inf}, "components.value"),
        ({"cost": 2.0}, "components.cost"),
    ],
)
def test_wrong_components_are_refused(changes: dict[str, float], place: str) -> None:
    log = World().log(20)
    assert log.components is not None
    name, value = next(iter(changes.items()))
    column = getattr(log.components, name).copy()
    column[7] = value
    with pytest.raises(InputError) as error:
        agent_of().observe(with_components(log, **{name: column}))
    assert error.value.faults[0].column == place
    assert error.value.faults[0].row == 8


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"engaged": np.zeros(19)}, "components.engaged has the shape"),
        ({"cost": np.zeros(20)}, "components.cost has the shape"),
        ({"cost": np.zeros((20, 2))}, "components.cost has the shape"),
        ({"cost_weights": np.array([0.0])}, "prices are finite and above 0"),
        ({"cost_weights": np.array([np.nan])}, "prices are finite and above 0"),
        ({"cost_weights": np.ones(2)}, "components.cost_weights has the shape"),
    ],
)
def test_components_of_another_shape_are_refused(changes: dict[str, Any], words: str) -> None:
    with pytest.raises(ConfigError, match=words):
        agent_of().observe(with_components(World().log(20), **changes))


@pytest.mark.parametrize("costs", [0, 2])
def test_agents_with_no_cost_and_with_several(costs: int) -> None:
    log, agent = World().log(N), agent_of()
    assert log.components is not None
    names = tuple(f"cost {c}" for c in range(costs))
    cost = np.repeat(log.components.cost, costs, axis=1)
    agent.observe(with_components(log, cost=cost, cost_names=names, cost_weights=np.full(costs, 2.0)))
    agent.update()
    seen = observations_of(everything(20, PLAIN), 3)
    found = agent.votes(seen)
    assert found.hazards.shape == (costs, 20, 3)
    assert found.cost_names == names
    check_probabilities(PLAIN, agent.action_probabilities(seen), everything(20, PLAIN))
    again = agent_of()
    again.load_state_dict(agent.state_dict())
    assert_same_decisions(agent, again)


def test_actions_may_change_between_runs() -> None:
    agent = trained()
    present = ActionSpace([PLAIN[0], PLAIN[1], Module("offer", ("huge", "new", "small"))])
    after = agent_of(present)
    after.load_state_dict(agent.state_dict())
    slots = observations_of(everything(30, present), 3, seed=9)
    check_probabilities(present, after.action_probabilities(slots), everything(30, present))
    before = agent.expected_rewards(observations_of(everything(30, PLAIN), 3, seed=9))[2]
    assert before.shape == after.expected_rewards(slots)[2].shape
    log = batch_of(present, 6 * N, seed=5)
    after.observe(log)
    assert "calibration_slope" in after.update()


def test_states_of_another_shape_are_refused() -> None:
    agent = trained()
    with pytest.raises(ConfigError, match="another shape"):
        agent_of(members=6).load_state_dict(agent.state_dict())


def test_the_device_is_where_networks_compute() -> None:
    log = World().log(N)
    agents = []
    for device in ("cpu", "cpu:0"):
        agent = EnsembleThompson(PLAIN, 3, EnsembleThompsonSettings(members=5, hidden=(8,)), seed=3, device=device)
        agent.observe(log)
        agent.update()
        agents.append(agent)
    assert_same_decisions(agents[0], agents[1])


def test_prices_of_actions_move_the_later_modules_only_where_they_are() -> None:
    agent = agent_of()
    agent.observe(World().log(6000))
    agent.update()
    slots = observations_of(everything(30, PLAIN), 3, seed=9)
    prices = np.zeros((30, PLAIN.total))
    prices[:15, PLAIN.slices[2].start + 2] = 100.0
    priced = agent.votes(Observations(slots.context, slots.action_mask, slots.users, prices))
    free = agent.votes(slots)
    np.testing.assert_allclose(priced.later[1][:15, 2], 0.1 / 3)  # the floor alone
    np.testing.assert_allclose(priced.later[1][15:], free.later[1][15:], atol=1.0 / 16)
    assert free.later[1][:15, 2].mean() > 0.5  # the offer that gains most
