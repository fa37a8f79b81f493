"""Small logs of the market in buckets, and trainings on them that are cut short."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

from crosschannel.envs.market import Market, simulate_history
from crosschannel.histories.buckets import write_buckets
from crosschannel.histories.history import History
from crosschannel.pipeline.configuration import Config, override, read_config
from tests.programs.samples import FUNNEL

SETTINGS = {"reward.funnel.surrogates": {"order:*": ["visit:food", "visit:rides"]}}


def market_log(**settings: Any) -> History:
    """The log of the market of `funnel.yaml`, with some other settings."""
    history, _ = simulate_history(Market(override(read_config(Path(FUNNEL[1])), settings).market()))
    return history


def configuration(**settings: Any) -> Config:
    """The configuration of `funnel.yaml` without trajectories, on the folder `log` of the working directory."""
    source = {"history.source": "folder", "history.path": "log", "evaluation.trajectories.slots": None, **SETTINGS}
    return override(read_config(Path(FUNNEL[1])), source | settings)


def write_log(history: History, folder: Path, n: int) -> Path:
    """Write a log in buckets to `log` below a folder; return the folder."""
    write_buckets(history, folder / "log", n)
    return folder


def contents(folder: Path) -> dict[str, bytes]:
    """The files below a folder, by their names."""
    return {str(path.relative_to(folder)): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


class Stops(Exception):
    """What cuts a training short, where a process would be killed."""


class Interrupted:
    """An engine that stops after a number of calls."""

    def __init__(self, calls: int) -> None:
        self.left = calls

    def __call__(self, function: Callable[[Any], Any], items: Sequence[Any]) -> Iterator[Any]:
        for item in items:
            if self.left == 0:
                raise Stops
            self.left -= 1
            yield function(item)
