"""Convert the columns of a Parquet file, or of an Arrow table, to those of pandas, whatever their Arrow type."""

from __future__ import annotations

import re
from typing import Any, BinaryIO

import pandas as pd
import pyarrow as pa
from pyarrow import compute, types

#: What a file may raise that is damaged, or has a type that nothing can read.
READ_ERRORS = (ValueError, OSError, NotImplementedError, TypeError, KeyError, OverflowError, pa.ArrowException)

#: The name under which pandas writes an index without a name.
_INDEX = re.compile(r"__index_level_\d+__")


def parquet_frame(source: BinaryIO) -> tuple[pd.DataFrame, dict[str, str]]:
    """Read a Parquet file; return its table, and the types of the columns that cannot be read, by name.

    Maps become objects with text as keys, as structs do; lists of keys and values are lists of objects. Text may be
    stored as bytes or as a dictionary; decimals become integers if they have no decimal places, else floating-point
    numbers; integers with missing values stay integers.

    Raises:
        ValueError, OSError, ...: One of `READ_ERRORS`, if the file cannot be read.
    """
    from pyarrow import parquet  # late, so that `--help` does not wait for it

    # Not `read_table`: it would make columns of the names of the folders above the file.
    with parquet.ParquetFile(source) as file:
        return arrow_frame(file.read())


def arrow_frame(table: pa.Table) -> tuple[pd.DataFrame, dict[str, str]]:
    """Convert an Arrow table as `parquet_frame` does that of a file."""
    columns: list[Any] = []
    names: list[str] = []
    unreadable: dict[str, str] = {}
    for name, column in zip(table.column_names, table.columns, strict=True):
        if _INDEX.fullmatch(name):
            continue
        plain = _plain(column)
        if plain is None:
            unreadable[name] = _describe(column.type)
        else:
            columns.append(plain)
            names.append(name)
    read = pa.Table.from_arrays(columns, names=[str(place) for place in range(len(names))])
    frame = read.to_pandas(ignore_metadata=True, maps_as_pydicts="strict")
    for place, column in enumerate(columns):
        if types.is_integer(column.type) and column.null_count:
            kind = f"{'UInt' if types.is_unsigned_integer(column.type) else 'Int'}{column.type.bit_width}"
            frame[str(place)] = pd.array(column.to_pylist(), dtype=kind)
        elif types.is_map(column.type):
            frame[str(place)] = frame[str(place)].map(_with_text_keys, na_action="ignore")
    frame.columns = names
    if not names:
        frame = pd.DataFrame(index=pd.RangeIndex(table.num_rows))
    return frame, unreadable


def _plain(column: Any) -> Any:
    """Return a column in a type that pandas has, or None if there is none."""
    kind = column.type
    if isinstance(kind, pa.BaseExtensionType):
        if kind.extension_name.startswith("pandas."):
            return None  # periods and intervals, whose storage is not what they show
        chunks = [chunk.storage for chunk in column.chunks]
        return _plain(pa.chunked_array(chunks, type=kind.storage_type))
    if types.is_dictionary(kind):
        return _plain(_decoded(column))
    if types.is_run_end_encoded(kind):
        return _plain(pa.chunked_array(map(compute.run_end_decode, column.chunks), type=kind.value_type))
    if _is_bytes(kind):
        return _text_or_none(column)
    if types.is_decimal(kind):
        return _number(column)
    if types.is_nested(kind):
        return column if types.is_struct(kind) or types.is_map(kind) or _has_keys(kind) else None
    if types.is_interval(kind) or types.is_union(kind):
        return None
    return column


def _decoded(column: Any) -> Any:
    """Return the values of a column that is stored as a dictionary, such as the categories of pandas and polars."""
    chunks = [_without_views(chunk.dictionary).take(chunk.indices) for chunk in column.chunks]
    return pa.chunked_array(chunks, type=None if chunks else column.type.value_type)


def _without_views(values: Any) -> Any:
    """Return text or bytes that are stored as views in their plain type: Arrow takes no elements of views."""
    plain = {"string_view": pa.large_string(), "binary_view": pa.large_binary()}.get(str(values.type))
    return values if plain is None else values.cast(plain)


def _is_bytes(kind: Any) -> bool:
    # By the name: the versions of PyArrow that have no `binary_view` have no `is_binary_view` either.
    plain = types.is_binary(kind) or types.is_large_binary(kind) or types.is_fixed_size_binary(kind)
    return plain or str(kind) == "binary_view"


def _has_keys(kind: Any) -> bool:
    """Return whether a type is a list of keys and values."""
    if not (types.is_list(kind) or types.is_large_list(kind)) or not types.is_struct(kind.value_type):
        return False
    return {kind.value_type.field(place).name for place in range(kind.value_type.num_fields)} >= {"key", "value"}


def _text_or_none(column: Any) -> Any:
    try:
        return column.cast(pa.binary()).cast(pa.string())
    except pa.ArrowException:
        return None


def _number(column: Any) -> Any:
    """Return decimals as int64 if they have no decimal places and fit, else as float64."""
    try:
        return column.cast(pa.int64())
    except pa.ArrowException:
        pass
    if column.type.scale <= 0:
        return column.cast(pa.string())
    return pa.chunked_array([pa.array(map(_float, chunk.to_pylist()), pa.float64()) for chunk in column.chunks])


def _float(value: Any) -> float | None:
    return None if value is None else float(value)


def _with_text_keys(value: dict[Any, Any]) -> dict[str, Any]:
    return {key.decode("utf-8", "replace") if isinstance(key, bytes) else str(key): one for key, one in value.items()}


def _describe(kind: Any) -> str:
    if types.is_nested(kind) and not types.is_union(kind):
        return f"a list ({kind})"
    return "bytes that are not text" if _is_bytes(kind) else f"of type {kind}"
