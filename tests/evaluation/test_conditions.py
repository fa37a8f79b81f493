"""Modules that are conditioned on earlier choices: what evaluation makes of their tables, against enumeration."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from crosschannel.core.action_space import ActionSpace
from crosschannel.core.errors import InputError
from crosschannel.evaluation import IPS, LoggedDecisions, OutcomeModel, Sample, importance_weights
from crosschannel.evaluation.logged_decisions import check_probabilities
from crosschannel.evaluation.outcomes.outcome_model import (
    action_indicators,
    conditional_probabilities,
    expected_indicators,
)
from crosschannel.evaluation.support import MASS_ROWS_PER_CHUNK, total_probability, unsupported_mass
from tests.evaluation.bandit_worlds import CHANNEL, OFFERS, TABLES, World

pytestmark = pytest.mark.numerics

KINDS = pytest.mark.parametrize("modules", [OFFERS, TABLES], ids=["parents", "tables"])


@KINDS
@given(seed=st.integers(0, 10_000))
@settings(max_examples=30, deadline=None)
def test_marginals_are_those_of_the_joint_actions(modules: ActionSpace, seed: int) -> None:
    p = World.make(modules, seed).pi
    enumerated = modules.all_joint_probabilities(p) @ action_indicators(modules, modules.joint_actions)
    np.testing.assert_allclose(expected_indicators(modules, p), enumerated, atol=1e-12)


@KINDS
@given(seed=st.integers(0, 10_000))
@settings(max_examples=30, deadline=None)
def test_weights_are_ratios_of_joint_probabilities(modules: ActionSpace, seed: int) -> None:
    """Of the whole action, and of the log's policy with one module replaced."""
    world = World.make(modules, seed)
    log, cell, _ = world.draw(np.random.default_rng(seed), 40)
    rows, j = np.arange(40), modules.joint_index(log.actions)
    mu = modules.all_joint_probabilities([p[cell] for p in world.mu])[rows, j]
    for m in (None, 0, 1, 2):
        mixed = world.pi if m is None else [*world.mu[:m], world.pi[m], *world.mu[m + 1 :]]
        expected = modules.all_joint_probabilities([p[cell] for p in mixed])[rows, j] / mu
        np.testing.assert_allclose(importance_weights(log, world.policy(cell), m), expected, rtol=1e-9)


@pytest.mark.parametrize("modules", [CHANNEL, OFFERS, TABLES], ids=["one module", "parents", "tables"])
@given(seed=st.integers(0, 10_000), share=st.floats(0.0, 1.0))
@settings(max_examples=30, deadline=None)
def test_total_probability_is_the_sum_over_the_actions(modules: ActionSpace, seed: int, share: float) -> None:
    rng = np.random.default_rng(seed)
    p = [rng.random((MASS_ROWS_PER_CHUNK + 9, *modules.shape(m))) for m in range(len(modules))]
    some = modules.joint_actions[rng.random(len(modules.joint_actions)) < share]
    expected = modules.joint_probabilities(p, some).sum(1)
    np.testing.assert_allclose(total_probability(modules, p, some), expected, rtol=1e-12)


@KINDS
@given(seed=st.integers(0, 10_000))
@settings(max_examples=30, deadline=None)
def test_unsupported_mass_is_a_sum_over_actions(modules: ActionSpace, seed: int) -> None:
    """Twelve decisions, so that the log takes few of the actions; half of the choices are not eligible."""
    world = World.make(modules, seed)
    rng = np.random.default_rng(seed)
    log, cell, _ = world.draw(rng, 12)
    mask = modules.feasible_mask(rng.random((12, modules.total)) < 0.5)
    log = LoggedDecisions(modules, log.actions, log.propensity, log.joint, log.user, mask)
    p = world.policy(cell)
    joint = modules.all_joint_probabilities(p)
    taken = np.isin(np.arange(joint.shape[1]), modules.joint_index(log.actions))
    supported = (joint * (taken & modules.joint_mask(mask))).sum(1)
    assert unsupported_mass(log, p, None) == pytest.approx(1 - supported.mean(), abs=1e-12)
    for m in (1, 2):
        sent = np.flatnonzero(log.actions[:, 0])
        if not len(sent):
            assert unsupported_mass(log, p, m) == 1.0
            continue
        seen = set(log.actions[sent, m].tolist())
        mass = [
            sum(
                modules.conditional(m, p[m], log.actions)[i, b]
                for b in range(modules.sizes[m])
                if b in seen and mask[i, modules.slices[m].start + b]
            )
            for i in sent
        ]
        assert unsupported_mass(log, p, m) == pytest.approx(1 - np.mean(mass), abs=1e-12)


def test_a_modules_choice_is_the_row_that_the_log_calls_for() -> None:
    world = World.make(TABLES, 3)
    log, cell, _ = world.draw(np.random.default_rng(3), 50)
    p = world.policy(cell)
    found = conditional_probabilities(TABLES, p, log.actions, 2)
    for i, action in enumerate(log.actions):
        expected = p[2][i, action[1]] if action[0] else np.zeros(3)
        np.testing.assert_array_equal(found[i], expected)


@pytest.mark.parametrize("m", [0, 1, 2])
def test_module_expectation_is_the_sum_over_its_actions(m: int) -> None:
    world = World.make(TABLES, 1)
    log, cell, rewards = world.draw(np.random.default_rng(0), 800, 3)
    x, p = world.one_hot(cell), world.policy(cell)
    model = OutcomeModel.fit(TABLES, x, log.actions, rewards, log.user)
    found = model.q_values(x, log.actions, p)[1 + m]
    z = np.concatenate([np.ones((len(x), 1)), x], axis=1)

    def predicted(actions: np.ndarray) -> np.ndarray:
        h = action_indicators(TABLES, actions)[:, : 1 + TABLES.slices[m].stop]
        return np.asarray(((z @ model.coefficients[m]) * h).sum(1))

    expected = np.zeros(len(x))
    for b in range(TABLES.sizes[m]):
        changed = log.actions.copy()
        changed[:, m] = b
        expected += TABLES.conditional(m, p[m], log.actions)[:, b] * predicted(changed)
    sent = log.actions[:, 0] != 0
    np.testing.assert_allclose(found.policy, np.where(sent | (m == 0), expected, predicted(log.actions)), atol=1e-10)


def test_importance_weighting_finds_the_value_of_a_policy_with_tables() -> None:
    """Mean of 40 logs of 2,000 decisions, within 4 of its standard errors of the truth, jointly and per module."""
    world = World.make(TABLES, 5)
    for m in (None, 0, 1, 2):
        values = []
        for seed in range(40):
            log, cell, rewards = world.draw(np.random.default_rng(seed), 2000)
            weights = importance_weights(log, world.policy(cell), m)
            values.append(IPS().value(Sample(rewards, weights, np.ones(2000), None, None)))
        error = np.std(values, ddof=1) / 40**0.5
        assert abs(np.mean(values) - world.truth(m)) < 4 * error
        assert error < 0.02, "tight enough to tell the truth from the logged value"


def test_a_table_of_the_wrong_shape_is_refused() -> None:
    world = World.make(TABLES, 5)
    check_probabilities(TABLES, world.pi, 4)
    with pytest.raises(InputError, match=r"column 'hour': the shape is \(4, 2\), not \(4, 3, 2\)"):
        check_probabilities(TABLES, [world.pi[0], world.pi[1][:, 0], world.pi[2]], 4)
    wrong = world.pi[1].copy()
    wrong[2, 1, 0] = 1.5
    with pytest.raises(InputError, match="column 'hour', row 3"):
        check_probabilities(TABLES, [world.pi[0], wrong, world.pi[2]], 4)
