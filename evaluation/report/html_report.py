"""The evaluation as one self-contained HTML page: no script, no file beside it, every text escaped."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

from jinja2 import Environment, FileSystemLoader, StrictUndefined

from crosschannel.core.files import replacing
from crosschannel.evaluation.report.forest_plot import forest_plot
from crosschannel.evaluation.report.formatting import (
    SUPPORT_COLUMNS,
    format_bounds,
    format_number,
    format_point,
    propensity_label,
)
from crosschannel.evaluation.report.sentences import caveats, headline, module_effects, verdict
from crosschannel.evaluation.results import Evaluation

TEMPLATES = Path(__file__).parent / "templates"


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
        sentences: What the tables show, in sentences.
        tables: The tables.
    """

    title: str
    sentences: tuple[str, ...]
    tables: tuple[ReportTable, ...]


def render_html(
    evaluations: Sequence[Evaluation],
    about: Mapping[str, str] | None = None,
    title: str = "Evaluation",
    more: Sequence[ReportSection] = (),
) -> str:
    """Return the report as HTML.

    Args:
        evaluations: One for each policy, in the order of the page.
        about: What was evaluated, in the reader's words: the run, the reward, the split.
        title: The page's heading.
        more: Sections after the evaluations.
    """
    template = _environment().get_template("report.html.jinja")
    sections = [_section(e) for e in evaluations]
    return template.render(title=title, about=dict(about or {}), sections=sections, more=more)


def write_html(
    path: Path,
    evaluations: Sequence[Evaluation],
    about: Mapping[str, str] | None = None,
    title: str = "Evaluation",
    more: Sequence[ReportSection] = (),
) -> None:
    """Write the report to a file; the arguments are those of `render_html`."""
    with replacing(path) as draft:
        draft.write_text(render_html(evaluations, about, title, more), encoding="utf-8")


def _section(evaluation: Evaluation) -> dict[str, Any]:
    """Return the variables of one evaluation's section in the template."""
    level = f"{evaluation.settings.confidence_level:.0%}"
    return {
        "evaluation": evaluation,
        "level": level,
        "verdict": verdict(evaluation),
        "direction": _direction(evaluation),
        "notes": [*module_effects(evaluation), *caveats(evaluation)],
        "facts": {
            "log": evaluation.log,
            "all values are means over": f"{evaluation.population}, {evaluation.users:,} users",
            "propensities": propensity_label(evaluation.propensity_counts),
            "interval": f"{level}, {evaluation.settings.bootstrap_replicates:,} bootstrap replicates over users",
            "rewards in the bootstrap": "re-fitted in every replicate" if evaluation.refitted else "held fixed",
        },
        "estimands": {e.label: e.estimand for e in evaluation.one_per_estimand},
        "plot": forest_plot(
            [(e.label, e.estimator, e.difference) for e in evaluation.estimates if e.identified],
            axis=f"{evaluation.policy} minus the logging policy, mean per decision with a reward, {level} intervals",
        ),
        "n_rewards": max(sum(evaluation.reward_counts.values()), 1),
    }


def _direction(evaluation: Evaluation) -> str:
    """Return `better` or `worse` where the interval of the headline's difference excludes zero, else `open`."""
    best = headline(evaluation)
    if not best.identified or best.difference.contains(0.0):
        return "open"
    return "better" if best.difference.point > 0 else "worse"


@cache
def _environment() -> Environment:
    environment = Environment(
        loader=FileSystemLoader(TEMPLATES),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
        keep_trailing_newline=True,
    )
    environment.filters |= {"point": format_point, "bounds": format_bounds, "number": format_number}
    environment.globals["support_columns"] = SUPPORT_COLUMNS
    return environment
