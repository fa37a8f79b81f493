"""A picture of the report: its drawing, what it shows in words, and its numbers as a file to download."""

from __future__ import annotations

import csv
import io
import math
from dataclasses import dataclass
from urllib.parse import quote

from markupsafe import Markup

Cell = str | float | int


@dataclass(frozen=True)
class Picture:
    """A picture of the report.

    Attributes:
        title: Its heading.
        drawing: The drawing as HTML, escaped; empty where there is nothing to draw.
        caption: What it shows, in words, for those who do not see it.
        name: Name of the file of its numbers, without its ending.
        columns: Names of the columns of its numbers.
        numbers: Its numbers, one row for each thing that is drawn; what is not finite is an empty cell.
    """

    title: str
    drawing: Markup
    caption: str
    name: str
    columns: tuple[str, ...]
    numbers: tuple[tuple[Cell, ...], ...]

    @property
    def csv(self) -> str:
        """The numbers as CSV."""
        buffer = io.StringIO()
        writer = csv.writer(buffer, lineterminator="\n")
        writer.writerow(self.columns)
        writer.writerows([["" if _is_missing(cell) else cell for cell in row] for row in self.numbers])
        return buffer.getvalue()

    @property
    def href(self) -> str:
        """The numbers as an address that holds the file itself, so that the page needs no other file."""
        return "data:text/csv;charset=utf-8," + quote(self.csv)


def _is_missing(cell: Cell) -> bool:
    return isinstance(cell, float) and not math.isfinite(cell)
