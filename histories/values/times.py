"""Parse the times of a file: ISO 8601, a format, numbers since an origin, or dates of a time zone.

A time that states its zone keeps it: `Z` or an offset after the time of day, `%z` or `%Z` of a format, the zone of a
Parquet column, numbers since an origin. Any other time belongs to the source's `time_zone`. A date without a time of
day is the beginning of that day there.
"""

from __future__ import annotations

import re
from typing import Protocol

import numpy as np
import pandas as pd

from crosschannel.core.arrays import BoolArray, ObjectArray
from crosschannel.core.errors import ConfigError, nearest
from crosschannel.core.table_validator import TableValidator
from crosschannel.core.times import DAY, HOUR, SECOND, find_time_zone, localize, parse_iso, parse_moment, to_utc

TIME_UNITS = {"us": 1, "ms": 1000, "s": SECOND, "min": 60 * SECOND, "h": HOUR, "d": DAY}
#: The time of day, after T or a space, ends in a zone. The date is not looked at: 2024-03-04 ends like an offset.
_ZONED = r"^[^T ]+[T ].*\d *(?:Z|UTC|GMT|[+-]\d\d(?::?\d\d)?)$"
_TIMED = r"^[^T ]+[T ].*\d"
_PROBE = pd.Timestamp("2024-05-17T13:45:59Z")


class TimeSettings(Protocol):
    """The settings of a source that its times need; see `TableSource`."""

    @property
    def time_format(self) -> str | None:
        """Format of times that are not ISO 8601."""

    @property
    def time_unit(self) -> str | None:
        """Unit of times that are numbers."""

    @property
    def time_origin(self) -> str:
        """The time, in UTC, of the number 0."""

    @property
    def time_clock(self) -> str:
        """Clock on which numbers count: `utc`, or `local`, that of `time_zone`."""

    @property
    def time_zone(self) -> str:
        """Time zone of times without one."""


def check_time_settings(settings: TimeSettings) -> None:
    """Refuse settings that contradict each other, or that no time can be read with.

    Raises:
        ConfigError: If a unit, zone or origin is unknown, or a format has no date.
    """
    unit, form = settings.time_unit, settings.time_format
    if unit is not None and unit not in TIME_UNITS:
        raise ConfigError(f"unknown time unit {unit!r}. {nearest(unit, TIME_UNITS)}")
    if unit is not None and form is not None:
        raise ConfigError("times are either numbers or text: give `time_unit` or `time_format`, not both")
    try:
        parse_moment(settings.time_origin)
    except ConfigError as error:
        raise ConfigError(f"time_origin: {error}") from None
    find_time_zone(settings.time_zone)
    if unit == "d" and settings.time_zone != "UTC" and settings.time_clock == "utc":
        raise ConfigError(
            "numbers of days count from `time_origin`, and `time_zone` would not change them: leave it out, and give "
            "the origin with its offset, such as 1899-12-30T00:00+01:00"
        )
    if form is not None:
        _check_format(form, settings.time_zone)


def read_times(table: TableValidator, column: str, settings: TimeSettings) -> pd.Series:
    """Return a column of times (n,) in UTC, NaT where missing, or where a fault was added to the table.

    A column of ISO 8601 without a time zone of the settings is returned as it is, for `TableValidator.times`.
    """
    series = table.frame[column]
    if pd.api.types.is_datetime64_any_dtype(series):
        return series if series.dt.tz is not None else _in_zone(table, column, series, settings)
    missing = table.missing(column)
    if settings.time_unit is not None:
        parsed = _from_numbers(series, settings)
        _flag_unreadable(table, column, parsed, missing, f"this is not a number of {settings.time_unit}")
        if settings.time_clock == "local":
            return _in_zone(table, column, parsed.dt.tz_localize(None), settings)
        return parsed
    if settings.time_format is None and settings.time_zone == "UTC":
        return series
    if settings.time_format is None and pd.api.types.is_numeric_dtype(series):
        return series  # refused by `TableValidator.times`
    text = pd.Series(table.texts(column), dtype=object).str.strip()
    parsed, zoned, dates = _from_iso(text) if settings.time_format is None else _from_format(text, settings.time_format)
    parsed.index = series.index
    _flag_unreadable(
        table, column, parsed, missing, f"this is not a time in the format {settings.time_format or 'ISO 8601'}"
    )
    if zoned.all():
        return parsed
    local = _in_zone(table, column, parsed.dt.tz_localize(None).where(~zoned), settings, dates)
    return pd.Series(parsed.where(zoned, local))


def needs_zone(table: TableValidator, column: str, settings: TimeSettings) -> bool:
    """Return whether some times of a column are text that states no zone, while the settings name none but UTC."""
    if settings.time_zone != "UTC" or settings.time_unit is not None or not table.has(column):
        return False
    series = table.frame[column]
    if pd.api.types.is_datetime64_any_dtype(series):
        return series.dt.tz is None
    text = pd.Series(table.texts(column), dtype=object).str.strip()
    text = text[(text != "").to_numpy(dtype=bool)]
    zoned = _matching(text, _ZONED) if settings.time_format is None else _from_format(text[:1], settings.time_format)[1]
    return bool(len(text)) and not zoned.all()


def _check_format(form: str, time_zone: str) -> None:
    directives = re.findall(r"%(.)", form)
    try:
        parsed = pd.to_datetime(pd.Series([_PROBE.strftime(form)], dtype=object), format=form, utc=True)[0]
    except (ValueError, TypeError) as error:
        raise ConfigError(f"the time format {form!r} cannot be read: {error}. Write it as %d/%m/%Y %H:%M") from None
    if form == "mixed" or not isinstance(parsed, pd.Timestamp) or abs(parsed - _PROBE) >= pd.Timedelta("1D"):
        raise ConfigError(f"the time format {form!r} has no complete date: it needs day, month and year (%d %m %Y)")
    if "I" in directives and "p" not in directives:
        raise ConfigError(f"the time format {form!r} has %I (hours up to 12) without %p (AM or PM): use %H, or add %p")
    literal = re.search(r"([+-]\d\d:?\d\d|(?<![A-Za-z%])(?!UTC|GMT)[A-Z]{2,5})$", form)
    if literal and not {"z", "Z"} & set(directives) and time_zone == "UTC":
        raise ConfigError(
            f"the time format {form!r} ends in {literal[1]!r}, which would not be read: write %z or %Z in its place, "
            "or give `time_zone`"
        )


def _from_iso(text: pd.Series) -> tuple[pd.Series, BoolArray, BoolArray]:
    """Parse ISO 8601; return times as if in UTC, which ones state their zone, and which ones are dates (n,)."""
    return parse_iso(text), _matching(text, _ZONED), ~_matching(text, _TIMED)


def _from_format(text: pd.Series, form: str) -> tuple[pd.Series, BoolArray, BoolArray]:
    """Parse a format; return times as if in UTC, which ones state their zone, and which ones are dates (n,)."""
    directives = set(re.findall(r"%(.)", form))
    # A literal Z at the end means UTC, as in ISO 8601.
    zoned = bool(directives & {"z", "Z"}) or re.search(r"(?<!%)Z$|(UTC|GMT)$", form) is not None
    dates = not directives & set("HIpMSf")
    return to_utc(text, form), np.full(len(text), zoned), np.full(len(text), dates)


def _from_numbers(series: pd.Series, settings: TimeSettings) -> pd.Series:
    """Convert numbers in the settings' unit since its origin to times, NaT for what is not such a number."""
    number = pd.to_numeric(series, errors="coerce").to_numpy(dtype=np.float64, na_value=np.nan)
    # Double precision holds microseconds exactly for 285 years around the origin.
    with np.errstate(over="ignore"):
        since = np.rint(number * TIME_UNITS[settings.time_unit or "us"])
    known = np.abs(since) < 2.0**53
    moment = (parse_moment(settings.time_origin) + np.where(known, since, 0).astype(np.int64)).astype("datetime64[us]")
    moment[~known] = np.datetime64("NaT")
    return pd.Series(pd.to_datetime(moment, utc=True), index=series.index)


def _in_zone(
    table: TableValidator, column: str, wall: pd.Series, settings: TimeSettings, dates: BoolArray | None = None
) -> pd.Series:
    """Convert times on the clock of the settings' zone (n,), NaT for none, to UTC; a column of midnights is dates."""
    midnights = ((wall == wall.dt.normalize()) | wall.isna()).all()
    known = np.full(len(wall), midnights) if dates is None or midnights else dates
    local = localize(wall, settings.time_zone, known)
    table.flag_rows(
        column,
        (wall.notna() & local.isna()).to_numpy(dtype=bool),
        f"in {settings.time_zone} this time occurs twice or not at all, because of a clock change",
        "Log times in UTC, or with their offset.",
    )
    return local


def _flag_unreadable(table: TableValidator, column: str, parsed: pd.Series, missing: BoolArray, problem: str) -> None:
    remedy = "Correct it, or the mapping's `time_format`, `time_unit`, `time_origin`."
    table.flag_rows(column, parsed.isna().to_numpy() & ~missing, problem, remedy)


def _matching(text: ObjectArray | pd.Series, pattern: str) -> BoolArray:
    return np.asarray(pd.Series(text, dtype=object).str.contains(pattern).fillna(False).to_numpy(dtype=bool))
