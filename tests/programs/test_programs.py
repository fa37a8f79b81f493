"""The programs as a user runs them: what they write, that they repeat to the bit, and that nothing is lost."""

from __future__ import annotations

import json
import os
import re
import signal
import subprocess
import sys
import time
from dataclasses import replace
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch
from conftest import ROOT, SMALL, run_program
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

from histories.folder import write_history


def same(a: object, b: object, place: str = "") -> None:
    """Asserts that two checkpoints hold the same bits."""
    assert type(a) is type(b), place
    if isinstance(a, torch.Tensor):
        assert torch.equal(a, b), place  # type: ignore[arg-type]
    elif isinstance(a, dict):
        assert a.keys() == b.keys(), place  # type: ignore[attr-defined]
        for key in a:
            same(a[key], b[key], f"{place}.{key}")  # type: ignore[index]
    elif isinstance(a, list | tuple):
        assert len(a) == len(b), place  # type: ignore[arg-type]
        for i, (x, y) in enumerate(zip(a, b, strict=True)):  # type: ignore[call-overload]
            same(x, y, f"{place}[{i}]")
    else:
        assert a == b, place


def checkpoint(run: Path) -> dict:
    return torch.load(run / "checkpoint.pt", weights_only=True)


def tags(run: Path) -> dict[str, set[str]]:
    """The tags of a run by kind, as docs/metrics.md names the kinds."""
    found = EventAccumulator(str(run / "tensorboard")).Reload().Tags()
    return {kind: set(found[f"{kind}s"]) for kind in ("scalar", "histogram", "image")}


def test_a_run_writes_what_it_promises(small_run):
    run, printed = small_run
    for name in ("config.yaml", "context.json", "checkpoint.pt", "metrics.json"):
        assert (run / name).is_file(), name
    assert not list(run.glob("*.tmp"))
    metrics = json.loads((run / "metrics.json").read_text())
    assert {row["policy"] for row in metrics["truth"]} >= {
        "ensemble_thompson",
        "oracle",
        "business as usual",
        "no_send",
    }
    assert "python evaluate.py" in printed
    assert "per user**" in printed


def test_training_twice_gives_the_same_bits(small_run, tmp_path):
    run, _ = small_run
    run_program("train.py", *SMALL, cwd=tmp_path)
    again = tmp_path / "runs" / "market"
    same(checkpoint(run), checkpoint(again))
    assert (run / "metrics.json").read_bytes() == (again / "metrics.json").read_bytes()


def test_a_killed_run_goes_on_to_the_same_bits(small_run, tmp_path):
    """SIGKILL as soon as the first checkpoint is there, in the middle of the replay, then --resume."""
    run, _ = small_run
    again = tmp_path / "runs" / "market"
    process = subprocess.Popen(
        [sys.executable, str(ROOT / "train.py"), *SMALL],
        cwd=tmp_path,
        env={**os.environ, "OMP_NUM_THREADS": "1", "OPENBLAS_NUM_THREADS": "1", "PYTHONPATH": str(ROOT)},
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )
    deadline = time.monotonic() + 120
    while not (again / "checkpoint.pt").is_file() and time.monotonic() < deadline:
        time.sleep(0.005)
    process.send_signal(signal.SIGKILL)
    process.wait()
    assert not (again / "metrics.json").is_file()
    reached = checkpoint(again)["extra"]["done"]
    assert 0 < reached["steps"] < checkpoint(run)["extra"]["done"]["steps"]

    run_program("train.py", "--resume", str(again), cwd=tmp_path)
    same(checkpoint(run), checkpoint(again))
    assert (run / "metrics.json").read_bytes() == (again / "metrics.json").read_bytes()
    assert tags(again) == tags(run)


def test_the_documentation_defines_every_tag(small_run):
    """docs/metrics.md and the tags of a real run, both ways."""
    run, _ = small_run
    rows = re.findall(r"^\| `([^`]+)` \| (scalar|histogram|image) \|", (ROOT / "docs" / "metrics.md").read_text(), re.M)
    assert rows
    for kind, found in tags(run).items():
        assert found, kind
        patterns = {
            tag: re.compile(re.sub(r"<[a-z]+>", "[^/]+", re.escape(tag).replace(r"\<", "<").replace(r"\>", ">")))
            for tag, of in rows
            if of == kind
        }
        for tag in found:
            assert any(pattern.fullmatch(tag) for pattern in patterns.values()), f"{tag} is not in docs/metrics.md"
        for tag, pattern in patterns.items():
            assert any(pattern.fullmatch(name) for name in found), f"docs/metrics.md has {tag}, no run writes it"


def test_evaluate_writes_a_report(small_run):
    run, _ = small_run
    done = run_program("evaluate.py", str(run), cwd=run.parent)
    report = (run / "report.html").read_text()
    evaluation = json.loads((run / "evaluation.json").read_text())
    assert evaluation == json.loads((run / "metrics.json").read_text())
    assert "Off-policy estimate" in done.stdout
    assert "ensemble_thompson" in report
    assert "logged propensities" in done.stdout


def test_decide_writes_decisions_that_are_a_log_again(small_run, tmp_path):
    run, _ = small_run
    run_program("decide.py", str(run), "--output", str(tmp_path / "out.parquet"), cwd=tmp_path)
    run_program("decide.py", str(run), "--output", str(tmp_path / "again.csv"), cwd=tmp_path)
    table = pd.read_parquet(tmp_path / "out.parquet")
    assert len(table) == table.user_id.nunique() == 400
    assert table.propensity.between(0, 1).all()
    again = pd.read_csv(tmp_path / "again.csv")
    assert (again.decision_id == table.decision_id).all()
    assert (again.channel.fillna("") == table.channel.fillna("")).all()


def test_decisions_keep_to_what_was_eligible_last():
    from decide import eligible_now
    from envs.market import Market, MarketConfig

    history, _ = Market(MarketConfig(users=400, days=14)).history()
    d, e = history.decisions, history.events
    silent = replace(history, decisions=replace(d, eligible=None))
    mask, silent_mask = eligible_now(history), eligible_now(silent)
    gone = set(e.user[e.event == history.event_names.index("unsubscribed")].tolist())
    assert gone
    for user in range(history.n_users):
        if user in gone:
            assert not mask[user, 1:].any()
            assert not silent_mask[user, 1:].any()
        else:
            assert (mask[user] == d.eligible[np.flatnonzero(d.user == user)[-1]]).all()
            assert silent_mask[user].all()


def test_names_that_are_taken_get_a_number_and_ended_runs_are_not_repeated(small_run):
    run, _ = small_run
    done = run_program("train.py", "--resume", str(run), cwd=run.parent.parent)
    assert "has ended already" in done.stdout


@pytest.mark.parametrize(
    ("program", "arguments", "message"),
    [
        ("train.py", ["--config", "none.yaml"], "none.yaml: there is no such configuration file"),
        ("train.py", ["--resume", "runs/none"], "runs/none is not a run"),
        ("train.py", [*SMALL, "--agent.name", "thomson"], "there is no agent 'thomson'"),
        ("train.py", [*SMALL, "--history.source", "folder"], "needs a folder: add --history.path"),
        ("evaluate.py", ["runs/none"], "runs/none is not a run"),
        ("decide.py", ["runs/none", "--output", "x.xlsx"], "written as .parquet or .csv"),
    ],
)
def test_errors_are_one_clear_line(program, arguments, message, tmp_path):
    done = run_program(program, *arguments, cwd=tmp_path, check=False)
    assert done.returncode != 0
    assert message in done.stderr
    assert "Traceback" not in done.stderr


def test_a_folder_is_learned_from_as_a_market_is(tmp_path):
    """The native folder round: write a market's log, train from it, without any truth at hand."""
    from envs.market import Market, MarketConfig

    history, _ = Market(MarketConfig(users=400, days=8)).history()
    write_history(history, tmp_path / "log")
    done = run_program(
        "train.py", *SMALL, "--history.source=folder", f"--history.path={tmp_path / 'log'}", cwd=tmp_path
    )
    assert "Off-policy estimate" in done.stdout
    assert "Truth" not in done.stdout
