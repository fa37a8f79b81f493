"""Mixtures of members: their mean and covariance are those of the members, whatever is mixed."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from crosschannel.agents import EnsembleThompson, agent_settings, make_agent
from crosschannel.agents.ensemble.mixtures import competing_cells, mix, mixing_matrix, vote_shares_on_device
from crosschannel.agents.sampling import vote_shares
from crosschannel.core.action_space import ActionSpace
from crosschannel.core.errors import ConfigError
from tests.agents.samples import NESTED, PLAIN, SETTINGS, SMALL, TABLES, everything, observations_of, random_batch

pytestmark = pytest.mark.numerics

SIZES = [(1, 2), (1, 64), (2, 2), (2, 4), (40, 64), (3, 6), (5, 10), (10, 20), (10, 64), (10, 256), (31, 64), (64, 128)]


@given(
    size=st.sampled_from(SIZES),
    seed=st.integers(0, 2**32),
    level=st.sampled_from([0.0, 1.0, 1e3]),
    data=st.integers(0, 10_000),
)
@settings(max_examples=60, deadline=None)
def test_mean_and_covariance_are_the_members(size: tuple[int, int], seed: int, level: float, data: int) -> None:
    """For any heads, far from 0 and of unequal scales too, to rounding in double precision."""
    members, mixtures = size[0], max(size[1], 2 * size[0])
    rng = np.random.default_rng(data)
    heads = level * rng.standard_normal(7) + rng.standard_normal((members, 7)) * np.geomspace(1e-3, 1e3, 7)
    mean = heads.mean(0)
    both = torch.from_numpy(np.vstack([mean, heads]))
    mixed = mix(both, torch.from_numpy(mixing_matrix(*size, seed))).numpy()
    assert mixed.shape == (mixtures, 7)
    size_of = np.abs(heads).max(0) + np.abs(mixed).max(0)
    assert (np.abs(mixed.mean(0) - mean) <= 1e-13 * size_of).all()
    found, expected = ((each - mean).T @ (each - mean) / len(each) for each in (mixed, heads))
    scale = np.sqrt(np.outer(expected.diagonal(), expected.diagonal()))
    assert (np.abs(found - expected) <= 1e-11 * scale + 1e-13 * np.outer(size_of, size_of)).all()


def test_mixtures_come_in_pairs_of_opposite_sign_in_many_directions() -> None:
    matrix = mixing_matrix(10, 64, 3)
    np.testing.assert_array_equal(matrix[:32], -matrix[32:])
    np.testing.assert_allclose(matrix.sum(1), 0.0, atol=1e-13)
    length = np.linalg.norm(matrix, axis=1)
    cosine = matrix @ matrix.T / np.outer(length, length)
    assert np.abs(cosine[:32, :32] - np.eye(32)).max() < 0.95
    assert length.min() > 0.2 * length.max()


def test_the_directions_depend_on_the_seed_alone() -> None:
    np.testing.assert_array_equal(mixing_matrix(10, 64, 1), mixing_matrix(10, 64, 1))
    assert not np.allclose(mixing_matrix(10, 64, 1), mixing_matrix(10, 64, 2))


def test_mixing_commutes_with_what_is_linear() -> None:
    """Mixing coefficients and mixing the estimates from them is the same, so that components share one mixture."""
    rng = np.random.default_rng(0)
    heads = torch.from_numpy(rng.standard_normal((4, 6, 5)))
    heads[:, 0] = heads[:, 1:].mean(1)
    features, matrix = torch.from_numpy(rng.standard_normal((5, 9))), torch.from_numpy(mixing_matrix(5, 12, 0))
    torch.testing.assert_close(mix(heads, matrix) @ features, mix(heads @ features, matrix))


def test_without_mixtures_the_members_are_left_as_they_are() -> None:
    heads = torch.from_numpy(np.random.default_rng(0).standard_normal((6, 3)))
    heads[0] = heads[1:].mean(0)
    torch.testing.assert_close(mix(heads, torch.from_numpy(mixing_matrix(5, 0, 0))), heads[1:])


@pytest.mark.parametrize("modules", [PLAIN, NESTED, TABLES], ids=["plain", "nested", "tables"])
@pytest.mark.parametrize("scale", [0.0, 0.3, 1.0])
def test_probabilities_are_the_mixtures_votes(modules: ActionSpace, scale: float) -> None:
    """Compared with the plain formula on mixed estimates; a vote may go over where two estimates are nearly equal."""
    settings = {**SMALL, "mixtures": 12, "exploration_scale": scale, "floor": 0.1}
    agent = make_agent("ensemble_thompson", modules, 4, settings, 7)
    assert isinstance(agent, EnsembleThompson)
    agent.observe(random_batch(800, modules))
    agent.update(2)
    mask = np.random.default_rng(3).random((400, modules.total)) < 0.7
    seen = observations_of(mask)
    matrix = scale * mixing_matrix(5, 12, 7)
    parts = modules.split(modules.feasible_mask(mask))
    for m, (found, members) in enumerate(
        zip(agent.action_probabilities(seen), agent.expected_rewards(seen), strict=True)
    ):
        mean = members.mean(0)
        values = mean + np.tensordot(matrix, members - mean, 1)
        expected = vote_shares(modules, m, values, parts[m], 0.1)
        assert (np.abs(found - expected).reshape(400, -1).max(1) > 1e-9).mean() <= 0.01
        assert np.abs(found - expected).max() <= 0.9 / 12 + 1e-9


def test_components_of_a_value_vote_with_the_same_mixture() -> None:
    """Values that are products of mixed components, as in a funnel, are counted like any others."""
    rng = np.random.default_rng(5)
    matrix = torch.from_numpy(mixing_matrix(6, 20, 1)).float()
    engage, gain = (torch.from_numpy(rng.standard_normal((3, 7, 200))).float() for _ in range(2))
    for each in (engage, gain):
        each[:, 0] = each[:, 1:].mean(1)
    values = mix(engage, matrix).clamp(0, 1) * mix(gain, matrix)
    offer = ActionSpace([PLAIN[0]])
    mask = rng.random((200, 3)) < 0.7
    found = vote_shares_on_device(values, torch.from_numpy(mask), competing_cells(offer, 0), 0.05)
    expected = vote_shares(offer, 0, values.permute(1, 2, 0).numpy(), mask, 0.05)
    np.testing.assert_allclose(found.numpy(), expected, atol=1e-12)


def test_more_mixtures_make_finer_probabilities() -> None:
    """With K = 5 votes there are six shares; with 64 mixtures many more, around the same mean."""
    shares = {}
    for mixtures in (0, 64):
        agent = make_agent("ensemble_thompson", PLAIN, 4, {**SMALL, "mixtures": mixtures, "floor": 0.0}, 2)
        agent.observe(random_batch(800))
        agent.update(2)
        shares[mixtures] = agent.action_probabilities(observations_of(everything(500, PLAIN)))[0]
    assert len(np.unique(np.round(shares[0], 9))) <= 6
    assert len(np.unique(np.round(shares[64], 9))) > 12
    np.testing.assert_allclose(shares[0].mean(0), shares[64].mean(0), atol=0.1)


@pytest.mark.parametrize("name", ["ensemble_thompson", "linear_thompson", "neural_linear", "bootstrapped_q"])
def test_mixtures_are_checked(name: str) -> None:
    for mixtures in (7, -2, 2**41):
        with pytest.raises(ConfigError, match=f"mixtures is {mixtures}: it must be even"):
            make_agent(name, PLAIN, 4, {"mixtures": mixtures})
    settings = agent_settings(name)
    assert settings is not None
    assert settings().mixtures == 64


def test_there_are_at_least_twice_as_many_mixtures_as_members() -> None:
    """Fewer than 2 (K - 1) in pairs cannot have the covariance of K members."""
    assert [len(mixing_matrix(k, 64, 0)) for k in (1, 32, 33, 64)] == [64, 64, 66, 128]
    np.testing.assert_array_equal(mixing_matrix(40, 64, 0), mixing_matrix(40, 80, 0))


@pytest.mark.parametrize("name", ["ensemble_thompson", "linear_thompson", "bootstrapped_q"])
def test_one_member_is_certain(name: str) -> None:
    what = "draws" if name == "linear_thompson" else "members"
    agent = make_agent(name, PLAIN, 4, SETTINGS.get(name, {}) | {what: 1, "floor": 0.0}, 2)
    agent.observe(random_batch(300))
    agent.update(3)
    for shares in agent.action_probabilities(observations_of(everything(50, PLAIN))):
        assert set(np.unique(shares)) <= {0.0, 1.0}
