"""The decisions of a policy, joined to the log that they were made from: exact propensities beside missing ones."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest

from crosschannel.core.errors import ConfigError, InputError
from crosschannel.core.times import DAY, HOUR
from crosschannel.histories.history import History
from crosschannel.histories.propensities.estimate import estimate_propensities
from crosschannel.histories.propensities.sources import ESTIMATED, LOGGED, MISSING
from crosschannel.histories.readers.slots import SlotGrid
from crosschannel.histories.readers.sources import TableSource
from crosschannel.histories.readers.stream.mapping import Sends, StreamMapping
from crosschannel.histories.readers.stream.reader import read_stream
from crosschannel.histories.readers.tables import TableMapping, read_tables

MODULES = (
    {"name": "channel", "actions": ["none", "email"]},
    {"name": "offer", "actions": ["small", "large"]},
)
START = pd.Timestamp("2024-03-04T00:00Z")
USERS, DAYS, POLICY_DAYS = 120, 12, (8, 9)
GRID = SlotGrid("1d", "10:00", start="stream")


def write_log(folder: Path, lead: pd.Timedelta, users: int = USERS) -> None:
    """Sends of a tool until day 8, then those of a policy that decides `lead` before 10:00; visits on all days."""
    rng = np.random.default_rng(11)
    sends: list[dict[str, Any]] = []
    decisions: list[dict[str, Any]] = []
    for day in range(DAYS):
        at = START + pd.Timedelta(days=day, hours=10)
        for user in range(users):
            sent = rng.random() < 0.4
            offer = str(rng.choice(["small", "large"]))
            if day in POLICY_DAYS:
                decisions.append(
                    {
                        "decision_id": f"{day}-{user}",
                        "user_id": f"u{user:03d}",
                        "time": at - lead,
                        "channel": "email" if sent else "none",
                        "offer": offer if sent else None,
                        "propensity_channel": 0.4 if sent else 0.6,
                        "propensity_offer": 0.5 if sent else 1.0,
                        "policy": "shop",
                        "eligible_channel": "none|email",
                        "eligible_offer": "small|large",
                    }
                )
            if sent:
                later = pd.Timedelta(minutes=int(rng.integers(5, 40)))
                sends.append({"user": f"u{user:03d}", "time": at + later, "event": "Sent", "offer": offer})
    visits = pd.DataFrame({"user": [f"u{k:03d}" for k in rng.integers(0, users, 4000 * users // USERS)]})
    visits["time"] = START + pd.to_timedelta(rng.uniform(0, DAYS * 24, len(visits)), unit="h").round("s")
    pd.DataFrame(sends).to_csv(folder / "sends.csv", index=False)
    visits.assign(event="visit").to_csv(folder / "visits.csv", index=False)
    frame = pd.DataFrame(decisions)
    (folder / "decided").mkdir(exist_ok=True)
    for day in POLICY_DAYS:
        frame[frame["decision_id"].str.startswith(f"{day}-")].to_csv(folder / "decided" / f"{day}.csv", index=False)


def stream(folder: Path) -> StreamMapping:
    columns = {"user_id": "user"}
    return StreamMapping(
        (TableSource(folder / "sends.csv", columns), TableSource(folder / "visits.csv", columns)),
        MODULES,
        (Sends(("Sent",), {"offer": "offer"}, {"channel": "email"}),),
        GRID,
        decided=TableSource(folder / "decided"),
    )


def tables(folder: Path) -> TableMapping:
    columns = {"user_id": "user"}
    return TableMapping(
        TableSource(folder / "sends.csv", columns, {"channel": "email"}),
        (TableSource(folder / "visits.csv", columns),),
        MODULES,
        slots=GRID,
        decided=TableSource(folder / "decided"),
    )


def read(source: str, folder: Path) -> History:
    return read_stream(stream(folder)) if source == "stream" else read_tables(tables(folder))


@pytest.mark.parametrize("source", ["stream", "tables"])
@pytest.mark.parametrize("lead", ["0h", "1h", "-3min", "11h"])
def test_decisions_take_the_place_of_their_slots(tmp_path: Path, source: str, lead: str):
    """Whether the policy decided at the slot, the evening before or just after: every day has one decision a user."""
    write_log(tmp_path, pd.Timedelta(lead))
    history = read(source, tmp_path)
    d = history.decisions
    days = (d.time + 12 * HOUR - START.value // 1000) // DAY
    logged = d.propensity_source == LOGGED
    assert set(days[logged]) == set(POLICY_DAYS)
    assert (d.propensity_source[~logged] == MISSING).all()
    assert logged.sum() == 2 * USERS
    # The first and the last complete period of the log bound the grid.
    counts = pd.DataFrame({"user": d.user, "day": days}).value_counts()
    assert (counts == 1).all()
    assert len(counts) == USERS * len(set(days))
    assert history.propensity_source == "mixed"
    sends = pd.read_csv(tmp_path / "sends.csv")
    name = "Sent" if source == "stream" else "message_sent"
    left = int((history.events_frame()["event"] == name).sum())
    assert history.modules.sends(d.actions).sum() + left == len(sends), "no send counts twice"
    assert f"decisions of a policy: {2 * USERS}, " in history.summary()
    assert "0 of these have no send in the log" in history.summary()
    assert d.eligible is not None
    assert d.eligible.all()
    estimated, _ = estimate_propensities(history, only_missing=True)
    np.testing.assert_array_equal(estimated.decisions.joint[logged], d.joint[logged])
    assert (estimated.decisions.propensity_source[~logged] == ESTIMATED).all()


def edit(folder: Path, name: str, change: Any) -> None:
    path = folder / name
    change(pd.read_csv(path, keep_default_na=False)).to_csv(path, index=False)


@pytest.mark.parametrize("source", ["stream", "tables"])
def test_a_send_that_was_not_decided_is_refused(tmp_path: Path, source: str):
    write_log(tmp_path, pd.Timedelta("1h"))
    edit(tmp_path, "decided/8.csv", lambda f: f.assign(channel="none", offer="", propensity_channel=0.6))
    with pytest.raises(InputError) as caught:
        read(source, tmp_path)
    (fault,) = caught.value.faults
    assert (Path(fault.file).name, fault.problem) == ("sends.csv", "the decision for this time was another one")
    row = pd.read_csv(tmp_path / "sends.csv").iloc[(fault.row or 0) - 1]
    assert row["time"].startswith("2024-03-12 10:")


def test_decisions_without_a_send_count_as_decided(tmp_path: Path):
    write_log(tmp_path, pd.Timedelta("1h"))
    expected = read("stream", tmp_path)
    edit(tmp_path, "sends.csv", lambda f: f[~f["time"].str.startswith("2024-03-12")])
    found = read("stream", tmp_path)
    missing = int(pd.read_csv(tmp_path / "decided" / "8.csv")["channel"].eq("email").sum())
    assert f"{missing} of these have no send in the log, and count as decided" in found.summary()
    np.testing.assert_array_equal(found.decisions.actions, expected.decisions.actions)
    assert any(f"{missing} of " in one and "have no send in the log" in one for one in found.cautions)
    assert not expected.cautions


@pytest.mark.parametrize("source", ["stream", "tables"])
def test_decisions_of_the_slot_before_their_sends_are_refused(tmp_path: Path, source: str):
    """20:00 is nearer to 10:00 of the same day: its slots were replaced, and the sends were decisions of their own."""
    write_log(tmp_path, pd.Timedelta("14h"))
    with pytest.raises(InputError) as caught:
        read(source, tmp_path)
    (fault,) = caught.value.faults
    assert (Path(fault.file).name, fault.column) == ("8.csv", "time")
    assert fault.problem.startswith("the message was sent in the period of a later slot")


@pytest.mark.parametrize("source", ["stream", "tables"])
def test_two_decisions_of_a_user_for_one_slot_are_refused(tmp_path: Path, source: str):
    """Otherwise those that nobody carried out were messages as well, 20 minutes before the real ones."""
    write_log(tmp_path, pd.Timedelta("1h"))
    again = pd.read_csv(tmp_path / "decided" / "8.csv", keep_default_na=False)
    again["time"] = (pd.to_datetime(again["time"]) + pd.Timedelta("20min")).astype(str)
    again["decision_id"] = "again " + again["decision_id"]
    again.to_csv(tmp_path / "decided" / "8b.csv", index=False)
    with pytest.raises(InputError) as caught:
        read(source, tmp_path)
    (fault,) = caught.value.faults
    assert (Path(fault.file).name, fault.column, fault.row, fault.count) == ("8b.csv", "time", 1, USERS)
    assert fault.problem.startswith("the user has an earlier decision of the same slot")


@pytest.mark.parametrize(
    ("change", "expected"),
    [
        ({"propensity_channel": 1.4}, ("propensity_channel", 3, "a propensity is at most 1")),
        ({"offer": "huge", "channel": "email"}, ("offer", 3, "this is not an action of the module 'offer'")),
        ({"user_id": "nobody knows"}, ("user_id", 3, "the log has no such user")),
        ({"user_id": "u007 "}, ("user_id", 3, "the log writes this user 'u007'")),
        ({"time": "soon"}, ("time", 3, "this is not a time")),
    ],
)
def test_faults_of_decisions_have_their_file_and_row(
    tmp_path: Path, change: dict[str, Any], expected: tuple[str, int, str]
):
    write_log(tmp_path, pd.Timedelta("1h"))

    def broken(frame: pd.DataFrame) -> pd.DataFrame:
        row = frame.index[frame["channel"] == "email"][0]
        frame = frame.astype(object)
        for name, value in change.items():
            frame.loc[row, name] = value
        return pd.concat([frame.drop(index=row).iloc[:2], frame.loc[[row]], frame.drop(index=row).iloc[2:]])

    edit(tmp_path, "decided/9.csv", broken)
    for source in ("stream", "tables"):
        with pytest.raises(InputError) as caught:
            read(source, tmp_path)
        fault = caught.value.faults[0]
        assert (Path(fault.file).name, fault.column, fault.row, fault.problem) == ("9.csv", *expected)


def test_decisions_are_further_rows_of_tables_with_all_slots(tmp_path: Path):
    write_log(tmp_path, pd.Timedelta("1h"))
    with_slots = read_tables(replace(tables(tmp_path), decided=None))
    frame = with_slots.decisions_frame()
    frame[frame["time"] < "2024-03-12"].to_parquet(tmp_path / "slots.parquet")
    history = read_tables(replace(tables(tmp_path), slots=None, decisions=TableSource(tmp_path / "slots.parquet")))
    source = history.decisions.propensity_source
    assert np.bincount(source, minlength=4)[[LOGGED, MISSING]].tolist() == [2 * USERS, len(source) - 2 * USERS]
    assert history.decisions.eligible is not None
    assert history.decisions.eligible.all()


def test_decisions_need_a_grid(tmp_path: Path):
    write_log(tmp_path, pd.Timedelta("1h"))
    with pytest.raises(ConfigError, match="needs slots on a grid"):
        replace(stream(tmp_path), slots="sends_only")
