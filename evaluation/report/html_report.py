"""The evaluation as one self-contained HTML page: no script, no file beside it, every text escaped."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from functools import cache
from pathlib import Path
from typing import Any

from jinja2 import Environment, FileSystemLoader, StrictUndefined

from crosschannel.core.files import replacing
from crosschannel.core.wording import counted
from crosschannel.evaluation.report.formatting import (
    SUPPORT_COLUMNS,
    format_bounds,
    format_number,
    format_point,
    propensity_label,
    prose,
)
from crosschannel.evaluation.report.ladder_text import given_its_first_module, interaction_rows
from crosschannel.evaluation.report.page import Card, ReportSection, ReportTable
from crosschannel.evaluation.report.pictures.evaluations import module_picture, order_picture, waterfall_picture
from crosschannel.evaluation.report.sentences import caveats, headline, module_effects, verdict
from crosschannel.evaluation.results import Evaluation

TEMPLATES = Path(__file__).parent / "templates"


def render_html(
    evaluations: Sequence[Evaluation],
    about: Mapping[str, str] | None = None,
    title: str = "Evaluation",
    more: Sequence[ReportSection] = (),
    *,
    card: Card | None = None,
    truth: Mapping[str, float] | None = None,
) -> str:
    """Return the report as HTML.

    Args:
        evaluations: One for each policy, in the order of the page.
        about: What was evaluated, in the reader's words: the run, the reward, the split.
        title: The page's heading.
        more: Sections after the evaluations.
        card: The answer, at the top of the page; it takes the place of the evaluations' verdicts and caveats.
        truth: True value per decision with a reward by the policy's name, where it is known.
    """
    template = _environment().get_template("report.html.jinja")
    sections = [_section(e, (truth or {}).get(e.policy, math.nan)) for e in evaluations]
    return template.render(title=title, about=dict(about or {}), sections=sections, more=more, card=card)


def write_html(
    path: Path,
    evaluations: Sequence[Evaluation],
    about: Mapping[str, str] | None = None,
    title: str = "Evaluation",
    more: Sequence[ReportSection] = (),
    *,
    card: Card | None = None,
    truth: Mapping[str, float] | None = None,
) -> None:
    """Write the report to a file; the arguments are those of `render_html`."""
    with replacing(path) as draft:
        draft.write_text(render_html(evaluations, about, title, more, card=card, truth=truth), encoding="utf-8")


def render_page(
    title: str, subtitle: str, card: Card, sections: Sequence[ReportSection], glossary: Mapping[str, str]
) -> str:
    """Return a page of its own, such as that of a trial, as HTML.

    Args:
        title: The page's heading.
        subtitle: What the page is about, in a sentence.
        card: The answer.
        sections: What it rests on.
        glossary: Terms of the page, and what they mean.
    """
    template = _environment().get_template("page.html.jinja")
    return template.render(title=title, subtitle=subtitle, card=card, sections=sections, glossary=dict(glossary))


def _section(evaluation: Evaluation, truth: float) -> dict[str, Any]:
    """Return the variables of one evaluation's section in the template."""
    level = f"{evaluation.settings.confidence_level:.0%}"
    pictures = (waterfall_picture(evaluation, truth), order_picture(evaluation, truth), module_picture(evaluation))
    return {
        "evaluation": evaluation,
        "level": level,
        "verdict": verdict(evaluation),
        "direction": _direction(evaluation),
        "notes": [*module_effects(evaluation), *caveats(evaluation)],
        "facts": {
            "log": evaluation.log,
            "all values are means over": f"{evaluation.population}, {counted(evaluation.users, 'user')}",
            "propensities": propensity_label(evaluation.propensity_counts),
            "interval": f"{level}, {evaluation.settings.bootstrap_replicates:,} bootstrap replicates over users",
            "rewards in the bootstrap": "re-fitted in every replicate" if evaluation.refitted else "held fixed",
        },
        "estimands": {e.label: e.estimand for e in evaluation.one_per_estimand},
        "pictures": [picture for picture in pictures if picture is not None],
        "interactions": _interactions(evaluation, level),
        "n_rewards": max(sum(evaluation.reward_counts.values()), 1),
    }


def _interactions(evaluation: Evaluation, level: str) -> ReportTable | None:
    """Return the table of the tests of interactions; None where there is none."""
    ladder = evaluation.ladder
    if ladder is None or not (ladder.totals or ladder.pairs):
        return None
    head, *rows = interaction_rows(ladder, level)
    title = f"What interactions add, given {given_its_first_module(ladder)} (p-values of pairs by Holm's method)"
    return ReportTable(title, head, tuple(rows), folded=True)


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
    environment.filters |= {"point": format_point, "bounds": format_bounds, "number": format_number, "prose": prose}
    environment.globals["support_columns"] = SUPPORT_COLUMNS
    return environment
