"""Each vendor's documented layout gives the history of the same events in the native folder."""

from __future__ import annotations

from dataclasses import replace
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import pandas as pd
import pytest

from crosschannel.core.errors import ConfigError, InputError
from crosschannel.histories.history import History
from crosschannel.histories.readers.folder import read_history
from crosschannel.histories.readers.presets import PRESETS
from crosschannel.histories.readers.sources import TableSource
from crosschannel.histories.readers.stream.mapping import Sends, StreamMapping
from crosschannel.histories.readers.stream.reader import read_stream
from tests.histories.readers.presets.vendors import MODULES, ORDER, SENT, VENDORS, compressed, native, shop

LAYOUTS = [
    pytest.param(
        name,
        marks=pytest.mark.skipif(
            name.endswith("avro") and find_spec("fastavro") is None, reason="fastavro (the extra avro) is not installed"
        ),
    )
    for name in VENDORS
]


def mapping(name: str, path: Path, **settings: Any) -> StreamMapping:
    vendor = VENDORS[name]
    return StreamMapping(
        **{
            "rows": TableSource(path),
            "modules": MODULES,
            "sends": (Sends((vendor.names.get(SENT, SENT),), {"offer": vendor.offer}, {"channel": "email"}),),
            "slots": "sends_only",
            "values": {vendor.names.get(ORDER, ORDER): vendor.value},
            "preset": name.split()[0],
            **settings,
        }
    )


def assert_same(found: History, expected: History) -> None:
    left, right = (one.decisions_frame().drop(columns="decision_id") for one in (found, expected))
    pd.testing.assert_frame_equal(left, right)
    pd.testing.assert_frame_equal(found.events_frame(), expected.events_frame())


@pytest.mark.parametrize("name", LAYOUTS)
def test_a_vendors_layout_gives_the_history_of_the_native_folder(tmp_path: Path, name: str):
    events = shop()
    vendor = VENDORS[name]
    expected = read_history(native(events, tmp_path / "native", vendor.names))
    found = read_stream(mapping(name, vendor.write(events, tmp_path / "vendor")))
    assert len(found.decisions) == (events["event"] == SENT).sum() > 20
    revenue = found.events_frame().query("event == @name", local_dict={"name": vendor.names.get(ORDER, ORDER)})
    assert revenue["value"].sum() == pytest.approx(events["revenue"].sum(), abs=1e-9)
    assert_same(found, expected)


def test_every_preset_is_tested():
    assert {name.split()[0] for name in VENDORS} == set(PRESETS)


@pytest.mark.parametrize("name", LAYOUTS)
def test_rows_that_were_exported_twice_are_found(tmp_path: Path, name: str):
    """GA4 does not identify events, so that copies cannot be found: that is refused, and not passed over."""
    events = shop()
    path = VENDORS[name].write(events, tmp_path / "vendor")
    if name.startswith("ga4"):
        with pytest.raises(ConfigError, match="message_id"):
            mapping(name, path, duplicates="keep_first")
        return
    again = VENDORS[name].write(events.tail(5), tmp_path / "again")
    once = read_stream(mapping(name, path))
    both = (TableSource(path), TableSource(again))
    with pytest.raises(InputError, match="repeats an earlier"):
        read_stream(mapping(name, path, rows=both))
    twice = read_stream(mapping(name, path, rows=both, duplicates="keep_first"))
    assert "5 duplicates" in twice.summary()
    assert_same(twice, once)


def test_what_the_user_writes_comes_first(tmp_path: Path):
    events = shop()
    path = VENDORS["segment"].write(events, tmp_path)
    own = TableSource(path, {"time": "receivedAt", "user_id": "anonymousId"})
    found = read_stream(mapping("segment", path, rows=own))
    assert set(found.user_ids) == set(events["device"])
    first = found.decisions_frame()["time"].min()
    assert first == events.loc[events["event"] == SENT, "time"].min() + pd.Timedelta("2s")


def test_a_constant_of_the_user_comes_first(tmp_path: Path):
    row = {"timestamp": "2024-01-15T06:00:00Z", "userId": "u1", "type": "track", "event": "x", "offer": "small"}
    compressed(tmp_path / "a.jsonl.gz", [row, row | {"timestamp": "2024-01-16T06:00:00Z", "event": "y"}])
    source = TableSource(tmp_path / "a.jsonl.gz", constants={"event": SENT})
    sends = (Sends((SENT,), {"offer": "offer"}, {"channel": "email"}),)
    assert len(read_stream(mapping("segment", source.path, rows=source, sends=sends, values={})).decisions) == 2


def test_own_times_have_their_own_unit(tmp_path: Path):
    lines = [
        {"event": SENT, "at": 1705302000000, "properties": {"distinct_id": "a", "offer": "small"}},
        {"event": ORDER, "at": 1705302001000, "properties": {"distinct_id": "a", "revenue": 2}},
    ]
    compressed(tmp_path / "a.jsonl.gz", lines)
    source = TableSource(tmp_path / "a.jsonl.gz", {"time": "at"}, time_unit="ms")
    found = read_stream(mapping("mixpanel", source.path, rows=source))
    assert found.decisions_frame()["time"].tolist() == [pd.Timestamp("2024-01-15T07:00Z")]
    with pytest.raises(InputError, match="at"):  # numbers without a unit
        read_stream(mapping("mixpanel", source.path, rows=replace(source, time_unit=None)))


def test_numbers_on_the_clock_of_a_projects_zone(tmp_path: Path):
    """Mixpanel's older projects: 08:00 in Los Angeles is written as the number of 08:00 UTC, in summer and winter."""
    lines = [
        {"event": name, "properties": {"distinct_id": "a", "time": int(pd.Timestamp(at).timestamp()), "offer": "small"}}
        for name, at in ((SENT, "2024-01-15T08:00Z"), (SENT, "2024-07-15T08:00Z"))
    ]
    compressed(tmp_path / "a.jsonl.gz", lines)
    source = TableSource(tmp_path / "a.jsonl.gz", time_clock="local", time_zone="America/Los_Angeles")
    found = read_stream(mapping("mixpanel", source.path, rows=source, values={}))
    times = [pd.Timestamp("2024-01-15T16:00Z"), pd.Timestamp("2024-07-15T15:00Z")]
    assert found.decisions_frame()["time"].tolist() == times
    lines[0]["properties"]["time"] = int(pd.Timestamp("2024-11-03T01:30Z").timestamp())
    compressed(tmp_path / "a.jsonl.gz", lines)
    with pytest.raises(InputError, match="occurs twice or not at all"):
        read_stream(mapping("mixpanel", source.path, rows=source, values={}))


def test_an_export_without_ids_of_messages_has_no_copies_to_find(tmp_path: Path):
    """Lines as short as some exporters write them; the second file is of visitors who never signed in."""
    row = {"event": SENT, "timestamp": "2024-01-15T06:00:00Z", "properties": {"offer": "small"}}
    compressed(tmp_path / "logs/a.json.gz", [row | {"userId": "u1"}, row | {"userId": "u1", "timestamp": "2024-01-16"}])
    compressed(tmp_path / "logs/b.json.gz", [row | {"anonymousId": "d1", "event": ORDER, "properties": {"revenue": 2}}])
    settings = mapping("segment", tmp_path / "logs", anonymous="leave_out")
    found = read_stream(replace(settings, values={}))
    assert (found.n_users, len(found.decisions), len(found.events.time)) == (1, 2, 0)
    assert "1 anonymous rows" in found.summary()
    with pytest.raises(InputError, match="no row has an id of its message"):
        read_stream(replace(settings, values={}, duplicates="keep_first"))


def test_a_file_of_another_vendor_is_refused(tmp_path: Path):
    path = VENDORS["amplitude"].write(shop(), tmp_path)
    with pytest.raises(InputError, match="'timestamp'"):
        read_stream(mapping("segment", path))


def test_an_unknown_preset_names_the_nearest(tmp_path: Path):
    with pytest.raises(ConfigError, match="Did you mean 'mixpanel'"):
        mapping("segment", tmp_path, preset="mixpanle")
