"""Plots of an evaluation over several slots: the values, and how the log's support fades slot by slot."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

from crosschannel.core.plotting import INK, draw_courses, draw_marks
from crosschannel.evaluation.plots.marks import marks_of
from crosschannel.evaluation.report.formatting import why_not
from crosschannel.evaluation.report.pictures import Row
from crosschannel.evaluation.sequential.results import TrajectoryEvaluation

if TYPE_CHECKING:  # Matplotlib takes long to import: it is loaded where a plot is drawn.
    from matplotlib.axes import Axes


def plot_trajectories(evaluation: TrajectoryEvaluation, *, ax: Axes | None = None) -> Axes:
    """Plot every estimator's value of a policy that is followed over several slots, beside the log's mean.

    Args:
        evaluation: What `evaluate_trajectories` returned.
        ax: Axes to draw on; None makes a new figure that pyplot does not know.

    Returns:
        The axes.

    Example:
        >>> axes = plot_trajectories(followed)
        >>> axes.get_xlabel()
        'mean discounted sum of rewards over 3 slots [reward units]'
    """
    rows = [Row(e.estimator, e.value, note=why_not(e.reason)) for e in evaluation.estimates]
    return draw_marks(
        marks_of(rows),
        f"mean discounted sum of rewards over {len(evaluation.slots)} slots [reward units]",
        title=evaluation.about,
        reference=evaluation.logged.point,
        reference_name="the log's mean",
        ax=ax,
    )


def plot_slots(evaluation: TrajectoryEvaluation, *, ax: Axes | None = None) -> Axes:
    """Plot the effective sample size up to each slot, with the least that a value needs.

    Args:
        evaluation: What `evaluate_trajectories` returned.
        ax: Axes to draw on; None makes a new figure that pyplot does not know.

    Returns:
        The axes.

    Example:
        >>> axes = plot_slots(followed)
        >>> axes.get_ylabel()
        'effective number'
    """
    slots = range(1, len(evaluation.slots) + 1)
    sizes = [(s.ess, s.ess_users) for s in evaluation.slots]
    courses = [("trajectories", [ess for ess, _ in sizes]), ("users", [users for _, users in sizes])]
    across, title = "slots that the policy is followed for", "What the log supports, slot by slot"
    ax = draw_courses(list(slots), courses, across, "effective number", title=title, ax=ax)
    if any(math.isfinite(value) for _, values in courses for value in values):
        # One requirement for all slots: it depends on the sums of rewards, which are those of whole trajectories.
        _, _, least = evaluation.settings.ess_requirements(evaluation.slots[0])[0]
        ax.axhline(least, color=INK, lw=1, ls=":", label=f"least for a value ({least:,.0f} trajectories)")
        ax.set_ylim(bottom=0.0)
        ax.set_xticks(list(slots))
        ax.legend(frameon=False, fontsize=8)
    return ax
