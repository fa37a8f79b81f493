"""Read values of a table by paths: names of columns, or keys in a column of JSON or of nested values."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import numpy as np
import pandas as pd

from crosschannel.core.arrays import BoolArray, IntArray, ObjectArray
from crosschannel.core.errors import Fault, nearest
from crosschannel.core.table_validator import TableValidator
from crosschannel.histories.readers.formats.json_lines import parse_array, parse_object

UNNEST = (
    "Make a column of each key that you need, such as with UNNEST in SQL; a list of keys and values becomes a map with "
    "map_from_entries in Spark and DuckDB."
)


def extract(
    table: TableValidator, wanted: Mapping[str, BoolArray], unreadable: Mapping[str, str] | None = None
) -> dict[str, pd.Series]:
    """Return the values (n,) of each path, None where JSON has no such key or a row is not wanted.

    A path is the name of a column, or that of a column of JSON objects followed by keys (`properties.offer.id`). If
    several columns match, the one with the longest name counts. JSON may be text, or the nested values of a file of
    Parquet or JSON lines; a list of keys and values counts as an object of these keys (see `from_key_values`). Paths
    into one column are read together.

    Args:
        table: The rows; faults are added to it: a column that does not exist, text that is not a JSON object, or a list
            or object where one value should be.
        wanted: For each path, the mask of rows (n,) whose values are read.
        unreadable: The types of the file's columns that are not in the table, by name.
    """
    found: dict[str, pd.Series] = {}
    nested: dict[str, dict[str, list[str]]] = {}
    for path in wanted:
        column = column_of(table.frame.columns, path)
        if column is None:
            flag_absent(table, path, "the file has no such column", "Correct the mapping.", unreadable or {})
        elif column == path:
            found[path] = table.frame[path]
        else:
            nested.setdefault(column, {})[path] = path[len(column) + 1 :].split(".")
    for column, paths in nested.items():
        needed = np.logical_or.reduce([wanted[path] for path in paths])
        code, objects = _objects(table, column, np.flatnonzero(needed))
        for path, keys in paths.items():
            values = np.full(len(table), None, dtype=object)
            values[needed] = _follow(objects, keys)[code]
            found[path] = pd.Series(values, dtype="object")
    return {path: _single(table, path, series) for path, series in found.items()}


def column_of(columns: Iterable[str], path: str) -> str | None:
    """Return the column with the longest name that is a prefix of a path, or None."""
    known, parts = set(columns), path.split(".")
    names = [".".join(parts[:k]) for k in range(len(parts), 0, -1)]
    return next((name for name in names if name in known), None)


def flag_absent(table: TableValidator, path: str, problem: str, remedy: str, unreadable: Mapping[str, str]) -> None:
    """Add the fault of a path without a column: there is none, or it has a type that is not read."""
    if (column := column_of(unreadable, path)) is not None:
        fault = Fault(table.file, f"the column is {unreadable[column]}, which is not read", UNNEST, column)
        if fault not in table.faults:  # several paths may lead into one column
            table.faults.append(fault)
    else:
        hint = nearest(path.split(".")[0], table.frame.columns)
        table.flag(problem, f"{remedy} {hint}", column=path)


def from_key_values(value: Any) -> dict[str, Any] | None:
    """Return a list of keys and values as an object, None for anything else, or if a key occurs twice.

    Google Analytics 4 exports parameters so: `[{"key": "page", "value": {"string_value": "/", "int_value": null}}]`. A
    value that is an object of types, such as this one, is its only entry that is not null.
    """
    if not isinstance(value, list | tuple | np.ndarray) or not all(isinstance(e, dict) and "key" in e for e in value):
        return None
    found = {str(entry["key"]): _typed(entry.get("value")) for entry in value}
    return found if len(found) == len(value) else None


def _typed(value: Any) -> Any:
    """Return the only value of an object of types (`string_value`, `int_value`); anything else as it is."""
    if not isinstance(value, dict) or not all(str(name).endswith("_value") for name in value):
        return value
    known = [one for one in value.values() if one is not None and one == one]
    return value if len(known) > 1 else next(iter(known), None)


def is_nested(value: Any) -> bool:
    """Return whether a value is a list, an object or bytes instead of one value."""
    return isinstance(value, dict | list | tuple | np.ndarray | bytes)


def _single(table: TableValidator, path: str, series: pd.Series) -> pd.Series:
    """Return the values of a path, None for lists and objects, which are faults."""
    if series.dtype != object or not pd.api.types.infer_dtype(series, skipna=True).startswith(("mixed", "bytes")):
        return series
    bad = series.map(is_nested).to_numpy(dtype=bool)
    if not bad.any():
        return series
    shown = TableValidator(pd.DataFrame({path: series.map(lambda value: str(value)[:80])}), table.file, table.faults)
    shown.flag_rows(path, bad, "this is a list or an object, not one value", f"Name one of its keys. {UNNEST}")
    return series.mask(bad, None)


def _objects(table: TableValidator, column: str, rows: IntArray) -> tuple[IntArray, ObjectArray]:
    """Return, for some rows (k,) of a column, the index of each row's JSON object (k,), and the objects, None last."""
    series = table.frame[column].iloc[rows]
    if pd.api.types.is_object_dtype(series) and series.map(is_nested).any():
        found = [one if isinstance(one, dict) else from_key_values(one) for one in series]
        nested = np.array([one is not None for one in found], dtype=bool)
        if nested.any():
            wrong = np.zeros(len(table), dtype=bool)
            wrong[rows] = series.map(lambda one: isinstance(one, list | tuple | np.ndarray)).to_numpy(bool) & ~nested
            table.flag_rows(column, wrong, "this list is not one of keys, each once, and values", UNNEST)
            return np.arange(len(rows)), _and_none(found)
    # Equal texts are parsed once; code -1 is a missing text, which is the last object.
    code, texts = pd.factorize(series.mask(table.missing(column)[rows], None))
    # Each text is parsed separately: joined, two invalid ones could make a valid one.
    objects = _and_none([_parse(str(text)) for text in texts])
    bad = np.array([not isinstance(value, dict) for value in objects], dtype=bool)
    bad[-1] = False
    wrong = np.zeros(len(table), dtype=bool)
    wrong[rows] = bad[code]
    table.flag_rows(
        column,
        wrong,
        "this is not a JSON object",
        'Write objects such as {"channel": "email"} with each key once; an export may have truncated them.',
    )
    return code.astype(np.int64), objects


def _and_none(objects: Sequence[Any] | ObjectArray) -> ObjectArray:
    out = np.full(len(objects) + 1, None, dtype=object)
    out[:-1] = objects
    return out


def _parse(text: str) -> Any:
    try:
        return parse_object(text) if not text.lstrip().startswith("[") else from_key_values(parse_array(text))
    except ValueError:  # not JSON, a number with thousands of digits, or deep nesting
        return None


def _follow(objects: ObjectArray, keys: Sequence[str]) -> ObjectArray:
    """Return the value under nested keys in each object (k,), None if there is none."""
    # pandas would convert integers to floats where some are missing, and round long ids to the same number.
    values = list(objects)
    for key in keys:
        values = [value.get(key) if isinstance(value, dict) else None for value in values]
    out = np.full(len(values), None, dtype=object)
    out[:] = [None if isinstance(value, float) and value != value else value for value in values]
    return out
