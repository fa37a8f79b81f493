"""The evaluation in sentences: the verdict, the effects of single modules, and the caveats."""

from __future__ import annotations

import math

from crosschannel.evaluation.bootstrap import Interval
from crosschannel.evaluation.estimates import DIAGNOSTIC, Estimate
from crosschannel.evaluation.report.formatting import format_bounds, format_point
from crosschannel.evaluation.report.ladder_text import contradiction, given_its_first_module
from crosschannel.evaluation.results import Evaluation

ESTIMATOR_ORDER = ("dr", "beta-ips", "snips", "ips", "switch-dr")
MAX_SHARE_OF_ONE_DECISION = 0.05
MAX_DROPPED_SHARE = 0.01


def headline(evaluation: Evaluation) -> Estimate:
    """Return the estimate of the whole action to report.

    It is that of the interaction ladder: of the order that was set, or of a higher one whose interval contradicts it. A
    lower order is never the headline, so that it is *not identified* where that order is. Without a ladder it is doubly
    robust where there is a model, else the plain estimator; if the log identifies no weighted estimate of the whole
    action, it is the first of those that are not identified. It is never the direct method if there is another.
    """
    if evaluation.ladder is not None:
        return evaluation.ladder.headline
    rank = {name: k for k, name in enumerate(ESTIMATOR_ORDER)}
    joint = [e for e in evaluation.estimates if e.module is None]
    return min(joint, key=lambda e: (e.estimator == "dm", not e.identified, rank.get(e.estimator, len(rank))))


def verdict(evaluation: Evaluation) -> str:
    """Return a sentence on whether the log shows the policy to be better or worse than the logging policy."""
    e = headline(evaluation)
    if not e.identified:
        return f"The log does not identify the value of {evaluation.policy} ({e.reason})."
    d, level = e.difference, f"{evaluation.settings.confidence_level:.0%}"
    numbers = f"{e.estimator}: difference {format_point(d)}, {level} interval {format_bounds(d)}"
    if e.assumption:
        numbers += f", {e.assumption}"
    if d.contains(0.0):
        return (
            f"The interval includes zero: the log does not show that {evaluation.policy} is better or worse than the "
            f"logging policy ({numbers})."
        )
    word = "better" if d.point > 0 else "worse"
    return f"The log shows that {evaluation.policy} is {word} than the logging policy ({numbers})."


def module_effects(evaluation: Evaluation) -> list[str]:
    """Return a sentence for each module's identified effect, where the whole action's value is not identified.

    With a ladder they are those of its waterfall: the policy's channel, then each factor given it.
    """
    if headline(evaluation).identified:
        return []
    if evaluation.ladder is not None:
        opening = {
            "channel": "Changing only `{}` would change the mean per decision with a reward by",
            "factor": f"Given {given_its_first_module(evaluation.ladder)}, the policy's `{{}}` would add",
        }
        return [
            _effect(opening[step.kind].format(step.name), step.value, evaluation)
            for step in evaluation.ladder.waterfall
            if step.kind in opening and not step.reason
        ]
    plain = next((name for name in ESTIMATOR_ORDER if any(e.estimator == name for e in evaluation.estimates)), None)
    return [
        _effect(
            f"Changing only `{e.module}` would change the mean per decision with a reward by", e.difference, evaluation
        )
        for e in evaluation.estimates
        if e.module is not None and e.estimator == plain and e.identified
    ]


def _effect(opening: str, effect: Interval, evaluation: Evaluation) -> str:
    level = f"{evaluation.settings.confidence_level:.0%}"
    end = ", which includes zero." if effect.contains(0.0) else "."
    return f"{opening} {format_point(effect)}, {level} interval {format_bounds(effect)}{end}"


def caveats(evaluation: Evaluation, *, of_headline: bool = False) -> list[str]:
    """Return a sentence for everything that limits what the numbers mean.

    Args:
        evaluation: The evaluation.
        of_headline: Whether to leave out what limits other numbers than the one that is reported first.
    """
    out = []
    best = headline(evaluation)
    if estimated := evaluation.propensity_counts.get("estimated", 0):
        some = "" if estimated == evaluation.decisions else f" for {estimated:,} of {evaluation.decisions:,} decisions"
        out.append(f"The weights use estimated propensities{some}; the intervals ignore the error of these estimates.")
    total, without = evaluation.logged_decisions, evaluation.logged_decisions - evaluation.decisions
    if without:
        why = [f"{reason} ({n:,})" for reason, n in evaluation.reward_counts.items() if n and reason != "identified"]
        out.append(
            f"{without:,} of {total:,} decisions ({without / total:.0%}) have no reward and are left out; all values "
            f"are about the others. The reason: {', '.join(why)}."
        )
    if not evaluation.refitted:
        out.append("The rewards were held fixed in the bootstrap; the intervals ignore their error.")
    elif evaluation.dropped_share > MAX_DROPPED_SHARE:
        out.append(
            f"In an average replicate {evaluation.dropped_share:.1%} of the rewards are not identified, because some "
            "time buckets have barely enough controls."
        )
    if evaluation.min_p_uncensored < 1:
        out.append(
            "Later messages censor some rewards. The other decisions are weighted by the inverse of their probability "
            f"of not being censored (at least {evaluation.min_p_uncensored:.2g}), so that all values are those of an "
            "action with nothing sent in the rest of its window."
        )
    for e in (best,) if of_headline else evaluation.one_per_estimand:
        s = e.support
        share = s.largest_weight / (s.decisions * s.mean_weight) if s.decisions and s.mean_weight else math.nan
        if share > MAX_SHARE_OF_ONE_DECISION:
            out.append(f"One decision has {share:.0%} of the weight of {e.label}; these values depend on it.")
    if not of_headline and any(e.reason == DIAGNOSTIC for e in evaluation.estimates):
        out.append(f"`dm` is {DIAGNOSTIC}.")
    if evaluation.ladder is not None and best.assumption and (found := contradiction(evaluation.ladder)):
        out.append(found)
    if evaluation.no_ladder:
        out.append(f"There is no interaction ladder: {evaluation.no_ladder}.")
    return out
