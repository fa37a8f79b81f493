"""Pictures of effects: the event study, with 95 % intervals."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from crosschannel.core.files import replacing
from crosschannel.core.times import DAY, HOUR, duration
from crosschannel.reward.effects.event_study import BASE, EventStudy

if TYPE_CHECKING:  # Matplotlib takes long to import: it is loaded where a picture is drawn.
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

# Two colours that remain apart for every kind of colour vision, and in print: Okabe & Ito (2008).
BEFORE, AFTER, INK = "#E69F00", "#0072B2", "#444444"
FIGURE_INCHES, DPI = (6.4, 3.6), 110


def event_study_figure(events: EventStudy, title: str = "", *, subtitle: str = "", unit: str = "reward") -> Figure:
    """Draw the effect in each bin around the decision, with its 95 % interval.

    Args:
        events: The event study.
        title: The title; by default it names the reward kind.
        subtitle: Lines below the title, such as the result of the pre-trend test.
        unit: Unit of the goals, for the axis.
    """
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    figure = Figure(figsize=FIGURE_INCHES, dpi=DPI, layout="constrained")
    FigureCanvasAgg(figure)
    axes = figure.subplots()
    if not np.isfinite([e.se for k, e in zip(events.times.offsets, events.effects, strict=True) if k != BASE]).any():
        axes.text(0.5, 0.5, "not identified: no bin has enough observed windows", ha="center", transform=axes.transAxes)
    draw_event_study(axes, events, unit)
    # Below the axes, where it hides no interval.
    axes.legend(frameon=False, fontsize=8, loc="upper center", bbox_to_anchor=(0.5, -0.2), ncols=3)
    figure.suptitle(title or f"Effect of sending by time since the decision ({events.kind})", fontsize=11)
    if subtitle:
        axes.set_title(subtitle, fontsize=8, color=INK)
    return figure


def draw_event_study(axes: Axes, events: EventStudy, unit: str = "reward") -> None:
    """Draw an event study: bins before the decision as squares, after it as circles, the base as an empty circle."""
    length = duration(events.times.bin)
    scale, name = (DAY, "days") if length >= DAY / 2 else (HOUR, "hours")
    middle = (events.times.offsets + 0.5) * (length / scale)
    value = events.value
    low, high = (np.array([getattr(e, end) for e in events.effects]) for end in ("low", "high"))
    base = events.times.offsets == BASE
    for rows, colour, marker, label in (
        (events.times.offsets < BASE, BEFORE, "s", "before: should be 0"),
        (events.times.offsets > BASE, AFTER, "o", "after the message"),
    ):
        rows = rows & np.isfinite(value)
        axes.errorbar(
            middle[rows],
            value[rows],
            yerr=np.stack([value - low, high - value])[:, rows],
            fmt=marker,
            color=colour,
            capsize=3,
            label=label,
        )
    if events.kind != "raw":
        axes.plot(middle[base], value[base], "o", mfc="white", mec=INK, label="base: 0 by definition")
    axes.axhline(0.0, color=INK, lw=0.8)
    axes.axvline(0.0, color=INK, lw=0.8, ls=":")
    axes.set_xlabel(f"time since the decision [{name}], bins of {events.times.bin}")
    axes.set_ylabel(f"effect [{unit} per bin]\nwith 95 % interval")
    axes.spines[["top", "right"]].set_visible(False)
    axes.legend(frameon=False, fontsize=8)


def save_figure(figure: Figure, path: Path) -> None:
    """Write a figure as PNG, SVG or PDF, by the suffix of its name."""
    with replacing(path) as draft:
        figure.savefig(draft, dpi=DPI, format=path.suffix.removeprefix("."))
