"""Configurations, and the files of a finished run: what resumes, decides and is evaluated."""

from __future__ import annotations

import shutil
import tempfile
from functools import cache
from pathlib import Path

import numpy as np

from crosschannel.agents import load_agent
from crosschannel.histories.eligibility import last_eligible
from crosschannel.pipeline.configuration import CONFIG_FOLDER, Config, read_config
from crosschannel.pipeline.loop.deciding import decide_day
from crosschannel.pipeline.loop.decisions.day_users import DayRequest
from crosschannel.pipeline.reading import build_history
from crosschannel.pipeline.report.run_report import write_report
from crosschannel.pipeline.run_folder import Run
from crosschannel.programs import train
from tests.fuzz.target import Target
from tests.programs.samples import SMALL

_SETTINGS = (
    *("--agent.settings.members", "2", "--train.offline-updates", "1", "--history.market.users", "60"),
    *("--history.market.days", "6", "--evaluation.market-users", "2", "--reward.min-controls", "2"),
)


def _make_configurations(folder: Path) -> None:
    for path in CONFIG_FOLDER.glob("*.yaml"):
        shutil.copy(path, folder / path.name)


def _read_configuration(folder: Path, name: str) -> Config:
    return read_config(folder / name)


@cache
def _trained() -> tempfile.TemporaryDirectory[str]:
    """Return the folder of a finished run of a second or two."""
    folder = tempfile.TemporaryDirectory()
    assert train.main([*SMALL, *_SETTINGS, "--out", f"{folder.name}/run"]) == 0
    return folder


def _make_run(folder: Path) -> None:
    shutil.copytree(f"{_trained().name}/run", folder / "run")


def _evaluate(folder: Path, _: str) -> object:
    """Return what a finished run's files say of it, and write its report."""
    run = Run.open_ended(folder / "run")
    result = run.stored_result()
    if result is None:
        return None
    assert str(result)
    write_report(run, result, folder / "report.html")
    return result.metrics()


def _resume(folder: Path, _: str) -> Config:
    run = Run.open(folder / "run")
    run.resumes_from()
    load_agent(run.checkpoint)
    return run.config


def _decide(folder: Path, _: str) -> bytes:
    """Return the decisions of a policy for the users of the log that it has learned from."""
    run = Run.open(folder / "run")
    history = _market_log()
    at = history.span[1]
    table = decide_day(run, history, DayRequest(at, run.config.guardrails), last_eligible(history, at)).decisions
    assert np.isfinite(table.filter(like="propensity").to_numpy(dtype=np.float64)).all()
    return table.to_csv(index=False).encode()


@cache
def _market_log():
    return build_history(Run.read_config(Path(_trained().name) / "run"))[0]


def _run_files(*names: str) -> tuple[str, ...]:
    return tuple(f"run/{name}" for name in names)


RUNS = (
    Target(
        "configurations",
        _make_configurations,
        tuple(path.name for path in sorted(CONFIG_FOLDER.glob("*.yaml"))),
        _read_configuration,
    ),
    Target("evaluate", _make_run, _run_files("config.yaml", "policy.pt", "metrics.json", "evaluation.json"), _evaluate),
    Target("resume", _make_run, _run_files("config.yaml", "checkpoint.pt"), _resume),
    Target("decide", _make_run, _run_files("config.yaml", "policy.pt"), _decide),
)
