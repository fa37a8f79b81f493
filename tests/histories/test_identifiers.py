"""Ids that mean nobody, that lost digits, and that name one user in two ways."""

from __future__ import annotations

import numpy as np
import pytest

from crosschannel.histories.identifiers import differ_in_case, first_spelling, lost_digits, means_nobody

NOBODY = [
    *(None, np.nan, "", "  ", "null", "NULL", "Null", "None", "nan", "NaN", "N/A", "#N/A", "<NA>", "NaT", "undefined"),
    *(
        "anonymous",
        "Anonymous",
        "(anonymous)",
        "unknown",
        "guest",
        "-",
        "--",
        "(not set)",
        "(none)",
        " null ",
        '"null"',
    ),
    *("00000000-0000-0000-0000-000000000000", "{00000000-0000-0000-0000-000000000000}", "0" * 32, "0" * 16, "\\N"),
    *("ffffffff-ffff-ffff-ffff-ffffffffffff", "FFFFFFFF-FFFF-FFFF-FFFF-FFFFFFFFFFFF", "\ufeffnull", "-1", "not set"),
]
SOMEBODY = [
    *("0", "00", "00000000", "1", "-2", "ann", "nullarbor", "guest17", "u_unknown", "unknown@example.com", "a", "x-1"),
    *("00000000-0000-0000-0000-000000000001", "nanette", "None42", "\ud800"),
]


@pytest.mark.parametrize("one", NOBODY)
def test_it_means_nobody(one: object) -> None:
    assert means_nobody(np.array(["ann", one, "bob"], dtype=object)).tolist() == [False, True, False]


@pytest.mark.parametrize("one", SOMEBODY)
def test_it_means_somebody(one: object) -> None:
    assert means_nobody(np.array([one, None], dtype=object)).tolist() == [False, True]


def test_of_numbers_only_minus_one_means_nobody() -> None:
    assert means_nobody(np.array([0, -1, 7])).tolist() == [False, True, False]
    assert means_nobody(np.array([0.0, -1.0, np.nan])).tolist() == [False, True, True]


def test_rounded_numbers_lost_digits() -> None:
    text = np.array(
        ["1.23457E+11", "1e+05", " 9.007199254740993e+15", "12e4", "3e45a", "17", "1.5", None], dtype=object
    )
    assert lost_digits(text).tolist() == [True, True, True, False, False, False, False, False]
    assert lost_digits(np.array([2.0**53, 2.0**53 - 1, np.nan])).tolist() == [True, False, False]
    assert lost_digits(np.array([2**60, 5])).tolist() == [False, False]


SAME = [
    ("42", "042"),
    ("42", "42.0"),
    ("42", "42.00"),
    ("42", " 42"),
    ("42", "42\t"),
    ("42", "42\u00a0"),
    ("42", "\ufeff42"),
    ("42", "+42"),
    ("0", "00"),
    ("ann", "ann "),
    ("Ann@Example.com", "ann@example.com"),
    ("JOSE\u0301", "JOS\u00c9"),
    ("6f1c2d3e-aaaa-4bbb-8ccc-0123456789ab", "6F1C2D3E-AAAA-4BBB-8CCC-0123456789AB"),
    ("6f1c2d3e-aaaa-4bbb-8ccc-0123456789ab", "{6f1c2d3e-aaaa-4bbb-8ccc-0123456789ab}"),
    ("6f1c2d3e-aaaa-4bbb-8ccc-0123456789ab", "6f1c2d3eaaaa4bbb8ccc0123456789ab"),
    ("6f1c2d3e-aaaa-4bbb-8ccc-0123456789ab", "urn:uuid:6f1c2d3e-aaaa-4bbb-8ccc-0123456789ab"),
    ("DEADBEEF00112233", "deadbeef00112233"),
]
OTHER = [
    *(("42", "420"), ("42", "4.2"), ("42", "-42"), ("42", "42a"), ("1.5", "01.5"), ("abC", "abc"), ("U17", "u17")),
    *(("001D000000IRFma", "001D000000IRFmA"), ("a b", "ab"), ("ann@a.org", "ann@b.org"), ("a-b", "a_b")),
]


@pytest.mark.parametrize(("one", "again"), SAME)
def test_one_user_is_written_twice(one: str, again: str) -> None:
    assert first_spelling(np.array(["bob", one, "cem", again], dtype=object)).tolist() == [0, 1, 2, 1]


@pytest.mark.parametrize(("one", "other"), OTHER)
def test_two_users_look_alike(one: str, other: str) -> None:
    assert first_spelling(np.array([one, other], dtype=object)).tolist() == [0, 1]


def test_ids_that_differ_in_case_are_counted() -> None:
    assert differ_in_case(np.array(["abC", "abc", "ABC", "abd"], dtype=object)) == 2
    assert differ_in_case(np.array([1, 2])) == 0
    assert differ_in_case(np.array([], dtype=object)) == 0
    assert len(first_spelling(np.array([], dtype=object))) == 0
