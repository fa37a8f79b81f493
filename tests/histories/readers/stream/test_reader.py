"""One event stream as a history: round trips, slots on a calendar, and messages with the stream's own rows."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest

from crosschannel.core.action_space import ActionSpace
from crosschannel.core.errors import ConfigError, InputError
from crosschannel.core.times import HOUR
from crosschannel.envs.market import Market, MarketConfig, simulate_history
from crosschannel.histories.features import ContextSpec
from crosschannel.histories.history import History
from crosschannel.histories.readers.slots import SlotGrid
from crosschannel.histories.readers.sources import TableSource
from crosschannel.histories.readers.stream.mapping import Sends, StreamMapping
from crosschannel.histories.readers.stream.reader import read_stream
from crosschannel.pipeline.building import prepare
from crosschannel.pipeline.configuration import Config, HistoryConfig, RewardConfig, read_config, write_config
from crosschannel.reward import Goal

MODULES = (
    {"name": "channel", "actions": ["none", "email", "push"]},
    {"name": "offer", "actions": ["small", "large"]},
)
SENDS = (
    Sends(("Email Sent",), {"offer": "properties.offer.size"}, {"channel": "email"}),
    Sends(("Push Sent",), {"offer": "properties.offer.size"}, {"channel": "push"}),
)
COLUMNS = {"user_id": "userId", "time": "sentAt", "message_id": "messageId"}
DAILY = SlotGrid("1d", "09:00")
#: User, time, event, properties: two users, three whole days of slots at 09:00 after each user's first row.
ROWS: list[tuple[str, str, str, dict[str, Any]]] = [
    ("007", "2024-05-01T08:00Z", "Page Viewed", {"path": "/"}),
    ("007", "2024-05-02T09:05Z", "Email Sent", {"offer": {"size": "large"}, "arm": "test"}),
    ("007", "2024-05-02T09:30Z", "Email Opened", {}),
    ("007", "2024-05-02T10:00Z", "Order Completed", {"revenue": 12.5, "items": [1, 2]}),
    ("NA", "2024-05-01T23:00Z", "Page Viewed", {"path": "/offers"}),
    ("NA", "2024-05-03T08:59Z", "Push Sent", {"offer": {"size": "small"}}),
    ("007", "2024-05-04T12:00Z", "Page Viewed", {}),
]


def write(path: Path, rows: list[tuple[str, str, str, dict[str, Any]]] = ROWS, first: int = 0) -> None:
    frame = pd.DataFrame(rows, columns=["userId", "sentAt", "event", "properties"])
    frame["properties"] = frame["properties"].map(json.dumps)
    frame["messageId"] = [f"m{first + i}" for i in range(len(frame))]
    frame.to_parquet(path) if path.suffix == ".parquet" else frame.to_csv(path, index=False)


@pytest.fixture
def mapping(tmp_path: Path) -> StreamMapping:
    write(tmp_path / "stream.csv")
    source = TableSource(tmp_path / "stream.csv", COLUMNS)
    return StreamMapping(source, MODULES, SENDS, DAILY, values={"Order*": "properties.revenue"}, name="shop")


def edit(mapping: StreamMapping, old: str, new: str) -> None:
    text = mapping.rows.path.read_text()
    assert old in text
    mapping.rows.path.write_text(text.replace(old, new))


def slots_of(history: History) -> list[tuple[str, str, tuple[str, ...]]]:
    d = history.decisions
    times = [str(time)[:16] for time in d.time.astype("datetime64[us]")]
    return list(zip(history.user_ids[d.user].tolist(), times, history.modules.names_of(d.actions), strict=True))


def faults_of(mapping: StreamMapping) -> list[tuple[str | None, int | None, Any, str]]:
    with pytest.raises(InputError) as caught:
        read_stream(mapping)
    return [(f.column, f.row, f.value, f.problem) for f in caught.value.faults]


def test_a_slot_without_a_send_is_a_decision_to_send_nothing(mapping: StreamMapping):
    history = read_stream(mapping)
    assert slots_of(history) == [
        ("007", "2024-05-01T09:00", ("none",)),
        ("007", "2024-05-02T09:00", ("email", "large")),
        ("007", "2024-05-03T09:00", ("none",)),
        # The send at 08:59 lies in the period of the day before.
        ("NA", "2024-05-02T09:00", ("push", "small")),
        ("NA", "2024-05-03T09:00", ("none",)),
    ]
    assert history.decisions.id.tolist()[:2] == ["007@2024-05-01T09:00", "007@2024-05-02T09:00"]
    events = history.events_frame()
    assert events["event"].tolist() == ["Page Viewed", "Email Opened", "Order Completed", "Page Viewed", "Page Viewed"]
    assert events["value"].tolist() == [1.0, 1.0, 12.5, 1.0, 1.0]
    assert history.propensity_source == "missing"
    assert history.users is None
    assert "7 rows in 1 file, 2 of them sends" in history.summary()
    assert "slots every 1d at 09:00 UTC: 5, 2 with a send" in history.summary()
    assert "sends are 12.0 h (median) to 24.0 h after their slot; 0.0% of them follow an event" in (history.summary())


def test_sends_only_says_what_cannot_be_learned(mapping: StreamMapping):
    history = read_stream(replace(mapping, slots="sends_only"))
    assert slots_of(history) == [
        ("007", "2024-05-02T09:05", ("email", "large")),
        ("NA", "2024-05-03T08:59", ("push", "small")),
    ]
    assert "nothing can be learned about sending nothing" in history.summary()


def test_logged_decisions_to_send_nothing_are_slots_of_their_own(mapping: StreamMapping):
    """A platform that logs every decision gives slots, propensities and policies without any grid."""
    edit(mapping, "Email Opened,{}", 'Decided,"{""chosen"": ""none"", ""p"": 0.25}"')
    edit(mapping, "Email Sent", "Decided")
    edit(mapping, '""arm"": ""test""', '""chosen"": ""email"", ""p"": 0.5')
    edit(mapping, "Push Sent", "Decided")
    edit(
        mapping,
        '{""offer"": {""size"": ""small""}',
        '{""p"": 0.25, ""chosen"": ""push"", ""offer"": {""size"": ""small""}',
    )
    columns = {"channel": "properties.chosen", "offer": "properties.offer.size", "propensity": "properties.p"}
    sends = (Sends(("Decided",), {**columns, "decision_id": "messageId"}, {"policy": "journey"}),)
    history = read_stream(replace(mapping, sends=sends, slots="sends_only"))
    assert [action for *_, action in slots_of(history)] == [("email", "large"), ("none",), ("push", "small")]
    assert history.decisions.joint.tolist() == [0.5, 0.25, 0.25]
    assert history.decisions.id.tolist() == ["m1", "m2", "m5"]
    assert history.decisions.policy is not None
    assert set(history.decisions.policy) == {"journey"}
    assert history.propensity_source == "logged"
    assert "sends only" not in history.summary()


@pytest.mark.parametrize("form", ["csv.gz", "parquet", "nested", "columns", "folder", "seconds"])
def test_the_form_of_the_stream_makes_no_difference(mapping: StreamMapping, tmp_path: Path, form: str):
    expected = read_stream(mapping)
    frame = pd.read_csv(mapping.rows.path, dtype=str, keep_default_na=False)
    path, source, sends, values = tmp_path / f"other.{form}", mapping.rows, mapping.sends, mapping.values
    if form == "csv.gz":
        frame.to_csv(path, index=False)
    elif form == "parquet":
        frame.to_parquet(path)
    elif form == "nested":
        path = tmp_path / "nested.parquet"
        frame["properties"] = [row[3] for row in ROWS]
        frame.to_parquet(path)
    elif form == "columns":
        path = tmp_path / "columns.parquet"
        frame["size"] = [row[3].get("offer", {}).get("size") for row in ROWS]
        frame["revenue"] = [row[3].get("revenue") for row in ROWS]
        frame.drop(columns="properties").to_parquet(path)
        sends = tuple(replace(one, columns={"offer": "size"}) for one in sends)
        values = {"*": "revenue"}
    elif form == "folder":
        path.mkdir()
        frame[:3].to_csv(path / "2.csv", index=False)
        # A file whose events need no property may lack the column.
        frame[6:].drop(columns="properties").to_parquet(path / "3.parquet")
        frame[3:6].to_parquet(path / "1.parquet")
        (path / "_SUCCESS").write_text("")
    else:
        path = tmp_path / "seconds.csv"
        frame["sentAt"] = pd.to_datetime(frame["sentAt"]).astype("datetime64[s, UTC]").astype(np.int64)
        frame.to_csv(path, index=False)
        source = replace(source, time_unit="s")
    found = read_stream(replace(mapping, rows=replace(source, path=path), sends=sends, values=values))
    pd.testing.assert_frame_equal(found.decisions_frame(), expected.decisions_frame())
    pd.testing.assert_frame_equal(found.events_frame(), expected.events_frame())
    assert found.span == expected.span


def test_slots_begin_and_end_with_what_was_known(mapping: StreamMapping, tmp_path: Path):
    write(
        tmp_path / "stream.csv",
        [
            *ROWS,
            ("new", "2024-05-02T08:00Z", "Signed Up", {}),
            ("new", "2024-05-02T12:00Z", "Email Sent", {"offer": {"size": "small"}}),
            ("new", "2024-05-03T08:00Z", "Unsubscribed", {}),
            ("new", "2024-05-03T12:00Z", "Push Sent", {"offer": {"size": "small"}}),
        ],
    )
    grid = replace(DAILY, start_events=("Signed Up",), leave_events=("Unsubscribed",))
    history = read_stream(replace(mapping, slots=grid))
    assert slots_of(history) == [("new", "2024-05-02T09:00", ("email", "small"))]
    assert "3 sends outside all slots" in history.summary()
    assert "2 users without a slot" in history.summary()
    assert (history.events_frame()["event"] == "Push Sent").sum() == 2, "sends that are no decisions stay events"

    (tmp_path / "users.csv").write_text(
        "id,since,town\nnew,2024-05-03,Bonn\n007,2024-05-02T09:00,Kyiv\nNA,2025-01-01,Oslo\n"
    )
    users = TableSource(tmp_path / "users.csv", {"user_id": "id"})
    history = read_stream(replace(mapping, users=users, slots=replace(DAILY, start_attribute="since")))
    assert [(user, time) for user, time, _ in slots_of(history)] == [
        ("007", "2024-05-03T09:00"),
        ("new", "2024-05-03T09:00"),
    ]
    assert history.users is not None
    assert history.users["town"].tolist() == ["Kyiv", "Oslo", "Bonn"]
    assert history.users.columns.tolist() == ["user_id", "town"]
    everywhere = read_stream(replace(mapping, slots=replace(DAILY, start="stream")))
    assert np.bincount(everywhere.decisions.user).tolist() == [3, 3, 3]


def test_what_comes_later_does_not_make_a_slot(mapping: StreamMapping, tmp_path: Path):
    """A longer stream has more slots; those there were before stay, with the same ids and actions."""
    short = slots_of(read_stream(mapping))
    write(tmp_path / "stream.csv", [*ROWS, ("007", "2024-05-09T12:00Z", "Page Viewed", {})])
    assert [slot for slot in slots_of(read_stream(mapping)) if slot[1] < "2024-05-04"] == short


def test_more_than_one_send_in_a_period(mapping: StreamMapping, tmp_path: Path):
    extra = ("007", "2024-05-02T09:04:59Z", "Push Sent", {"offer": {"size": "small"}})
    write(tmp_path / "stream.csv", [*ROWS, extra])
    # The later one by time, not by its place in the file, is at fault.
    assert faults_of(mapping) == [
        ("sentAt", 2, "2024-05-02T09:05Z", "the user has an earlier send in the same slot's period of 1d")
    ]
    history = read_stream(replace(mapping, slots=replace(DAILY, several="first")))
    assert ("007", "2024-05-02T09:00", ("push", "small")) in slots_of(history)
    assert "Email Sent" in history.event_names
    assert "1 sends outside all slots or after another send of their slot" in history.summary()
    finer = read_stream(replace(mapping, slots=SlotGrid("1min", "00:00")))
    assert finer.modules.sends(finer.decisions.actions).sum() == 3


def test_rows_that_stand_twice(mapping: StreamMapping):
    text = mapping.rows.path.read_text().splitlines()
    mapping.rows.path.write_text("\n".join([*text, text[2], text[4]]) + "\n")
    assert faults_of(mapping) == [("messageId", 8, "m1", "the row repeats an earlier one")]
    once = read_stream(replace(mapping, duplicates="keep_first"))
    assert "left out: 2 duplicates" in once.summary()
    assert len(once.events) == 5
    # Equal ids of different users or events are no copies, whatever is declared.
    edit(mapping, "NA,2024-05-01T23:00Z,Page Viewed", "NA,2024-05-01T23:00Z,Order Returned")
    edit(mapping, '""/offers""}",m4', '""/offers""}",m0')
    assert faults_of(replace(mapping, duplicates="keep_first"))[0][:3] == ("messageId", 5, "m0")


def test_retries_of_a_message_count_once_at_the_time_of_the_first(mapping: StreamMapping):
    """A client that sends again stamps each try with its own time, and the earliest need not come first in the file."""
    expected = read_stream(mapping)
    header, *lines = mapping.rows.path.read_text().splitlines()
    retries = [lines[k].replace(old, new) for k, old, new in ((3, "10:00Z", "10:00:07Z"), (1, "09:05Z", "11:05Z"))]
    mapping.rows.path.write_text("\n".join([header, *retries, *lines]) + "\n")
    assert [(row, problem) for _, row, _, problem in faults_of(mapping)] == [
        (1, "the row repeats an earlier one at a later time")
    ]
    found = read_stream(replace(mapping, duplicates="keep_first"))
    pd.testing.assert_frame_equal(found.decisions_frame(), expected.decisions_frame())
    pd.testing.assert_frame_equal(found.events_frame(), expected.events_frame())
    assert "2 duplicates" in found.summary()
    assert "2 are retries of the same message 1.0 h (median) to 2.0 h after the first" in found.summary()
    assert found.span == expected.span


def test_anonymous_rows_are_left_out_where_that_is_declared(mapping: StreamMapping):
    text = mapping.rows.path.read_text().replace("NA,", "ann,")
    mapping.rows.path.write_text(text)
    expected = read_stream(mapping)
    mapping.rows.path.write_text(text + ",2024-05-03T08:00Z,Page Viewed,{},m90\n,2024-06-03T08:00Z,Email Sent,{},\n")
    assert [fault[:2] for fault in faults_of(mapping)] == [("userId", 8)]
    found = read_stream(replace(mapping, anonymous="leave_out"))
    pd.testing.assert_frame_equal(found.decisions_frame(), expected.decisions_frame())
    pd.testing.assert_frame_equal(found.events_frame(), expected.events_frame())
    assert found.span == expected.span, "an anonymous row does not extend the observation period either"
    assert "2 anonymous rows" in found.summary()


def test_arms_of_slots_are_the_latest_that_were_known(mapping: StreamMapping):
    source = replace(mapping.rows, columns={**COLUMNS, "arm": "properties.arm"})
    edit(mapping, 'Page Viewed,"{""path"": ""/offers""}"', 'Page Viewed,"{""arm"": ""holdout""}"')
    history = read_stream(replace(mapping, rows=source))
    assert history.decisions.arm is not None
    # The send's own row comes after its slot: what it names may be due to it.
    assert history.decisions.arm.tolist() == [None, None, "test", "holdout", "holdout"]


@pytest.mark.parametrize("number", [1, 2**53 + 1])
def test_numbers_in_json_stay_as_they_are(mapping: StreamMapping, number: int):
    """2^53 + 1 is the first whole number that no floating one can tell from its neighbour."""
    rows = [
        (user, time, event, {**more, "uid": number if user == "007" else number - 1})
        for user, time, event, more in ROWS
    ]
    write(mapping.rows.path, rows)
    source = replace(mapping.rows, columns={**COLUMNS, "user_id": "properties.uid"})
    assert read_stream(replace(mapping, rows=source)).user_ids.tolist() == [str(number - 1), str(number)]


@pytest.mark.parametrize("text", ['{"a": ' + "[" * 100_000, '{"a": ' + "1" * 5000 + "}", '{"a": [1', "4]}"])
def test_what_is_no_json_is_a_fault_with_its_row(mapping: StreamMapping, text: str):
    frame = pd.read_csv(mapping.rows.path, dtype=str, keep_default_na=False)
    frame.loc[3, "properties"] = text
    frame.to_csv(mapping.rows.path, index=False)
    assert [fault[:2] for fault in faults_of(mapping)] == [("properties", 4)]


def test_a_message_after_leaving_is_no_decision(mapping: StreamMapping):
    """Such as one that confirms it: the slot began before, and nothing was sent in it while the user was there."""
    edit(mapping, "Email Opened", "Unsubscribed")
    edit(mapping, "2024-05-02T10:00Z,Order Completed", "2024-05-02T10:00Z,Email Sent")
    edit(mapping, '""revenue"": 12.5', '""offer"": {""size"": ""small""}')
    grid = replace(DAILY, leave_events=("Unsubscribed",))
    history = read_stream(replace(mapping, slots=grid, values={}))
    assert [slot for slot in slots_of(history) if slot[0] == "007"][1:] == [
        ("007", "2024-05-02T09:00", ("email", "large"))
    ]
    assert "1 sends outside all slots" in history.summary()


def test_on_a_grid_no_row_decides_to_send_nothing(mapping: StreamMapping):
    sends = (SENDS[0], Sends(("Push Sent",), {}, {"channel": "none", "offer": "small"}))
    found = faults_of(replace(mapping, sends=sends))
    assert [fault[:2] for fault in found] == [("event", 6)]
    assert "assumes for every slot without a send" in found[0][3]


@pytest.mark.parametrize("time", ["2024-05-02T09:20Z", "2024-05-01T08:30Z"])
def test_nor_does_one_behind_a_send_or_outside_all_slots(mapping: StreamMapping, time: str):
    write(mapping.rows.path, [*ROWS, ("007", time, "Nothing Sent", {})])
    sends = (*SENDS, Sends(("Nothing Sent",), {}, {"channel": "none", "offer": "small"}))
    found = faults_of(replace(mapping, sends=sends, slots=replace(DAILY, several="first")))
    assert [fault[:2] for fault in found] == [("event", 8)]


def test_a_path_that_leads_nowhere_is_a_fault(mapping: StreamMapping):
    nowhere, nothing = "has a value at this path", "no event matches 'Ordr*'"
    edit(mapping, '{""path"": ""/""}', '{""price"": 3}')
    for values, problem in (
        ({"Order*": "properties.revnue"}, nowhere),
        ({"Ordr*": "properties.revenue"}, nothing),
        # That another event has a value there, or another entry the same path, helps neither.
        ({"Page*": "properties.price", "Order*": "properties.price"}, nowhere),
        ({"Order*": "properties.revenue", "Ordr*": "properties.revenue"}, nothing),
    ):
        assert problem in faults_of(replace(mapping, values=values))[0][3]
    # Where the first entry that fits has all of an entry's events, nothing is looked up there.
    shadowed = {"Order Completed": "properties.revenue", "Order*": "properties.none"}
    assert read_stream(replace(mapping, values=shadowed)).events.value.max() == 12.5


@pytest.mark.parametrize("digits", [400, 4000])
def test_a_value_too_large_for_a_number_is_a_fault_with_its_row(mapping: StreamMapping, digits: int):
    edit(mapping, "12.5", "1" * digits)
    assert [fault[:2] for fault in faults_of(mapping)] == [("properties.revenue", 4)]


def test_times_in_a_zone_where_the_clocks_change(mapping: StreamMapping, tmp_path: Path):
    """Slots stay at 09:00 on the wall; a time that comes twice is no time."""
    rows = [("u", "2024-03-29 08:00", "Page Viewed", {}), ("u", "2024-04-02 12:00", "Page Viewed", {})]
    offer = {"offer": {"size": "small"}}
    sends = [("u", "2024-03-30 09:10", "Email Sent", offer), ("u", "2024-03-31 09:10", "Push Sent", offer)]
    write(tmp_path / "stream.csv", rows + sends)
    berlin = replace(mapping, rows=replace(mapping.rows, time_zone="Europe/Berlin"), values={})
    history = read_stream(replace(berlin, slots=SlotGrid("1d", "09:00", "Europe/Berlin")))
    assert [(time, action[0]) for _, time, action in slots_of(history)] == [
        ("2024-03-29T08:00", "none"),
        ("2024-03-30T08:00", "email"),
        ("2024-03-31T07:00", "push"),
        ("2024-04-01T07:00", "none"),
    ]
    edit(mapping, "2024-03-31 09:10", "2024-03-31 02:30")
    ((column, row, value, problem),) = faults_of(berlin)
    assert (column, row, value) == ("sentAt", 4, "2024-03-31 02:30")
    assert "occurs twice or not at all" in problem


@pytest.mark.parametrize(
    ("old", "new", "expected"),
    [
        ("2024-05-02T09:05Z", "soon", ("sentAt", 2, "soon", "this is not a time")),
        ("2024-05-02T09:05Z", "", ("sentAt", 2, None, "the time is missing")),
        ("2024-05-02T09:05Z", "1714640700", ("sentAt", 2, "1714640700", "this is not a time")),
        ("NA,2024-05-03T08:59Z", ",2024-05-03T08:59Z", ("userId", 6, None, "the user id is missing")),
        ("Email Opened", "", ("event", 3, None, "the event has no name")),
        (",m3", ",", ("messageId", 4, None, "the message id is missing")),
        ("Push Sent", "Pushed", ("event", None, "Push Sent", "the mapping names this event, but no row has it")),
        ('""large""', '""huge""', ("properties.offer.size", 2, "huge", "this is not an action of the module 'offer'")),
        ('""size"": ""large""', '""tone"": 1', ("properties.offer.size", 2, None, "the action is missing although")),
        ('""test""}"', '""te"', ("properties", 2, None, "this is not a JSON object")),
        ("12.5", '""much""', ("properties.revenue", 4, "much", "this is not a number")),
        ("messageId", "id", ("messageId", None, None, "the file has no such column")),
        ("userId", "user", ("userId", None, None, "the file has no such column")),
    ],
)
def test_faults_have_the_streams_own_rows_and_columns(mapping: StreamMapping, old: str, new: str, expected: tuple):
    edit(mapping, old, new)
    column, row, value, problem = faults_of(mapping)[0]
    assert (column, row) == expected[:2]
    assert problem.startswith(expected[3])
    if expected[2] is not None:
        assert value == expected[2]


def test_all_faults_of_a_kind_are_told_at_once_with_their_files(mapping: StreamMapping, tmp_path: Path):
    folder = tmp_path / "folder"
    folder.mkdir()
    bad = [("a", "never", "Page Viewed", {}), ("b", "2024-05-01T10:00Z", "Email Sent", {}), ("c", "when", "x", {})]
    write(folder / "1.csv", bad)
    write(folder / "2.csv", bad, first=3)
    (folder / "3.csv").write_text("userId,userId\n1,2\n")
    with pytest.raises(InputError) as caught:
        read_stream(replace(mapping, rows=replace(mapping.rows, path=folder)))
    assert [Path(fault.file).name for fault in caught.value.faults] == ["3.csv"]
    (folder / "3.csv").unlink()
    with pytest.raises(InputError) as caught:
        read_stream(replace(mapping, rows=replace(mapping.rows, path=folder)))
    found = [(Path(f.file).name, f.row, f.count) for f in caught.value.faults if f.problem == "this is not a time"]
    assert found == [("1.csv", 1, 2), ("2.csv", 1, 2)]
    assert [f.value for f in caught.value.faults if "no row has it" in f.problem] == ["Push Sent"]


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda m: replace(m, slots="sends"), "neither 'sends_only' nor a grid"),
        (lambda m: replace(m, sends=()), "no `sends`"),
        (lambda m: replace(m, sends=(Sends(("A",), {"channel": "x"}),)), "lack ['offer']"),
        (lambda m: replace(m, sends=(*m.sends, m.sends[0])), "in `sends` twice"),
        (lambda m: replace(m, events=("Email Sent",)), "are sends: remove them"),
        (lambda m: replace(m, sends=(replace(m.sends[0], columns={"ofer": "x"}),)), "Did you mean 'offer'?"),
        (lambda m: replace(m, rows=replace(m.rows, columns={"when": "x"})), "unknown native column 'when'"),
        (
            lambda m: replace(m, rows=TableSource(m.rows.path), duplicates="keep_first"),
            "needs `rows.columns.message",
        ),
        (lambda m: replace(m, propensity_source="by design"), "slots without a send have no row"),
        (
            lambda m: replace(
                m, sends=tuple(replace(s, constants={**s.constants, "propensity": "1"}) for s in m.sends)
            ),
            "['propensity', 'propensity'] cannot be mapped",
        ),
        (lambda m: replace(m, slots=replace(DAILY, start_attribute="since")), "give `users`"),
        (lambda m: replace(DAILY, every="5h"), "neither a number of days nor a fraction of a day"),
        (lambda m: replace(DAILY, every="30s"), "not a whole number of minutes"),
        (lambda m: replace(DAILY, every="36h"), "neither a number of days nor a fraction of a day"),
        (lambda m: replace(DAILY, at="9:00"), "not a time of day"),
        (lambda m: replace(DAILY, time_zone="Mars"), "unknown time zone 'Mars'"),
        (lambda m: replace(DAILY, start="stream", start_events=("A",)), "only one of"),
        (lambda m: Sends(()), "need `events`"),
        (lambda m: Sends(("A",), {"channel": "x"}, {"channel": "y"}), "as columns and as constants"),
    ],
)
def test_a_wrong_mapping_is_refused_before_any_file_is_read(mapping: StreamMapping, change, message: str):
    with pytest.raises(ConfigError) as caught:
        change(mapping)
    assert message in str(caught.value)


def test_a_stream_shorter_than_a_period(mapping: StreamMapping):
    with pytest.raises(InputError, match="does not cover one complete period of 7d at 09:00 UTC"):
        read_stream(replace(mapping, slots=replace(DAILY, every="7d")))


def market_stream(folder: Path, users: int) -> tuple[History, StreamMapping]:
    """A market's history, and the stream that a platform would have logged of it: sends some time after their slot."""
    history, _ = simulate_history(Market(MarketConfig(users=users, days=6)))
    sent = history.modules.sends(history.decisions.actions)
    d = history.decisions_frame()[sent]
    rng = np.random.default_rng(0)
    lag = rng.integers(0, 20 * HOUR, len(d))
    properties = d[["decision_id", *history.modules.names]].to_dict("records")
    rows = pd.DataFrame(
        {
            "user": d["user_id"],
            "ts": d["time"] + pd.to_timedelta(lag, unit="us"),
            "name": "Message Sent",
            "props": [json.dumps(one) for one in properties],
        }
    )
    e = history.events_frame().rename(columns={"user_id": "user", "time": "ts", "event": "name"})
    e["props"] = [json.dumps({"value": value}) for value in e.pop("value")]
    # In the order of time, as platforms export.
    pd.concat([rows, e]).sort_values("ts", kind="stable").to_parquet(folder / "stream.parquet")
    assert history.users is not None
    history.users.assign(since="2024-01-15T05:00").to_csv(folder / "users.csv", index=False)
    path = {name: f"props.{name}" for name in history.modules.names}
    first, last = np.array(history.span, dtype="datetime64[us]")
    return history, StreamMapping(
        TableSource(folder / "stream.parquet", {"user_id": "user", "time": "ts", "event": "name"}),
        tuple({"condition_on": None, **entry} for entry in history.modules.to_dict()),
        (Sends(("Message Sent",), {**path, "decision_id": "props.decision_id"}),),
        SlotGrid("1d", "08:00", "Europe/Athens", start_attribute="since", leave_events=("unsubscribed",)),
        values={"*": "props.value"},
        users=TableSource(folder / "users.csv"),
        span=(str(first), str(last)),
        name=history.name,
    )


def test_a_market_written_as_a_stream_comes_back(tmp_path: Path):
    history, mapping = market_stream(tmp_path, users=300)
    assert len(history.decisions) < 300 * 6, "some unsubscribe, and have no more slots"
    found = read_stream(mapping)
    sent = history.modules.sends(history.decisions.actions)
    for name in ("user", "time", "actions"):
        np.testing.assert_array_equal(getattr(found.decisions, name), getattr(history.decisions, name))
    np.testing.assert_array_equal(found.decisions.id[sent], history.decisions.id[sent])
    # Events of one moment stand in the order of the names' codes, which are sorted where a reader finds them.
    order = ["user_id", "time", "event", "value"]
    pd.testing.assert_frame_equal(
        found.events_frame().sort_values(order, ignore_index=True),
        history.events_frame().sort_values(order, ignore_index=True),
    )
    pd.testing.assert_frame_equal(found.users, history.users, check_dtype=False)
    assert (found.span, found.modules, found.n_users) == (history.span, history.modules, history.n_users)
    assert found.modules == ActionSpace.from_mapping(mapping.modules)


def test_a_configuration_names_a_stream_and_learns_from_it(tmp_path: Path):
    """From YAML to rewards: sends have controls, and the same rewards as those of the history that was written."""
    history, mapping = market_stream(tmp_path, users=300)
    reward = RewardConfig(goals=(Goal("order:*"), Goal("visit:*", weight=0.1)), pre="2d", post="1d", overlap="exclude")
    stream = HistoryConfig("stream", stream=mapping)
    write_config(Config(history=stream, reward=reward, context=ContextSpec(windows=("2d",))), tmp_path / "run.yaml")
    config = read_config(tmp_path / "run.yaml")
    assert config.history == stream
    prepared = prepare(config)
    assert prepared.history.propensity_source == "estimated"
    sent = prepared.train.history.modules.sends(prepared.train.history.decisions.actions)
    expected = prepared.model.fit(history.select_users(prepared.part == "train"))
    expected = expected.transform(history.select_users(prepared.part == "train"))
    assert np.isfinite(prepared.train.rewards.reward[sent]).mean() > 0.3
    np.testing.assert_array_equal(prepared.train.rewards.reward, expected.reward)


@pytest.mark.parametrize(("at", "shares"), [("09:00", ("100.0%", "0.0%")), ("12:00", ("0.0%", "0.0%"))])
def test_messages_that_answer_what_a_user_did_after_the_slot_show(
    mapping: StreamMapping, at: str, shares: tuple[str, str]
):
    """Push messages two minutes after a visit at noon: a slot in the morning would pay the visit to the message."""
    rows: list[tuple[str, str, str, dict[str, Any]]] = [
        ("a", "2024-05-01T08:00Z", "Signed Up", {}),
        ("b", "2024-05-01T08:00Z", "Signed Up", {}),
        ("a", "2024-05-02T11:59Z", "Cart Left", {}),
        ("a", "2024-05-02T12:01Z", "Push Sent", {"offer": {"size": "small"}}),
        ("b", "2024-05-05T12:01Z", "Signed Up", {}),
    ]
    write(mapping.rows.path, rows)
    history = read_stream(replace(mapping, sends=SENDS[1:], values={}, slots=SlotGrid("1d", at)))
    assert f"{shares[0]} of them follow an event of the user in between, and {shares[1]} of slots" in history.summary()


def test_users_are_observed_from_the_start_that_is_declared_or_an_earlier_row(mapping: StreamMapping, tmp_path: Path):
    """Events that are not kept are signs of life as well."""

    def starts(changed: StreamMapping) -> list[str]:
        history = read_stream(changed)
        return [str(time)[:13] for time in history.observed_from.astype("datetime64[us]")]

    first = ["2024-05-01T08", "2024-05-01T23"]
    assert starts(mapping) == first
    assert starts(replace(mapping, events=("Order Completed",))) == first
    assert starts(replace(mapping, slots=replace(DAILY, start="stream"))) == ["2024-05-01T08", "2024-05-01T08"]
    (tmp_path / "users.csv").write_text("id,since\n007,2024-05-02T09:00\nNA,2024-05-01T12:00\n")
    users = TableSource(tmp_path / "users.csv", {"user_id": "id"})
    declared = replace(mapping, users=users, slots=replace(DAILY, start_attribute="since"))
    assert starts(declared) == ["2024-05-01T08", "2024-05-01T12"]
    (tmp_path / "users.csv").write_text("id,observed_from\n007,2024-05-02T09:00\nNA,2024-05-01T12:00\n")
    assert starts(replace(mapping, users=users)) == ["2024-05-02T09", "2024-05-01T12"]
