"""A week in daily use, from no log at all: the programs of the daily job, with a simulated app around them.

    python examples/daily_loop/week.py --folder week

Prints each command before it runs it. The app is a market of 600 users: it writes its log of the day, sends what was
decided, and lets users respond. In a deployment the app is yours, and the commands are the same (docs/operations.md).
"""

from __future__ import annotations

import shlex
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import tyro

from crosschannel.__main__ import main as crosschannel
from crosschannel.core.times import timestamps
from crosschannel.pipeline.configuration import CONFIG_FOLDER, Config, load_config
from crosschannel.pipeline.simulation.world import World


@dataclass(frozen=True)
class Week:
    """What the week is like.

    Attributes:
        folder: Where the log, the decisions and the run are written; it must not hold those of another week.
        users: Number of users.
        days: Number of days.
        seed: Seed of the market and of the policy.
    """

    folder: Path
    users: int = 600
    days: int = 7
    seed: int = 0


def run(*arguments: object) -> None:
    """Print a command, and run it as the command line does."""
    words = list(map(str, arguments))
    print(f"\n$ crosschannel {shlex.join(words)}", flush=True)
    crosschannel(words)


def configuration(week: Week) -> Config:
    """Return the configuration of the app's market, which is that of the run but for its history."""
    settings = {"users": week.users, "days": week.days, "seed": week.seed}
    return load_config(
        CONFIG_FOLDER / "closed_loop.yaml", {f"history.market.{name}": value for name, value in settings.items()}
    )


def main(week: Week) -> None:
    """Start a run, then update and decide for each day, and read the trial at the end."""
    log, decided, policy = week.folder / "log", week.folder / "decisions", week.folder / "run"
    reachable = week.folder / "eligible.parquet"
    app = World.start(configuration(week), log)
    description = ["--config", CONFIG_FOLDER / "closed_loop.yaml", "--history.source", "folder"]
    run("start", *description, "--history.path", log, "--seed", week.seed, "--out", policy)
    for day in range(week.days):
        now = f"{timestamps(np.array([app.live.time]))[0]:%Y-%m-%dT%H:%M}"
        if day:
            run("update", policy, "--history.path", log, "--history.decided", decided)
        app.eligible_frame().to_parquet(reachable, index=False)  # what reaches whom now, as only the app knows
        run("decide", policy, "--history.path", log, "--at", now, "--eligible", reachable, "--out", decided)
        app.step(decided / now[:10])
    both = ("--history.path", log, "--history.decided", decided)
    run("trial", *description, *both, "--trial.days", week.days, "--out", week.folder / "trial")


if __name__ == "__main__":
    main(tyro.cli(Week, description=__doc__))
