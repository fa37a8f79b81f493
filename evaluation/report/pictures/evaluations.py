"""The pictures of one evaluation: the waterfall, the orders of the ladder, and the modules one by one."""

from __future__ import annotations

import math
from collections.abc import Sequence

from crosschannel.evaluation.bootstrap import Interval
from crosschannel.evaluation.estimates import Estimate
from crosschannel.evaluation.ladder.results import Ladder, WaterfallStep
from crosschannel.evaluation.report.formatting import format_interval, format_point, why_not
from crosschannel.evaluation.report.ladder_text import NO_ASSUMPTION, ladder_sentences, step_name
from crosschannel.evaluation.report.pictures.charts import Row, row_chart
from crosschannel.evaluation.report.pictures.picture import Cell, Picture
from crosschannel.evaluation.report.sentences import ESTIMATOR_ORDER
from crosschannel.evaluation.results import Evaluation

#: Steps of a waterfall that are values; the others are what they add.
VALUES = ("logged", "policy")
INTERVAL_COLUMNS = ("value", "low", "high", "se")


def cells_of(interval: Interval) -> tuple[Cell, ...]:
    """Return an interval as cells of a table of numbers, one for each of `INTERVAL_COLUMNS`."""
    return (interval.point, interval.low, interval.high, interval.se)


def waterfall_rows(ladder: Ladder, truth: float = math.nan) -> list[Row]:
    """Return a row for each step from the logged value to the policy's, with bars that meet."""
    return [
        Row(
            label=step_name(step, ladder),
            interval=step.value,
            note=why_not(step.reason),
            start=start,
            signed=step.kind not in VALUES,
            strong=step.kind in VALUES,
            marker=truth if step.kind == "policy" else math.nan,
        )
        for step, start in zip(ladder.waterfall, _beginnings(ladder.waterfall), strict=True)
    ]


def waterfall_picture(evaluation: Evaluation, truth: float = math.nan) -> Picture | None:
    """Draw the steps from the logged value to the policy's; None where there are none.

    Args:
        evaluation: The evaluation.
        truth: The policy's true value; NaN where unknown.
    """
    ladder = evaluation.ladder
    if ladder is None or not ladder.waterfall:
        return None
    rows = waterfall_rows(ladder, truth)
    first, *between, last = ladder.waterfall
    known, unknown = [step for step in between if not step.reason], [step for step in between if step.reason]
    value = why_not(last.reason) if last.reason else format_interval(last.value)
    earns = (
        f"earns {format_point(first.value)} per decision with a reward" if not first.reason else "itself has no value"
    )
    caption = f"The log {earns}; the policy by {ladder.headline.estimator}: {value}. "
    caption += "Each step stands alone." if last.reason else "The steps between add up exactly."
    if unknown:
        names = ", ".join(step_name(step, ladder) for step in unknown)
        rest = "" if last.reason else ": what the other steps leave over"
        caption += f" The log does not identify {names}{rest}."
    if known:
        largest = max(known, key=lambda step: abs(step.value.point))
        clear = "includes zero" if largest.value.contains(0.0) else "excludes zero"
        caption += (
            f" The largest{' that is identified' if unknown else ''} is {step_name(largest, ladder)}: "
            f"{format_interval(largest.value)}, which {clear}."
        )
    return Picture(
        title="From the log to the policy" if last.reason else "From the log to the policy: steps that add up",
        drawing=row_chart(rows, "mean reward per decision with a reward"),
        caption=caption,
        name="waterfall",
        columns=("step", "kind", *INTERVAL_COLUMNS, "begins at", "true value", "not identified"),
        numbers=tuple(
            (step.name, step.kind, *cells_of(step.value), _cell(row.start), row.marker, step.reason)
            for step, row in zip(ladder.waterfall, rows, strict=True)
        ),
    )


def _beginnings(steps: Sequence[WaterfallStep]) -> list[float | None]:
    """Return where the bar of each step begins, so that it ends where the next one begins.

    A step that is not identified leaves a gap: the steps before it begin from the log's value, those after the last gap
    end at the policy's, and those between two gaps have no place and no bar.
    """
    gaps = [k for k, step in enumerate(steps) if step.reason]
    starts: list[float | None] = [None if gaps else 0.0] * len(steps)
    starts[0] = starts[-1] = 0.0
    height = steps[0].value.point
    for k in range(1, gaps[0] if gaps else len(steps) - 1):
        starts[k] = height
        height += steps[k].value.point
    height = steps[-1].value.point
    for k in range(len(steps) - 2, gaps[-1] if gaps else len(steps), -1):
        height -= steps[k].value.point
        starts[k] = height
    return starts


def _cell(value: float | None) -> float:
    return math.nan if value is None else value


def order_picture(evaluation: Evaluation, truth: float = math.nan) -> Picture | None:
    """Draw the value by how many parts of a message may interact; None without a ladder.

    Args:
        evaluation: The evaluation.
        truth: The policy's true value; NaN where unknown.
    """
    ladder = evaluation.ladder
    if ladder is None:
        return None
    rows = order_rows(ladder, truth)
    return Picture(
        title="The same value under weaker assumptions",
        drawing=row_chart(rows, "mean reward per decision with a reward", evaluation.logged.point, "the log's mean"),
        caption=" ".join(ladder_sentences(evaluation)).removeprefix("* "),
        name="orders",
        columns=("order", "right", *INTERVAL_COLUMNS, "ess", "not identified", "true value"),
        numbers=tuple(
            (e.estimator, e.assumption or NO_ASSUMPTION, *cells_of(e.value), e.support.ess, e.reason, truth)
            for e in ladder.orders
        ),
    )


def order_rows(ladder: Ladder, truth: float = math.nan) -> list[Row]:
    """Return a row for the value of each order of a ladder."""
    return [_row_of_order(e, ladder, truth) for e in ladder.orders]


def _row_of_order(e: Estimate, ladder: Ladder, truth: float) -> Row:
    headline = e is ladder.headline
    name = f"{e.estimator}{' (headline)' if headline else ''}: right {e.assumption or NO_ASSUMPTION}"
    return Row(
        label=name,
        interval=e.value,
        note=why_not(e.reason),
        strong=headline,
        marker=truth if e.identified else math.nan,
    )


def estimates_of_modules(evaluation: Evaluation) -> list[Estimate]:
    """Return the estimates of single modules by one estimator: the first of `ESTIMATOR_ORDER` that there is.

    The direct method is a diagnostic and never shown here.
    """
    found = [e for e in evaluation.estimates if e.module is not None]
    name = next((name for name in ESTIMATOR_ORDER if any(e.estimator == name for e in found)), None)
    return [e for e in found if e.estimator == name]


def module_rows(estimates: Sequence[Estimate]) -> list[Row]:
    """Return a row for the difference that each module's estimate makes to the log."""
    return [
        Row(
            label=e.label,
            interval=e.difference,
            note=why_not(e.reason),
            signed=True,
        )
        for e in estimates
    ]


def module_picture(evaluation: Evaluation) -> Picture | None:
    """Draw what each module alone would change, by one estimator; None where there is no module's estimate."""
    shown = estimates_of_modules(evaluation)
    if not shown:
        return None
    clear = [f"`{e.label}`" for e in shown if e.identified and not e.difference.contains(0.0)]
    caption = (
        f"What would change if the policy chose one module alone and the log all others, by {shown[0].estimator}. The "
        "rows do not add up to the policy's value: each keeps the log's choices of the other modules."
    )
    if clear:
        caption += f" The intervals of {', '.join(clear)} exclude zero."
    elif any(e.identified for e in shown):
        caption += " No interval excludes zero."
    else:
        caption += " The log identifies none of them."
    return Picture(
        title="One module at a time",
        drawing=row_chart(module_rows(shown), "difference to the log's mean reward per decision with a reward"),
        caption=caption,
        name="modules",
        columns=("module", "estimator", *INTERVAL_COLUMNS, "ess", "not identified"),
        numbers=tuple((e.label, e.estimator, *cells_of(e.difference), e.support.ess, e.reason) for e in shown),
    )
