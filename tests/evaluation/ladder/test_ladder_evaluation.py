"""The ladder within an evaluation: what is reported first, steps that add up, tests, floors and what is refused."""

from __future__ import annotations

import json
from dataclasses import replace

import numpy as np
import pytest

from crosschannel.core.errors import ConfigError
from crosschannel.evaluation import (
    EvaluationSettings,
    Interval,
    OutcomeModel,
    caveats,
    evaluate,
    from_dict,
    headline,
    text_table,
    to_dict,
    verdict,
)
from crosschannel.evaluation.ladder.build import choose_order
from crosschannel.evaluation.ladder.design import LadderDesign
from tests.evaluation.ladder.test_factors import draw
from tests.evaluation.ladder.worlds import MESSAGE, random_policy
from tests.evaluation.report.samples import evaluated

pytestmark = pytest.mark.numerics

QUICK = EvaluationSettings(bootstrap_replicates=60, min_ess=50)


def logged(users: int = 1500, interaction: float = 0.0, seed: int = 0, **settings: object):
    """An evaluation of a policy in a world in which the tone `cold` and the offer `free` interact or not."""
    rng = np.random.default_rng(seed)
    mu, pi = random_policy(MESSAGE, rng, 1), random_policy(MESSAGE, rng, 1)
    log = draw(MESSAGE, mu, rng, users)
    sent, cold, free = MESSAGE.sends(log.actions), log.actions[:, 2] == 1, log.actions[:, 3] == 1
    noise = 0.3 * rng.normal(size=len(log))
    rewards = sent * (0.4 + 0.3 * cold + 0.2 * free + interaction * cold * free) + noise
    policy = [np.repeat(p, len(log), 0) for p in pi]
    found = evaluate(
        log,
        policy,
        rewards,
        rng=np.random.default_rng(1),
        settings=replace(QUICK, **settings),
        policy="agent",
    )
    p = [q[0] for q in pi]
    truth = p[0][1:].sum() * (0.4 + 0.3 * p[2][1] + 0.2 * p[3][1] + interaction * p[2][1] * p[3][1])
    return found, float(truth)


@pytest.fixture(scope="module")
def additive():
    return logged()


def test_the_headline_is_order_one_and_names_its_assumption_and_population(additive):
    found, truth = additive
    ladder = found.ladder
    assert ladder.factors == ("hour", "tone", "offer")
    assert headline(found) is ladder.orders[1]
    assert headline(found).value.contains(truth)
    assert headline(found).assumption in verdict(found)
    assert [e.estimator for e in ladder.orders] == ["order 0", "order 1", "order 2", "order 3"]
    assert [bool(e.assumption) for e in ladder.orders] == [True, True, True, False]
    assert all("per decision with a reward" in e.estimand for e in ladder.orders)
    text = text_table(found)
    assert f"over the same {found.decisions:,} decisions" in text
    assert "order 1 *" in text
    assert "The log does not contradict that assumption, but would show large interactions only." in text


def test_steps_add_up_and_each_has_an_interval(additive):
    found, _ = additive
    steps = found.ladder.waterfall
    assert [step.name for step in steps] == ["logged", "channel", "hour", "tone", "offer", "policy"]
    points = [step.value.point for step in steps]
    assert sum(points[:-1]) == pytest.approx(points[-1], abs=1e-12)
    assert points[0] == found.logged.point
    assert points[-1] == headline(found).value.point
    assert all(step.value.is_defined for step in steps)


def test_orders_differ_by_their_interactions_and_these_are_sums_of_pairs(additive):
    found, _ = additive
    ladder = found.ladder
    values = [e.value.point for e in ladder.orders]
    assert np.diff(values)[1:] == pytest.approx([each.value.point for each in ladder.totals], abs=1e-12)
    assert sum(pair.value.point for pair in ladder.pairs) == pytest.approx(ladder.totals[0].value.point, abs=1e-12)
    assert [pair.factors for pair in ladder.pairs] == [("hour", "tone"), ("hour", "offer"), ("tone", "offer")]


def test_a_higher_order_can_be_set_and_its_interactions_are_a_step(additive):
    found, _ = logged(order=2)
    assert headline(found).estimator == "order 2"
    steps = found.ladder.waterfall
    assert steps[-2].kind == "interactions"
    assert sum(step.value.point for step in steps[:-1]) == pytest.approx(steps[-1].value.point, abs=1e-12)
    highest, _ = logged(order=7)
    assert headline(highest).estimator == "order 3"
    assert headline(highest).assumption == ""
    assert highest.ladder.breakdown is None


def test_where_the_channel_alone_is_not_identified_nothing_is_said_of_what_content_changes(monkeypatch):
    build = LadderDesign.build

    def without_order_0(*arguments):
        design = build(*arguments)
        return replace(design, reasons=("ESS 3 < 50", *design.reasons[1:]))

    assert logged()[0].ladder.breakdown is not None
    monkeypatch.setattr(LadderDesign, "build", without_order_0)
    found, _ = logged()
    assert headline(found).identified
    assert found.ladder.breakdown is None
    assert "Breakdown point" not in text_table(found)


def test_a_large_interaction_is_named_and_moves_the_headline():
    found, truth = logged(users=6000, interaction=2.0)
    ladder = found.ladder
    pair = next(each for each in ladder.pairs if each.factors == ("tone", "offer"))
    assert pair.p_value < 0.001
    assert all(other.p_value > 0.05 for other in ladder.pairs if other is not pair)
    assert ladder.order == 2
    assert "whose assumption is contradicted" in ladder.why
    assert headline(found).value.contains(truth)
    assert not ladder.orders[1].value.contains(truth)
    assert "It is not order 1: the interval of order 2 does not meet that of order 1" in text_table(found)


def test_a_pair_that_is_found_without_moving_the_headline_is_told():
    found, _ = logged(users=1500, interaction=0.5)
    assert found.ladder.order == 1
    assert "The log contradicts what order 1 assumes: `tone` x `offer` (p = " in text_table(found)
    assert any(line.startswith("The log contradicts what order 1 assumes: `tone` x") for line in caveats(found))
    second, _ = logged(users=1500, interaction=0.5, order=2)
    assert not any("contradicts" in line for line in caveats(second))
    assert "The log does not contradict that assumption" in text_table(second)


def with_values(orders, values):
    intervals = [None if v is None else Interval(np.mean(v), v[0], v[1], 1.0) for v in values]
    return [
        replace(e, value=e.value if v is None else v, reason="ESS 3 < 200" if v is None else "")
        for e, v in zip(orders, intervals, strict=True)
    ]


@pytest.mark.parametrize(
    ("values", "order", "expected"),
    [
        ([(0, 1), (2, 3), (2.5, 4), (2, 6)], 1, 1),
        ([(0, 1), (2, 3), (3.5, 4), (2, 6)], 1, 2),
        ([(0, 1), (2, 3), (3.5, 4), (5, 6)], 1, 3),
        ([(0, 1), (2, 3), (2.5, 4), (5, 6)], 1, 3),
        # Not identified, neither as the start nor as what contradicts it; a lower order never replaces it.
        ([(0, 1), None, (3.5, 4), (5, 6)], 1, 1),
        ([(0, 1), (2, 3), None, (2, 6)], 1, 1),
        ([(5, 6), (2, 3), (2, 4), (2, 6)], 1, 1),
        ([(5, 6), (7, 8), (2, 4), (2, 6)], 2, 2),
    ],
)
def test_the_order_moves_upwards_only_where_intervals_do_not_meet(additive, values, order, expected):
    found, why = choose_order(with_values(additive[0].ladder.orders, values), order)
    assert found == expected
    assert bool(why) == (found != order)


def test_each_move_is_explained_by_the_orders_it_was_between(additive):
    """Order 2 does not meet order 1, and order 3 meets order 1 but not order 2."""
    orders = with_values(additive[0].ladder.orders, [(0, 1), (5, 6), (3, 4), (4.5, 5.5)])
    assert choose_order(orders, 1) == (
        3,
        "the interval of order 2 does not meet that of order 1, whose assumption is contradicted; the interval of "
        "order 3 does not meet that of order 2, whose assumption is contradicted",
    )


def test_below_the_floors_nothing_is_reported_first():
    found, _ = logged(users=100, min_ess=1e4)
    ladder = found.ladder
    assert not headline(found).identified
    assert headline(found).estimator == "order 1"
    assert "ESS" in headline(found).reason
    assert all("ESS" in step.reason for step in ladder.waterfall[1:])
    assert all(np.isnan(step.value.point) for step in ladder.waterfall[1:])
    assert ladder.breakdown is None
    assert all("effective number of decisions" in pair.reason for pair in ladder.pairs)
    assert "The log is too small to test that assumption." in text_table(found)
    assert verdict(found).startswith("The log does not identify the value of agent (ESS ")


def test_steps_are_identified_where_the_headline_is_not():
    """What one part adds given the policy's channel needs support for these two only."""
    whole, _ = logged()
    ess = whole.ladder.orders[1].support.ess
    found, _ = logged(min_ess=1.1 * ess)
    assert not headline(found).identified
    steps = {step.name: step for step in found.ladder.waterfall}
    expected = {step.name: step for step in whole.ladder.waterfall}
    known = [name for name, step in steps.items() if not step.reason]
    assert {"logged", "channel", "hour"} <= set(known)
    assert all(steps[name] == expected[name] for name in known)
    assert "policy" not in known
    assert "ESS" in steps["policy"].reason
    assert "not identified (ESS" in text_table(found)


def test_json_is_strict_versioned_and_read_back(additive):
    for found in (additive[0], logged(users=100, min_ess=1e4)[0], logged(factors="hour+tone+offer")[0]):
        written = json.loads(json.dumps(to_dict(found), allow_nan=False))
        assert written["schema"] == 2
        assert written["headline"]["estimator"] == headline(found).estimator
        assert to_dict(from_dict(written)) == to_dict(found)
    with pytest.raises(ConfigError, match="schema 1, not 2: evaluate again"):
        from_dict({**written, "schema": 1})
    with pytest.raises(ConfigError, match="ladder has no order 5"):
        from_dict({**written, "ladder": {**written["ladder"], "order": 5}})
    with pytest.raises(ConfigError, match="ladder has no steps from the log to the policy"):
        from_dict({**written, "ladder": {**written["ladder"], "waterfall": []}})
    with pytest.raises(ConfigError, match="no estimate of the whole action"):
        from_dict({**written, "estimates": [e for e in written["estimates"] if e["module"]]})


def test_the_first_module_is_called_by_its_name():
    found, _ = logged()
    text = text_table(found)
    assert "its `tone`, given its channel" in text
    assert "adds up given the channel" in verdict(found)
    offers = evaluated(policy="agent")
    assert "its `variant`, given its `type`" in text_table(offers)
    assert "adds up given `type`" in verdict(offers)


def test_one_factor_is_told_and_needs_no_assumption():
    found, _ = logged(factors="hour+tone+offer")
    assert found.ladder.factors == ("hour+tone+offer",)
    assert headline(found).estimator == "order 1"
    assert headline(found).assumption == ""
    assert headline(found).support.ess == pytest.approx(found.get("ips").support.ess, rel=1e-9)
    assert "As `hour+tone+offer` is the only factor, order 1 is the weight of the whole action" in text_table(found)
    independent, _ = logged(factors="independent")
    assert independent.ladder.orders[1].support.ess > 1.2 * found.ladder.orders[1].support.ess


def test_the_highest_order_has_the_value_of_dr_with_a_model_of_the_channel():
    rng = np.random.default_rng(0)
    mu, pi = random_policy(MESSAGE, rng, 1), random_policy(MESSAGE, rng, 1)
    log = draw(MESSAGE, mu, rng, 500)
    x = rng.normal(size=(len(log), 2))
    rewards = x[:, 0] + log.actions[:, 0] + rng.normal(size=len(log))
    p = [np.repeat(each, len(log), 0) for each in pi]
    q = OutcomeModel.fit(MESSAGE, x, log.actions, rewards, log.user).q_values(x, log.actions, p)
    found = evaluate(log, p, rewards, rng=rng, q_values=[q[1], *q[1:]], settings=QUICK)
    assert found.ladder.orders[3].value.point == pytest.approx(found.get("dr").value.point, abs=1e-12)
    assert found.ladder.orders[3].value.se == pytest.approx(found.get("dr").value.se, rel=1e-9)


def test_actions_that_the_log_never_takes_are_counted_by_factor():
    rng = np.random.default_rng(0)
    mu, pi = random_policy(MESSAGE, rng, 1), random_policy(MESSAGE, rng, 1)
    mu[2][:] = [0.5, 0.5, 0.0]
    log = draw(MESSAGE, mu, rng, 800)
    p = [np.repeat(each, len(log), 0) for each in pi]
    found = evaluate(log, p, rng.normal(size=len(log)), rng=rng, settings=QUICK)
    missing = (1 - pi[0][0, 0]) * pi[2][0, 2]
    zero, one, *_ = found.ladder.orders
    assert zero.support.unsupported_mass == pytest.approx(0.0, abs=1e-12)
    assert one.support.unsupported_mass == pytest.approx(missing, abs=1e-9)
    assert zero.identified
    assert "of the policy's mass is on actions that the log never takes" in one.reason


def test_a_log_with_the_joint_propensity_only_has_no_ladder():
    rng = np.random.default_rng(0)
    log = draw(MESSAGE, random_policy(MESSAGE, rng, 1), rng, 300)
    p = [np.repeat(each, len(log), 0) for each in random_policy(MESSAGE, rng, 1)]
    joint_only = replace(log, propensity=np.full(log.propensity.shape, np.nan))
    found = evaluate(joint_only, p, rng.normal(size=len(log)), rng=rng, settings=QUICK)
    assert found.ladder is None
    assert found.no_ladder.startswith(f"the log has no propensity of each module for {len(log):,} decisions")
    assert headline(found).estimator == "beta-ips"
    assert from_dict(to_dict(found)).no_ladder == found.no_ladder


@pytest.mark.parametrize("order", [0, -1])
def test_order_zero_is_never_the_headline(order):
    with pytest.raises(ConfigError, match="order 0 assumes that the content of messages earns nothing"):
        EvaluationSettings(order=order)


def test_order_one_covers_the_truth_where_effects_add_up():
    """Twenty logs: fewer than 16 intervals with the truth have a chance of 3e-4 at .95."""
    covered = 0
    for seed in range(20):
        found, truth = logged(users=600, seed=seed)
        covered += not headline(found).identified or headline(found).value.contains(truth)
    assert covered >= 16
