"""The value of a followed policy in a run's report: its estimates, its cost events, and how far the log supports it."""

from __future__ import annotations

from crosschannel.evaluation import TrajectoryEvaluation
from crosschannel.evaluation.report.formatting import why_not
from crosschannel.evaluation.report.page import ReportSection, ReportTable
from crosschannel.evaluation.report.pictures import Picture, Row, row_chart
from crosschannel.evaluation.report.pictures.evaluations import INTERVAL_COLUMNS, cells_of
from crosschannel.pipeline.judgement.following import FollowedPolicy, cost_cells, cost_columns, followed_title


def following_section(followed: FollowedPolicy | None) -> ReportSection | None:
    """Return the section on the policy that is followed over several slots; None where it was not valued so."""
    if followed is None:
        return None
    title = followed_title(followed)
    if followed.value is None:
        return ReportSection(title, (f"The log does not identify it: {followed.reason}.",))
    value = followed.value
    level = f"{value.settings.confidence_level:.0%}"
    head, *rows = value.support_rows()
    tables = [ReportTable("How far the log supports it: weights are products over the slots", head, tuple(rows))]
    if followed.costs:
        costs = tuple(map(cost_cells, followed.costs))
        tables.insert(0, ReportTable("Cost events", cost_columns(level), costs))
    sentences = (
        f"Each value is the {value.estimand}, for {value.about}. Unlike the values above, it contains what earlier "
        "messages change for later slots.",
        *value.notes(),
    )
    return ReportSection(title, sentences, tuple(tables), (_picture(value),))


def _picture(value: TrajectoryEvaluation) -> Picture:
    best = value.headline
    rows = [Row("the log", value.logged)]
    rows += [Row(e.estimator, e.value, why_not(e.reason), strong=e is best) for e in value.estimates]
    if best.identified:
        caption = (
            f"`{best.estimator}` is reported first: a difference of {best.difference.point:+.4g} "
            f"[{best.difference.low:.4g}, {best.difference.high:.4g}] to the log per user. The others need other "
            "assumptions."
        )
    else:
        caption = f"The log does not identify the value of the followed policy: {best.reason}."
    return Picture(
        title="What a user would have earned over these slots",
        drawing=row_chart(rows, "mean sum of rewards per user", value.logged.point, "the log's mean"),
        caption=f"{caption} `fqe` relies on its model alone, and is a diagnostic.",
        name="followed",
        columns=(
            *("estimator", *INTERVAL_COLUMNS),
            *(f"difference {name}" for name in INTERVAL_COLUMNS),
            "not identified",
        ),
        numbers=tuple((e.estimator, *cells_of(e.value), *cells_of(e.difference), e.reason) for e in value.estimates),
    )
