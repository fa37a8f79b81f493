"""Run a pure function over buckets or leaves on an engine, with a progress bar, on one thread."""

from __future__ import annotations

import ctypes
import sys
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import cache, partial
from typing import Any, TypeVar

from tqdm import tqdm

from crosschannel.engines import Engine, run_locally
from crosschannel.pipeline.command_line import one_thread

Item = TypeVar("Item")
Result = TypeVar("Result")


@dataclass(frozen=True)
class Passes:
    """How functions run over buckets and leaves.

    Attributes:
        engine: The engine.
        shows: Whether progress is shown.
    """

    engine: Engine = run_locally
    shows: bool = True

    def run(self, function: Callable[[Item], Result], items: Sequence[Item], what: str) -> Iterator[Result]:
        """Return the results in the items' order; they do not depend on the engine.

        Args:
            function: The function; it and its results can be pickled.
            items: The items.
            what: What the progress bar calls the pass.
        """
        found = self.engine(partial(_on_one_thread, function=function), items)
        return iter(tqdm(found, total=len(items), desc=what, disable=not self.shows))

    def named(self, what: str) -> Callable[[Callable[[Any], Any], Sequence[Any]], Iterator[Any]]:
        """Return a function that runs passes of one name."""
        return lambda function, items: self.run(function, items, what)


def _on_one_thread(item: Any, function: Callable[[Any], Any]) -> Any:
    """Compute on one thread, so that sums round alike wherever they are made; then give free memory back."""
    with one_thread():
        found = function(item)
    give_memory_back()
    return found


def give_memory_back() -> None:
    """Return to the system what the allocator of the C library keeps of freed memory, where it can be asked to.

    glibc takes arrays of up to 32 MiB from a heap once it has freed one of that size, and such a heap has holes between
    the arrays of a bucket and the sums that stay: on some runs a third of the process, differing from run to run.
    """
    if (trim := _malloc_trim()) is not None:
        trim(0)


@cache
def _malloc_trim() -> Callable[[int], int] | None:
    """Return glibc's `malloc_trim`; None where the C library is another one."""
    if not sys.platform.startswith("linux"):
        return None
    return getattr(ctypes.CDLL(None), "malloc_trim", None)
