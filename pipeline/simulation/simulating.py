"""Simulate a deployment for weeks: every day a market's users are decided for, respond, and teach the next policy."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from contextlib import ExitStack
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import pandas as pd
from tqdm import tqdm

from crosschannel.core.errors import ConfigError, NotIdentified
from crosschannel.core.files import write_csv
from crosschannel.histories.history import History
from crosschannel.histories.readers.decided.days import day_name
from crosschannel.histories.readers.folder import read_history
from crosschannel.pipeline.command_line import logger, one_thread
from crosschannel.pipeline.configuration import Config
from crosschannel.pipeline.loop.deciding import decide_day
from crosschannel.pipeline.loop.decisions.day_users import DayRequest
from crosschannel.pipeline.loop.policies import Policies
from crosschannel.pipeline.loop.recent import DAYS_FOLDER, recent_log
from crosschannel.pipeline.loop.starting import start
from crosschannel.pipeline.loop.updating import update_by_day
from crosschannel.pipeline.loop.writing import write_day
from crosschannel.pipeline.run_files import RunLock
from crosschannel.pipeline.run_folder import Run
from crosschannel.pipeline.simulation.monitor import LoopMonitor, decided_figures, true_figures
from crosschannel.pipeline.simulation.world import World

DAYS_FILE = "days.csv"


@dataclass(frozen=True)
class Loop:
    """The folder of a simulated deployment, which is that of its run.

    Attributes:
        path: The folder.
    """

    path: Path

    @property
    def log(self) -> Path:
        """Return the folder of the app's log."""
        return self.path / "log"

    @property
    def decided(self) -> Path:
        """Return the folder of the decisions by date."""
        return self.path / "decisions"

    def days(self) -> pd.DataFrame:
        """Return the figures of the days that have passed."""
        return pd.read_csv(self.path / DAYS_FILE)


@one_thread()
def simulate(config: Config, out: Path, *, force: bool = False) -> Iterator[dict[str, Any]]:
    """Simulate a deployment, and yield the figures of each day once it has passed.

    All goes through the files and functions of a real deployment. Where the folder holds days already, they are taken
    as they are, so that a simulation that was stopped resumes to the same bits.

    Args:
        config: The configuration; its history is a market, whose days are simulated.
        out: The folder.
        force: Replace what stands in the folder, and start over.

    Raises:
        ConfigError: If the history is not simulated, or the folder is that of something else or in use.
    """
    loop = Loop(out)
    with ExitStack() as simulating:
        # The folder's lock is held until the log's is: another process finds one of the two taken at any moment.
        with ExitStack() as locks:
            if force or not Run.is_at(out):
                deployed = replace(config.history, source="folder", path=loop.log, decided=loop.decided)
                Run.create(replace(config, history=deployed), out, locks, force=force)
            else:
                locks.enter_context(RunLock(out))
            if not is_simulation(out):
                raise ConfigError(f"{out} is a run, but not that of a simulation: choose another folder (--out)")
            loop.log.mkdir(exist_ok=True)
            simulating.enter_context(RunLock(loop.log))
        yield from _days(config, loop)


def is_simulation(folder: Path) -> bool:
    """Return whether a folder is that of a simulation: a run whose log and decisions are in the folder itself."""
    if not Run.is_at(folder):
        return False
    history, loop = Run.read_config(folder).history, Loop(folder)
    if history.source != "folder" or history.path is None or history.decided is None:
        return False
    together = history.path.parent == history.decided.parent
    named = (history.path.name, history.decided.name) == (loop.log.name, loop.decided.name)
    inside = history.path.parent.name == folder.resolve().name and (
        loop.log.is_dir() or Policies(folder).current is None
    )
    return together and named and inside


def _days(config: Config, loop: Loop) -> Iterator[dict[str, Any]]:
    out = loop.path
    world = World.start(config, loop.log)
    loop.decided.mkdir(exist_ok=True)
    in_use = Policies(out).current is not None
    run = Run.open_in_use(out) if in_use else start(Run.open(out), read_history(loop.log))
    figures, monitor = list[dict[str, Any]](), LoopMonitor(run.tensorboard)
    market = world.live.market.config
    for slot in range(market.days):
        time = world.live.time
        folder = loop.decided / day_name(time, world.log.period)
        passed = world.log.folder(time).is_dir()
        if not passed:
            world.write_users()  # a process that was killed may have written those of tomorrow already
            decided = loop.decided if slot else None
            learns = bool(slot) and (config.loop.active_days is None or slot <= config.loop.active_days)
            if learns:
                run = _learn(run, loop, decided)
            if not folder.is_dir():
                history = _recent(run, loop, decided, time)
                eligible = world.eligible(history.user_ids)
                request = DayRequest(time, config.guardrails, seed=config.seed)
                day = decide_day(run, history, request, eligible)
                write_day(loop.decided, day)
        here, best = world.live.present, world.best_effect()
        result = world.step(folder)
        figures.append(
            {
                "day": slot,
                "date": folder.name,
                **decided_figures(folder),
                **true_figures(world, here, result, best),
            }
        )
        if not passed or slot == market.days - 1:
            write_csv(pd.DataFrame(figures), loop.path / DAYS_FILE)
        monitor.write(figures[-1])
        yield figures[-1]
    monitor.close()


def _recent(run: Run, loop: Loop, decided: Path | None, time: int) -> History:
    """Read what a decision needs."""
    layout = run.trained_with("policy").features.layout
    recent = recent_log(run.path / DAYS_FOLDER, loop.log, decided, layout, run.config.guardrails)
    return read_history(loop.log, decided) if recent is None else recent.read(time)


def _learn(run: Run, loop: Loop, decided: Path | None) -> Run:
    try:
        logger.debug(str(update_by_day(run, loop.log, decided)))
    except NotIdentified as error:
        logger.info(str(error))
    return Run.open_in_use(run.path, allow_classes=run.allowed_classes)


def settings_of(run: Run) -> Config:
    """Return the configuration of a simulation from that of its run."""
    return replace(run.config, history=replace(run.config.history, source="market", path=None, decided=None))


def run_simulation(config: Config, out: Path, *, force: bool = False) -> Loop:
    """Simulate a deployment with a progress bar that shows today's figures."""
    if config.history.source != "market":
        raise ConfigError("simulate needs a market to simulate: history.source is `market` in its configuration")
    # In a file every refresh stays: there is one in ten seconds at most.
    every = 0.1 if sys.stderr.isatty() else 10.0
    with tqdm(total=config.history.market.days, desc="days", unit=" days", mininterval=every) as bar:
        for day in simulate(config, out, force=force):
            bar.set_postfix({"value": f"{day['value/agent']:.3f}", "sent": f"{day['sent/agent']:.2f}"}, refresh=False)
            bar.update()
    return Loop(out)
