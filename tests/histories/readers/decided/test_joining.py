"""Decisions by date join the log that followed: in the place of its rows, with the arms, whatever was delivered."""

from __future__ import annotations

import json
import re
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from crosschannel.core.errors import ConfigError, InputError
from crosschannel.core.times import DAY, HOUR
from crosschannel.histories import ARMS, History, TableMapping, TableSource, read_history, read_tables, write_history
from crosschannel.histories.readers.decided.days import ARMS_FILE, DECISIONS_FILE, SUMMARY_FILE, decided_days, read_arms
from crosschannel.pipeline import Config, load_history
from crosschannel.pipeline.configuration import HistoryConfig
from tests.histories.readers.decided.samples import write_days
from tests.samples import random_history

START = 20_000 * DAY
MODULES = (
    {"name": "channel", "actions": ["none", "email", "push"]},
    {"name": "offer", "actions": ["small", "large"]},
)


def whole_log() -> History:
    """A log of 2024 in which a policy has decided; half of its messages were opened."""
    history = random_history(3, users=30)
    d, e = history.decisions, history.events
    sent = history.modules.sends(d.actions)
    p = np.stack([np.where(sent, 0.15, 0.7), np.where(sent, 0.5, 1.0)], axis=1)
    message = np.full(len(e), -1)
    rows = np.flatnonzero(sent)[::2]
    about = np.searchsorted(e.user, d.user[rows])
    message[about] = rows
    return replace(
        history.with_propensities(p, p.prod(1), "logged"),
        decisions=replace(d, time=d.time + START, propensity=p, joint=p.prod(1)),
        events=replace(e, time=e.time + START, message=message),
        observed_from=history.observed_from + START,
        observed_until=history.observed_until + START,
        span=(START, START + 12 * DAY),
    )


def some_arms(history: History) -> np.ndarray:
    return np.array(ARMS, dtype=object)[np.arange(history.n_users) % 3]


@pytest.fixture
def folders(tmp_path: Path) -> tuple[History, Path, Path]:
    """The whole log, a folder with it, and the decisions of its last four days by date."""
    history = whole_log()
    write_history(history, tmp_path / "log")
    times = np.unique(history.decisions.time)[-4:]
    write_days(history, tmp_path / "decided", times, some_arms(history), DAY)
    return history, tmp_path / "log", tmp_path / "decided"


def log_of_the_sending_tool(history: History, times: np.ndarray, arms: np.ndarray) -> History:
    """The log without propensities and with other ids at the times that were decided, as another system wrote it."""
    d = history.decisions
    ours = np.isin(d.time, times)
    ids = np.array([f"tool-{k}" if mine else one for k, (one, mine) in enumerate(zip(d.id, ours, strict=True))], object)
    p, joint = d.propensity.copy(), d.joint.copy()
    p[ours], joint[ours] = np.nan, np.nan
    return replace(history, decisions=replace(d, id=ids, propensity=p, joint=joint))


def equal(found: History, expected: History) -> None:
    assert found.fingerprint() == expected.fingerprint()


def test_the_log_that_already_has_the_decisions_stays_as_it_is(folders):
    history, log, decided = folders
    found = read_history(log, decided)
    d = history.decisions
    began = np.unique(d.time)[-4] // DAY * DAY
    # What was not sent before the arms began was not held out.
    arm = np.where(d.time >= began, some_arms(history)[d.user], None)
    mine = np.isin(d.time, np.unique(d.time)[-4:]) & (arm != "business_as_usual")
    policy = np.where(mine, "0123456789ab", None)
    eligible = found.decisions.eligible
    assert eligible is None
    equal(found, replace(history, decisions=replace(history.decisions, arm=arm, policy=policy)))
    assert f"decisions of a policy: {mine.sum()}, " in found.summary()
    assert f"in the place of rows of the log: {mine.sum()}, " in found.summary()


def test_the_rows_of_the_sending_tool_are_what_became_of_the_decisions(tmp_path, folders):
    history, log, decided = folders
    expected = read_history(log, decided)
    times = np.unique(history.decisions.time)[-4:]
    write_history(log_of_the_sending_tool(history, times, some_arms(history)), tmp_path / "tool")
    found = read_history(tmp_path / "tool", decided)
    bau = (found.decisions.arm == "business_as_usual") & np.isin(found.decisions.time, times)
    assert all(str(one).startswith("tool-") for one in found.decisions.id[bau])
    assert not any(str(one).startswith("tool-") for one in found.decisions.id[~bau])
    np.testing.assert_array_equal(found.decisions.actions, expected.decisions.actions)
    np.testing.assert_array_equal(found.decisions.joint[~bau], expected.decisions.joint[~bau])
    assert np.isnan(found.decisions.joint[bau]).all()
    assert (found.events.message >= 0).sum() == (expected.events.message >= 0).sum()
    np.testing.assert_array_equal(found.events.message, expected.events.message)


def test_decisions_that_the_log_does_not_have_yet_are_added(tmp_path, folders):
    """The log has nothing of the decided slots, and ends before the last of them: the next decision has to know it."""
    history, _, decided = folders
    d, times = history.decisions, np.unique(history.decisions.time)[-4:]
    without = ~np.isin(d.time, times)
    frame = history.decisions_frame()[without]
    events = history.events_frame().drop(columns="decision_id")
    end = int(times[2]) + HOUR
    bare = History.from_tables(
        frame, events[history.events.time <= end], history.modules, span=(history.span[0], end), name="bare"
    )
    write_history(bare, tmp_path / "bare")
    found = read_history(tmp_path / "bare", decided)
    arm = some_arms(history)[d.user]
    ours = np.isin(d.time, times) & (arm != "business_as_usual")
    assert len(found.decisions) == (without | ours).sum()
    assert (found.decisions.time == times[3]).sum() == (ours & (d.time == times[3])).sum()
    assert found.span[1] == end


def test_a_decision_that_was_not_delivered_stays_what_was_decided(tmp_path, folders):
    history, _, decided = folders
    d, times = history.decisions, np.unique(history.decisions.time)[-4:]
    lost = np.isin(d.time, times) & (some_arms(history)[d.user] == "agent")
    p = np.where(lost[:, None], [0.7, 1.0], d.propensity)
    quiet = replace(d, actions=np.where(lost[:, None], 0, d.actions), propensity=p, joint=p.prod(1))
    write_history(replace(history, decisions=quiet), tmp_path / "quiet")
    found = read_history(tmp_path / "quiet", decided)
    np.testing.assert_array_equal(found.decisions.actions, d.actions)
    assert any("have no send in the log" in one for one in found.cautions), found.summary()
    # Where none has a send, the log does not have the policy's messages, which says nothing about their delivery.
    lost = np.isin(d.time, times)
    p = np.where(lost[:, None], [0.7, 1.0], d.propensity)
    none = replace(d, actions=np.where(lost[:, None], 0, d.actions), propensity=p, joint=p.prod(1))
    write_history(replace(history, decisions=none), tmp_path / "none")
    assert not read_history(tmp_path / "none", decided).cautions


def test_messages_of_times_without_any_row_are_not_delivered(tmp_path, folders):
    """The tool failed at two times and wrote nothing of them, and worked again afterwards."""
    history, _, decided = folders
    d, times = history.decisions, np.unique(history.decisions.time)[-4:]
    frame, events = history.decisions_frame(), history.events_frame().drop(columns="decision_id")
    due = (
        np.isin(d.time, times) & (some_arms(history)[d.user] != "business_as_usual") & history.modules.sends(d.actions)
    )

    def cautions(name: str, rows: np.ndarray) -> tuple[str, ...]:
        log = History.from_tables(frame[rows], events, history.modules, span=history.span, name=name)
        write_history(log, tmp_path / name)
        return read_history(tmp_path / name, decided).cautions

    failed = np.isin(d.time, times[:2])
    (caution,) = cautions("failed", ~failed)
    assert caution.startswith(f"{(due & failed).sum()} of {due.sum()} decided messages")
    # What was decided for a time after the log's last row is not due yet.
    assert not cautions("begun", d.time < times[2])


def test_a_message_that_nobody_decided_is_refused(tmp_path, folders):
    history, log, decided = folders
    file = decided_days(decided)[1] / DECISIONS_FILE
    frame = pd.read_parquet(file)
    sent = frame.channel != "none"
    frame.loc[sent, "channel"] = "none"
    frame.to_parquet(file)
    with pytest.raises(InputError) as caught:
        read_history(log, decided)
    (fault,) = caught.value.faults
    assert (fault.file, fault.column, fault.count) == (str(log / "decisions.parquet"), "channel", sent.sum())
    assert fault.problem == "the decision for this time was another one"
    row = history.decisions_frame().iloc[fault.row - 1]
    assert row.user_id in set(frame.user_id[sent])


def test_messages_at_other_times_than_their_slots_are_not_counted_twice(tmp_path, folders):
    """The tool logs its sends twenty minutes after the slot; each would be a message beside the decision."""
    history, _, decided = folders
    d, times = history.decisions, np.unique(history.decisions.time)[-4:]
    ours = np.isin(d.time, times) & (some_arms(history)[d.user] != "business_as_usual")
    sent = history.modules.sends(d.actions)
    later = replace(d, time=np.where(ours & sent, d.time + HOUR // 3, d.time))
    write_history(replace(history, decisions=later), tmp_path / "later")
    with pytest.raises(InputError, match="follows a decision at another time than its slot's") as caught:
        read_history(tmp_path / "later", decided)
    (fault,) = caught.value.faults
    assert (fault.column, fault.count) == ("time", (ours & sent).sum())
    # A few messages of other systems after a slot are messages of their own.
    few = np.flatnonzero(ours & sent)[:3]
    late = np.isin(np.arange(len(d)), few)
    ids = np.where(late, np.char.add("tool-", d.id.astype(str)), d.id.astype(str)).astype(object)
    other = replace(d, id=ids, time=np.where(late, d.time + HOUR // 3, d.time))
    write_history(replace(history, decisions=other), tmp_path / "few")
    assert len(read_history(tmp_path / "few", decided).decisions) == len(d) + 3


def test_faults_of_decisions_name_their_day(folders):
    _, log, decided = folders
    file = decided_days(decided)[2] / DECISIONS_FILE
    frame = pd.read_parquet(file)
    frame.loc[frame.index[4], "propensity_channel"] = 1.7
    frame.to_parquet(file)
    with pytest.raises(InputError) as caught:
        read_history(log, decided)
    fault = caught.value.faults[0]
    assert (fault.file, fault.column, fault.row) == (str(file), "propensity_channel", 5)
    frame = pd.concat([frame.assign(propensity_channel=0.7), frame.iloc[:1].assign(decision_id="again")])
    frame.to_parquet(file)
    with pytest.raises(InputError, match="the user has an earlier decision of the same time"):
        read_history(log, decided)


def test_tables_with_all_slots_join_in_the_same_way(folders):
    _, log, decided = folders
    mapping = TableMapping(
        TableSource(log / "decisions.parquet"),
        (TableSource(log / "events.parquet", {"decision_id": "decision_id"}),),
        MODULES,
        users=TableSource(log / "users.parquet"),
    )
    config = Config(history=HistoryConfig("tables", tables=mapping, decided=decided))
    found, expected = load_history(config), read_history(log, decided)
    for name in ("actions", "joint", "arm", "policy"):
        np.testing.assert_array_equal(getattr(found.decisions, name), getattr(expected.decisions, name))
    np.testing.assert_array_equal(found.events.message, expected.events.message)
    named = read_tables(replace(mapping, decided=TableSource(decided)))
    np.testing.assert_array_equal(named.decisions.actions, expected.decisions.actions)


def test_each_user_has_the_arm_of_the_last_day_that_names_them(folders):
    history, log, decided = folders
    days = decided_days(decided)
    first = pd.read_parquet(days[0] / ARMS_FILE)
    first.assign(arm="holdout").to_parquet(days[0] / ARMS_FILE)
    last = pd.read_parquet(days[-1] / ARMS_FILE)
    last.iloc[5:].to_parquet(days[-1] / ARMS_FILE)
    assert read_arms(decided, history.user_ids).tolist() == some_arms(history).tolist()
    for day in days[1:]:
        last.iloc[5:].to_parquet(day / ARMS_FILE)
    expected = ["holdout"] * 5 + some_arms(history)[5:].tolist()
    assert read_arms(decided, history.user_ids).tolist() == expected
    first.iloc[3:].to_parquet(days[0] / ARMS_FILE)
    found = read_history(log, decided)
    before = found.decisions.time < np.unique(history.decisions.time)[-4]
    nobody = np.array([arm is None for arm in found.decisions.arm])
    assert nobody[before].all()
    assert not nobody[~before & (some_arms(history) != "business_as_usual")[found.decisions.user]].any()
    assert "3 users are in no file of arms" in found.summary()
    last.assign(arm="everyone").to_parquet(days[-1] / ARMS_FILE)
    with pytest.raises(InputError, match="this is not an arm"):
        read_history(log, decided)


def test_edited_actions_are_noted(folders):
    """More rows of an action than were decided are edits; fewer are rows that were left out."""
    _, log, decided = folders
    day = decided_days(decided)[1]
    table = pd.read_parquet(day / DECISIONS_FILE)
    policy = table.assign(arm=table["arm"].where(table["arm"] != "business_as_usual"), policy="ab12")
    agents = policy[policy["arm"] == "agent"]
    counts = {m["name"]: {str(k): int(v) for k, v in agents[m["name"]].value_counts().items()} for m in MODULES}
    summary = json.loads((day / SUMMARY_FILE).read_text())
    (day / SUMMARY_FILE).write_text(json.dumps({**summary, "counts": counts}))
    policy.to_parquet(day / DECISIONS_FILE, index=False)
    assert "were edited" not in read_history(log, decided).summary()
    nothing = agents.index[agents["channel"] == "none"]
    policy.drop(nothing[:2]).to_parquet(day / DECISIONS_FILE, index=False)
    assert "were edited" not in read_history(log, decided).summary()
    sent = counts["channel"]["email"]
    policy.loc[nothing[0], ["channel", "offer"]] = ["email", "small"]
    policy.to_parquet(day / DECISIONS_FILE, index=False)
    note = rf"decisions of {day.name} were edited: {sent + 1} rows have channel 'email', {sent} had it"
    assert re.search(note, read_history(log, decided).summary())


def twice(table: pd.DataFrame) -> pd.DataFrame:
    return pd.concat([table, table.iloc[[2]]], ignore_index=True)


def with_value(column: str, value: object) -> Callable[[pd.DataFrame], pd.DataFrame]:
    def changed(table: pd.DataFrame) -> pd.DataFrame:
        values = table[column].tolist()
        values[2] = value
        return table.assign(**{column: values})

    return changed


@pytest.mark.parametrize("day", [0, 1, -1])
@pytest.mark.parametrize(
    ("file", "edit", "message"),
    [
        (ARMS_FILE, twice, r"column 'user_id', row \d+, .*the user has an earlier row"),
        (ARMS_FILE, with_value("user_id", None), r"column 'user_id', row 3, .*the user is missing"),
        (ARMS_FILE, with_value("arm", "agnt"), r"column 'arm', row 3, value 'agnt': this is not an arm"),
        (DECISIONS_FILE, twice, r"row \d+, .*the user has an earlier decision of the same time"),
        (DECISIONS_FILE, with_value("arm", "business_as_usual"), r"'arm', row 3, .*arms.parquet of the same day says"),
        (DECISIONS_FILE, with_value("propensity", 1.5), r"'propensity', row 3, .*a propensity is at most 1"),
        (DECISIONS_FILE, with_value("propensity", 0.0), r"'propensity', row 3, .*a propensity must be above 0"),
    ],
)
def test_a_fault_in_the_files_of_any_day_is_named_by_file_and_row(folders, day, file, edit, message):
    _, log, decided = folders
    path = decided_days(decided)[day] / file
    edit(pd.read_parquet(path)).to_parquet(path, index=False)
    with pytest.raises(InputError, match=rf"{re.escape(str(path))}.*{message}"):
        read_history(log, decided)


def test_a_folder_that_decide_did_not_finish_is_refused_and_drafts_are_not_read(folders):
    _, log, decided = folders
    (decided / ".2024-11-30.part").mkdir()
    expected = read_history(log, decided)
    (decided / "notes").mkdir()
    with pytest.raises(InputError, match="this is not a day of decisions"):
        read_history(log, decided)
    (decided / "notes").rmdir()
    (decided_days(decided)[0] / SUMMARY_FILE).rename(decided / ".moved")
    with pytest.raises(InputError, match=r"decide\.json: the day has no such file"):
        read_history(log, decided)
    (decided / ".moved").rename(decided / sorted(p.name for p in decided.glob("2*"))[0] / SUMMARY_FILE)
    equal(read_history(log, decided), expected)
    with pytest.raises(InputError, match="there is no such folder"):
        read_history(log, decided / "none")


def test_only_sources_that_decisions_join_have_a_folder_of_them():
    with pytest.raises(ConfigError, match="not of 'market'"):
        HistoryConfig("market", decided=Path("decided"))
