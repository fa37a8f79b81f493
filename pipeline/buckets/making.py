"""Write the log that a configuration names into buckets: file by file where that is exact, else as a whole."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

from crosschannel.core.errors import ConfigError
from crosschannel.histories.buckets import Buckets, open_buckets, write_buckets
from crosschannel.histories.buckets.making import make_buckets
from crosschannel.histories.buckets.opening import is_bucketed
from crosschannel.histories.buckets.partition import NotByUser
from crosschannel.histories.buckets.plans import Plan, plan_folder, plan_tables
from crosschannel.pipeline.command_line import logger
from crosschannel.pipeline.configuration import Config
from crosschannel.pipeline.reading import build_history, moved_tables


def bucket_log(config: Config, folder: Path, n: int, leaves: int) -> Buckets:
    """Write the log that a configuration names into n buckets of a folder, and return them.

    Native folders, logs by day and mapped tables are divided file by file. Where rows of a user may depend on those of
    others (slots of a grid, event streams, decisions that are joined, the simulated market), the log is read as a whole
    first, which is said.

    Raises:
        ConfigError: If n does not divide the number of leaves, settings do not fit the log, or another process writes
            the folder.
        InputError: If the log cannot be read.
        OutputError: If the folder cannot be written.
    """
    try:
        plan = _plan(config)
        make_buckets(plan, folder, n, leaves, observed_from=config.history.observed_from, log=logger.info)
    except NotByUser as reason:
        logger.info(f"reading the log as a whole: {reason}")
        write_buckets(build_history(config)[0], folder, n, leaves)
    return open_buckets(folder)


def _plan(config: Config) -> Plan:
    """Return how the configured log is divided.

    Raises:
        NotByUser: If it can only be read as a whole.
    """
    source = config.history
    if source.decided is not None:
        raise NotByUser("decisions by date join it")
    if source.source == "folder":
        if source.path is None:
            raise ConfigError("history.source 'folder' needs a folder: name it before the folder of the buckets")
        if is_bucketed(source.path):
            raise NotByUser("it is in buckets already")
        plan = plan_folder(source.path)
    elif source.source == "tables":
        plan = plan_tables(moved_tables(source))
    else:
        raise NotByUser(f"logs of the source {source.source!r} cannot be divided before they are read")
    if source.ties is not None:
        plan = replace(plan, ties=source.ties)
    return plan if source.churn_events is None else replace(plan, churn_events=source.churn_events)
