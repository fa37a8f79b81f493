"""Read values of an event stream by paths: names of columns, or keys in a column of JSON."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import pandas as pd

from crosschannel.core.arrays import BoolArray, IntArray, ObjectArray
from crosschannel.core.errors import nearest
from crosschannel.core.table_validator import TableValidator


def extract(table: TableValidator, wanted: Mapping[str, BoolArray]) -> dict[str, pd.Series]:
    """Return the values (n,) of each path, None where JSON has no such key or a row is not wanted.

    A path is the name of a column, or that of a column of JSON objects followed by keys (`properties.offer.id`). If
    several columns match, the one with the longest name counts. JSON may be text, or the nested values of a Parquet
    file. Paths into one column are read together.

    Args:
        table: The rows; faults are added to it: a column that does not exist, or text that is not a JSON object.
        wanted: For each path, the mask of rows (n,) whose values are read.
    """
    found: dict[str, pd.Series] = {}
    nested: dict[str, dict[str, list[str]]] = {}
    for path in wanted:
        column = _column(table, path)
        if column is None:
            hint = nearest(path.split(".")[0], table.frame.columns)
            table.flag("the file has no such column", f"Correct the mapping. {hint}", column=path)
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
    return found


def _column(table: TableValidator, path: str) -> str | None:
    """Return the column with the longest name that is a prefix of a path, or None."""
    parts = path.split(".")
    names = [".".join(parts[:k]) for k in range(len(parts), 0, -1)]
    return next((name for name in names if table.has(name)), None)


def _objects(table: TableValidator, column: str, rows: IntArray) -> tuple[IntArray, ObjectArray]:
    """Return, for some rows (k,) of a column, the index of each row's JSON object (k,), and the objects, None last."""
    series = table.frame[column].iloc[rows]
    if pd.api.types.is_object_dtype(series) and (nested := series.map(lambda value: isinstance(value, dict))).any():
        return np.arange(len(rows)), _and_none(series.where(nested, None).to_numpy(dtype=object))
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
        'Write objects such as {"channel": "email"}; an export may have truncated them.',
    )
    return code.astype(np.int64), objects


def _and_none(objects: Sequence[Any] | ObjectArray) -> ObjectArray:
    out = np.full(len(objects) + 1, None, dtype=object)
    out[:-1] = objects
    return out


def _parse(text: str) -> Any:
    try:
        return json.loads(text)
    except (ValueError, RecursionError):  # not JSON, a number with thousands of digits, or deep nesting
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
