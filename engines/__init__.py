"""Run a pure function over the buckets of a history: in this process, in a pool of processes, on Ray or on Spark.

An engine takes a function and its items, and returns the results in the items' order; they do not depend on the engine.
Totals over all buckets are a reduction of these results, which is exact for integer sums.
"""

if not __name__.startswith("crosschannel."):
    raise ImportError(
        "import `crosschannel.engines` instead of `engines`: a second copy of its classes would not fit the first"
    )


from crosschannel.engines.base import ENGINES, Engine, add_up, make_engine, shard
from crosschannel.engines.local import run_locally

__all__ = ["ENGINES", "Engine", "add_up", "make_engine", "run_locally", "shard"]
