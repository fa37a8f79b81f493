"""Engines by name, and adding up what they give."""

from __future__ import annotations

import functools
import operator
from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import Any, Protocol, TypeVar

from crosschannel.core.errors import ConfigError, nearest
from crosschannel.engines.local import run_locally
from crosschannel.engines.processes import run_in_processes
from crosschannel.engines.ray import run_on_ray

Item = TypeVar("Item")
Result = TypeVar("Result")


class Engine(Protocol):
    """Runs a function over items."""

    def __call__(self, function: Callable[[Item], Result], items: Sequence[Item]) -> Iterator[Result]:
        """The results, in the items' order. The function is pure, and it and the results can be pickled."""
        ...


ENGINES: dict[str, Callable[[int], Engine]] = {
    "local": lambda workers: run_locally,  # noqa: ARG005 - one worker is all there is
    "processes": lambda workers: functools.partial(run_in_processes, workers=workers),
    "ray": lambda workers: functools.partial(run_on_ray, workers=workers),
}


def make_engine(name: str, workers: int = 2) -> Engine:
    """An engine by its name.

    Args:
        name: One of `ENGINES`.
        workers: Processes that work at a time; `local` has only this one.

    Raises:
        ConfigError: If there is no such engine, or no worker.
    """
    if name not in ENGINES:
        raise ConfigError(f"there is no engine {name!r}. {nearest(name, ENGINES)}")
    if workers < 1:
        raise ConfigError(f"{workers} workers do nothing: give at least 1")
    return ENGINES[name](workers)


def add_up(results: Iterable[Any]) -> Any:
    """The sum of results that know how to add, such as the sums of controls; equal in any order where they are exact.

    Raises:
        ConfigError: If there is none.
    """
    remaining = iter(results)
    first = next(remaining, None)
    if first is None:
        raise ConfigError("there are no buckets to add up: the folder has none")
    return functools.reduce(operator.add, remaining, first)
