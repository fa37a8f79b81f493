"""The pieces that all forms of the report share: numbers as text, columns, names of propensity sources."""

from __future__ import annotations

import math
import re
from collections.abc import Mapping, Sequence

from markupsafe import Markup, escape

from crosschannel.evaluation.bootstrap import Interval
from crosschannel.histories.propensities.sources import describe_sources, summarise_sources

NOTHING = "-"
#: The first columns of a table of the support, as text and as HTML.
SUPPORT_COLUMNS = ("policy chooses", "decisions", "ESS", "ESS of users", "kurtosis", "largest weight")
_PROPENSITY_LABELS = {
    "logged": "logged propensities",
    "by design": "propensities by design",
    "estimated": "estimated propensities",
    "missing": "no propensities",
}


def why_not(reason: str) -> str:
    """Return the note of a number that is not identified for a reason; empty without one."""
    return f"not identified ({reason})" if reason else ""


def propensity_label(counts: Mapping[str, int]) -> str:
    """Return where the propensities of some decisions come from, given the number of decisions by source."""
    source = summarise_sources(counts)
    return _PROPENSITY_LABELS.get(source) or f"propensities {describe_sources(counts)}"


def format_point(interval: Interval) -> str:
    """Return the value with its sign and four digits, or a dash where there is none."""
    sign = "+" if interval.point >= 0 else ""
    return f"{sign}{_four_digits(interval.point)}" if interval.is_defined else NOTHING


def format_bounds(interval: Interval) -> str:
    """Return the interval's bounds, or a dash where there are none."""
    return f"[{_four_digits(interval.low)}, {_four_digits(interval.high)}]" if interval.is_defined else NOTHING


def format_interval(interval: Interval) -> str:
    """Return the value and its bounds."""
    return f"{format_point(interval)} {format_bounds(interval)}"


def _four_digits(value: float) -> str:
    """Return a number with four digits; amounts of thousands in full, with separators."""
    return f"{value:,.0f}" if 1e4 <= abs(value) < 1e12 else f"{value:.4g}"


def format_number(value: float, form: str) -> str:
    """Return a number in a format such as `.3g`, or a dash if it is not finite."""
    return format(value, form) if math.isfinite(value) else NOTHING


def reasons_once(rows: Sequence[tuple[str, ...]]) -> list[tuple[str, ...]]:
    """Leave a reason out of the rows below the first that has it, if a table has no other; cells keep their width."""
    reasons = {cell for row in rows for cell in row if cell.startswith("not identified (")}
    shown, done = list[tuple[str, ...]](), False
    for row in rows:
        again = done and len(reasons) == 1
        shown.append(tuple("not identified".ljust(len(cell)) if again and cell in reasons else cell for cell in row))
        done = done or bool(reasons.intersection(row))
    return shown


def align(rows: Sequence[tuple[str, ...]]) -> list[str]:
    """Pad columns to the width of their cells; a reason may extend over the empty cells to its right."""
    rows = reasons_once(rows)
    longest = max(map(len, rows))
    rows = [(*row, *([""] * (longest - len(row)))) for row in rows]
    widths = [
        max(len(row[j]) for row in rows if j + 1 == len(row) or row[j + 1] or not row[j].startswith("not identified"))
        for j in range(len(rows[0]))
    ]
    return ["  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip() for row in rows]


def prose(text: str) -> Markup:
    """Return a text as HTML: escaped, and what is between backquotes as code."""
    return Markup(re.sub(r"`([^`]*)`", r"<code>\1</code>", str(escape(text))))
