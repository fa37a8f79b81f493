"""The gate's rule, and the choice of the best of several policies without the winner's curse."""

from __future__ import annotations

import json
import math
from dataclasses import replace

import numpy as np
import pytest

from crosschannel.core.errors import ConfigError, NotIdentified
from crosschannel.evaluation import Interval
from crosschannel.evaluation.bootstrap import UNDEFINED
from crosschannel.evaluation.gate import (
    DEPLOY,
    HOLD,
    NOT_IDENTIFIED,
    CostEvent,
    ExpectedUse,
    GateRule,
    GateVerdict,
    gate_verdict,
    select_best,
)

GAIN, NOTHING, LOSS = Interval(0.2, 0.1, 0.3, 0.05), Interval(0.2, -0.1, 0.5, 0.15), Interval(-0.2, -0.3, -0.1, 0.05)
RARE = CostEvent("unsubscribed", logged=0.010, policy=Interval(0.011, 0.010, 0.012, 0.0005))
COMMON = CostEvent("removed", logged=0.010, policy=Interval(0.015, 0.010, 0.020, 0.0025))
UNKNOWN = CostEvent("removed", logged=0.010, policy=UNDEFINED, reason="ESS 7 < 200")
BOUNDED = GateRule(max_cost_increase=0.5)


@pytest.mark.parametrize(
    ("difference", "rule", "rest", "expected", "words"),
    [
        (GAIN, GateRule(), {}, DEPLOY, "[0.1, 0.3], above 0"),
        (NOTHING, GateRule(), {}, HOLD, "does not show a gain of more than 0"),
        (LOSS, GateRule(), {}, HOLD, "does not show"),
        (Interval(0.1, 0.0, 0.2, 0.05), GateRule(), {}, HOLD, "does not show"),
        (GAIN, GateRule(min_lift=0.1), {}, HOLD, "more than 0.1"),
        (GAIN, GateRule(), {"recent": LOSS}, HOLD, "last third of the log's time the difference is -0.2"),
        (GAIN, GateRule(), {"recent": NOTHING}, DEPLOY, "above 0"),
        (GAIN, GateRule(), {"recent": UNDEFINED}, DEPLOY, "above 0"),
        (GAIN, GateRule(min_lift=-0.5), {"recent": LOSS}, DEPLOY, "above -0.5"),
        (NOTHING, GateRule(min_lift=-0.2), {}, DEPLOY, "above -0.2"),
        (UNDEFINED, GateRule(), {"not_identified": "ESS 30 < 200"}, NOT_IDENTIFIED, "ESS 30 < 200"),
        (GAIN, GateRule(), {"not_identified": "ESS 30 < 200"}, NOT_IDENTIFIED, "ESS 30 < 200"),
        (UNDEFINED, GateRule(), {}, NOT_IDENTIFIED, "undefined"),
        (GAIN, BOUNDED, {"costs": (RARE,)}, DEPLOY, "within their bounds on the log: `unsubscribed`"),
        (GAIN, BOUNDED, {"costs": (RARE, COMMON)}, HOLD, "`removed` may follow up to 2.000% of decisions"),
        (GAIN, GateRule(), {"costs": (COMMON, UNKNOWN)}, DEPLOY, "above 0."),
        (GAIN, BOUNDED, {"costs": (UNKNOWN,)}, NOT_IDENTIFIED, "rate of `removed` under the policy: ESS 7 < 200"),
        (LOSS, BOUNDED, {"costs": (UNKNOWN,)}, HOLD, "does not show"),
        (GAIN, GateRule(), {"constraints": (ExpectedUse("sms", 5.0, 4.0),)}, HOLD, "use 5 of `sms`, of which it may 4"),
        (
            GAIN,
            GateRule(),
            {"constraints": (ExpectedUse("sms", 4.0, 4.0),)},
            DEPLOY,
            "did not check, within the limits on `sms`",
        ),
        (GAIN, replace(BOUNDED, max_cost_increase=0.0), {"costs": (replace(RARE, policy=GAIN),)}, HOLD, "unsubscribed"),
    ],
)
def test_the_rule(difference, rule, rest, expected, words):
    found = gate_verdict(difference, rule, **rest)
    assert found.verdict == expected
    assert words in found.reason
    assert found.exit_code == {DEPLOY: 0, HOLD: 3, NOT_IDENTIFIED: 4}[expected]
    assert str(found).startswith(f"Verdict: {expected}. ")


def test_what_the_log_measured_stands_apart_from_what_the_agent_estimates():
    constraints = (ExpectedUse("unsubscribed", 4.0, 4.0), ExpectedUse("sms", 1.0, 4.0))
    measured = "cost events within their bounds on the log: `unsubscribed`"
    estimated = "by the agent's own estimates, which the log did not check, within the limits on `unsubscribed`, `sms`"
    found = gate_verdict(GAIN, BOUNDED, costs=(RARE,), constraints=constraints)
    assert found.reason.endswith(f"; {measured}; {estimated}.")
    # Without a bound on rates nothing was measured, although the rates are known.
    found = gate_verdict(GAIN, GateRule(), costs=(RARE,), constraints=constraints)
    assert found.reason.endswith(f", above 0; {estimated}.")


def test_all_reasons_to_hold_are_named():
    found = gate_verdict(LOSS, BOUNDED, costs=(COMMON,), constraints=(ExpectedUse("sms", 5.0, 4.0),))
    assert found.reason.count(";") == 2


def test_a_verdict_is_plain_values_and_back():
    unknown = gate_verdict(UNDEFINED, GateRule(), not_identified="few")
    for found in (gate_verdict(GAIN, BOUNDED, costs=(RARE, UNKNOWN)), unknown):
        text = json.dumps(found.to_dict(), allow_nan=False)
        again = GateVerdict.from_dict(json.loads(text))
        assert again.to_dict() == found.to_dict()
        assert (again.verdict, again.reason, again.rule) == (found.verdict, found.reason, found.rule)
        assert [cost.event for cost in again.costs] == [cost.event for cost in found.costs]


@pytest.mark.parametrize(
    "wrong", [{"min_lift": math.nan}, {"max_cost_increase": -0.1}, {"max_cost_increase": math.inf}]
)
def test_rules_that_are_none_are_refused(wrong):
    with pytest.raises(ConfigError, match="gate:"):
        GateRule(**wrong)
    with pytest.raises(ConfigError, match="none of"):
        GateVerdict("perhaps", "")


def null_world(rng, policies=8, users=200, per_user=5):
    """Policies that are all worth 0: rewards of noise, and weights of a policy of its own for each."""
    user = np.repeat(np.arange(users), per_user)
    rewards = rng.normal(size=len(user)) + rng.normal(size=users)[user]
    weights = rng.exponential(size=(policies, len(user)))

    def value(name, rows):
        terms = weights[int(name), rows] * rewards[rows]
        by_user = np.bincount(user[rows], weights=terms, minlength=users)[np.unique(user[rows])]
        mean, se = terms.mean(), by_user.std() * np.sqrt(len(by_user)) / rows.sum()
        return Interval(mean, mean - 1.96 * se, mean + 1.96 * se, se)

    return user, [str(k) for k in range(policies)], value


@pytest.mark.parametrize("worlds", [150, pytest.param(1500, marks=pytest.mark.slow)])
def test_the_winners_estimate_is_unbiased_in_worlds_without_effects(worlds):
    """Mean z of the winner within 3.5 standard errors of 0 on its own fold, far above 0 on the fold that chose."""
    own, chosen_by = [], []
    for seed in range(worlds):
        user, names, value = null_world(np.random.default_rng(seed))
        found = select_best(user, names, value, np.random.default_rng(seed))
        own.append(found.value.point / found.value.se)
        chosen_by.append(max(found.candidates.values()) / found.value.se)
    assert abs(np.mean(own)) < 3.5 / np.sqrt(worlds)
    assert np.mean(chosen_by) > 10 / np.sqrt(worlds)
    assert np.mean(np.abs(own) < 1.96) > 0.95 - 3.5 * math.sqrt(0.95 * 0.05 / worlds)


def test_the_best_policy_is_found_where_one_is_better():
    user, names, value = null_world(np.random.default_rng(0))

    def better(name, rows):
        found = value(name, rows)
        return replace(found, point=found.point + 5) if name == "3" else found

    assert select_best(user, names, better, np.random.default_rng(1)).name == "3"


def test_policies_without_a_value_are_never_chosen():
    user, names, value = null_world(np.random.default_rng(0))
    found = select_best(
        user, names, lambda name, rows: value(name, rows) if name == "2" else UNDEFINED, np.random.default_rng(1)
    )
    assert found.name == "2"
    assert math.isnan(found.candidates["0"])
    with pytest.raises(NotIdentified, match="any policy"):
        select_best(user, names, lambda name, rows: UNDEFINED, np.random.default_rng(1))
    with pytest.raises(NotIdentified, match="cannot be split"):
        select_best(np.zeros(9), names, value, np.random.default_rng(1))
    with pytest.raises(ConfigError, match="no policy"):
        select_best(user, [], value, np.random.default_rng(1))
    with pytest.raises(ConfigError, match="share 1"):
        select_best(user, names, value, np.random.default_rng(1), share=1.0)
