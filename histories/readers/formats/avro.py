"""Convert the records of an Avro file to columns of pandas; needs fastavro, the extra `avro`."""

from __future__ import annotations

import datetime as dt
import struct
import uuid
from collections.abc import Callable, Mapping
from decimal import Decimal
from typing import Any, BinaryIO

import numpy as np
import pandas as pd

from crosschannel.histories.readers.formats.json_lines import values_column

#: What a file may raise that is damaged, or has a codec that is not installed.
READ_ERRORS = (
    ValueError,
    EOFError,
    OSError,
    KeyError,
    IndexError,
    TypeError,
    AttributeError,
    OverflowError,
    struct.error,
)


def avro_frame(source: BinaryIO) -> tuple[pd.DataFrame, dict[str, str]]:
    """Read an Avro file; return its table, and the types of the columns that cannot be read, by name.

    Records and maps become objects, arrays lists. Times of an instant are in UTC, local ones without a zone; decimals
    become integers if all of a column are whole, else floating-point numbers; bytes become text.

    Raises:
        ImportError: If fastavro is not installed.
        ValueError, OSError, ...: One of `READ_ERRORS`, if the file cannot be read.
    """
    import fastavro  # an extra, and late, so that `--help` does not wait for it

    try:
        reader = fastavro.reader(source)
        schema: Any = reader.writer_schema
        records: list[Any] = list(reader)
    except READ_ERRORS:
        raise
    except Exception as error:  # fastavro's own errors, and those of the libraries that decompress
        raise ValueError(str(error)) from error
    if not isinstance(schema, Mapping) or schema.get("type") != "record":
        raise ValueError("its rows are not records with named fields")
    columns: dict[str, pd.Series] = {}
    unreadable: dict[str, str] = {}
    for field in schema["fields"]:
        try:
            columns[field["name"]] = _column([record[field["name"]] for record in records])
        except UnicodeDecodeError:
            unreadable[field["name"]] = "bytes that are not text"
    return pd.DataFrame(columns, index=pd.RangeIndex(len(records))), unreadable


def _column(values: list[Any]) -> pd.Series:
    present = [value for value in values if value is not None]
    if present and all(isinstance(value, dt.datetime) for value in present):
        return pd.Series(pd.to_datetime(values))
    if present and all(isinstance(value, dt.date) and not isinstance(value, dt.datetime) for value in present):
        return pd.Series(np.array(values, dtype="datetime64[s]"))
    if present and all(isinstance(value, Decimal) for value in present):
        whole = all(value == value.to_integral_value() for value in present)
        return values_column([None if value is None else int(value) if whole else float(value) for value in values])
    return values_column([_plain(value) for value in values])


def _plain(value: Any) -> Any:
    """Return a value as JSON has it."""
    if isinstance(value, dict):
        return {str(name): _plain(one) for name, one in value.items()}
    if isinstance(value, list):
        return [_plain(one) for one in value]
    for kind, convert in _PLAIN.items():
        if isinstance(value, kind):
            return convert(value)
    return value


#: How JSON has what it has no type for; a datetime is a date as well.
_PLAIN: dict[type, Callable[[Any], Any]] = {
    bytes: lambda value: value.decode(),
    uuid.UUID: str,
    Decimal: float,
    dt.date: lambda value: value.isoformat(),
    dt.time: lambda value: value.isoformat(),
}
