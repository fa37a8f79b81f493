"""A campaign tool's log: sends in one table, events in others, and no rows where nothing was sent."""

from __future__ import annotations

import re
from dataclasses import replace
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from crosschannel.core.errors import ConfigError, InputError
from crosschannel.histories.history import History
from crosschannel.histories.readers.slots import SlotGrid
from crosschannel.histories.readers.sources import TableSource
from crosschannel.histories.readers.stream.mapping import Sends, StreamMapping
from crosschannel.histories.readers.stream.reader import read_stream
from crosschannel.histories.readers.tables import TableMapping, read_tables
from crosschannel.pipeline.building import prepare
from crosschannel.pipeline.configuration import Config, HistoryConfig, read_config, write_config
from crosschannel.reward import Goal

MODULES = (
    {"name": "channel", "actions": ["none", "email", "push"]},
    {"name": "offer", "actions": ["small", "large"]},
)
GRID = SlotGrid("1d", "09:00", "Europe/Berlin", start_events=("visit",), leave_events=("left",))
SENT = {"user_id": "customer", "time": "sent at", "channel": "medium"}


def write_log(folder: Path, users: int = 30, days: int = 10) -> None:
    """Two tables of a random log: sends, and orders; visits in a third, as one JSON object a line."""
    rng = np.random.default_rng(5)
    user, day = (part.ravel() for part in np.meshgrid(np.arange(users), np.arange(1, days), indexing="ij"))
    sent = np.flatnonzero(rng.random(len(user)) < 0.3)
    start = pd.Timestamp("2024-03-25", tz="Europe/Berlin")
    sends = pd.DataFrame(
        {
            "customer": user[sent],
            "sent at": [start + pd.DateOffset(days=int(one), hours=9, minutes=5) for one in day[sent]],
            "medium": rng.choice(["email", "push"], len(sent)),
            "offer": rng.choice(["small", "large"], len(sent)),
            "subject": "Hello, you",
        }
    )
    orders = pd.DataFrame(
        {"who": rng.integers(0, users, 200), "at": start + pd.to_timedelta(rng.uniform(0, days, 200), unit="D")}
    )
    orders["total"] = rng.gamma(2, 10, 200).round(2)
    visits = pd.DataFrame({"customer": np.arange(users), "time": start + pd.to_timedelta(np.arange(users), unit="h")})
    visits = pd.concat(
        [visits.assign(event="visit"), visits[:5].assign(event="left", time=start + pd.Timedelta(days=5))]
    )
    sends.to_csv(folder / "sends.csv", index=False)
    orders.to_csv(folder / "orders.csv", index=False)
    visits.to_json(folder / "visits.jsonl", orient="records", lines=True, date_format="iso")


@pytest.fixture
def mapping(tmp_path: Path) -> TableMapping:
    write_log(tmp_path)
    return TableMapping(
        decisions=TableSource(tmp_path / "sends.csv", SENT),
        events=(
            TableSource(
                tmp_path / "orders.csv", {"user_id": "who", "time": "at", "value": "total"}, {"event": "order"}
            ),
            TableSource(tmp_path / "visits.jsonl", {"user_id": "customer"}),
        ),
        modules=MODULES,
        slots=GRID,
        name="shop",
    )


def faults_of(mapping: TableMapping) -> list[tuple[str, str | None, int | None, str]]:
    with pytest.raises(InputError) as caught:
        read_tables(mapping)
    return [(Path(f.file).name, f.column, f.row, f.problem) for f in caught.value.faults]


def assert_equal(left: History, right: History) -> None:
    for found, expected in (
        (left.decisions_frame(), right.decisions_frame()),
        (left.events_frame(), right.events_frame()),
    ):
        pd.testing.assert_frame_equal(found, expected)
    assert left.span == right.span
    np.testing.assert_array_equal(left.observed_from, right.observed_from)


def test_tables_of_sends_are_read_as_the_rows_of_one_stream(mapping: TableMapping, tmp_path: Path):
    found = read_tables(mapping)
    sends = pd.read_csv(tmp_path / "sends.csv").rename(columns={"customer": "user", "sent at": "time"})
    orders = pd.read_csv(tmp_path / "orders.csv").rename(columns={"who": "user", "at": "time"})
    visits = pd.read_json(tmp_path / "visits.jsonl", lines=True).rename(columns={"customer": "user"})
    rows = [sends.assign(event="message_sent"), orders.assign(event="order"), visits]
    pd.concat(rows).astype({"time": str, "user": str}).to_parquet(tmp_path / "stream.parquet")
    columns = {"channel": "medium", "offer": "offer"}
    one = StreamMapping(
        TableSource(tmp_path / "stream.parquet", {"user_id": "user"}),
        MODULES,
        (Sends(("message_sent",), columns),),
        GRID,
        values={"order": "total"},
    )
    assert_equal(found, read_stream(one))
    assert found.propensity_source == "missing"
    assert 0 < found.modules.sends(found.decisions.actions).sum() < len(found.decisions)
    assert found.summary().startswith("shop: 30 users")
    assert "tables: " in found.summary()
    # The same in three tables of a stream, each with columns of its own.
    several = StreamMapping(
        (
            TableSource(tmp_path / "sends.csv", {"user_id": "customer", "time": "sent at"}, {"event": "message_sent"}),
            *mapping.events,
        ),
        MODULES,
        (Sends(("message_sent",), {"channel": "medium", "offer": "offer"}),),
        GRID,
    )
    assert_equal(found, read_stream(several))


def test_a_file_of_sends_without_slots_names_the_cause_and_the_remedy(mapping: TableMapping):
    with pytest.raises(InputError) as caught:
        read_tables(replace(mapping, slots=None))
    first, second = caught.value.faults
    assert (first.column, second.column) == ("decision_id", "medium")
    assert "if each row is a message that was sent, set `slots`" in first.remedy
    assert "every row is a send" in second.problem
    assert "Set `slots` in the mapping" in second.remedy
    # With ids, that alone is the fault; with one row for nothing sent, there is none.
    source = replace(mapping.decisions, columns={**SENT, "decision_id": "id"})
    frame = pd.read_csv(source.path).assign(id=lambda rows: rows.index)
    frame.to_csv(source.path, index=False)
    declared = replace(mapping, slots=None, decisions=source)
    assert [fault[1] for fault in faults_of(declared)] == ["medium"]
    frame.loc[0, "medium"] = "none"
    frame.to_csv(source.path, index=False)
    everyone = source.path.with_name("people.csv")
    pd.DataFrame({"user_id": np.arange(30)}).to_csv(everyone, index=False)
    assert len(read_tables(replace(declared, users=TableSource(everyone))).decisions) == len(frame)


def test_sends_may_be_declared_to_be_the_only_slots(mapping: TableMapping):
    history = read_tables(replace(mapping, slots="sends_only"))
    assert history.modules.sends(history.decisions.actions).all()
    assert len(history.decisions) == len(pd.read_csv(mapping.decisions.path))
    assert "nothing can be learned about sending nothing" in history.summary()
    assert history.decisions.id[0].startswith("0@2024-03-")


@pytest.mark.parametrize(
    ("name", "old", "new", "expected"),
    [
        ("sends", ",email,", ",fax,", ("sends.csv", "medium", "this is not an action of the module 'channel'")),
        ("sends", "2024-03-2", "soon", ("sends.csv", "sent at", "this is not a time")),
        ("orders", "2024-0", "20240-", ("orders.csv", "at", "this is not a time")),
        ("sends", "medium", "means", ("sends.csv", "medium", "the file has no such column for 'channel'")),
        ("orders", r"\.(\d+)\n", r"x\1\n", ("orders.csv", "total", "this is not a number")),
    ],
)
def test_faults_have_the_files_own_columns(
    mapping: TableMapping, tmp_path: Path, name: str, old: str, new: str, expected: tuple[str, str, str]
):
    path = tmp_path / f"{name}.csv"
    path.write_text(re.sub(old, new, path.read_text()))
    assert expected in [(file, column, problem) for file, column, _, problem in faults_of(mapping)]


def test_an_event_with_the_name_of_the_sends_is_refused(mapping: TableMapping, tmp_path: Path):
    path = tmp_path / "visits.jsonl"
    path.write_text(path.read_text().replace('"left"', '"message_sent"'))
    assert faults_of(mapping)[0][:2] == ("visits.jsonl", "event")


def test_propensities_of_sends_alone_are_refused_on_a_grid(mapping: TableMapping):
    frame = pd.read_csv(mapping.decisions.path)
    frame.assign(propensity=0.5).to_csv(mapping.decisions.path, index=False)
    assert faults_of(mapping)[0][:2] == ("sends.csv", "propensity")
    frame.assign(propensity=None).to_csv(mapping.decisions.path, index=False)
    assert read_tables(mapping).propensity_source == "missing"
    with pytest.raises(ConfigError, match="cannot be mapped on a grid"):
        read_tables(replace(mapping, propensity_source="by design"))


def test_slots_are_checked_when_the_configuration_is_read(mapping: TableMapping):
    with pytest.raises(ConfigError, match="neither 'sends_only' nor a grid"):
        replace(mapping, slots="daily")
    with pytest.raises(ConfigError, match="give `users`"):
        replace(mapping, slots=replace(GRID, start_events=(), start_attribute="since"))


def test_a_configuration_learns_from_two_tables_without_propensities(mapping: TableMapping, tmp_path: Path):
    write_log(tmp_path, users=400)
    settings = Config(history=HistoryConfig("tables", tables=mapping))
    goals = replace(settings.reward, goals=(Goal("order"),), pre="1d", post="1d")
    write_config(replace(settings, reward=goals), tmp_path / "run.yaml")
    config = read_config(tmp_path / "run.yaml")
    assert config.history.tables == mapping
    data = prepare(config)
    assert data.history.propensity_source == "estimated"
    assert np.isfinite(data.train.rewards.reward).any()


@pytest.mark.parametrize("slots", [None, GRID])
def test_anonymous_rows_of_tables_are_left_out_where_declared(
    mapping: TableMapping, tmp_path: Path, slots: SlotGrid | None
):
    if slots is None:
        frame = pd.read_csv(mapping.decisions.path).assign(decision_id=lambda rows: rows.index)
        frame.loc[0, "medium"] = "none"
        frame.to_csv(mapping.decisions.path, index=False)
    mapping = replace(mapping, slots=slots)
    users = tmp_path / "people.csv"
    pd.DataFrame({"user_id": np.arange(30)}).to_csv(users, index=False)
    mapping = replace(mapping, users=TableSource(users))
    expected = read_tables(mapping)
    path = tmp_path / "orders.csv"
    header, *lines = path.read_text().splitlines()
    extra = [f"{who},2024-03-27T12:00Z,5" for who in ("", "anonymous", "(not set)")]
    path.write_text("\n".join([header, *extra, *lines]) + "\n")
    assert faults_of(mapping)[0][:3] == ("orders.csv", "who", 1)
    found = read_tables(replace(mapping, anonymous="leave_out"))
    assert_equal(found, expected)
    assert "3 anonymous rows" in found.summary()


@pytest.mark.parametrize("slots", [None, GRID])
def test_retries_of_tables_count_once_at_the_time_of_the_first(
    mapping: TableMapping, tmp_path: Path, slots: SlotGrid | None
):
    """Orders with an id of their own; a retry may come before the first in the file, and be as late as it likes."""
    orders, sends = (pd.read_csv(tmp_path / f"{name}.csv", dtype=str) for name in ("orders", "sends"))
    orders.assign(id=[f"o{k}" for k in orders.index]).to_csv(tmp_path / "orders.csv", index=False)
    sends = sends.assign(id=[f"s{k}" for k in sends.index])
    source = replace(mapping.decisions, columns={**SENT, "message_id": "id"})
    if slots is None:
        sends.loc[0, "medium"] = "none"
        source = replace(mapping.decisions, columns={**SENT, "decision_id": "id"})
    sends.to_csv(tmp_path / "sends.csv", index=False)
    first, second = mapping.events
    first = replace(first, columns={**first.columns, "message_id": "id"})
    (tmp_path / "people.csv").write_text("\n".join(["user_id", *map(str, range(30))]))
    users = TableSource(tmp_path / "people.csv")
    mapping = replace(mapping, decisions=source, events=(first, second), slots=slots, users=users)
    expected = read_tables(mapping)
    orders = pd.read_csv(tmp_path / "orders.csv", dtype=str)
    later = orders.iloc[[5, 9]].assign(at=(pd.to_datetime(orders["at"].iloc[[5, 9]]) + pd.Timedelta("7s")).astype(str))
    pd.concat([later, orders, orders.iloc[[3]]]).to_csv(tmp_path / "orders.csv", index=False)
    found = faults_of(mapping)
    assert [(file, column, row) for file, column, row, _ in found] == [
        ("orders.csv", "id", 203),
        ("orders.csv", "id", 1),
    ]
    again = read_tables(replace(mapping, duplicates="keep_first"))
    assert_equal(again, expected)
    assert "3 duplicates" in again.summary()
    assert "2 are retries of the same message 7 s (median) to 7 s after the first" in again.summary()
    # Another customer's order with the same id is not the same order.
    orders.loc[7, "id"] = "o8"
    orders.loc[7, "who"] = str((int(orders.loc[8, "who"]) + 1) % 30)
    orders.to_csv(tmp_path / "orders.csv", index=False)
    with pytest.raises(InputError, match="an earlier row with another user or event has the same message id"):
        read_tables(replace(mapping, duplicates="keep_first"))
    if slots is not None:
        orders.assign(id=[f"o{k}" for k in orders.index]).to_csv(tmp_path / "orders.csv", index=False)
        sends = pd.read_csv(tmp_path / "sends.csv", dtype=str)
        pd.concat([sends, sends.iloc[[4]]]).to_csv(tmp_path / "sends.csv", index=False)
        assert [fault[:3] for fault in faults_of(mapping)] == [("sends.csv", "id", len(sends) + 1)]
        decisions = read_tables(replace(mapping, duplicates="keep_first")).decisions_frame()
        pd.testing.assert_frame_equal(decisions, expected.decisions_frame())


def test_sends_may_be_in_files_of_several_layouts(mapping: TableMapping, tmp_path: Path):
    """One file as it was; and the same rows in two, one with local times, semicolons and other names."""
    whole = read_tables(mapping)
    rows = pd.read_csv(tmp_path / "sends.csv")
    local = pd.to_datetime(rows["sent at"], utc=True).dt.tz_convert("Europe/Berlin")
    early = (local < local.median()).to_numpy()
    german = rows[early].rename(columns={"customer": "Kunde", "medium": "Kanal", "offer": "Angebot"})
    german = german.assign(Zeit=local[early].dt.strftime("%d.%m.%Y %H:%M:%S"))
    german[["Kunde", "Zeit", "Kanal", "Angebot"]].to_csv(tmp_path / "mai.csv", sep=";", index=False)
    rows[~early].to_csv(tmp_path / "june.csv", index=False)
    names = {"user_id": "Kunde", "time": "Zeit", "channel": "Kanal", "offer": "Angebot"}
    first = TableSource(
        tmp_path / "mai.csv", names, separator=";", time_format="%d.%m.%Y %H:%M:%S", time_zone="Europe/Berlin"
    )
    second = TableSource(tmp_path / "june.csv", SENT)
    two = replace(mapping, decisions=(first, second))
    assert_equal(read_tables(two), whole)
    wrong = replace(two, decisions=(first, replace(second, path=tmp_path / "orders.csv")))
    assert {(name, column) for name, column, _, _ in faults_of(wrong)} >= {("orders.csv", "medium")}
    with pytest.raises(ConfigError, match="a list of files only with `slots`"):
        replace(two, slots=None)
    with pytest.raises(ConfigError, match="at least one file"):
        replace(mapping, decisions=())


def test_times_without_a_zone_are_named_where_slots_are_on_another_clock(mapping: TableMapping, tmp_path: Path):
    orders = pd.read_csv(tmp_path / "orders.csv")
    orders.assign(at=pd.to_datetime(orders["at"], utc=True).dt.strftime("%d.%m.%Y 12:%M")).to_csv(
        tmp_path / "orders.csv", index=False
    )
    form = replace(mapping.events[0], time_format="%d.%m.%Y %H:%M")
    note = "times without a zone are read as UTC, and slots are at 09:00 Europe/Berlin: "

    def notes(events: TableSource, grid: SlotGrid) -> list[str]:
        changed = replace(mapping, events=(events, mapping.events[1]), slots=grid)
        return [one for one in read_tables(changed).notes if note in one]

    (found,) = notes(form, GRID)
    assert "orders.csv" in found
    assert "sends.csv" not in found  # its times have an offset
    assert "`time_zone: Europe/Berlin`" in found
    assert not notes(form, replace(GRID, time_zone="UTC"))
    assert not notes(replace(form, time_zone="Europe/Berlin"), GRID)


def test_rows_that_equal_an_earlier_one_are_counted(mapping: TableMapping, tmp_path: Path):
    note = " rows equal an earlier one in every column that is read; each counts"
    assert not [one for one in read_tables(mapping).notes if note in one]
    orders = pd.read_csv(tmp_path / "orders.csv")
    other = orders[:4].assign(total=orders["total"][:4] + 1)  # at the same time, of another value: not a copy
    pd.concat([orders, orders[:7], other]).to_csv(tmp_path / "orders.csv", index=False)
    (found,) = [one for one in read_tables(mapping).notes if note in one]
    assert found.startswith("7 rows")
    known = pd.read_csv(tmp_path / "orders.csv").assign(id=[*range(200), *range(7), *range(200, 204)])
    known.to_csv(tmp_path / "orders.csv", index=False)
    source = replace(mapping.events[0], columns={**mapping.events[0].columns, "message_id": "id"})
    named = read_tables(replace(mapping, events=(source, mapping.events[1]), duplicates="keep_first"))
    assert not [one for one in named.notes if note in one]
    assert any("left out: 7 duplicates" in one for one in named.notes)
