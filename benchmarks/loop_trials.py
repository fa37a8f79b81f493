"""Whether the readout of a trial is right in closed loops, in which one agent learns from all users.

    python -m benchmarks.loop_trials --loops 40 --salts 50 --output docs/market/loop_trials

Users depend on each other there: what one user's answer teaches changes what others get. Each loop is a small
deployment from nothing (`crosschannel simulate`; 20 % holdout, 80 % agent, constraints emptied). Counted are

- A/A: the agent's users are divided at random into two halves by other salts, both served by the one agent. How often
  is any outcome significant at any daily look? The error is clustered by loop;
- `null`, a world without effects: how often is any lift of the agent over the holdout significant?
- coverage: how often does the 95 % interval of the lift in value at the end (one look) contain the true lift: the mean
  over redraws of outcomes of what the loop's own actions were worth?

Writes OUTPUT.csv, a row for each loop, added to those that it has, and OUTPUT.md.
"""

from __future__ import annotations

import argparse
import shutil
import sys
import tempfile
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from benchmarks.tables import add_rows
from crosschannel.evaluation.trials import ArmTable, TrialConfig, read_trial, significant_outcomes
from crosschannel.histories.arms import AGENT, HOLDOUT
from crosschannel.histories.readers.folder import read_history
from crosschannel.pipeline.configuration import CONFIG_FOLDER, Config, load_config
from crosschannel.pipeline.simulation.simulating import Loop, simulate

PAIR = f"{AGENT}:{HOLDOUT}"
#: What tells rows apart.
KEYS = ("scenario", "seed", "users", "days")


def configuration(scenario: str, seed: int, users: int, days: int) -> Config:
    """Return the configuration of a small deployment: few features, so that it takes seconds."""
    return load_config(
        CONFIG_FOLDER / "closed_loop.yaml",
        {
            "seed": seed,
            "history.market.seed": seed,
            "history.market.scenario": scenario,
            "history.market.users": users,
            "history.market.days": days,
            "history.market.warmup_days": 7,
            "context.windows": ("2d",),
            "context.events": ("visit:*", "order:*"),
            "reward.funnel.surrogates": {},
            "arms.holdout": 0.2,
            "arms.business_as_usual": 0.0,
            "loop.late": 0.0,
            "loop.leaving": 0.0,
            "constraints.cost_events": (),
            "agent.settings.members": 5,
        },
    )


def result(scenario: str, seed: int, users: int, days: int, salts: int) -> dict[str, Any]:
    """Simulate a deployment, and return what trials on its log find."""
    folder = Path(tempfile.mkdtemp(prefix="trials-"))
    try:
        config = configuration(scenario, seed, users, days)
        for _ in simulate(config, folder / "run"):
            pass
        loop = Loop(folder / "run")
        history = read_history(loop.log, loop.decided)
        figures = loop.days()
    finally:
        shutil.rmtree(folder)
    start = f"{pd.Timestamp(int(history.decisions.time.min()), unit='us'):%Y-%m-%d %H:%M}"
    declared = TrialConfig(start=start, days=float(days), pre="7d")
    goals = config.reward.goals
    arm = np.full(history.n_users, AGENT, dtype=object)
    arm[history.decisions.user] = history.decisions.arm
    mine = history.user_ids[arm == AGENT]
    rng = np.random.default_rng([seed, salts])
    tables = [ArmTable(mine, np.where(rng.random(len(mine)) < 0.5, "a", "b").astype(object)) for _ in range(salts)]
    halves = significant_outcomes(history, replace(declared, compare=("a:b",)), goals, tables)
    lift = significant_outcomes(history, replace(declared, compare=(PAIR,)), goals, [None])[0]
    once = read_trial(history, replace(declared, compare=(PAIR,), looks="once"), goals).comparisons[0].value
    truth = float(figures["value/agent"].sum())
    return {
        "scenario": scenario,
        "seed": seed,
        "users": users,
        "days": days,
        "salts": salts,
        "halves_that_differ": sum(map(bool, halves)),
        "agent_differs": int(bool(lift)),
        "truth": truth,
        "low": once.alone.low,
        "high": once.alone.high,
        "covered": int(once.alone.low <= truth <= once.alone.high),
    }


def table(rows: pd.DataFrame, command: str) -> str:
    """Return the counts by world."""
    lines = [f"    {command}", ""]
    lines.append("| world | loops | A/A: halves that differ (se by loop) | agent over holdout significant | covered |")
    lines.append("|---|---|---|---|---|")
    for scenario, part in rows.groupby("scenario", sort=False):
        share = part["halves_that_differ"] / part["salts"]
        se = share.std(ddof=1) / np.sqrt(len(part)) if len(part) > 1 else float("nan")
        lines.append(
            f"| {scenario} | {len(part)} | {share.mean():.1%} ({se:.1%}) of {part['salts'].sum():,} | "
            f"{part['agent_differs'].sum()} | {part['covered'].sum()} ({part['covered'].mean():.2f}) |"
        )
    return "\n".join(lines) + "\n"


def main() -> None:
    """Simulate, count, print and write."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--loops", type=int, default=40)
    parser.add_argument("--first-seed", type=int, default=0)
    parser.add_argument("--salts", type=int, default=50)
    parser.add_argument("--users", type=int, default=600)
    parser.add_argument("--days", type=int, default=7)
    parser.add_argument("--scenarios", nargs="+", default=["default", "null"])
    parser.add_argument("--output", type=Path, help="file without its ending")
    chosen = parser.parse_args()
    command = "python -m benchmarks.loop_trials " + " ".join(sys.argv[1:])
    found: list[dict[str, Any]] = []
    for seed in range(chosen.first_seed, chosen.first_seed + chosen.loops):
        for scenario in chosen.scenarios:
            found.append(result(scenario, seed, chosen.users, chosen.days, chosen.salts))
            print(found[-1], flush=True)
            if chosen.output is not None:
                add_rows(pd.DataFrame(found), chosen.output, KEYS, partial(table, command=command))
    print(table(pd.DataFrame(found), ""))


if __name__ == "__main__":
    main()
