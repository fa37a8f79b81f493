"""Rows of the pictures of a trial: lifts, the time course, segments, cost events."""

from __future__ import annotations

import math

import numpy as np

from crosschannel.core.times import timestamps
from crosschannel.evaluation.bootstrap import Interval
from crosschannel.evaluation.report.formatting import format_interval
from crosschannel.evaluation.report.pictures import Row
from crosschannel.evaluation.trials.results import ArmAmounts, ArmComparison, CoursePoint, OutcomeLift, Segment

#: Looks that a picture shows; of more, those in between are left out of it, not of its numbers.
LOOKS_SHOWN = 31


def lift_rows(comparison: ArmComparison) -> list[Row]:
    """Return the relative lift of each outcome in percent, over all looks; in words per user where it is undefined."""
    rows = []
    for one in comparison.outcomes:
        shown = one.relative if one.relative.is_defined else Interval(one.relative.point, math.nan, math.nan, math.nan)
        percent = Interval(100 * shown.point, 100 * shown.low, 100 * shown.high, 100 * shown.se)
        note = "" if percent.is_defined else f"{format_interval(one.alone)} per user, this look"
        marked = one.significant and one.sign > 0
        rows.append(Row(f"{one.name}, {one.measure}", percent, note, signed=marked, strong=one.significant))
    return rows


def shown_looks(value: OutcomeLift) -> tuple[CoursePoint, ...]:
    """Return the looks that a picture shows, the last one always: at most `LOOKS_SHOWN`."""
    step = math.ceil(len(value.course) / LOOKS_SHOWN)
    return value.course[::-1][::step][::-1]


def course_rows(value: OutcomeLift) -> list[Row]:
    """Return the difference at each look that is shown."""
    return [Row(day(point.at), point.difference, signed=value.sign > 0) for point in shown_looks(value)]


def segment_rows(segments: tuple[Segment, ...]) -> list[Row]:
    """Return the lift of each segment, grouped by attribute."""
    return [Row(one.level, one.lift, group=one.attribute) for one in segments]


def cost_rows(arms: tuple[ArmAmounts, ...]) -> list[Row]:
    """Return the cost events per user of each arm, grouped by event."""
    return [Row(arm.arm, arm.costs[event], group=event) for event in arms[0].costs for arm in arms]


def day(microseconds: int | None) -> str:
    """Return a time as a date, with the time of the day where that is not midnight."""
    assert microseconds is not None
    (moment,) = timestamps(np.array([microseconds]))
    return f"{moment:%Y-%m-%d}" if moment == moment.normalize() else f"{moment:%Y-%m-%d %H:%M}"
