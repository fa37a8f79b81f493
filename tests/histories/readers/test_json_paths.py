"""Paths into JSON: each row has its own value, exactly as it was written, or a fault."""

from __future__ import annotations

from typing import Any

import numpy as np
import pandas as pd
import pytest

from crosschannel.core.table_validator import TableValidator
from crosschannel.histories.readers.json_paths import extract


def read(texts: list[Any], path: str = "p.r") -> tuple[list[Any], list[tuple[int | None, str | None, int]]]:
    """Values of a path as text, and the faults' rows, columns and counts."""
    table = TableValidator(pd.DataFrame({"p": texts}, dtype=object), "stream.csv", [])
    found = extract(table, {path: np.ones(len(texts), dtype=bool)})
    values = TableValidator(pd.DataFrame(found), "stream.csv", []).texts(path).tolist()
    return values, [(fault.row, fault.column, fault.count) for fault in table.faults]


@pytest.mark.parametrize("rest", ['{"other": 1}', None, '{"r": null}'])
def test_integers_stay_integers_where_a_row_has_none(rest: str | None):
    """2**53 and 2**53 + 1 are one floating-point number, and would be one user."""
    rows = ['{"r": 9007199254740992}', '{"r": 9007199254740993}', '{"r": 1}', '{"r": 10}', '{"r": 0.5}', rest]
    assert read(rows) == (["9007199254740992", "9007199254740993", "1", "10", "0.5", ""], [])


def test_integers_of_nested_columns_stay_integers():
    assert read([{"r": 2**53 + 1}, {"q": {"r": 2}}, None]) == (["9007199254740993", "", ""], [])
    assert read([{"q": {"r": 2}}, {"q": 1}, None], "p.q.r") == (["2", "", ""], [])


def test_a_broken_text_does_not_end_in_the_next_row():
    """Joined, these four are an array of four objects."""
    values, faults = read(['{"r":1},{"r":2}', '{"r":3,"x":[3', "4]}", '{"r":5}'])
    assert values == ["", "", "", "5"]
    assert faults == [(1, "p", 3)]


@pytest.mark.parametrize("value", ["[" * 100_000 + "]" * 100_000, "1" * 5_000])
def test_texts_that_the_parser_refuses_are_faults(value: str):
    values, faults = read(['{"r": 1}', f'{{"r": {value}}}'])
    assert (values, faults) == (["1", ""], [(2, "p", 1)])


@pytest.mark.parametrize("text", ["[1]", "1", "null", "NaN", '"r"'])
def test_json_that_is_no_object_is_a_fault(text: str):
    assert read([text, '{"r": NaN}']) == (["", ""], [(1, "p", 1)])
