"""The value of the learning procedure in a run's report: beside the policy's own, and fold by fold."""

from __future__ import annotations

from crosschannel.evaluation import Estimate, headline, verdict
from crosschannel.evaluation.report.formatting import why_not
from crosschannel.evaluation.report.ladder_text import NO_ASSUMPTION, order_rows
from crosschannel.evaluation.report.page import ReportSection, ReportTable
from crosschannel.evaluation.report.pictures import Picture, Row, row_chart
from crosschannel.evaluation.report.pictures.evaluations import INTERVAL_COLUMNS, cells_of
from crosschannel.pipeline.judgement.results import EvaluationResult
from crosschannel.pipeline.judgement.tables import (
    COMPARATOR_COLUMNS,
    CONSTRAINT_COLUMNS,
    comparator_cells,
    constants_in_words,
    constraint_cells,
)
from crosschannel.pipeline.procedure.records import (
    INTERVAL,
    NOT_OF_THE_POLICY,
    ProcedureValue,
    fold_cells,
    fold_columns,
    in_short,
    spread_sentence,
)


def procedure_section(result: EvaluationResult) -> ReportSection | None:
    """Return the section on the learning procedure; None where it was not valued."""
    value = result.procedure
    if value is None:
        return None
    best = headline(value.evaluation)
    sentences = [
        f"This is {value.estimand}. {in_short(value)}; right {best.assumption or NO_ASSUMPTION}.",
        verdict(value.evaluation),
        INTERVAL,
        NOT_OF_THE_POLICY,
        spread_sentence(value),
        *constants_in_words(value.comparators),
    ]
    tables = tuple(_tables(value))
    return ReportSection("The learning procedure", tuple(filter(None, sentences)), tables, (_picture(result, value),))


def _tables(value: ProcedureValue) -> list[ReportTable]:
    level = f"{value.evaluation.settings.confidence_level:.0%}"
    columns = fold_columns(level, value.by_fold)
    rows = tuple(fold_cells(each, len(columns)) for each in value.by_fold)
    found = [ReportTable("Each policy, judged by the fold that it has not seen", columns, rows)]
    if value.evaluation.ladder is not None:
        head, *orders = order_rows(value.evaluation.ladder, level)
        found.append(ReportTable("The learning procedure by order", head, tuple(orders), folded=True))
    if value.comparators:
        title = "Other policies on all users; constants are those of the users who teach in each fold"
        cells = tuple(map(comparator_cells, value.comparators))
        found.append(ReportTable(title, COMPARATOR_COLUMNS, cells, folded=True))
    if value.constraints:
        cells = tuple(map(constraint_cells, value.constraints))
        found.append(ReportTable("Shadow prices and use, at all users' slots", CONSTRAINT_COLUMNS, cells, folded=True))
    return found


def _picture(result: EvaluationResult, value: ProcedureValue) -> Picture:
    own, best = headline(result.evaluation), headline(value.evaluation)
    rows = [
        _row("the policy of the run, by the test users", own),
        _row("the learning procedure, by all users", best, strong=True),
    ]
    rows += [
        Row(f"without fold {each.fold}", each.difference, why_not(each.reason), signed=True) for each in value.by_fold
    ]
    numbers = [(row.label, *cells_of(row.interval), row.note) for row in rows]
    return Picture(
        title="What policies so learned earn more than the log",
        drawing=row_chart(rows, "difference to the log per decision with a reward"),
        caption=(
            "The first line is the policy that would be deployed. The second is the mean over the policies below it, "
            "each of which was learned without the fold of users that judges it: the value of the learning procedure."
        ),
        name="procedure",
        columns=("policy", *INTERVAL_COLUMNS, "not identified"),
        numbers=tuple(numbers),
    )


def _row(label: str, best: Estimate, *, strong: bool = False) -> Row:
    note = why_not(best.reason)
    return Row(label, best.difference, note, signed=True, strong=strong)
