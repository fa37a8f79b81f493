"""An engine on Spark, for clusters; PySpark is imported only when it runs."""

from __future__ import annotations

import functools
import os
import pickle
import sys
from collections.abc import Callable, Iterator, Sequence
from typing import Any, TypeVar

from crosschannel.core.errors import ConfigError
from crosschannel.engines.results import answer, in_order

Item = TypeVar("Item")
Result = TypeVar("Result")

#: How often Spark tries an item whose executor was lost.
ATTEMPTS = 4
#: Items a core that are collected together; later ones wait for them.
WAVES = 4


def run_on_spark(
    function: Callable[[Item], Result], items: Sequence[Item], workers: int = 2, address: str | None = None
) -> Iterator[Result]:
    """Run the function on Spark by `mapInArrow`, one partition per item; yield the results in the items' order.

    A session that is active already is used and keeps running; so does that of `spark-submit`, which names its master.
    Otherwise a local one of `workers` threads, each with a Python process, is started, and stopped at the end. An item
    whose executor or process was lost is run again, and its result is counted once. Paths in `items` must be readable
    on every machine of the cluster, and the package must be installed there.

    Args:
        function: A pure function; it and the results must be picklable.
        items: What it is called with.
        workers: Threads of a local session.
        address: The master of a session that is started, such as `spark://host:7077`.

    Raises:
        ConfigError: If PySpark is not installed, or the session cannot be started.
    """
    try:
        from pyspark import SparkConf
        from pyspark.sql import SparkSession
    except ImportError as error:
        raise ConfigError(f"Spark is not installed ({error}): pip install 'crosschannel[spark]'") from error
    if not items:
        return
    own = SparkSession.getActiveSession() is None
    builder = SparkSession.builder.appName("crosschannel")
    if own and (address or not SparkConf().contains("spark.master")):
        builder = builder.master(address or f"local[{workers},{ATTEMPTS}]")
        for name, value in (
            ("spark.ui.enabled", "false"),
            ("spark.ui.showConsoleProgress", "false"),
        ):
            builder = builder.config(name, value)
    try:
        session = builder.getOrCreate()
    except Exception as error:  # PySpark wraps what Java raises in types of its own
        raise ConfigError(f"Spark cannot be started ({error}): it needs Java 17, and a master that answers") from error
    context = session.sparkContext
    if own and "PYSPARK_PYTHON" not in os.environ:
        context.pythonExec = sys.executable
    try:
        yield from in_order(_results(session, function, items, WAVES * context.defaultParallelism), len(items))
    finally:
        if own:
            session.stop()


def _results(
    session: Any, function: Callable[[Any], Any], items: Sequence[Any], together: int
) -> Iterator[tuple[int, bytes]]:
    """Yield the index and the result of each item; so many of them are collected together."""
    for first in range(0, len(items), together):
        rows = [(first + k, bytearray(pickle.dumps(item))) for k, item in enumerate(items[first : first + together])]
        frame = session.createDataFrame(session.sparkContext.parallelize(rows, len(rows)), "index long, item binary")
        found = frame.mapInArrow(functools.partial(_apply, function=function), "index long, result binary")
        for row in found.collect():
            yield row["index"], bytes(row["result"])


def _apply(batches: Iterator[Any], function: Callable[[Any], Any]) -> Iterator[Any]:
    import pyarrow as pa

    for batch in batches:
        index, item = batch.column("index"), batch.column("item")
        results = [answer(function, one) for one in item.to_pylist()]
        yield pa.RecordBatch.from_arrays([index, pa.array(results, pa.binary())], names=["index", "result"])
