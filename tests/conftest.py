"""What holds for all tests."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import pytest
import torch

TESTS = Path(__file__).resolve().parent
#: What `make fast` runs: the parts that most changes touch, in seconds.
FAST = ("core", "engines", "histories/test_", "reward/measurement", "evaluation/report", "agents/test_settings.py")


def pytest_configure() -> None:
    """One thread a worker, and for the programs it starts: threads of several workers that wait for each other spin."""
    if "PYTEST_XDIST_WORKER" in os.environ:
        os.environ.setdefault("OMP_NUM_THREADS", "1")
        torch.set_num_threads(1)


@pytest.hookimpl(optionalhook=True)
def pytest_xdist_make_scheduler(config: pytest.Config, log: Any) -> Any:
    """Give each worker tests that follow each other, so that hardly any fixture of a module is made twice."""
    from xdist.scheduler import WorkStealingScheduling

    return WorkStealingScheduling(config, log) if config.getvalue("dist") == "load" else None


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Mark the tests that `make fast` runs."""
    for item in items:
        place = item.path.relative_to(TESTS).as_posix()
        if place.startswith(FAST) and not {"slow", "benchmark"} & {mark.name for mark in item.iter_markers()}:
            item.add_marker(pytest.mark.fast)
