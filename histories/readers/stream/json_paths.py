"""Properties of an event stream's rows: columns of their own, or paths into a column of JSON."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import pandas as pd

from crosschannel.core.arrays import BoolArray, IntArray
from crosschannel.core.errors import nearest
from crosschannel.core.table_validator import ObjectArray, Sheet


def extract(sheet: Sheet, wanted: Mapping[str, BoolArray]) -> dict[str, pd.Series]:
    """The values of each path, n rows each; None where a path into JSON leads to nothing, or a row does not need it.

    A path is the name of a column, or that of a column of JSON objects followed by keys (`properties.offer.id`). Where
    both are possible the longest name of a column is meant. JSON may be text, or the nested values of a Parquet file.
    Paths into one column are read together.

    Args:
        sheet: The rows; faults are added to it: a column that does not exist, or text that is no JSON object.
        wanted: For each path, the rows (n,) that need it.
    """
    found: dict[str, pd.Series] = {}
    nested: dict[str, dict[str, list[str]]] = {}
    for path in wanted:
        column = _column(sheet, path)
        if column is None:
            hint = nearest(path.split(".")[0], sheet.frame.columns)
            sheet.add("the file has no such column", f"Correct the mapping. {hint}", column=path)
        elif column == path:
            found[path] = sheet.frame[path]
        else:
            nested.setdefault(column, {})[path] = path[len(column) + 1 :].split(".")
    for column, paths in nested.items():
        needed = np.logical_or.reduce([wanted[path] for path in paths])
        code, objects = _objects(sheet, column, np.flatnonzero(needed))
        for path, keys in paths.items():
            values = np.full(len(sheet), None, dtype=object)
            values[needed] = _follow(objects, keys)[code]
            found[path] = pd.Series(values, dtype="object")
    return found


def _column(sheet: Sheet, path: str) -> str | None:
    """The longest name of a column that a path begins with, if there is one."""
    parts = path.split(".")
    names = [".".join(parts[:k]) for k in range(len(parts), 0, -1)]
    return next((name for name in names if sheet.has(name)), None)


def _objects(sheet: Sheet, column: str, rows: IntArray) -> tuple[IntArray, ObjectArray]:
    """The different JSON objects of some rows (k,) of a column, the last one empty, and which one each row has (k,)."""
    series = sheet.frame[column].iloc[rows]
    if pd.api.types.is_object_dtype(series) and (nested := series.map(lambda value: isinstance(value, dict))).any():
        return np.arange(len(rows)), _and_none(series.where(nested, None).to_numpy(dtype=object))
    # Rows share properties, and equal texts are parsed once: -1 is missing, and so the last object.
    code, texts = pd.factorize(series.mask(sheet.missing(column)[rows], None))
    # Each by itself: of texts that are parsed together two broken ones can make up a whole one.
    objects = _and_none([_parsed(str(text)) for text in texts])
    bad = np.array([not isinstance(value, dict) for value in objects], dtype=bool)
    bad[-1] = False
    wrong = np.zeros(len(sheet), dtype=bool)
    wrong[rows] = bad[code]
    sheet.note(
        column,
        wrong,
        "this is not a JSON object",
        'Write properties as in {"channel": "email"}; an export may have cut them off.',
    )
    return code.astype(np.int64), objects


def _and_none(objects: Sequence[Any] | ObjectArray) -> ObjectArray:
    out = np.full(len(objects) + 1, None, dtype=object)
    out[:-1] = objects
    return out


def _parsed(text: str) -> Any:
    try:
        return json.loads(text)
    except (ValueError, RecursionError):  # no JSON, a number of thousands of digits, brackets without end
        return None


def _follow(objects: ObjectArray, keys: Sequence[str]) -> ObjectArray:
    """What keys lead to in each object (k,), None where they lead nowhere."""
    # Not by pandas, which would make numbers floating where some are missing: long ids would be rounded together.
    values = list(objects)
    for key in keys:
        values = [value.get(key) if isinstance(value, dict) else None for value in values]
    out = np.full(len(values), None, dtype=object)
    out[:] = [None if isinstance(value, float) and value != value else value for value in values]
    return out
