"""Where a program writes is checked before it works; how it ends, with a full disk or a signal, is one clear line."""

from __future__ import annotations

import os
import resource
import signal
import subprocess
import sys
import time
from pathlib import Path

import pandas as pd
import pytest

from crosschannel.core import CrosschannelError
from crosschannel.pipeline import UsageError
from crosschannel.programs import decide, effects, evaluate, train
from tests import ROOT
from tests.programs.samples import SMALL

TINY = (*SMALL, "--agent.name=best_fixed", "--train.offline-updates=0")
QUICK = (*SMALL[:1], SMALL[1], "--history.market.users=60", "--history.market.days=4")


def start(*arguments: object, cwd: Path, limit: int | None = None) -> subprocess.Popen[str]:
    """Starts a program; with a limit, files of more bytes cannot be written, as on a full disk."""
    return subprocess.Popen(
        [sys.executable, *map(str, arguments)],
        cwd=cwd,
        env={**os.environ, "OMP_NUM_THREADS": "1", "OPENBLAS_NUM_THREADS": "1", "PYTHONPATH": str(ROOT)},
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        preexec_fn=None if limit is None else lambda: resource.setrlimit(resource.RLIMIT_FSIZE, (limit, limit)),
    )


@pytest.fixture
def places(tmp_path, monkeypatch) -> Path:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "file").write_text("x")
    (tmp_path / "folder.csv").mkdir()
    (tmp_path / "folder").mkdir()
    (tmp_path / "folder" / "notes.txt").touch()
    (tmp_path / "loop.csv").symlink_to(tmp_path / "loop.csv")
    os.mkfifo(tmp_path / "pipe.csv")
    return tmp_path


BAD_FILES = ["folder.csv", "file/x.csv", "file/a/x.csv", "/proc/x.csv", "loop.csv", "pipe.csv", "n" * 250 + ".csv"]


@pytest.mark.parametrize("out", BAD_FILES)
def test_a_file_that_cannot_be_written_is_refused_before_the_work(out, places, small_run, monkeypatch):
    monkeypatch.setattr(decide, "build_history", lambda config: pytest.fail("the log was read"))
    monkeypatch.setattr(effects, "build_history", lambda config: pytest.fail("the log was simulated"))
    with pytest.raises(UsageError, match=r"cannot be written|exists already"):
        decide.main([str(small_run[0]), "--out", out])
    with pytest.raises(UsageError, match="cannot be written"):
        decide.main([str(small_run[0]), "--out", out, "--force"])
    with pytest.raises(UsageError, match="cannot be written"):
        effects.main(["--out", out, "--force"])
    assert {path.name for path in places.iterdir()} == {"file", "folder.csv", "folder", "loop.csv", "pipe.csv"}


@pytest.mark.parametrize("out", ["file", "file/run", "/proc/run", "n" * 255, "folder", "..", ".hidden", "/", "a/.."])
def test_a_run_that_cannot_be_written_is_refused_before_the_work(out, places, monkeypatch):
    monkeypatch.setattr("crosschannel.pipeline.prepare", lambda *_: pytest.fail("the log was simulated"))
    for flags in (("--out", out), ("--out", out, "--force")):
        with pytest.raises(CrosschannelError):
            train.main([*TINY, *flags])
    assert {path.name for path in places.iterdir()} == {"file", "folder.csv", "folder", "loop.csv", "pipe.csv"}


@pytest.mark.parametrize("folder", ["file", "file/runs", "/proc/runs"])
def test_a_folder_of_runs_that_cannot_be_written_is_refused_before_the_work(folder, places, monkeypatch):
    monkeypatch.setattr("crosschannel.pipeline.prepare", lambda *_: pytest.fail("the log was simulated"))
    with pytest.raises(UsageError, match="no run can be written to"):
        train.main([*TINY, "--run-dir", folder])


@pytest.mark.parametrize("folder", ["file", "file/report", "/proc/report"])
def test_an_evaluation_that_cannot_be_written_is_refused_before_the_work(folder, places, small_run, monkeypatch):
    monkeypatch.setattr("crosschannel.pipeline.prepare", lambda *_: pytest.fail("the log was simulated"))
    with pytest.raises(UsageError, match="cannot be written"):
        evaluate.main([str(small_run[0]), "--out", folder])


@pytest.mark.skipif(os.geteuid() == 0, reason="the superuser may write anywhere")
def test_a_folder_without_the_right_to_write_is_refused(places, small_run):
    (places / "folder").chmod(0o555)
    with pytest.raises(UsageError, match="Permission denied"):
        decide.main([str(small_run[0]), "--out", "folder/x.csv"])


def test_an_output_through_a_link_goes_to_what_it_leads_to(places, small_run):
    (places / "latest.csv").symlink_to(places / "new" / "today.csv")
    decide.main([str(small_run[0]), "--out", "latest.csv"])
    assert (places / "latest.csv").is_symlink()
    assert len(pd.read_csv(places / "new" / "today.csv")) == 400
    with pytest.raises(UsageError, match=r"today\.csv exists already"):
        decide.main([str(small_run[0]), "--out", "latest.csv"])


def test_a_full_disk_is_one_line_that_names_the_file(small_run, tmp_path):
    for out in ("x.csv", "x.parquet"):
        process = start(ROOT / "decide.py", small_run[0], "--out", out, cwd=tmp_path, limit=10_000)
        shown = process.communicate()[1]
        assert process.returncode == 1
        assert shown.splitlines()[-1].startswith(f"error: {out} cannot be written: ")
        assert "Traceback" not in shown
        assert not list(tmp_path.iterdir())


@pytest.mark.parametrize(
    "limit", [3_000, *(pytest.param(limit, marks=pytest.mark.slow) for limit in (300_000, 1_000_000))]
)
def test_a_disk_that_fills_while_training_names_the_command_that_resumes(limit, small_run, tmp_path):
    """The limits stop the test of the folder, TensorBoard's pictures or the policy, and the checkpoint."""
    process = start(ROOT / "train.py", *SMALL, cwd=tmp_path, limit=limit)
    shown = process.communicate()[1]
    assert process.returncode in (1, 2), shown
    assert "Traceback" not in shown
    last = shown.splitlines()[-1]
    assert "File too large" in last
    if limit > 4096:
        assert f"python {ROOT / 'train.py'} --resume runs/market" in last
        process = start(ROOT / "train.py", "--resume", "runs/market", cwd=tmp_path)
        assert process.wait() == 0
        for name in ("policy.pt", "checkpoint.pt", "metrics.json"):
            assert (tmp_path / "runs" / "market" / name).read_bytes() == (small_run[0] / name).read_bytes()


def wait_for(path: Path) -> None:
    deadline = time.monotonic() + 120
    while not path.is_file() and time.monotonic() < deadline:
        time.sleep(0.01)
    assert path.is_file()


@pytest.mark.parametrize(
    ("number", "word", "code"), [(signal.SIGTERM, "terminated", 143), (signal.SIGINT, "interrupted", 130)]
)
def test_a_signal_keeps_the_checkpoint_and_names_the_command_that_resumes(number, word, code, tmp_path):
    process = start(ROOT / "train.py", *SMALL, "--train.offline-updates=100000", cwd=tmp_path)
    wait_for(tmp_path / "runs" / "market" / "checkpoint.pt")
    process.send_signal(number)
    _, shown = process.communicate()
    assert process.returncode == code
    command = f"python {ROOT / 'train.py'} --resume runs/market"
    assert shown.splitlines()[-1] == f"{word}; resume the run from its last checkpoint with: {command}"
    assert "Traceback" not in shown
    assert not list((tmp_path / "runs" / "market").glob("*.part"))


@pytest.mark.parametrize(
    ("number", "word", "code"), [(signal.SIGTERM, "terminated", 143), (signal.SIGINT, "interrupted", 130)]
)
def test_a_signal_before_the_run_begins_leaves_nothing(number, word, code, tmp_path):
    # Simulating so many users takes a minute on any machine: the signal comes before the run's folder is made.
    process = start(ROOT / "train.py", *SMALL, "--history.market.users=1000000", cwd=tmp_path)
    assert process.stderr is not None
    while "simulating" not in process.stderr.readline():
        assert process.poll() is None
    process.send_signal(number)
    _, shown = process.communicate()
    assert (process.returncode, shown.splitlines()[-1]) == (code, word)
    assert "Traceback" not in shown
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize(
    "seed", ["-1", "1.5", "nan", "inf", "1e3", "", "4294967296", "9" * 400, "9" * 5000, "true", "[1]"]
)
def test_seeds_that_no_generator_takes_are_refused(seed, small_run, places):
    for main, flags in (
        (train.main, (*TINY, f"--seed={seed}")),
        (train.main, (*TINY, f"--history.market.seed={seed}")),
        (decide.main, (str(small_run[0]), "--out", "x.csv", f"--seed={seed}")),
    ):
        with pytest.raises(UsageError, match="seed") as caught:
            main(list(flags))
        assert len(str(caught.value)) < 300


def test_the_largest_seed_is_taken(places):
    largest = str(2**32 - 1)
    train.main([*TINY, f"--seed={largest}", f"--history.market.seed={largest}"])
    assert decide.main(["runs/market", "--out", "x.csv", f"--seed={largest}"]) == 0
    assert (places / "x.csv").is_file()


@pytest.mark.parametrize(
    "name", ["", "..", ".", "a/b", "/an/absolute/path", "../x", "a\\b", "\n", "x\x7f", "\udc80", "n" * 201, "é" * 101]
)
def test_names_that_lead_elsewhere_are_refused(name, places):
    with pytest.raises(UsageError, match="not a plain folder name"):
        train.main([*TINY, f"--name={name}"])
