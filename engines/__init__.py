"""Runs a pure function over the buckets of a history: in this process, in a pool of processes, or on Ray Data.

An engine takes a function and the items it is to be run over, and gives the results in the items' order; the results
are the same whichever engine is used. What is computed for all buckets is a reduce over these results, exact where they
are integer sums.
"""

if not __name__.startswith("crosschannel."):
    raise ImportError(
        "import `crosschannel.engines` instead of `engines`: a second copy of its classes would not fit the first"
    )


from crosschannel.engines.base import ENGINES, Engine, add_up, make_engine
from crosschannel.engines.local import run_locally

__all__ = ["ENGINES", "Engine", "add_up", "make_engine", "run_locally"]
