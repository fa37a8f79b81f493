"""The interaction ladder as tables of text and in sentences."""

from __future__ import annotations

import math

from crosschannel.evaluation.bootstrap import Interval
from crosschannel.evaluation.ladder.breakdown import MAX_SHARE
from crosschannel.evaluation.ladder.results import Interaction, Ladder, WaterfallStep
from crosschannel.evaluation.report.formatting import align, format_bounds, format_number, format_point, why_not
from crosschannel.evaluation.results import Evaluation

NO_ASSUMPTION = "whatever the parts of a message do together"
SIGNIFICANT = 0.05
_STEPS = {
    "logged": "logged",
    "channel": "the policy's `{name}`, with the content as logged",
    "factor": "its `{name}`, given {given}",
    "interactions": "interactions of these",
    "policy": "the policy",
}


def ladder_blocks(evaluation: Evaluation) -> list[list[str]]:
    """Return the ladder as blocks of lines: the orders, the waterfall, and the tests with the breakdown point."""
    ladder = evaluation.ladder
    if ladder is None:
        return []
    level = f"{evaluation.settings.confidence_level:.0%}"
    blocks = [orders_block(evaluation, ladder)]
    title = f"From the log to the policy, by {ladder.headline.estimator}: steps that add up"
    blocks.append([title, *align(waterfall_rows(ladder, level))])
    tests = [title for title in (*ladder.totals, *ladder.pairs) if not title.reason]
    if tests:
        title = f"What interactions add, given {given_its_first_module(ladder)} (p-values of pairs by Holm's method)"
        blocks.append([title, *align(interaction_rows(ladder, level))])
    return [*blocks, ladder_sentences(evaluation)]


def orders_block(evaluation: Evaluation, ladder: Ladder) -> list[str]:
    """Return the table of the orders as lines, with its title."""
    title = (
        f"Interaction ladder: {evaluation.policy} chooses the whole action; mean reward per decision with a reward, "
        f"over the same {evaluation.decisions:,} decisions"
    )
    return [title, *align(order_rows(ladder, f"{evaluation.settings.confidence_level:.0%}"))]


def order_rows(ladder: Ladder, level: str) -> list[tuple[str, ...]]:
    """Return the table of the orders, with a head."""
    rows: list[tuple[str, ...]] = [("order", "value", level, "difference", level, "ESS", "right")]
    for e in ladder.orders:
        ess = format_number(e.support.ess, ",.0f")
        right = e.assumption or NO_ASSUMPTION
        cells = _cells(e.value, e.difference) if e.identified else (why_not(e.reason), "", "", "")
        rows.append((e.estimator + (" *" if e is ladder.headline else ""), *cells, ess, right))
    return rows


def waterfall_rows(ladder: Ladder, level: str) -> list[tuple[str, ...]]:
    """Return the table of the steps from the logged value to the policy's, with a head."""
    rows: list[tuple[str, ...]] = [("step", "value", level)]
    for step in ladder.waterfall:
        label = step_name(step, ladder)
        if step.reason:
            rows.append((label, why_not(step.reason), ""))
        else:
            rows.append((label, format_point(step.value), format_bounds(step.value)))
    return rows


def step_name(step: WaterfallStep, ladder: Ladder) -> str:
    """Return a step of a ladder's waterfall in words."""
    return _STEPS[step.kind].format(name=step.name, given=given_its_first_module(ladder))


def given_its_first_module(ladder: Ladder) -> str:
    """Return the policy's choice that the steps of the factors are given, in words."""
    name = next(step.name for step in ladder.waterfall if step.kind == "channel")
    return "its channel" if name == "channel" else f"its `{name}`"


def interaction_rows(ladder: Ladder, level: str) -> list[tuple[str, ...]]:
    """Return the table of the interactions, with a head."""
    rows: list[tuple[str, ...]] = [("interaction", "adds", level, "p")]
    for each in (*ladder.totals, *ladder.pairs):
        if each.reason:
            rows.append((each.label, why_not(each.reason), "", ""))
        else:
            p = format_number(each.p_value, ".2g")
            rows.append((each.label, format_point(each.value), format_bounds(each.value), p))
    return rows


def ladder_sentences(evaluation: Evaluation) -> list[str]:
    """Return what the headline assumes, what the tests found, and how large interactions would have to be."""
    ladder = evaluation.ladder
    if ladder is None:
        return []
    best = ladder.headline
    out = [f"* The headline is {best.estimator}. It is right {best.assumption or NO_ASSUMPTION}. {ladder.independence}"]
    if len(ladder.factors) == 1:
        out.append(
            f"As `{ladder.factors[0]}` is the only factor, order 1 is the weight of the whole action: no order needs "
            "less of the log."
        )
    if ladder.why:
        out.append(f"It is not order {evaluation.settings.order}: {ladder.why}.")
    if best.assumption:
        out += [_test_sentence(ladder)]
    if best.identified and ladder.breakdown is not None:
        out.append(breakdown_sentence(evaluation, ladder.breakdown))
    return out


def breakdown_sentence(evaluation: Evaluation, share: float) -> str:
    """Return how large interactions would have to be to overturn the conclusion, as a sentence.

    A policy that is better than the log would be so no more if interactions took enough away from its value, and one
    that is worse if they added enough to it: as a share of the size of what content changes, in reward units.
    """
    ladder = evaluation.ladder
    assert ladder is not None
    better = ladder.headline.difference.point > 0
    word, verb = ("better", "take away") if better else ("worse", "add")
    size = abs(ladder.headline.value.point - ladder.orders[0].value.point)
    of_content = f"of {size:.3g}, the size of what content changes"
    if share >= MAX_SHARE:
        holds = f"even if interactions {verb} {MAX_SHARE:.0%} {of_content}"
    else:
        holds = f"unless interactions {verb} more than {share:.0%} {of_content}"
    return f'Breakdown point: "{word} than the log" holds {holds}.'


def contradiction(ladder: Ladder) -> str:
    """Return which interactions contradict what the headline assumes, in a sentence; empty where none does."""
    head = f"The log contradicts what order {ladder.order} assumes"
    if ladder.order == 1 and (found := [pair for pair in ladder.pairs if _rejects(pair)]):
        pairs = ", ".join(f"`{pair.factors[0]}` x `{pair.factors[1]}` (p = {pair.p_value:.2g})" for pair in found)
        return f"{head}: {pairs}."
    total = next((total for total in ladder.totals if total.order == ladder.order + 1), None)
    if total is not None and _rejects(total):
        return f"{head}: interactions of order {total.order} add {format_point(total.value)} (p = {total.p_value:.2g})."
    return ""


def _test_sentence(ladder: Ladder) -> str:
    if found := contradiction(ladder):
        return found
    tested = ladder.pairs if ladder.order == 1 else ()
    higher = [total for total in ladder.totals if total.order == ladder.order + 1]
    if all(each.reason for each in (*tested, *higher)):
        return "The log is too small to test that assumption."
    return "The log does not contradict that assumption, but would show large interactions only."


def _rejects(interaction: Interaction) -> bool:
    return not interaction.reason and math.isfinite(interaction.p_value) and interaction.p_value < SIGNIFICANT


def _cells(value: Interval, difference: Interval) -> tuple[str, ...]:
    return format_point(value), format_bounds(value), format_point(difference), format_bounds(difference)
