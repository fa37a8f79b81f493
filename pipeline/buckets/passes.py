"""Run a pure function over buckets or leaves on an engine, with a progress bar, on one thread."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import partial
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
    """Compute on one thread, so that sums round alike wherever they are made."""
    with one_thread():
        return function(item)
