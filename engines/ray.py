"""An engine over Ray Data, for clusters; Ray is needed only when it is called."""

from __future__ import annotations

import functools
import pickle
from collections.abc import Callable, Iterator, Sequence
from typing import Any, TypeVar

from crosschannel.core.errors import ConfigError

Item = TypeVar("Item")
Result = TypeVar("Result")


def run_on_ray(function: Callable[[Item], Result], items: Sequence[Item], workers: int = 2) -> Iterator[Result]:
    """Runs the function on Ray Data, one block an item; results come in whatever order and are put into the items'.

    Where Ray runs already, that cluster is used and left running; otherwise a local one of `workers` processes is
    started, and stopped in the end. Paths in `items` must be readable on every machine of the cluster.

    Raises:
        ConfigError: If Ray is not installed.
    """
    try:
        import ray
        import ray.data
    except ImportError as error:
        raise ConfigError(f"Ray is not installed ({error}): pip install 'crosschannel[ray]'") from error
    if not items:
        return
    own = not ray.is_initialized()
    if own:
        ray.init(num_cpus=workers, include_dashboard=False, log_to_driver=False)
    try:
        rows = [{"place": place, "item": pickle.dumps(item)} for place, item in enumerate(items)]
        blocks = ray.data.from_items(rows, override_num_blocks=len(rows))
        waiting: dict[int, Result] = {}
        following = 0
        for row in blocks.map(functools.partial(_apply, function=function)).iter_rows():
            waiting[row["place"]] = pickle.loads(row["result"])
            while following in waiting:
                yield waiting.pop(following)
                following += 1
    finally:
        if own:
            ray.shutdown()


def _apply(row: dict[str, Any], function: Callable[[Any], Any]) -> dict[str, Any]:
    return {"place": row["place"], "result": pickle.dumps(function(pickle.loads(row["item"])))}
