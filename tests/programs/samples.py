"""Runs the real programs as a user would."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

from tests import ROOT

SMALL = ("--config", str(Path(__file__).resolve().parent / "small.yaml"))
#: The same with a funnel and a constraint.
FUNNEL = ("--config", str(Path(__file__).resolve().parent / "funnel.yaml"))


def run_program(program: str, *arguments: str, cwd: Path, check: bool = True) -> subprocess.CompletedProcess[str]:
    """Runs a program as a user would, on one thread."""
    done = subprocess.run(
        [sys.executable, str(ROOT / program), *arguments],
        cwd=cwd,
        capture_output=True,
        text=True,
        env={**os.environ, "OMP_NUM_THREADS": "1", "OPENBLAS_NUM_THREADS": "1", "PYTHONPATH": str(ROOT)},
    )
    if check and done.returncode:
        raise AssertionError(f"{program} ended with {done.returncode}:\n{done.stdout}\n{done.stderr}")
    return done
