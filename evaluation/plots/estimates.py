"""Plots of one evaluation: its estimates, the interaction ladder, the waterfall, modules, policy against policy."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import TYPE_CHECKING

from crosschannel.core.plotting import draw_marks, label_axes, own_axes, write_note
from crosschannel.evaluation.estimates import WHOLE_ACTION
from crosschannel.evaluation.ladder.comparison import Comparison
from crosschannel.evaluation.plots.marks import PER_DECISION, marks_of
from crosschannel.evaluation.report.formatting import why_not
from crosschannel.evaluation.report.pictures import Row
from crosschannel.evaluation.report.pictures.evaluations import (
    estimates_of_modules,
    module_rows,
    order_rows,
    waterfall_rows,
)
from crosschannel.evaluation.results import Evaluation

if TYPE_CHECKING:  # Matplotlib takes long to import: it is loaded where a plot is drawn.
    from matplotlib.axes import Axes

LOGGED = "the log's mean"


def plot_estimates(
    evaluation: Evaluation, *, module: str | None = None, truth: float = math.nan, ax: Axes | None = None
) -> Axes:
    """Plot every estimator's value of one estimand, with its interval, beside the log's mean.

    An estimate that the log does not identify has no dot: its row says why. The direct method is a diagnostic, and its
    row says so.

    Args:
        evaluation: The evaluation, as `evaluate` returns it.
        module: The module that the policy chooses; None for the whole action.
        truth: The policy's true value; NaN where unknown.
        ax: Axes to draw on; None makes a new figure that pyplot does not know.

    Returns:
        The axes; `axes.figure.savefig("estimates.png")` writes them.

    Example:
        >>> axes = plot_estimates(evaluation)
        >>> axes.get_xlabel()
        'mean reward per decision with a reward [reward units]'
    """
    found = [e for e in evaluation.estimates if e.module == module]
    rows = [
        Row(
            label=f"{e.estimator} (a diagnostic)" if e.reason and e.value.is_defined else e.estimator,
            interval=e.value,
            note=why_not(e.reason),
            marker=truth if e.value.is_defined else math.nan,
        )
        for e in found
    ]
    return draw_marks(
        marks_of(rows),
        PER_DECISION,
        title=f"{evaluation.policy} chooses {module or WHOLE_ACTION}: estimates with {_level(evaluation)} intervals",
        reference=evaluation.logged.point,
        reference_name=LOGGED,
        ax=ax,
    )


def plot_ladder(evaluation: Evaluation, *, truth: float = math.nan, ax: Axes | None = None) -> Axes:
    """Plot the value by how many parts of a message may interact: the same value under weaker assumptions.

    Args:
        evaluation: The evaluation.
        truth: The policy's true value; NaN where unknown.
        ax: Axes to draw on; None makes a new figure that pyplot does not know.

    Returns:
        The axes.

    Example:
        >>> axes = plot_ladder(evaluation)
        >>> len(axes.get_yticklabels()) == len(evaluation.ladder.orders)
        True
    """
    ladder = evaluation.ladder
    if ladder is None:
        return _without_ladder(evaluation, ax)
    return draw_marks(
        marks_of(order_rows(ladder, truth)),
        PER_DECISION,
        title=f"{evaluation.policy}: value under weaker and weaker assumptions",
        reference=evaluation.logged.point,
        reference_name=LOGGED,
        ax=ax,
    )


def plot_waterfall(evaluation: Evaluation, *, truth: float = math.nan, ax: Axes | None = None) -> Axes:
    """Plot the steps from the log's value to the policy's: what its channel adds, then each part given the channel.

    Bars meet where all steps are identified; a step that is not leaves a gap and says why.

    Args:
        evaluation: The evaluation.
        truth: The policy's true value; NaN where unknown.
        ax: Axes to draw on; None makes a new figure that pyplot does not know.

    Returns:
        The axes.

    Example:
        >>> axes = plot_waterfall(evaluation)
        >>> axes.get_yticklabels()[0].get_text()
        'logged'
    """
    ladder = evaluation.ladder
    if ladder is None or not ladder.waterfall:
        return _without_ladder(evaluation, ax)
    return draw_marks(
        marks_of(waterfall_rows(ladder, truth)),
        PER_DECISION,
        title=f"From the log to {evaluation.policy}, by {ladder.headline.estimator}",
        ax=ax,
    )


def plot_modules(evaluation: Evaluation, *, ax: Axes | None = None) -> Axes:
    """Plot what each module alone would change, with the log's choices of all others.

    Args:
        evaluation: The evaluation.
        ax: Axes to draw on; None makes a new figure that pyplot does not know.

    Returns:
        The axes.

    Example:
        >>> axes = plot_modules(evaluation)
        >>> axes.get_title(loc="left")
        'agent: one module at a time, by dr'
    """
    shown = estimates_of_modules(evaluation)
    by = f", by {shown[0].estimator}" if shown else ""
    return draw_marks(
        marks_of(module_rows(shown)),
        "difference to the log's " + PER_DECISION,
        title=f"{evaluation.policy}: one module at a time{by}",
        ax=ax,
    )


def plot_comparisons(comparisons: Sequence[Comparison], *, ax: Axes | None = None) -> Axes:
    """Plot differences of two policies' values on the same log.

    Args:
        comparisons: What `compare_policies` returned, one or more.
        ax: Axes to draw on; None makes a new figure that pyplot does not know.

    Returns:
        The axes.

    Example:
        >>> axes = plot_comparisons([comparison])
        >>> axes.get_yticklabels()[0].get_text()
        'first minus second'
    """
    rows = [Row(each.estimand, each.difference, note=why_not(each.reason), signed=True) for each in comparisons]
    title = "Policy against policy, on the same decisions"
    return draw_marks(marks_of(rows), "difference of the " + PER_DECISION, title=title, ax=ax)


def _without_ladder(evaluation: Evaluation, ax: Axes | None) -> Axes:
    """Return axes that say why there is no ladder."""
    ax = own_axes(ax, 2.0)
    write_note(ax, f"There is no interaction ladder: {evaluation.no_ladder or 'the evaluation has none'}.")
    label_axes(ax, PER_DECISION, title=evaluation.policy)
    return ax


def _level(evaluation: Evaluation) -> str:
    return f"{evaluation.settings.confidence_level:.0%}"
