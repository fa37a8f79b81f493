"""What a simulated deployment shows in TensorBoard, by day (docs/metrics.md defines each tag)."""

from __future__ import annotations

import math
import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pandas as pd

from crosschannel.core.arrays import BoolArray, FloatArray
from crosschannel.envs.market import StepResult
from crosschannel.histories.arms import AGENT, ARMS
from crosschannel.histories.readers.decided.days import DECISIONS_FILE
from crosschannel.histories.readers.source_files import read_parquet
from crosschannel.pipeline.loop.day_summaries import read_summary
from crosschannel.pipeline.simulation.world import World

#: Columns of days.csv that are no numbers to draw.
NAMES = ("day", "date", "policy")


class LoopMonitor:
    """Writes the figures of each day, from the first one on.

    Args:
        folder: TensorBoard's folder; what an earlier simulation of the same days wrote into it is replaced.
    """

    def __init__(self, folder: Path) -> None:
        from torch.utils.tensorboard import SummaryWriter

        shutil.rmtree(folder, ignore_errors=True)
        self._writer = SummaryWriter(str(folder))

    def write(self, figures: Mapping[str, Any]) -> None:
        """Write a day's figures as scalars `loop/NAME`."""
        for name, value in figures.items():
            if name not in NAMES and not math.isnan(value):
                self._writer.add_scalar(f"loop/{name}", value, figures["day"])
        self._writer.flush()

    def close(self) -> None:
        """Finish the file."""
        self._writer.close()


def true_figures(world: World, here: BoolArray, result: StepResult, best: FloatArray) -> dict[str, Any]:
    """Return what a day was worth in truth, by arm and user who was there.

    Args:
        world: The app after the day.
        here: Who was there (N,).
        result: What happened.
        best: What an oracle's choice would have been worth (N,).
    """
    out: dict[str, Any] = {}
    sent = result.executed[:, 0] > 0
    for arm in ARMS:
        mine = world.users_of(arm) & here
        n = max(int(mine.sum()), 1)
        out[f"users/{arm}"] = int(mine.sum())
        for name, values in (
            ("value", result.true_effect),
            ("regret", best - result.true_effect),
            ("sent", sent),
            ("unsubscribed", result.unsubscribed),
        ):
            out[f"{name}/{arm}"] = float(values[mine].sum() / n)
    return out


def decided_figures(day: Path) -> dict[str, Any]:
    """Return the policy of a decided day, how sure it was, and the prices of its constraints.

    `probability` is the mean probability of what was chosen where something could be sent: near 1 the policy no longer
    explores.
    """
    summary, table = read_summary(day), read_parquet(day / DECISIONS_FILE)
    first = next(name for name in table if f"propensity_{name}" in table)
    could = (table["arm"] == AGENT) & (table[f"eligible_{first}"].astype(str).str.contains("|", regex=False))
    prices = {f"price/{price['constraint']}": float(price["price"]) for price in summary["prices"]}
    chosen = pd.Series(table["propensity"])[could]
    return {
        "policy": summary["policy_version"],
        "probability": float(chosen.mean()) if len(chosen) else float("nan"),
        **prices,
    }
