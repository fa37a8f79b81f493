"""Policy against policy: by hand, by enumeration, narrower than apart, and what is not identified."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from crosschannel.core.action_space import ActionSpace, Module
from crosschannel.core.errors import InputError, NotIdentified
from crosschannel.evaluation import EvaluationSettings, LoggedDecisions, compare_policies, evaluate
from crosschannel.evaluation.ladder import difference_of_values, ladder_weights
from tests.evaluation.bandit_worlds import CHANNEL, World
from tests.evaluation.ladder.test_factors import draw
from tests.evaluation.ladder.worlds import FACTORS, MESSAGE, EveryAction, random_policy

pytestmark = pytest.mark.numerics

QUICK = EvaluationSettings(bootstrap_replicates=60, min_ess=50)


def test_three_rows_by_hand():
    first, second, r = np.array([2.0, 1.0, 0.0]), np.array([1.0, 1.0, 0.5]), np.array([1.0, 5.0, 3.0])
    # d = 1, 0, -.5 with mean 1/6; cov(d r, d) = (1 * 1 + .25 * 3) / 3 - (1 - 1.5) / 3 / 6, var(d) = 1.25 / 3 - 1 / 36.
    b = ((1.75 / 3) - (-0.5 / 3) * (0.5 / 3)) / (1.25 / 3 - 0.25 / 9)
    expected = ((1.0 - b) - 0.5 * (3.0 - b)) / 3
    assert difference_of_values(first, second, r, np.ones(3)) == pytest.approx(expected, abs=1e-12)
    twice = difference_of_values(*(np.repeat(x, [2, 1, 1]) for x in (first, second, r)), np.ones(4))
    assert difference_of_values(first, second, r, np.array([2.0, 1.0, 1.0])) == pytest.approx(twice, abs=1e-12)
    assert difference_of_values(first, first, r, np.ones(3)) == 0.0


def test_it_is_exact_where_effects_add_up():
    """Over all actions, weighted by their chance, the mean of d is 0: the baseline does not matter."""
    world = EveryAction.of(MESSAGE)
    other = [p[world.cell] for p in random_policy(MESSAGE, np.random.default_rng(9), 3)]
    r = world.earns(1, np.random.default_rng(1))
    weights = [ladder_weights(world.log, p, FACTORS[MESSAGE]).of_order(1) for p in (world.policy, other)]
    other_chance = MESSAGE.chosen_probabilities(other, world.log.actions).prod(1) / 3
    truth = (world.policy_chance - other_chance) @ r
    assert difference_of_values(*weights, r, world.chance) == pytest.approx(truth, abs=1e-12)


def logged(users: int = 1500):
    """A log, two policies that differ in the tone only, and rewards with a level far from 0."""
    rng = np.random.default_rng(3)
    mu, pi = random_policy(MESSAGE, rng, 1), random_policy(MESSAGE, rng, 1)
    log = draw(MESSAGE, mu, rng, users)
    first = [np.repeat(p, len(log), 0) for p in pi]
    second = [*first[:2], np.full_like(first[2], 1 / 3), *first[3:]]
    rewards = 10.0 + (log.actions[:, 2] == 1) * MESSAGE.sends(log.actions) + rng.normal(size=len(log))
    return log, first, second, rewards


def test_two_policies_are_compared_more_precisely_than_one_by_one():
    log, first, second, rewards = logged()
    found = compare_policies(log, first, second, rewards, rng=np.random.default_rng(0), settings=QUICK)
    assert found.identified
    assert found.order == 1
    assert found.assumption == "if what the parts of a message earn adds up given the channel"
    sent = 1 - first[0][0, 0]
    truth = sent * (first[2][0, 1] - 1 / 3)
    assert found.difference.contains(truth)
    apart = [
        evaluate(log, p, rewards, rng=np.random.default_rng(0), settings=QUICK).ladder.headline.value.se
        for p in (first, second)
    ]
    assert found.difference.se < 0.8 * np.hypot(*apart)
    assert str(found).startswith("mean reward per decision with a reward of the first policy minus that of the second")


def test_the_same_policy_differs_by_nothing():
    log, first, _, rewards = logged(users=800)
    found = compare_policies(log, first, first, rewards, rng=np.random.default_rng(0), settings=QUICK)
    assert found.identified
    assert (found.difference.point, found.difference.low, found.difference.high) == (0.0, 0.0, 0.0)


def test_a_function_of_rewards_is_called_in_each_replicate():
    log, first, second, rewards = logged(users=800)
    calls = []

    def refit(counts):
        calls.append(counts.sum())
        return rewards

    compare_policies(log, first, second, refit, rng=np.random.default_rng(0), settings=QUICK)
    assert len(calls) == 61
    assert set(calls) == {1600.0}


def test_what_is_not_identified_has_a_reason_and_no_number():
    log, first, second, rewards = logged(users=800)
    strict = replace(QUICK, min_ess=1e5)
    found = compare_policies(log, first, second, rewards, rng=np.random.default_rng(0), settings=strict)
    assert "ESS" in found.reason
    assert np.isnan(found.difference.point)
    assert "not identified (ESS" in str(found)
    lacking = replace(log, propensity=np.where(np.arange(len(log))[:, None] == 3, np.nan, log.propensity))
    found = compare_policies(lacking, first, second, rewards, rng=np.random.default_rng(0), settings=QUICK)
    assert found.reason.startswith("propensities are missing for 1 decisions")
    with pytest.raises(NotIdentified, match="no compared decision has a reward"):
        compare_policies(log, first, second, rewards * np.nan, rng=np.random.default_rng(0), settings=QUICK)
    with pytest.raises(InputError, match="column 'rewards'"):
        compare_policies(log, first, second, rewards[:-1], rng=np.random.default_rng(0), settings=QUICK)


def segments_without_an_offer(users: int = 4000):
    """A log that never makes offer b in one half of the slots and never offer c in the other, and constant policies."""
    rng = np.random.default_rng(0)
    modules = ActionSpace([Module("channel", ("none", "email")), Module("offer", ("a", "b", "c"))])
    sent, half = rng.integers(2, size=users), rng.integers(2, size=users)
    offer = np.where(rng.random(users) < 0.5, 0, 1 + half)
    propensity = np.stack([np.full(users, 0.5), np.where(sent == 1, 0.5, 1.0)], 1)
    log = LoggedDecisions(
        modules=modules,
        actions=modules.canonical(np.stack([sent, offer], 1)),
        propensity=propensity,
        joint=propensity.prod(1),
        user=np.arange(users),
    )
    always = [[np.tile([0.0, 1.0], (users, 1)), np.tile(np.eye(3)[o], (users, 1))] for o in range(3)]
    return log, always, (sent == 1) * (offer == 1) + rng.normal(size=users)


@pytest.mark.parametrize(("first", "second"), [(1, 0), (0, 1), (1, 2)])
def test_the_log_must_support_each_policy_and_not_only_their_difference(first, second):
    """Offer b is worth 1 in the half that has it; what it is worth in the other half, no decision shows."""
    log, always, rewards = segments_without_an_offer()
    found = compare_policies(
        log, always[first], always[second], rewards, rng=np.random.default_rng(0), settings=QUICK, names=("A", "B")
    )
    assert found.reason.startswith(("A: mean weight 0.", "B: mean weight 0."))
    assert np.isnan(found.difference.point)


def test_policies_that_differ_where_the_log_never_acts_do_not_differ_by_nothing():
    """The weights of both are 0 at all messages, and so is their difference."""
    log, always, rewards = segments_without_an_offer()
    kept = log.actions[:, 1] == 0
    first, second = ([p[kept] for p in policy] for policy in always[1:])
    found = compare_policies(log[kept], first, second, rewards[kept], rng=np.random.default_rng(0), settings=QUICK)
    assert not found.identified
    same = compare_policies(log[kept], first, first, rewards[kept], rng=np.random.default_rng(0), settings=QUICK)
    assert (same.difference.low, same.difference.high) == (0.0, 0.0)


def test_channels_alone_are_compared_without_an_assumption():
    world = World.make(CHANNEL, seed=3)
    log, cell, rewards = world.draw(np.random.default_rng(0), 800, 2)
    uniform = [np.full((len(log), 3), 1 / 3)]
    found = compare_policies(log, world.policy(cell), uniform, rewards, rng=np.random.default_rng(0), settings=QUICK)
    assert (found.order, found.assumption) == (0, "")
    truth = world.truth(None) - float(world.earns.mean())
    assert abs(found.difference.point - truth) < 4 * found.difference.se


@pytest.mark.parametrize(
    "changes", [{"first": np.ones(2)}, {"rewards": np.array([1.0, np.nan, 2.0])}, {"counts": np.zeros(3)}]
)
def test_invalid_columns_are_refused(changes):
    columns = {"first": np.ones(3), "second": np.zeros(3), "rewards": np.ones(3), "counts": np.ones(3), **changes}
    with pytest.raises(InputError, match="comparison"):
        difference_of_values(*columns.values())
