"""Engines on this machine: one process, or a pool of processes."""

from __future__ import annotations

import multiprocessing
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor
from typing import TypeVar

Item = TypeVar("Item")
Result = TypeVar("Result")


def run_locally(function: Callable[[Item], Result], items: Sequence[Item]) -> Iterator[Result]:
    """Run the function in this process, one item after the other; one bucket at a time is in memory."""
    return map(function, items)


def run_in_processes(function: Callable[[Item], Result], items: Sequence[Item], workers: int = 2) -> Iterator[Result]:
    """Run the function in `workers` new processes; an error in one of them is raised here.

    The processes are spawned and not forked, since a fork copies the locks of running threads and may wait forever.
    """
    with ProcessPoolExecutor(workers, mp_context=multiprocessing.get_context("spawn")) as pool:
        yield from pool.map(function, items)
