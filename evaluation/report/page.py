"""What a page of the report is made of: the card at its top, sections, pictures and tables."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from crosschannel.evaluation.report.pictures.picture import Picture


@dataclass(frozen=True)
class ReportTable:
    """A table of texts beside the estimates, such as what a policy does.

    Attributes:
        title: Its heading.
        columns: Names of the columns.
        rows: One text for each column, of one line or several.
        first: Which rows begin a group; each gets a line above it.
        folded: Whether the page shows the heading only, until the reader opens the table.
    """

    title: str
    columns: tuple[str, ...]
    rows: tuple[tuple[str, ...], ...]
    first: frozenset[int] = frozenset()
    folded: bool = False


@dataclass(frozen=True)
class ReportSection:
    """A section of the page beside those of the evaluations.

    Attributes:
        title: Its heading.
        sentences: What the pictures and tables show, in sentences.
        tables: The tables.
        pictures: The pictures, which come before the tables.
    """

    title: str
    sentences: tuple[str, ...]
    tables: tuple[ReportTable, ...] = ()
    pictures: tuple[Picture, ...] = ()


@dataclass(frozen=True)
class Card:
    """The answer, at the top of the page.

    Attributes:
        verdict: `deploy`, `hold` or `not identified`; of a trial `better`, `worse`, `not shown`, `not yet` or
            `not valid`.
        reason: Why, in plain words.
        facts: What the answer is about, by name: the value, its assumption, the data.
        caveats: What limits the answer, in sentences.
        next_steps: What to do next, in sentences.
        summary: What the verdict says of the log, in a sentence without terms of evaluation.
    """

    verdict: str
    reason: str
    facts: Mapping[str, str]
    caveats: tuple[str, ...] = ()
    next_steps: tuple[str, ...] = ()
    summary: str = ""

    @property
    def tone(self) -> str:
        """Name of the verdict as a style of the page."""
        return self.verdict.replace(" ", "-")
