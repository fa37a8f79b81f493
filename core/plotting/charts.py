"""Three kinds of charts on Matplotlib's axes: values with intervals by row, pairs of bars, and courses over time."""

from __future__ import annotations

import math
import textwrap
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from crosschannel.core.plotting.axes import (
    AFTER,
    BEFORE,
    INK,
    PALE,
    label_axes,
    legend_below,
    own_axes,
    plain,
    write_note,
)

if TYPE_CHECKING:
    from matplotlib.axes import Axes

#: Inches of a row and of what is around the rows; characters of a row's label in a line.
ROW_INCHES, FRAME_INCHES, LABEL_WIDTH = 0.36, 1.1, 44
NOTHING, NO_VALUE, NOTE_CHARACTERS = "There is nothing to draw.", "not identified", 90
#: Colour and marker of a value by the side of zero that its interval is on: shape and colour both tell it.
_STYLES = {-1: (BEFORE, "s"), 0: (INK, "o"), 1: (AFTER, "^")}
_SIDES = {-1: "interval below zero", 1: "interval above zero"}


@dataclass(frozen=True)
class Mark:
    """One row of a chart of intervals.

    Attributes:
        label: What the row is about.
        value: The value; NaN where there is none.
        low: Lower bound of its interval; NaN for none.
        high: Upper bound.
        text: The value in words, to the right of the axes.
        note: Text in place of the value where there is none, such as why.
        group: Name above the first row of a group; empty for none.
        start: Where the bar of the value begins; None draws no bar. The interval is drawn where the bar ends.
        marker: A second value to show; NaN for none.
        side: 1 or -1 where the interval is on one side of zero and the colour shows it; else 0.
        strong: Whether the row stands out.
    """

    label: str
    value: float
    low: float = math.nan
    high: float = math.nan
    text: str = ""
    note: str = ""
    group: str = ""
    start: float | None = None
    marker: float = math.nan
    side: int = 0
    strong: bool = False

    @property
    def is_drawn(self) -> bool:
        """Whether there is a value to draw."""
        return math.isfinite(self.value)


def draw_marks(
    marks: Sequence[Mark],
    across: str,
    *,
    title: str = "",
    reference: float = math.nan,
    reference_name: str = "",
    marker: str = "true value",
    ax: Axes | None = None,
) -> Axes:
    """Draw rows of values with their intervals from top to bottom; a row without a value shows its note instead.

    Args:
        marks: The rows.
        across: What the horizontal axis measures, with its unit.
        title: The title.
        reference: A value to compare with, drawn as a line through all rows; NaN for none.
        reference_name: What it is.
        marker: What the rows' second values are.
        ax: Axes to draw on; None makes a new figure.
    """
    lines = _with_groups(marks)
    ax = own_axes(ax, FRAME_INCHES + ROW_INCHES * max(len(lines), 2))
    if not marks:
        write_note(ax, NOTHING)
        label_axes(ax, across, title=title)
        return ax
    named: set[str] = set()
    for y, line in enumerate(lines):
        if isinstance(line, Mark):
            _draw_mark(ax, y, line, marker, named)
    if math.isfinite(reference):
        ax.axvline(reference, color=PALE, lw=1, ls="--", label=plain(f"{reference_name} ({reference:.4g})"))
    if any(math.isfinite(value) for mark in marks for value in (mark.value, mark.marker, reference)):
        ax.axvline(0.0, color=INK, lw=0.8, ls=":")
    else:
        ax.set_xticks([])
    _label_rows(ax, lines)
    if ax.get_legend_handles_labels()[1]:
        legend_below(ax)
    label_axes(ax, across, title=title)
    return ax


def _with_groups(marks: Sequence[Mark]) -> list[Mark | str]:
    """Return the rows with the name of each group above its first row."""
    lines: list[Mark | str] = []
    previous = ""
    for mark in marks:
        if mark.group and mark.group != previous:
            lines.append(mark.group)
        previous = mark.group
        lines.append(mark)
    return lines


def _label_rows(ax: Axes, lines: Sequence[Mark | str]) -> None:
    """Write the rows' labels, from top to bottom."""
    texts = [line if isinstance(line, str) else line.label for line in lines]
    wrapped = ["\n".join(textwrap.wrap(plain(text), LABEL_WIDTH)) for text in texts]
    ax.set_yticks(range(len(lines)), wrapped, fontsize=8)
    for tick, line in zip(ax.get_yticklabels(), lines, strict=True):
        if isinstance(line, str) or line.strong:
            tick.set_fontweight("bold")
    ax.tick_params(axis="y", length=0)
    ax.set_ylim(len(lines) - 0.4, -0.6)


def _draw_mark(ax: Axes, y: int, mark: Mark, marker: str, named: set[str]) -> None:
    """Draw a row: its bar, interval and value or its note, then its second value; `named` is what the legend has."""

    def once(name: str) -> str:
        found = "_nolegend_" if name in named else plain(name)
        named.add(name)
        return found

    if mark.is_drawn:
        colour, shape = _STYLES[mark.side]
        offset = mark.start or 0.0
        if mark.start is not None:
            ax.barh(y, mark.value, left=offset, height=0.62, color=colour, alpha=0.25, lw=0)
        if math.isfinite(mark.low) and math.isfinite(mark.high):
            ax.hlines(y, offset + mark.low, offset + mark.high, color=colour, lw=2.4 if mark.strong else 1.6)
        label = once(_SIDES[mark.side]) if mark.side else "_nolegend_"
        if mark.start is None or math.isfinite(mark.low):  # a bar without an interval needs no dot at its end
            ax.plot(offset + mark.value, y, shape, color=colour, ms=7 if mark.strong else 5, label=label)
        ax.annotate(plain(mark.text), (1.02, y), xycoords=ax.get_yaxis_transform(), va="center", fontsize=8, color=INK)
    else:
        note = plain(textwrap.shorten(mark.note or NO_VALUE, NOTE_CHARACTERS, placeholder=" ..."))
        across = ax.get_yaxis_transform()
        ax.annotate(note, (0.01, y), xycoords=across, va="center", fontsize=8, style="italic", color=INK)
    if math.isfinite(mark.marker):
        ax.plot(mark.marker, y, "D", mfc="none", mec="black", ms=7, label=once(marker))


def draw_pairs(
    labels: Sequence[str],
    first: Sequence[float],
    second: Sequence[float],
    names: tuple[str, str],
    across: str,
    *,
    groups: Sequence[str] = (),
    title: str = "",
    ax: Axes | None = None,
) -> Axes:
    """Draw rows of two bars from zero; an amount that is NaN has no bar, and its row says so.

    Args:
        labels: What the rows are about, from top to bottom (n).
        first: The first amounts (n), at least 0.
        second: The second amounts (n).
        names: What the first and the second bars are.
        across: What the bars measure, with its unit.
        groups: Group of each row (n); its name stands above its first row. Empty for none.
        title: The title.
        ax: Axes to draw on; None makes a new figure.
    """
    groups = groups or [""] * len(labels)
    lines = _with_groups([Mark(label, math.nan, group=group) for label, group in zip(labels, groups, strict=True)])
    ax = own_axes(ax, FRAME_INCHES + ROW_INCHES * max(len(lines), 2))
    if not any(map(math.isfinite, (*first, *second))):
        write_note(ax, NOTHING)
        label_axes(ax, across, title=title)
        return ax
    rows = [y for y, line in enumerate(lines) if isinstance(line, Mark)]
    bars = zip((first, second), names, (BEFORE, AFTER), (-0.2, 0.2), ("", "//"), strict=True)
    for amounts, name, colour, shift, hatch in bars:
        shown = [(y, value) for y, value in zip(rows, amounts, strict=True) if math.isfinite(value)]
        places, values = [y + shift for y, _ in shown], [value for _, value in shown]
        ax.barh(places, values, height=0.36, color=colour, hatch=hatch, ec="white", lw=0, label=plain(name))
        for y, value in zip(rows, amounts, strict=True):
            if not math.isfinite(value):
                ax.annotate("none", (0, y + shift), va="center", fontsize=7.5, color=INK, style="italic")
    _label_rows(ax, lines)
    legend_below(ax)
    label_axes(ax, across, title=title)
    ax.set_xlim(left=0.0)
    return ax


def draw_courses(
    times: Sequence[float],
    courses: Sequence[tuple[str, Sequence[float]]],
    across: str,
    up: str,
    *,
    title: str = "",
    ax: Axes | None = None,
) -> Axes:
    """Draw amounts over time as lines with markers, each with its own dashes; gaps stay open.

    Args:
        times: Times (n), ascending.
        courses: Name and amounts (n) of each line; NaN leaves a gap.
        across: What the horizontal axis measures, with its unit.
        up: What the lines measure, with its unit.
        title: The title.
        ax: Axes to draw on; None makes a new figure.
    """
    ax = own_axes(ax, 3.4)
    if not any(math.isfinite(value) for _, values in courses for value in values):
        write_note(ax, NOTHING)
        label_axes(ax, across, up, title)
        return ax
    for k, (name, values) in enumerate(courses):
        look = f"{_MARKERS[k % len(_MARKERS)]}{_DASHES[k % len(_DASHES)]}"
        ax.plot(times, values, look, color=COLOURS[k % len(COLOURS)], label=plain(name), ms=4, lw=1.4)
    ax.legend(frameon=False, fontsize=8)
    label_axes(ax, across, up, title)
    return ax


#: Okabe & Ito (2008), from the darkest to the palest of those that are seen on white.
COLOURS = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#56B4E9", "#E69F00", "#444444")
_MARKERS, _DASHES = "os^Dv<>", ("-", "--", "-.", ":")
