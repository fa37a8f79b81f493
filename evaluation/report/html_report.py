"""The evaluation as one self-contained HTML page: no script, no file beside it, every text escaped."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from html import escape
from pathlib import Path

from evaluation.report.forest_plot import forest_plot
from evaluation.report.text import SOURCES, SUPPORT, bounds, findings, headline, number
from evaluation.results import Evaluation
from histories.files import replacing

STYLE = """
:root { --ink: #1c2430; --soft: #5b6675; --line: #dde2e9; --paper: #fff; --wash: #f5f7fa;
  --good: #1a7f4b; --bad: #b3322c; --open: #8a6100; --mark: #2a5db0; }
@media (prefers-color-scheme: dark) { :root { --ink: #e6eaf0; --soft: #9aa5b4; --line: #333c48; --paper: #14181e;
  --wash: #1c222a; --good: #4cc38a; --bad: #f0776f; --open: #e0b04a; --mark: #7fa9f0; } }
* { box-sizing: border-box; }
body { margin: 0; background: var(--wash); color: var(--ink); font: 15px/1.55 system-ui, sans-serif; }
main { max-width: 1040px; margin: 0 auto; padding: 32px 20px 64px; }
h1 { font-size: 26px; margin: 0 0 4px; } h2 { font-size: 20px; margin: 0 0 12px; }
h3 { font-size: 15px; margin: 28px 0 8px; }
section { background: var(--paper); border: 1px solid var(--line); border-radius: 10px; padding: 24px; margin: 20px 0; }
p.sub, caption, td.why, .note { color: var(--soft); }
.verdict { border-left: 4px solid var(--open); background: var(--wash); padding: 12px 16px; margin: 0 0 12px;
  font-size: 16px; }
.verdict.better { border-color: var(--good); } .verdict.worse { border-color: var(--bad); }
ul { margin: 8px 0; padding-left: 20px; }
.wide { overflow-x: auto; }
table { border-collapse: collapse; width: 100%; font-variant-numeric: tabular-nums; }
th, td { padding: 6px 10px; border-bottom: 1px solid var(--line); text-align: right; white-space: nowrap; }
th { color: var(--soft); font-weight: 600; font-size: 13px; } th:first-child, td:first-child { text-align: left; }
tr.first td { border-top: 2px solid var(--line); } td.why { text-align: left; white-space: normal; }
dl { display: grid; grid-template-columns: max-content 1fr; gap: 4px 20px; margin: 12px 0 0; }
dt { color: var(--soft); } dd { margin: 0; overflow-wrap: anywhere; }
svg { max-width: 100%; height: auto; display: block; } svg text { fill: var(--ink); font: 13px system-ui, sans-serif; }
svg .soft { fill: var(--soft); font-size: 12px; } svg .grid { stroke: var(--line); }
svg .zero { stroke: var(--soft); stroke-dasharray: 4 3; }
svg .bar { stroke: var(--mark); stroke-width: 2.5; } svg .dot { fill: var(--mark); }
svg .better { stroke: var(--good); fill: var(--good); } svg .worse { stroke: var(--bad); fill: var(--bad); }
"""

HELP = (
    ("value", "Mean reward per decision of the policy named, over the decisions that have a reward."),
    ("minus logged", "The value minus the mean reward of the logged policy on the same decisions, paired."),
    ("the whole action", "The policy makes every module's choice."),
    (
        "a module",
        "The policy makes this module's choice; the others are chosen as the log does given the earlier choices.",
    ),
    (
        "what is not in it",
        "The contexts are those of the log: what the policy's earlier choices would have changed later is left out.",
    ),
    ("dr", "Doubly robust: an outcome model of other users, corrected by the weighted errors it makes here."),
    ("snips, ips", "Rewards weighted by how much likelier the policy takes the logged action than the log did."),
    ("switch-dr", "Like dr, without the correction where the weight is large."),
    ("dm", "The outcome model alone: little noise, unknown bias."),
    (
        "interval",
        "Student's t times a bootstrap error over users, longer where few users carry the error.",
    ),
    ("ESS", "Effective sample size: so many equally weighted decisions (or users) would be as good."),
    ("kurtosis", "Of the rewards: 3 if normal, large if few decisions earn all. Above 3 it raises the floors of ESS."),
    (
        "mean weight",
        "1 if the log supports the policy and the propensities are right; what it lacks is without support.",
    ),
    ("no support", "Share of the policy's choices that are ineligible or that the log never takes."),
    ("not identified", "The log cannot answer: too few effective decisions or users, or too little support."),
)


def html_page(
    evaluations: Sequence[Evaluation], about: Mapping[str, str] | None = None, title: str = "Evaluation"
) -> str:
    """The page as a text.

    Args:
        evaluations: One for each policy, in the order of the page.
        about: What was evaluated, in the reader's words: the run, the reward, the split.
        title: The page's heading.
    """
    names = ", ".join(evaluation.policy for evaluation in evaluations)
    sections = "".join(_section(evaluation) for evaluation in evaluations)
    return (
        '<!doctype html>\n<html lang="en"><head><meta charset="utf-8">'
        '<meta name="viewport" content="width=device-width, initial-scale=1">'
        f"<title>{escape(title)}</title><style>{STYLE}</style></head><body><main>"
        f'<h1>{escape(title)}</h1><p class="sub">What {escape(names)} would have earned on logged decisions.</p>'
        f"{_definitions((about or {}).items())}{sections}"
        f"<section><h2>How to read this</h2>{_definitions(HELP)}</section></main></body></html>\n"
    )


def write_html(
    path: Path, evaluations: Sequence[Evaluation], about: Mapping[str, str] | None = None, title: str = "Evaluation"
) -> None:
    """Writes the page to a file."""
    with replacing(path) as draft:
        draft.write_text(html_page(evaluations, about, title), encoding="utf-8")


def _section(evaluation: Evaluation) -> str:
    verdict, *rest = findings(evaluation)
    best = headline(evaluation)
    sign = ""
    if best.identified and not best.difference.contains(0.0):
        sign = " better" if best.difference.point > 0 else " worse"
    notes = "".join(f"<li>{escape(text)}</li>" for text in rest)
    level = f"{evaluation.settings.level:.0%}"
    facts = [
        ("log", evaluation.log),
        ("decisions with a reward", f"{evaluation.decisions:,} of {evaluation.users:,} users"),
        ("propensities", SOURCES[evaluation.propensity_source]),
        ("interval", f"{level}, {evaluation.settings.replicates:,} bootstrap replicates over users"),
        ("rewards in the bootstrap", "re-fitted in every replicate" if evaluation.refitted else "held fixed"),
    ]
    words = {e.module or "the whole action": e.estimand for e in evaluation.estimates}
    known = [e for e in evaluation.estimates if e.identified]
    plot = forest_plot(
        [(e.module or "the whole action", e.estimator, e.difference) for e in known],
        label=f"{evaluation.policy} minus the logged policy, mean reward per decision, with {level} intervals",
    )
    return (
        f"<section><h2>{escape(evaluation.policy)}</h2>"
        f'<p class="verdict{sign}">{escape(verdict)}</p>'
        + (f"<ul>{notes}</ul>" if notes else "")
        + _definitions(facts)
        + f"<h3>What is estimated, at the contexts of the log</h3>{_definitions(words.items())}"
        + f"<h3>Difference to the logged policy</h3>{plot}"
        f"<h3>Values</h3>{_values(evaluation, level)}"
        f"<h3>Can the log say so?</h3>{_support(evaluation)}"
        f"<h3>Rewards</h3>{_rewards(evaluation)}</section>"
    )


def _values(evaluation: Evaluation, level: str) -> str:
    rows = [_row(["the log itself", "mean", number(evaluation.logged), bounds(evaluation.logged), "", ""])]
    seen: set[str | None] = set()
    for e in evaluation.estimates:
        start = [e.module or "the whole action", e.estimator]
        first = e.module not in seen
        seen.add(e.module)
        if e.identified:
            cells = [number(e.value), bounds(e.value), number(e.difference), bounds(e.difference)]
            rows.append(_row([*start, *cells], first=first, hint=e.estimand))
        else:
            rows.append(_row(start, first=first, hint=e.estimand, why=f"not identified ({e.reason})"))
    return _table(["policy chooses", "estimator", "value", level, "minus logged", level], rows)


def _support(evaluation: Evaluation) -> str:
    rows = []
    for e in {e.module: e for e in evaluation.estimates}.values():
        s = e.support
        cells = [
            _plain(s.ess, ",.0f"),
            _plain(s.ess_users, ",.0f"),
            _plain(s.kurtosis, ".3g"),
            _plain(s.largest_weight, ".3g"),
        ]
        cells += [f"{_plain(s.mean_weight, '.3f')} ± {_plain(s.mean_weight_se, '.3f')}", f"{s.unsupported:.1%}"]
        rows.append(_row([e.module or "the whole action", f"{s.decisions:,}", *cells], hint=e.estimand))
    return _table([*SUPPORT, "mean weight ± se", "no support"], rows)


def _rewards(evaluation: Evaluation) -> str:
    total = max(sum(evaluation.reward_counts.values()), 1)
    rows = [_row([name, f"{n:,}", f"{n / total:.1%}"]) for name, n in evaluation.reward_counts.items()]
    return _table(["what became of it", "decisions", "share"], rows)


def _plain(value: float, form: str) -> str:
    return format(value, form) if math.isfinite(value) else "-"


def _row(cells: Sequence[str], *, first: bool = False, hint: str = "", why: str = "") -> str:
    body = "".join(f"<td>{escape(cell)}</td>" for cell in cells)
    if why:
        body += f'<td class="why" colspan="4">{escape(why)}</td>'
    group = ' class="first"' if first else ""
    return f'<tr{group} title="{escape(hint)}">{body}</tr>'


def _table(head: Sequence[str], rows: Iterable[str]) -> str:
    cells = "".join(f"<th>{escape(text)}</th>" for text in head)
    return f'<div class="wide"><table><thead><tr>{cells}</tr></thead><tbody>{"".join(rows)}</tbody></table></div>'


def _definitions(items: Iterable[tuple[str, str]]) -> str:
    body = "".join(f"<dt>{escape(name)}</dt><dd>{escape(text)}</dd>" for name, text in items)
    return f"<dl>{body}</dl>" if body else ""
