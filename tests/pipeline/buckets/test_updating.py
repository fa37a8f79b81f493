"""Learning day by day from buckets has the bytes of learning from the same log in memory."""

from __future__ import annotations

import shutil
from contextlib import chdir
from dataclasses import replace
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from crosschannel.core.times import DAY
from crosschannel.engines import make_engine
from crosschannel.histories.buckets import write_buckets
from crosschannel.histories.history import History
from crosschannel.histories.logs import take_rows
from crosschannel.histories.observation.slicing import until
from crosschannel.histories.readers.folder import read_history, write_history
from crosschannel.pipeline.buckets.passes import Passes
from crosschannel.pipeline.buckets.updating import update_over_buckets
from crosschannel.pipeline.configuration import Config, load_config, override, read_config
from crosschannel.pipeline.loop.parts import log as parts
from crosschannel.pipeline.loop.updating import Updated, update
from crosschannel.pipeline.run_folder import Run
from crosschannel.pipeline.simulation.simulating import Loop, simulate
from crosschannel.programs import bucket as bucket_program
from crosschannel.programs import update as update_program
from tests import ROOT
from tests.pipeline.buckets.samples import configuration, contents, market_log
from tests.pipeline.loop.updates import days, started
from tests.programs.samples import SMALL

#: All is fitted again after days 1, 2 and 4; the others are added.
SETTINGS: dict[str, Any] = {
    "update.growth": 1.0,
    "reward.min_controls": 5,
    "reward.matching.strata": 2,
}
#: Agents that are fitted again every day: one with a funnel, and two on rewards without components.
REFITTED: dict[str, Config] = {
    "linear_thompson": configuration(
        **SETTINGS, **{"agent.name": "linear_thompson", "agent.settings": {}, "constraints.cost_events": ()}
    ),
    **{
        agent: override(
            read_config(Path(SMALL[1])),
            {"history.source": "folder", "history.path": "log", "agent.name": agent, "agent.settings": {}, **SETTINGS},
        )
        for agent in ("ensemble_thompson", "best_fixed")
    },
}


@cache
def log() -> History:
    """A log of six days, of 160 users."""
    return market_log(**{"history.market.users": 160, "history.market.days": 6})


def learned(
    folder: Path, *, n: int, engine: str = "local", history: History | None = None, config: Config | None = None
) -> Updated:
    """Update a run in a folder from a log of so many buckets, or from one that is not in buckets (0)."""
    whole, new = log() if history is None else history, not (folder / "run").exists()
    folder.mkdir(exist_ok=True)
    shutil.rmtree(folder / "log", ignore_errors=True)
    if n:
        write_buckets(whole, folder / "log", n)
    else:
        write_history(whole, folder / "log")
    with chdir(folder):
        if new:
            started(config or configuration(**SETTINGS), Path("run"), log())
        run = Run.open_in_use(Path("run"))
        if not n:
            return update(run, read_history(Path("log")))
        return update_over_buckets(run, Passes(make_engine(engine), shows=False))


def files(folder: Path) -> dict[str, bytes]:
    """What an update leaves: policies, and the states from which the next one begins."""
    return {name: data for name, data in contents(folder / "run").items() if name.endswith(".pt")}


@pytest.mark.parametrize(
    ("n", "engine"),
    [
        (4, "local"),
        *(pytest.param(n, name, marks=pytest.mark.slow) for n, name in ((1, "local"), (64, "local"), (4, "processes"))),
    ],
)
def test_policies_and_states_have_the_bytes_of_one_folder(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, n: int, engine: str
) -> None:
    """Contexts and strata are fitted to a sample of the users, which is smaller than the log, on both.

    In memory are a bucket at a time, and the sample.
    """
    opened, read = list[int](), parts.read_columns
    monkeypatch.setattr(parts, "SAMPLE_USERS", 50)
    monkeypatch.setattr(parts, "read_columns", lambda folder: _counted(read(folder), opened))
    whole = learned(tmp_path / "whole", n=0)
    assert not opened
    found = learned(tmp_path / "buckets", n=n, engine=engine)
    assert found == whole
    assert max(opened) < log().n_users / 3 or n == 1
    assert whole.added
    assert files(tmp_path / "buckets") == files(tmp_path / "whole")
    assert not list((tmp_path / "buckets" / "run").glob(".scratch*"))


@pytest.mark.slow
@pytest.mark.parametrize("agent", REFITTED)
def test_agents_that_are_fitted_every_day_have_them_too(tmp_path: Path, agent: str) -> None:
    config = REFITTED[agent]
    assert learned(tmp_path / "buckets", n=4, config=config) == learned(tmp_path / "whole", n=0, config=config)
    assert files(tmp_path / "buckets") == files(tmp_path / "whole")


@pytest.mark.slow
def test_day_by_day_and_at_once_are_equal_to_the_byte(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """With a sample of users that does not depend on those who join later."""
    monkeypatch.setattr(parts, "SAMPLE_USERS", 100)
    h, joined = log(), np.random.default_rng(0).random(log().n_users) < 0.4
    joins = np.where(joined, h.decisions.time.min() + 2 * DAY, h.observed_from)
    decisions = take_rows(h.decisions, h.decisions.time >= joins[h.decisions.user])
    history = replace(h, decisions=decisions, observed_from=joins)
    for time in days(history)[1:]:
        last = learned(tmp_path / "daily", n=4, history=until(history, time))
    once = learned(tmp_path / "once", n=4, history=until(history, days(history)[-1]))
    assert last.version == once.version


def _counted(history: History, opened: list[int]) -> History:
    opened.append(history.n_users)
    return history


@pytest.mark.slow
def test_a_deployment_is_learned_from_day_by_day_in_buckets(tmp_path: Path) -> None:
    """Arms, decisions by date, users and actions that come and go: each day the log is divided again."""
    pytest.importorskip("duckdb", reason="DuckDB is not installed")
    with chdir(tmp_path):
        for _ in simulate(load_config(ROOT / "tests/programs/closed_loop.yaml", {}), Path("run")):
            pass
        loop = Loop(Path("run"))
        assert bucket_program.main([str(loop.log), "buckets", "--buckets", "4"]) == 0
        versions = []
        for path in (Path("buckets"), loop.log):
            shutil.rmtree("run/learning", ignore_errors=True)
            shutil.rmtree("elsewhere", ignore_errors=True)
            shutil.copytree(path, "elsewhere")
            assert (
                update_program.main(["run", "--history.path", "elsewhere", "--history.decided", str(loop.decided)]) == 0
            )
            versions.append(Run.open_in_use(Path("run")).version)
    assert versions[0] == versions[1]


def test_the_program_takes_an_engine_and_says_when_it_reads_all(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], caplog: pytest.LogCaptureFixture
) -> None:
    with chdir(tmp_path):
        write_buckets(log(), Path("log"), 2)
        started(override(REFITTED["best_fixed"], {"reward.kind": "raw"}), Path("run"), log())
        assert update_program.main(["run", "--history.path", "log", "--engine", "local"]) == 0
    assert "learned from" in capsys.readouterr().out
    assert "read as a whole, into memory: rewards of the kind 'raw'" in caplog.text
