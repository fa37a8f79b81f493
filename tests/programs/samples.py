"""Runs the real programs: as a user would, or in this process where nothing of a process of its own is tested."""

from __future__ import annotations

import importlib
import io
import os
import signal
import subprocess
import sys
from contextlib import chdir, redirect_stderr, redirect_stdout
from pathlib import Path
from unittest.mock import patch

import pytest

from crosschannel.pipeline.command_line import logger
from crosschannel.pipeline.command_line import program as ended_as_a_program
from tests import ROOT

SMALL = ("--config", str(Path(__file__).resolve().parent / "small.yaml"))
#: The same of an agent that learns in no time.
QUICK = (*SMALL, "--agent.name=best_fixed", "--train.offline-updates=0")
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


def run_here(program: str, *arguments: str, cwd: Path, check: bool = True) -> subprocess.CompletedProcess[str]:
    """Runs a program in this process, with the output and the exit code that it would have as one of its own."""
    main = importlib.import_module(f"crosschannel.programs.{program.removesuffix('.py')}").main
    out, err = io.StringIO(), io.StringIO()
    handlers, level, on_signal = list(logger.handlers), logger.level, signal.getsignal(signal.SIGTERM)
    argv = [str(ROOT / program), *arguments]
    try:
        with (
            chdir(cwd),
            redirect_stdout(out),
            redirect_stderr(err),
            patch.object(sys, "argv", argv),
            pytest.raises(SystemExit) as ended,
        ):
            ended_as_a_program(lambda: main(list(arguments)))
    finally:
        logger.handlers[:] = handlers
        logger.setLevel(level)
        signal.signal(signal.SIGTERM, on_signal)
    code = int(ended.value.code or 0)
    done = subprocess.CompletedProcess(argv, code, out.getvalue(), err.getvalue())
    if check and code:
        raise AssertionError(f"{program} ended with {code}:\n{done.stdout}\n{done.stderr}")
    return done
