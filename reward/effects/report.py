"""The text report on the effects of a log's messages: estimates, event study, diagnostics and a verdict."""

from __future__ import annotations

import textwrap
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import pandas as pd

from crosschannel.core.errors import ConfigError, NotIdentified, nearest
from crosschannel.core.files import write_csv
from crosschannel.core.times import duration
from crosschannel.histories.history import History
from crosschannel.histories.propensities.sources import KNOWN_SOURCES
from crosschannel.reward.effects.action_effects import (
    ActionEffect,
    action_effects,
    action_effects_by_window,
    action_effects_text,
    by_window_text,
)
from crosschannel.reward.effects.buckets.counts import RewardCounts
from crosschannel.reward.effects.diagnostics import SIGNIFICANCE_LEVEL, Diagnostics, diagnose
from crosschannel.reward.effects.estimates import TreatmentEffects, effects_by, effects_table
from crosschannel.reward.effects.event_study import EventStudy, EventTimes, event_study
from crosschannel.reward.effects.funnel_section import funnel_section
from crosschannel.reward.effects.panels import panel_from_history
from crosschannel.reward.effects.plots import event_study_figure, save_figure
from crosschannel.reward.effects.staggered import MIN_UNITS, aggregate, group_time_effects
from crosschannel.reward.models import RewardModel
from crosschannel.reward.spec import RewardSpec, describe_level

if TYPE_CHECKING:  # Matplotlib takes long to import: it is loaded where a picture is drawn.
    from matplotlib.figure import Figure

#: Letters in a line of a picture's subtitle.
SUBTITLE_WIDTH = 88
DEFAULT_GROUPINGS = ("all", "goal", "action", "period:1w")
AUTO, NONE = "auto", "none"
ASSUMPTIONS = {
    "raw": "nothing would have happened without the message",
    "change": "nothing but the message changed from before to after",
    "did": "without messages, sent decisions and their controls would have changed alike (parallel trends)",
    "did_regression": "without messages, sent decisions and controls with equal covariates would have changed alike, "
    "and the change is linear in the covariates",
    "did_dr": "without messages, sent decisions and controls with equal covariates would have changed alike, "
    "and the model of the change or that of the propensities is right",
}


@dataclass(frozen=True)
class EffectsRequest:
    """The content of a report.

    Attributes:
        by: Groupings of the table: see `effects_by`.
        times: Bins of the event study; None for those that fit the reward's windows.
        plot: File for its picture, or None.
        csv: File for the table, or None.
        staggered: `MODULE=ACTION` whose first messages are studied by period as well, or None.
        period: Length of these periods.
        effects_of: The module whose actions' effects on every goal are reported with tests of their own; `AUTO` for the
            first one where no propensities were logged, so that such tests are all there is; `NONE` for none.
        windows: Other lengths of the post window for these effects.
    """

    by: tuple[str, ...] = DEFAULT_GROUPINGS
    times: EventTimes | None = None
    plot: Path | None = None
    csv: Path | None = None
    staggered: str | None = None
    period: str = "1w"
    effects_of: str = AUTO
    windows: tuple[str, ...] = ()


def effects_report(history: History, model: RewardModel, request: EffectsRequest) -> str:
    """Estimate, write the files that are asked for, and return the text to print.

    Raises:
        ConfigError: If a grouping, module or action is not known.
    """
    fitted = TreatmentEffects.fit(model, history)
    table = effects_table(effects_by(fitted, history, request.by))
    events = event_study(fitted, history, request.times)
    diagnostics = diagnose(fitted, history, events)
    if request.csv is not None:
        write_csv(pd.concat([table, events.to_pandas()]), request.csv)
    if request.plot is not None:
        save_figure(picture(history, events, diagnostics), request.plot)
    parts = estimates_parts(history.summary(), model.name, model.spec, fitted.counts, table, events, diagnostics)
    if model.spec.funnel is not None:
        parts.append(funnel_section(model, history, fitted.outcomes))
    found = list[ActionEffect]()
    if (module := module_for_action_effects(history, request.effects_of)) is not None:
        found = action_effects(history, model.spec, module, request.times, diagnostics=[diagnostics])
        parts.append(action_effects_section(history, model.spec, module, request, found))
    if request.staggered is not None:
        parts.append(staggered_section(history, model.spec, request.staggered, request.period))
    parts += [f"Written: {path}" for path in (request.csv, request.plot) if path is not None]
    return "\n\n".join([*parts, verdict_text(diagnostics, found)])


def estimates_parts(
    summary: str,
    kind: str,
    spec: RewardSpec,
    counts: RewardCounts,
    table: pd.DataFrame,
    events: EventStudy,
    diagnostics: Diagnostics,
) -> list[str]:
    """Return the parts of a report about one reward: estimates, event study and diagnostics.

    Args:
        summary: What the log holds.
        kind: The reward kind.
        spec: What is measured.
        counts: Counts of the rewards.
        table: The effects.
        events: The event study.
        diagnostics: The diagnostics.
    """
    return [
        summary,
        about_text(kind, spec, counts),
        "Average effects on the treated, in reward units per sent decision with a reward, 95 % intervals (low to high)",
        effects_text(table),
        f"Event study, in reward units per bin of {events.times.bin}, relative to the last bin before the decision",
        effects_text(events.to_pandas()),
        *(["\n".join(f"- {note}" for note in events.notes)] if events.notes else []),
        "Diagnostics",
        "\n".join(f"- {check.name}: {check.status}; {check.text}" for check in diagnostics.checks),
        "\n".join([*diagnostics.facts, *fallback_lines(spec, counts)]),
    ]


def verdict_text(diagnostics: Diagnostics, found: Sequence[ActionEffect] = ()) -> str:
    """Return the verdict, which ends a report and agrees with what it says of single actions.

    Args:
        diagnostics: The diagnostics of the reward on the whole log.
        found: The effects of single actions on single goals, by this kind of reward and others.
    """
    if diagnostics.failed:
        others = [f.name for f in found if f.kind != diagnostics.kind and not (f.caveats or f.unclear or f.untested)]
        rest = (
            f" This is about rewards by `{diagnostics.kind}`; no test fails for {'; '.join(others)}." if others else ""
        )
    else:
        own = [f.name for f in found if f.kind == diagnostics.kind and (f.failed or f.contradicted_by)]
        rest = f" But do not read as causal, for caveats of their own: {'; '.join(own)}." if own else ""
    help_ = f" What would help: {' '.join(diagnostics.remedies)}" if diagnostics.remedies else ""
    return f"Verdict: {diagnostics.verdict}{rest}{help_}"


def about_text(kind: str, spec: RewardSpec, counts: RewardCounts) -> str:
    """Describe the windows, the estimand, its assumption, its interval and how far the log identifies it."""
    n, identified = counts.n_sent, counts.n_identified
    return "\n".join(
        [
            f"Reward `{kind}`: windows of {spec.pre} before and {spec.post} after, time buckets of {spec.time_bucket}, "
            f"overlap {spec.overlap}, controls {spec.controls}.",
            f"Estimand: the mean change that a message causes within {spec.post}, over the {identified:,} decisions "
            f"with a reward of the {n:,} at which one was sent (average effect on the treated).",
            f"Assumption: {ASSUMPTIONS[kind]}.",
            "Interval: 95 %, clustered by user: the decisions of one user may depend on each other; users are taken as "
            "independent.",
            f"Identification: {identified:,} of {n:,} sent decisions have a reward; the diagnostics below test the "
            "assumption as far as the log can.",
        ]
    )


def fallback_lines(spec: RewardSpec, counts: RewardCounts) -> list[str]:
    """Describe how many rewards come from cells of each level, where there is a fallback to wider cells."""
    levels = spec.matching.levels
    if len(levels) == 1:
        return []
    found = [
        f"  {count:,} from cells of equal {describe_level(levels[level])}"
        for level, count in enumerate(counts.by_level.tolist())
        if count
    ]
    return ["rewards by what their controls share (a cell with too few falls back to a wider one):", *found]


def module_for_action_effects(history: History, effects_of: str) -> str | None:
    """Return the module whose actions' effects are reported one by one; None for none.

    Raises:
        ConfigError: If there is no such module.
    """
    names = history.modules.names
    if effects_of == NONE or (effects_of == AUTO and history.propensity_source in KNOWN_SOURCES):
        return None
    if effects_of != AUTO and effects_of not in names:
        raise ConfigError(f"there is no module {effects_of!r}. {nearest(effects_of, names)}")
    return names[0] if effects_of == AUTO else effects_of


def action_effects_section(
    history: History, spec: RewardSpec, module: str, request: EffectsRequest, found: Sequence[ActionEffect]
) -> str:
    """Report the effect of each action of a module on each goal, with tests of its own and with other windows."""
    odds = "estimated by a logistic regression on the covariates"
    if history.propensity_source in KNOWN_SOURCES:
        odds = f"{history.propensity_source} for sending at all, estimated for which action"
    lines = [
        f"Effect of each {module} on each goal, per sent decision with a reward within {spec.post}, goals in their own "
        "units; pre_trends, placebo and kinds_differ are p-values of tests on the same decisions",
        f"`did_dr` weights controls by odds that are {odds}.",
        action_effects_text(found),
    ]
    if request.windows:
        by_window = action_effects_by_window(history, spec, module, request.windows) | {spec.post: found}
        ordered = dict(sorted(by_window.items(), key=lambda item: duration(item[0])))
        lines += [
            "The same by length of the post window, with the pre window in proportion. Each entry is the effect, half "
            "its 95 % interval and the number of sent decisions; ! marks an effect with caveats",
            by_window_text(ordered),
        ]
    return "\n\n".join(lines)


def picture(history: History, events: EventStudy, diagnostics: Diagnostics | None = None, why: str = "") -> Figure:
    """Draw the event study, with the results of the pre-trend test and the other diagnostics as its subtitle.

    Args:
        history: The log.
        events: The event study.
        diagnostics: The diagnostics of the same estimate, where they were computed.
        why: What a failed test points at, in sentences.
    """
    p = events.pre_trends().p_value
    subtitle = "pre-trends not tested" if np.isnan(p) else f"pre-trend test: p = {p:.2g}"
    if diagnostics is not None:
        subtitle += f"\n{diagnostics.verdict}"
    elif p < SIGNIFICANCE_LEVEL:
        subtitle += ": pre-trends differ, do not read the effect as causal"
    if why:
        subtitle = "\n".join([subtitle, *textwrap.wrap(why, SUBTITLE_WIDTH)])
    return event_study_figure(events, f"{history.name}: effect of sending (`{events.kind}`)", subtitle=subtitle)


def effects_text(table: pd.DataFrame) -> str:
    """Return a table of effects for the terminal, with "not identified" where there is no number."""
    out = table.copy()
    for column in ("effect", "se", "low", "high"):
        out[column] = [f"{value:.4g}" if np.isfinite(value) else "-" for value in table[column]]
    out.loc[~np.isfinite(table["effect"]), "effect"] = "not identified"
    return str(out.to_string(index=False))


def staggered_section(history: History, spec: RewardSpec, choice: str, period: str) -> str:
    """Report the effects of the first message of an action by Callaway & Sant'Anna (2021), per period."""
    built = panel_from_history(history, spec, choice, period)
    lines = [
        f"First message with {choice}, by periods of {period} (staggered adoption), in reward units per period",
        built.summary(),
    ]
    never = built.n_never + built.n_until > 0
    try:
        effects = group_time_effects(built.panel, "never" if never else "not_yet")
        overall, _ = aggregate(effects, "simple")
        _, dynamic = aggregate(effects, "dynamic")
    except NotIdentified as error:
        return "\n".join([*lines, f"not identified: {error}"])
    lines.append(f"controls: users {'never' if never else 'not yet'} treated")
    if effects.n_small:
        lines.append(f"left out: {effects.n_small} pairs of group and period with fewer than {MIN_UNITS} users")
    for name, e in (("overall", overall), *((f"period {e.label}", e) for e in dynamic)):
        lines.append(f"{name:>10}  {e.value: .4g}  se {e.se:.4g}  95 % interval {e.low:.4g} to {e.high:.4g}")
    before = [e for e in dynamic if int(e.label) < 0]
    influence = np.stack([e.influence for e in before], axis=1) if before else np.zeros((len(built.user), 0))
    test = effects.joint(np.array([e.value for e in before]), influence)
    if np.isnan(test.p_value):
        return "\n".join([*lines, "pre-trends: not tested"])
    verdict = ": they differ, do not read the effect as causal" if test.p_value < SIGNIFICANCE_LEVEL else ""
    lines.append(f"pre-trends: F test of {test.freedom} periods before, p = {test.p_value:.2g}{verdict}")
    return "\n".join(lines)
