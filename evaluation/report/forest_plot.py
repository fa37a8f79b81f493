"""A forest plot (values with intervals, one per row, around zero) as inline SVG that uses the page's colours."""

from __future__ import annotations

import math
from collections.abc import Sequence

from markupsafe import Markup, escape

from crosschannel.evaluation.bootstrap import Interval
from crosschannel.evaluation.report.formatting import format_bounds, format_point

WIDTH = 960
LEFT = 270
RIGHT = 310
ROW_HEIGHT = 26
TOP = 34


def forest_plot(rows: Sequence[tuple[str, str, Interval]], axis: str) -> Markup:
    """Draw an SVG element; every text in it is escaped.

    Args:
        rows: Group, name and interval, from top to bottom; each group's name is printed once.
        axis: What the horizontal axis measures.
    """
    if not rows:
        return Markup('<p class="note">No estimate is identified, so there is no plot.</p>')
    low = min(0.0, *(i.low for *_, i in rows), *(i.point for *_, i in rows))
    high = max(0.0, *(i.high for *_, i in rows), *(i.point for *_, i in rows))
    margin = 0.04 * ((high - low) or 1.0)
    low, high = low - margin, high + margin

    def x(value: float) -> str:
        return f"{LEFT + (value - low) / (high - low) * (WIDTH - LEFT - RIGHT):.1f}"

    bottom = TOP + ROW_HEIGHT * len(rows)
    parts = [f'<text class="soft" x="0" y="14">{escape(axis)}</text>']
    for tick in round_ticks(low, high):
        parts.append(f'<line class="grid" x1="{x(tick)}" x2="{x(tick)}" y1="{TOP}" y2="{bottom}"/>')
        parts.append(f'<text class="soft" x="{x(tick)}" y="{bottom + 18}" text-anchor="middle">{tick:.6g}</text>')
    parts.append(f'<line class="zero" x1="{x(0)}" x2="{x(0)}" y1="{TOP}" y2="{bottom}"/>')
    previous = None
    for k, (group, name, interval) in enumerate(rows):
        y = TOP + ROW_HEIGHT * (k + 0.5)
        direction = "" if interval.contains(0.0) else (" better" if interval.point > 0 else " worse")
        if group != previous:
            parts.append(f'<text x="0" y="{y + 4}">{escape(shorten(group))}</text>')
        previous = group
        parts.append(f'<text class="soft" x="{LEFT - 90}" y="{y + 4}">{escape(name)}</text>')
        parts.append(f'<line class="bar{direction}" x1="{x(interval.low)}" x2="{x(interval.high)}" y1="{y}" y2="{y}"/>')
        parts.append(f'<circle class="dot{direction}" cx="{x(interval.point)}" cy="{y}" r="4.5"/>')
        text = f"{format_point(interval)} {format_bounds(interval)}"
        parts.append(f'<text class="soft" x="{WIDTH - RIGHT + 16}" y="{y + 4}">{escape(text)}</text>')
    height = bottom + 28
    return Markup(
        f'<svg viewBox="0 0 {WIDTH} {height}" width="{WIDTH}" height="{height}" role="img" '
        f'aria-label="{escape(axis)}">{"".join(parts)}</svg>'
    )


def round_ticks(low: float, high: float, count: int = 8) -> list[float]:
    """Return about `count` round numbers between two bounds; `low` is below `high`."""
    rough = (high - low) / count
    unit = 10.0 ** math.floor(math.log10(rough))
    step = next(unit * factor for factor in (1, 2, 5, 10) if unit * factor >= rough * (1 - 1e-9))
    return [k * step for k in range(math.ceil(low / step), math.floor(high / step) + 1)]


def shorten(text: str, length: int = 24) -> str:
    """Cut a text to a length, with an ellipsis where it was cut."""
    return text if len(text) <= length else text[: length - 1] + "…"
