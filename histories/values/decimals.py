"""Read numbers that are written with a decimal comma: `12,50`, `1.234,50`."""

from __future__ import annotations

import pandas as pd

from crosschannel.core.table_validator import TableValidator

#: Whole numbers and fractions, with points or spaces (also narrow or unbreakable ones) between thousands.
_NUMBER = "^[+-]?(?:\\d+|\\d{1,3}(?:\\.\\d{3})+|\\d{1,3}(?:[ \u00a0\u202f]\\d{3})+)(?:,\\d+)?$"
_SEPARATORS = "[. \u00a0\u202f]"


def with_decimal_point(table: TableValidator, column: str) -> pd.Series:
    """Return a column of numbers (n,) with decimal points; a text that is not a number with a comma is a fault.

    Only text is converted: a number of JSON or Parquet is one already. `12.5` is a fault, since its point cannot be the
    decimal one and does not divide thousands.
    """
    series = table.frame[column]
    text = _texts(series)
    number = text.str.match(_NUMBER)
    table.flag_rows(
        column,
        (text.notna() & ~number.eq(True)).to_numpy(dtype=bool),
        "this is not a number with a decimal comma",
        "Write numbers such as 1234,50 or 1.234,50, or leave `decimal` out of the mapping.",
    )
    return _converted(series, text)


def numbers_with_decimal_point(series: pd.Series) -> pd.Series:
    """Return a column (n,) with decimal points if all its text is numbers with decimal commas, else as it is."""
    text = _texts(series)
    present = text.notna()
    return _converted(series, text) if present.any() and text[present].str.match(_NUMBER).all() else series


def _texts(series: pd.Series) -> pd.Series:
    """Return the entries (n,) that are text and not empty, without spaces at the ends; None for others."""
    return series.astype(object).map(lambda one: one.strip() or None if isinstance(one, str) else None).astype("object")


def _converted(series: pd.Series, text: pd.Series) -> pd.Series:
    plain = text.str.replace(_SEPARATORS, "", regex=True).str.replace(",", ".", regex=False)
    return series.astype(object).mask(text.notna(), plain)
