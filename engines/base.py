"""Make engines by name, and add up their results."""

from __future__ import annotations

import functools
import operator
from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import Any, Protocol, TypeVar

from crosschannel.core.errors import ConfigError, nearest
from crosschannel.engines.local import run_in_processes, run_locally
from crosschannel.engines.ray import run_on_ray

Item = TypeVar("Item")
Result = TypeVar("Result")


class Engine(Protocol):
    """A way to run a function over items."""

    def __call__(self, function: Callable[[Item], Result], items: Sequence[Item]) -> Iterator[Result]:
        """Return the results in the items' order. The function must be pure; it and the results must be picklable."""
        ...


ENGINES: dict[str, Callable[[int], Engine]] = {
    "local": lambda workers: run_locally,  # noqa: ARG005 - there is only one worker
    "processes": lambda workers: functools.partial(run_in_processes, workers=workers),
    "ray": lambda workers: functools.partial(run_on_ray, workers=workers),
}


def make_engine(name: str, workers: int = 2) -> Engine:
    """Return an engine by its name.

    Args:
        name: One of `ENGINES`.
        workers: Number of parallel processes; `local` uses this process only.

    Raises:
        ConfigError: If there is no such engine, or `workers` is below 1.
    """
    if name not in ENGINES:
        raise ConfigError(f"there is no engine {name!r}. {nearest(name, ENGINES)}")
    if workers < 1:
        raise ConfigError(f"the number of workers is {workers}: give at least 1")
    return ENGINES[name](workers)


def add_up(results: Iterable[Any]) -> Any:
    """Return the sum of results that can be added, such as sums of controls; exact sums are equal in any order.

    Raises:
        ConfigError: If there are no results.
    """
    remaining = iter(results)
    first = next(remaining, None)
    if first is None:
        raise ConfigError("there are no buckets to add up: the folder is empty")
    return functools.reduce(operator.add, remaining, first)
