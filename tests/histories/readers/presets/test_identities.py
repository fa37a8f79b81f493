"""Rows of anonymous ids get the user whom other rows name with them, unless several users are named."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest

from crosschannel.core.errors import ConfigError, InputError
from crosschannel.histories.readers.slots import SlotGrid
from crosschannel.histories.readers.sources import TableSource
from crosschannel.histories.readers.stream.identities import find_owners
from crosschannel.histories.readers.stream.mapping import Sends, StreamMapping
from crosschannel.histories.readers.stream.reader import read_stream

MODULES = ({"name": "channel", "actions": ["none", "email"]},)
#: User, anonymous id, time, event.
ROWS = [
    (None, "a", "2024-05-01T08:00Z", "Viewed"),
    (None, "b", "2024-05-01T08:10Z", "Viewed"),
    (None, "shared", "2024-05-01T08:20Z", "Viewed"),
    (None, "stranger", "2024-05-01T08:30Z", "Viewed"),
    ("7", "a", "2024-05-02T08:00Z", "Signed In"),
    ("7", "b", "2024-05-02T09:00Z", "Signed In"),
    ("7", "shared", "2024-05-02T10:00Z", "Viewed"),
    ("8", "shared", "2024-05-02T11:00Z", "Viewed"),
    ("7", None, "2024-05-02T12:00Z", "Sent"),
    (None, "a", "2024-05-03T08:00Z", "Viewed"),
]


def mapping(path: Path, rows: list[tuple[Any, ...]] = ROWS, **settings: Any) -> StreamMapping:
    columns = ["who", "device", "time", "event"]
    pd.DataFrame(rows, columns=columns).to_csv(path / "stream.csv", index=False)
    source = TableSource(path / "stream.csv", {"user_id": "who", "anonymous_id": "device"})
    sends = (Sends(("Sent",), constants={"channel": "email"}),)
    return StreamMapping(source, MODULES, sends, "sends_only", **settings)


def views(settings: StreamMapping) -> dict[str, int]:
    events = read_stream(settings).events_frame()
    return dict(events.query("event == 'Viewed'")["user_id"].astype(str).value_counts())


def test_earlier_and_later_rows_of_an_anonymous_id_become_the_users(tmp_path: Path):
    settings = mapping(tmp_path, anonymous="leave_out")
    assert views(settings) == {"7": 4, "8": 1}
    summary = read_stream(settings).summary()
    assert "3 rows of 2 anonymous ids became rows of the user whom the id names" in summary
    assert "left out: 1 rows of 1 anonymous ids that name several users, 1 rows of 1 anonymous ids that name" in summary
    assert "2 anonymous rows" in summary


def test_an_id_without_one_user_may_be_a_user_of_its_own(tmp_path: Path):
    assert views(mapping(tmp_path, anonymous="keep")) == {"7": 4, "8": 1, "shared": 1, "stranger": 1}
    assert "kept as users of their own: 1 rows" in read_stream(mapping(tmp_path, anonymous="keep")).summary()


def test_by_default_rows_without_a_user_are_faults(tmp_path: Path):
    with pytest.raises(InputError) as caught:
        read_stream(mapping(tmp_path))
    found = {(fault.column, fault.row, fault.problem) for fault in caught.value.faults}
    assert ("device", 3, "the row has no user, and its anonymous id names several") in found
    assert ("who", 3, "the user id is missing") in found
    assert {row for _, row, _ in found} == {3}, "each kind of fault at its first row"
    named = [row for row in ROWS if row[1] not in ("shared", "stranger") or row[0]]
    assert views(mapping(tmp_path, named)) == {"7": 4, "8": 1}


def test_an_anonymous_id_that_is_a_users_id_is_refused(tmp_path: Path):
    rows = [*ROWS, (None, "8", "2024-05-03T09:00Z", "Viewed")]
    with pytest.raises(InputError, match="would be merged with this user"):
        read_stream(mapping(tmp_path, rows, anonymous="keep"))
    assert views(mapping(tmp_path, rows, anonymous="leave_out")) == {"7": 4, "8": 1}


def test_words_for_nobody_do_not_merge_strangers(tmp_path: Path):
    rows = [("7", "null", *row[2:]) if row[1] == "a" and row[0] else row for row in ROWS]
    rows = [(user, "null" if device == "stranger" else device, *rest) for user, device, *rest in rows]
    assert views(mapping(tmp_path, rows, anonymous="leave_out")) == {"7": 2, "8": 1}


def test_the_order_of_the_rows_makes_no_difference(tmp_path: Path):
    expected = read_stream(mapping(tmp_path, anonymous="leave_out"))
    found = read_stream(mapping(tmp_path, ROWS[::-1], anonymous="leave_out"))
    pd.testing.assert_frame_equal(found.events_frame(), expected.events_frame())


def test_slots_begin_with_the_first_row_of_the_anonymous_id(tmp_path: Path):
    """Name the event that identifies as `start_events` where nothing can be sent to a visitor."""
    rows = [*ROWS, ("8", None, "2024-05-04T12:00Z", "Viewed")]
    first = replace(mapping(tmp_path, rows, anonymous="leave_out"), slots=SlotGrid("1d", "11:30"))
    signed_in = replace(first, slots=SlotGrid("1d", "11:30", start_events=("Signed In",)))
    days = [read_stream(one).decisions_frame().groupby("user_id")["time"].min() for one in (first, signed_in)]
    assert [str(one.iloc[0].date()) for one in days] == ["2024-05-01", "2024-05-02"]


def test_ids_are_merged_across_files_of_numbers_and_of_text(tmp_path: Path):
    """A user's numbers stay the same user where another file, with visitors, has them as text."""
    (tmp_path / "rows").mkdir()
    known = {"who": 7, "device": "a", "event": "Sent", "time": "2024-05-01T08:00Z"}
    (tmp_path / "rows/1.jsonl").write_text(json.dumps(known))
    visits = [{"who": None, "device": "a", "event": "Viewed", "time": f"2024-05-0{day}T08:00Z"} for day in (2, 3)]
    (tmp_path / "rows/2.jsonl").write_text("\n".join(map(json.dumps, visits)))
    settings = replace(mapping(tmp_path), rows=TableSource(tmp_path / "rows", mapping(tmp_path).rows.columns))
    history = read_stream(settings)
    assert history.user_ids.tolist() == ["7"]
    assert views(settings) == {"7": 2}


def test_keep_needs_anonymous_ids(tmp_path: Path):
    settings = mapping(tmp_path)
    with pytest.raises(ConfigError, match="anonymous_id"):
        replace(settings, rows=TableSource(settings.rows.path, {"user_id": "who"}), anonymous="keep")


@pytest.mark.parametrize("seed", range(20))
def test_owners_are_those_of_a_loop(seed: int):
    rng = np.random.default_rng(seed)
    user = rng.choice(np.array(["", "", "1", "2", "3"], dtype=object), 60)
    device = rng.choice(np.array(["", *"abcdefgh"], dtype=object), 60)
    found = find_owners(user, device)
    for row in range(60):
        named = {u for u, d in zip(user, device, strict=True) if u and d and d == device[row]}
        blank = not user[row] and device[row]
        assert found.user[row] == (user[row] or (min(named) if len(named) == 1 else ""))
        assert found.merged[row] == bool(blank and len(named) == 1)
        assert found.several[row] == bool(blank and len(named) > 1)
        assert found.unknown[row] == bool(blank and not named)
