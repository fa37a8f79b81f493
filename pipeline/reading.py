"""Read a log from the source that a configuration names, or simulate it."""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path

from crosschannel.core.errors import ConfigError
from crosschannel.core.wording import counted
from crosschannel.envs.market import Market, MarketTruth, simulate_history
from crosschannel.histories.history import History
from crosschannel.histories.readers.datasets import read_dataset
from crosschannel.histories.readers.decided.days import decisions_by_date, with_arms
from crosschannel.histories.readers.folder import read_history
from crosschannel.histories.readers.sources import TableSource
from crosschannel.histories.readers.stream.mapping import StreamMapping
from crosschannel.histories.readers.stream.reader import read_stream
from crosschannel.histories.readers.tables import TableMapping, read_tables
from crosschannel.pipeline.command_line import logger
from crosschannel.pipeline.configuration import Config, HistoryConfig


def build_history(config: Config) -> tuple[History, MarketTruth | None]:
    """Read or simulate the history, with the configured churn events, ties and observation."""
    history, truth = _read_or_simulate(config)
    declared = config.history
    history = with_declared(history, declared)
    if declared.decided is not None and declared.source != "folder":  # whose reader has done so
        history = with_arms(history, declared.decided)
    return history, truth


def with_declared(history: History, declared: HistoryConfig) -> History:
    """Return a history with the churn events, the order of ties and the observation that a configuration declares."""
    history = history.with_churn_events(declared.churn_events).with_ties(declared.ties)
    return history.with_observed_from(declared.observed_from)


def load_history(source: Config | str | Path) -> History:
    """Read the history that a configuration names, or simulate it.

    Args:
        source: A configuration, or a folder in the native layout.

    Raises:
        ConfigError: If the source needs a folder and none is given.
        InputError: If the history cannot be read; the message has every fault with its file, row, column and value.
    """
    return build_history(source)[0] if isinstance(source, Config) else read_history(Path(source))


def _read_or_simulate(config: Config) -> tuple[History, MarketTruth | None]:
    """Read or simulate the history.

    Raises:
        ConfigError: If the source needs a folder and none is given.
        InputError: If the history cannot be read.
    """
    source: HistoryConfig = config.history
    if source.source == "market":
        logger.info(f"simulating {counted(source.market.users, 'user')} of the market")
        return simulate_history(Market(config.market()))
    if source.source == "tables":
        return read_tables(moved_tables(source)), None
    if source.source == "stream":
        return read_stream(_moved_stream(source)), None
    if source.source != "folder":
        return read_dataset(source.source, source.path), None
    if source.path is None:
        raise ConfigError("history.source 'folder' needs a folder: add --history.path FOLDER")
    return read_history(source.path, source.decided), None


def moved_tables(source: HistoryConfig) -> TableMapping:
    """Return the mapping of tables with the configured path and decisions in place of its own."""
    assert source.tables is not None  # the configuration requires it
    tables = source.tables
    own = None if source.decided else tables.decided
    move = _mover([*tables.decision_sources, *tables.events, tables.users, own], source.path)
    return replace(
        tables,
        decisions=tuple(move(decisions) for decisions in tables.decision_sources),
        events=tuple(move(events) for events in tables.events),
        users=None if tables.users is None else move(tables.users),
        decided=_decided(source, own, move),
    )


def _moved_stream(source: HistoryConfig) -> StreamMapping:
    """Return the mapping of an event stream with the configured path and decisions in place of its own."""
    assert source.stream is not None  # the configuration requires it
    stream = source.stream
    own = None if source.decided else stream.decided
    move = _mover([*stream.sources, stream.users, own], source.path)
    return replace(
        stream,
        rows=tuple(move(rows) for rows in stream.sources),
        users=None if stream.users is None else move(stream.users),
        decided=_decided(source, own, move),
    )


def _decided(
    source: HistoryConfig, own: TableSource | None, move: Callable[[TableSource], TableSource]
) -> TableSource | None:
    """Return where the decisions of a policy are: in the configured folder by date, or where the mapping has them."""
    if source.decided is not None:
        return decisions_by_date(source.decided)
    return None if own is None else move(own)


def _mover(sources: Sequence[TableSource | None], path: Path | None) -> Callable[[TableSource], TableSource]:
    """Return a function that replaces the folder of a mapping's files by `path`, below which they keep their order.

    A path may also take the place of a mapping's only file, or of its only folder of files.

    Raises:
        ConfigError: If the path is a file, but the mapping has several.
    """
    if path is None:
        return lambda source: source
    files = [source.path.absolute() for source in sources if source is not None]
    base = Path(os.path.commonpath([file.parent for file in files]))
    if len(files) == 1 and (not path.is_dir() or not files[0].suffix):
        base = files[0]
    elif path.is_file():
        names = ", ".join(str(file.relative_to(base)) for file in files)
        raise ConfigError(
            f"history.path {path} is one file, but the mapping has {names}: name the folder that holds them"
        )
    return lambda source: replace(source, path=path / source.path.absolute().relative_to(base))
