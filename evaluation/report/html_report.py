"""The evaluation as one self-contained HTML page: no script, no file beside it, every text escaped."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path

from jinja2 import Environment, FileSystemLoader, StrictUndefined
from markupsafe import Markup

from evaluation.report.forest_plot import forest_plot
from evaluation.report.text import SOURCES, SUPPORT, bounds, findings, headline, number
from evaluation.results import Estimate, Evaluation
from histories.files import replacing

TEMPLATES = Path(__file__).parent / "templates"


@dataclass(frozen=True)
class _Section:
    """What the template needs of one evaluation beside its numbers."""

    evaluation: Evaluation
    verdict: str
    tone: str
    notes: Sequence[str]
    plot: Markup

    @property
    def level(self) -> str:
        return f"{self.evaluation.settings.level:.0%}"

    @property
    def one_each(self) -> list[Estimate]:
        return list({e.module: e for e in self.evaluation.estimates}.values())

    @property
    def estimands(self) -> list[tuple[str, str]]:
        return [(place(e), e.estimand) for e in self.one_each]

    @property
    def total(self) -> int:
        return max(sum(self.evaluation.reward_counts.values()), 1)

    @property
    def facts(self) -> list[tuple[str, str]]:
        e = self.evaluation
        return [
            ("log", e.log),
            ("decisions with a reward", f"{e.decisions:,} of {e.users:,} users"),
            ("propensities", SOURCES[e.propensity_source]),
            ("interval", f"{self.level}, {e.settings.replicates:,} bootstrap replicates over users"),
            ("rewards in the bootstrap", "re-fitted in every replicate" if e.refitted else "held fixed"),
        ]


def place(e: Estimate) -> str:
    return e.module or "the whole action"


def html_page(
    evaluations: Sequence[Evaluation], about: Mapping[str, str] | None = None, title: str = "Evaluation"
) -> str:
    """The page as a text.

    Args:
        evaluations: One for each policy, in the order of the page.
        about: What was evaluated, in the reader's words: the run, the reward, the split.
        title: The page's heading.
    """
    return (
        _environment()
        .get_template("report.html.jinja")
        .render(
            title=title,
            about=list((about or {}).items()),
            sections=[_section(e) for e in evaluations],
            support_head=list(SUPPORT),
        )
    )


def write_html(
    path: Path, evaluations: Sequence[Evaluation], about: Mapping[str, str] | None = None, title: str = "Evaluation"
) -> None:
    """Writes the page to a file."""
    with replacing(path) as draft:
        draft.write_text(html_page(evaluations, about, title), encoding="utf-8")


def _section(evaluation: Evaluation) -> _Section:
    verdict, *rest = findings(evaluation)
    best = headline(evaluation)
    tone = ""
    if best.identified and not best.difference.contains(0.0):
        tone = " better" if best.difference.point > 0 else " worse"
    known = [e for e in evaluation.estimates if e.identified]
    plot = forest_plot(
        [(place(e), e.estimator, e.difference) for e in known],
        label=(
            f"{evaluation.policy} minus the logged policy, mean reward per decision, "
            f"with {evaluation.settings.level:.0%} intervals"
        ),
    )
    return _Section(evaluation=evaluation, verdict=verdict, tone=tone, notes=rest, plot=plot)


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
    environment.filters |= {"number": number, "bounds": bounds, "place": place, "figure": _figure}
    return environment


def _figure(value: float, form: str) -> str:
    return format(value, form) if math.isfinite(value) else "-"
