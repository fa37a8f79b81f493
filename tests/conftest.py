"""What holds for all tests."""

from __future__ import annotations

import os

import torch


def pytest_configure() -> None:
    """One thread a worker, and for the programs it starts: threads of several workers that wait for each other spin."""
    if "PYTEST_XDIST_WORKER" in os.environ:
        os.environ.setdefault("OMP_NUM_THREADS", "1")
        torch.set_num_threads(1)
