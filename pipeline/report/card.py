"""The answer at the top of a run's report: the verdict, what it rests on, what limits it, and what to do next."""

from __future__ import annotations

import math
from collections.abc import Sequence
from pathlib import Path

from scipy.special import ndtri

from crosschannel.core.wording import counted
from crosschannel.evaluation import caveats, headline, module_effects
from crosschannel.evaluation.bootstrap import Interval
from crosschannel.evaluation.estimates import Estimate, EvaluationSettings
from crosschannel.evaluation.gate import DEPLOY, NOT_IDENTIFIED
from crosschannel.evaluation.ladder.breakdown import MAX_SHARE
from crosschannel.evaluation.ladder.results import Ladder
from crosschannel.evaluation.planning.needs import IN_WORDS, JOINT, ORDER_1
from crosschannel.evaluation.report.formatting import (
    format_bounds,
    format_interval,
    format_number,
    format_point,
    why_not,
)
from crosschannel.evaluation.report.ladder_text import NO_ASSUMPTION
from crosschannel.evaluation.report.page import Card
from crosschannel.pipeline.command_line import invocation
from crosschannel.pipeline.judgement.comparators import EVALUATED, LOGGED
from crosschannel.pipeline.judgement.following import FollowedPolicy
from crosschannel.pipeline.judgement.records import Comparator
from crosschannel.pipeline.judgement.results import EvaluationResult
from crosschannel.pipeline.procedure.records import in_short

#: Comparators that nobody could choose from a log alone, or that the answer names elsewhere.
NOT_RIVALS = (LOGGED, EVALUATED, "greedy", "best constant by true effect")
#: So few decisions must not have a larger share of the squared weights without a warning.
FEW_DECISIONS, MAX_SHARE_OF_FEW = 10, 0.3
#: The share of logs that would show a difference, for which the number of users is given.
POWER = 0.8
#: A larger factor means that the estimate does not tell how much more data would show a gain.
MAX_FACTOR = 100.0


def card_of(result: EvaluationResult, run: Path, reward: str = "") -> Card | None:
    """Return the card of a result; None where no verdict was stored.

    Args:
        result: The result.
        run: Folder of the run, for the commands to run next.
        reward: What counts as a reward, in words; empty to leave it out.
    """
    if result.gate is None:
        return None
    return Card(
        verdict=result.gate.verdict,
        summary=_summary(result),
        reason=_reason(result),
        facts=_facts(result, reward),
        caveats=(*_limits(result), *caveats(result.evaluation, of_headline=True)),
        next_steps=tuple(_next_steps(result, run)),
    )


def _summary(result: EvaluationResult) -> str:
    """Return what the verdict says of the log, in a sentence without terms of evaluation."""
    assert result.gate is not None
    difference = headline(result.evaluation).difference
    if result.gate.verdict == NOT_IDENTIFIED:
        if headline(result.evaluation).identified:
            return "Keep what is sent now: this log cannot tell whether the policy keeps to the rule."
        return "Keep what is sent now: this log cannot tell what the policy would earn."
    if result.gate.verdict == DEPLOY:
        if difference.low > 0:
            return "Use the policy: by this log it earns more than what was sent."
        return "Use the policy: by this log it keeps to the rule, which allows it to earn less than what was sent."
    if difference.high < 0:
        return "Keep what is sent now: by this log the policy earns less."
    if difference.low > 0:
        return "Keep what is sent now: by this log the policy earns more, but it does not keep to the rule."
    return "Keep what is sent now: the log does not show that this policy earns more."


def _reason(result: EvaluationResult) -> str:
    """Return the gate's reason; where too few decisions count, in words and with the number that is required."""
    assert result.gate is not None
    best = headline(result.evaluation)
    if best.identified or not best.reason.startswith("ESS"):
        return result.gate.reason
    size, least, whose = _required(best, result.evaluation.settings)
    return (
        f"Too few of the log's {whose} got what the policy would send: together they count as {size:,.0f} "
        f"{whose} (ESS), and at least {least:,.0f} are required."
    )


def _required(best: Estimate, settings: EvaluationSettings) -> tuple[float, float, str]:
    """Return the effective sample size that is furthest below its requirement, the requirement, and of what it is."""
    name, size, least = settings.scarcest(best.support)
    return size, least, {"ESS": "decisions", "ESS of users": "users"}[name]


def _facts(result: EvaluationResult, reward: str) -> dict[str, str]:
    evaluation, best = result.evaluation, headline(result.evaluation)
    level = f"{evaluation.settings.confidence_level:.0%}"
    facts = {"value": _value(best, level)}
    if best.identified:
        facts["difference to the log"] = format_interval(best.difference)
        facts["the log earned"] = format_interval(evaluation.logged)
        facts["assumption"] = best.assumption.replace("if ", "that ", 1) or f"none, right {NO_ASSUMPTION}"
    size, least, whose = _required(best, evaluation.settings)
    facts[f"effective {whose} (ESS)"] = (
        f"{format_number(size, ',.0f')}, at least {format_number(least, ',.0f')} are required"
    )
    if reward:
        facts["a reward is"] = reward
    if result.followed is not None:
        facts[f"if followed over {result.followed.slots} slots"] = _followed(result.followed)
    if result.procedure is not None:
        facts["value of the learning procedure"] = (
            f"{in_short(result.procedure)}: the mean over {result.procedure.folds} policies, each judged by users that "
            "it has not learned from; not the value of this policy, and the verdict does not rest on it"
        )
    facts["policy"] = f"{evaluation.policy}, exploring, as it would be deployed"
    facts["what is estimated"] = best.estimand
    if result.truth:
        facts["true value, known because the market is simulated"] = f"{result.truth[0].per_decision:+.4g}"
    facts["judged on"] = (
        f"{evaluation.population} of {counted(evaluation.users, 'user')} that the policy has not learned from"
    )
    facts["data"] = result.history.splitlines()[0]
    return facts


def _value(best: Estimate, level: str) -> str:
    if not best.identified:
        return "not known from this log" + ("" if best.reason.startswith("ESS") else f" ({best.reason})")
    return f"{format_point(best.value)} per decision with a reward, {level} interval {format_bounds(best.value)}"


def _followed(followed: FollowedPolicy) -> str:
    """Return the difference of the followed policy to the log and what it does to cost events, in words."""
    if followed.value is None:
        return why_not(followed.reason)
    best = followed.value.headline
    if not best.identified:
        return why_not(best.reason)
    parts = [f"{format_interval(best.difference)} per user more than the log ({best.estimator})"]
    parts += [
        f"`{cost.event}` {cost.estimate.value.point:.3g} per user, in the log {cost.logged.point:.3g}"
        for cost in followed.costs
        if cost.estimate.identified
    ]
    return "; ".join(parts)


def _limits(result: EvaluationResult) -> list[str]:
    """Return what the other policies and the ladder say against the answer, and notes on the log, as sentences."""
    evaluation, out = result.evaluation, list(result.notes)
    ladder = evaluation.ladder
    if ladder is not None and ladder.headline.identified and ladder.breakdown is not None:
        out.append(_breakdown(ladder, ladder.breakdown))
    out += [f"What the log does show: {effect[0].lower()}{effect[1:]}" for effect in module_effects(evaluation)]
    if headline(evaluation).identified:
        heavy = max(result.evidence.weights, key=lambda each: each.squared_share, default=None)
        if heavy is not None and heavy.decisions <= FEW_DECISIONS and heavy.squared_share > MAX_SHARE_OF_FEW:
            some = "One decision has" if heavy.decisions == 1 else f"{heavy.decisions} decisions have"
            out.append(f"{some} {heavy.squared_share:.0%} of the squared weights, so that the value depends on them.")
        out += _rivals(result.comparators)
    return out


def _breakdown(ladder: Ladder, share: float) -> str:
    """Return how far the parts of a message may be from adding up before the answer falls, as a sentence."""
    size = abs(ladder.headline.value.point - ladder.orders[0].value.point)
    better = ladder.headline.difference.point > 0
    change = "less" if better else "more"
    limit = f"{share * size:.3g} per decision ({share:.0%} of what content changes)"
    if share >= MAX_SHARE:
        return f"Even if parts of a message together earn {change} than their sum by {limit}, the answer holds."
    return f"The answer holds unless parts of a message together earn {change} than their sum by more than {limit}."


def _rivals(comparators: Sequence[Comparator]) -> list[str]:
    """Return which policies do better, or are not shown to do worse, as sentences."""
    rows = [row for row in comparators if row.policy not in NOT_RIVALS and row.lead.is_defined]
    above = [_lead(row) for row in rows if row.lead.high < 0]
    level = [_lead(row) for row in rows if row.lead.low <= 0 <= row.lead.high]
    out = []
    if above:
        out.append(f"Simpler policies earn more on the same users; the policy minus each: {'; '.join(above)}.")
    if level:
        out.append(f"Simpler policies may do as well; the policy minus each: {'; '.join(level)}.")
    greedy = next((row for row in comparators if row.policy == "greedy" and row.lead.is_defined), None)
    if greedy is not None:
        out.append(_price_of_exploring(greedy.lead))
    return out


def _price_of_exploring(lead: Interval) -> str:
    """Return what exploring costs, in words, from the lead of the exploring policy over the greedy one."""
    cost = Interval(point=0.0 - lead.point, low=0.0 - lead.high, high=0.0 - lead.low, se=lead.se)  # never -0
    if cost.contains(0.0):
        return (
            "The log does not show what exploring costs: the greedy policy minus this one "
            f"{format_interval(cost)} per decision."
        )
    if cost.high < 0:
        return f"Exploring costs nothing here: the greedy policy minus this one {format_interval(cost)} per decision."
    return f"Exploring costs {format_interval(cost)} per decision: the greedy policy minus this one."


def _lead(row: Comparator) -> str:
    return f"{row.policy}{f' ({row.detail})' if row.detail else ''} {format_interval(row.lead)}"


def _next_steps(result: EvaluationResult, run: Path) -> list[str]:
    assert result.gate is not None
    if result.gate.verdict == DEPLOY:
        return [
            f"Deploy it for the next period: `{invocation('decide', run)} --require-gate`.",
            "Let it explore as it was judged: the next log then identifies the value of the next policy.",
            f"`{invocation('update', run)}` lets it learn from the users that judged it too, as every day of the daily "
            "job does. The value above is that of the policy before.",
        ]
    if result.gate.verdict == NOT_IDENTIFIED:
        steps = ["Do not deploy the policy as a whole: this log cannot show what it is worth."]
        return [*steps, *_needed(result.advice), _trial_in_words()]
    return [
        "Do not deploy it yet; send as the log does.",
        *_more_data(result),
        f"Compute what a log would need: `{invocation('plan', '--run', run)}`.",
    ]


def _trial_in_words() -> str:
    return (
        "A randomised trial shows it whatever the log is like: give the policy to an arm of the users, hold others out "
        f"(`arms`), and compare them by `{invocation('trial')}`. `{invocation('plan')} --base-rate NUM --lift NUM` "
        "tells how many users that takes."
    )


def _needed(advice: Sequence[str]) -> list[str]:
    """Return what would identify the value; of the ways to estimate it, the one that needs least, where it is known."""
    if any(each.startswith(IN_WORDS[ORDER_1]) for each in advice):
        return [each for each in advice if not each.startswith(IN_WORDS[JOINT])]
    return list(advice)


def _more_data(result: EvaluationResult) -> list[str]:
    """Return how much more data would show a difference of the estimated size, where its interval includes none."""
    assert result.gate is not None
    difference, least = headline(result.evaluation).difference, result.gate.rule.min_lift
    if difference.low > least:
        return ["The value is not what stands in the way: read the reason above."]
    if difference.high < least:
        return ["More data of this kind would not change this: the policy earns less than it has to."]
    factor = times_as_many_users(difference, least, result.evaluation.settings.confidence_level)
    if factor > MAX_FACTOR:
        return [
            f"The estimated gain is about what is required or less, and its interval {format_bounds(difference)} is "
            "wide: more users or more exploration would narrow it, and may show either."
        ]
    return [
        f"If the difference is what it seems to be ({difference.point:+.4g}), about {factor:.1f} times as many users "
        "would show it in 4 of 5 such logs: the interval narrows with the root of their number."
    ]


def times_as_many_users(difference: Interval, least: float, confidence_level: float) -> float:
    r"""Return how many times as many users show a difference above a least one in 4 of 5 logs, if the estimate is true.

    .. math:: \left( \frac{h}{d - l} \cdot \frac{z_{(1 + c) / 2} + z_{0.8}}{z_{(1 + c) / 2}} \right)^2

    with the difference d, half of its interval h, its confidence level c, and the least difference l. Without the
    second factor the lower bound would be l where the estimate is d, so that half of the logs only would show it.
    Assumption: the interval is symmetric and narrows with the root of the number of users. Source: Cohen (1988),
    "Statistical power analysis", chapter 2.

    Args:
        difference: The estimated difference, with its interval.
        least: The least difference. Where the estimate is not above it, the factor is infinite.
        confidence_level: The confidence level of the interval.
    """
    gain = difference.point - least
    if gain <= 0:
        return math.inf
    half, quantile = difference.point - difference.low, float(ndtri((1.0 + confidence_level) / 2.0))
    return (half / gain * (quantile + float(ndtri(POWER))) / quantile) ** 2
