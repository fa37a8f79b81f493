"""The readout of a trial in words: as text for the terminal, and as one self-contained HTML page."""

from __future__ import annotations

import math
from collections.abc import Iterator
from pathlib import Path

from scipy.special import ndtri

from crosschannel.core.files import replacing
from crosschannel.evaluation.bootstrap import Interval
from crosschannel.evaluation.report.formatting import NOTHING, align, format_bounds, format_point
from crosschannel.evaluation.report.html_report import render_page
from crosschannel.evaluation.report.page import Card, ReportSection, ReportTable
from crosschannel.evaluation.report.pictures import Lines, Picture, line_chart, row_chart
from crosschannel.evaluation.report.pictures.evaluations import INTERVAL_COLUMNS, cells_of
from crosschannel.evaluation.trials.pictures.rows import cost_rows, course_rows, day, lift_rows, segment_rows
from crosschannel.evaluation.trials.results import (
    BETTER,
    NOT_SHOWN,
    NOT_VALID,
    NOT_YET,
    WORSE,
    ArmAmounts,
    ArmComparison,
    OutcomeLift,
    Trial,
)

#: Power of the lift that the page says a trial of this size finds.
POWER = 0.8
_GLOSSARY = {
    "lift": "Difference of the two arms' means per user since the start, of all users who were drawn into them, "
    "whether or not anything was sent to them (intention to treat).",
    "interval over all looks": "Of one outcome; holds at all looks together. A dash where this look cannot stop the "
    "trial yet.",
    "p, this look": "As if this were the only look and the only outcome: for orientation.",
    "significant": "Over all looks and all outcomes of the comparison: the value has half of the level, and the events "
    "share the other half by Holm's method; whoever is significant hands its part on.",
    "less variance": "Share of the variance of the lift that the period before (CUPED) and the strata took away.",
    "boundary": "What the standardised lift must reach at a look.",
}


def reason(trial: Trial) -> str:
    """Return why the verdict is what it is, in a sentence or two."""
    main = trial.comparisons[0]
    value, names = main.value, f"`{main.treated}` against `{main.control}`"
    verdict = trial.verdict
    if verdict == NOT_VALID:
        failed = next(check for check in trial.checks if check.invalidates and check.passed is False)
        return f"The {failed.name} is not as it must be (p = {failed.p_value:.2g}): {failed.finding} {failed.remedy}"
    shown = _value_words(value, trial.settings.alpha)
    if verdict in (BETTER, WORSE):
        since = f"since the look of {day(value.since)}" if value.since is not None else ""
        return f"{names}: {shown}. It is {verdict}, {since}, after all looks and outcomes."
    if verdict == NOT_YET:
        days = trial.settings.days
        until = (
            "users still enter the confidence sequence"
            if trial.settings.looks == "confidence_sequence"
            else f"the log ends after {trial.share * days:.4g} of the declared {days:g} days"
        )
        return f"{names}: {shown}. No boundary is crossed so far; {until}.{_share_of_level(main, trial.settings.alpha)}"
    over = "The trial is over, and this outcome is not significant."
    return f"{names}: {shown}. {over}{_share_of_level(main, trial.settings.alpha)}"


def _share_of_level(comparison: ArmComparison, alpha: float) -> str:
    """Return why a value is not significant whose interval excludes zero: the interval does not count the events."""
    value = comparison.value
    if not value.lift.is_defined or value.lift.low <= 0 <= value.lift.high or len(comparison.outcomes) < 2:
        return ""
    return (
        f" Its interval excludes zero, but is about this outcome alone: of the level of {alpha:.3g} it has half, and "
        "the events have the other half."
    )


def _value_words(value: OutcomeLift, alpha: float) -> str:
    text = f"`{value.name}` {format_point(value.alone)} per user"
    if value.relative.is_defined or math.isfinite(value.relative.point):
        text += f" ({value.relative.point:+.1%})"
    if value.lift.is_defined:
        return f"{text}, {1 - alpha:.0%} interval over all looks {format_bounds(value.lift)}"
    alone = f"{1 - alpha:.0%} interval of this look alone {format_bounds(value.alone)}"
    return f"{text}, this look cannot stop the trial yet; {alone}"


def trial_text(trial: Trial) -> str:
    """Return the readout as text: the verdict, lifts, what arms got, checks, segments, notes."""
    level = f"{1 - trial.settings.alpha:.0%}"
    blocks = [[_head(trial)], [f"Verdict: {trial.verdict}. {reason(trial)}".replace("`", "")]]
    for comparison in trial.comparisons:
        rows = [_outcome_columns(level), *(_outcome_cells(one) for one in comparison.outcomes)]
        blocks.append([_title(trial, comparison), *align(rows)])
    blocks.append([f"What each arm got, per user ({level} intervals)", *align(_arm_rows(trial))])
    blocks.append(["Checks", *align(_check_rows(trial)), *_remedies(trial)])
    if trial.comparisons[0].segments:
        rows = [("attribute", "level", "users", "lift", level, "p, same at all levels"), *_segment_rows(trial)]
        blocks.append(["Segments (exploratory: no error is controlled over them)", *align(rows)])
    if trial.notes:
        blocks.append([f"Note: {note}." for note in trial.notes])
    return "\n\n".join("\n".join(lines) for lines in blocks)


def write_trial_html(path: Path, trial: Trial) -> None:
    """Write the readout as one self-contained HTML page."""
    sections = [*_comparison_sections(trial), _arms_section(trial), _checks_section(trial)]
    if trial.comparisons[0].segments:
        sections.append(_segments_section(trial))
    failed = tuple(f"{check.name}: {check.finding} {check.remedy}" for check in trial.checks if check.remedy)
    card = Card(
        verdict=trial.verdict,
        reason=reason(trial),
        facts=_facts(trial),
        caveats=(*failed, *(f"{_sentence(one)}." for one in trial.notes)),
        next_steps=_next_steps(trial),
    )
    page = render_page("Trial", _head(trial), card, sections, _GLOSSARY)
    with replacing(path) as draft:
        draft.write_text(page, encoding="utf-8")


def _next_steps(trial: Trial) -> tuple[str, ...]:
    if trial.verdict == NOT_YET:
        return ("Look again later, with `--previous trial.json`: what this look found and had to reach stays.",)
    if trial.verdict == NOT_VALID:
        return ("Find out why users are missing from an arm before anything is read from the lifts.",)
    if trial.verdict == NOT_SHOWN:
        return ("`crosschannel plan --sd NUM --difference NUM` tells how many users a smaller lift needs.",)
    return ()


def _head(trial: Trial) -> str:
    days = trial.share * trial.settings.days
    horizon = "" if trial.settings.looks == "confidence_sequence" else f" of {trial.settings.days:g}"
    users = ", ".join(f"{arm.arm} {arm.users:,}" for arm in trial.arms)
    return f"{trial.log}: day {days:.4g}{horizon}, from {day(trial.start)} to {day(trial.at)} UTC; users: {users}"


def _facts(trial: Trial) -> dict[str, str]:
    settings = trial.settings
    looks = {
        "group_sequential": f"group-sequential over {settings.days:g} declared days, level {settings.alpha:.0%}; "
        f"{len(trial.comparisons[0].value.course)} looks count",
        "once": f"one look at the end of {settings.days:g} declared days, level {settings.alpha:.0%}",
        "confidence_sequence": f"confidence sequence, level {settings.alpha:.0%}, over users who were followed for "
        f"{settings.follow_up}, narrowest at {trial.planned_users:,} users",
    }[settings.looks]
    adjusted = ["the same outcome before the trial"] if settings.pre is not None else []
    adjusted += [f"strata of {', '.join(settings.strata)}"] if settings.strata else []
    value = trial.comparisons[0].value
    finds = (float(-ndtri(settings.alpha / 2)) + float(ndtri(POWER))) * value.alone.se
    text = f"a lift of `{value.name}` by {finds:.3g} per user, with a power of {POWER:.0%} in one look"
    return {
        "looks": looks,
        "a trial of this size finds": text if value.alone.is_defined else NOTHING,
        "significant after Holm": "; ".join(
            f"{comparison.name}: {_significant(comparison)}" for comparison in trial.comparisons
        ),
        "adjusted by": " and ".join(adjusted) or "nothing",
        "independent": "users" if settings.cluster is None else f"clusters by {settings.cluster}",
        "checks": ", ".join(f"{check.name} {_passed(check.passed)}" for check in trial.checks),
    }


def _significant(comparison: ArmComparison) -> str:
    found = [f"`{one.name}` {one.direction}" for one in comparison.outcomes if one.significant]
    return ", ".join(found) or "none"


def _title(trial: Trial, comparison: ArmComparison) -> str:
    primary = " (primary)" if comparison is trial.comparisons[0] else ""
    return f"{comparison.name}{primary}: lift per user since the start"


def _outcome_columns(level: str) -> tuple[str, ...]:
    effects = ("mean of control", "lift", f"{level}, all looks", f"{level}, this look", "relative", level)
    return ("outcome", "measure", *effects, "p, this look", "significant", "less variance")


def _outcome_cells(one: OutcomeLift) -> tuple[str, ...]:
    relative = one.relative
    return (
        one.name,
        one.measure,
        f"{one.means[1]:.4g}",
        format_point(one.alone),
        format_bounds(one.lift),
        format_bounds(one.alone),
        f"{relative.point:+.1%}" if math.isfinite(relative.point) else NOTHING,
        f"[{relative.low:+.1%}, {relative.high:+.1%}]" if relative.is_defined else NOTHING,
        f"{one.p_value:.2g}",
        f"{one.direction}, {day(one.since)}" if one.since is not None else "no",
        f"{one.variance_reduction:.0%}" if math.isfinite(one.variance_reduction) else NOTHING,
    )


def _arm_columns(trial: Trial) -> tuple[str, ...]:
    first = trial.arms[0]
    messages = [f"messages: {name}" for name in first.messages]
    return ("arm", "users", "days observed", *messages, *first.costs)


def _arm_cells(arm: ArmAmounts) -> tuple[str, ...]:
    messages = [_amount(value) if arm.logged else "not in the log" for value in arm.messages.values()]
    return (arm.arm, f"{arm.users:,}", f"{arm.days:.4g}", *messages, *map(_amount, arm.costs.values()))


def _amount(value: Interval) -> str:
    return f"{value.point:.4g} {format_bounds(value)}"


def _arm_rows(trial: Trial) -> list[tuple[str, ...]]:
    return [_arm_columns(trial), *(_arm_cells(arm) for arm in trial.arms)]


def _check_rows(trial: Trial) -> list[tuple[str, ...]]:
    rows = [
        (
            check.name,
            _passed(check.passed),
            f"{check.p_value:.3g}" if math.isfinite(check.p_value) else NOTHING,
            check.finding,
        )
        for check in trial.checks
    ]
    return [("check", "result", "p", "finding"), *(tuple(cell.replace("`", "") for cell in row) for row in rows)]


def _remedies(trial: Trial) -> Iterator[str]:
    for check in trial.checks:
        if check.remedy:
            yield f"{check.name}: {check.remedy}"


def _passed(passed: bool | None) -> str:
    return {True: "passed", False: "failed", None: "not tested"}[passed]


def _segment_rows(trial: Trial) -> list[tuple[str, ...]]:
    return [
        (
            *(one.attribute, one.level, f"{sum(one.users):,}", format_point(one.lift), format_bounds(one.lift)),
            f"{one.p_of_differences:.2g}" if math.isfinite(one.p_of_differences) else NOTHING,
        )
        for one in trial.comparisons[0].segments
    ]


def _comparison_sections(trial: Trial) -> Iterator[ReportSection]:
    level = f"{1 - trial.settings.alpha:.0%}"
    for k, comparison in enumerate(trial.comparisons):
        pictures = [_lift_picture(comparison, f"lifts-{k + 1}", level)]
        if k == 0:
            pictures += [_course_picture(comparison, level), _boundary_picture(comparison)]
        rows = tuple(_outcome_cells(one) for one in comparison.outcomes)
        table = ReportTable("All outcomes", _outcome_columns(level), rows, folded=True)
        sentence = f"Significant after all looks and Holm's method: {_significant(comparison)}."
        title = f"{comparison.name}{' (primary)' if k == 0 else ''}"
        yield ReportSection(title, (sentence,), (table,), tuple(pictures))


def _lift_picture(comparison: ArmComparison, name: str, level: str) -> Picture:
    numbers = tuple(
        (one.name, one.measure, *one.means, *cells_of(one.lift), *cells_of(one.relative), one.p_value)
        for one in comparison.outcomes
    )
    columns = (
        "outcome",
        "measure",
        "mean",
        "mean_of_control",
        *INTERVAL_COLUMNS,
        *(f"relative_{x}" for x in INTERVAL_COLUMNS),
        "p",
    )
    caption = (
        f"Relative lift of each outcome with its {level} interval over all looks; bold where it is significant. Where "
        "the interval is not defined yet, or the control's mean is not clearly above zero, the row is absolute."
    )
    drawing = row_chart(lift_rows(comparison), "relative lift, %")
    return Picture("Lift of each outcome", drawing, caption, name, columns, numbers)


def _course_picture(comparison: ArmComparison, level: str) -> Picture:
    value = comparison.value
    numbers = tuple(
        (day(point.at), point.share, *point.users, *cells_of(point.difference), point.z, point.critical)
        for point in value.course
    )
    columns = ("at", "share", "users", "users_of_control", *INTERVAL_COLUMNS, "z", "boundary")
    caption = (
        f"Lift of `{value.name}` per user from the start up to each look, with the {level} interval of one look alone: "
        "it tells how large the lift is, not whether the trial may stop."
    )
    drawing = row_chart(course_rows(value), f"lift of {value.name} per user since the start")
    return Picture("Time course", drawing, caption, "course", columns, numbers)


def _boundary_picture(comparison: ArmComparison) -> Picture:
    periods = [day(point.at) for point in comparison.value.course]
    rows, numbers = [], []
    for one in comparison.outcomes:
        bounds = [point.critical if math.isfinite(point.critical) else math.nan for point in one.course]
        rows.append(Lines(one.name, [abs(point.z) for point in one.course], bounds))
        numbers += [(one.name, when, point.z, point.critical) for when, point in zip(periods, one.course, strict=True)]
    caption = (
        "Size of the standardised lift at each look, and the boundary at the level of one outcome; several "
        "outcomes ask for more. A look without a boundary cannot stop the trial."
    )
    drawing = line_chart(rows, periods, ("size", "boundary"), "standardised lift", ".2f")
    columns = ("outcome", "at", "z", "boundary")
    return Picture("Looks and boundaries", drawing, caption, "boundaries", columns, tuple(numbers))


def _arms_section(trial: Trial) -> ReportSection:
    table = ReportTable("Messages and cost events per user", _arm_columns(trial), tuple(map(_arm_cells, trial.arms)))
    numbers = tuple(
        (event, arm.arm, *cells_of(arm.costs[event])) for event in trial.arms[0].costs for arm in trial.arms
    )
    picture = Picture(
        "Cost events",
        row_chart(cost_rows(trial.arms), "events per user since the start"),
        "Cost events per user of each arm, not adjusted, with intervals of one look.",
        "cost-events",
        ("event", "arm", *INTERVAL_COLUMNS),
        numbers,
    )
    return ReportSection("What each arm got", (), (table,), (picture,))


def _checks_section(trial: Trial) -> ReportSection:
    head, *rows = _check_rows(trial)
    sentence = "Arms that were drawn at random have the declared shares, and did not differ before the trial."
    return ReportSection("Whether arms were drawn at random", (sentence,), (ReportTable("Checks", head, tuple(rows)),))


def _segments_section(trial: Trial) -> ReportSection:
    segments = trial.comparisons[0].segments
    numbers = tuple(
        (one.attribute, one.level, *one.users, *cells_of(one.lift), one.p_of_differences) for one in segments
    )
    picture = Picture(
        "Lift by segment",
        row_chart(segment_rows(segments), "lift per user since the start"),
        "Lift among users of each level, with the interval of one look at one segment.",
        "segments",
        ("attribute", "level", "users", "users_of_control", *INTERVAL_COLUMNS, "p_same_at_all_levels"),
        numbers,
    )
    level = f"{1 - trial.settings.alpha:.0%}"
    columns = ("attribute", "level", "users", "lift", level, "p, same at all levels")
    table = ReportTable("Numbers", columns, tuple(_segment_rows(trial)), folded=True)
    sentence = (
        "Exploratory: no error is controlled over segments. What looks large here is a question for another trial."
    )
    return ReportSection("Segments", (sentence,), (table,), (picture,))


def _sentence(text: str) -> str:
    return text[:1].upper() + text[1:]
