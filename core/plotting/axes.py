"""The axes of all plots: where they come from, how they are labelled, and what they say where nothing is drawn."""

from __future__ import annotations

import textwrap
from typing import TYPE_CHECKING

if TYPE_CHECKING:  # Matplotlib takes long to import: it is loaded where a plot is drawn.
    from matplotlib.axes import Axes

#: Two colours that remain apart for every kind of colour vision, and in print: Okabe & Ito (2008).
BEFORE, AFTER = "#E69F00", "#0072B2"
INK, PALE = "#444444", "#8A8A8A"
#: Inches of a plot's width and of what lies between the axes and a legend below them; characters of a note in a line.
WIDTH, LEGEND_INCHES, NOTE_WIDTH = 6.8, 0.42, 52


def own_axes(ax: Axes | None, height: float, width: float = WIDTH) -> Axes:
    """Return the axes that the caller gave, or those of a new figure (in inches) that pyplot does not know."""
    if ax is not None:
        return ax
    from crosschannel.core.plotting.figure import PlotFigure

    return PlotFigure.build(width, height).subplots()


def plain(text: str) -> str:
    """Return a text without backquotes, and with dollar signs that Matplotlib does not read as formulas."""
    return text.replace("`", "").replace("$", r"\$")


def label_axes(ax: Axes, across: str, up: str = "", title: str = "") -> None:
    """Label axes, and leave the lines away that carry nothing."""
    ax.set_xlabel(plain(across))
    ax.set_ylabel(plain(up))
    ax.set_title(plain(title), fontsize=10, loc="left")
    ax.spines[["top", "right"]].set_visible(False)


def legend_below(ax: Axes) -> None:
    """Put the legend below the label of the horizontal axis, where it hides no row."""
    from matplotlib.transforms import ScaledTranslation

    figure = ax.get_figure(root=True)
    assert figure is not None
    place = ax.transAxes + ScaledTranslation(0.0, -LEGEND_INCHES, figure.dpi_scale_trans)
    ax.legend(frameon=False, fontsize=8, ncols=2, loc="upper center", bbox_to_anchor=(0.5, 0.0), bbox_transform=place)


def write_note(ax: Axes, text: str) -> None:
    """Write in the middle of empty axes why nothing is drawn, and take their ticks away."""
    wrapped = "\n".join(textwrap.wrap(plain(text), NOTE_WIDTH))
    ax.text(0.5, 0.5, wrapped, ha="center", va="center", color=INK, style="italic", transform=ax.transAxes)
    ax.set_xticks([])
    ax.set_yticks([])
