"""Divide a log into buckets of users, so that no computation needs all users in memory.

  crosschannel bucket LOG BUCKETS --buckets 64                  a native folder, or a log by day
  crosschannel bucket --config FILE BUCKETS --buckets 64        the log that a configuration names
  crosschannel bucket --config FILE LOG BUCKETS --buckets 64    its files in another folder

A user belongs to a bucket by the id alone: the first three hexadecimal digits of the MD5 of its text,
modulo the number of leaves (--leaves), modulo the number of buckets, which divides that of the leaves.
Native folders, logs by day and mapped tables are divided file by file. Where the rows of a user may
depend on those of others (slots of a grid, event streams), the log is read as a whole, which is said.

Run the same command again when the log has new files, such as those of another day: only these are
divided. A run that was killed is resumed where it stopped. Every program reads the result as
`--history.source folder --history.path BUCKETS`; docs/buckets.md has recipes for warehouses.
"""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

from crosschannel.histories.buckets import DEFAULT_LEAVES, check_division
from crosschannel.pipeline.buckets.making import bucket_log
from crosschannel.pipeline.command_line import Parser, UsageError, program
from crosschannel.pipeline.configuration import Config, HistoryConfig
from crosschannel.pipeline.flags import parse_settings


def parse(arguments: Sequence[str] | None) -> tuple[argparse.Namespace, Config]:
    """Return what the command line asks for, and the configuration of the log.

    Raises:
        ConfigError: If the configuration is wrong.
        UsageError: If a flag or its value is wrong.
    """
    parser = Parser("bucket", __doc__, "[--config FILE] [SOURCE] DEST --buckets N [--SETTING VALUE ...]")
    parser.add_argument("folders", nargs="+", type=Path, metavar="FOLDER", help="the log, and where to write")
    parser.add_argument("--buckets", type=int, metavar="N", help="number of buckets (required)")
    leaves = f"number of leaves, a power of two (default: {DEFAULT_LEAVES})"
    parser.add_argument("--leaves", type=int, default=DEFAULT_LEAVES, metavar="N", help=leaves)
    line = parse_settings(parser, arguments, sections=("history",))
    chosen, config = line.options, line.config
    if len(chosen.folders) > 2:
        raise UsageError(f"{chosen.folders[2]} is one folder too many: give the log, and where to write")
    if chosen.buckets is None:
        raise UsageError("--buckets is missing: give the number of buckets, such as --buckets 64")
    check_division(chosen.leaves, chosen.buckets)
    if len(chosen.folders) == 2:
        config = replace(config, history=_at(config.history, chosen.folders[0], mapped="--config" in line.overrides))
    elif "--config" not in line.overrides and not any(flag.startswith("--history") for flag in line.overrides):
        raise UsageError("the log is missing: name its folder before that of the buckets, or give --config FILE")
    dest = chosen.folders[-1]
    if config.history.path is not None and dest.resolve() == config.history.path.resolve():
        raise UsageError(f"{dest} is the log itself: name another folder for the buckets")
    return chosen, config


def _at(history: HistoryConfig, path: Path, *, mapped: bool) -> HistoryConfig:
    """Return the settings of a log in another folder: in the layout of a configuration, or a native one."""
    return history.with_path(path) if mapped else replace(history, source="folder", path=path)


def main(arguments: Sequence[str] | None = None) -> int:
    """Divide the log, and print what the buckets hold; return the exit code."""
    chosen, config = parse(arguments)
    dest = chosen.folders[-1]
    buckets = bucket_log(config, dest, chosen.buckets, chosen.leaves)
    counts = buckets.manifest.counts
    rows = ", ".join(f"{count:,} {table}" for table, count in counts.items())
    print(f"{dest}: {rows} in {len(buckets.paths):,} of {buckets.n:,} buckets, {buckets.leaves:,} leaves")
    for note in buckets.manifest.notes:
        print(note)
    print(f"read it with: --history.source folder --history.path {dest}")
    return 0


if __name__ == "__main__":
    program(main)
