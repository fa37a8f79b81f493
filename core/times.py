"""Times as int64 microseconds since 1970-01-01 UTC, and durations written as `72h` or `7d`."""

from __future__ import annotations

import re
from datetime import timedelta, timezone, tzinfo
from zoneinfo import ZoneInfo

import numpy as np
import numpy.typing as npt
import pandas as pd

from crosschannel.core.errors import ConfigError

SECOND = 1_000_000
HOUR = 3600 * SECOND
DAY = 24 * HOUR
WEEK = 7 * DAY
#: The time of an event that does not happen; every other time is earlier.
NEVER = int(np.iinfo(np.int64).max)

#: Names that mean another time zone on another machine.
_LOCAL_ZONES = ("localtime", "posixrules", "Factory")
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


def find_time_zone(name: str) -> tzinfo:
    """Return a time zone by its name such as `Europe/Berlin`, or by its offset such as `+02:00`.

    Raises:
        ConfigError: If there is no such time zone.
    """
    if offset := re.fullmatch(r"(?:UTC)?([+-])([01]\d):([0-5]\d)", str(name)):
        length = timedelta(hours=int(offset[2]), minutes=int(offset[3]))
        return timezone(-length if offset[1] == "-" else length)
    try:
        if name not in _LOCAL_ZONES:
            return ZoneInfo(name)
    except (KeyError, ValueError, TypeError, OSError):  # such as a folder of zones, Europe
        pass
    raise ConfigError(f"unknown time zone {name!r}: write it as Europe/Berlin")


def timestamps(microseconds: np.ndarray) -> pd.Series:
    """Return times (n,) in microseconds as a pandas series of UTC timestamps."""
    return pd.Series(pd.to_datetime(np.asarray(microseconds, dtype="datetime64[us]"), utc=True))


def wall_clock(time: np.ndarray, time_zone: str) -> np.ndarray:
    """Return what the clocks of a time zone show at times (n,): microseconds since they showed the start of 1970.

    Raises:
        ConfigError: If there is no such time zone.
    """
    if time_zone == "UTC":
        return time
    shown = timestamps(time).dt.tz_convert(find_time_zone(time_zone)).dt.tz_localize(None)
    return np.asarray(shown.to_numpy(dtype="datetime64[us]").astype(np.int64))


def parse_iso(text: pd.Series) -> pd.Series:
    """Return ISO 8601 text (n,) as times in UTC, NaT for what is not a time; times without a zone are as if in UTC.

    `UTC` and `GMT` at the end mean Z. Fewer than 8 characters are a year or a month at most, which is not a time.
    """
    text = text.str.strip()
    text = text.where(text.str.len() >= 8)
    parsed = to_utc(text, "ISO8601")
    failed = parsed.isna() & text.notna()
    if failed.any():
        again = text[failed].str.replace(r"(?<=\d) *(?:UTC|GMT)$", "Z", regex=True)
        parsed = parsed.copy()
        parsed[failed] = to_utc(again, "ISO8601")
    return parsed


def parse_moment(text: object) -> int:
    """Return one time in ISO 8601 as microseconds since 1970 UTC; without a zone it is UTC.

    Raises:
        ConfigError: If it is not a time.
    """
    parsed = parse_iso(pd.Series([str(text)], dtype=object)).dt.tz_localize(None).to_numpy(dtype="datetime64[us]")[0]
    if np.isnat(parsed):
        raise ConfigError(f"{text!r} is not a time: write it as 2024-05-01T09:30")
    return int(parsed.astype(np.int64))


def to_utc(text: pd.Series, form: str) -> pd.Series:
    """Return text (n,) of a format as times in UTC to the microsecond, NaT for what is not of the format."""
    text = text.where(~text.isin(("now", "today")))  # pandas would read these as the present time
    parsed = pd.to_datetime(text, format=form, errors="coerce", utc=True)
    # Nanoseconds in one row would make the years of another one too large.
    return pd.Series(parsed).astype("datetime64[us, UTC]")


def localize(wall: pd.Series, time_zone: str, dates: npt.NDArray[np.bool_]) -> pd.Series:
    """Return times on the clock of a time zone (n,) as times in UTC.

    A time that the clocks skip, or show twice, is NaT; but a date is the beginning of its day, also where that is not
    at midnight.

    Args:
        wall: Times without a zone (n,), NaT where missing.
        time_zone: The zone.
        dates: Which times are dates (n,), at midnight.
    """
    exact = wall.dt.tz_localize(time_zone, ambiguous="NaT", nonexistent="NaT")
    if not dates.any():
        return pd.Series(exact.dt.tz_convert("UTC"))
    # Of a midnight that occurs twice, the first is in summer time.
    first = np.ones(len(wall), dtype=bool)
    begin = wall.dt.normalize().dt.tz_localize(time_zone, ambiguous=first, nonexistent="shift_forward")
    return pd.Series(exact.where(~dates, begin).dt.tz_convert("UTC"))
