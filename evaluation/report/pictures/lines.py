"""Charts of two amounts over time: one small chart per row, all on the same axes."""

from __future__ import annotations

import itertools
import math
from collections.abc import Sequence
from dataclasses import dataclass

from markupsafe import Markup

from crosschannel.evaluation.report.formatting import prose
from crosschannel.evaluation.report.pictures.charts import NONE

#: Height of a row's drawing, and what stays free above and below for the dots.
HEIGHT, MARGIN = 54, 5


@dataclass(frozen=True)
class Lines:
    """One row of a chart over time.

    Attributes:
        label: What the row is about.
        first: The first amounts, at least 0, one for each period; NaN for none.
        second: The second amounts.
    """

    label: str
    first: Sequence[float]
    second: Sequence[float]


def line_chart(
    rows: Sequence[Lines], periods: Sequence[str], names: tuple[str, str], axis: str, form: str = ".1%"
) -> Markup:
    """Draw two lines over time per row, on common axes that begin at zero; every text is escaped.

    Args:
        rows: The rows, from top to bottom.
        periods: Names of the periods, at least one.
        names: What the first and the second line are.
        axis: What the lines measure.
        form: Format of the amounts.
    """
    amounts = [value for row in rows for line in (row.first, row.second) for value in line if math.isfinite(value)]
    if not amounts:
        return NONE
    highest = max(amounts) or 1.0
    parts = []
    for row in rows:
        drawn = "".join(_line(line, highest, style) for line, style in ((row.first, "second"), (row.second, "first")))
        texts = ", ".join(
            f"{name} {_range(line, form)}" for name, line in zip(names, (row.first, row.second), strict=True)
        )
        floor = f'<line class="grid" x1="0" x2="100%" y1="{HEIGHT - MARGIN}" y2="{HEIGHT - MARGIN}"/>'
        parts.append(
            f'<li><span class="label">{prose(row.label)}</span><svg width="100%" height="{HEIGHT}" '
            f'aria-hidden="true">{floor}{drawn}</svg><span class="value">{prose(texts)}</span></li>'
        )
    ends = (
        f'<text x="0" y="13">{prose(periods[0])}</text><text x="100%" y="13" text-anchor="end">{prose(periods[-1])}'
        "</text>"
    )
    key = (
        f"Lines: {axis}, from 0 to {format(highest, form)} in every row; dots are {names[0]}, squares are {names[1]}; "
        "beside them the least and the most."
    )
    return Markup(
        f'<ul class="chart">{"".join(parts)}<li class="axis" aria-hidden="true"><span></span>'
        f'<svg width="100%" height="18">{ends}</svg><span></span></li></ul><p class="note key">{prose(key)}</p>'
    )


def _line(amounts: Sequence[float], highest: float, style: str) -> str:
    """Return the dots or squares of one line, joined where neighbours have an amount."""
    last = max(len(amounts) - 1, 1)
    places = [
        (f"{2 + 96 * k / last:.2f}%", round(HEIGHT - MARGIN - (HEIGHT - 2 * MARGIN) * value / highest, 1))
        if math.isfinite(value)
        else None
        for k, value in enumerate(amounts)
    ]
    joined = "".join(
        f'<line class="path {style}" x1="{a[0]}" x2="{b[0]}" y1="{a[1]}" y2="{b[1]}"/>'
        for a, b in itertools.pairwise(places)
        if a is not None and b is not None
    )
    marks = "".join(
        f'<circle class="{style}" cx="{place[0]}" cy="{place[1]}" r="3"/>'
        if style == "second"
        else f'<svg x="{place[0]}" y="{place[1]}" overflow="visible" width="1" height="1">'
        f'<rect class="{style}" x="-3" y="-3" width="6" height="6"/></svg>'
        for place in places
        if place is not None
    )
    return joined + marks


def _range(amounts: Sequence[float], form: str) -> str:
    known = [value for value in amounts if math.isfinite(value)]
    return f"{format(min(known), form)} to {format(max(known), form)}" if known else "-"
