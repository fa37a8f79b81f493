"""Times keep the zone that they state; others belong to the source's zone; a date is the beginning of its day."""

from __future__ import annotations

import datetime
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest

from crosschannel.core.errors import ConfigError, Fault
from crosschannel.core.table_validator import TableValidator
from crosschannel.histories.readers.tables import TableMapping, TableSource, read_tables
from crosschannel.histories.values.times import read_times

LA = "America/Los_Angeles"


def read(values: Any, **settings: Any) -> tuple[list[str | None], list[Fault]]:
    """Times as text in UTC, read as a reader does, and the faults."""
    faults: list[Fault] = []
    frame = pd.DataFrame({"time": values})
    table = TableValidator(frame, "a.csv", faults)
    parsed = pd.DataFrame({"time": read_times(table, "time", TableSource(Path("a.csv"), **settings))})
    stamp, valid = TableValidator(parsed, "a.csv", [] if faults else faults).times("time")
    texts = np.datetime_as_string(stamp.astype("datetime64[us]"), unit="s")
    return [str(text) if ok else None for text, ok in zip(texts, valid, strict=True)], faults


SAME = {
    "a date": "2024-03-04",
    "a date without dashes": "20240304",
    "a date with slashes": "2024/03/04",
    "midnight": "2024-03-04T00:00:00",
    "midnight after a space": "2024-03-04 00:00",
    "the same in UTC": "2024-03-04T08:00:00Z",
    "in UTC, in words": "2024-03-04 08:00:00 UTC",
    "with an offset": "2024-03-04T00:00:00-08:00",
    "with an offset of hours": "2024-03-04T00:00-08",
    "with an offset without a colon": "2024-03-04 09:00:00 +0100",
    "with spaces at its ends": " 2024-03-04 ",
}


@pytest.mark.parametrize("text", SAME.values(), ids=SAME)
def test_iso_times_of_a_zone(text: str) -> None:
    assert read([text], time_zone=LA) == (["2024-03-04T08:00:00"], [])


def test_a_column_may_mix_them() -> None:
    found, faults = read(list(SAME.values()), time_zone=LA)
    assert faults == []
    assert set(found) == {"2024-03-04T08:00:00"}


@pytest.mark.parametrize("day", ["2024-03-04", "2024-11-30", "2024-12-01", "2024-01-14"])
def test_the_end_of_a_date_is_not_an_offset(day: str) -> None:
    assert read([day], time_zone="Asia/Tokyo")[0] == [f"{np.datetime64(day) - 1}T15:00:00"]


FORMATS = {
    "%d/%m/%Y": "04/03/2024",
    "%d-%m-%Y": "04-03-2024",
    "%H:%M %d-%m-%Y": "00:00 04-03-2024",
    "%I:%M %p %m/%d/%Y": "12:00 AM 03/04/2024",
    "%Y%m%d": "20240304",
    "%d %b %Y %H:%M:%S": "04 Mar 2024 00:00:00",
    "%H:%M %d-%m-%Y %z": "09:00 04-03-2024 +0100",
    "%Y-%m-%d %H:%M %Z": "2024-03-04 08:00 UTC",
    "%d.%m.%Y %H:%M %Z": "04.03.2024 09:00 Europe/Berlin",
    "%Y-%m-%dT%H:%M:%SZ": "2024-03-04T08:00:00Z",
    "%Y-%m-%d %H:%M UTC": "2024-03-04 08:00 UTC",
}


@pytest.mark.parametrize(("form", "text"), FORMATS.items())
def test_formats_of_a_zone(form: str, text: str) -> None:
    assert read([text, None], time_zone=LA, time_format=form)[0] == ["2024-03-04T08:00:00", None]


@pytest.mark.parametrize(("form", "text"), list(FORMATS.items())[:6])
def test_formats_without_a_zone_are_utc(form: str, text: str) -> None:
    assert read([text], time_format=form) == (["2024-03-04T00:00:00"], [])


def test_percent_z_after_two_percents_is_text() -> None:
    assert read(["2024-03-04 %z"], time_format="%Y-%m-%d %%z", time_zone=LA)[0] == ["2024-03-04T08:00:00"]


def test_columns_of_parquet() -> None:
    dates = pd.Series([datetime.date(2024, 3, 4), None], dtype=object)
    naive = pd.Series(pd.to_datetime(["2024-03-04", None]))
    zoned = naive.dt.tz_localize("Europe/Berlin")
    assert read(dates, time_zone=LA)[0] == ["2024-03-04T08:00:00", None]
    assert read(naive, time_zone=LA)[0] == ["2024-03-04T08:00:00", None]
    assert read(zoned, time_zone=LA)[0] == ["2024-03-03T23:00:00", None]
    assert read(dates)[0] == ["2024-03-04T00:00:00", None]
    # A unit is of numbers: a column of times keeps the zone's rule.
    assert read(naive, time_zone=LA, time_unit="ms")[0] == ["2024-03-04T08:00:00", None]
    mixed = pd.Series([datetime.date(2024, 3, 4), datetime.datetime(2024, 3, 4, 8, tzinfo=datetime.UTC)], dtype=object)
    assert read(mixed, time_zone=LA)[0] == ["2024-03-04T08:00:00"] * 2


def test_numbers_state_their_zone() -> None:
    assert read([1_709_539_200], time_unit="s", time_zone=LA)[0] == ["2024-03-04T08:00:00"]
    assert read([45355], time_unit="d", time_origin="1899-12-30T00:00-08:00")[0] == ["2024-03-04T08:00:00"]


def test_clock_changes() -> None:
    found, faults = read(["2024-03-10T02:30:00", "2024-11-03 01:30", "2024-03-10T03:30"], time_zone=LA)
    assert found[2] == "2024-03-10T10:30:00"
    assert [(fault.row, fault.count) for fault in faults] == [(1, 2)]
    assert "occurs twice or not at all" in faults[0].problem


@pytest.mark.parametrize("form", [None, "%Y-%m-%d"])
def test_a_day_that_does_not_begin_at_midnight_is_a_day(form: str | None) -> None:
    # In Cairo clocks went from 00:00 to 01:00 on 26 April 2024; in Havana 00:00 to 01:00 occurred twice on 3 November.
    assert read(["2024-04-26"], time_zone="Africa/Cairo", time_format=form) == (["2024-04-25T22:00:00"], [])
    assert read(["2024-11-03"], time_zone="America/Havana", time_format=form) == (["2024-11-03T04:00:00"], [])
    assert read(pd.to_datetime(["2024-04-26"]), time_zone="Africa/Cairo")[0] == ["2024-04-25T22:00:00"]
    assert len(read(["2024-04-26T00:00", "2024-04-26T02:00"], time_zone="Africa/Cairo")[1]) == 1


def test_nanoseconds_stand_beside_years_that_they_cannot_reach() -> None:
    texts = ["2024-03-04T08:00:00.123456789Z", "2400-01-01T00:00:00Z", "2024-03-05"]
    for settings in ({}, {"time_zone": "Europe/Berlin"}):
        found, faults = read(texts, **settings)
        assert found[0] == "2024-03-04T08:00:00"
        assert [(fault.row, fault.problem) for fault in faults] == [(2, "the time is outside the years 1990 to 2099")]


@pytest.mark.parametrize("text", ["2024-03", "2024", "yesterday", "2024-13-01", "04/03/2024", "2024-02-30", "nan"])
def test_what_is_not_a_time_is_named(text: str) -> None:
    for settings in ({}, {"time_zone": LA}):
        faults = read(["2024-03-04", text], **settings)[1]
        assert [(fault.row, fault.value, fault.column) for fault in faults] == [(2, text, "time")]


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"time_format": "%H:%M"}, "no complete date"),
        ({"time_format": "%Y-%m"}, "no complete date"),
        ({"time_format": "mixed"}, "cannot be read"),
        ({"time_format": "dd/mm/yyyy"}, "no complete date"),
        ({"time_format": "%s"}, "cannot be read"),
        ({"time_format": "%Y-%m-%d%"}, "cannot be read"),
        ({"time_format": "%d/%m/%Y %I:%M"}, "%p"),
        ({"time_format": "%Y-%m-%d %H:%M CET"}, "ends in 'CET'"),
        ({"time_format": "%Y-%m-%d %H:%M+01:00"}, r"ends in '\+01:00'"),
        ({"time_zone": "Mars"}, "time zone"),
        ({"time_zone": ""}, "time zone"),
        ({"time_unit": "fortnight"}, "unknown time unit"),
        ({"time_unit": "s", "time_format": "%d/%m/%Y"}, "not both"),
        ({"time_unit": "d", "time_zone": LA}, "origin with its offset"),
    ],
)
def test_settings_that_no_time_can_be_read_with(settings: dict[str, Any], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        TableSource(Path("a.csv"), **settings)


def micro(*texts: str) -> np.ndarray[Any, np.dtype[np.int64]]:
    return np.array(texts, dtype="datetime64[us]").astype(np.int64)


def test_a_log_of_dates_equals_one_of_midnights(tmp_path: Path) -> None:
    n = 60
    days = pd.date_range("2024-03-01", periods=n, freq="D")
    frame = pd.DataFrame({"decision_id": range(n), "user_id": np.arange(n) % 7, "channel": ["none", "email"] * 30})
    events = pd.DataFrame({"user_id": [0], "time": ["2024-03-05T12:00Z"], "event": ["order"]})
    events.to_csv(tmp_path / "events.csv", index=False)
    frame.assign(time=days.strftime("%Y-%m-%d")).to_csv(tmp_path / "text.csv", index=False)
    frame.assign(time=days.strftime("%Y-%m-%dT%H:%M:%S")).to_csv(tmp_path / "midnight.csv", index=False)
    frame.assign(time=days.date).to_parquet(tmp_path / "date32.parquet", index=False)
    frame.assign(time=days.tz_localize(LA).tz_convert("UTC")).to_parquet(tmp_path / "utc.parquet", index=False)
    times = []
    for name in ("text.csv", "midnight.csv", "date32.parquet", "utc.parquet"):
        mapping = TableMapping(
            decisions=TableSource(tmp_path / name, time_zone=LA),
            events=(TableSource(tmp_path / "events.csv"),),
            modules=({"name": "channel", "actions": ["none", "email"]},),
        )
        times.append(read_tables(mapping).decisions.time)
    for other in times[1:]:
        np.testing.assert_array_equal(times[0], other)
    assert times[0].min() == micro("2024-03-01T08:00")[0]


def test_times_of_users_are_of_their_zone(tmp_path: Path) -> None:
    days = pd.date_range("2024-03-01T12:00Z", periods=9)
    sends = pd.DataFrame({"decision_id": range(9), "user_id": "a", "time": days, "channel": "email"})
    sends.to_csv(tmp_path / "d.csv", index=False)
    pd.DataFrame({"user_id": "a", "time": days, "event": "order"}).to_csv(tmp_path / "e.csv", index=False)
    (tmp_path / "u.csv").write_text("user_id,observed_from,observed_until\na,02/03/2024,07/03/2024\n")
    mapping = TableMapping(
        decisions=TableSource(tmp_path / "d.csv"),
        events=(TableSource(tmp_path / "e.csv"),),
        modules=({"name": "channel", "actions": ["none", "email"]},),
        users=TableSource(tmp_path / "u.csv", time_zone=LA, time_format="%d/%m/%Y"),
    )
    history = read_tables(mapping)
    assert history.observed_from.tolist() == micro("2024-03-02T08:00").tolist()
    assert history.observed_until.tolist() == micro("2024-03-07T08:00").tolist()
