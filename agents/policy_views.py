"""The table that explains a policy as text, as Markdown, as scalars and as a plot."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd

from crosschannel.agents.explain import ALL_DECISIONS, ANY, COMPONENTS, HAZARD
from crosschannel.core.errors import ConfigError, nearest
from crosschannel.core.plotting import Mark, draw_marks

if TYPE_CHECKING:  # Matplotlib takes long to import: it is loaded where a plot is drawn.
    from matplotlib.axes import Axes


def as_text(table: pd.DataFrame) -> str:
    """Format a `policy_table` as lines of text, the most frequent action of each module first."""
    lines, names = [], component_names(table)
    for (segment, module, given), part in table.groupby(["segment", "module", "given"], sort=False):
        rows = part.sort_values("share", ascending=False, kind="stable").to_dict("records")
        first = rows[0]
        top = first["top_vote_share"]
        votes = "" if np.isnan(top) else f", {top:.0%} of the votes for the best"
        lines.append(f"{segment} ({first['decisions']:,}), {group_name(str(module), str(given))}{votes}:")
        for row in rows:
            earns = "" if np.isnan(row["reward"]) else f"   earns {row['reward']:+.4g}"
            between = "" if np.isnan(row["low"]) else f" ({row['low']:+.4g} to {row['high']:+.4g})"
            between += _funnel_text(row, names)
            share = " never" if np.isnan(row["share"]) else f"{row['share']:6.1%}"
            lines.append(f"  {share}  {row['action']}{earns}{between}")
    return "\n".join(lines)


def group_name(module: str, given: str) -> str:
    """Return the name of a group of rows of a `policy_table`: a module, or a module given a choice."""
    return module if given == ANY else f"{module} given {given}"


def component_names(table: pd.DataFrame) -> list[str]:
    """Return the components of a `policy_table` that have a number, such as `engagement` and `hazard_unsubscribed`."""
    hazards = [name for name in map(str, table) if name.startswith(HAZARD) and f"{name}_low" in table]
    return [name for name in (*COMPONENTS, *hazards) if name in table and table[name].notna().any()]


def _funnel_text(row: Mapping[Any, Any], names: Sequence[str]) -> str:
    """Return some components of a row of a `policy_table` in words."""
    parts = [
        f"{name.removeprefix(HAZARD)} {format(row[name], '+.4g' if name in ('gain', 'direct') else '.2%')}"
        for name in names
        if not np.isnan(row[name])
    ]
    return f"   {', '.join(parts)}" if parts else ""


def as_markdown(table: pd.DataFrame) -> str:
    """Format a `policy_table` as Markdown, for TensorBoard's text view."""
    columns = [str(name) for name in table.columns]
    head = ["| " + " | ".join(columns) + " |", "|" + "---|" * len(columns)]
    body = [
        "| " + " | ".join(f"{value:.4g}" if isinstance(value, float) else str(value) for value in row) + " |"
        for row in table.itertuples(index=False)
    ]
    return "\n".join([*head, *body])


def as_scalars(table: pd.DataFrame) -> dict[str, float]:
    """Return a `policy_table`'s numbers over all decisions by TensorBoard tag (docs/metrics.md), of whole modules."""
    out: dict[str, float] = {}
    names = component_names(table)
    for row in table[(table["segment"] == ALL_DECISIONS) & (table["given"] == ANY)].to_dict("records"):
        if not np.isnan(row["reward"]):
            out[f"explain/reward/{row['module']}/{row['action']}"] = float(row["reward"])
        for name in names:
            if not np.isnan(row[name]):
                out[f"explain/{name}/{row['module']}/{row['action']}"] = float(row[name])
        if not np.isnan(row["top_vote_share"]):
            out[f"policy/top_vote_share/{row['module']}"] = float(row["top_vote_share"])
    return out


def plot_policy(
    table: pd.DataFrame, *, segment: str = ALL_DECISIONS, show: str = "share", ax: Axes | None = None
) -> Axes:
    """Plot how often a policy chooses each action, or what its agent expects of each, module by module.

    The agent's own estimates say why it chooses as it does, not what the actions are worth.

    Args:
        table: What `policy_table` returned.
        segment: The segment of users.
        show: `share`, `reward`, or a component that the agent has, such as `engagement` (`component_names`).
        ax: Axes to draw on; None makes a new figure that pyplot does not know.

    Returns:
        The axes. An action without a number has no bar, and its row says why.

    Raises:
        ConfigError: If there is no such segment or number.

    Example:
        >>> axes = plot_policy(table)
        >>> axes.get_xlabel()
        'share of the decisions; of later modules, of the messages [%]'
    """
    shown = table[table["segment"] == segment]
    if not len(shown):
        raise ConfigError(f"there is no segment {segment!r}. {nearest(segment, list(dict.fromkeys(table['segment'])))}")
    numbers = ("share", "reward", *component_names(table))
    if show not in numbers:
        raise ConfigError(f"the policy has no {show!r}. {nearest(show, numbers)}")
    title = f"What the policy {'chooses' if show == 'share' else 'expects'}: {segment} ({shown['decisions'].iloc[0]:,})"
    rows = shown.to_dict("records")
    if show == "share":
        across = "share of the decisions; of later modules, of the messages [%]"
        return draw_marks([_share_mark(row) for row in rows], across, title=title, ax=ax)
    unit = "reward units" if show in ("reward", "gain", "direct") else "probability"
    marks = [_estimate_mark(row, show) for row in rows]
    return draw_marks(marks, f"expected {show} of a message, with 95 % interval [{unit}]", title=title, ax=ax)


def _share_mark(row: Mapping[Any, Any]) -> Mark:
    return Mark(
        label=str(row["action"]),
        value=100 * row["share"],
        text=f"{row['share']:.1%}",
        note="no message of the policy has this choice",
        group=group_name(row["module"], row["given"]),
        start=0.0,
    )


def _estimate_mark(row: Mapping[Any, Any], name: str) -> Mark:
    low, high = ("low", "high") if name == "reward" else (f"{name}_low", f"{name}_high")
    return Mark(
        label=str(row["action"]),
        value=row[name],
        low=row[low],
        high=row[high],
        text=f"{row[name]:+.3g} [{row[low]:.3g}, {row[high]:.3g}]",
        note="the agent has no estimate",
        group=group_name(row["module"], row["given"]),
    )
