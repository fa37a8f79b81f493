"""Plots of effects with Matplotlib: averages by group, the event study, actions, groups by period; 95 % intervals."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from crosschannel.core.files import replacing
from crosschannel.core.plotting import AFTER, BEFORE, INK, Mark, draw_marks, label_axes, own_axes, plain, write_note
from crosschannel.core.times import DAY, HOUR, duration
from crosschannel.reward.effects.action_effects import ActionEffect
from crosschannel.reward.effects.estimates import Effect
from crosschannel.reward.effects.event_study import BASE, EventStudy
from crosschannel.reward.effects.staggered import GroupTimeEffects

if TYPE_CHECKING:  # Matplotlib takes long to import: it is loaded where a plot is drawn.
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

DPI = 110
NOT_IDENTIFIED = "not identified: no bin has enough observed windows"


def plot_effects(
    effects: Sequence[Effect] | Mapping[str, Sequence[Effect]], *, unit: str = "reward", ax: Axes | None = None
) -> Axes:
    """Plot average effects on the treated with their 95 % intervals, one row per group of decisions.

    Args:
        effects: Effects, or effects by grouping as `effects_by` returns them.
        unit: Unit of the goals.
        ax: Axes to draw on; None makes a new figure that pyplot does not know.

    Returns:
        The axes. A group whose effect the log does not identify has no dot, and its row says so.

    Example:
        >>> axes = plot_effects([Effect("email", 0.4, 0.1, n_treated=900, n_controls=800, n_users=300)], unit="orders")
        >>> axes.get_xlabel()
        'effect with 95 % interval [orders per message]'
    """
    grouped = effects if isinstance(effects, Mapping) else {"": effects}
    marks = [_mark_of(one, one.label, group) for group, found in grouped.items() for one in found]
    title = "Average effects of the messages that were sent"
    return draw_marks(marks, f"effect with 95 % interval [{unit} per message]", title=title, ax=ax)


def _mark_of(effect: Effect, label: str, group: str = "", text: str = "") -> Mark:
    """Return the row of an effect."""
    known = math.isfinite(effect.value) and effect.se > 0
    why = f"not identified: {effect.n_treated:,} sent decisions with a reward, {effect.n_without:,} without"
    return Mark(
        label=label,
        value=effect.value if known else math.nan,
        low=effect.low,
        high=effect.high,
        text=f"{effect.value:+.3g} [{effect.low:.3g}, {effect.high:.3g}]{text}",
        note=why,
        group=group,
        side=int(np.sign(effect.value)) if known and not effect.low <= 0 <= effect.high else 0,
    )


def plot_action_effects(found: Sequence[ActionEffect], *, goal: str | None = None, ax: Axes | None = None) -> Axes:
    """Plot the effect of each action by several reward kinds side by side; a caveat stands beside the number.

    Args:
        found: What `action_effects` returned.
        goal: The goal, whose unit the axis has; None for the first one.
        ax: Axes to draw on; None makes a new figure that pyplot does not know.

    Returns:
        The axes.

    Example:
        >>> axes = plot_action_effects(action_effects(history, spec, "channel", kinds=["did"]))
        >>> axes.get_xlabel()
        'effect with 95 % interval [order (count) per message]'
    """
    chosen = goal or (found[0].goal if found else "goal")
    marks = [
        _mark_of(one.effect, one.kind, one.action, f"  ! {', '.join(one.caveats)}" if one.caveats else "")
        for one in found
        if one.goal == chosen
    ]
    across = f"effect with 95 % interval [{chosen} per message]"
    return draw_marks(marks, across, title=f"Effect of each action on {chosen}", ax=ax)


def plot_event_study(events: EventStudy, *, unit: str = "reward", ax: Axes | None = None) -> Axes:
    """Plot effects around the decision: bins before it as squares, after it as circles, the base as an empty circle.

    Args:
        events: What `event_study` returned.
        unit: Unit of the goals.
        ax: Axes to draw on; None makes a new figure that pyplot does not know.

    Returns:
        The axes; without an identified bin they say so.

    Example:
        >>> axes = plot_event_study(events, unit="orders")
        >>> axes.get_xlabel()
        'time since the decision [days], bins of 1d'
    """
    ax = own_axes(ax, 3.6)
    length = duration(events.times.bin)
    scale, name = (DAY, "days") if length >= DAY / 2 else (HOUR, "hours")
    across = f"time since the decision [{name}], bins of {events.times.bin}"
    up = f"effect [{unit} per bin]\nwith 95 % interval"
    base = events.times.offsets == BASE
    value = events.value
    low, high = (np.array([getattr(e, end) for e in events.effects]) for end in ("low", "high"))
    if not np.isfinite([e.se for e in events.effects])[~base].any():
        write_note(ax, NOT_IDENTIFIED)
        label_axes(ax, across, up, _event_title(events))
        return ax
    middle = (events.times.offsets + 0.5) * (length / scale)
    for rows, colour, marker, label in (
        (events.times.offsets < BASE, BEFORE, "s", "before: should be 0"),
        (events.times.offsets > BASE, AFTER, "o", "after the message"),
    ):
        rows = rows & np.isfinite(value)
        ax.errorbar(
            middle[rows],
            value[rows],
            yerr=np.stack([value - low, high - value])[:, rows],
            fmt=marker,
            color=colour,
            capsize=3,
            label=label,
        )
    if events.kind != "raw":
        ax.plot(middle[base], value[base], "o", mfc="white", mec=INK, label="base: 0 by definition")
    ax.axhline(0.0, color=INK, lw=0.8)
    ax.axvline(0.0, color=INK, lw=0.8, ls=":")
    ax.legend(frameon=False, fontsize=8)
    label_axes(ax, across, up, _event_title(events))
    return ax


def _event_title(events: EventStudy) -> str:
    return f"Effect of sending by time since the decision ({events.kind})"


def plot_group_time_effects(effects: GroupTimeEffects, *, ax: Axes | None = None) -> Axes:
    """Plot the effect of each group's first message in each period, by periods since it; before it should be 0.

    Args:
        effects: What `group_time_effects` returned.
        ax: Axes to draw on; None makes a new figure that pyplot does not know.

    Returns:
        The axes; one line for each group, named by its first treated period.

    Example:
        >>> axes = plot_group_time_effects(effects)
        >>> axes.get_xlabel()
        'periods since the first message'
    """
    ax = own_axes(ax, 3.8)
    margin = effects.margin
    groups = np.unique(effects.group)
    shades = np.linspace(0.15, 0.8, len(groups))
    for k, (group, shade) in enumerate(zip(groups, shades, strict=True)):
        rows = effects.group == group
        shift = 0.5 * (k - (len(groups) - 1) / 2) / max(len(groups), 1)
        ax.errorbar(
            effects.period[rows] - group + shift,
            effects.att[rows],
            yerr=margin[rows],
            fmt="os^Dv<>"[k % 7],
            ms=4,
            capsize=2,
            color=_cividis(shade),
            label=f"first message in {group}",
        )
    ax.axhline(0.0, color=INK, lw=0.8)
    ax.axvline(-0.5, color=INK, lw=0.8, ls=":")
    ax.legend(frameon=False, fontsize=7, ncols=2)
    title = "Effects by group and period"
    label_axes(ax, "periods since the first message", "effect [reward per period]\nwith 95 % interval", title)
    return ax


def _cividis(share: float) -> tuple[float, ...]:
    """Return a colour of a map that is the same to every kind of colour vision: Nuñez, Anderton & Renslow (2018)."""
    from matplotlib import colormaps

    return tuple(colormaps["cividis"](share))


def event_study_figure(events: EventStudy, title: str = "", *, subtitle: str = "", unit: str = "reward") -> Figure:
    """Return a figure of `plot_event_study` with a title and what was tested below it, as reports show it.

    Args:
        events: The event study.
        title: The title; by default it names the reward kind.
        subtitle: Lines below the title, such as the result of the pre-trend test.
        unit: Unit of the goals, for the axis.
    """
    axes = plot_event_study(events, unit=unit)
    if axes.get_legend() is not None:  # Below the axes, where it hides no interval.
        axes.legend(frameon=False, fontsize=8, loc="upper center", bbox_to_anchor=(0.5, -0.2), ncols=3)
    figure = axes.get_figure(root=True)
    assert figure is not None
    figure.suptitle(plain(title or _event_title(events)), fontsize=11)
    axes.set_title("", loc="left")
    if subtitle:
        axes.set_title(plain(subtitle), fontsize=8, color=INK)
    return figure


def save_figure(figure: Figure, path: Path) -> None:
    """Write a figure as PNG, SVG or PDF, by the suffix of its name."""
    with replacing(path) as draft:
        figure.savefig(draft, dpi=DPI, format=path.suffix.removeprefix("."))
