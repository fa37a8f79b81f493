"""CSV and Parquet by column mapping: the same history as from native tables, and messages in the files' own words."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from crosschannel.core.action_space import ActionSpace
from crosschannel.core.errors import ConfigError, InputError
from crosschannel.core.times import DAY
from crosschannel.histories.history import History
from crosschannel.histories.logs import take_rows
from crosschannel.histories.readers.sources import TableSource
from crosschannel.histories.readers.tables import TableMapping, read_tables
from tests.samples import random_history

MODULES = (
    {"name": "channel", "actions": ["None", "email", "push"]},
    {"name": "tone", "actions": ["plain", "warm"]},
)
SENDS = """msg,customer,when,ch,style,p,weather,noise
1,007,2024-05-01 10:00,email,warm,0.2,sun,"a, b"
2,007,2024-05-02 10:00,None,,0.5,rain,
3,NA,2024-05-01 12:00,push,plain,0.3,sun,x
"""
ORDERS = "customer,when,total\n007,2024-05-01 11:00,12.5\nNA,2024-05-02 11:00,3\n"
OPENS = "customer,when\nNA,2024-05-01 13:00\n"
PEOPLE = "customer,years,town\nNA,41,Bonn\n007,,Kyiv\n"

DECISIONS = {
    "decision_id": "msg",
    "user_id": "customer",
    "time": "when",
    "channel": "ch",
    "tone": "style",
    "propensity": "p",
}


@pytest.fixture
def mapping(tmp_path: Path) -> TableMapping:
    for name, text in (("sends", SENDS), ("orders", ORDERS), ("opens", OPENS), ("people", PEOPLE)):
        (tmp_path / f"{name}.csv").write_text(text)
    event = {"user_id": "customer", "time": "when"}
    return TableMapping(
        decisions=TableSource(tmp_path / "sends.csv", DECISIONS),
        events=(
            TableSource(tmp_path / "orders.csv", event | {"value": "total"}, {"event": "order"}),
            TableSource(tmp_path / "opens.csv", event, {"event": "open"}),
        ),
        modules=MODULES,
        users=TableSource(tmp_path / "people.csv", {"user_id": "customer", "age": "years"}),
        name="shop",
    )


def edit(source: TableSource, old: str, new: str) -> None:
    text = source.path.read_text()
    assert old in text
    source.path.write_text(text.replace(old, new))


def test_files_become_the_history_that_native_tables_give(mapping: TableMapping):
    history = read_tables(mapping)
    expected = History.from_tables(
        pd.DataFrame(
            {
                "decision_id": ["1", "2", "3"],
                "user_id": ["007", "007", "NA"],
                "time": ["2024-05-01 10:00", "2024-05-02 10:00", "2024-05-01 12:00"],
                "channel": ["email", "None", "push"],
                "tone": ["warm", None, "plain"],
                "propensity": [0.2, 0.5, 0.3],
            }
        ),
        pd.DataFrame(
            {
                "user_id": ["007", "NA", "NA"],
                "time": ["2024-05-01 11:00", "2024-05-02 11:00", "2024-05-01 13:00"],
                "event": ["order", "order", "open"],
                "value": [12.5, 3.0, None],
            }
        ),
        ActionSpace.from_dict(MODULES),
        pd.DataFrame({"user_id": ["NA", "007"], "age": [41, None], "town": ["Bonn", "Kyiv"]}),
    )
    for name in ("id", "key", "user", "time", "actions", "joint", "propensity"):
        np.testing.assert_array_equal(getattr(history.decisions, name), getattr(expected.decisions, name))
    for name in ("user", "time", "event", "value"):
        np.testing.assert_array_equal(getattr(history.events, name), getattr(expected.events, name))
    assert history.user_ids.tolist() == ["007", "NA"], "neither a number nor a missing value"
    pd.testing.assert_frame_equal(history.users, expected.users)
    assert history.name == "shop"


@pytest.mark.parametrize("ending", [".parquet", ".csv.gz"])
def test_the_kind_of_file_makes_no_difference(mapping: TableMapping, ending: str):
    plain = read_tables(mapping)
    path = mapping.decisions.path.with_suffix("").with_suffix(ending)
    frame = pd.read_csv(mapping.decisions.path, dtype={"customer": str}, keep_default_na=False, na_values=[""])
    frame.to_parquet(path) if ending == ".parquet" else frame.to_csv(path, index=False)
    other = read_tables(replace(mapping, decisions=replace(mapping.decisions, path=path)))
    for name in ("key", "user", "time", "actions", "joint"):
        np.testing.assert_array_equal(getattr(plain.decisions, name), getattr(other.decisions, name))


@pytest.mark.parametrize(
    ("text", "settings", "utc"),
    [
        ("1714557600", {"time_unit": "s"}, "2024-05-01T10:00"),
        ("1714557600000", {"time_unit": "ms"}, "2024-05-01T10:00"),
        ("1714557600000001", {"time_unit": "us"}, "2024-05-01T10:00:00.000001"),
        ("34", {"time_unit": "h", "time_origin": "2024-04-30"}, "2024-05-01T10:00"),
        ("1.5", {"time_unit": "d", "time_origin": "2024-04-30T00:00+02:00"}, "2024-05-01T10:00"),
        ("01/05/24 10h00", {"time_format": "%d/%m/%y %Hh%M"}, "2024-05-01T10:00"),
        ("01/05/24 12h00", {"time_format": "%d/%m/%y %Hh%M", "time_zone": "Europe/Berlin"}, "2024-05-01T10:00"),
        ("01/05/24 12h00 +0200", {"time_format": "%d/%m/%y %Hh%M %z", "time_zone": "Asia/Tokyo"}, "2024-05-01T10:00"),
        ("2024-05-01 12:00", {"time_zone": "Europe/Berlin"}, "2024-05-01T10:00"),
        ("2024-05-01T10:00Z", {"time_zone": "Europe/Berlin"}, "2024-05-01T10:00"),
        ("2024-05-01T06:30-03:30", {"time_zone": "Europe/Berlin"}, "2024-05-01T10:00"),
        ("2024-01-01 11:00", {"time_zone": "Europe/Berlin"}, "2024-01-01T10:00"),
    ],
)
def test_times_as_the_file_writes_them(mapping: TableMapping, text: str, settings: dict[str, str], utc: str):
    source = mapping.events[1]
    edit(source, "2024-05-01 13:00", text)
    history = read_tables(replace(mapping, events=(mapping.events[0], replace(source, **settings))))
    opened = history.events.time[history.events.event == history.event_codes(["open"])[0]]
    assert opened.astype("datetime64[us]").tolist() == [np.datetime64(utc, "us").item()]


def test_naive_timestamps_of_parquet_stand_in_the_sources_zone(mapping: TableMapping, tmp_path: Path):
    path = tmp_path / "opens.parquet"
    pd.DataFrame({"customer": ["NA"], "when": pd.to_datetime(["2024-05-01 12:00"])}).to_parquet(path)
    source = replace(mapping.events[1], path=path, time_zone="Europe/Berlin")
    history = read_tables(replace(mapping, events=(mapping.events[0], source)))
    assert np.datetime64("2024-05-01T10:00", "us").astype(np.int64) in history.events.time


@pytest.mark.parametrize(
    ("text", "settings", "problem"),
    [
        ("2024-10-27 02:30", {"time_zone": "Europe/Berlin"}, "in Europe/Berlin this time occurs twice"),
        ("2024-03-31 02:30", {"time_zone": "Europe/Berlin"}, "occurs twice or not at all"),
        ("tomorrow", {"time_zone": "Europe/Berlin"}, "not a time in the format ISO 8601"),
        ("2024-05-01", {"time_format": "%d.%m.%Y"}, "not a time in the format %d.%m.%Y"),
        ("ten", {"time_unit": "h"}, "not a number of h"),
        ("1e300", {"time_unit": "h"}, "not a number of h"),
        ("12", {"time_unit": "h"}, "the time is outside the years"),
        ("12", {}, "this is not a time"),
    ],
)
def test_a_time_that_is_not_as_promised(mapping: TableMapping, text: str, settings: dict[str, str], problem: str):
    source = mapping.events[1]
    edit(source, "2024-05-01 13:00", text)
    with pytest.raises(InputError) as caught:
        read_tables(replace(mapping, events=(mapping.events[0], replace(source, **settings))))
    (fault,) = caught.value.faults
    assert (fault.file, fault.column, fault.row) == (str(source.path), "when", 1)
    assert problem in fault.problem


def test_faults_have_the_files_own_names_and_rows(mapping: TableMapping):
    edit(mapping.decisions, "push,plain", "pusch,plain")
    edit(mapping.decisions, "email,warm,0.2", "email,,20")
    edit(mapping.events[1], "NA", "nobody")
    with pytest.raises(InputError) as caught:
        read_tables(mapping)
    places = {(Path(f.file).name, f.column, f.row, f.value) for f in caught.value.faults}
    assert ("sends.csv", "ch", 3, "pusch") in places
    assert ("sends.csv", "p", 1, "20") in places
    assert ("opens.csv", "customer", 1, "nobody") in places, "row 3 of all events is row 1 of the second file"
    assert "Name one of the actions of `style`." in str(caught.value)
    for native in ("user_id", "decision_id", "`channel`", "`tone`"):
        assert native not in str(caught.value)


def test_missing_columns_name_the_nearest_of_the_file(mapping: TableMapping):
    edit(mapping.decisions, "msg,customer,when", "msg,custommer,sent")
    edit(mapping.users, "customer", "id")
    with pytest.raises(InputError) as caught:
        read_tables(mapping)
    faults = {(Path(f.file).name, f.column): f for f in caught.value.faults}
    assert set(faults) == {("sends.csv", "customer"), ("sends.csv", "when"), ("people.csv", "customer")}
    fault = faults["sends.csv", "customer"]
    assert fault.problem == "the file has no such column for 'user_id'"
    assert fault.remedy == "Correct the mapping. Did you mean 'custommer'?"


def test_a_column_that_nobody_mapped_is_asked_for(mapping: TableMapping):
    unmapped = {key: value for key, value in DECISIONS.items() if key != "tone"}
    with pytest.raises(InputError, match=r"column 'tone': the file has no such column for 'tone'\. Map one of"):
        read_tables(replace(mapping, decisions=replace(mapping.decisions, columns=unmapped)))


def test_files_that_cannot_be_read_are_all_named(mapping: TableMapping, tmp_path: Path):
    edit(mapping.events[1], "NA,2024-05-01 13:00", "NA,2024-05-01 13:00\nNA,2024-05-01 14:00,1,2,3")
    (tmp_path / "people.xlsx").write_text("")
    with pytest.raises(InputError) as caught:
        read_tables(
            replace(
                mapping,
                decisions=replace(mapping.decisions, path=tmp_path / "send.csv"),
                users=replace(mapping.users, path=tmp_path / "people.xlsx"),
            )
        )
    text = [str(fault) for fault in caught.value.faults]
    assert any("send.csv: there is no such file. Check the path. Did you mean 'sends.csv'?" in t for t in text)
    assert any("opens.csv: this cannot be read as CSV" in t and "line 3" in t for t in text)
    assert any("people.xlsx: files that end in .xlsx are not read. Save the sheet as CSV" in t for t in text)


@pytest.mark.parametrize("text", ["", "a,b\n1,2,3\n"])
def test_csv_files_without_a_proper_first_line(mapping: TableMapping, text: str):
    mapping.events[1].path.write_text(text)
    with pytest.raises(InputError, match=r"opens\.csv: (the file is empty|a row has more fields)"):
        read_tables(mapping)


def test_blank_lines_do_not_move_row_numbers(mapping: TableMapping):
    edit(mapping.events[0], "007,2024-05-01 11:00,12.5\n", "007,2024-05-01 11:00,12.5\n\n")
    with pytest.raises(InputError) as caught:
        read_tables(mapping)
    assert {fault.row for fault in caught.value.faults} == {2}


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda m: replace(m, events=()), "no `events`"),
        (lambda m: replace(m, propensity_source="lgged"), "Did you mean 'logged'?"),
        (lambda m: replace(m, modules=()), "no modules"),
        (lambda m: replace(m, decisions=replace(m.decisions, columns={"tme": "when"})), "Did you mean 'time'?"),
        (lambda m: replace(m, decisions=replace(m.decisions, constants={"chanel": "push"})), "Did you mean 'channel'?"),
        (lambda m: replace(m, events=(replace(m.events[0], columns={"values": "x"}),)), "Did you mean 'value'?"),
        (lambda m: replace(m.decisions, time_unit="hours"), "unknown time unit 'hours'"),
        (lambda m: replace(m.decisions, time_unit="h", time_format="%d"), "not both"),
        (lambda m: replace(m.decisions, time_zone="Europe/Atlantis"), "unknown time zone 'Europe/Atlantis'"),
        (lambda m: replace(m.decisions, time_origin="once"), "time_origin: 'once' is not a time"),
        (lambda m: replace(m.events[0], columns={"event": "x"}), "as columns and as constants"),
        (lambda m: replace(m.decisions, columns={"time": "x", "user_id": "x"}), "mapped twice"),
    ],
)
def test_a_wrong_mapping_is_refused_before_any_file_is_read(mapping: TableMapping, change, message: str):
    with pytest.raises(ConfigError) as caught:
        change(mapping)
    assert message in str(caught.value)


def test_what_is_observed_ends_with_the_events_unless_the_mapping_says_so(tmp_path):
    """An extract of events that lags behind the decisions does not read as days on which nothing happened."""
    random, later = random_history(1), 19_000 * DAY
    d, e = random.decisions, random.events
    early = take_rows(e, e.time < random.span[1] - 3 * DAY)
    history = replace(random, decisions=replace(d, time=d.time + later), events=replace(early, time=early.time + later))
    history.decisions_frame().to_csv(tmp_path / "decisions.csv", index=False)
    history.events_frame().to_csv(tmp_path / "events.csv", index=False)
    files = (TableSource(tmp_path / "decisions.csv"), (TableSource(tmp_path / "events.csv"),))
    mapping = TableMapping(*files, tuple(history.modules.to_dict()))
    found = read_tables(mapping)
    assert found.span == (history.events.time.min(), history.events.time.max())
    assert (found.decisions.time + DAY > found.span[1]).any()
    told = read_tables(replace(mapping, span=("2022-01-08T00:00", "2022-01-20")))
    assert told.span == (later, later + 12 * DAY)
    for span in (("2022-01-08", "soon"), ("2022-01-20", "2022-01-08")):
        with pytest.raises(ConfigError, match="span"):
            replace(mapping, span=span)


def test_columns_of_users_that_are_left_out_are_not_read(mapping: TableMapping):
    assert mapping.users is not None
    edit(mapping.users, "Bonn", '"1,200.50"')
    history = read_tables(replace(mapping, users=replace(mapping.users, leave_out=("town",))))
    assert history.users is not None
    assert list(history.users.columns) == ["user_id", "age"]
    with pytest.raises(InputError, match=r"column 'towm': the file has no such column to leave out.*'town'"):
        read_tables(replace(mapping, users=replace(mapping.users, leave_out=("towm",))))


def test_values_that_may_be_thousands_are_noted(mapping: TableMapping):
    rows = "".join(f"007,2024-05-{day:02d} 11:00,{day + 100}.000\n" for day in range(1, 16))
    (mapping.events[0].path).write_text("customer,when,total\n" + rows)
    note = "all 15 values of 'order' have three digits after a point, such as 101.000: if it separates thousands"
    assert note in read_tables(mapping).summary()
    (mapping.events[0].path).write_text("customer,when,total\n" + rows.replace("105.000", "105.5"))
    assert "three digits" not in read_tables(mapping).summary()
