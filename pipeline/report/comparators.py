"""The other policies of a run's report, as a picture, with the true values where they are known."""

from __future__ import annotations

from crosschannel.evaluation import headline
from crosschannel.evaluation.report.formatting import why_not
from crosschannel.evaluation.report.page import ReportSection, ReportTable
from crosschannel.evaluation.report.pictures import Picture, Row, row_chart
from crosschannel.evaluation.report.pictures.evaluations import INTERVAL_COLUMNS, cells_of
from crosschannel.pipeline.judgement.comparators import EVALUATED, LOGGED
from crosschannel.pipeline.judgement.records import Comparator
from crosschannel.pipeline.judgement.results import EvaluationResult
from crosschannel.pipeline.judgement.tables import (
    COMPARATOR_COLUMNS,
    comparator_cells,
    comparators_title,
    constants_in_words,
)

TRUTH_COLUMNS = ("policy", "per decision", "per user", "± 95 %", "messages per user", "unsubscribed")


def comparators_section(result: EvaluationResult) -> ReportSection | None:
    """Return the section on other policies; None where the policy was compared with none."""
    if not result.comparators:
        return None
    cells = tuple(map(comparator_cells, result.comparators))
    tables = [ReportTable("Comparators", COMPARATOR_COLUMNS, cells, folded=True)]
    if result.truth:
        rows = tuple(
            (
                value.policy,
                f"{value.per_decision:.4f}",
                f"{value.per_user:.3f}",
                f"{1.96 * value.per_user_se:.3f}",
                f"{value.sends_per_user:.1f}",
                f"{value.unsubscribed:.1%}",
            )
            for value in result.truth
        )
        users = result.truth[0].users
        title = f"Ground truth: true effect at the logged decisions, and when deployed to {users:,} fresh users"
        tables.append(ReportTable(title, TRUTH_COLUMNS, rows))
    title = comparators_title(result.evaluation, constrained=bool(result.constraints))
    sentences = (f"{title}.", *constants_in_words(result.comparators))
    return ReportSection("Other policies", sentences, tuple(tables), (_picture(result),))


def _picture(result: EvaluationResult) -> Picture:
    best = headline(result.evaluation)
    truth = result.truth[0].per_decision if result.truth else float("nan")
    own = Row(
        label=f"{result.evaluation.policy} (evaluated)",
        interval=best.value,
        note=why_not(best.reason),
        marker=truth,
        strong=True,
    )
    rows = [own, *(_row(each) for each in result.comparators)]
    logged = next((each.value.point for each in result.comparators if each.policy == LOGGED), float("nan"))
    chart = row_chart(rows, "mean reward per decision with a reward", logged, "the log's mean")
    numbers = [(own.label, "", *cells_of(best.value), *cells_of(best.difference), best.support.ess, best.reason, truth)]
    numbers += [
        (each.policy, each.detail, *cells_of(each.value), *cells_of(each.difference), each.ess, each.reason, each.truth)
        for each in result.comparators
    ]
    return Picture(
        title="What other policies would have earned",
        drawing=chart,
        caption=_caption(result),
        name="comparators",
        columns=(
            *("policy", "actions", *INTERVAL_COLUMNS),
            *(f"difference {name}" for name in INTERVAL_COLUMNS),
            *("ess", "not identified", "true value"),
        ),
        numbers=tuple(numbers),
    )


def _row(each: Comparator) -> Row:
    label = f"{each.policy}: {each.detail}" if each.detail else each.policy
    return Row(label=label, interval=each.value, note=why_not(each.reason), marker=each.truth)


def _caption(result: EvaluationResult) -> str:
    known = [each for each in result.comparators if each.value.is_defined and each.policy not in (LOGGED, EVALUATED)]
    unknown = sum(bool(each.reason) for each in result.comparators)
    ladder = result.evaluation.ladder
    weights = "the weights of whole messages" if ladder is None else f"weights of order {ladder.order}, as the headline"
    text = (
        f"Each line is the value of one policy on the same users, by {weights}, with a constant baseline. The first "
        f"line is the headline, whose estimator may have an outcome model besides; `{EVALUATED}` is the same policy by "
        "the estimator of the others, and leads are differences to it."
    )
    if known:
        best = max(known, key=lambda each: each.value.point)
        text += (
            f" The largest estimate is that of {best.policy}: {best.value.point:+.4g} "
            f"[{best.value.low:.4g}, {best.value.high:.4g}]; the largest of several estimates is likely too large."
        )
    if unknown:
        text += f" The log does not identify {unknown} of {len(result.comparators)}."
    return text
