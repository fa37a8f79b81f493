"""Values of the ladder: three rows by hand, expectations by enumeration of all actions, what is refused."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from crosschannel.core.errors import ConfigError, InputError
from crosschannel.evaluation import DR, IPS, Sample, importance_weights
from crosschannel.evaluation.ladder import (
    LadderWeights,
    elementary_symmetric,
    interaction_values,
    ladder_values,
    ladder_weights,
    pair_interactions,
)
from tests.evaluation.ladder.worlds import FACTORS, MESSAGE, NESTED, EveryAction

pytestmark = pytest.mark.numerics

#: Two factors; nothing is sent in the third row.
THREE = LadderWeights(channel=np.array([2.0, 0.5, 1.5]), delta=np.array([[1.0, -0.5], [-1.0, 3.0], [0.0, 0.0]]))
REWARDS = np.array([1.0, 2.0, -1.0])


def test_three_rows_by_hand():
    # Order 0: 2, .5, 1.5. Order 1: 2 (1 + .5) = 3, .5 (1 + 2) = 1.5, 1.5. Order 2: 2 (2)(.5) = 2, .5 (0)(4) = 0, 1.5.
    expected = [(2 * 1 + 0.5 * 2 - 1.5) / 3, (3 * 1 + 1.5 * 2 - 1.5) / 3, (2 * 1 + 0 - 1.5) / 3]
    assert ladder_values(THREE, REWARDS) == pytest.approx(expected, abs=1e-12)
    assert interaction_values(THREE, REWARDS) == pytest.approx([0.5, 1.0, -4 / 3], abs=1e-12)
    assert pair_interactions(THREE, REWARDS) == {(0, 1): pytest.approx((2 * -0.5 * 1 + 0.5 * -3.0 * 2) / 3, abs=1e-12)}


def test_three_rows_with_a_model_and_counts_by_hand():
    q, q_pi, c = np.array([0.5, 1.0, 0.0]), np.array([0.2, 0.4, 0.6]), np.array([1.0, 2.0, 1.0])
    model = 0.2 + 2 * 0.4 + 0.6
    expected = [
        (model + 2 * 0.5 + 2 * 0.5 * 1.0 - 1.5) / 4,
        (model + 3 * 0.5 + 2 * 1.5 * 1.0 - 1.5) / 4,
        (model + 2 * 0.5 + 0.0 - 1.5) / 4,
    ]
    found = ladder_values(THREE, REWARDS, q_logged=q, q_policy=q_pi, counts=c)
    assert found == pytest.approx(expected, abs=1e-12)
    steps = interaction_values(THREE, REWARDS, q_logged=q, counts=c)
    assert found[0] + np.cumsum(steps[1:]) == pytest.approx(expected[1:], abs=1e-12)


def test_symmetric_polynomials_are_the_coefficients_of_a_product():
    delta = np.random.default_rng(0).normal(size=(7, 5))
    for row, found in zip(delta, elementary_symmetric(delta).T, strict=True):
        assert found == pytest.approx(np.polynomial.polynomial.polyfromroots(-1 / row) * row.prod(), rel=1e-9)


@pytest.mark.parametrize("modules", [MESSAGE, NESTED], ids=["message", "nested"])
@pytest.mark.parametrize("order", [0, 1, 2, 3])
def test_a_value_is_unbiased_where_no_more_factors_interact(modules, order):
    """Exact: the sum over all actions of their chance times the estimator's term is the policy's expected reward."""
    world = EveryAction.of(modules)
    rng = np.random.default_rng(order)
    rewards = world.earns(order, rng)
    weights = ladder_weights(world.log, world.policy, FACTORS[modules])
    truth = float(world.policy_chance @ rewards)
    values = ladder_values(weights, rewards, counts=world.chance)
    assert values[order:] == pytest.approx(truth, abs=1e-12)
    assert weights.orders @ world.chance == pytest.approx(1.0, abs=1e-12)
    if order:
        assert abs(values[order - 1] - truth) > 1e-6
        assert abs(interaction_values(weights, rewards, counts=world.chance)[order]) > 1e-6
    above = interaction_values(weights, rewards, counts=world.chance)[order + 1 :]
    assert above == pytest.approx(0.0, abs=1e-12)


def test_a_model_that_has_the_interactions_makes_order_one_unbiased():
    world = EveryAction.of(MESSAGE)
    rng = np.random.default_rng(5)
    interacting, additive = world.earns(3, rng), world.earns(1, rng)
    weights = ladder_weights(world.log, world.policy, FACTORS[MESSAGE])
    expected_q = (world.policy_chance @ interacting) * np.ones(len(world.log))
    found = ladder_values(
        weights, interacting + additive, q_logged=interacting, q_policy=expected_q, counts=world.chance
    )
    assert found[1:] == pytest.approx(world.policy_chance @ (interacting + additive), abs=1e-12)


def test_module_parts_are_what_each_factor_adds_given_the_policy_s_channel():
    world = EveryAction.of(MESSAGE)
    rewards = world.earns(1, np.random.default_rng(2))
    weights = ladder_weights(world.log, world.policy, FACTORS[MESSAGE])
    logged = MESSAGE.chosen_probabilities(world.policy, world.log.actions)
    for f, (m,) in enumerate(FACTORS[MESSAGE]):
        # The policy chooses the channel and this module, the log the others.
        mixed = world.log.propensity.copy()
        mixed[:, [0, m]] = logged[:, [0, m]]
        channel_only = world.log.propensity.copy()
        channel_only[:, 0] = logged[:, 0]
        added = (mixed.prod(1) - channel_only.prod(1)) @ rewards / 3
        assert weights.part([f]) * world.chance @ rewards == pytest.approx(added, abs=1e-12)


@pytest.mark.parametrize("modules", [MESSAGE, NESTED], ids=["message", "nested"])
def test_the_highest_order_is_ips_and_with_a_model_dr(modules):
    world = EveryAction.of(modules, seed=4)
    rng = np.random.default_rng(1)
    n = len(world.log)
    rewards, q, q_pi, c = rng.normal(size=n), rng.normal(size=n), rng.normal(size=n), rng.integers(0, 3, n) + 0.0
    w = importance_weights(world.log, world.policy, None)
    top = ladder_weights(world.log, world.policy, FACTORS[modules])
    assert ladder_values(top, rewards, counts=c)[-1] == pytest.approx(IPS().value(Sample(rewards, w, c)), abs=1e-12)
    with_model = ladder_values(top, rewards, q_logged=q, q_policy=q_pi, counts=c)[-1]
    assert with_model == pytest.approx(DR().value(Sample(rewards, w, c, q, q_pi)), abs=1e-12)


def test_with_one_factor_order_one_is_ips_whatever_propensities_the_log_has():
    world = EveryAction.of(MESSAGE, seed=2)
    rng = np.random.default_rng(1)
    rewards = rng.normal(size=len(world.log))
    # The whole action's probability is not the product: the content is drawn as templates.
    share = np.where(MESSAGE.sends(world.log.actions), rng.uniform(0.5, 1.0, len(world.log)), 1.0)
    log = replace(world.log, joint=world.log.joint * share)
    weights = ladder_weights(log, world.policy, [(1, 2, 3)])
    expected = importance_weights(log, world.policy, None)
    assert weights.of_order(1) == pytest.approx(expected, rel=1e-12)
    ips = IPS().value(Sample(rewards, expected, np.ones(len(log))))
    assert ladder_values(weights, rewards) == pytest.approx([rewards @ weights.channel / len(log), ips], abs=1e-12)


@pytest.mark.parametrize(
    ("factors", "message"),
    [
        ([(1,), (2,)], "do not name each of the modules 1 to 3 once"),
        ([(1,), (2, 3), (3,)], "do not name each"),
        ([(0,), (1,), (2, 3)], "do not name each"),
    ],
)
def test_factors_must_divide_the_content_modules(factors, message):
    world = EveryAction.of(MESSAGE)
    with pytest.raises(ConfigError, match=message):
        ladder_weights(world.log, world.policy, factors)


def test_a_module_is_in_the_factor_of_its_parent():
    world = EveryAction.of(NESTED)
    with pytest.raises(ConfigError, match="'hour' and 'tone' are in different factors"):
        ladder_weights(world.log, world.policy, [(1,), (2, 4), (3,), (5,)])


@pytest.mark.parametrize(
    ("channel", "delta", "message"),
    [
        (np.ones(2), np.zeros((3, 1)), r"the shapes \(2,\) and \(3, 1\)"),
        (np.ones(3), np.zeros(3), r"the shapes \(3,\) and \(3,\)"),
        (np.array([1.0, np.nan, 1.0]), np.zeros((3, 1)), "row 2, .*is not finite"),
        (np.array([1.0, 1.0, -1.0]), np.zeros((3, 1)), "row 3, .*is a negative probability ratio"),
        (np.ones(3), np.array([[0.0], [-1.5], [-2.0]]), r"row 2, .*is a negative probability ratio.*\(2 rows in all\)"),
    ],
)
def test_weights_that_are_none_are_refused(channel, delta, message):
    with pytest.raises(InputError, match=message):
        LadderWeights(channel, delta)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"rewards": np.ones(2)}, r"column 'weights': the shape is \(3,\), not \(2,\)"),
        ({"rewards": np.array([1.0, np.nan, 1.0])}, "column 'rewards', row 2"),
        ({"q_logged": np.ones(3)}, "one of q_logged and q_policy is missing"),
        ({"q_logged": np.ones(3), "q_policy": np.ones(4)}, "column 'q_policy'"),
        ({"counts": np.array([1.0, -1.0, 1.0])}, "column 'counts', row 2"),
        ({"counts": np.zeros(3)}, "no decision counts"),
    ],
)
def test_invalid_inputs_are_refused(changes, message):
    arguments = {"rewards": REWARDS, **changes}
    with pytest.raises(InputError, match=message):
        ladder_values(THREE, arguments.pop("rewards"), **arguments)


def test_there_is_no_order_above_the_number_of_factors():
    with pytest.raises(ConfigError, match="there is no order 3: 2 factors have the orders 0 to 2"):
        THREE.of_order(3)
