"""Draw the picture of the README from a finished run on the default market.

python docs/pictures/readme.py runs/market
"""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure

OUTPUT = Path(__file__).resolve().parent / "readme.png"
INK, LEARNED, OTHER, OPEN = "#24292f", "#1f6feb", "#8b949e", "#b3b9c1"


def draw(metrics: dict[str, Any]) -> Figure:
    """Return two panels: what the log identifies of the policy, and what each policy is truly worth."""
    figure = Figure(figsize=(9.0, 3.4), dpi=160, layout="constrained")
    FigureCanvasAgg(figure)
    left, right = figure.subplots(1, 2, width_ratios=(1.0, 1.15))

    estimates = [e for e in metrics["evaluation"]["estimates"] if e["estimator"] == "dr"]
    for y, e in enumerate(reversed(estimates)):
        if not e["identified"]:
            left.text(0.0, y, "  not identified", ha="left", va="center", color=INK, fontsize=8, style="italic")
            continue
        d = e["difference"]
        colour = OPEN if d["low"] < 0 < d["high"] else LEARNED
        left.plot([d["low"], d["high"]], [y, y], color=colour, lw=3, solid_capstyle="round")
        left.plot(d["point"], y, "o", color=colour, ms=6)
    left.axvline(0.0, color=INK, lw=0.8)
    labels = [e["module"] or "whole policy" for e in reversed(estimates)]
    left.set(yticks=range(len(labels)), yticklabels=labels, ylim=(-0.7, len(labels) - 0.3))
    left.set_xlabel("difference to the logging policy per decision, 95 % interval", fontsize=8)
    left.set_title("From the log alone", fontsize=10, loc="left", color=INK)

    truth = [row for row in metrics["truth"] if row["policy"] != "oracle"]
    oracle = next(row["per_user"] for row in metrics["truth"] if row["policy"] == "oracle")
    for y, row in enumerate(reversed(truth)):
        colour = LEARNED if row is truth[0] else OTHER
        right.barh(y, row["per_user"], xerr=1.96 * row["per_user_se"], color=colour, height=0.6, ecolor=INK, capsize=3)
    right.set(yticks=range(len(truth)), yticklabels=[row["policy"] for row in reversed(truth)])
    right.set_xlabel(f"incremental goal value per user in four weeks (oracle: {oracle:.2f})", fontsize=8)
    right.set_title("Ground truth, since the market is simulated", fontsize=10, loc="left", color=INK)
    for axes in (left, right):
        axes.spines[["top", "right"]].set_visible(False)
        axes.tick_params(labelsize=8)
    return figure


if __name__ == "__main__":
    run = Path(sys.argv[1] if len(sys.argv) > 1 else "runs/market")
    draw(json.loads((run / "metrics.json").read_text())).savefig(OUTPUT)
    print(OUTPUT)
