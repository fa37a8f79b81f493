"""Outcome model: expectations agree with enumeration, the fit with plain ridge, the penalty with the signal."""

from __future__ import annotations

import numpy as np
import pytest

from crosschannel.core.errors import ConfigError, InputError
from crosschannel.evaluation import OutcomeModel
from crosschannel.evaluation.outcomes.outcome_model import PENALTIES, action_indicators, expected_indicators
from tests.evaluation.bandit_worlds import CHANNEL, OFFERS, World

pytestmark = pytest.mark.numerics


@pytest.fixture(scope="module")
def fitted():
    world = World.make(OFFERS, seed=1)
    log, cell, rewards = world.draw(np.random.default_rng(0), 800, 3)
    model = OutcomeModel.fit(OFFERS, world.one_hot(cell), log.actions, rewards, log.user)
    return world, log, cell, rewards, model


def predicted(model: OutcomeModel, context: np.ndarray, actions: np.ndarray, m: int) -> np.ndarray:
    """q of the model of modules 0 to m, by its formula."""
    z = np.concatenate([np.ones((len(context), 1)), context], axis=1)
    h = action_indicators(model.modules, actions)[:, : 1 + model.modules.slices[m].stop]
    return ((z @ model.coefficients[m]) * h).sum(1)


def test_joint_expectation_is_the_sum_over_joint_actions(fitted):
    world, log, cell, _, model = fitted
    x, p = world.one_hot(cell), world.policy(cell)
    joint = model.q_values(x, log.actions, p)[0]
    probability = OFFERS.all_joint_probabilities(p)
    q = np.stack([predicted(model, x, np.tile(c, (len(x), 1)), 2) for c in OFFERS.joint_actions], axis=1)
    np.testing.assert_allclose(joint.policy, (probability * q).sum(1), atol=1e-10)
    np.testing.assert_allclose(joint.logged, q[np.arange(len(x)), OFFERS.joint_index(log.actions)], atol=1e-10)


@pytest.mark.parametrize("m", [0, 1, 2])
def test_module_expectation_is_the_sum_over_its_actions(fitted, m):
    world, log, cell, _, model = fitted
    x, p = world.one_hot(cell), world.policy(cell)
    found = model.q_values(x, log.actions, p)[1 + m]
    expected = np.zeros(len(x))
    sent = log.actions[:, 0] != 0
    parent = OFFERS.parent(m)
    for b in range(OFFERS.sizes[m]):
        changed = log.actions.copy()
        changed[:, m] = b
        weight = p[m][:, b] * (1.0 if parent is None else parent[1][b] == log.actions[:, parent[0]])
        expected += weight * predicted(model, x, changed, m)
    logged = predicted(model, x, log.actions, m)
    np.testing.assert_allclose(found.logged, logged, atol=1e-10)
    np.testing.assert_allclose(found.policy, np.where(sent | (m == 0), expected, logged), atol=1e-10)


def test_marginals_are_those_of_the_joint_actions(fitted):
    world, _, cell, _, _ = fitted
    p = world.policy(cell)
    enumerated = OFFERS.all_joint_probabilities(p) @ action_indicators(OFFERS, OFFERS.joint_actions)
    np.testing.assert_allclose(expected_indicators(OFFERS, p), enumerated, atol=1e-12)


def test_fit_equals_ridge_on_the_whole_design():
    world = World.make(OFFERS, seed=2)
    log, cell, rewards = world.draw(np.random.default_rng(1), 200, 2)
    x = world.one_hot(cell)
    model = OutcomeModel.fit(OFFERS, x, log.actions, rewards, log.user, penalties=[7.0])
    z = np.concatenate([np.ones((len(x), 1)), x], axis=1)
    h = action_indicators(OFFERS, log.actions)
    design = (h[:, :, None] * z[:, None, :]).reshape(len(x), -1)
    penalty = np.full((h.shape[1], z.shape[1]), 7.0 * x.shape[1])
    penalty[0, :] = penalty[:, 0] = 7.0
    penalty[0, 0] = 0.0
    ridge = np.linalg.solve(design.T @ design + np.diag(penalty.ravel()), design.T @ rewards)
    np.testing.assert_allclose(model.coefficients[-1].T.ravel(), ridge, atol=1e-9)


def test_strong_signal_gets_a_weak_penalty_and_noise_a_strong_one():
    world = World.make(CHANNEL, seed=4, noise=0.05)
    log, cell, rewards = world.draw(np.random.default_rng(2), 3000)
    x = world.one_hot(cell)
    clear = OutcomeModel.fit(CHANNEL, x, log.actions, rewards, log.user)
    assert clear.penalty <= 10.0
    found = clear.q_values(x, log.actions, world.policy(cell))[0].logged
    assert np.sqrt(np.mean((found - world.earns[cell, log.actions[:, 0]]) ** 2)) < 0.05
    noise = np.random.default_rng(3).normal(size=len(log))
    empty = OutcomeModel.fit(CHANNEL, x, log.actions, noise, log.user)
    assert empty.penalty >= 1e3
    assert empty.q_values(x, log.actions, world.policy(cell))[0].logged.std() < 0.05


def test_users_are_never_on_both_sides_of_the_cross_validation():
    """A context that gives the user away predicts that user's other rows, and other users not at all."""
    rng = np.random.default_rng(5)
    users, rows = 25, 20
    user = np.repeat(np.arange(users), rows)
    x = rng.normal(size=(users, 10))[user]
    rewards = rng.normal(size=users)[user]
    actions = np.zeros((len(user), 1), dtype=np.int64)
    by_user = OutcomeModel.fit(CHANNEL, x, actions, rewards, user)
    by_row = OutcomeModel.fit(CHANNEL, x, actions, rewards, np.arange(len(user)))
    assert by_user.penalty > 100 * by_row.penalty


def test_rewards_that_are_not_identified_are_left_out():
    world = World.make(CHANNEL, seed=4)
    log, cell, rewards = world.draw(np.random.default_rng(2), 300)
    x = world.one_hot(cell)
    gaps = np.where(np.arange(300) < 100, np.nan, rewards)
    with_gaps = OutcomeModel.fit(CHANNEL, x, log.actions, gaps, log.user)
    without = OutcomeModel.fit(CHANNEL, x[100:], log.actions[100:], rewards[100:], log.user[100:])
    np.testing.assert_array_equal(with_gaps.coefficients[-1], without.coefficients[-1])
    assert set(with_gaps.cv_errors) == set(PENALTIES)


@pytest.mark.parametrize(
    ("change", "error", "message"),
    [
        (
            {"actions": np.zeros((4, 2), dtype=np.int64)},
            InputError,
            r"column 'actions': the shape is \(4, 2\), not \(5, 1\)",
        ),
        ({"context": np.zeros((4, 2))}, InputError, r"column 'context': the shape is \(4, 2\), not \(5, 2\)"),
        ({"user": np.zeros(4, dtype=np.int64)}, InputError, r"column 'user': the shape is \(4,\), not \(5,\)"),
        ({"user": np.zeros(5, dtype=np.int64)}, ConfigError, "5 folds, 1 user$"),
        ({"rewards": np.full(5, np.nan)}, ConfigError, "5 folds, 0 users"),
        ({"folds": 1}, ConfigError, "1 folds, 5 users"),
    ],
)
def test_invalid_inputs(change, error, message):
    inputs = {
        "context": np.zeros((5, 2)),
        "actions": np.zeros((5, 1), dtype=np.int64),
        "rewards": np.zeros(5),
        "user": np.arange(5),
    }
    with pytest.raises(error, match=message):
        OutcomeModel.fit(CHANNEL, **{**inputs, **change})
