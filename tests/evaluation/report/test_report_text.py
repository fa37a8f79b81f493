"""The text of the report: every estimate is in it, in words that fit the numbers."""

from __future__ import annotations

import re
from dataclasses import replace

import pytest

from crosschannel.evaluation import (
    EvaluationSettings,
    Interval,
    caveats,
    headline,
    headline_text,
    module_effects,
    text_table,
    verdict,
)
from crosschannel.evaluation.ladder.breakdown import MAX_SHARE
from crosschannel.evaluation.report.formatting import reasons_once
from crosschannel.evaluation.report.ladder_text import breakdown_sentence
from tests.evaluation.report.samples import evaluated, identified, not_identified, refused


def test_table_has_every_estimate():
    good = identified()
    text = text_table(good)
    for e in good.estimates:
        name = "(dm)" if e.estimator == "dm" else e.estimator
        row = next(line for line in text.splitlines() if line.startswith(f"{e.label}  ") and f" {name} " in line)
        for interval in (e.value, e.difference):
            assert f"{interval.point:+.4g} " in row
            assert f"[{interval.low:.4g}, {interval.high:.4g}]" in row
        assert f"{e.label}: {e.estimand}" in text
    assert "logged propensities" in text
    assert f"{good.logged.point:+.4g}" in text


def test_below_the_minimum_ess_the_table_gives_the_reason_and_no_number():
    poor = not_identified()
    text = text_table(poor)
    e = poor.get("snips")
    row = next(line for line in text.splitlines() if line.startswith("the whole action") and " snips " in line)
    assert row.endswith(f"not identified (ESS {e.support.ess:.0f} < 1,000,000)")
    assert "nan" not in text


def test_the_headline_has_every_order_and_no_single_module():
    good = identified()
    text = headline_text(good)
    assert good.ladder is not None
    for e in good.ladder.orders:
        assert e.estimator in text
        assert f"[{e.value.low:.4g}, {e.value.high:.4g}]" in text
    assert good.population in text
    assert all(f"\n{e.label}  " not in text for e in good.estimates if e.module is not None)


def test_without_a_ladder_the_headline_has_every_estimate_of_the_whole_action():
    plain = replace(identified(), ladder=None)
    text = headline_text(plain)
    whole = [e for e in plain.estimates if e.module is None]
    for e in whole:
        assert f"[{e.value.low:.4g}, {e.value.high:.4g}]" in text
    assert text.count("\nthe whole action  ") == len(whole)
    assert verdict(plain) in text


def difference(low: float, high: float) -> Interval:
    return Interval((low + high) / 2, low, high, (high - low) / 4)


@pytest.mark.parametrize(
    ("interval", "words"),
    [
        (difference(-0.1, 0.3), "The interval includes zero: the log does not show that agent is better or worse"),
        (difference(0.1, 0.3), "The log shows that agent is better than the logging policy"),
        (difference(-0.3, -0.1), "The log shows that agent is worse than the logging policy"),
    ],
)
def test_the_verdict_fits_the_interval(interval, words):
    good = identified()
    assert good.ladder is not None
    orders = tuple(replace(e, difference=interval) for e in good.ladder.orders)
    text = verdict(replace(good, ladder=replace(good.ladder, orders=orders)))
    assert text.startswith(words)
    assert text.endswith("if what the parts of a message earn adds up given `type`).")


def test_the_headline_is_that_of_the_ladder_unless_it_is_not_identified():
    good, poor = identified(), not_identified()
    assert good.ladder is not None
    assert headline(good) is good.ladder.orders[1]
    assert headline(good).module is None
    assert headline(poor).estimator == "order 1"
    assert verdict(poor).startswith("The log does not identify the value of agent (ESS ")
    unmodelled = evaluated(q_values=None)
    assert headline(unmodelled).estimator == "order 1"
    nothing = evaluated(q_values=None, settings=EvaluationSettings(bootstrap_replicates=60, min_ess=1e6))
    assert verdict(nothing).startswith("The log does not identify the value of policy (ESS ")


def test_without_a_ladder_the_headline_is_doubly_robust_or_the_plain_estimator():
    without = replace(identified(), ladder=None, no_ladder="a message has no parts beside the channel")
    assert headline(without).estimator == "dr"
    assert "There is no interaction ladder: a message has no parts beside the channel." in caveats(without)
    assert headline(replace(evaluated(q_values=None), ladder=None)).estimator == "beta-ips"


def test_the_direct_method_is_a_diagnostic():
    for evaluation in (identified(), not_identified()):
        for module in (None, "type", "variant", "hour"):
            direct = evaluation.get("dm", module)
            assert not direct.identified
            assert direct.value.is_defined
            assert "a diagnostic" in direct.reason
        assert any(line.startswith("`dm` is a diagnostic: it relies on") for line in caveats(evaluation))


def test_effects_of_modules_are_told_where_the_whole_action_is_not_identified():
    assert module_effects(identified()) == []
    assert module_effects(not_identified()) == []
    # An effective sample size of 339 of order 1, of 413 and 518 of the first two modules, of 328 of the last.
    some = evaluated(policy="agent", settings=EvaluationSettings(bootstrap_replicates=60, min_ess=350))
    first, second, *_ = module_effects(some)
    assert some.ladder is not None
    opening = "Changing only `type` would change the mean per decision with a reward by"
    assert first == f"{opening} +0.1897, 95% interval [0.1013, 0.278]."
    assert second.startswith("Given its `type`, the policy's `variant` would add -0.09547, 95% interval")
    steps = tuple(replace(step, value=difference(-0.1, 0.3)) for step in some.ladder.waterfall)
    zero = replace(some, ladder=replace(some.ladder, waterfall=steps))
    assert all(text.endswith(", which includes zero.") for text in module_effects(zero))
    alone = replace(some, ladder=None, estimates=tuple(e for e in some.estimates if e.module or e.estimator == "dm"))
    first, second = module_effects(alone)
    assert first == f"{opening} +0.1897, 95% interval [0.1013, 0.278]."
    assert second.startswith(opening.replace("type", "variant") + " -0.119, 95% interval")


def test_caveats_name_what_the_numbers_rest_on():
    good = identified()
    assert any("held fixed" in line for line in caveats(good))
    estimated = replace(good, propensity_counts={"estimated": good.decisions})
    assert any("estimated propensities" in line for line in caveats(estimated))
    assert "estimated propensities" in text_table(estimated)
    gaps = replace(good, reward_counts={"identified": good.decisions, "too few controls": 50})
    assert any("50 of 850 decisions (6%) have no reward and are left out" in line for line in caveats(gaps))
    dropped = replace(good, refitted=True, dropped_share=0.2)
    assert any("20.0% of the rewards are not identified" in line for line in caveats(dropped))
    heavy = replace(
        good, estimates=tuple(replace(e, support=replace(e.support, largest_weight=100.0)) for e in good.estimates)
    )
    assert any("One decision has" in line for line in caveats(heavy))
    assert all(line in text_table(heavy) for line in caveats(heavy))


@pytest.mark.parametrize(("gain", "expected"), [(0.4, "better than the log"), (-0.4, "worse than the log")])
def test_the_breakdown_point_says_what_interactions_would_have_to_do(gain, expected):
    """A conclusion that is good falls if interactions take away, one that is bad if they add."""
    some = identified()
    assert some.ladder is not None
    changed = replace(some.ladder.orders[1], value=interval_at(1.0 + gain), difference=interval_at(gain))
    alone = replace(some.ladder.orders[0], value=interval_at(1.6))
    ladder = replace(some.ladder, orders=(alone, changed, *some.ladder.orders[2:]), order=1)
    evaluation = replace(some, ladder=ladder)
    verb, size = ("take away", "0.2") if gain > 0 else ("add", "1")
    assert breakdown_sentence(evaluation, 0.5) == (
        f'Breakdown point: "{expected}" holds unless interactions {verb} more than 50% of {size}, the size of what '
        "content changes."
    )
    assert f"even if interactions {verb} 1000% of {size}" in breakdown_sentence(evaluation, MAX_SHARE)


def interval_at(point: float) -> Interval:
    return Interval(point, point - 0.1, point + 0.1, 0.05)


def test_where_rewards_are_refused_the_value_of_the_log_is_not_identified_either():
    found = refused()
    assert not found.logged.is_defined
    assert found.ladder is not None
    assert all(step.reason == "the rewards fail their tests" for step in found.ladder.waterfall)
    assert re.search(r"\(logging policy\) +mean +not identified", text_table(found))
    assert not any(e.identified or e.difference.is_defined for e in found.estimates)
    # Once in each of the three tables, and in the sentence below them.
    assert text_table(found).count("the rewards fail their tests") == 4


def test_a_reason_that_a_table_shares_is_stated_once():
    rows = [("a", "not identified (few)"), ("b", "not identified (few)"), ("c", "+1")]
    assert [row[1].strip() for row in reasons_once(rows)] == ["not identified (few)", "not identified", "+1"]
    different = [*rows, ("d", "not identified (none)")]
    assert reasons_once(different) == different
