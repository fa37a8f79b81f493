"""A small run that several tests look at."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.programs.samples import FUNNEL, SMALL, run_program


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
