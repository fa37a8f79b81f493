"""Probabilities sum to 1 over what is eligible, are what is drawn, and never leave the mask."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from crosschannel.agents.sampling import floor_by_module, greedy_shares, sample_actions, uniform_shares, vote_shares
from crosschannel.agents.settings import DEFAULT_FLOOR
from crosschannel.core.action_space import ActionSpace
from crosschannel.core.arrays import BoolArray, FloatArray
from crosschannel.core.errors import ConfigError
from tests.agents.samples import NESTED, PLAIN, TABLES

MODULES = pytest.mark.parametrize("modules", [PLAIN, NESTED, TABLES], ids=["plain", "nested", "tables"])


def random_shares(modules: ActionSpace, mask: BoolArray, rng: np.random.Generator, floor: float) -> list[FloatArray]:
    parts = modules.split(modules.feasible_mask(mask))
    votes = [rng.standard_normal((5, len(mask), *modules.shape(m))) for m in range(len(modules))]
    return [vote_shares(modules, m, votes[m], parts[m], floor) for m in range(len(modules))]


@MODULES
@given(seed=st.integers(0, 10_000), density=st.floats(0.0, 1.0), floor=st.sampled_from([0.0, 0.1, 1.0]))
@settings(max_examples=60, deadline=None)
def test_each_group_sums_to_one_over_its_eligible_actions(
    modules: ActionSpace, seed: int, density: float, floor: float
) -> None:
    rng = np.random.default_rng(seed)
    mask = rng.random((20, modules.total)) < density
    parts = modules.split(modules.feasible_mask(mask))
    for m, table in enumerate(random_shares(modules, mask, rng, floor)):
        for p in [table] if modules.condition(m) is None else table.swapaxes(0, 1):
            assert (p[~parts[m]] == 0).all()
            for group in modules.groups(m):
                eligible = parts[m][:, group]
                np.testing.assert_allclose(p[:, group].sum(1), eligible.any(1), atol=1e-12)
                least = floor / np.maximum(eligible.sum(1, keepdims=True), 1)
                assert (p[:, group] >= np.where(eligible, least, 0) - 1e-12).all()


@MODULES
@given(seed=st.integers(0, 10_000), density=st.floats(0.0, 1.0))
@settings(max_examples=60, deadline=None)
def test_drawn_actions_are_eligible_and_carry_their_probability(
    modules: ActionSpace, seed: int, density: float
) -> None:
    rng = np.random.default_rng(seed)
    mask = rng.random((20, modules.total)) < density
    shares = random_shares(modules, mask, rng, 0.1)
    for decisions in (
        sample_actions(modules, shares, rng),
        sample_actions(modules, greedy_shares(modules, shares, mask), rng),
    ):
        assert modules.valid(decisions.actions).all()
        np.testing.assert_array_equal(decisions.actions, modules.canonical(decisions.actions))
        sent = modules.sends(decisions.actions)
        closed = modules.split(modules.feasible_mask(mask))
        for m, part in enumerate(closed):
            chosen = part[np.arange(len(mask)), decisions.actions[:, m]]
            assert chosen[sent | (m == 0)].all()
        assert (decisions.probabilities > 0).all()
        np.testing.assert_allclose(decisions.joint, decisions.probabilities.prod(1))
        assert (decisions.probabilities[~sent, 1:] == 1).all()


@MODULES
def test_joint_probabilities_of_all_actions_sum_to_one(modules: ActionSpace) -> None:
    rng = np.random.default_rng(3)
    mask = rng.random((50, modules.total)) < 0.6
    joint = modules.all_joint_probabilities(random_shares(modules, mask, rng, 0.1))
    np.testing.assert_allclose(joint.sum(1), 1.0)


@MODULES
@pytest.mark.parametrize("density", [0.4, 1.0])
def test_probabilities_are_the_frequencies_of_draws(modules: ActionSpace, density: float) -> None:
    rng = np.random.default_rng(5)
    mask = rng.random((6, modules.total)) < density
    shares = random_shares(modules, mask, rng, 0.2)
    n = 20_000
    joint = modules.all_joint_probabilities(shares)
    rows = np.repeat(np.arange(len(mask)), n)
    drawn = modules.joint_index(sample_actions(modules, [p[rows] for p in shares], rng).actions)
    frequency = np.zeros_like(joint)
    np.add.at(frequency, (rows, drawn), 1 / n)
    error = np.sqrt(joint * (1 - joint) / n)
    assert (np.abs(frequency - joint) <= 4 * error + 1e-12).all()


def test_ties_go_to_the_lowest_eligible_code() -> None:
    mask = np.array([[1, 1, 1, 1, 1], [1, 0, 1, 0, 1]], dtype=bool)
    values = [np.array([[0.0, 1.0, 1.0]] * 2), np.zeros((2, 2))]
    best = greedy_shares(PLAIN, values, mask)
    np.testing.assert_array_equal(best[0], [[0, 1, 0], [0, 0, 1]])
    np.testing.assert_array_equal(best[1], [[1, 0], [0, 1]])


def test_uniform_shares_count_within_the_group() -> None:
    shares = uniform_shares(NESTED, np.ones((1, NESTED.total), dtype=bool))
    np.testing.assert_allclose(shares[2][0], [1 / 2, 1 / 2, 1 / 3, 1 / 3, 1 / 3, 1])
    np.testing.assert_allclose(shares[3][0], [1 / 2, 1 / 2, 1])


def test_votes_are_counted_by_member() -> None:
    votes = np.array([[[0.0, 1.0, 2.0]], [[0.0, 3.0, 2.0]], [[0.0, -1.0, -2.0]], [[0.0, 1.0, 2.0]]])
    share = vote_shares(PLAIN, 0, votes, np.ones((1, 3), dtype=bool), 0.3)
    np.testing.assert_allclose(share, [[0.7 * 0.25 + 0.1, 0.7 * 0.25 + 0.1, 0.7 * 0.5 + 0.1]])


def test_floors_are_one_number_or_one_a_module() -> None:
    assert floor_by_module(PLAIN, 0.1) == (0.1, 0.1)
    assert floor_by_module(PLAIN, {"offer": 0.3}) == (DEFAULT_FLOOR, 0.3)
    with pytest.raises(ConfigError, match=r"floor names the module 'ofer'. Did you mean 'offer'\?"):
        floor_by_module(PLAIN, {"ofer": 0.3})
    with pytest.raises(ConfigError, match=r"floor is 1\.2: it must be between 0 and 1"):
        floor_by_module(PLAIN, {"offer": 1.2})
