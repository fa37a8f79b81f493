"""Simulate a deployment for weeks: decide every day, learn every day, with arms that show what it is worth.

  crosschannel simulate                                    5,000 users, four weeks, from no log at all
  crosschannel simulate --config FILE --out runs/loop      into a folder of its own
  crosschannel simulate --resume runs/loop                 resume a simulation that was stopped

The users of a market join, respond and leave. Every morning `update` learns from the app's log and
`decide` writes the day's decisions, by the same files and functions as in a real deployment; users of
the arm business_as_usual get what marketers' rules send, and the holdout gets nothing. The folder is
that of a run: `crosschannel decide`, `update` and `trial` work on it. days.csv and TensorBoard have the
figures of each day.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import pandas as pd

from crosschannel.histories.arms import ARMS
from crosschannel.pipeline.command_line import Parser, UsageError, program, resumable
from crosschannel.pipeline.configuration import CONFIG_FOLDER, Config
from crosschannel.pipeline.flags import parse_settings
from crosschannel.pipeline.run_folder import Run, check_run_folder
from crosschannel.pipeline.simulation.simulating import Loop, is_simulation, run_simulation, settings_of

#: Sections of the configuration that a simulation does not read.
WITHOUT = ("split", "evaluation")


def parse(arguments: Sequence[str] | None) -> tuple[Config, Path]:
    """Return the configuration of a simulation, and its folder.

    Raises:
        ConfigError: If the configuration is wrong, or there is no such simulation.
        UsageError: If a flag is wrong, or does not go together with the others.
    """
    parser = Parser("simulate", __doc__, "[--config FILE | --resume RUN] [--SETTING VALUE ...]")
    parser.add_argument("--resume", metavar="RUN", type=Path, help="folder of the simulation to resume")
    parser.add_shared("--allow-class", "--out", "--force", out="folder of the simulation (default: run_dir/name)")
    line = parse_settings(parser, arguments, without=WITHOUT, default=CONFIG_FOLDER / "closed_loop.yaml")
    resume, out = line.options.resume, line.options.out
    if resume is not None:
        if line.overrides or out:
            raise UsageError("--resume keeps the simulation's own settings: leave out --config, --out and all settings")
        run = Run.open(resume, line.options.allow_class)
        if not is_simulation(resume):
            raise UsageError(f"{resume} is a run, but not that of a simulation: `simulate` writes those")
        return settings_of(run), resume
    out = out or line.config.run_dir / line.config.name
    check_run_folder(line.config, out, line.options.force)
    return line.config, out


def summary(days: pd.DataFrame) -> str:
    """Return what each arm was worth, in truth, over the days of a simulation."""
    lines = [f"{len(days)} days, in truth, by user who was there:"]
    lines.append(f"  {'arm':<20}{'users':>8}{'value':>10}{'messages':>10}{'unsubscribed':>14}")
    for arm in ARMS:
        users = days[f"users/{arm}"]
        if not users.max():
            continue
        value, sent, gone = (days[f"{name}/{arm}"].sum() for name in ("value", "sent", "unsubscribed"))
        lines.append(f"  {arm:<20}{int(users.max()):>8,}{value:>10.3f}{sent:>10.2f}{gone:>14.2%}")
    return "\n".join(lines)


def main(arguments: Sequence[str] | None = None) -> int:
    """Simulate, and print what each arm was worth; return the exit code."""
    config, out = parse(arguments)
    with resumable(out, "simulate"):
        loop: Loop = run_simulation(config, out)
    print(summary(loop.days()))
    return 0


if __name__ == "__main__":
    program(main)
