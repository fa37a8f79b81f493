"""Ids that mean nobody, that lost digits, and that name one user in two ways."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest

from crosschannel.core.action_space import ActionSpace, Module
from crosschannel.core.errors import InputError
from crosschannel.histories.eligibility import eligible_of_users, users_on_list
from crosschannel.histories.history import History
from crosschannel.histories.readers.slots import SlotGrid
from crosschannel.histories.readers.sources import TableSource
from crosschannel.histories.readers.stream.mapping import Sends, StreamMapping
from crosschannel.histories.readers.stream.reader import read_stream
from crosschannel.histories.values.identifiers import (
    differ_in_case,
    first_spelling,
    known_spelling,
    lost_digits,
    means_nobody,
)

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
    "NA",
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
        ["1.23457E+11", "1e+05", " 9.007199254740993e+15", "1.5e17", "12e4", "3e45a", "17", "1.5", None], dtype=object
    )
    assert lost_digits(text).tolist() == [True, True, True, True, False, False, False, False, False]
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


MODULES = ActionSpace([Module("channel", ("none", "email"))])


def tables(decided: list[Any], happened: list[Any], listed: list[Any] | None = None) -> dict[str, Any]:
    """Native tables with these users in decisions, in events, and in the table of users."""
    n, e = len(decided), len(happened)
    days = pd.date_range("2024-03-01", periods=max(n, e), freq="h", tz="UTC")
    return {
        "decisions": pd.DataFrame(
            {"decision_id": np.arange(n), "user_id": decided, "time": days[:n], "channel": "email"}
        ),
        "events": pd.DataFrame({"user_id": happened, "time": days[:e], "event": "order"}),
        "modules": MODULES,
        "users": None if listed is None else pd.DataFrame({"user_id": listed, "age": np.arange(len(listed))}),
    }


def faults(*columns: Any) -> list[tuple[str, int | None, Any, int]]:
    with pytest.raises(InputError) as caught:
        History.from_tables(**tables(*columns))
    return [(fault.file, fault.row, fault.value, fault.count) for fault in caught.value.faults]


@pytest.mark.parametrize("nobody", ["null", "None", "undefined", "(not set)", "anonymous", "0" * 32])
def test_rows_of_nobody_are_counted_and_refused(nobody: str) -> None:
    assert faults(["a", "b"], ["a", nobody, nobody]) == [("events", 2, nobody, 2)]
    assert faults(["a", nobody], ["a"], ["a", nobody]) == [("users", 2, nobody, 1), ("decisions", 2, nobody, 1)]


def test_a_user_written_in_two_ways_is_refused() -> None:
    assert faults(["42", "042", "7"], ["7"]) == [("decisions", 2, "042", 1)]
    assert faults(["42", "7"], ["42.0", "7.0", "7.0"]) == [("events", 1, "42.0", 3)]
    assert faults([42, 7], ["42", "007"]) == [("events", 2, "007", 1)]
    assert faults(["ann ", "bob "], ["bob"], ["ann", "bob"]) == [("decisions", 1, "ann ", 2)]
    assert faults(["A@x.org", "b@x.org"], ["a@x.org"]) == [("events", 1, "a@x.org", 1)]


def test_the_fault_names_the_other_spelling() -> None:
    with pytest.raises(InputError, match=r"row 2, value '42\.0': the same user is also written '42'\. Write ids"):
        History.from_tables(**tables(["42", "7"], ["7", "42.0"]))


def test_rounded_ids_are_refused() -> None:
    assert faults(["1.23457E+11", "5"], ["5"]) == [("decisions", 1, "1.23457E+11", 1)]
    assert faults(np.array([2.0**53, 5.0]), [5]) == [("decisions", 1, 2.0**53, 1), ("events", 1, 5, 1)]
    large = [2**60, 2**60 + 1]
    assert History.from_tables(**tables(large, large[:1])).user_ids.tolist() == large


def test_whole_floats_are_integers() -> None:
    history = History.from_tables(**tables([42, 7], np.array([42.0, 7.0]), [7, 42]))
    assert history.user_ids.tolist() == [7, 42]


def test_ids_that_differ_in_case_are_two_users_and_a_note() -> None:
    history = History.from_tables(**tables(["abC", "abc", "x"], ["x"]))
    assert history.n_users == 3
    assert "1 ids differ from another one only in case, such as 'abc' and 'abC'" in history.summary()
    assert History.from_tables(**tables(["abC", "x"], ["x"])).notes == ()


def test_a_table_in_another_case_is_of_the_same_users() -> None:
    """They were twice as many users, none of whom had both messages and orders: an effect of 0."""
    ids = [f"user_{k}" for k in range(8)]
    upper = [one.upper() for one in ids]
    assert faults(ids, upper + upper) == [("events", 1, "USER_0", 16)]
    assert faults(ids, ids[:3], upper) == [("decisions", 1, "user_0", 8), ("events", 1, "user_0", 3)]
    few = History.from_tables(**tables(ids, [*ids[:5], *upper[:5]], [*ids, *upper[:5]]))
    assert few.n_users == 13


def test_one_user_with_most_rows_is_a_note() -> None:
    many = [f"u{i:02d}" for i in range(30)]
    history = History.from_tables(**tables(many, [*many, *["u07"] * 60]))
    assert "u07 has 62 of 120 rows, 31 times as many as the next user" in history.summary()
    assert History.from_tables(**tables(many, [*many, *["u07"] * 3])).notes == ()


@pytest.mark.parametrize("ids", [[3, 10, 2, 1], ["b", "a", "10", "9"]])
def test_the_order_of_the_table_of_users_changes_nothing(ids: list[Any]) -> None:
    found = []
    for order in ([0, 1, 2, 3], [2, 0, 3, 1]):
        given = tables(ids[:3], ids[1:], ids)
        given["users"] = given["users"].iloc[order]
        found.append(History.from_tables(**given))
    assert found[0].fingerprint() == found[1].fingerprint()
    for name in ("user", "time", "id"):
        np.testing.assert_array_equal(getattr(found[0].decisions, name), getattr(found[1].decisions, name))
    pd.testing.assert_frame_equal(found[0].users, found[1].users)


def test_whole_numbers_have_one_order_whatever_their_type() -> None:
    number = History.from_tables(**tables([3, 10, 2], [2]))
    text = History.from_tables(**tables(["3", "10", "2"], ["2"]))
    assert number.user_ids.tolist() == [2, 3, 10]
    assert text.user_ids.tolist() == ["2", "3", "10"]
    np.testing.assert_array_equal(number.decisions.time, text.decisions.time)


def test_a_decision_id_that_is_rounded_or_nothing_is_refused() -> None:
    given = tables(["a", "b"], ["a"])
    given["decisions"]["decision_id"] = ["null", "1.2E+17"]
    with pytest.raises(InputError, match=r"'decision_id', row 1, value 'null': this is not an id.* \(2 rows in all\)"):
        History.from_tables(**given)


def test_streams_find_the_same(tmp_path: Path) -> None:
    rows = "\n".join(f"{user},2024-03-0{day}T12:00Z,{event}" for user, day, event in STREAM)
    mapping = StreamMapping(
        rows=TableSource(tmp_path / "s.csv"),
        modules=({"name": "channel", "actions": ["none", "email"]},),
        sends=(Sends(("Sent",), constants={"channel": "email"}),),
        slots=SlotGrid("1d", "09:00"),
    )
    for old, new, problem in (
        ("bob,2024-03-02", "null,2024-03-02", "value 'null': the user id means nobody"),
        ("bob,2024-03-02", "bob ,2024-03-02", "value 'bob ': the same user is also written 'bob'"),
        ("bob,2024-03-02", "1.5e+17,2024-03-02", "rounded number"),
    ):
        (tmp_path / "s.csv").write_text("user_id,time,event\n" + rows.replace(old, new))
        with pytest.raises(InputError, match=problem):
            read_stream(mapping)
    (tmp_path / "s.csv").write_text("user_id,time,event\n" + rows)
    (tmp_path / "s.csv").write_text(
        "user_id,time,event\n" + rows + "\nnull,2024-03-02T12:00Z,Open\n,2024-03-02T12:00Z,Open"
    )
    history = read_stream(replace(mapping, anonymous="leave_out"))
    assert history.user_ids.tolist() == ["ann", "bob"]
    assert "2 anonymous rows" in history.summary()
    (tmp_path / "s.csv").write_text("user_id,time,event\n" + rows)
    users = pd.DataFrame({"user_id": ["bob", "ann"], "since": ["2024-03-02", "2024-03-01"], "age": [30, 40]})
    found = []
    for order in ([0, 1], [1, 0]):
        users.iloc[order].to_csv(tmp_path / "u.csv", index=False)
        slots = replace(mapping.slots, start_attribute="since") if isinstance(mapping.slots, SlotGrid) else ""
        found.append(read_stream(replace(mapping, users=TableSource(tmp_path / "u.csv"), slots=slots)))
    assert found[0].users is not None
    assert found[0].users["age"].tolist() == [40, 30]
    assert found[0].fingerprint() == found[1].fingerprint()
    assert found[0].notes == found[1].notes


STREAM = [
    (user, day, event) for user in ("ann", "bob") for day in range(1, 8) for event in ("Open", "Sent")[: 1 + day % 2]
]


@pytest.mark.parametrize("word", ["null", "undefined", "0" * 32, "1.2E+17"])
def test_message_ids_that_mean_none_are_not_retries(tmp_path: Path, word: str) -> None:
    rows = [f"ann,2024-03-0{day}T12:00Z,Open,{word if day < 5 else day}" for day in range(1, 8)]
    rows += [f"ann,2024-03-0{day}T12:30Z,Sent,s{day}" for day in range(2, 8)]
    (tmp_path / "s.csv").write_text("user_id,time,event,id\n" + "\n".join(rows))
    mapping = StreamMapping(
        rows=TableSource(tmp_path / "s.csv", {"message_id": "id"}),
        modules=({"name": "channel", "actions": ["none", "email"]},),
        sends=(Sends(("Sent",), constants={"channel": "email"}),),
        slots=SlotGrid("1d", "09:00"),
        duplicates="keep_first",
    )
    with pytest.raises(
        InputError, match=r"column 'id', row 1, .*different messages would count as one \(4 rows in all\)"
    ):
        read_stream(mapping)


def test_known_users_are_found_in_another_spelling():
    known = np.array(["000123", "000456", "ann@shop.com", "aB"], dtype=object)
    ids = np.array(["123", "000456", "456.0", "ANN@shop.com", "Ab", "124", ""], dtype=object)
    assert known_spelling(ids, known).tolist() == ["000123", "", "000456", "ann@shop.com", "", "", ""]
    assert known_spelling(np.array(["0042", "42"], dtype=object), np.array([7, 42])).tolist() == ["42", ""]
    assert known_spelling(ids[:0], known).tolist() == []


def test_lists_of_users_whose_ids_lost_their_zeros_are_refused(tmp_path: Path):
    """A spreadsheet has saved the list: the users would get nothing, and nobody would know."""
    users, file = np.array(["000123", "400000"], dtype=object), tmp_path / "list.csv"
    pd.DataFrame({"user_id": ["400000", "123"], "eligible_channel": ["email", "email"]}).to_csv(file, index=False)
    expected = "column 'user_id', row 2, value '123': the log writes this user '000123'"
    with pytest.raises(InputError, match=expected) as refused:
        eligible_of_users(file, ActionSpace([Module("channel", ("none", "email"))]), users)
    assert len(refused.value.faults) == 1
    with pytest.raises(InputError, match=expected):
        users_on_list(file, users)
