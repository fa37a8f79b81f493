"""What holds of every agent: it runs on every kind of modules, twice to the same bits, with exact propensities."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from crosschannel.agents import AGENTS, Agent, make_agent
from crosschannel.agents.base import join
from crosschannel.core.action_space import ActionSpace
from crosschannel.core.arrays import BoolArray
from tests.agents.samples import NESTED, PLAIN, SETTINGS, TABLES, everything, observations_of, random_batch

KINDS = {"plain": PLAIN, "nested": NESTED, "tables": TABLES}
MATRIX = [(name, kind) for name in AGENTS for kind in KINDS]
every = pytest.mark.parametrize(("name", "kind"), MATRIX)


def trained(name: str, modules: ActionSpace, seed: int = 5, **settings: Any) -> Agent:
    """An agent that has seen two batches and learned a little."""
    agent = make_agent(name, modules, 4, SETTINGS.get(name, {}) | settings, seed=seed)
    for i in range(2):
        agent.observe(random_batch(300, modules, seed=i))
        agent.update(3)
    return agent


@pytest.fixture(scope="module")
def agents() -> dict[tuple[str, str], Agent]:
    return {(name, kind): trained(name, KINDS[kind]) for name, kind in MATRIX}


@every
def test_each_keeps_to_the_protocol(agents: dict[tuple[str, str], Agent], name: str, kind: str) -> None:
    agent, modules = agents[name, kind], KINDS[kind]
    assert isinstance(agent, Agent)
    assert all(isinstance(value, float) for value in agent.update(2).values())
    seen = observations_of(np.random.default_rng(0).random((64, modules.total)) < 0.5)
    for explore in (True, False):
        decisions = agent.act(seen, explore=explore)
        assert modules.valid(decisions.actions).all()
        assert decisions.probabilities.shape == (64, len(modules))
        np.testing.assert_allclose(decisions.joint, decisions.probabilities.prod(1))
        assert not explore or (decisions.joint > 0).all()


@every
def test_trained_twice_gives_the_same_bits(name: str, kind: str) -> None:
    first, second = trained(name, KINDS[kind]), trained(name, KINDS[kind])
    seen = observations_of(everything(50, KINDS[kind]), seed=9)
    for a, b in zip(first.action_probabilities(seen), second.action_probabilities(seen), strict=True):
        np.testing.assert_array_equal(a, b)
    np.testing.assert_array_equal(first.act(seen).actions, second.act(seen).actions)


def check_probabilities(modules: ActionSpace, shares: list[np.ndarray], mask: BoolArray) -> None:
    """Each competing set sums to 1 over what is eligible, and nothing else has any probability."""
    for m, (p, part) in enumerate(zip(shares, modules.split(modules.feasible_mask(mask)), strict=True)):
        assert p.shape == (len(mask), *modules.shape(m))
        c = modules.condition(m)
        rows = [p] if c is None else [p[:, code] for code in range(modules.sizes[c])]
        for row in rows:
            assert (row >= 0).all()
            assert (row[~part] == 0).all()
            for group in modules.groups(m):
                np.testing.assert_allclose(row[:, group].sum(1), part[:, group].any(1), atol=1e-12)


@pytest.mark.numerics
@every
@given(seed=st.integers(0, 10_000), density=st.floats(0.0, 1.0))
@settings(max_examples=5, deadline=None)
def test_probabilities_add_up_over_what_is_eligible(
    agents: dict[tuple[str, str], Agent], name: str, kind: str, seed: int, density: float
) -> None:
    agent, modules = agents[name, kind], KINDS[kind]
    mask = np.random.default_rng(seed).random((30, modules.total)) < density
    seen = observations_of(mask, seed=seed)
    if name != "no_send":  # which states a certainty, eligible or not: sending nothing always is
        check_probabilities(modules, agent.action_probabilities(seen), mask)
    closed = modules.split(modules.feasible_mask(mask))
    for explore in (True, False):
        actions = agent.act(seen, explore=explore).actions
        sent = modules.sends(actions)
        for m, part in enumerate(closed):
            assert part[np.arange(30), actions[:, m]][sent | (m == 0)].all()


@every
@given(seed=st.integers(0, 10_000), density=st.sampled_from([0.3, 0.7, 1.0]))
@settings(max_examples=3, deadline=None, derandomize=True)
def test_propensities_are_the_frequencies_of_what_it_does(
    agents: dict[tuple[str, str], Agent], name: str, kind: str, seed: int, density: float
) -> None:
    """4,000 decisions at each of 3 slots; within 4 standard errors, which chance alone exceeds once in 16,000 times.

    Draws start again for each example: otherwise what is drawn would depend on the tests before, and one of some
    2,000 comparisons would fail in every ninth run.
    """
    agent, modules = agents[name, kind], KINDS[kind]
    agent._draws = np.random.default_rng([seed, 1])  # type: ignore[attr-defined]
    slots = observations_of(np.random.default_rng(seed).random((3, modules.total)) < density, seed=seed)
    n = 4000
    decisions = agent.act(slots[np.repeat(np.arange(3), n)])
    drawn = modules.joint_index(decisions.actions).reshape(3, n)
    stated = modules.all_joint_probabilities(agent.action_probabilities(slots))
    np.testing.assert_allclose(decisions.joint.reshape(3, n), np.take_along_axis(stated, drawn, 1), rtol=1e-9)
    for row in range(3):
        frequency, p = np.bincount(drawn[row], minlength=stated.shape[1]) / n, stated[row]
        assert (frequency[p == 0] == 0).all()
        # Normal errors need counts that are not small: actions of fewer than 25 expected are taken together.
        rare = p < 25 / n
        f, q = np.append(frequency[~rare], frequency[rare].sum()), np.append(p[~rare], p[rare].sum())
        assert (np.abs(f - q) <= 4 * np.sqrt(q * (1 - q).clip(min=0) / n) + 4 / n * (q < 25 / n) + 1e-12).all()


@pytest.mark.numerics
@every
def test_the_future_of_a_row_does_not_matter_to_the_others(
    agents: dict[tuple[str, str], Agent], name: str, kind: str
) -> None:
    """One user is a batch of one: what is decided for a row depends on that row alone."""
    agent, modules = agents[name, kind], KINDS[kind]
    seen = observations_of(everything(8, modules), seed=3)
    together = agent.action_probabilities(seen)
    for i in (0, 7):
        for a, b in zip(agent.action_probabilities(seen[i : i + 1]), together, strict=True):
            np.testing.assert_allclose(a[0], b[i], atol=1e-6)


LEARNING = [name for name in AGENTS if name not in ("uniform", "no_send")]


@pytest.mark.parametrize("name", [n for n in LEARNING if n != "logging"])
def test_floors_are_kept_module_by_module(name: str) -> None:
    agent = trained(name, NESTED, floor={"channel": 0.3, "hour": 0.6})
    shares = agent.action_probabilities(observations_of(everything(40, NESTED)))
    assert shares[0].min() >= 0.1 - 1e-12
    assert shares[3][:, :2].min() >= 0.3 - 1e-12


@pytest.mark.parametrize("name", LEARNING)
def test_what_cannot_be_learned_from_is_refused_whole(name: str) -> None:
    agent = trained(name, PLAIN)
    seen = observations_of(everything(20, PLAIN), seed=4)
    before = agent.action_probabilities(seen)
    batch = random_batch(20)
    rewards = batch.rewards.copy()
    rewards[3] = np.nan
    with pytest.raises(ValueError, match="row 4, value nan: is not a finite number"):
        agent.observe(replace(batch, rewards=rewards))
    agent.update(1)
    agent.update(1)
    if name not in ("ensemble_thompson", "neural_linear"):  # which learn on from the rows they have
        for a, b in zip(agent.action_probabilities(seen), before, strict=True):
            np.testing.assert_array_equal(a, b)


@pytest.mark.numerics
@pytest.mark.parametrize("name", LEARNING)
def test_errors_of_0_count_as_any_that_are_all_the_same(name: str) -> None:
    """Where every reward is stated without an error, what is learned is finite: what equal errors teach."""
    certain, equal = (make_agent(name, PLAIN, 4, SETTINGS.get(name), seed=5) for _ in range(2))
    batch = random_batch(300)
    for agent, se in ((certain, 0.0), (equal, 1.0)):
        agent.observe(replace(batch, se=np.full(300, se)))
        agent.update(3)
        assert all(np.isfinite(value) for value in agent.update(3).values())
    seen = observations_of(everything(50, PLAIN), seed=4)
    for a, b in zip(certain.action_probabilities(seen), equal.action_probabilities(seen), strict=True):
        np.testing.assert_allclose(a, b, atol=1e-6)


@pytest.mark.parametrize("name", [n for n in LEARNING if n not in ("logging", "beta_thompson")])
def test_contexts_of_another_width_are_refused(name: str) -> None:
    with pytest.raises(ValueError, match="contexts have 3 features; the agent was made for 4"):
        make_agent(name, PLAIN, 4, SETTINGS.get(name)).observe(random_batch(10, width=3))


@pytest.mark.parametrize("name", list(AGENTS))
def test_an_empty_batch_changes_nothing(name: str) -> None:
    agent = make_agent(name, PLAIN, 4, SETTINGS.get(name))
    agent.observe(random_batch(10)[:0])
    assert agent.update(1) == {}
    assert len(agent.act(observations_of(everything(0, PLAIN)))) == 0


def test_batches_are_joined_with_all_their_parts() -> None:
    batch = random_batch(10)
    again = join([batch[:4], batch[4:]])
    np.testing.assert_array_equal(again.steps_to_next, batch.steps_to_next)
    np.testing.assert_array_equal(again.terminal, batch.terminal)
    np.testing.assert_array_equal(again.observations.users, batch.observations.users)
    assert again.next_observations is not None
    assert batch.next_observations is not None
    np.testing.assert_array_equal(again.next_observations.context, batch.next_observations.context)
