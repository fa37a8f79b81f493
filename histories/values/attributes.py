"""Read the attributes of users as numbers, dates or categories, and encode them as columns of the context.

What a column holds is decided once, when the table is read, so that contexts, matching and groups of a report see the
same values.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
import pandas as pd

from crosschannel.core.arrays import BoolArray, FloatArray, IntArray, ObjectArray
from crosschannel.core.errors import ConfigError, nearest
from crosschannel.core.serialization import from_dict
from crosschannel.core.table_validator import TableValidator
from crosschannel.core.times import DAY, parse_iso

#: The most frequent categories of an attribute that have a column of their own.
MAX_CATEGORIES = 20
#: Numbers have squares, which contexts and models compute.
MAX_VALUE = 1e100
#: The text of an entry that is missing, among categories.
MISSING = "(missing)"

#: What programs write for an unknown number or date, in lower case.
_MARKS = frozenset(
    (
        *("na", "n/a", "n.a.", "#n/a", "<na>", "nan", "nat", "null", "none", "nil", "missing", "unknown"),
        *("not available", "-", "--", "?", ".", "\\n", "(not set)", "(null)", "(none)"),
    )
)
_PLAIN = r"^[+-]?(?:(?:0|[1-9]\d*)(?:\.\d*)?|\.\d+)(?:[eE][+-]?\d+)?$"
_INFINITE = r"^[+-]?inf(?:inity)?$"
#: Codes: `007`; and, if there are several, versions, ranges and house numbers (`17.4.1`, `18-24`, `12a`).
_ZEROS = r"^0\d+$"
_CODE = r"^(?:0\d+|\d+(?:\.\d+){2,}|\d+(?:[-/:]\d+)+|\d+ ?[A-Za-z])$"
#: Amounts that are not plain numbers: `1,200.50`, `1 200,50`, `$5`, `12 %`, `5 EUR`.
_AMOUNT = r"^[$€£¥₹]?\s?[+-]?\d{1,3}(?:(?:[,.'\s]?\d{3})*|\d*)(?:[.,]\d+)?\s?(?:[$€£¥₹%]|[A-Z]{3})?$"
_ISO_DATE = r"^\d{4}-\d\d-\d\d(?:[T ].*)?$"
_DATE = r"^(?:\d{1,4}[./-]\d{1,2}[./-]\d{1,4}|\d{1,2}[ -][A-Za-z]{3,9}[ -]\d{2,4})(?:[T ].*)?$"
#: Below this number of different values a column may be of categories, even if no value occurs twice.
_FEW = 8
#: From this number of different codes on a column is one of codes.
_SEVERAL = 3
#: A column is evidently of numbers, or of dates, if this share of its entries is.
_EVIDENT = 0.8


def read_attributes(table: TableValidator, frame: pd.DataFrame) -> tuple[pd.DataFrame, list[str]]:
    """Return the table of users with its attributes as numbers, booleans, dates or text, and notes.

    - Text is read as numbers, dates (ISO 8601) or booleans (true, false) if all its entries are such, but for those
      that mean an unknown one (`NA`, `null`, `-`). Numbers with zeros in front (`007`) are codes, and so text. DECIMAL
      columns are numbers; dates are times without a zone.
    - A column that is evidently of numbers or dates, but for some entries, is a fault, as is an infinite number. As
      categories, most of its values would have no column.
    - Columns of lists, mappings and bytes are left out.

    Args:
        table: The table, for faults.
        frame: Its columns to read, with `user_id`.
    """
    out, notes = {}, list[str]()
    for name in frame.columns:
        if name == "user_id" or not isinstance(name, str):
            out[name] = frame[name]
            continue
        column = _read(table, name, notes)
        if column is None:
            continue
        out[name] = column
        distinct = column.nunique(dropna=False)
        if distinct < 2 and len(column) > 1:
            what = "no entry" if column.isna().all() else f"only the value {column.iloc[0]!s}"
            notes.append(f"users: the attribute {name!r} has {what}: nothing can be learned from it")
        elif distinct > MAX_CATEGORIES and not _is_number(column) and not _is_date(column):
            rest = len(column) - int(column.value_counts().iloc[:MAX_CATEGORIES].sum())
            notes.append(
                f"users: the attribute {name!r} has {distinct:,} different texts: contexts have the {MAX_CATEGORIES} "
                f"most frequent, which {rest:,} of {len(column):,} users do not have"
            )
    return pd.DataFrame(out, index=frame.index), notes


def attribute_text(column: pd.Series) -> npt.NDArray[np.str_]:
    """Return an attribute as text (U,), `MISSING` where missing: numbers by value (3.0 is `3`), dates in ISO 8601."""
    missing = column.isna().to_numpy(dtype=bool)
    if _is_date(column):
        day = (column.dropna() == column.dropna().dt.normalize()).all()
        text = column.dt.strftime("%Y-%m-%d" if day else "%Y-%m-%dT%H:%M:%S").to_numpy(dtype=object)
    elif pd.api.types.is_bool_dtype(column):
        text = column.astype(str).to_numpy(dtype=object)
    elif _is_number(column):
        code, values = pd.factorize(column.to_numpy(dtype=np.float64, na_value=np.nan), use_na_sentinel=False)
        whole = [str(int(one)) if one == np.trunc(one) and abs(one) < 2**53 else repr(float(one)) for one in values]
        text = np.array(whole, dtype=object)[code]
    else:
        text = column.astype(str).to_numpy(dtype=object)
    return np.asarray(np.where(missing, MISSING, text)).astype(str)


def attribute_numbers(column: pd.Series) -> FloatArray | None:
    """Return an attribute (U,) as numbers, NaN where missing: microseconds of dates; None if it is of text."""
    if _is_date(column):
        values = column.to_numpy(dtype="datetime64[us]")
        return np.where(np.isnat(values), np.nan, values.astype(np.int64).astype(np.float64))
    if _is_number(column) or column.isna().all():
        return np.asarray(column.to_numpy(dtype=np.float64, na_value=np.nan))
    return None


@dataclass(frozen=True)
class UserEncoding:
    """Encoding of attributes: numbers and dates with an indicator of missing ones, other attributes one-hot.

    Attributes:
        numeric: Names of attributes that are numbers or booleans.
        categories: For each categorical attribute, its name and the categories that have a column of their own. A user
            with another one, or one that the training history did not have, has 0 in all of them.
        dates: For each attribute of dates, its name and the time up to which its days are counted, microseconds.
    """

    numeric: tuple[str, ...]
    categories: tuple[tuple[str, tuple[str, ...]], ...]
    dates: tuple[tuple[str, int], ...] = ()

    @classmethod
    def fit(cls, users: pd.DataFrame | None, names: tuple[str, ...] | None, until: int = 0) -> UserEncoding:
        """Fit the encoding to a table of users.

        Args:
            users: The table; None if there is none.
            names: The attributes to use; None for all of them.
            until: The time up to which the days since a date are counted: the end of the training history.

        Raises:
            ConfigError: If a name is not among the attributes.
        """
        table = pd.DataFrame() if users is None else users.drop(columns="user_id", errors="ignore")
        if unknown := sorted(set(names or ()) - set(table.columns)):
            raise ConfigError(f"the users do not have the attributes {unknown}; they have {sorted(table.columns)}")
        chosen = tuple(table.columns) if names is None else names
        return cls(
            numeric=tuple(name for name in chosen if _is_number(table[name])),
            categories=tuple(
                (name, _frequent(attribute_text(table[name])))
                for name in chosen
                if not _is_number(table[name]) and not _is_date(table[name])
            ),
            dates=tuple((name, until) for name in chosen if _is_date(table[name])),
        )

    def columns(self, users: pd.DataFrame | None) -> Iterator[tuple[str, FloatArray]]:
        """Yield raw columns (U,) of the attributes, NaN where a number is missing.

        Raises:
            ConfigError: If an attribute is missing, or is not what it was in the training history.
        """
        if users is None:
            return
        for name in self.numeric:
            value = _numbers(users, name, _is_number, "a number")
            yield f"user {name}", value
            yield f"user {name} missing", np.isnan(value).astype(np.float64)
        for name, levels in self.categories:
            text = attribute_text(_column(users, name))
            for level in levels:
                yield f"user {name}={level}", (text == level).astype(np.float64)
        for name, until in self.dates:
            days = (until - _numbers(users, name, _is_date, "a date")) / DAY
            yield f"user days since {name}", days
            yield f"user {name} missing", np.isnan(days).astype(np.float64)

    def to_dict(self) -> dict[str, Any]:
        """Return the encoding as lists, numbers and text, for checkpoints."""
        return {"numeric": self.numeric, "categories": self.categories, "dates": self.dates}

    @classmethod
    def from_dict(cls, state: Mapping[str, Any]) -> UserEncoding:
        """Build the encoding that `to_dict` described.

        Raises:
            ConfigError: If a value is of another type.
        """
        return from_dict(cls, state, "attributes")


def _is_number(column: pd.Series) -> bool:
    return pd.api.types.is_numeric_dtype(column)


def _is_date(column: pd.Series) -> bool:
    return pd.api.types.is_datetime64_any_dtype(column)


def _column(users: pd.DataFrame, name: str) -> pd.Series:
    if name not in users.columns:
        hint = nearest(name, users.columns)
        raise ConfigError(f"the users lack the attribute {name!r} of the training history. {hint}")
    return users[name]


def _numbers(users: pd.DataFrame, name: str, expected: Any, what: str) -> FloatArray:
    column = _column(users, name)
    values = attribute_numbers(column)
    if values is None or not (expected(column) or column.isna().all()):
        first = column.dropna().iloc[0]
        raise ConfigError(
            f"the attribute {name!r} was {what} in the training history, but here it is not: it has the value {first!s}"
        )
    return values


def _frequent(text: npt.NDArray[np.str_]) -> tuple[str, ...]:
    """Return the most frequent texts, sorted; of equally frequent ones the first by the alphabet."""
    names, counts = np.unique(text, return_counts=True)
    return tuple(sorted(names[np.argsort(-counts, kind="stable")][:MAX_CATEGORIES].tolist()))


def _read(table: TableValidator, name: str, notes: list[str]) -> pd.Series | None:
    """Return one attribute in the type that its values have, or None if it is left out, which is noted."""
    series = table.frame[name]
    if series.dtype.kind == "m":
        return pd.Series(series.to_numpy() / np.timedelta64(1, "D"), index=series.index)
    if _is_date(series):
        return _naive(series)
    if _is_number(series) and series.dtype.kind != "c":
        _flag_too_large(table, name, series.to_numpy(dtype=np.float64, na_value=np.nan))
        return series
    values = series.astype(object)
    kind = pd.api.types.infer_dtype(values, skipna=True)
    if kind == "decimal":
        number = pd.to_numeric(values.map(float, na_action="ignore"), errors="coerce").astype(np.float64)
        _flag_too_large(table, name, np.asarray(number, dtype=np.float64))
        return number
    if kind == "boolean":
        return series.astype("boolean")
    if kind in ("date", "datetime", "datetime64"):
        return _naive(pd.to_datetime(values, utc=True, errors="coerce"))
    if kind == "bytes" or values.map(lambda one: isinstance(one, list | dict | tuple | set | np.ndarray)).any():
        notes.append(f"users: the attribute {name!r} is left out: its values are lists, mappings or bytes")
        return None
    return _from_text(table, name, series, notes)


def _from_text(table: TableValidator, name: str, series: pd.Series, notes: list[str]) -> pd.Series:
    """Return text as numbers, booleans or dates if all its entries are such; otherwise as it is."""
    missing = table.missing(name)
    code, found = pd.factorize(np.where(missing, "", table.texts(name)))
    text = pd.Series(found, dtype=object).str.strip()
    lower = text.str.lower()
    counts = np.bincount(code, minlength=len(text))
    mark = (lower.isin(_MARKS) | (text == "")).to_numpy(dtype=bool)
    plain, infinite = _match(text, _PLAIN), _match(lower, _INFINITE)
    known = ~mark
    if not known.any():
        return series
    parsed: pd.Series | None = None
    if (plain | infinite)[known].all():
        number = pd.to_numeric(text.where(~mark), errors="coerce").to_numpy(dtype=np.float64)[code]
        _flag_too_large(table, name, number)
        parsed = pd.Series(number, index=series.index)
    elif lower[known].isin(("true", "false")).all():
        parsed = pd.Series((lower == "true").where(~mark, None).to_numpy(dtype=object)[code]).astype("boolean")
    elif _match(text, _ISO_DATE)[known].all():
        date = parse_iso(text.where(~mark))
        _flag_entries(table, name, (known & date.isna().to_numpy())[code], "this is not a date")
        parsed = _naive(date.iloc[code])
    if parsed is None:
        _flag_strays(table, name, code, known, text, counts)
        return series
    if count := int(counts[mark & (text != "").to_numpy(dtype=bool)].sum()):
        first = text[mark & (text != "").to_numpy(dtype=bool)].iloc[0]
        notes.append(f"users: the attribute {name!r} is missing in {count:,} rows with an entry such as {first!r}")
    parsed.index = series.index
    return parsed.astype(bool) if parsed.dtype == "boolean" and not parsed.isna().any() else parsed


def _flag_strays(
    table: TableValidator, name: str, code: IntArray, known: BoolArray, text: pd.Series, counts: IntArray
) -> None:
    """Flag entries that are neither plain numbers nor dates in a column that is evidently of these."""
    distinct, rows = int(known.sum()), int(counts[known].sum())
    if distinct <= MAX_CATEGORIES and (distinct < _FEW or 2 * distinct <= rows):
        return  # every value has a column of its own, or may have
    zeros, codes = ((_match(text, pattern) & known).sum() for pattern in (_ZEROS, _CODE))
    rules = [(_DATE, _ISO_DATE, "a date such as 2024-05-01, in a column of dates")]
    if not zeros and codes < _SEVERAL:
        rules.append((_AMOUNT, _PLAIN, "a plain number, in a column of numbers"))
    for pattern, good, what in rules:
        alike = (_match(text, pattern) | _match(text, good)) & known
        if counts[alike].sum() >= _EVIDENT * rows:
            _flag_entries(table, name, (known & ~_match(text, good))[code], f"this is not {what}")
            return


def _flag_entries(table: TableValidator, name: str, bad: BoolArray, problem: str) -> None:
    table.flag_rows(
        name,
        bad,
        problem,
        "Write all entries alike, numbers with a decimal point and nothing else, and leave unknown ones empty; or "
        "leave the column out (`leave_out` of the users' file). Categories need a letter, if most of them are numbers.",
    )


def _flag_too_large(table: TableValidator, name: str, values: FloatArray) -> None:
    too_large = ~(np.abs(values) < MAX_VALUE) & ~np.isnan(values)
    table.flag_rows(name, too_large, "the value is infinite or too large", "Correct it, or leave it empty.")


def _naive(times: pd.Series) -> pd.Series:
    """Return times in UTC without a zone, in microseconds."""
    naive = times if times.dt.tz is None else times.dt.tz_convert("UTC").dt.tz_localize(None)
    return naive.astype("datetime64[us]")


def _match(text: pd.Series | ObjectArray, pattern: str) -> BoolArray:
    return np.asarray(pd.Series(text, dtype=object).str.match(pattern).fillna(False).to_numpy(dtype=bool))
