"""The card of a report: what it says for each verdict, and which policies it warns of."""

from __future__ import annotations

import math
from dataclasses import replace
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from crosschannel.evaluation import (
    Evaluation,
    GateRule,
    GateVerdict,
    Interval,
    TrajectoryEstimate,
    TrajectoryEvaluation,
    caveats,
    headline,
)
from crosschannel.evaluation.bootstrap import UNDEFINED
from crosschannel.evaluation.planning.needs import IN_WORDS, JOINT, ORDER_1
from crosschannel.pipeline.judgement.following import FollowedCost, FollowedPolicy
from crosschannel.pipeline.judgement.records import Comparator, TrueValue
from crosschannel.pipeline.judgement.results import EvaluationResult
from crosschannel.pipeline.report.card import card_of, times_as_many_users
from tests.evaluation.report.samples import identified, not_identified

RUN = Path("runs/example")


def result(verdict: str, evaluation: Evaluation, **changes: object) -> EvaluationResult:
    values = {
        "evaluation": evaluation,
        "truth": (),
        "policy_table": pd.DataFrame(),
        "history": "shop: 400 users, 800 decisions, 2026-01-01 to 2026-01-31\na note on the log",
        "gate": GateVerdict(verdict, "For a reason."),
    }
    return EvaluationResult(**{**values, **changes})  # type: ignore[arg-type]


def with_difference(evaluation: Evaluation, difference: Interval) -> Evaluation:
    """The evaluation with another difference of its headline to the log."""
    best = headline(evaluation)
    if evaluation.ladder is not None:
        orders = tuple(replace(e, difference=difference) if e is best else e for e in evaluation.ladder.orders)
        return replace(evaluation, ladder=replace(evaluation.ladder, orders=orders))
    estimates = tuple(replace(e, difference=difference) if e is best else e for e in evaluation.estimates)
    return replace(evaluation, estimates=estimates)


def with_ladder() -> Evaluation:
    """An evaluation whose headline assumes that the parts of a message add up."""
    ladder = identified().ladder
    assert ladder is not None
    assumed = replace(ladder.orders[1], assumption="if what the parts of a message earn adds up given the channel")
    return replace(
        identified(), ladder=replace(ladder, orders=(ladder.orders[0], assumed, *ladder.orders[2:]), order=1)
    )


def comparator(policy: str, lead: Interval, detail: str = "") -> Comparator:
    return Comparator(policy, detail, Interval(1, 0, 2, 0.5), Interval(1, 0, 2, 0.5), lead, 100.0)


def test_there_is_no_card_without_a_verdict():
    assert card_of(result("hold", identified(), gate=None), RUN) is None


def test_card_to_deploy():
    card = card_of(result("deploy", identified()), RUN)
    assert card is not None
    assert (card.verdict, card.reason, card.tone) == ("deploy", "For a reason.", "deploy")
    assert "a reward is" not in card.facts
    assert "decide" in card.next_steps[0]
    assert "--require-gate" in card.next_steps[0]
    best = headline(identified())
    assert f"{best.value.point:+.4g}" in card.facts["value"]
    assert f"{best.difference.low:.4g}" in card.facts["difference to the log"]
    assert card.facts["data"] == "shop: 400 users, 800 decisions, 2026-01-01 to 2026-01-31"
    assert "true value, known because the market is simulated" not in card.facts
    assert not any("dm" in each for each in card.caveats)


def test_card_that_is_not_identified_advises_and_shows_no_number():
    needs = (f"{IN_WORDS[ORDER_1]}, it takes 900 users.", f"{IN_WORDS[JOINT]}, it takes 90,000.")
    advice = ("With 10 times as many users the value would be known to 0.1.", *needs)
    card = card_of(result("not identified", not_identified(), advice=advice), RUN)
    assert card is not None
    assert card.tone == "not-identified"
    assert card.facts["value"] == "not known from this log"
    assert "cannot tell what the policy would earn" in card.summary
    assert card.reason.startswith("Too few of the log's")
    size, least = card.facts["effective decisions (ESS)"].split(", at least ")
    assert f"count as {size} decisions (ESS), and at least {least.split()[0]} are required" in card.reason
    assert headline(not_identified()).reason.startswith(f"ESS {size} < {least.split()[0]}"), "the text of the terminal"
    assert "difference to the log" not in card.facts
    assert "assumption" not in card.facts
    assert card.next_steps[0].startswith("Do not deploy")
    assert advice[0] in card.next_steps
    assert needs[0] in card.next_steps
    assert "randomised trial" in card.next_steps[-1]
    assert needs[1] not in card.next_steps, "whoever needs it finds it in evaluation.json"
    assert not any("decide" in step for step in card.next_steps)


@pytest.mark.parametrize(
    ("difference", "min_lift", "expected"),
    [
        # The interval is 2 wide on either side of 1: in 4 of 5 logs it excludes 0 from (2 (1.96 + 0.84) / 1.96)^2 times
        # as many users on. In half of the logs it does when half as wide.
        (Interval(1.0, -1.0, 3.0, 1.0), 0.0, "about 8.2 times as many users would show it in 4 of 5 such logs"),
        (Interval(1.0, -1.0, 3.0, 1.0), 0.5, "about 32.7 times as many users would show it in 4 of 5 such logs"),
        (Interval(0.1, -1.9, 2.1, 1.0), 0.0, "may show either"),
        (Interval(-1.0, -3.0, 1.0, 1.0), 0.0, "may show either"),
        (Interval(-2.0, -3.0, -1.0, 0.5), 0.0, "would not change this"),
        (Interval(2.0, 1.0, 3.0, 0.5), 0.0, "not what stands in the way"),
    ],
)
def test_card_to_hold_says_whether_more_data_would_help(difference, min_lift, expected):
    gate = GateVerdict("hold", "For a reason.", GateRule(min_lift=min_lift))
    card = card_of(result("hold", with_difference(identified(), difference), gate=gate), RUN)
    assert card is not None
    assert any(expected in step for step in card.next_steps)
    assert any("plan --run runs/example" in step for step in card.next_steps)


@pytest.mark.parametrize(("level", "quantile"), [(0.95, 1.95996), (0.9, 1.64485)])
def test_so_many_users_show_the_difference_in_4_of_5_logs(level, quantile):
    """20,000 estimates with the narrower interval: the share whose lower bound is above the least, within 5 errors."""
    rng, least = np.random.default_rng(0), 0.2
    difference = Interval(1.0, 1.0 - quantile, 1.0 + quantile, 1.0)
    error = difference.se / math.sqrt(times_as_many_users(difference, least, level))
    found = rng.normal(difference.point, error, 20_000) - quantile * error > least
    assert found.mean() == pytest.approx(0.8, abs=5 * math.sqrt(0.8 * 0.2 / 20_000))
    assert times_as_many_users(difference, 1.0, level) == math.inf


@pytest.mark.parametrize(
    ("verdict", "difference", "summary"),
    [
        ("deploy", Interval(2.0, 1.0, 3.0, 0.5), "Use the policy: by this log it earns more than what was sent."),
        (
            "deploy",
            Interval(0.5, -0.5, 1.5, 0.5),
            "Use the policy: by this log it keeps to the rule, which allows it to",
        ),
        ("hold", Interval(0.5, -0.5, 1.5, 0.5), "Keep what is sent now: the log does not show that this policy earns"),
        ("hold", Interval(-2.0, -3.0, -1.0, 0.5), "Keep what is sent now: by this log the policy earns less."),
        ("hold", Interval(2.0, 1.0, 3.0, 0.5), "Keep what is sent now: by this log the policy earns more, but it does"),
        ("not identified", Interval(2.0, 1.0, 3.0, 0.5), "Keep what is sent now: this log cannot tell whether"),
    ],
)
def test_card_says_in_a_sentence_what_to_do(verdict, difference, summary):
    card = card_of(result(verdict, with_difference(identified(), difference)), RUN, "+1 x `order`")
    assert card is not None
    assert card.summary.startswith(summary)
    assert card.reason == "For a reason."
    assert card.facts["a reward is"] == "+1 x `order`"


def test_card_names_simpler_policies_that_do_as_well():
    better, worse, open_ = Interval(-1, -2, -0.5, 0.3), Interval(1, 0.5, 2, 0.3), Interval(0.1, -1, 1.2, 0.5)
    comparators = (
        comparator("logged", open_),
        comparator("uniform", worse),
        comparator("greedy", better),
        comparator("best constant offer", better, "coffee"),
        comparator("no send", open_),
        comparator("best constant by true effect", better, "a, b"),
        comparator("unknown", UNDEFINED),
    )
    card = card_of(result("hold", identified(), comparators=comparators), RUN)
    assert card is not None
    above, level, exploring = card.caveats[:3]
    assert "best constant offer (coffee) -1 [-2, -0.5]" in above
    assert "no send +0.1 [-1, 1.2]" in level
    assert exploring == "Exploring costs +1 [0.5, 2] per decision: the greedy policy minus this one."
    named = " ".join(card.caveats[:2])
    assert not any(name in named for name in ("uniform", "logged", "greedy", "true effect", "unknown"))
    # Where the value is not identified there is nothing to compare.
    silent = card_of(result("not identified", not_identified(), comparators=comparators), RUN)
    assert silent is not None
    assert not any("coffee" in each for each in silent.caveats)


@pytest.mark.parametrize(
    ("lead", "expected"),
    [
        (
            Interval(0.1, -1, 1.2, 0.5),
            "The log does not show what exploring costs: the greedy policy minus this one -0.1",
        ),
        (
            Interval(-0.1, -1.2, 1, 0.5),
            "The log does not show what exploring costs: the greedy policy minus this one +0.1",
        ),
        (
            Interval(0.0, 0.0, 0.0, 0.0),
            "The log does not show what exploring costs: the greedy policy minus this one +0 [0",
        ),
        (Interval(1, 0.5, 2, 0.3), "Exploring costs nothing here: the greedy policy minus this one -1 "),
    ],
)
def test_card_says_what_the_log_shows_of_the_price_of_exploring(lead, expected):
    card = card_of(result("hold", identified(), comparators=(comparator("greedy", lead),)), RUN)
    assert card is not None
    assert card.caveats[0].startswith(expected)


def test_card_shows_the_true_value_where_it_is_known():
    truth = (TrueValue("agent", 0.25, 1.0, 0.1, math.nan, 1.0, 0.0, 10),)
    card = card_of(result("deploy", identified(), truth=truth), RUN)
    assert card is not None
    assert card.facts["true value, known because the market is simulated"] == "+0.25"


@pytest.mark.parametrize(
    ("difference", "share", "expected"),
    [
        (Interval(1.0, 0.5, 1.5, 0.2), 0.5, "unless parts of a message together earn less than their sum by more than"),
        (Interval(-1.0, -1.5, -0.5, 0.2), 0.5, "unless parts of a message together earn more than their sum by more"),
        (Interval(1.0, 0.5, 1.5, 0.2), 10.0, "Even if parts of a message together earn less than their sum by"),
    ],
)
def test_card_says_how_far_parts_may_be_from_adding_up(difference, share, expected):
    evaluation = with_difference(with_ladder(), difference)
    assert evaluation.ladder is not None
    evaluation = replace(evaluation, ladder=replace(evaluation.ladder, breakdown=share))
    card = card_of(result("deploy", evaluation), RUN)
    assert card is not None
    best, channel = evaluation.ladder.headline.value.point, evaluation.ladder.orders[0].value.point
    assert expected in card.caveats[0]
    assert f"{share * abs(best - channel):.3g} per decision ({share:.0%} of what content changes)" in card.caveats[0]
    assert card.facts["assumption"].startswith("that what the parts of a message earn adds up")


def test_card_is_silent_on_the_weights_of_other_estimators():
    """The joint weight's largest decision says nothing of a headline by order 1."""
    evaluation = with_ladder()
    heavy = tuple(replace(e, support=replace(e.support, largest_weight=1e4)) for e in evaluation.estimates)
    card = card_of(result("deploy", replace(evaluation, estimates=heavy)), RUN)
    assert card is not None
    assert not any("One decision has" in each or "`dm`" in each for each in card.caveats)
    assert any("One decision has" in each for each in caveats(replace(evaluation, estimates=heavy)))


def test_card_says_what_a_followed_policy_earns_and_costs():
    gain, rate = Interval(0.5, 0.25, 0.75, 0.1), Interval(0.02, 0.01, 0.03, 0.005)
    support = headline(identified()).support
    value = TrajectoryEvaluation(
        estimand="mean sum of rewards over 3 slots",
        logged=gain,
        estimates=(TrajectoryEstimate("sequential dr", gain, gain),),
        slots=(support,) * 3,
        active=(10, 10, 9),
        users=10,
    )
    costs = (
        FollowedCost("unsubscribed", rate, TrajectoryEstimate("per-decision snips", rate, rate)),
        FollowedCost("complaint", rate, TrajectoryEstimate("per-decision snips", UNDEFINED, UNDEFINED, "ESS 3 < 200")),
    )
    name = "if followed over 3 slots"
    card = card_of(result("hold", identified(), followed=FollowedPolicy(3, value, costs)), RUN)
    assert card is not None
    assert card.facts[name] == (
        "+0.5 [0.25, 0.75] per user more than the log (sequential dr); `unsubscribed` 0.02 per user, in the log 0.02"
    )
    unknown = replace(value, estimates=(TrajectoryEstimate("sequential dr", UNDEFINED, UNDEFINED, "ESS 3 < 200"),))
    for followed, reason in (
        (FollowedPolicy(3, unknown), "ESS 3 < 200"),
        (FollowedPolicy(3, reason="no log"), "no log"),
    ):
        card = card_of(result("hold", identified(), followed=followed), RUN)
        assert card is not None
        assert card.facts[name] == f"not identified ({reason})"
    card = card_of(result("hold", identified()), RUN)
    assert card is not None
    assert name not in card.facts
