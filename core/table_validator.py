"""Validate a table: convert its columns to arrays and collect every fault."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd

from crosschannel.core.arrays import BoolArray, FloatArray, IntArray, ObjectArray
from crosschannel.core.errors import Fault, nearest
from crosschannel.core.times import parse_iso

EARLIEST_TIME = np.datetime64("1990-01-01", "us")
_NESTED = "this is a list or an object, not a text"
LATEST_TIME = np.datetime64("2100-01-01", "us")


def first_true(mask: BoolArray) -> int | None:
    """Return the first row of a mask (n,) that is set, or None."""
    row = int(np.argmax(mask)) if len(mask) else 0
    return row if len(mask) and mask[row] else None


@dataclass
class TableValidator:
    """A table, its file, and the list to which its faults are added.

    The text of a fault has the names of native columns in backticks, so that a reader that renamed columns can replace
    them by those of the file.

    Attributes:
        frame: The table in the native columns, n rows.
        file: Its path, or its name if it came from memory.
        faults: All faults found so far, of this and other tables.
    """

    frame: pd.DataFrame
    file: str
    faults: list[Fault]

    def __post_init__(self) -> None:
        names = self.frame.columns
        for name in names[names.duplicated()].unique():
            self.flag("two columns have this name", "Rename or drop one of them.", column=str(name))
        self.frame = self.frame.loc[:, ~names.duplicated()].reset_index(drop=True)

    def __len__(self) -> int:
        return len(self.frame)

    def has(self, column: str) -> bool:
        """Return whether the table has a column."""
        return column in self.frame.columns

    def flag(self, problem: str, remedy: str, *, column: str | None = None) -> None:
        """Add a fault of the whole table or of a whole column."""
        self.faults.append(Fault(file=self.file, problem=problem, remedy=remedy, column=column))

    def flag_rows(self, column: str, bad: BoolArray, problem: str, remedy: str) -> None:
        """Add one fault for the rows of a mask (n,), if there are any; `column` holds the offending values."""
        row = first_true(bad)
        if row is not None:
            self.faults.append(
                Fault(
                    file=self.file,
                    problem=problem,
                    remedy=remedy,
                    column=column,
                    row=row + 1,
                    value=_readable(self.frame[column].iloc[row]),
                    count=int(np.count_nonzero(bad)),
                )
            )

    def require(self, columns: Sequence[str]) -> None:
        """Add a fault for every column that is missing, with the most similar name."""
        for column in columns:
            if not self.has(column):
                hint = nearest(column, self.frame.columns)
                self.flag("the column is missing", f"Add it, or map one of yours to it. {hint}", column=column)

    def missing(self, column: str) -> BoolArray:
        """Return which entries (n,) are null or empty text."""
        series = self.frame[column]
        empty = series.isna().to_numpy(dtype=bool)
        if not pd.api.types.is_numeric_dtype(series) and not pd.api.types.is_datetime64_any_dtype(series):
            empty = empty | (series == "").fillna(False).to_numpy(dtype=bool)
        return np.asarray(empty)

    def integers(self, column: str) -> IntArray | None:
        """Return the column (n,) as integers with 0 where missing, or None if it holds anything else."""
        series = self.frame[column]
        if pd.api.types.is_bool_dtype(series) or not pd.api.types.is_numeric_dtype(series):
            return None
        if pd.api.types.is_integer_dtype(series):
            filled = series.fillna(0)
            return None if filled.max() > np.iinfo(np.int64).max else filled.to_numpy(dtype=np.int64)
        # pandas reads a column of integers with missing values as floating-point numbers: 17.0 is the id 17.
        filled = series.fillna(0.0)
        values = filled.to_numpy(dtype=np.float64)
        exact = np.isfinite(values).all() and (np.abs(values) < 2**53).all() and (values % 1 == 0).all()
        return values.astype(np.int64) if exact else None

    def texts(self, column: str) -> ObjectArray:
        """Return the column (n,) as text, empty where missing."""
        missing = self.missing(column)
        whole = self.integers(column)
        series = pd.Series(whole) if whole is not None else self.frame[column].astype(object)
        out = np.array(series.to_numpy(dtype=object))
        # Text is not converted again: that would take most of the time of reading a large table.
        if pd.api.types.infer_dtype(out, skipna=True) != "string":
            nested = np.fromiter(map(is_nested, out), dtype=bool, count=len(out))
            if not any(fault.column == column and fault.problem == _NESTED for fault in self.faults):
                self.flag_rows(column, nested, _NESTED, "Write a text, or map a path inside of it.")
            try:
                out = np.array(series.where(~missing, "").astype(str).to_numpy(dtype=object))
            except NotImplementedError:  # pandas cannot write the years after 9999
                out = np.array([str(_readable(value)) for value in out], dtype=object)
        out[missing] = ""
        return out

    def labels(self, column: str) -> ObjectArray | None:
        """Return an optional column (n,) as text with None where missing, or None if there is no such column."""
        if not self.has(column):
            return None
        out = self.texts(column)
        out[self.missing(column)] = None
        return out

    def times(self, column: str, *, required: bool = True) -> tuple[IntArray, BoolArray]:
        """Return times (n,) in microseconds since 1970 UTC, and which are valid; times without a zone are UTC.

        Missing times are faults where they are `required`.
        """
        if not self.has(column):
            return np.zeros(len(self), dtype=np.int64), np.zeros(len(self), dtype=bool)
        missing = self.missing(column)
        if required:
            self.flag_rows(column, missing, "the time is missing", "Give every row its time, or leave the row out.")
        series = self.frame[column]
        if pd.api.types.is_datetime64_any_dtype(series):
            parsed = pd.to_datetime(series, utc=True)
        elif pd.api.types.is_numeric_dtype(series):
            self.flag_rows(
                column,
                ~missing,
                "a number has neither a unit nor an origin",
                "Write times such as 2024-05-01T09:30:00Z, or state the unit beside the mapping's `path`: "
                "`time_unit: s`.",
            )
            return np.zeros(len(self), dtype=np.int64), np.zeros(len(self), dtype=bool)
        else:
            parsed = parse_iso(pd.Series(self.texts(column), dtype=object).astype(str))
        stamp = parsed.dt.tz_localize(None).to_numpy(dtype="datetime64[us]")
        unknown = np.isnat(stamp)
        self.flag_rows(
            column,
            unknown & ~missing,
            "this is not a time",
            "Write times such as 2024-05-01T09:30:00Z, or state the format beside the mapping's `path`: "
            '`time_format: "%d.%m.%Y %H:%M"` reads 31.12.2024 18:05, and `time_zone` says whose clock it is.',
        )
        outside = ~unknown & ((stamp < EARLIEST_TIME) | (stamp >= LATEST_TIME))
        self.flag_rows(
            column,
            outside,
            "the time is outside the years 1990 to 2099",
            "Check the unit and the origin of the times.",
        )
        valid = ~unknown & ~outside
        return np.where(valid, stamp.astype(np.int64), 0), np.asarray(valid)

    def numbers(self, column: str) -> tuple[FloatArray, BoolArray]:
        """Return numbers (n,), NaN where missing or not a number, and which entries are missing."""
        missing, out = self.missing(column), to_floats(self.frame[column])
        self.flag_rows(
            column,
            np.isnan(out) & ~missing,
            "this is not a number",
            'Write a plain number with a decimal point; a column mapping reads 12,50 with `decimal: ","` beside its '
            "`path`.",
        )
        return out, missing


def to_floats(series: pd.Series) -> FloatArray:
    """Return a column (n,) as floating-point numbers, NaN for what is not a number."""
    if series.dtype.kind in "mM":
        series = series.astype(object)
    if series.dtype.kind == "O":
        # JSON's true among numbers is not 1; a column of nothing but true and false is read as 1 and 0.
        truth = pd.api.types.infer_dtype(series, skipna=True) != "boolean"
        odd = series.map(lambda value: is_nested(value) or (truth and isinstance(value, bool)))
        series = series.where(~odd.astype(bool))
    try:
        values = pd.to_numeric(series, errors="coerce")
    except OverflowError:  # an integer above the largest float; as text it is infinite
        values = pd.to_numeric(
            series.map(lambda value: str(value) if isinstance(value, int) else value), errors="coerce"
        )
    return np.asarray(values.to_numpy(dtype=np.float64, na_value=np.nan))


def is_nested(value: object) -> bool:
    """Return whether a value of a table is a list or an object of JSON, or an array."""
    return isinstance(value, list | dict | tuple | set | np.ndarray)


def _readable(value: Any) -> Any:
    """Return a value as it should appear in a message."""
    if isinstance(value, np.generic):
        return value.item()
    if isinstance(value, pd.Timestamp):
        # Python has no years after 9999.
        return str(value if value.year < 10_000 else value.to_datetime64())
    return value
