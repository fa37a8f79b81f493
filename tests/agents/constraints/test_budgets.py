"""From settings to arrays: names, budgets of a decision time, and the expected use of actions."""

from __future__ import annotations

import numpy as np
import pytest

from crosschannel.agents import (
    Budget,
    Constraints,
    CostLimit,
    action_costs,
    budgets_at,
    check_constraints,
    expected_use,
    rate_per_week,
    uniform_shares,
)
from crosschannel.agents.constraints.budgets import action_prices, prices_later_modules
from crosschannel.core.action_space import ActionSpace
from crosschannel.core.errors import ConfigError
from crosschannel.core.times import DAY, WEEK
from tests.agents.samples import NESTED, PLAIN, TABLES, everything

OFFERS = Budget("offers", 30.0, {"offer": {"large": 2.0}, "channel": {"email": 0.5}}, "decision_time")
ALL = Constraints(
    cost_events=(CostLimit("unsubscribed", margin=0.0), CostLimit("removed"), CostLimit("complained", 0.01, 0.5)),
    messages_per_week=2.0,
    budgets=(Budget("cheap", 0.1, {"channel": {"push": 1.0}}), OFFERS),
)


def test_limits_per_user_and_week_grow_with_users_and_time() -> None:
    rates = {"unsubscribed": 0.03, "removed": 0.002}
    found = budgets_at(ALL, 700, DAY, rates)
    np.testing.assert_allclose(found, [0.03 * 100, 0.8 * 0.002 * 100, 0.5 * 0.01 * 100, 2.0 * 100, 0.1 * 100, 30.0])
    np.testing.assert_allclose(budgets_at(ALL, 1_400, 2 * DAY, rates) / found, [4, 4, 4, 4, 4, 1])
    assert budgets_at(Constraints(), 700, DAY).shape == (0,)


def test_messages_may_cause_what_happens_without_them_leaves() -> None:
    rates, organic = (
        {"unsubscribed": 0.03, "removed": 0.002},
        {"unsubscribed": 0.01, "removed": 0.003, "complained": 0.004},
    )
    found = budgets_at(ALL, 700, DAY, rates, organic)
    np.testing.assert_allclose(found[:3], [0.02 * 100, 0.0, 0.5 * 0.006 * 100])
    np.testing.assert_array_equal(found[3:], budgets_at(ALL, 700, DAY, rates)[3:])


def test_a_week_of_decision_times_allows_a_week() -> None:
    only = Constraints(messages_per_week=3.0)
    assert sum(budgets_at(only, 10, DAY)[0] for _ in range(7)) == pytest.approx(3.0 * 10)
    assert budgets_at(only, 10, WEEK)[0] == pytest.approx(3.0 * 10)


def test_what_a_limit_needs_must_be_given() -> None:
    with pytest.raises(ConfigError, match="limit on 'unsubscribed' needs the log's rate"):
        budgets_at(ALL, 700, DAY, {"removed": 1.0})
    with pytest.raises(ConfigError, match="limit on 'unsubscribed' needs the log's rate"):
        budgets_at(ALL, 700, DAY)
    with pytest.raises(ConfigError, match="must be above 0"):
        budgets_at(Constraints(messages_per_week=1.0), 700, 0)


def test_the_rate_of_a_log_counts_all_observed_time() -> None:
    observed = np.array([2 * WEEK, WEEK, WEEK // 2, WEEK // 2])
    assert rate_per_week(6, observed) == pytest.approx(6.5 / 4)
    assert rate_per_week(0, observed) == pytest.approx(0.5 / 4)
    with pytest.raises(ConfigError, match="observes no time"):
        rate_per_week(0, np.zeros(3, dtype=np.int64))


@pytest.mark.parametrize(
    ("constraints", "message"),
    [
        (Constraints(cost_events=(CostLimit("unsubscribe"),)), "'unsubscribe' is not a cost event .* 'unsubscribed'"),
        (Constraints(budgets=(Budget("a", 1.0, {"chanel": {"push": 1.0}}),)), "'a': there is no module 'chanel'. Did"),
        (
            Constraints(budgets=(Budget("a", 1.0, {"channel": {"psh": 1.0}}),)),
            "module 'channel' has no action 'psh'. Did you mean 'push'",
        ),
        (Constraints(budgets=(Budget("a", 1.0, {"channel": {"none": 1.0}}),)), "channel.none sends nothing and cannot"),
    ],
)
def test_names_are_those_of_the_log(constraints: Constraints, message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        check_constraints(constraints, PLAIN, ["unsubscribed", "order"])


def test_every_wrong_name_is_reported_at_once() -> None:
    wrong = Constraints(
        cost_events=(CostLimit("a"),), budgets=(Budget("b", 1.0, {"channel": {"x": 1.0}, "offer": {"y": 1.0}}),)
    )
    with pytest.raises(ConfigError) as error:
        check_constraints(wrong, PLAIN, ["order"])
    assert len(str(error.value).splitlines()) == 3
    free = Budget("b", 1.0, {"channel": {"none": 0.0, "push": 1.0}, "offer": {"large": 1.0}})
    check_constraints(Constraints(budgets=(free,)), PLAIN, [])


def test_hazards_and_messages() -> None:
    constraints = Constraints(cost_events=(CostLimit("unsubscribed"),), messages_per_week=1.0)
    hazards = np.array([[0.01, 0.05, 0.001], [-0.01, -0.02, 0.03]])
    use = expected_use(constraints, PLAIN, {"unsubscribed": hazards}, uniform_shares(PLAIN, everything(2, PLAIN)))
    np.testing.assert_allclose(use[0], [[0.01, 0.05, 0.01], [0.0, 0.0, 0.03]])
    np.testing.assert_allclose(use[1], [[0.0, 1.0, 1.0]] * 2)


def test_costs_of_actions_by_themselves() -> None:
    found = action_costs(ALL, PLAIN)
    np.testing.assert_array_equal(found[:3], 0.0)
    np.testing.assert_array_equal(found[3], [0, 1, 1, 0, 0])
    np.testing.assert_array_equal(found[4], [0, 0, 1, 0, 0])
    np.testing.assert_array_equal(found[5], [0, 0.5, 0, 0, 2])
    assert action_costs(Constraints(), PLAIN).shape == (0, 5)


def test_prices_of_later_modules_are_those_of_budgets() -> None:
    prices = np.array([10.0, 10.0, 10.0, 100.0, 3.0, 5.0])
    np.testing.assert_allclose(action_prices(ALL, PLAIN, prices), [0, 2.5, 3, 0, 10])
    assert prices_later_modules(ALL, PLAIN)
    assert not prices_later_modules(Constraints(ALL.cost_events, 2.0, ALL.budgets[:1]), PLAIN)
    assert not prices_later_modules(Constraints(), PLAIN)


SPACES = {
    "plain": (PLAIN, {"channel": {"email": 0.5}, "offer": {"large": 2.0}}),
    "tables": (TABLES, {"hour": {"evening": 1.0}, "tone": {"dry": 3.0}, "greeting": {"dear": 7.0}}),
    "nested": (NESTED, {"kind": {"bogo": 1.0}, "offer": {"b2": 2.0, "d1": 5.0}, "hour": {"p12": 3.0, "e9": 0.5}}),
}


@pytest.mark.parametrize("space", SPACES)
def test_costs_of_later_modules_are_expected_over_their_policy(space: str) -> None:
    """Against the sum over all joint actions, with probabilities that are not uniform."""
    modules, costs = SPACES[space]
    rng, n = np.random.default_rng(0), 20
    probabilities = [p * rng.random(p.shape) for p in uniform_shares(modules, everything(n, modules))]
    for m, p in enumerate(probabilities):
        for group in modules.groups(m):
            p[..., group] /= np.maximum(p[..., group].sum(-1, keepdims=True), 1e-300)
    budget = Budget("all", 1.0, costs)
    check_constraints(Constraints(budgets=(budget,)), modules, [])
    found = expected_use(Constraints(budgets=(budget,)), modules, {}, probabilities)[0]
    np.testing.assert_allclose(found, _by_joint_actions(modules, costs, probabilities), rtol=1e-12)
    assert (found[:, 1:] > 0.0).any()
    assert (found[:, 0] == 0.0).all()


def _by_joint_actions(
    modules: ActionSpace, costs: dict[str, dict[str, float]], probabilities: list[np.ndarray]
) -> np.ndarray:
    joint = modules.joint_actions
    names = modules.names_of(joint)
    cost = np.array(
        [
            sum(costs.get(module, {}).get(action, 0.0) for module, action in zip(modules.names, row, strict=False))
            for row in names
        ]
    )
    p = modules.all_joint_probabilities(probabilities)
    given = joint[:, 0][:, None] == np.arange(modules.sizes[0])
    return (p * cost) @ given / np.maximum(p @ given, 1e-300)
