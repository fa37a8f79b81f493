"""Parse JSON objects exactly: integers stay integers, and a key that occurs twice is refused."""

from __future__ import annotations

import json
import re
from collections.abc import Iterable
from itertools import chain
from typing import Any

import numpy as np
import pandas as pd

_SURROGATE = re.compile(r"\\u[dD][89a-fA-F]")


def _unique(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    found = dict(pairs)
    if len(found) < len(pairs):
        names = [name for name, _ in pairs]
        raise ValueError(f"the key {next(name for name in names if names.count(name) > 1)!r} occurs twice")
    return found


#: One for all texts, since making one takes as long as a short text.
_DECODER = json.JSONDecoder(object_pairs_hook=_unique)


class BadLine(ValueError):
    """A line that is not a JSON object; `row` is its number among the lines that are not blank."""

    def __init__(self, problem: str, row: int, text: str) -> None:
        super().__init__(problem)
        self.row = row
        self.text = text.strip()[:80]


def parse_object(text: str) -> dict[str, Any]:
    """Return the object of a JSON text.

    Raises:
        ValueError: If the text is not a JSON object, has a key twice or half a character, or is nested too deeply.
    """
    value = _decoded(text)
    if not isinstance(value, dict):
        raise ValueError("it is not an object")
    if _SURROGATE.search(text):
        _check_characters(value)
    return value


def _decoded(text: str) -> Any:
    try:
        return _DECODER.decode(text)
    except RecursionError:
        raise ValueError("it is nested too deeply") from None


def objects_frame(lines: Iterable[str]) -> pd.DataFrame:
    """Return a table of the JSON objects in lines, one row for each, None where an object lacks a key.

    A text that begins with `[` is one array of objects.

    Raises:
        BadLine: With the first line that is not an object.
    """
    objects: list[dict[str, Any]] = []
    filled = (line for line in lines if not line.isspace())
    first = next(filled, None)
    if first is None:
        return pd.DataFrame()
    if first.lstrip("\ufeff \t").startswith("["):
        objects = _array("".join(chain([first], filled)))
    else:
        for line in chain([first], filled):
            try:
                objects.append(parse_object(line))
            except ValueError as error:
                what = "JSON" if isinstance(error, json.JSONDecodeError) else "a JSON object"
                raise BadLine(f"this line is not {what}: {error}", len(objects) + 1, line) from None
    names = dict.fromkeys(chain.from_iterable(objects))
    return pd.DataFrame({name: values_column([one.get(name) for one in objects]) for name in names})


def parse_array(text: str) -> list[Any]:
    """Return the list of a JSON text.

    Raises:
        ValueError: If the text is not a JSON list, has a key twice or half a character, or is nested too deeply.
    """
    values = _decoded(text)
    if not isinstance(values, list):
        raise ValueError("it is not a list")
    _check_characters(values)
    return values


def _array(text: str) -> list[dict[str, Any]]:
    try:
        values = parse_array(text)
    except ValueError as error:
        raise BadLine(f"this is not an array of JSON objects: {error}", 1, text) from None
    for row, value in enumerate(values, start=1):
        if not isinstance(value, dict):
            raise BadLine("this entry of the array is not a JSON object", row, json.dumps(value))
    return values


def _check_characters(value: Any) -> None:
    try:
        json.dumps(value, ensure_ascii=False).encode()
    except UnicodeEncodeError:
        raise ValueError("it has half of a character, such as \\ud83d alone") from None


def values_column(values: list[Any]) -> pd.Series:
    """Return values as numbers if all of them are, else unconverted: a float would round long integers."""
    kind = pd.api.types.infer_dtype(values, skipna=False)
    if kind == "integer" and all(-(2**63) <= value < 2**63 for value in values):
        return pd.Series(values, dtype=np.int64)
    if kind in ("floating", "boolean"):
        return pd.Series(values)
    out = np.full(len(values), None, dtype=object)
    out[:] = values
    return pd.Series(out, dtype=object)
