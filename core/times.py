"""Times as int64 microseconds since 1970-01-01 UTC, and durations written as `72h` or `7d`."""

from __future__ import annotations

import re

import numpy as np
import pandas as pd

from crosschannel.core.errors import ConfigError

SECOND = 1_000_000
HOUR = 3600 * SECOND
DAY = 24 * HOUR
WEEK = 7 * DAY
#: The time of an event that does not happen; every other time is earlier.
NEVER = int(np.iinfo(np.int64).max)

_UNITS = {"s": SECOND, "min": 60 * SECOND, "h": HOUR, "d": DAY, "w": WEEK}


def duration(text: str) -> int:
    """Return the microseconds of a duration such as `30min`, `72h`, `1.5d` or `2w`.

    Raises:
        ConfigError: If `text` is not a positive number followed by one of s, min, h, d, w.
    """
    match = re.fullmatch(r"\s*(\d+(?:\.\d+)?)\s*(s|min|h|d|w)\s*", str(text))
    if match is None or float(match[1]) <= 0:
        raise ConfigError(f"{text!r} is not a duration: write a positive number and a unit, such as 72h or 7d")
    return round(float(match[1]) * _UNITS[match[2]])


def timestamps(microseconds: np.ndarray) -> pd.Series:
    """Return times (n,) in microseconds as a pandas series of UTC timestamps."""
    return pd.Series(pd.to_datetime(np.asarray(microseconds, dtype="datetime64[us]"), utc=True))
