"""The rows of the report's pictures as rows of a plot."""

from __future__ import annotations

import math
from collections.abc import Sequence

from crosschannel.core.plotting import Mark
from crosschannel.evaluation.bootstrap import Interval
from crosschannel.evaluation.report.formatting import format_interval
from crosschannel.evaluation.report.pictures import Row

PER_DECISION = "mean reward per decision with a reward [reward units]"


def marks_of(rows: Sequence[Row]) -> list[Mark]:
    """Return rows for `core.plotting.draw_marks`; one without an interval has its note alone."""
    return [_mark_of(row) for row in rows]


def _mark_of(row: Row) -> Mark:
    given = row.interval
    shown = given if given.is_defined else Interval(math.nan, math.nan, math.nan, math.nan)
    return Mark(
        label=row.label,
        value=shown.point,
        low=shown.low,
        high=shown.high,
        text=format_interval(given),
        note=row.note,
        group=row.group,
        start=row.start,
        marker=row.marker,
        side={" better": 1, " worse": -1}.get(row.tone, 0),
        strong=row.strong,
    )
