"""Plots of what limits an evaluation: its weights, the agent's calibration, and cost events."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np

from crosschannel.core.plotting import AFTER, INK, draw_marks, draw_pairs, label_axes, own_axes, write_note
from crosschannel.evaluation.bins import CalibrationBin, WeightBin
from crosschannel.evaluation.gate import CostEvent
from crosschannel.evaluation.plots.marks import marks_of
from crosschannel.evaluation.report.pictures.rows import cost_rows, weight_rows

if TYPE_CHECKING:  # Matplotlib takes long to import: it is loaded where a plot is drawn.
    from matplotlib.axes import Axes


def plot_weights(bins: Sequence[WeightBin], *, ess: float = math.nan, ax: Axes | None = None) -> Axes:
    """Plot how the weights of an evaluation overlap with the log: few decisions must not carry all of the error.

    Args:
        bins: What `weight_bins` returned for the weights (n,), or `result.evidence.weights` of a run.
        ess: Effective sample size of the decisions, for the title; NaN leaves it out.
        ax: Axes to draw on; None makes a new figure that pyplot does not know.

    Returns:
        The axes.

    Example:
        >>> axes = plot_weights(weight_bins(weights), ess=25.4)
        >>> axes.get_title(loc="left")
        'Weights of 50 decisions, as precise as 25 equal ones'
    """
    rows = weight_rows(bins)
    title = f"Weights of {sum(each.decisions for each in bins):,} decisions"
    if math.isfinite(ess):
        title += f", as precise as {ess:,.0f} equal ones"
    return draw_pairs(
        [f"weight {row.label}" for row in rows],
        [row.first for row in rows],
        [row.second for row in rows],
        ("decisions", "squared weights, which drive the error"),
        "share of all",
        title=title,
        ax=ax,
    )


def plot_calibration(bins: Sequence[CalibrationBin], *, ax: Axes | None = None) -> Axes:
    """Plot what messages earned against what the agent expected of them; on the dashed line both are equal.

    Args:
        bins: What `calibration_bins` returned, or `result.evidence.calibration` of a run.
        ax: Axes to draw on; None makes a new figure that pyplot does not know.

    Returns:
        The axes.

    Example:
        >>> axes = plot_calibration(calibration_bins(expected, rewards, counts, user))
        >>> axes.get_ylabel()
        'mean reward, with 95 % interval [reward units]'
    """
    ax = own_axes(ax, 3.8, 5.2)
    across, up = "expected reward [reward units]", "mean reward, with 95 % interval [reward units]"
    title = "Expected and observed rewards of messages"
    if not bins:
        write_note(ax, "There are no bins: no message has an expected reward, or too few users have one.")
        label_axes(ax, across, up, title)
        return ax
    expected, observed = (np.array([getattr(each, name) for each in bins]) for name in ("expected", "observed"))
    low, high = (np.array([getattr(each, name) for each in bins]) for name in ("low", "high"))
    ends = [float(min(expected.min(), observed.min())), float(max(expected.max(), observed.max()))]
    ax.plot(ends, ends, color=INK, lw=1, ls="--", label="expected = observed")
    errors = np.stack([observed - low, high - observed])
    ax.errorbar(expected, observed, yerr=errors, fmt="o", color=AFTER, capsize=3, label="messages in bins")
    ax.axhline(0.0, color=INK, lw=0.8, ls=":")
    ax.legend(frameon=False, fontsize=8)
    label_axes(ax, across, up, title)
    return ax


def plot_costs(costs: Sequence[CostEvent], *, ax: Axes | None = None) -> Axes:
    """Plot how often cost events follow decisions under the policy, with the log's rates as diamonds.

    Args:
        costs: The cost events, such as `result.gate.costs` of a run.
        ax: Axes to draw on; None makes a new figure that pyplot does not know.

    Returns:
        The axes.

    Example:
        >>> axes = plot_costs([CostEvent("unsubscribed", 0.01, Interval(0.02, 0.01, 0.03, 0.005))])
        >>> axes.get_xlabel()
        'rate [events per decision]'
    """
    title = "Cost events after a decision, under the policy"
    return draw_marks(marks_of(cost_rows(costs)), "rate [events per decision]", title=title, marker="in the log", ax=ax)
