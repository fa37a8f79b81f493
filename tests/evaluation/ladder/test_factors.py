"""Factors: what the modules declare, what the configuration declares, what the log shows, and how often it errs."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from crosschannel.core.action_space import ActionSpace, Module
from crosschannel.core.arrays import FloatArray
from crosschannel.core.errors import ConfigError
from crosschannel.evaluation import LoggedDecisions
from crosschannel.evaluation.ladder import dependence_tests, find_factors, ladder_values, ladder_weights
from tests.evaluation.ladder.worlds import MESSAGE, NESTED, EveryAction, random_policy

pytestmark = pytest.mark.numerics


def draw(
    modules: ActionSpace, p: list[FloatArray], rng: np.random.Generator, users: int, rows: int = 2
) -> LoggedDecisions:
    """A log of a policy with probabilities (contexts, *shape(m)), at random contexts."""
    n = users * rows
    cell = rng.integers(len(p[0]), size=n)
    at = [q[cell] for q in p]
    joint = modules.all_joint_probabilities(at)
    code = (rng.random(n)[:, None] > np.cumsum(joint, 1)).sum(1).clip(max=joint.shape[1] - 1)
    actions = modules.joint_actions[code]
    propensity = modules.chosen_probabilities(at, actions)
    return LoggedDecisions(modules, actions, propensity, propensity.prod(1), np.repeat(np.arange(users), rows))


#: The same actions for a log in which the tone was chosen given the hour, and for a policy that draws them apart.
CHAINED = ActionSpace(
    [
        Module("channel", ("none", "email", "push")),
        Module("hour", ("am", "pm")),
        Module("tone", ("warm", "cold", "dry"), condition_on="hour"),
        Module("offer", ("ten", "free")),
    ]
)


def undeclared(log: LoggedDecisions) -> LoggedDecisions:
    """The log with modules that do not declare what they were drawn given."""
    return replace(log, modules=ActionSpace([Module(m.name, m.actions) for m in log.modules]))


def test_modules_with_a_parent_or_a_condition_are_one_factor():
    log = EveryAction.of(NESTED).log
    found = find_factors(log, "independent")
    assert found.members == ((1, 3), (2, 4), (5,))
    assert found.names == ("hour+tone", "offer+variant", "greeting")
    # A condition on the channel joins nothing.
    assert find_factors(EveryAction.of(MESSAGE).log, "independent").members == ((1,), (2,), (3,))


def test_the_configuration_declares_factors():
    log = EveryAction.of(MESSAGE).log
    assert find_factors(log, "hour+offer").names == ("hour+offer", "tone")
    assert find_factors(log, "hour, tone + offer").names == ("hour", "tone+offer")
    assert find_factors(log, "hour+tone+offer").members == ((1, 2, 3),)
    assert "configuration declares" in find_factors(log, "independent").source


@pytest.mark.parametrize(
    ("declared", "message"),
    [
        ("hour+price", "names 'price', which is not a content module"),
        ("channel+hour", "names 'channel', which is not a content module"),
        ("hour+tone, tone+offer", "names a module twice"),
        ("", "names '', which is not a content module"),
    ],
)
def test_declarations_that_do_not_fit_are_refused(declared, message):
    with pytest.raises(ConfigError, match=message.replace("+", r"\+")):
        find_factors(EveryAction.of(MESSAGE).log, declared)


def test_a_channel_alone_has_no_factors_and_one_module_is_one():
    one = ActionSpace([Module("channel", ("none", "email"))])
    log = EveryAction.of(ActionSpace([*one, Module("tone", ("a", "b"))])).log
    assert find_factors(log).members == ((1,),)
    alone = LoggedDecisions(one, np.array([[0], [1]]), np.full((2, 1), 0.5), np.full(2, 0.5), np.arange(2))
    assert find_factors(alone).members == ()


def test_propensities_that_are_no_product_make_one_factor():
    log = EveryAction.of(MESSAGE).log
    sent = MESSAGE.sends(log.actions)
    templates = replace(log, joint=np.where(sent, log.joint * 0.5, log.joint))
    found = find_factors(templates, "independent")
    assert found.members == ((1, 2, 3),)
    assert f"not the product of its modules' at {sent.sum()} decisions" in found.source
    rounded = replace(log, joint=log.joint * 1.01)
    assert len(find_factors(rounded, "independent").members) == 3


def test_a_module_that_was_drawn_given_another_is_found():
    rng = np.random.default_rng(0)
    log = undeclared(draw(CHAINED, random_policy(CHAINED, rng, 4), rng, users=4000))
    found = find_factors(log)
    assert found.names == ("hour+tone", "offer")
    assert "`hour` and `tone` were not drawn independently" in found.source
    assert {(t.first, t.second): t.dependent for t in found.tests} == {(1, 2): True, (1, 3): False, (2, 3): False}


def test_templates_are_found_though_every_weight_has_the_right_mean():
    """Eight of the pairs of offer and tone are used: the second's propensity is given the first."""
    rng = np.random.default_rng(1)
    names = {"channel": ("none", "push"), "offer": tuple("abcd"), "tone": tuple("xyz"), "hour": ("am", "pm")}
    modules = ActionSpace([Module(name, actions) for name, actions in names.items()])
    pairs = np.array([(0, 0), (0, 1), (1, 1), (1, 2), (2, 0), (2, 2), (3, 0), (3, 1)])
    n = 12_000
    template, hour = rng.integers(8, size=n), rng.integers(2, size=n)
    sent = rng.random(n) < 0.5
    actions = np.column_stack([np.ones(n, dtype=np.int64), pairs[template], hour]) * sent[:, None]
    propensity = np.where(sent[:, None], [0.5, 0.25, 0.5, 0.5], [0.5, 1.0, 1.0, 1.0])
    log = LoggedDecisions(modules, actions, propensity, propensity.prod(1), np.arange(n) // 3)
    assert find_factors(log).names == ("offer+tone", "hour")


def test_what_the_context_chooses_is_not_dependence():
    """Hour and tone both follow the context closely, and are drawn independently given it: no pair is joined."""
    rng = np.random.default_rng(3)
    p = random_policy(MESSAGE, rng, 6, scale=1.5)
    for row in range(6):
        p[1][row, :, 0], p[1][row, :, 1] = (0.9, 0.1) if row % 2 else (0.1, 0.9)
        p[2][row] = [0.8, 0.1, 0.1] if row % 2 else [0.1, 0.1, 0.8]
    log = draw(MESSAGE, p, rng, users=10_000)
    sent = MESSAGE.sends(log.actions)
    assert abs(np.corrcoef(log.actions[sent, 1], log.actions[sent, 2])[0, 1]) > 0.4
    assert len(find_factors(log).members) == 3


def test_eligibility_that_varies_is_not_dependence():
    """The dry tone and the free offer are possible for the same users only."""
    rng = np.random.default_rng(4)
    n = 20_000
    may = rng.random(n) < 0.5
    sent = rng.random(n) < 0.6
    tone = np.where(may, rng.integers(3, size=n), rng.integers(2, size=n))
    offer = np.where(may, rng.integers(2, size=n), 0)
    actions = np.column_stack([sent, sent * (rng.random(n) < 0.5), sent * tone, sent * offer]).astype(np.int64)
    p = np.column_stack([np.where(sent, 0.6, 0.4), np.full(n, 0.5), np.where(may, 1 / 3, 0.5), np.where(may, 0.5, 1.0)])
    p[~sent, 1:] = 1.0
    eligible = np.ones((n, MESSAGE.total), dtype=bool)
    eligible[:, MESSAGE.slices[2].start + 2] = eligible[:, MESSAGE.slices[3].start + 1] = may
    log = LoggedDecisions(MESSAGE, actions, p, p.prod(1), np.arange(n), eligible)
    assert len(find_factors(log).members) == 3


def test_users_who_always_get_the_same_are_not_dependence():
    """Forty decisions of each user have one assignment: a test of rows would take their number for evidence."""
    rng = np.random.default_rng(5)
    joined = 0
    for _ in range(20):
        log = draw(MESSAGE, random_policy(MESSAGE, rng, 1), rng, users=400, rows=1)
        again = np.repeat(np.arange(400), 40)
        log = replace(log, **{name: getattr(log, name)[again] for name in ("actions", "propensity", "joint", "user")})
        joined += len(find_factors(log).members) < 3
    assert joined <= 1


def false_alarms(logs: int, users: int, seed: int) -> int:
    """In how many logs of independent modules some pair is joined."""
    rng = np.random.default_rng(seed)
    return sum(
        any(t.dependent for t in dependence_tests(log, [(1, 2), (1, 3), (2, 3)]))
        for log in (draw(MESSAGE, random_policy(MESSAGE, rng, 4, scale=1.2), rng, users) for _ in range(logs))
    )


def test_independent_modules_are_rarely_joined():
    """In less than .05 of logs: more than 9 of 60 have a chance of 1e-3."""
    assert false_alarms(60, users=600, seed=100) <= 9


@pytest.mark.slow
@pytest.mark.parametrize("users", [200, 2_000, 20_000])
def test_independent_modules_are_joined_in_few_logs(users):
    """In less than .05 of logs with skewed propensities (.01 is nominal): more than 40 of 500 have a chance of 2e-3."""
    assert false_alarms(500, users, seed=users) <= 40


def test_modules_drawn_together_are_biased_as_factors_even_if_effects_add_up():
    """Exact, by enumeration: order 1 is right with the pair as one factor, and wrong with its modules as two."""
    rng = np.random.default_rng(8)
    actions = CHAINED.joint_actions
    mu = random_policy(CHAINED, rng, 1)
    apart = ActionSpace([Module(m.name, m.actions) for m in CHAINED])
    pi = random_policy(apart, rng, 1)
    n = len(actions)
    propensity = CHAINED.chosen_probabilities([np.repeat(p, n, 0) for p in mu], actions)
    policy = [np.repeat(p, n, 0) for p in pi]
    log = LoggedDecisions(apart, actions, propensity, propensity.prod(1), np.arange(n))
    sent = apart.sends(actions)
    rewards = sum(sent * rng.normal(size=size)[actions[:, m]] for m, size in enumerate(apart.sizes))
    truth = apart.chosen_probabilities(policy, actions).prod(1) @ rewards
    chance = propensity.prod(1)
    together, separate = (
        ladder_values(ladder_weights(log, policy, factors), rewards, counts=chance)[1]
        for factors in (((1, 2), (3,)), ((1,), (2,), (3,)))
    )
    assert together == pytest.approx(truth, abs=1e-12)
    assert abs(separate - truth) > 0.01
