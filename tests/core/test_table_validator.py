"""Texts and numbers of columns whatever their values are: a fault of their row, and never an exception."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest

from crosschannel.core.errors import Fault
from crosschannel.core.table_validator import TableValidator


def table(*values: object) -> TableValidator:
    return TableValidator(pd.DataFrame({"x": pd.Series(values)}), "log.csv", list[Fault]())


@pytest.mark.parametrize("value", [[1], {"a": 1}, ("a",)])
def test_lists_and_objects_are_not_texts_or_numbers(value: object):
    found = table("a", value, 7)
    found.texts("x")
    found.texts("x")
    assert [(fault.row, fault.problem) for fault in found.faults] == [(2, "this is a list or an object, not a text")]
    found = table(1.5, value, 7)
    numbers, missing = found.numbers("x")
    np.testing.assert_array_equal(numbers, [1.5, np.nan, 7])
    assert not missing.any()
    assert [(fault.row, fault.problem) for fault in found.faults] == [(2, "this is not a number")]


def test_true_among_numbers_is_not_one():
    found = table(1.5, True, None)
    assert np.isnan(found.numbers("x")[0][1:]).all()
    assert [(fault.row, fault.value) for fault in found.faults] == [(2, True)]
    for values in ((True, False), (True, None)):
        found = table(*values)
        assert found.numbers("x")[0][0] == 1.0
        assert not found.faults


def test_a_time_after_the_year_9999_is_named_and_is_a_text():
    late = np.array(["2024-05-01", "294247-01-10"], dtype="datetime64[us]")
    found = TableValidator(pd.DataFrame({"x": pd.to_datetime(late, utc=True)}), "log.csv", [])
    found.times("x")
    assert [(fault.row, fault.value) for fault in found.faults] == [(2, "294247-01-10T00:00:00.000000")]
    for column in (found.frame["x"], found.frame["x"].astype(object)):
        found.frame["x"] = column
        assert [text[:12] for text in found.texts("x")] == ["2024-05-01 0", "294247-01-10"]


def test_numbers_beyond_the_largest_float_are_infinite():
    numbers, _ = table(1, 10**400, -(10**400), "1e400").numbers("x")
    assert numbers.tolist() == [1.0, np.inf, -np.inf, np.inf]
