"""What a killed process has kept of a log in buckets is found; what another process works with is left alone."""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest

from crosschannel import pipeline
from crosschannel.core.errors import ConfigError
from crosschannel.pipeline.buckets import reading, sampling, training
from crosschannel.pipeline.buckets.passes import Passes
from crosschannel.pipeline.buckets.reading import BucketedLog
from crosschannel.pipeline.configuration import Config
from crosschannel.pipeline.run_files import RunLock, remove_left_scratch, scratch_folder, write_json
from crosschannel.pipeline.run_folder import Run
from crosschannel.programs import evaluate, forget
from tests import ROOT
from tests.pipeline.buckets.samples import configuration, contents, market_log, write_log

HISTORY = market_log()

#: Replaces a run, and is killed after some buckets.
KILLED = """
import os, signal, sys
from pathlib import Path
from crosschannel.pipeline.buckets import training
from crosschannel.pipeline.buckets.passes import Passes
from tests.pipeline.buckets.samples import configuration

def engine(function, items, left=[int(sys.argv[1])]):
    for item in items:
        if left[0] == 0:
            os.kill(os.getpid(), signal.SIGKILL)
        left[0] -= 1
        yield function(item)

training.train_on_buckets(configuration(seed=2), Path("run"), force=True, passes=Passes(engine, shows=False))
"""


def train(out: str, **settings: Any) -> None:
    training.train_on_buckets(configuration(**settings), Path(out), force=True, passes=Passes(shows=False))


def unjudged(run: Run, *_: object) -> None:
    write_json({"policy": run._policy_digest()}, run.metrics)


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with two runs on a log in 4 buckets, and one that another seed gives."""
    folder = write_log(HISTORY, tmp_path_factory.mktemp("trained"), 4)
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)
        patch.setattr(training, "_judge", unjudged)
        for name, seed in {"run": 0, "other": 3, "wanted": 2}.items():
            train(name, seed=seed)
    return folder


@pytest.fixture
def folder(trained: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    shutil.copytree(trained, tmp_path / "here")
    monkeypatch.chdir(tmp_path / "here")
    monkeypatch.setattr(training, "_judge", unjudged)
    return tmp_path / "here"


def kill_after(calls: int) -> None:
    line = [sys.executable, "-c", KILLED, str(calls)]
    done = subprocess.run(line, env={**os.environ, "OMP_NUM_THREADS": "1", "PYTHONPATH": str(ROOT)}, check=False)
    assert done.returncode == -signal.SIGKILL


@pytest.mark.skipif(sys.platform == "win32", reason="SIGKILL is POSIX")
@pytest.mark.parametrize("calls", [2, *(pytest.param(calls, marks=pytest.mark.slow) for calls in (10, 14))])
def test_what_a_killed_training_kept_is_forgotten_and_cleared(folder: Path, calls: int) -> None:
    """Killed while it reads buckets, makes rewards, and writes rows: the run that it replaces stays as it is."""
    before = contents(Path("run"))
    kill_after(calls)
    (left,) = Path("run").glob(".scratch-*.part")
    assert any(left.rglob("*.npy"))
    found = contents(Path("run"))
    assert {name: found[name] for name in before} == before
    assert [item.name for item in folder.iterdir() if item.name.startswith(".")] == []

    shutil.copytree(left, kept := folder.with_name("kept"))
    pd.DataFrame({"user_id": HISTORY.user_ids[np.arange(60)]}).to_csv("users.csv", index=False)
    line = ["run", "--users", "users.csv"]
    assert forget.main([*line, "--check"]) == 1
    assert forget.main(line) == 0
    assert not list(Path("run").glob(".scratch*"))

    shutil.copytree(kept, left)
    train("run", seed=2)
    assert not list(Path("run").glob(".scratch*"))
    assert Path("run", "policy.pt").read_bytes() == Path("wanted", "policy.pt").read_bytes()


def test_what_is_in_use_is_neither_forgotten_nor_replaced(folder: Path) -> None:
    Path("users.csv").write_text("user_id\nnobody\n")
    with scratch_folder(Path("run")) as scratch:
        (scratch / "columns").mkdir()
        before = contents(Path("run"))
        for remove in (lambda: forget.main(["run", "--users", "users.csv"]), lambda: train("run", seed=2)):
            with pytest.raises(
                ConfigError, match=r"scratch-\w+\.part is in use by process \d+: wait until it has ended"
            ):
                remove()
            assert {name: contents(Path("run")).get(name) for name in before} == before
            assert [item.name for item in Path("run").glob(".scratch*")] == [scratch.name]
    assert not list(Path("run").glob(".scratch*"))


def test_what_is_left_is_told_from_what_is_in_use(tmp_path: Path) -> None:
    (tmp_path / ".scratch-old.part" / "columns").mkdir(parents=True)
    (tmp_path / "scratch").mkdir()
    with scratch_folder(tmp_path) as scratch:
        remove_left_scratch(tmp_path)
        assert {item.name for item in tmp_path.iterdir()} == {"scratch", scratch.name}
        with pytest.raises(ConfigError, match="is in use"):
            RunLock(scratch)


@pytest.mark.slow
def test_two_comparisons_at_once_are_both_right(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Without `--out` each has a folder of its own in the first run, which is locked while it lasts."""
    line = ["one", "--compare", "other"]
    Path("run").rename("one")
    before = contents(folder)
    assert evaluate.main([*line, "--out", "alone"]) == 0
    wanted = json.loads(Path("alone", "comparison.json").read_text())
    shutil.rmtree("alone")
    found, seen = [], set[Path]()
    compared = pipeline.compare_runs

    def kept(*arguments: Any, **options: Any) -> Any:
        found.append(compared(*arguments, **options))
        return found[-1]

    def read_log(config: Config, scratch: Path, passes: Passes, **how: Any) -> BucketedLog:
        """Read it, while another comparison of the same runs begins and ends."""
        seen.add(scratch)
        if len(seen) == 1:
            assert evaluate.main(line) == 0
        assert scratch.parent == Path("one")
        with pytest.raises(ConfigError, match="is in use"):
            RunLock(scratch)
        return reading.read_log(config, scratch, passes, **how)

    monkeypatch.setattr(pipeline, "compare_runs", kept)
    monkeypatch.setattr(sampling, "read_log", read_log)
    assert evaluate.main(line) == 0
    assert len(seen) == 4  # two comparisons, each of two runs
    assert len(found) == 2
    for each in found:
        assert {name: pipeline.comparison_to_dict(each)[name] for name in ("difference", "ess", "users")} == {
            name: wanted[name] for name in ("difference", "ess", "users")
        }
    assert contents(folder) == before
