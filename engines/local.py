"""Engines on this machine: one process, or a pool of processes."""

from __future__ import annotations

import multiprocessing
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future, ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from typing import TypeVar

from crosschannel.core.errors import ConfigError

Item = TypeVar("Item")
Result = TypeVar("Result")

#: How often a pool is started again without a result in between.
ATTEMPTS = 4


def run_locally(function: Callable[[Item], Result], items: Sequence[Item]) -> Iterator[Result]:
    """Run the function in this process, one item after the other; one bucket at a time is in memory."""
    return map(function, items)


def run_in_processes(function: Callable[[Item], Result], items: Sequence[Item], workers: int = 2) -> Iterator[Result]:
    """Run the function in `workers` new processes; yield the results in the items' order.

    At most two items a worker are under way or wait for their turn to be read. An error in one is raised here. If a
    process is killed, such as by the system for its memory, the items without a result are run again in a new pool.

    The processes are spawned and not forked, since a fork copies the locks of running threads and may wait forever.

    Raises:
        ConfigError: If processes are killed again and again on the same item.
    """
    done, failures = 0, 0
    while done < len(items):
        before = done
        try:
            for result in _in_one_pool(function, items[done:], workers):
                yield result
                done += 1
        except BrokenProcessPool:
            failures = 1 if done > before else failures + 1
            if failures == ATTEMPTS:
                raise ConfigError(
                    f"processes were killed {ATTEMPTS} times on item {done} of {len(items)}, perhaps for lack of "
                    "memory: use fewer workers, or more buckets"
                ) from None


def _in_one_pool(function: Callable[[Item], Result], items: Sequence[Item], workers: int) -> Iterator[Result]:
    with ProcessPoolExecutor(workers, mp_context=multiprocessing.get_context("spawn")) as pool:
        waiting: list[Future[Result]] = []
        try:
            for item in items:
                waiting.append(pool.submit(function, item))
                if len(waiting) == 2 * workers:
                    yield waiting.pop(0).result()
            while waiting:
                yield waiting.pop(0).result()
        finally:
            for future in waiting:
                future.cancel()
