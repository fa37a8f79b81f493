"""The text that tells what a log's messages did: effects, event study, diagnostics and a verdict."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pandas as pd
from matplotlib.figure import Figure

from crosschannel.core.errors import ConfigError, NotIdentified, nearest
from crosschannel.core.times import duration
from crosschannel.histories.history import History
from crosschannel.reward.effects.action_effects import findings, findings_text, lengths_text, other_lengths
from crosschannel.reward.effects.diagnostics import LEVEL, Diagnostics, diagnose
from crosschannel.reward.effects.estimates import Study, effects_of, tidy
from crosschannel.reward.effects.event_study import EventStudy, EventTimes, event_study
from crosschannel.reward.effects.panels import panel_from_history
from crosschannel.reward.effects.plots import event_study_figure, save_figure
from crosschannel.reward.effects.staggered import FEWEST_UNITS, aggregate, group_time_effects
from crosschannel.reward.measurement.outcomes import RewardSpec
from crosschannel.reward.models import RewardModel

BY = ("all", "goal", "action", "period:1w")
AUTO, NONE = "auto", "none"


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
        each: The module of whose actions every effect on every goal is told with tests of its own; `AUTO` for the
            first one where nobody logged propensities, so that nothing but such tests speaks for an effect.
        lengths: Other lengths of the post window to tell those effects with.
    """

    by: tuple[str, ...] = BY
    times: EventTimes | None = None
    plot: Path | None = None
    csv: Path | None = None
    staggered: str | None = None
    period: str = "1w"
    each: str = AUTO
    lengths: tuple[str, ...] = ()


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
        "\n".join([*checks.facts, *widened_text(study)]),
        f"Verdict: {checks.verdict}",
    ]
    if (module := each_module(history, request.each)) is not None:
        parts.append(each_text(history, spec, module, request))
    if request.staggered is not None:
        parts.append(staggered_text(history, spec, request.staggered, request.period))
    parts += [f"Written: {path}" for path in (request.csv, request.plot) if path is not None]
    return "\n\n".join(parts)


def widened_text(study: Study) -> list[str]:
    """How many rewards come from cells of which width, where cells may be widened."""
    levels = study.model.spec.matching.levels
    if len(levels) == 1:
        return []
    found = [
        f"  {count:,} from cells of equal {' and '.join(('calendar', *levels[level]))}"
        for level, count in study.frame.widened().items()
    ]
    return ["rewards by what their controls share (a cell with too few is widened):", *found]


def each_module(history: History, each: str) -> str | None:
    """The module whose actions are told one by one; None for none.

    Raises:
        ConfigError: If there is no such module.
    """
    names = history.modules.names
    if each == NONE or (each == AUTO and history.propensity_source in ("logged", "by design")):
        return None
    if each != AUTO and each not in names:
        raise ConfigError(f"there is no module {each!r}. {nearest(each, names)}")
    return names[0] if each == AUTO else each


def each_text(history: History, spec: RewardSpec, module: str, request: Request) -> str:
    """The effect of each action of a module on each goal, each with tests of its own, and with other windows."""
    found = findings(history, spec, module, request.times)
    known = history.propensity_source in ("logged", "by design")
    lines = [
        f"Effect of each {module} on each goal, per sent decision within {spec.post}, goals in their own units; "
        "pre_trends, placebo and kinds_differ are p-values of tests on the same decisions",
        "`did_dr` weighs controls with odds that are "
        + (
            f"{history.propensity_source} for sending at all, estimated for which action."
            if known
            else "estimated by a logistic regression on the covariates."
        ),
        findings_text(found),
    ]
    if request.lengths:
        by_length = other_lengths(history, spec, module, request.lengths) | {spec.post: found}
        ordered = dict(sorted(by_length.items(), key=lambda item: duration(item[0])))
        lines += [
            "The same by length of the post window, the pre window in proportion: effect +- half its 95 % interval of "
            "how many sent decisions; ! where something speaks against it",
            lengths_text(ordered),
        ]
    return "\n\n".join(lines)


def picture(history: History, events: EventStudy, checks: Diagnostics | None = None) -> Figure:
    """The event study as a picture, with what the pre-trend test and the other diagnostics say."""
    p = events.pre_trends().p_value
    words = "pre-trends not tested" if np.isnan(p) else f"pre-trend test: p = {p:.2g}"
    if checks is not None:
        words += f"\n{checks.verdict}"
    elif p < LEVEL:
        words += ": they differ before the message, do not read the effect as causal"
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
    never = built.n_never + built.n_until > 0
    try:
        effects = group_time_effects(built.panel, "never" if never else "not_yet")
        overall, _ = aggregate(effects, "simple")
        _, dynamic = aggregate(effects, "dynamic")
    except NotIdentified as error:
        return "\n".join([*lines, f"not identified: {error}"])
    lines.append(f"controls: users {'never' if never else 'not yet'} treated")
    if effects.n_small:
        lines.append(f"left out: {effects.n_small} pairs of group and period with fewer than {FEWEST_UNITS} users")
    for name, e in (("overall", overall), *((f"period {e.label}", e) for e in dynamic)):
        lines.append(f"{name:>10}  {e.value: .4g}  se {e.se:.4g}  95 % from {e.low:.4g} to {e.high:.4g}")
    before = [e for e in dynamic if int(e.label) < 0]
    influence = np.stack([e.influence for e in before], axis=1) if before else np.zeros((len(built.user), 0))
    test = effects.joint(np.array([e.value for e in before]), influence)
    if np.isnan(test.p_value):
        return "\n".join([*lines, "pre-trends: not tested"])
    verdict = ": they differ, do not read the effect as causal" if test.p_value < LEVEL else ""
    words = f"pre-trends: F test of {test.freedom} periods before, p = {test.p_value:.2g}{verdict}"
    return "\n".join([*lines, words])
