"""Logged histories: reading, validation, context features, propensities, eligibility, splits and buckets.

A `History` has the decisions and events of many users as arrays. It is read from the native folder (`read_history`),
from CSV or Parquet files of any layout (`read_tables`), from one event stream (`read_stream`) or from a named public
data set (`read_dataset`), or built from pandas tables (`History.from_tables`) or arrays (`History.from_arrays`). Input
that cannot be read raises an `InputError` with every fault that was found.

The names of `__all__` are imported on first use, so that settings can be read without pandas or SciPy.
"""

if not __name__.startswith("crosschannel."):
    raise ImportError(
        "import `crosschannel.histories` instead of `histories`: a second copy of its classes would not fit the first"
    )


import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)
