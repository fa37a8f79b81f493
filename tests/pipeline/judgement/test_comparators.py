"""The policies that a policy is compared with: their weights by hand, their values against the truth."""

from __future__ import annotations

import json
import math
from dataclasses import replace
from types import SimpleNamespace

import numpy as np
import pytest

from crosschannel import agents, pipeline
from crosschannel.core.action_space import ActionSpace, Module
from crosschannel.evaluation import Interval, LoggedDecisions, Support, weight_bins
from crosschannel.evaluation.bootstrap import UNDEFINED
from crosschannel.evaluation.ladder.design import LadderDesign
from crosschannel.pipeline.judgement.comparators import compare
from crosschannel.pipeline.judgement.constants import (
    best_constants,
    constant_actions,
    constant_weights,
    one_hot,
    whole_weights,
)
from crosschannel.pipeline.judgement.evidence import evidence_of
from crosschannel.pipeline.judgement.gating import cost_events
from crosschannel.pipeline.judgement.headline_order import HeadlineOrder
from crosschannel.pipeline.judgement.notes import nothing_notes
from crosschannel.pipeline.judgement.records import Comparator
from crosschannel.pipeline.judgement.results import EvaluationResult
from crosschannel.pipeline.judgement.tables import comparators_table
from crosschannel.pipeline.report.comparators import comparators_section
from tests.programs.samples import SMALL

MODULES = ActionSpace(
    [
        Module("channel", ("none", "email", "push")),
        Module("offer", ("a", "b")),
        Module("text", ("a1", "a2", "b1"), "offer", ("a", "a", "b")),
    ]
)


def log_of(actions, propensity, eligible=None):
    actions = np.asarray(actions)
    propensity = np.asarray(propensity, dtype=float)
    return LoggedDecisions(
        modules=MODULES,
        actions=actions,
        propensity=propensity,
        joint=propensity.prod(1),
        user=np.arange(len(actions)),
        eligible=eligible,
    )


ACTIONS = [[0, 0, 0], [1, 0, 1], [1, 1, 2], [2, 0, 0]]
LOG = log_of(ACTIONS, [[0.5, 1, 1], [0.3, 0.6, 0.5], [0.3, 0.4, 1.0], [0.2, 0.6, 0.5]])
EVERYTHING = np.ones((4, MODULES.total), dtype=bool)


def test_the_probabilities_of_given_actions_are_1_for_them_and_0_for_others():
    actions = np.array([[0, 0, 0], [2, 1, 2], [1, 0, 1]])
    found = one_hot(MODULES, actions)
    assert MODULES.chosen_probabilities(found, actions) == pytest.approx(1.0)
    assert MODULES.chosen_probabilities(found, np.roll(actions, 1, 0)).prod(1) == pytest.approx(0.0)
    assert found[0].sum(1) == pytest.approx(1.0)


def test_a_constant_action_is_sent_where_all_of_its_parts_are_eligible():
    mask = np.ones((4, MODULES.total), dtype=bool)
    mask[1, 1] = False  # email
    mask[2, MODULES.slices[2].start + 1] = False  # text a2
    mask[3, MODULES.slices[1].start] = False  # offer a, and so its texts
    assert constant_actions(MODULES, mask, (1, 0, 1)).tolist() == [[1, 0, 1], [0, 0, 0], [0, 0, 0], [0, 0, 0]]
    assert (constant_actions(MODULES, mask, (0, 0, 0)) == 0).all()


@pytest.mark.parametrize(
    ("m", "code", "expected"),
    [
        (0, 0, [1 / 0.5, 0, 0, 0]),
        (0, 1, [0, 1 / 0.3, 1 / 0.3, 0]),
        (1, 0, [1, 1 / 0.6, 0, 1 / 0.6]),
        (1, 1, [1, 0, 1 / 0.4, 0]),
        (2, 1, [1, 1 / 0.5, 1, 0]),  # where the offer is b, no text of offer a can be chosen: as logged
    ],
)
def test_weights_of_a_constant_part_by_hand(m, code, expected):
    assert constant_weights(LOG, EVERYTHING, m, code) == pytest.approx(expected)


def test_weights_of_a_constant_whole_action_by_hand():
    assert whole_weights(LOG, EVERYTHING, (1, 0, 1)) == pytest.approx([0, 1 / (0.3 * 0.6 * 0.5), 0, 0])
    mask = EVERYTHING.copy()
    mask[0, 1] = False  # no email there, so that nothing is the right choice
    assert whole_weights(LOG, mask, (1, 0, 1)) == pytest.approx([1 / 0.5, 1 / (0.3 * 0.6 * 0.5), 0, 0])


def test_where_a_channel_is_not_eligible_nothing_is_sent():
    mask = EVERYTHING.copy()
    mask[:2, 1] = False
    assert constant_weights(LOG, mask, 0, 1) == pytest.approx([1 / 0.5, 0, 1 / 0.3, 0])


def test_the_best_part_of_each_module_is_found():
    """Rewards by module, 20,000 decisions: each best action is .2 above the next, far beyond the error."""
    rng = np.random.default_rng(0)
    n = 20_000
    channel, offer = rng.choice(3, n, p=[0.5, 0.3, 0.2]), rng.choice(2, n, p=[0.7, 0.3])
    text = np.where(offer == 0, rng.choice(2, n, p=[0.8, 0.2]), 2)
    propensity = np.stack(
        [
            np.array([0.5, 0.3, 0.2])[channel],
            np.array([0.7, 0.3])[offer],
            np.where(offer == 1, 1.0, np.array([0.8, 0.2, 1.0])[text]),
        ],
        axis=1,
    )
    actions = MODULES.canonical(np.stack([channel, offer, text], 1))
    propensity[actions[:, 0] == 0, 1:] = 1.0
    rewards = np.array([0.0, 0.1, 0.5])[actions[:, 0]] + (actions[:, 0] > 0) * (
        np.array([0.0, 0.3])[actions[:, 1]] + np.array([0.0, 0.5, 0.0])[actions[:, 2]]
    )
    rewards = rewards + rng.normal(size=n) * 0.3
    log, mask = log_of(actions, propensity), np.ones((n, MODULES.total), dtype=bool)
    found = best_constants(log, mask, rewards, np.ones(n), 200.0)
    assert found.modules == (2, 1, 1)
    assert found.whole == (2, 0, 1), "offer a is worth less on average, and more with its best text"
    assert best_constants(log, mask, rewards, np.ones(n), 1000.0).whole == (2, 1, 2), "too few decisions with that text"
    assert best_constants(log, mask, rewards, np.ones(n), 1500.0).whole == (2, 1, 2), "too few to compare wholes"
    rare = rewards + 100 * (actions[:, 0] == 1)
    assert best_constants(log, mask, rare, np.ones(n), 200.0).modules[0] == 1
    assert best_constants(log, mask, rare, np.ones(n), 8000.0).modules[0] != 1, "too few decisions with this channel"


def explained(users=1500, **settings):
    """The uniform agent on a small market, and what it does there: no learning is needed to compare."""
    values = {
        "agent.name": "uniform",
        "history.market.users": users,
        "history.market.days": 10,
        "evaluation.min_ess": 30,
        "context.windows": ["2d"],
        "context.events": ["visit:*"],
    }
    config = pipeline.load_config(SMALL[1], values | settings)
    data = pipeline.prepare(config)
    agent = agents.make_agent(modules=data.history.modules, device="cpu", **pipeline.agent_spec(config, data.features))
    return config, data, agent, pipeline.explain_policy(config, data, agent)


def judged(users=1500, **settings):
    """The same, judged."""
    return pipeline.judge(*explained(users, **settings))


def test_the_best_constant_may_be_to_send_nothing():
    rng = np.random.default_rng(1)
    channel = rng.choice(3, 3000, p=[0.5, 0.3, 0.2])
    actions = MODULES.canonical(np.stack([channel, np.zeros(3000, int), np.zeros(3000, int)], 1))
    propensity = np.column_stack([np.array([0.5, 0.3, 0.2])[channel], np.ones((3000, 2))])
    mask = np.ones((3000, MODULES.total), dtype=bool)
    found = best_constants(log_of(actions, propensity), mask, -1.0 * (channel > 0), np.ones(3000), 50.0)
    assert found.whole == (0, 0, 0)


@pytest.fixture(scope="module")
def result():
    return judged()


NAMES = ["logged", "uniform", "no send", "greedy", "best constant"]


def test_every_comparator_stands_beside_the_policy(result):
    names = [row.policy for row in result.comparators]
    assert names[:5] == NAMES
    assert [name for name in names if name.startswith("best constant ")] == [
        *(f"best constant {module}" for module in ("channel", "send_time", "service", "offer", "tone", "greeting")),
        "best constant by true effect",
    ]
    shown = str(result)
    for name in names:
        assert f"\n{name}" in shown
    assert shown.startswith("Verdict: ")
    assert shown.count("Verdict: ") == 1


def test_the_logged_policy_is_the_mean_of_the_log(result):
    rows = {row.policy: row for row in result.comparators}
    assert rows["logged"].value == result.evaluation.logged
    assert not rows["logged"].difference.is_defined
    assert rows["logged"].truth == pytest.approx(result.truth[2].per_decision)


def test_the_policy_is_nothing_ahead_of_itself(result):
    """The evaluated policy is the uniform one, so that its lead over `uniform` is 0 without any error."""
    uniform = next(row for row in result.comparators if row.policy == "uniform")
    assert abs(uniform.lead.point) < 1e-12
    assert uniform.lead.se < 1e-12
    assert uniform.truth == pytest.approx(result.truth[0].per_decision)


def test_leads_and_differences_are_those_of_the_values(result):
    logged = result.comparators[0].value.point
    policy = result.comparators[1].value.point + result.comparators[1].lead.point
    for row in result.comparators[1:-1]:
        if row.reason:
            assert not row.value.is_defined
            continue
        assert row.difference.point == pytest.approx(row.value.point - logged, abs=1e-12)
        assert row.lead.point == pytest.approx(policy - row.value.point, abs=1e-12)


def test_the_best_constant_by_true_effect_is_best_in_truth(result):
    truths = {row.policy: row.truth for row in result.comparators}
    assert truths["no send"] == 0
    assert truths["best constant by true effect"] >= max(truths["best constant"], truths["no send"]) - 0.01
    assert math.isnan(truths["best constant channel"])


def test_the_evaluated_policy_stands_among_them_by_their_estimator(result):
    policy, uniform = result.comparators[-1], result.comparators[1]
    assert policy.policy == "evaluated policy"
    assert policy.value.point == pytest.approx(uniform.value.point, abs=1e-12), "it is the uniform one"
    assert policy.truth == pytest.approx(result.truth[0].per_decision)
    assert not policy.lead.is_defined, "nothing leads itself"
    caption = comparators_section(result).pictures[0].caption
    assert "with a constant baseline" in caption
    assert "`evaluated policy` is the same policy by the estimator of the others" in caption


def test_what_stands_beside_the_headline_has_its_order():
    """Where the headline has moved to order 2, all has the weights and the support of order 2, as if that were set."""
    free = {"evaluation.min_ess": 1, "evaluation.min_users": 2, "evaluation.max_unsupported_mass": 1}
    config, data, agent, policy = explained(500, **free)
    judged_at_1 = pipeline.judge(config, data, agent, policy)
    evaluation = judged_at_1.evaluation
    assert evaluation.ladder.order == 1
    assert "at order 1 as the headline, but by weights alone" in str(judged_at_1)
    moved = replace(evaluation, ladder=replace(evaluation.ladder, order=2))
    assert "at order 2 as the headline" in str(replace(judged_at_1, evaluation=moved))
    p = policy.probabilities
    set_to_2 = replace(config, evaluation=replace(config.evaluation, order=2))
    kept = data.test.rewards.identified
    log = LoggedDecisions.from_history(data.test.history)[kept]
    rewards, counts = data.test.rewards.reward[kept], 1.0 / data.test.rewards.p_uncensored[kept]
    q = [each[kept] for each in p]
    design = LadderDesign.build(log, q, rewards, counts, None, set_to_2.evaluation.estimation)
    order = HeadlineOrder.from_evaluation(config, log, moved)
    weights, mass = order.weights(log, q), order.unsupported_mass(log, q)
    support = Support.from_weights(weights * counts / counts.mean(), rewards, log.user, np.ones(len(log), bool), mass)
    assert support == design.supports[2]
    assert support != design.supports[1]
    compared = compare(config, data, p, p, moved)
    assert compared[1].ess == pytest.approx(support.ess)
    assert compared[-1].ess == pytest.approx(support.ess)
    assert compared[1].ess != pytest.approx(judged_at_1.comparators[1].ess)
    # Unsubscribes are so rare that each order has too few effective decisions, but not the same number of them.
    reasons = [cost_events(config, data, p, each)[0].reason for each in (evaluation, moved)]
    assert all("ESS" in each for each in reasons)
    assert reasons[0] != reasons[1]
    bins = [evidence_of(config, data, agent, p, each).weights for each in (evaluation, moved)]
    assert bins[0] != bins[1]
    assert bins[1] == weight_bins(weights * counts / counts.mean())


def test_without_a_ladder_whole_messages_are_weighted():
    """Whatever order is set: all content is one factor, and order 1 that of whole messages."""
    evaluation = SimpleNamespace(ladder=None)
    config = pipeline.load_config(SMALL[1], {"evaluation.order": 2})
    policy = one_hot(LOG.modules, LOG.actions)
    found = HeadlineOrder.from_evaluation(config, LOG, evaluation)  # type: ignore[arg-type]
    assert found.weights(LOG, policy) == pytest.approx(1 / LOG.joint)
    assert found.unsupported_mass(LOG, policy) == pytest.approx(0.0)


def distances(result):
    """Distances of the identified values from the truth, in standard errors."""
    rows = [row for row in result.comparators if not row.reason and math.isfinite(row.truth)]
    return {row.policy: (row.value.point - row.truth) / row.value.se for row in rows}


def test_values_are_those_of_the_truth():
    """In `additive` order 1 is unbiased for all of them: each within 4.5 standard errors, one seed of a market."""
    found = distances(judged(4000, **{"history.market.scenario": "additive"}))
    assert set(NAMES[:4]) <= set(found)
    assert max(map(abs, found.values())) < 4.5


@pytest.mark.slow
def test_values_are_those_of_the_truth_over_many_markets():
    """30 markets where effects add up: the mean z of each comparator within 4 / sqrt(30) of 0; constants included."""
    z = [
        distances(judged(2000, **{"history.market.scenario": "additive", "history.market.seed": seed, "seed": seed}))
        for seed in range(30)
    ]
    for name in NAMES:
        values = [one[name] for one in z if name in one]
        if len(values) > 20:
            assert abs(np.mean(values)) < 4 / math.sqrt(len(values)), name


def test_where_the_log_does_not_identify_a_policy_the_table_says_so():
    result = judged(400, **{"evaluation.min_ess": 1e7})
    assert all(row.reason for row in result.comparators)
    assert result.gate.verdict == "not identified"
    assert result.advice
    assert "What would identify the value" in str(result)
    again = EvaluationResult.from_dict(json.loads(json.dumps(result.to_dict(), allow_nan=False)))
    assert str(again) == str(result)


def test_results_are_plain_values_and_back(result):
    again = EvaluationResult.from_dict(json.loads(json.dumps(result.to_dict(), allow_nan=False)))
    assert again.to_dict() == result.to_dict()
    assert str(again) == str(result)
    assert again.gate.to_dict() == result.gate.to_dict()


def test_a_table_without_truth_has_no_column_for_it():
    value = Interval(1.0, 0.5, 1.5, 0.25)
    row = Comparator("no send", "", value, value, UNDEFINED, 12.0)
    assert "true effect" not in comparators_table([row])
    assert "true effect" in comparators_table([replace(row, truth=0.5)])
    constant = replace(row, policy="best constant", detail="email, a, a1")
    assert comparators_table([constant]).endswith("\nbest constant: email, a, a1")


def test_what_the_log_makes_of_sending_nothing_is_named_where_it_is_not_0():
    value = Interval(0.1, 0.05, 0.15, 0.025)
    row = Comparator("no send", "", value, value, UNDEFINED, 12.0)
    (note,) = nothing_notes("did_dr", [replace(row, policy="logged"), row])
    assert note.startswith("Each value contains +0.1 [0.05, 0.15] that no message earned")
    assert nothing_notes("did_dr", [replace(row, value=Interval(0.1, -0.05, 0.25, 0.08))]) == []
    assert nothing_notes("raw", [row]) == [], "users buy without messages"
    assert nothing_notes("did", [replace(row, value=UNDEFINED)]) == nothing_notes("did", []) == []


def test_cost_events_are_compared_with_the_log(result):
    (cost,) = result.gate.costs
    assert cost.event == "unsubscribed"
    assert 0 < cost.logged < 0.02
    assert "ESS" in cost.reason, "so few events say nothing about their rate"
    bounded = judged(
        800, **{"evaluation.min_ess": 1, "evaluation.min_users": 2, "evaluation.gate.max_cost_increase": 0.0}
    )
    (cost,) = bounded.gate.costs
    if not cost.reason:
        assert cost.policy.low <= cost.policy.point <= cost.policy.high
    assert bounded.gate.verdict != "deploy", "uniform choices send twice as often"
