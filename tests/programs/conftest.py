"""A small run that several tests look at."""

from __future__ import annotations

import os
from pathlib import Path

import pandas as pd
import pytest

from crosschannel.histories.readers.decided.days import decided_days
from crosschannel.programs import simulate
from tests.programs.samples import FUNNEL, SMALL, run_program

CLOSED_LOOP = Path(__file__).resolve().parent / "closed_loop.yaml"


@pytest.fixture(scope="session")
def small_run(tmp_path_factory) -> tuple[Path, str]:
    """A finished small run in a folder of its own, and what it printed."""
    folder = tmp_path_factory.mktemp("programs")
    done = run_program("train.py", *SMALL, cwd=folder)
    return folder / "runs" / "market", done.stdout


@pytest.fixture(scope="session")
def funnel_run(tmp_path_factory) -> Path:
    """A finished small run with a funnel and a constraint."""
    folder = tmp_path_factory.mktemp("funnel")
    run_program("train.py", *FUNNEL, cwd=folder)
    return folder / "runs" / "market"


@pytest.fixture(scope="session")
def simulated(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with a deployment of five days, whose paths are relative to it, and a list of its users."""
    folder = tmp_path_factory.mktemp("forget")
    before = Path.cwd()
    os.chdir(folder)
    try:
        assert simulate.main(["--config", str(CLOSED_LOOP), "--out", "run"]) == 0
    finally:
        os.chdir(before)
    last = decided_days(folder / "run" / "decisions")[-1]
    arms = pd.read_parquet(last / "arms.parquet")
    some = arms.groupby("arm").head(2)["user_id"]  # of every arm
    some.to_frame().to_csv(folder / "users.csv", index=False)
    return folder
