"""The report of a run as an HTML page, and the commands to run next."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from pathlib import Path

from crosschannel.agents import component_names
from crosschannel.agents.explain import HAZARD
from crosschannel.agents.policy_views import group_name
from crosschannel.evaluation import headline, write_html
from crosschannel.evaluation.report.formatting import NOTHING, format_number
from crosschannel.evaluation.report.page import ReportSection, ReportTable
from crosschannel.evaluation.report.pictures import Picture
from crosschannel.pipeline.command_line import invocation
from crosschannel.pipeline.judgement.results import EvaluationResult
from crosschannel.pipeline.judgement.tables import (
    CONSTRAINT_COLUMNS,
    constraint_cells,
    constraints_in_words,
)
from crosschannel.pipeline.report.behaviour import (
    calibration_picture,
    cost_picture,
    event_picture,
    period_picture,
    segment_picture,
    share_picture,
    weight_picture,
    worth_picture,
)
from crosschannel.pipeline.report.card import card_of
from crosschannel.pipeline.report.comparators import comparators_section
from crosschannel.pipeline.report.following import following_section
from crosschannel.pipeline.report.procedure import procedure_section
from crosschannel.pipeline.report.words import reward_in_words, reward_text
from crosschannel.pipeline.run_folder import Run


def write_report(run: Run, result: EvaluationResult, path: Path) -> None:
    """Write the report of a run's evaluation as one self-contained HTML page."""
    truth = {result.evaluation.policy: result.truth[0].per_decision} if result.truth else None
    write_html(
        *(path, [result.evaluation], _facts(run, result), run.path.name, _sections(result)),
        card=card_of(result, run.path, reward_in_words(run.config)),
        truth=truth,
    )


def next_steps(run: Run) -> str:
    """Return the commands to run after training."""
    folds = run.config.evaluation.procedure.folds
    more = "" if folds is None else f", and values the learning procedure by {folds} more trainings"
    commands = [
        f"Next: {invocation('evaluate', run.path)}   (prints every estimate, writes {run.path / 'report.html'}{more})",
        f"      {invocation('update', run.path)}   (every day: learns from what came since)",
        f"      {invocation('decide', run.path)} --at TIME --out FOLDER   (every day: chooses for each user)",
        f"      tensorboard --logdir {run.path.parent}",
    ]
    return "\n".join(commands)


def _facts(run: Run, result: EvaluationResult) -> dict[str, str]:
    """Return what was evaluated, for the head of the report."""
    config = run.config
    facts = {
        "run": str(run.path),
        "history": result.history,
        "reward": reward_text(config),
        "split": f"by user: {', '.join(f'{name} {share:.0%}' for name, share in config.split.shares.items())}",
        "policy": f"{config.agent.name}, exploring, as it would be deployed",
    }
    for whose, losses in result.losses.items():
        facts[f"{whose} decisions without a reward"] = losses.text(whose)
        if losses.warning:
            facts[f"warning, {whose} decisions"] = losses.warning
    for value in result.truth:
        facts[f"ground truth: {value.policy}"] = (
            f"{value.per_user:.3f} +- {1.96 * value.per_user_se:.3f} per user when deployed, "
            f"{value.sends_per_user:.1f} messages"
        )
    return facts | ({"attention": " ".join(result.notes)} if result.notes else {})


def _sections(result: EvaluationResult) -> list[ReportSection]:
    """Return what the policy is compared with, what it does and why, and what its constraints cost."""
    sections = [
        comparators_section(result),
        procedure_section(result),
        following_section(result.followed),
        _behaviour(result),
        _support(result),
        _rewards(result),
        _costs(result),
    ]
    return [section for section in sections if section is not None]


def _behaviour(result: EvaluationResult) -> ReportSection | None:
    table, evidence = result.policy_table, result.evidence
    if not len(table):
        return None
    pictures = (
        share_picture(evidence.shares),
        period_picture(evidence.shares),
        segment_picture(table),
        worth_picture(table),
        calibration_picture(evidence.calibration, result.calibration),
    )
    sentence = (
        "In the tables, share is how often the policy chooses the action, of all decisions for the first module and of "
        "the messages for the others, or of those with the choice that is given. Brackets hold 95 % intervals of the "
        "agent's estimates."
    )
    sentences = [sentence]
    if result.calibration is not None and not evidence.calibration:
        sentences.append(str(result.calibration))
    return ReportSection("What the policy sends", tuple(sentences), tuple(_policy_tables(result)), _drawn(pictures))


def _support(result: EvaluationResult) -> ReportSection | None:
    picture = weight_picture(result.evidence.weights, headline(result.evaluation).support.ess)
    return None if picture is None else ReportSection("How much of the log counts", (), (), (picture,))


def _rewards(result: EvaluationResult) -> ReportSection | None:
    picture = event_picture(result.evidence.events, result.evidence.pre_trends)
    return None if picture is None else ReportSection("Whether rewards are effects", (), (), (picture,))


def _costs(result: EvaluationResult) -> ReportSection | None:
    pictures = _drawn((cost_picture(result.gate.costs if result.gate is not None else ()),))
    if not result.constraints:
        return ReportSection("Cost events", (), (), pictures) if pictures else None
    rows = tuple(constraint_cells(row) for row in result.constraints)
    words = constraints_in_words(result.evaluation)
    sentence = f"{words[0].upper()}{words[1:]}."
    table = ReportTable("Shadow prices and use", CONSTRAINT_COLUMNS, rows)
    return ReportSection("Constraints and cost events", (sentence,), (table,), pictures)


def _drawn(pictures: Sequence[Picture | None]) -> tuple[Picture, ...]:
    return tuple(picture for picture in pictures if picture is not None)


def _policy_tables(result: EvaluationResult) -> Iterator[ReportTable]:
    """Yield a table of what the policy does for each segment; all are folded."""
    table = result.policy_table
    names = component_names(table)
    shown = [("worth", "reward", "low", "high", "+.3g")] if table["reward"].notna().any() else []
    for name in names:
        event = name.removeprefix(HAZARD)
        title, form = ("engages", ".1%") if name == "engagement" else (event, "+.3g" if name == event else ".2%")
        shown.append((title, name, f"{name}_low", f"{name}_high", form))
    columns = ("module", "action", "share", *(title for title, *_ in shown))
    for segment, part in table.groupby("segment", sort=False):
        rows: list[tuple[str, ...]] = []
        first = set()
        for (module, given), own in part.groupby(["module", "given"], sort=False):
            first.add(len(rows))
            for row in own.sort_values("share", ascending=False, kind="stable").to_dict("records"):
                cells = [_with_interval(row[value], row[low], row[high], form) for _, value, low, high, form in shown]
                name = group_name(str(module), str(given)) if len(rows) in first else ""
                rows.append((name, str(row["action"]), format_number(row["share"], ".1%"), *cells))
        title = f"{segment} ({part['decisions'].iloc[0]:,})"
        yield ReportTable(title, columns, tuple(rows), frozenset(first), folded=True)


def _with_interval(value: float, low: float, high: float, form: str) -> str:
    """Return a number and on a second line its interval, or a dash where there is none."""
    if not math.isfinite(value):
        return NOTHING
    bound = form.lstrip("+")
    return format(value, form) + (f"\n[{low:{bound}}, {high:{bound}}]" if low < high else "")
