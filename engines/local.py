"""Engines on this machine: one process, or a pool of processes."""

from __future__ import annotations

import multiprocessing
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future, ProcessPoolExecutor, wait
from concurrent.futures.process import BrokenProcessPool
from typing import TypeVar

from crosschannel.core.errors import ConfigError

Item = TypeVar("Item")
Result = TypeVar("Result")

#: How often processes are started again without a result in between.
ATTEMPTS = 4


def run_locally(function: Callable[[Item], Result], items: Sequence[Item]) -> Iterator[Result]:
    """Run the function in this process, one item after the other; one bucket at a time is in memory."""
    return map(function, items)


class ProcessPool:
    """An engine that runs functions in processes of this machine, which stay from one pass to the next.

    They start with the first pass: importing the package takes a process seconds. They end with the engine or the
    program. They are spawned and not forked, since a fork copies the locks of running threads and may wait forever.
    """

    def __init__(self, workers: int) -> None:
        """Start nothing yet.

        Args:
            workers: Number of processes.
        """
        self.workers = workers
        self._pool: ProcessPoolExecutor | None = None

    def __call__(self, function: Callable[[Item], Result], items: Sequence[Item]) -> Iterator[Result]:
        """Yield the results in the items' order.

        At most two items a worker are under way or wait for their turn to be read. An error in one is raised here. If a
        process is killed, such as by the system for its memory, the items without a result are run again in new ones.

        Raises:
            ConfigError: If processes are killed again and again on the same item.
        """
        done, failures = 0, 0
        while done < len(items):
            before = done
            try:
                for result in self._in_one_pool(function, items[done:]):
                    yield result
                    done += 1
            except BrokenProcessPool:
                self._pool = None
                failures = 1 if done > before else failures + 1
                if failures == ATTEMPTS:
                    raise ConfigError(
                        f"processes were killed {ATTEMPTS} times on item {done} of {len(items)}, perhaps for lack of "
                        "memory: use fewer workers, or more buckets"
                    ) from None

    def _in_one_pool(self, function: Callable[[Item], Result], items: Sequence[Item]) -> Iterator[Result]:
        if self._pool is None:
            self._pool = ProcessPoolExecutor(self.workers, mp_context=multiprocessing.get_context("spawn"))
        pool, waiting = self._pool, list[Future[Result]]()
        try:
            for item in items:
                waiting.append(pool.submit(function, item))
                if len(waiting) == 2 * self.workers:
                    yield waiting.pop(0).result()
            while waiting:
                yield waiting.pop(0).result()
        finally:  # nothing of a pass that was given up still runs when the next one begins
            wait([future for future in waiting if not future.cancel()])
