"""An engine on Ray Data, for clusters; Ray is imported only when it runs."""

from __future__ import annotations

import functools
import pickle
from collections.abc import Callable, Iterator, Sequence
from typing import Any, TypeVar

from crosschannel.core.errors import ConfigError

Item = TypeVar("Item")
Result = TypeVar("Result")


def run_on_ray(function: Callable[[Item], Result], items: Sequence[Item], workers: int = 2) -> Iterator[Result]:
    """Run the function on Ray Data, one block per item; yield the results in the items' order.

    If Ray is running already, that cluster is used and keeps running; otherwise a local one of `workers` processes is
    started, and stopped at the end. Paths in `items` must be readable on every machine of the cluster.

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
        rows = [{"index": index, "item": pickle.dumps(item)} for index, item in enumerate(items)]
        blocks = ray.data.from_items(rows, override_num_blocks=len(rows))
        waiting: dict[int, Result] = {}
        next_index = 0
        for row in blocks.map(functools.partial(_apply, function=function)).iter_rows():
            waiting[row["index"]] = pickle.loads(row["result"])
            while next_index in waiting:
                yield waiting.pop(next_index)
                next_index += 1
    finally:
        if own:
            ray.shutdown()


def _apply(row: dict[str, Any], function: Callable[[Any], Any]) -> dict[str, Any]:
    return {"index": row["index"], "result": pickle.dumps(function(pickle.loads(row["item"])))}
