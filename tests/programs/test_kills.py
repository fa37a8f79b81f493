"""SIGKILL at any moment: what is resumed or run again ends with the bits, points and files of an undisturbed run."""

from __future__ import annotations

import os
import random
import shutil
import signal
import subprocess
import sys
import time
from collections import Counter
from pathlib import Path

import pytest
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

from tests import ROOT
from tests.programs.samples import SMALL

#: Enough steps that kills fall between checkpoints, and none that a test waits for.
RUN = (*SMALL, "--train.offline-updates=60")
KINDS = ("scalars", "histograms", "images", "tensors")


def start(program: str, *arguments: object, cwd: Path) -> subprocess.Popen[bytes]:
    return subprocess.Popen(
        [sys.executable, str(ROOT / program), *map(str, arguments)],
        cwd=cwd,
        env={**os.environ, "OMP_NUM_THREADS": "1", "OPENBLAS_NUM_THREADS": "1", "PYTHONPATH": str(ROOT)},
        stdout=subprocess.DEVNULL,
        stderr=(cwd / "stderr.txt").open("wb"),
    )


def finish(program: str, *arguments: object, cwd: Path) -> float:
    """Run a program to its end; return how long it took."""
    began = time.monotonic()
    assert start(program, *arguments, cwd=cwd).wait() == 0, (cwd / "stderr.txt").read_text()
    return time.monotonic() - began


def kill(program: str, *arguments: object, cwd: Path, after: float) -> bool:
    """Kill a program after some seconds; return whether it was still running."""
    process = start(program, *arguments, cwd=cwd)
    try:
        process.wait(after)
    except subprocess.TimeoutExpired:
        process.send_signal(signal.SIGKILL)
    return process.wait() == -signal.SIGKILL


def points(run: Path) -> Counter[tuple[str, str, int]]:
    """How often each point of a run stands in TensorBoard's files: kind, tag and step."""
    every = dict.fromkeys((*KINDS, "compressedHistograms"), 0)  # 0 keeps all
    found = EventAccumulator(str(run / "tensorboard"), size_guidance=every, purge_orphaned_data=False).Reload()
    read = {"scalars": found.Scalars, "histograms": found.Histograms, "images": found.Images, "tensors": found.Tensors}
    return Counter((kind, tag, one.step) for kind in KINDS for tag in found.Tags()[kind] for one in read[kind](tag))


def values(run: Path) -> dict[tuple[str, int], float]:
    found = EventAccumulator(str(run / "tensorboard"), size_guidance={"scalars": 0}).Reload()
    return {(tag, one.step): one.value for tag in found.Tags()["scalars"] for one in found.Scalars(tag)}


def decided_days(folder: Path) -> dict[str, bytes]:
    """Every file of the days in a folder of decisions; what begins with a dot is no day."""
    days = [path for path in folder.iterdir() if not path.name.startswith(".")]
    return {str(file.relative_to(folder)): file.read_bytes() for day in days for file in day.iterdir()}


def files(folder: Path) -> dict[str, bytes]:
    """Every file but TensorBoard's, whose names and times differ, the lock and what was printed."""
    inside = (path for path in folder.rglob("*") if path.is_file() and path.parent.name != "tensorboard")
    left_out = (".lock", "stderr.txt")
    return {str(path.relative_to(folder)): path.read_bytes() for path in inside if path.name not in left_out}


def survive(program: str, arguments: tuple[object, ...], folder: Path, moments: list[float], run: Path) -> int:
    """Run a program that is killed at some moments until it ends; return how often it was killed."""
    kills = 0
    for moment in [*moments, None]:
        if program == "train.py" and (run / "config.yaml").is_file():
            arguments = ("--resume", run)
        if moment is None:
            finish(program, *arguments, cwd=folder)
        else:
            kills += kill(program, *arguments, cwd=folder, after=moment)
    return kills


def check(tmp_path: Path, seed: int, wanted: dict[str, int], in_a_row: int) -> None:
    """Kill each program as often as wanted, some times in a row before it may end; compare with the undisturbed one."""
    rng = random.Random(seed)
    one, other = tmp_path / "undisturbed", tmp_path / "killed"
    one.mkdir()
    other.mkdir()
    decisions = ("runs/market", "--force", "--out")
    commands: dict[str, tuple[object, ...]] = {
        "train.py": RUN,
        "evaluate.py": ("runs/market", "--evaluation.min-ess=6", "--out", "report", "--force"),
        "decide.py": (*decisions, "decisions.csv"),
    }
    took = {program: finish(program, *arguments, cwd=one) for program, arguments in commands.items()}
    expected_points, expected_values = points(one / "runs" / "market"), values(one / "runs" / "market")
    assert set(expected_points.values()) == {1}
    for program, arguments in commands.items():
        left, rounds = wanted[program], 0
        while left > 0:
            rounds += 1
            assert rounds <= 10 * wanted[program], "the programs end before they are killed"
            moments = [rng.uniform(0.05, 0.9) * took[program] for _ in range(min(in_a_row, left))]
            if program == "train.py" and (other / "runs").exists():
                for path in sorted(other.rglob("*"), reverse=True):
                    path.rmdir() if path.is_dir() else path.unlink()
            kills = survive(program, arguments, other, moments, other / "runs" / "market")
            left -= kills
            if program == "train.py":
                assert points(other / "runs" / "market") == expected_points, moments
                assert values(other / "runs" / "market") == expected_values, moments
                assert [path.name for path in (other / "runs").iterdir()] == ["market"], moments
                trained = {name: data for name, data in files(one).items() if name.startswith("runs/market/")}
                trained.pop("runs/market/report.html", None)
                assert files(other) == trained, moments
    for name, data in files(one).items():
        assert files(other)[name] == data, name
    assert files(other).keys() == files(one).keys()


@pytest.mark.slow
def test_what_was_killed_ends_as_what_was_not(tmp_path):
    """Two kills of a training, one of an evaluation and one of decisions."""
    check(tmp_path, 7, {"train.py": 2, "evaluate.py": 1, "decide.py": 1}, in_a_row=2)


def check_days(trained: Path, tmp_path: Path, seed: int, kills: int) -> None:
    """Kill `decide` as often as asked for, half of the times while it replaces a day; a day is whole or not there."""
    rng = random.Random(seed)
    run = (trained, "--arms.holdout=0.1", "--arms.business-as-usual=0.1")
    took = finish("decide.py", *run, "--out", "first", cwd=tmp_path)
    expected = decided_days(tmp_path / "first")
    finish("decide.py", *run, "--seed", "1", "--out", "second", cwd=tmp_path)
    other = decided_days(tmp_path / "second")
    assert {name.split("/")[1] for name in expected} == {"decisions.parquet", "arms.parquet", "decide.json"}
    assert expected != other
    done, rounds = 0, 0
    while done < kills:
        rounds += 1
        assert rounds <= 10 * kills, "the program ends before it is killed"
        out = tmp_path / f"out{rounds}"
        again = rounds % 2 == 0
        if again:
            shutil.copytree(tmp_path / "second", out)
        flags = (*run, "--out", out.name, *(("--force",) if again else ()))
        # Most of the time is taken by imports: what is written is written at the end.
        done += kill("decide.py", *flags, cwd=tmp_path, after=rng.uniform(0.6, 1.0) * took)
        found = decided_days(out) if out.exists() else {}
        assert found in ({}, expected, other), "a day is whole or not there"
        if found != expected:
            finish("decide.py", *run, "--force", "--out", out.name, cwd=tmp_path)
        assert decided_days(out) == expected
        assert [path.name for path in out.iterdir() if path.name.endswith((".part", ".replaced"))] == []


def test_a_killed_day_is_whole_or_not_there(small_run, tmp_path):
    """Two kills; where in the writing they fall is tested step by step in tests/pipeline/loop/test_writing.py."""
    check_days(small_run[0], tmp_path, 3, 2)


@pytest.mark.slow
def test_forty_kills_of_days(small_run, tmp_path):
    """Forty kills of `decide --out FOLDER`, half of them while a day is replaced."""
    check_days(small_run[0], tmp_path, 0, 40)


@pytest.mark.slow
def test_forty_kills(tmp_path):
    """24 kills of trainings, in rows of three before one ends, 8 of evaluations and 8 of decisions."""
    check(tmp_path, 0, {"train.py": 24, "evaluate.py": 8, "decide.py": 8}, in_a_row=3)
