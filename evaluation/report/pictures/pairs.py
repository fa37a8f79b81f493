"""Charts of two amounts beside each other, one pair of bars per row: what the log did and what the policy does."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

from markupsafe import Markup

from crosschannel.evaluation.report.formatting import prose
from crosschannel.evaluation.report.pictures.charts import NONE

BAR_HEIGHT = 9


@dataclass(frozen=True)
class Pair:
    """One row of a chart of pairs.

    Attributes:
        label: What the row is about.
        first: The first amount, at least 0; NaN for none.
        second: The second amount.
        group: Name above the first row of a group; empty for none.
    """

    label: str
    first: float
    second: float
    group: str = ""


def pair_chart(rows: Sequence[Pair], names: tuple[str, str], axis: str) -> Markup:
    """Draw rows of two bars on a common axis that begins at zero; every text is escaped.

    Args:
        rows: The rows, from top to bottom.
        names: What the first and the second bar are.
        axis: What the bars measure; their amounts are shares.
    """
    amounts = [value for row in rows for value in (row.first, row.second) if math.isfinite(value)]
    if not amounts:
        return NONE
    longest = max(amounts) or 1.0
    parts, previous = [], ""
    for row in rows:
        if row.group and row.group != previous:
            parts.append(f'<li class="group">{prose(row.group)}</li>')
        previous = row.group
        bars = "".join(
            f'<rect class="{style}" x="0" y="{1 + k * (BAR_HEIGHT + 2)}" height="{BAR_HEIGHT}" '
            f'width="{100 * value / longest:.2f}%"/>'
            for k, (value, style) in enumerate(((row.first, "second"), (row.second, "first")))
            if math.isfinite(value)
        )
        texts = ", ".join(
            f"{name} {f'{value:.1%}' if math.isfinite(value) else '-'}"
            for name, value in zip(names, (row.first, row.second), strict=True)
        )
        parts.append(
            f'<li><span class="label">{prose(row.label)}</span><svg width="100%" height="{2 * BAR_HEIGHT + 4}" '
            f'aria-hidden="true">{bars}</svg><span class="value">{prose(texts)}</span></li>'
        )
    key = f"Bars: {axis}; the upper one is {names[0]}, the lower one {names[1]}."
    return Markup(f'<ul class="chart">{"".join(parts)}</ul><p class="note key">{prose(key)}</p>')
