"""Charts of values with intervals, one per row, that fit every width and use the page's colours.

Positions across are percentages and texts are HTML beside the drawing, so that a narrow page neither shrinks a letter
nor has to be moved sideways.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

from markupsafe import Markup

from crosschannel.evaluation.bootstrap import Interval
from crosschannel.evaluation.report.formatting import format_interval, prose

#: Height of a row's drawing, and share of the axis that stays free on both sides.
ROW_HEIGHT, MARGIN = 22, 0.05
NONE = Markup('<p class="note">There is nothing to draw.</p>')


@dataclass(frozen=True)
class Row:
    """One row of a chart.

    Attributes:
        label: What the row is about.
        interval: The value with its interval; undefined where there is none.
        note: Text in place of the value, such as why there is none.
        group: Name above the first row of a group; empty for none.
        start: Where the bar of the value begins; None draws no bar. The interval is drawn where the bar ends.
        marker: A second value to show, such as the true one; NaN for none.
        signed: Whether the value is a difference, so that its colour shows the side of zero that its interval is on.
        strong: Whether the row stands out.
    """

    label: str
    interval: Interval
    note: str = ""
    group: str = ""
    start: float | None = None
    marker: float = math.nan
    signed: bool = False
    strong: bool = False

    @property
    def tone(self) -> str:
        """`better` or `worse` where a difference's interval excludes zero, else empty."""
        if not self.signed or not self.interval.is_defined or self.interval.contains(0.0):
            return ""
        return " better" if self.interval.point > 0 else " worse"


@dataclass(frozen=True)
class Scale:
    """A horizontal axis."""

    low: float
    high: float

    @classmethod
    def of_values(cls, values: Sequence[float]) -> Scale:
        """Return an axis with zero and all finite values on it, and a margin."""
        finite = [0.0, *(value for value in values if math.isfinite(value))]
        low, high = min(finite), max(finite)
        margin = MARGIN * ((high - low) or 1.0)
        return cls(low - margin, high + margin)

    def x(self, value: float) -> str:
        """Return a position as a share of the width."""
        return f"{100 * (value - self.low) / (self.high - self.low):.2f}%"

    def width(self, first: float, last: float) -> str:
        """Return the distance of two values as a share of the width."""
        return f"{100 * abs(last - first) / (self.high - self.low):.2f}%"


def row_chart(
    rows: Sequence[Row],
    axis: str,
    reference: float = math.nan,
    reference_name: str = "",
    marker: str = "true",
) -> Markup:
    """Draw rows on a common axis; every text is escaped. Where no row has a value, there are texts without an axis.

    Args:
        rows: The rows, from top to bottom.
        axis: What the horizontal axis measures.
        reference: A value to compare with, drawn as a line through all rows; NaN for none.
        reference_name: What it is.
        marker: What the rows' second values are, in a word.
    """
    drawn = [row for row in rows if row.interval.is_defined]
    if not drawn:
        texts = "".join(_row(row, "<span></span>", marker) for row in rows)
        return Markup(f'<ul class="chart">{texts}</ul>') if rows else NONE
    ends = [value for row in drawn for value in _extent(row)]
    scale = Scale.of_values([*ends, *(row.marker for row in rows), reference])
    ticks = round_ticks(scale.low, scale.high)
    parts, previous = [], ""
    for row in rows:
        if row.group and row.group != previous:
            parts.append(f'<li class="group">{prose(row.group)}</li>')
        previous = row.group
        parts.append(_row(row, _draw(row, scale, ticks, reference), marker))
    marks = "".join(f'<text x="{scale.x(tick)}" y="13" text-anchor="middle">{tick:.4g}</text>' for tick in ticks)
    key = [f"Axis: {axis}", "dot and line: value and interval", "dotted line: zero"]
    if any(row.start is not None for row in drawn):
        key.append("bar: what the step adds, or the value itself")
    if math.isfinite(reference):
        key.append(f"dashed line: {reference_name} ({reference:+.4g})")
    if any(math.isfinite(row.marker) for row in rows):
        key.append(f"diamond: {marker} value")
    return Markup(
        f'<ul class="chart">{"".join(parts)}<li class="axis" aria-hidden="true"><span></span>'
        f'<svg width="100%" height="18">{marks}</svg><span></span></li></ul>'
        f'<p class="note key">{prose("; ".join(key))}.</p>'
    )


def _draw(row: Row, scale: Scale, ticks: Sequence[float], reference: float) -> str:
    """Return the drawing of a row; a row with neither value nor marker has none."""
    if not row.interval.is_defined and not math.isfinite(row.marker):
        return "<span></span>"
    middle = ROW_HEIGHT / 2
    parts = [_vertical(scale.x(tick), "zero" if tick == 0 else "grid") for tick in ticks]
    if math.isfinite(reference):
        parts.append(_vertical(scale.x(reference), "reference"))
    if row.interval.is_defined:
        parts.append(_draw_value(row, scale))
    if math.isfinite(row.marker):
        parts.append(
            f'<svg x="{scale.x(row.marker)}" y="{middle}" overflow="visible" width="1" height="1">'
            '<path class="marker" d="M0,-7 L6,0 L0,7 L-6,0 Z"/></svg>'
        )
    return f'<svg width="100%" height="{ROW_HEIGHT}" aria-hidden="true">{"".join(parts)}</svg>'


def _draw_value(row: Row, scale: Scale) -> str:
    """Return a row's bar, if it has one, its interval and its dot."""
    offset, middle, bar = row.start or 0.0, ROW_HEIGHT / 2, ""
    low, point, high = (offset + value for value in (row.interval.low, row.interval.point, row.interval.high))
    if row.start is not None:
        bar = (
            f'<rect class="block{row.tone}" x="{scale.x(min(offset, point))}" y="4" '
            f'width="{scale.width(offset, point)}" height="{ROW_HEIGHT - 8}"/>'
        )
    return (
        f'{bar}<line class="bar{row.tone}" x1="{scale.x(low)}" x2="{scale.x(high)}" y1="{middle}" y2="{middle}"/>'
        f'<circle class="dot{row.tone}" cx="{scale.x(point)}" cy="{middle}" r="4.5"/>'
    )


def _row(row: Row, drawing: str, marker: str) -> str:
    """Return a row with its texts."""
    text = row.note or format_interval(row.interval)
    if math.isfinite(row.marker):
        text += f", {marker} {row.marker:+.4g}"
    strong = ' class="strong"' if row.strong else ""
    value = "value" if row.interval.is_defined and not row.note else "value why"
    return (
        f'<li{strong}><span class="label">{prose(row.label)}</span>{drawing}'
        f'<span class="{value}">{prose(text)}</span></li>'
    )


def _vertical(x: str, name: str) -> str:
    return f'<line class="{name}" x1="{x}" x2="{x}" y1="0" y2="100%"/>'


def _extent(row: Row) -> tuple[float, ...]:
    """Return the values that a row has to show."""
    offset = row.start or 0.0
    return (offset, *(offset + value for value in (row.interval.low, row.interval.point, row.interval.high)))


def round_ticks(low: float, high: float, count: int = 4) -> list[float]:
    """Return about `count` round numbers between two bounds; `low` is below `high`."""
    rough = (high - low) / count
    unit = 10.0 ** math.floor(math.log10(rough))
    step = next(unit * factor for factor in (1, 2, 5, 10) if unit * factor >= rough * (1 - 1e-9))
    return [k * step for k in range(math.ceil(low / step), math.floor(high / step) + 1)]
