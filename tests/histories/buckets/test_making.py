"""Logs divided file by file: to the history that reading them as a whole gives, resumed after a stop, day by day."""

from __future__ import annotations

import shutil
from dataclasses import replace
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from crosschannel.core.errors import ConfigError, InputError
from crosschannel.core.times import DAY
from crosschannel.histories import TableMapping, TableSource, read_history, read_tables, write_history
from crosschannel.histories.buckets import leaf_of, making, open_buckets, partition
from crosschannel.histories.buckets.making import make_buckets
from crosschannel.histories.buckets.partition import NotByUser
from crosschannel.histories.buckets.plans import plan_folder, plan_tables
from crosschannel.histories.history import History
from crosschannel.histories.readers.daily import DailyLog
from tests.histories.buckets.test_folder import assert_same
from tests.samples import random_history

pytest.importorskip("duckdb", reason="DuckDB is not installed")

LATER = 19_000 * DAY


def log(seed: int = 0, users: int = 30, days: int = 6) -> History:
    """A log of 2022 with attributes of every kind, some of which few users have."""
    found = random_history(seed, users=users, days=days)
    rng = np.random.default_rng(seed)
    attributes = pd.DataFrame(
        {
            "age": np.where(rng.random(users) < 0.3, np.nan, rng.integers(18, 80, users)),
            "code": np.array(["a" if k == 3 else str(k % 5) for k in range(users)], dtype=object),
            "joined": pd.Timestamp("2020-01-01") + pd.to_timedelta(rng.integers(0, 500, users), unit="D"),
            "vip": rng.random(users) < 0.2,
        }
    )
    return replace(
        found,
        decisions=replace(found.decisions, time=found.decisions.time + LATER),
        events=replace(found.events, time=found.events.time + LATER),
        span=(found.span[0] + LATER, found.span[1] + LATER),
        observed_from=found.observed_from + LATER,
        observed_until=found.observed_until + LATER - rng.integers(0, DAY, users),
        users=attributes.astype({"joined": "datetime64[us]"}),
    )


def contents(folder: Path) -> dict[str, bytes]:
    return {str(path.relative_to(folder)): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


@pytest.mark.parametrize("n", [1, 8])
def test_a_native_folder(n, tmp_path, monkeypatch):
    write_history(log(), tmp_path / "log")
    make_buckets(plan_folder(tmp_path / "log"), tmp_path / "small", n, 64)
    assert_same(read_history(tmp_path / "small"), read_history(tmp_path / "log"))
    monkeypatch.setattr(partition, "SMALL_FILE", -1)  # the same out of core
    make_buckets(plan_folder(tmp_path / "log"), tmp_path / "large", n, 64)
    assert contents(tmp_path / "large") == contents(tmp_path / "small")


@pytest.mark.parametrize("kind", ["text", "numbers"])
def test_ids_of_any_kind(kind, tmp_path, monkeypatch):
    ids = [*"äöü", "Jörg 🙂", *(f"u{k}" for k in range(26))] if kind == "text" else np.arange(30) * 3
    history = replace(log(), user_ids=np.array(sorted(ids), dtype=object if kind == "text" else np.int64))
    write_history(history, tmp_path / "log")
    monkeypatch.setattr(partition, "SMALL_FILE", -1)
    make_buckets(plan_folder(tmp_path / "log"), tmp_path / "buckets", 16, 64)
    assert_same(read_history(tmp_path / "buckets"), history)


def write_day(daily: DailyLog, history: History, day: int) -> None:
    begin = daily.start + day * DAY
    tables = []
    for frame, time in (
        (history.decisions_frame(), history.decisions.time),
        (history.events_frame(), history.events.time),
    ):
        tables.append(frame[(time >= begin) & (time < begin + DAY)])
    daily.write_day(begin, *tables)


@pytest.mark.parametrize("declared", [True, False])
def test_a_day_is_added_without_writing_the_others(declared, tmp_path):
    history = log()
    daily = DailyLog(tmp_path / "log", "daily", history.modules, history.event_names, history.span[0])
    daily.create()
    users = pd.DataFrame({"user_id": history.user_ids, "code": history.users["code"]})
    daily.write_users(users.assign(observed_from=pd.Timestamp(history.span[0], unit="us")) if declared else users)
    for day in range(4):
        write_day(daily, history, day)
    buckets = tmp_path / "buckets"
    make_buckets(plan_folder(daily.path), buckets, 4, 64)
    assert_same(read_history(buckets), read_history(daily.path))
    before = {path: path.stat().st_mtime_ns for path in buckets.rglob("*/*/*.parquet")}
    write_day(daily, history, 4)
    divided: list[str] = []
    make_buckets(plan_folder(daily.path), buckets, 4, 64, log=divided.append)
    assert sum(line.startswith("dividing") for line in divided) == 2  # the day's decisions and events
    assert {path: path.stat().st_mtime_ns for path in before} == before
    assert_same(read_history(buckets), read_history(daily.path))
    make_buckets(plan_folder(daily.path), tmp_path / "at_once", 4, 64)
    assert contents(buckets) == contents(tmp_path / "at_once")
    assert len(open_buckets(buckets).manifest.days) == 5


def test_a_run_that_stopped_is_resumed(tmp_path, monkeypatch):
    history = log()
    daily = DailyLog(tmp_path / "log", "daily", history.modules, history.event_names, history.span[0])
    daily.create()
    daily.write_users(pd.DataFrame({"user_id": history.user_ids}))
    for day in range(4):
        write_day(daily, history, day)
    make_buckets(plan_folder(daily.path), tmp_path / "whole", 4, 64)
    divide, done = making._divide_file, []

    def stop(file, *arguments):
        if len(done) == 5:
            raise KeyboardInterrupt
        done.append(file)
        return divide(file, *arguments)

    monkeypatch.setattr(making, "_divide_file", stop)
    with pytest.raises(KeyboardInterrupt):
        make_buckets(plan_folder(daily.path), tmp_path / "b", 4, 64)
    with pytest.raises(InputError, match="interrupted"):
        open_buckets(tmp_path / "b")
    monkeypatch.setattr(making, "_divide_file", divide)
    lines: list[str] = []
    make_buckets(plan_folder(daily.path), tmp_path / "b", 4, 64, log=lines.append)
    assert sum(line.startswith("dividing") for line in lines) == 3  # of 8 files
    assert contents(tmp_path / "b") == contents(tmp_path / "whole")
    make_buckets(plan_folder(daily.path), tmp_path / "b", 2, 64)  # another number divides all files again
    assert_same(read_history(tmp_path / "b"), read_history(daily.path))


MODULES = (
    {"name": "channel", "actions": ["none", "email", "push"]},
    {"name": "offer", "actions": ["small", "large"]},
)


def tables(folder: Path, history: History, *, form: str = "csv", users: bool = True) -> TableMapping:
    """Write a log as a warehouse exports it: a folder for each date, other names, text or Parquet; and its mapping."""

    def write(frame: pd.DataFrame, name: str) -> None:
        frame = frame.rename(columns={"user_id": "customer", "time": "at"})
        for day, rows in frame.groupby(frame["at"].dt.strftime("%Y-%m-%d")):
            path = folder / name / f"date={day}" / f"part-0.{form}"
            path.parent.mkdir(parents=True)
            rows.to_csv(path, index=False) if form == "csv" else rows.to_parquet(path, index=False)

    folder.mkdir()
    events = history.events_frame()
    write(history.decisions_frame(), "decisions")
    write(events[events["event"] == "order"].drop(columns="event"), "orders")
    write(events[events["event"] != "order"].drop(columns="value"), "others")
    pd.concat([pd.DataFrame({"customer": history.user_ids}), history.users], axis=1).to_csv(
        folder / "people.csv", index=False
    )
    columns = {"user_id": "customer", "time": "at"}
    return TableMapping(
        decisions=TableSource(folder / "decisions", columns),
        events=(
            TableSource(folder / "orders", columns, {"event": "order"}),
            TableSource(folder / "others", columns),
        ),
        users=TableSource(folder / "people.csv", {"user_id": "customer"}) if users else None,
        modules=MODULES,
        name="shop",
    )


@pytest.mark.parametrize(("form", "users", "small"), [("csv", True, None), ("parquet", True, -1), ("csv", False, None)])
def test_mapped_tables(form, users, small, tmp_path, monkeypatch):
    """Without a declared span; users from a table or from the decisions; starts of observation from the first rows."""
    mapping = tables(tmp_path / "log", log(days=5), form=form, users=users)
    if small is not None:
        monkeypatch.setattr(partition, "SMALL_FILE", small)
    make_buckets(plan_tables(mapping), tmp_path / "buckets", 4, 64)
    assert_same(read_history(tmp_path / "buckets"), read_tables(mapping))


def test_a_campaign_trial_is_observed_from_its_start(tmp_path):
    """Hardly any user has two decisions: that is seen over all users, and not in each bucket."""
    history = log(users=150)
    first = np.unique(history.decisions.user, return_index=True)[1]
    d = history.decisions_frame().iloc[sorted([*first, 1])]  # user 0 has two
    once = History.from_tables(d, history.events_frame(), history.modules, span=history.span)
    mapping = tables(tmp_path / "log", replace(once, users=history.users), users=False)
    whole = read_tables(mapping)
    assert (whole.observed_from == whole.span[0]).all()
    make_buckets(plan_tables(mapping), tmp_path / "buckets", 8, 64)
    assert_same(read_history(tmp_path / "buckets"), whole)


def test_rows_without_a_user(tmp_path):
    mapping = tables(tmp_path / "log", log())
    file = min((tmp_path / "log" / "others").rglob("*.csv"))
    with file.open("a") as rows:
        rows.write(",2022-01-08 10:00:00+00:00,visit\nanonymous,2022-01-08 11:00:00+00:00,visit\n")
    with pytest.raises(InputError, match=r"user id is missing|means nobody"):
        make_buckets(plan_tables(mapping), tmp_path / "buckets", 4, 64)
    mapping = replace(mapping, anonymous="leave_out")
    make_buckets(plan_tables(mapping), tmp_path / "buckets", 4, 64)
    assert_same(read_history(tmp_path / "buckets"), read_tables(mapping))


def test_what_rests_on_all_users_is_not_divided(tmp_path):
    mapping = tables(tmp_path / "log", log())
    for other in (
        replace(mapping, slots="sends_only", decisions=replace(mapping.decisions, columns={})),
        replace(mapping, events=(replace(mapping.events[0], columns={"message_id": "id"}),)),
        replace(mapping, decisions=replace(mapping.decisions, columns={**mapping.decisions.columns, "arm": "date"})),
    ):
        with pytest.raises(NotByUser):
            plan_tables(other)
    rows = pd.read_csv(file := min((tmp_path / "log" / "others").rglob("*.csv")))
    rows.assign(at="1999-01-01 00:00:00+00:00").iloc[:1].to_csv(file.with_name("late.csv"), index=False)
    with pytest.raises(NotByUser, match="isolated"):
        make_buckets(plan_tables(mapping), tmp_path / "buckets", 4, 64)


def native(folder: Path, history: History, change) -> Path:
    """Write a native folder whose tables are changed; the numbers of rows stay."""
    write_history(history, folder)
    for name in ("decisions", "events"):
        frame = pd.read_parquet(folder / f"{name}.parquet")
        change(name, frame).to_parquet(folder / f"{name}.parquet", index=False)
    return folder


def twice(name: str, frame: pd.DataFrame) -> pd.DataFrame:
    """The first decisions of two users in two buckets have one id."""
    if name == "decisions":
        leaf = leaf_of(frame["user_id"].to_numpy())
        frame.loc[[0, int(np.argmax(leaf != leaf[0]))], "decision_id"] = "same"
    return frame


def gap(name: str, frame: pd.DataFrame) -> pd.DataFrame:
    """All orders of one user lack their value."""
    if name == "events":
        frame.loc[(frame["user_id"] == frame["user_id"].iloc[0]) & (frame["event"] == "order"), "value"] = np.nan
    return frame


def another(name: str, frame: pd.DataFrame) -> pd.DataFrame:
    """Each event names the decision d0, which is one user's."""
    return frame.assign(decision_id="d0") if name == "events" else frame


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (twice, "decisions of several users have this id"),
        (gap, "the value is missing in .* of this event"),
        (another, "the decision is another user's"),
        (lambda name, frame: frame.iloc[:-1], "rows, but its description has"),
        (lambda name, frame: frame.assign(time="soon"), "this is not a time"),
    ],
)
def test_faults_are_those_of_the_whole_log(change, message, tmp_path):
    """What every bucket alone fulfils is found as well, in 64 buckets of half a user each."""
    folder = native(tmp_path / "log", log(), change)
    with pytest.raises(InputError):
        read_history(folder)
    with pytest.raises(InputError, match=message):
        make_buckets(plan_folder(folder), tmp_path / "buckets", 64, 64)
    with pytest.raises(InputError, match="interrupted"):
        open_buckets(tmp_path / "buckets")


@pytest.mark.parametrize(("table", "column"), [("decisions", "channel"), ("events", "time")])
def test_a_fault_in_a_bucket_names_the_file_of_the_log_and_the_row(table, column, tmp_path):
    def wrong(name: str, frame: pd.DataFrame) -> pd.DataFrame:
        if name != table:
            return frame
        values = frame[column].astype(str).copy()
        values.iloc[7] = "soon"
        ids.extend(str(frame[name].iloc[7]) for name in (["decision_id"] if table == "decisions" else ["user_id"]))
        return frame.assign(**{column: values})

    ids: list[str] = []
    folder = native(tmp_path / "log", log(), wrong)
    with pytest.raises(InputError) as error:
        make_buckets(plan_folder(folder), tmp_path / "buckets", 4, 64)
    fault = next(fault for fault in error.value.faults if fault.column == column)
    assert f"This is from {folder / table}.parquet, the row with" in fault.remedy
    assert repr(ids[0]) in fault.remedy


def test_a_log_with_faults_leaves_the_old_buckets(tmp_path):
    make_buckets(plan_folder(native(tmp_path / "log", log(), lambda _, frame: frame)), tmp_path / "buckets", 4, 64)
    with pytest.raises(InputError):
        make_buckets(plan_folder(native(tmp_path / "bad", log(1), twice)), tmp_path / "buckets", 4, 64)
    assert_same(read_history(tmp_path / "buckets"), log())


def test_numbers_and_damaged_files_are_refused(tmp_path, monkeypatch):
    write_history(log(), tmp_path / "log")
    with pytest.raises(ConfigError, match="3 buckets do not divide 64 leaves"):
        make_buckets(plan_folder(tmp_path / "log"), tmp_path / "buckets", 3, 64)
    monkeypatch.setattr(partition, "SMALL_FILE", -1)
    file = tmp_path / "log" / "events.parquet"
    file.write_bytes(file.read_bytes()[:-30])
    with pytest.raises(InputError, match=r"events\.parquet: this cannot be read as Parquet"):
        make_buckets(plan_folder(tmp_path / "log"), tmp_path / "buckets", 4, 64)
    shutil.rmtree(tmp_path / "buckets")
