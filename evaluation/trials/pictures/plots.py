"""Plots of a randomised trial with Matplotlib: lifts, the time course, looks with their boundaries, segments, costs."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import TYPE_CHECKING

import numpy as np

from crosschannel.core.arrays import FloatArray
from crosschannel.core.errors import ConfigError, nearest
from crosschannel.core.plotting import (
    AFTER,
    BEFORE,
    INK,
    Mark,
    draw_marks,
    label_axes,
    own_axes,
    plain,
    write_note,
)
from crosschannel.core.times import DAY
from crosschannel.evaluation.plots.marks import marks_of
from crosschannel.evaluation.trials.pictures.rows import cost_rows, lift_rows, segment_rows
from crosschannel.evaluation.trials.results import NOT_VALID, ArmComparison, OutcomeLift, Trial

if TYPE_CHECKING:  # Matplotlib takes long to import: it is loaded where a plot is drawn.
    from matplotlib.axes import Axes


def plot_lifts(trial: Trial, *, comparison: int = 0, ax: Axes | None = None) -> Axes:
    """Plot the relative lift of each outcome, with an interval that holds at all looks; bold where it is significant.

    Args:
        trial: What `read_trial` returned.
        comparison: Index of the pair of arms; 0 is the primary one.
        ax: Axes to draw on; None makes a new figure that pyplot does not know.

    Returns:
        The axes; where a check of the trial failed, they say so and show no lift.

    Example:
        >>> axes = plot_lifts(trial)
        >>> axes.get_title(loc="left")
        'agent against business_as_usual: better'
    """
    pair = trial.comparisons[comparison]
    across = f"relative lift [%], {_level(trial)} interval over all looks"
    if trial.verdict == NOT_VALID:
        return _not_valid(trial, across, ax)
    return draw_marks(_in_percent(marks_of(lift_rows(pair)), pair), across, title=_title(trial, pair), ax=ax)


def plot_time_course(trial: Trial, *, comparison: int = 0, outcome: str | None = None, ax: Axes | None = None) -> Axes:
    """Plot the lift up to each look, with the interval of that look alone and what would stop the trial.

    The interval tells how large the lift is; the trial may stop where the lift is outside the dashed boundary.

    Args:
        trial: What `read_trial` returned.
        comparison: Index of the pair of arms; 0 is the primary one.
        outcome: Name of the outcome; None for the weighted value.
        ax: Axes to draw on; None makes a new figure that pyplot does not know.

    Returns:
        The axes.

    Example:
        >>> axes = plot_time_course(trial)
        >>> axes.get_ylabel()
        'lift of value per user since the start'
    """
    one = _outcome(trial.comparisons[comparison], outcome)
    across, up = "days since the start", f"lift of {one.name} per user since the start"
    if trial.verdict == NOT_VALID:
        return _not_valid(trial, across, ax)
    ax = own_axes(ax, 3.6)
    days = _days(trial, one)
    point, low, high, se = (
        np.array([getattr(each.difference, name) for each in one.course]) for name in ("point", "low", "high", "se")
    )
    critical = np.array([each.critical for each in one.course])
    seen = np.isfinite(point)
    ax.errorbar(
        days[seen],
        point[seen],
        yerr=np.stack([point - low, high - point])[:, seen],
        fmt="o",
        ms=4,
        color=AFTER,
        capsize=2,
        label=f"lift with the {_level(trial)} interval of this look alone",
    )
    label_axes(ax, across, up, _title(trial, trial.comparisons[comparison]))
    return _with_boundary(ax, trial, days, np.where(np.isfinite(critical), critical * se, np.nan))


def plot_looks(trial: Trial, *, comparison: int = 0, outcome: str | None = None, ax: Axes | None = None) -> Axes:
    """Plot the standardised lift at each look, and the boundaries that it has to cross: sequential monitoring.

    Args:
        trial: What `read_trial` returned.
        comparison: Index of the pair of arms; 0 is the primary one.
        outcome: Name of the outcome; None for the weighted value.
        ax: Axes to draw on; None makes a new figure that pyplot does not know.

    Returns:
        The axes. A look without a boundary cannot stop the trial.

    Example:
        >>> axes = plot_looks(trial)
        >>> axes.get_ylabel()
        'standardised lift of value'
    """
    one = _outcome(trial.comparisons[comparison], outcome)
    across, up = "days since the start", f"standardised lift of {one.name}"
    if trial.verdict == NOT_VALID:
        return _not_valid(trial, across, ax)
    ax = own_axes(ax, 3.6)
    days = _days(trial, one)
    z = np.array([each.z for each in one.course])
    critical = np.array([each.critical for each in one.course])
    ax.plot(days, z, "o-", ms=4, color=AFTER, label="lift in standard errors")
    label_axes(ax, across, up, _title(trial, trial.comparisons[comparison]))
    return _with_boundary(ax, trial, days, np.where(np.isfinite(critical), critical, np.nan))


def plot_segments(trial: Trial, *, ax: Axes | None = None) -> Axes:
    """Plot the primary comparison's lift by segment; exploratory, since no error is controlled over segments.

    Args:
        trial: What `read_trial` returned.
        ax: Axes to draw on; None makes a new figure that pyplot does not know.

    Returns:
        The axes.

    Example:
        >>> axes = plot_segments(trial)
        >>> axes.get_title(loc="left")
        'Lift by segment (exploratory)'
    """
    across = "lift per user since the start, interval of one look at one segment"
    if trial.verdict == NOT_VALID:
        return _not_valid(trial, across, ax)
    rows = segment_rows(trial.comparisons[0].segments)
    return draw_marks(marks_of(rows), across, title="Lift by segment (exploratory)", ax=ax)


def plot_arm_costs(trial: Trial, *, ax: Axes | None = None) -> Axes:
    """Plot the cost events per user of each arm, not adjusted, with intervals of one look.

    Args:
        trial: What `read_trial` returned.
        ax: Axes to draw on; None makes a new figure that pyplot does not know.

    Returns:
        The axes.

    Example:
        >>> axes = plot_arm_costs(trial)
        >>> axes.get_xlabel()
        'events per user since the start'
    """
    return draw_marks(marks_of(cost_rows(trial.arms)), "events per user since the start", title="Cost events", ax=ax)


def _in_percent(marks: Sequence[Mark], pair: ArmComparison) -> list[Mark]:
    """Return marks of relative lifts whose texts are shares and name what was found."""
    return [
        replace(
            mark, text=f"{mark.value:+.1f} % [{mark.low:.1f}, {mark.high:.1f}]{f', {one.direction}' * one.significant}"
        )
        for mark, one in zip(marks, pair.outcomes, strict=True)
    ]


def _with_boundary(ax: Axes, trial: Trial, days: FloatArray, edge: FloatArray) -> Axes:
    """Draw the boundary of each look (n,) on both sides of zero, NaN for none, over all days of the trial."""
    if np.isfinite(edge).any():
        ax.plot(days, edge, "s--", ms=3, color=BEFORE, label="boundary at the level of one outcome")
        ax.plot(days, -edge, "s--", ms=3, color=BEFORE)
    else:
        text = "no look so far can stop the trial"
        ax.text(0.98, 0.03, text, ha="right", fontsize=8, style="italic", color=INK, transform=ax.transAxes)
    ax.set_xlim(0.0, 1.03 * max(trial.settings.days, days[-1]))
    ax.axhline(0.0, color=INK, lw=0.8, ls=":")
    ax.legend(frameon=False, fontsize=8)
    return ax


def _not_valid(trial: Trial, across: str, ax: Axes | None) -> Axes:
    """Return axes that say which check failed, in place of lifts that must not be read."""
    ax = own_axes(ax, 2.0)
    failed = next(check for check in trial.checks if check.invalidates and check.passed is False)
    write_note(ax, f"Not valid, so no lift is shown. {failed.name}: {failed.finding}")
    label_axes(ax, across, title=_title(trial, trial.comparisons[0]))
    return ax


def _outcome(pair: ArmComparison, name: str | None) -> OutcomeLift:
    """Return an outcome by its name.

    Raises:
        ConfigError: If there is none of the name.
    """
    if name is None:
        return pair.value
    for one in pair.outcomes:
        if one.name == name:
            return one
    raise ConfigError(f"there is no outcome {name!r}. {nearest(name, [one.name for one in pair.outcomes])}")


def _days(trial: Trial, one: OutcomeLift) -> FloatArray:
    return np.array([(each.at - trial.start) / DAY for each in one.course], dtype=np.float64)


def _title(trial: Trial, pair: ArmComparison) -> str:
    return plain(f"{pair.name}: {trial.verdict if pair is trial.comparisons[0] else pair.value.direction}")


def _level(trial: Trial) -> str:
    return f"{1 - trial.settings.alpha:.0%}"
