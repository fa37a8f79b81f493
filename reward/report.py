"""The text that tells what a log's messages did: effects, event study, diagnostics and a verdict."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pandas as pd
from matplotlib.figure import Figure

from histories.errors import NotIdentified
from histories.history import History
from reward.diagnostics import Diagnostics, diagnose
from reward.effects import Study, effects_of, tidy
from reward.event_time import EventStudy, EventTimes, event_study
from reward.models import RewardModel
from reward.outcomes import RewardSpec
from reward.panels import panel_from_history
from reward.plots import event_study_figure, save_figure
from reward.staggered import aggregate, group_time_effects

BY = ("all", "goal", "action", "period:1w")


@dataclass(frozen=True)
class Request:
    """What a report holds.

    Attributes:
        by: Groupings of the table: see `effects_of`.
        times: Bins of the event study, or None for those that fit the reward's windows.
        plot: Where its picture goes, or None.
        csv: Where the table goes, or None.
        staggered: `MODULE=ACTION` whose first messages are studied by period as well, or None.
        period: Period of that study.
    """

    by: tuple[str, ...] = BY
    times: EventTimes | None = None
    plot: Path | None = None
    csv: Path | None = None
    staggered: str | None = None
    period: str = "1w"


def report(history: History, model: RewardModel, request: Request) -> str:
    """Estimates, writes the files that are asked for, and gives the text to print.

    Raises:
        ConfigError: If a grouping, module or action is not known.
    """
    study = Study.of(model, history)
    table = tidy(effects_of(study, history, request.by))
    events = event_study(study, history, request.times)
    checks = diagnose(study, history, events)
    if request.csv is not None:
        request.csv.parent.mkdir(parents=True, exist_ok=True)
        pd.concat([table, events.to_pandas()]).to_csv(request.csv, index=False)
    if request.plot is not None:
        save_figure(picture(history, events, checks), request.plot)
    spec = model.spec
    parts = [
        history.summary(),
        f"Reward `{model.name}`: windows of {spec.pre} before and {spec.post} after, cells of {spec.cell}, "
        f"overlap {spec.overlap}, controls {spec.controls}.",
        "Average effects on the treated, in reward units per sent decision, with user-clustered 95 % intervals",
        shown(table),
        f"Event study, in reward units per bin of {events.times.bin}, relative to the last bin before the decision",
        shown(events.to_pandas()),
        *(["\n".join(f"- {note}" for note in events.notes)] if events.notes else []),
        "Diagnostics",
        "\n".join(f"- {check.name}: {check.status}; {check.words}" for check in checks.checks),
        "\n".join(checks.facts),
        f"Verdict: {checks.verdict}",
    ]
    if request.staggered is not None:
        parts.append(staggered_text(history, spec, request.staggered, request.period))
    parts += [f"Written: {path}" for path in (request.csv, request.plot) if path is not None]
    return "\n\n".join(parts)


def picture(history: History, events: EventStudy, checks: Diagnostics | None = None) -> Figure:
    """The event study as a picture, with what the pre-trend test and the other diagnostics say."""
    p = events.pre_trends().p_value
    words = "pre-trends not tested" if np.isnan(p) else f"pre-trend test: p = {p:.2g}"
    if checks is not None:
        words += f"\n{checks.verdict}"
    return event_study_figure(events, f"{history.name}: effect of sending (`{events.kind}`)", words=words)


def shown(table: pd.DataFrame) -> str:
    """A tidy table for the terminal: not identified where there is no number."""
    out = table.copy()
    for column in ("effect", "se", "low", "high"):
        out[column] = [f"{value:.4g}" if np.isfinite(value) else "-" for value in table[column]]
    out.loc[~np.isfinite(table["effect"]), "effect"] = "not identified"
    return str(out.to_string(index=False))


def staggered_text(history: History, spec: RewardSpec, choice: str, period: str) -> str:
    """Effects of the first message of an action by Callaway & Sant'Anna (2021), in reward units per period."""
    built = panel_from_history(history, spec, choice, period)
    lines = [f"First message with {choice}, by periods of {period} (staggered adoption)", built.summary()]
    try:
        effects = group_time_effects(built.panel, "never" if built.n_never else "not_yet")
        overall, _ = aggregate(effects, "simple")
        _, dynamic = aggregate(effects, "dynamic")
    except NotIdentified as error:
        return "\n".join([*lines, f"not identified: {error}"])
    lines.append(f"controls: users {'never' if built.n_never else 'not yet'} treated")
    for name, e in (("overall", overall), *((f"period {e.label}", e) for e in dynamic)):
        lines.append(f"{name:>10}  {e.value: .4g}  se {e.se:.4g}  95 % from {e.low:.4g} to {e.high:.4g}")
    statistic, freedom, p = effects.pre_trends()
    test = f"Wald {statistic:.3g}, {freedom} degrees of freedom, p = {p:.2g}" if freedom else "not tested"
    verdict = ": they differ, do not read the effect as causal" if freedom and p < 0.05 else ""
    return "\n".join([*lines, f"pre-trends: {test}{verdict}"])
