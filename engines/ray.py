"""An engine on Ray Data, for clusters; Ray is imported only when it runs."""

from __future__ import annotations

import functools
import os
import pickle
from collections.abc import Callable, Iterator, Sequence
from typing import Any, TypeVar

from crosschannel.core.errors import ConfigError
from crosschannel.engines.results import answer, in_order

Item = TypeVar("Item")
Result = TypeVar("Result")


def run_on_ray(
    function: Callable[[Item], Result], items: Sequence[Item], workers: int = 2, address: str | None = None
) -> Iterator[Result]:
    """Run the function on Ray Data, one block per item; yield the results in the items' order.

    If Ray is running already, that cluster is used and keeps running; otherwise that of `address` or of the environment
    (`RAY_ADDRESS`) is joined, or a local one of `workers` processes is started, and left at the end. An item whose
    worker was lost is run again by Ray, and its result is counted once. Paths in `items` must be readable on every
    machine of the cluster, and the package must be installed there.

    Args:
        function: A pure function; it and the results must be picklable.
        items: What it is called with.
        workers: Processes of a local cluster.
        address: The cluster to join, such as `ray://host:10001` or `auto`.

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
        joins = address or os.environ.get("RAY_ADDRESS")
        local = {} if joins else {"num_cpus": workers, "include_dashboard": False}
        ray.init(address=joins, log_to_driver=False, **local)
    try:
        rows = [{"index": index, "item": pickle.dumps(item)} for index, item in enumerate(items)]
        blocks = ray.data.from_items(rows, override_num_blocks=len(rows))
        found = blocks.map(functools.partial(_apply, function=function)).iter_rows()
        yield from in_order(((row["index"], row["result"]) for row in found), len(items))
    finally:
        if own:
            ray.shutdown()


def _apply(row: dict[str, Any], function: Callable[[Any], Any]) -> dict[str, Any]:
    return {"index": row["index"], "result": answer(function, row["item"])}
