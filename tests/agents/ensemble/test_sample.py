"""Actions drawn without propensities: distributed as those that are drawn with them, and never outside the mask."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from crosschannel.agents import EnsembleThompson, make_agent
from crosschannel.agents.sampling import best_codes, sample_voter, uniform_codes
from crosschannel.core.action_space import ActionSpace
from tests.agents.samples import NESTED, PLAIN, SMALL, TABLES, everything, observations_of, random_batch

KINDS = pytest.mark.parametrize("modules", [PLAIN, NESTED, TABLES], ids=["plain", "nested", "tables"])


def trained(modules: ActionSpace, **settings: object) -> EnsembleThompson:
    agent = make_agent("ensemble_thompson", modules, 4, {**SMALL, "exploration_scale": 1.0, **settings}, 0)
    assert isinstance(agent, EnsembleThompson)
    agent.observe(random_batch(800, modules, seed=0))
    agent.update(1)
    return agent


@KINDS
@pytest.mark.parametrize("floor", [0.0, 0.3, 1.0])
def test_frequencies_are_the_probabilities(modules: ActionSpace, floor: float) -> None:
    """5 slots with masks of their own, each drawn 8,000 times: every joint action within 4 standard errors."""
    agent = trained(modules, floor=floor)
    n = 8000
    rows = np.repeat(np.arange(5), n)
    seen = observations_of(np.random.default_rng(1).random((5, modules.total)) < 0.7)
    joint = modules.all_joint_probabilities(agent.action_probabilities(seen))
    actions = agent.sample(seen[rows])
    np.testing.assert_array_equal(actions, modules.canonical(actions))
    frequency = np.zeros_like(joint)
    np.add.at(frequency, (rows, modules.joint_index(actions)), 1 / n)
    assert (np.abs(frequency - joint) <= 4 * np.sqrt(joint * (1 - joint) / n) + 1e-12).all()


@KINDS
def test_modules_draw_independently_of_where_rows_stand(modules: ActionSpace, monkeypatch: pytest.MonkeyPatch) -> None:
    """In blocks of a few rows, as in one of all: the same frequencies over many different slots."""
    agent = trained(modules, floor=0.1)
    seen = observations_of(np.random.default_rng(2).random((5_000, modules.total)) < 0.8)
    marginals = modules.marginals(agent.action_probabilities(seen))
    monkeypatch.setattr("crosschannel.agents.ensemble.vote_sampling.ROWS_PER_HEAD", 7)
    actions = agent.sample(seen)
    sent = modules.sends(actions)
    for m, p in enumerate(marginals):
        asked = sent if m else np.ones(len(sent), dtype=bool)
        taken = np.array([(asked & (actions[:, m] == code)).mean() for code in range(modules.sizes[m])])
        error = np.sqrt((p * (1 - p)).sum(0)) / len(p)
        assert (np.abs(taken - p.mean(0)) <= 4 * error + 1e-12).all()


@KINDS
@given(seed=st.integers(0, 10_000), density=st.floats(0.0, 1.0))
@settings(max_examples=10, deadline=None)
def test_never_outside_the_mask(modules: ActionSpace, seed: int, density: float) -> None:
    agent = make_agent("ensemble_thompson", modules, 4, {**SMALL, "floor": 0.2}, seed)
    assert isinstance(agent, EnsembleThompson)
    mask = np.random.default_rng(seed).random((40, modules.total)) < density
    actions = agent.sample(observations_of(mask, seed=seed))
    assert modules.valid(actions).all()
    sent = modules.sends(actions)
    for m, part in enumerate(modules.split(modules.feasible_mask(mask))):
        assert part[np.arange(40), actions[:, m]][sent | (m == 0)].all()


def test_the_same_state_draws_the_same_actions() -> None:
    first, second = trained(PLAIN), trained(PLAIN)
    seen = observations_of(everything(200, PLAIN))
    np.testing.assert_array_equal(first.sample(seen), second.sample(seen))
    second.load_state_dict(first.state_dict())
    again = first.sample(seen)
    np.testing.assert_array_equal(again, second.sample(seen))
    assert (again != first.sample(seen)).any()
    assert first.sample(seen[:0]).shape == (0, len(PLAIN))


def test_voters_and_uniform_draws_have_equal_shares() -> None:
    u = (np.arange(1000) + 0.5) / 1000
    assert np.bincount(sample_voter(u, 4, 0.2)).tolist() == [200] * 5
    assert np.bincount(sample_voter(u, 4, 0.0)).tolist() == [250] * 4
    assert (sample_voter(u, 4, 1.0) == 4).all()
    mask = np.array([[False, True, True, False, True]] * 999)
    u = (np.arange(999) + 0.5) / 999
    assert np.bincount(uniform_codes(mask, u), minlength=5).tolist() == [0, 333, 333, 0, 333]


def test_best_codes_are_the_lowest_of_the_largest_that_are_eligible() -> None:
    values = np.array([[1.0, 3.0, 3.0, 0.0], [5.0, 5.0, 1.0, 0.0], [0.0, 2.0, 2.0, 0.0]], dtype=np.float32)
    everywhere = np.ones(values.shape, dtype=bool)
    assert best_codes(values.T, everywhere.T).tolist() == [1, 0, 1]
    eligible = np.array([[True, False, True, True], [False, False, True, True], [False] * 4])
    assert best_codes(values.T, eligible.T).tolist() == [2, 2, 0]
    many = np.zeros((300, 2), dtype=np.float32)
    many[[299, 7], [0, 1]] = 1.0
    assert best_codes(many, np.ones(many.shape, dtype=bool)).tolist() == [299, 7]
