"""Make engines by name, and add up their results."""

from __future__ import annotations

import functools
import operator
from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import Any, Protocol, TypeVar

from crosschannel.core.errors import ConfigError, nearest
from crosschannel.engines.local import ProcessPool, run_locally
from crosschannel.engines.ray import run_on_ray
from crosschannel.engines.spark import run_on_spark

Item = TypeVar("Item")
Result = TypeVar("Result")


class Engine(Protocol):
    """A way to run a function over items."""

    def __call__(self, function: Callable[[Item], Result], items: Sequence[Item]) -> Iterator[Result]:
        """Return the results in the items' order. The function must be pure; it and the results must be picklable."""
        ...


ENGINES = ("local", "processes", "ray", "spark")


def make_engine(name: str, workers: int = 2, address: str | None = None) -> Engine:
    """Return an engine by its name.

    Args:
        name: One of `ENGINES`.
        workers: Number of parallel processes; `local` uses this process only.
        address: The cluster of `ray` or the master of `spark`; by default the one that runs, or a local one.

    Raises:
        ConfigError: If there is no such engine, `workers` is below 1, or an address is given for this machine.
    """
    if name not in ENGINES:
        raise ConfigError(f"there is no engine {name!r}. {nearest(name, ENGINES)}")
    if workers < 1:
        raise ConfigError(f"the number of workers is {workers}: give at least 1")
    if name == "ray":
        return functools.partial(run_on_ray, workers=workers, address=address)
    if name == "spark":
        return functools.partial(run_on_spark, workers=workers, address=address)
    if address is not None:
        raise ConfigError(f"the engine {name!r} runs on this machine and has no address, but {address!r} is given")
    return run_locally if name == "local" else ProcessPool(workers)


def shard(items: Sequence[Item], part: str) -> Sequence[Item]:
    """Return the items of one of several tasks of a scheduler: each item belongs to one task.

    Args:
        items: All items.
        part: `i/n`, the task i of n, from 1.

    Raises:
        ConfigError: If it is not such a text.
    """
    number, slash, count = part.partition("/")
    if not (slash and number.isdecimal() and count.isdecimal() and 1 <= int(number) <= int(count)):
        raise ConfigError(f"the shard {part!r} is not i/n with i from 1 to n, such as 3/8")
    return items[int(number) - 1 :: int(count)]


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
