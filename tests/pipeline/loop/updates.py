"""Small logs and runs that learn day by day."""

from __future__ import annotations

from contextlib import ExitStack
from functools import cache
from pathlib import Path
from typing import Any

from crosschannel.core.times import DAY
from crosschannel.envs.market import Market, simulate_history
from crosschannel.histories.history import History
from crosschannel.histories.observation.slicing import until
from crosschannel.pipeline.configuration import Config, load_config
from crosschannel.pipeline.loop.starting import start
from crosschannel.pipeline.run_folder import Run

SETTINGS: dict[str, Any] = {
    "history.market.users": 500,
    "history.market.days": 9,
    "history.market.warmup_days": 4,
    "context.windows": ("2d",),
    "context.events": ("visit:*", "order:*"),
    "constraints.cost_events": (),
    "agent.settings.members": 4,
}


def config(**settings: Any) -> Config:
    """Return the configuration of a small market, with other settings by dotted name."""
    return load_config("market", {**SETTINGS, **settings})


@cache
def log() -> History:
    """A log under business as usual."""
    return simulate_history(Market(config().market()))[0]


def days(history: History) -> list[int]:
    """The times at which the days of a log are over, from its first decision on."""
    return list(range(int(history.decisions.time.min()) + DAY, history.span[1] + 1, DAY))


def started(settings: Config, path: Path, history: History) -> Run:
    """A run without a log yet."""
    with ExitStack() as locks:
        run = Run.create(settings, path, locks)
    return start(run, until(history, int(history.decisions.time.min())))
