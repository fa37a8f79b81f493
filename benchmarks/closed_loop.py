"""What a policy is worth that learned day by day from nothing: one row for each seed, way of exploring and day.

    python -m benchmarks.closed_loop --users 5000 --days 28 --at 7 14 28 --seeds 0 1 2 --output docs/market/loop_5000

Each deployment is simulated by `crosschannel simulate` with `configs/closed_loop.yaml` (arms of 10 % holdout, 10 %
business as usual and 80 % agent) and with `constraints` emptied, unless `--constrained` is given. After each of the
days the policy in use is deployed, as it explores, to users whom it has not met, for 28 days. Writes OUTPUT.csv (rows
are added to those that it has) and OUTPUT.md (means over seeds, and the differences to the first way by seed).
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
from crosschannel.agents import load_policy
from crosschannel.envs.market import FreshUsers, Market
from crosschannel.histories.readers.folder import read_history
from crosschannel.pipeline.configuration import CONFIG_FOLDER, Config, load_config
from crosschannel.pipeline.judgement.judging import market_policy
from crosschannel.pipeline.loop.updating import update
from crosschannel.pipeline.run_folder import Run
from crosschannel.pipeline.simulation.simulating import Loop, simulate

#: Ways of exploring: the same learner, components, contexts and controls for all but the last three.
WAYS: dict[str, dict[str, Any]] = {
    "thompson": {},
    "greedy": {"agent.settings.exploration_scale": 0.0, "agent.settings.floor": 0.0},
    "uniform_2": {"agent.settings.exploration_scale": 0.0, "agent.settings.floor": 0.02},
    "uniform_10": {"agent.settings.exploration_scale": 0.0, "agent.settings.floor": 0.1},
    "thompson_without_funnel": {"reward.funnel": None},
    "linear_thompson": {"reward.funnel": None, "agent.name": "linear_thompson", "agent.settings": {}},
    "beta": {"reward.funnel": None, "agent.name": "beta_thompson", "agent.settings": {}},
}
DEPLOYED_DAYS = 28
#: What tells rows apart.
KEYS = ("way", "seed", "users", "scenario", "constrained", "day")


def configuration(way: str, seed: int, users: int, days: int, other: dict[str, Any], *, constrained: bool) -> Config:
    """Return the configuration of one deployment."""
    settings: dict[str, Any] = {
        "seed": seed,
        "history.market.seed": seed,
        "history.market.users": users,
        "history.market.days": days,
        "update.keep": days + 1,
        **WAYS[way],
        **other,
    }
    if not constrained or way in ("thompson_without_funnel", "linear_thompson", "beta"):
        settings["constraints.cost_events"] = ()
    return load_config(CONFIG_FOLDER / "closed_loop.yaml", settings)


def results(way: str, config: Config, at: list[int], fresh_users: int) -> list[dict[str, Any]]:
    """Simulate a deployment, and return what its policies of some days are worth to new users."""
    folder = Path(tempfile.mkdtemp(prefix="loop-"))
    try:
        for _ in simulate(config, folder / "run"):
            pass
        loop = Loop(folder / "run")
        days = loop.days()
        market = replace(config.market(), days=DEPLOYED_DAYS)
        fresh = FreshUsers.draw(Market(market), fresh_users)
        rows = []
        for day in at:
            run = replace(Run.open(loop.path), version=_version_after(loop, days, day))
            agent, _ = load_policy(run.policy)
            learned = run.trained_with("policy")
            policy = market_policy("agent", learned.features, agent, config.constraints, learned.pace, 0)
            value = fresh.deploy(policy)
            rows.append(
                {
                    "way": way,
                    "seed": config.seed,
                    "users": config.history.market.users,
                    "scenario": config.history.market.scenario,
                    "constrained": bool(config.constraints.names),
                    "day": day,
                    "value": value.mean,
                    "se": value.se,
                    "unsubscribed": float(value.unsubscribed.mean()),
                    "sends": float(value.sends.mean()),
                }
            )
            print(rows[-1], flush=True)
        passed = days.iloc[: max(at)]
        names = [str(name) for name in days if str(name).startswith(("value/", "unsub"))]
        rows[-1] |= {f"arm/{name}": float(passed[name].sum()) for name in names}
        return rows
    finally:
        shutil.rmtree(folder)


def _version_after(loop: Loop, days: pd.DataFrame, day: int) -> str:
    """Return the version of the policy that has learned from so many days."""
    if day < len(days):
        return str(days["policy"].iloc[day])
    run = Run.open_in_use(loop.path)
    return update(run, read_history(loop.log, loop.decided)).version


def table(rows: pd.DataFrame, command: str) -> str:
    """Return means over seeds by way and day, and the paired differences to the first way."""
    lines = [
        f"    {command}",
        "",
        "| users | constrained | way | day | seeds | value | least | unsubscribed | less than Thompson sampling (se) |",
    ]
    lines.append("|---|---|---|---|---|---|---|---|---|")
    which = ["users", "constrained", "seed", "day"]
    first = rows[rows.way == "thompson"].set_index(which)["value"]
    for (users, constrained, way, day), part in rows.groupby(["users", "constrained", "way", "day"], sort=False):
        gap = part.set_index(which)["value"]
        gap = (first.reindex(gap.index) - gap).dropna()
        se = gap.std(ddof=1) / np.sqrt(len(gap)) if len(gap) > 1 else float("nan")
        shown = "" if way == "thompson" or not len(gap) else f"{gap.mean():+.3f} ({se:.3f})"
        lines.append(
            f"| {users:,} | {'yes' if constrained else 'no'} | {way} | {day} | {len(part)} | {part.value.mean():.3f} | "
            f"{part.value.min():.3f} | {part.unsubscribed.mean():.1%} | {shown} |"
        )
    return "\n".join(lines) + "\n"


def main() -> None:
    """Simulate, print and write."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--users", type=int, default=5000)
    parser.add_argument("--days", type=int, default=28)
    parser.add_argument("--at", type=int, nargs="+", default=[7, 14, 28])
    parser.add_argument("--seeds", type=int, nargs="+", default=[0])
    parser.add_argument("--ways", nargs="+", default=["thompson"], choices=list(WAYS))
    parser.add_argument("--constrained", action="store_true")
    parser.add_argument("--fresh-users", type=int, default=3000)
    parser.add_argument("--set", nargs="*", default=[], metavar="NAME=VALUE", help="other settings, for choosing them")
    parser.add_argument("--output", type=Path, help="file without its ending")
    chosen = parser.parse_args()
    other = {name: float(value) for name, _, value in (text.partition("=") for text in chosen.set)}
    command = "python -m benchmarks.closed_loop " + " ".join(sys.argv[1:])
    found: list[dict[str, Any]] = []
    for seed in chosen.seeds:
        for way in chosen.ways:
            config = configuration(way, seed, chosen.users, chosen.days, other, constrained=chosen.constrained)
            found += results(way, config, chosen.at, chosen.fresh_users)
            if chosen.output is not None:
                add_rows(pd.DataFrame(found), chosen.output, KEYS, partial(table, command=command))
    print(table(pd.DataFrame(found), ""))


if __name__ == "__main__":
    main()
