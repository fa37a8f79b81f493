"""Simulate a deployment for weeks: decide every day, learn every day, with arms that show what it is worth.

  crosschannel simulate                                    5,000 users, four weeks, from no log at all
  crosschannel simulate --config FILE --out runs/loop      into a folder of its own
  crosschannel simulate --resume runs/loop                 resume a simulation that was stopped
  crosschannel simulate --config FILE --log LOG --buckets 64     only the market's log, in buckets

The users of a market join, respond and leave. Every morning `update` learns from the app's log and
`decide` writes the day's decisions, by the same files and functions as in a real deployment; users of
the arm business_as_usual get what marketers' rules send, and the holdout gets nothing. The folder is
that of a run: `crosschannel decide`, `update` and `trial` work on it. days.csv and TensorBoard have the
figures of each day.

--log writes, instead of a deployment, the log of the configured market under business as usual, one
bucket of users after the other, so that it never needs all users in memory (docs/buckets.md). The same
command resumes it.
"""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import pandas as pd

from crosschannel.histories.arms import ARMS
from crosschannel.histories.buckets import DEFAULT_LEAVES, check_division
from crosschannel.pipeline.command_line import Parser, UsageError, program, resumable
from crosschannel.pipeline.configuration import CONFIG_FOLDER, Config
from crosschannel.pipeline.flags import parse_settings
from crosschannel.pipeline.run_folder import Run, check_run_folder
from crosschannel.pipeline.simulation.market_log import write_market_log
from crosschannel.pipeline.simulation.simulating import Loop, is_simulation, run_simulation, settings_of

#: Sections of the configuration that a simulation does not read.
WITHOUT = ("split", "evaluation")


@dataclass(frozen=True)
class LogRequest:
    """A log to write instead of a deployment.

    Attributes:
        folder: Where to write it.
        buckets: Number of buckets.
        leaves: Number of leaves.
    """

    folder: Path
    buckets: int
    leaves: int


def parse(arguments: Sequence[str] | None) -> tuple[Config, Path | LogRequest, bool]:
    """Return the configuration of a simulation, its folder or the log to write instead, and whether to replace it.

    Raises:
        ConfigError: If the configuration is wrong, or there is no such simulation.
        UsageError: If a flag is wrong, or does not go together with the others.
    """
    parser = Parser("simulate", __doc__, "[--config FILE | --resume RUN] [--SETTING VALUE ...]")
    parser.add_argument("--resume", metavar="RUN", type=Path, help="folder of the simulation to resume")
    parser.add_shared("--allow-class", "--out", "--force", out="folder of the simulation (default: run_dir/name)")
    parser.add_argument("--log", metavar="FOLDER", type=Path, help="write the market's log into buckets of this folder")
    parser.add_argument("--buckets", metavar="N", type=int, help="number of buckets of --log (required there)")
    leaves = f"number of leaves of --log (default: {DEFAULT_LEAVES})"
    parser.add_argument("--leaves", metavar="N", type=int, default=DEFAULT_LEAVES, help=leaves)
    line = parse_settings(parser, arguments, without=WITHOUT, default=CONFIG_FOLDER / "closed_loop.yaml")
    resume, out = line.options.resume, line.options.out
    if resume is not None:
        if line.overrides or out:
            raise UsageError("--resume keeps the simulation's own settings: leave out --config, --out and all settings")
        run = Run.open(resume, line.options.allow_class)
        if not is_simulation(resume):
            raise UsageError(f"{resume} is a run, but not that of a simulation: `simulate` writes those")
        return settings_of(run), resume, False
    if line.options.log is not None:
        return line.config, _log_request(line.options, line.config), False
    if line.options.buckets is not None:
        raise UsageError("--buckets divides the log that --log writes: give --log FOLDER as well")
    out = out or line.config.run_dir / line.config.name
    check_run_folder(line.config, out, line.options.force)
    return line.config, out, line.options.force


def _log_request(chosen: argparse.Namespace, config: Config) -> LogRequest:
    if chosen.out is not None:
        raise UsageError("--log writes a log and no simulation: leave out --out")
    if config.history.source != "market":
        raise UsageError(f"--log simulates a market, but history.source is {config.history.source!r}")
    if chosen.buckets is None:
        raise UsageError("--buckets is missing: give the number of buckets of --log, such as --buckets 64")
    check_division(chosen.leaves, chosen.buckets)
    return LogRequest(chosen.log, chosen.buckets, chosen.leaves)


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
    config, out, force = parse(arguments)
    if isinstance(out, LogRequest):
        counts = write_market_log(config.market(), out.folder, out.buckets, out.leaves).manifest.counts
        print(f"{out.folder}: {', '.join(f'{count:,} {table}' for table, count in counts.items())}")
        return 0
    with resumable(out, "simulate"):
        loop: Loop = run_simulation(config, out, force=force)
    print(summary(loop.days()))
    return 0


if __name__ == "__main__":
    program(main)
