"""Deciding from the recent days of a log and totals of the earlier ones has the bits of deciding from the whole log."""

from __future__ import annotations

import shutil
from contextlib import chdir
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest

from crosschannel.core.errors import ConfigError, InputError
from crosschannel.core.times import DAY, NEVER
from crosschannel.histories.context.activity import Activity, BlockHabits, WeekendHabits
from crosschannel.histories.context.columns import raw_columns
from crosschannel.histories.context.layout import ContextSpec, Layout
from crosschannel.histories.guardrails import Guardrails, allowed_actions
from crosschannel.histories.history import History
from crosschannel.histories.logs import take_rows
from crosschannel.histories.readers import daily
from crosschannel.histories.readers.daily import DailyLog
from crosschannel.histories.readers.decided.days import decided_days
from crosschannel.histories.readers.folder import read_history
from crosschannel.pipeline.configuration import load_config
from crosschannel.pipeline.loop import recent as recent_module
from crosschannel.pipeline.loop.decisions.slot_times import shows_slots, slot_at
from crosschannel.pipeline.loop.recent import DAYS_FOLDER, RecentLog
from crosschannel.pipeline.loop.totals import RESTS_ON, TOTALS
from crosschannel.pipeline.run_files import RunLock
from crosschannel.pipeline.simulation import simulating
from crosschannel.pipeline.simulation.simulating import Loop, simulate
from crosschannel.programs import decide
from tests import ROOT

USERS, DAYS, WARM_UP, LEARNS = 60, 9, 5, 2
CONFIG = ROOT / "tests/programs/closed_loop.yaml"
GUARDRAILS = Guardrails(weekly_cap=2, min_gap="3d")


def deployment(folder: Path, **settings: Any) -> Loop:
    market = {"history.market.users": USERS, "history.market.days": DAYS, "history.market.warmup_days": WARM_UP}
    own = {"loop.active_days": LEARNS, "constraints.cost_events": (), "loop.marketers": ()}
    folder.parent.mkdir(exist_ok=True)
    with chdir(folder.parent):  # policies hold where the log is
        for _ in simulate(load_config(CONFIG, {**market, **own, **settings}), Path(folder.name)):
            pass
    return Loop(folder)


@pytest.fixture(scope="module")
def simulated(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return deployment(tmp_path_factory.mktemp("recent") / "run").path


@pytest.fixture(scope="module")
def complete(simulated: Path) -> History:
    """The whole log of the deployment, as no test has changed it."""
    return read_history(simulated / "log", simulated / "decisions")


@pytest.fixture
def loop(simulated: Path, tmp_path: Path) -> Loop:
    """A deployment of fourteen days, which a test may change."""
    return Loop(Path(shutil.copytree(simulated, tmp_path / "run")))


def unsubscribe_early(loop: Loop) -> None:
    """Let a tenth of the users of the first day unsubscribe on it."""
    log = DailyLog.open(loop.log)
    file = log.folder(log.start) / "events.parquet"
    table = pd.read_parquet(file)
    first = table.drop_duplicates("user_id").iloc[::10].assign(event="unsubscribed", value=1.0)
    pd.concat([table, first], ignore_index=True).to_parquet(file, index=False)


def layout_of(history: History) -> Layout:
    """Columns of all kinds; habits as if users were known to differ."""
    blocks = BlockHabits((3, 9, 17), (0.2, 0.5, 0.3), 4.0)
    activity = Activity(("visit:food", "visit:rides"), "Europe/Berlin", blocks, WeekendHabits((5, 6), 1.1, 3.0))
    events = ("visit:food", "visit:*", "order:*", "clicked")
    return replace(Layout.build(ContextSpec(windows=("1d", "5d"), events=events), history), activity=activity)


def recent_of(loop: Loop, complete: History) -> RecentLog:
    """What reads the recent days of a deployment, with columns for the events and actions of its whole log."""
    return RecentLog(loop.path / "totals", DailyLog.open(loop.log), loop.decided, layout_of(complete), GUARDRAILS)


def assert_equal(found: History, whole: History, layout: Layout, at: int) -> None:
    """What is said of every user at a time is the same to the last bit."""
    np.testing.assert_array_equal(found.user_ids, whole.user_ids)
    users, now = np.arange(whole.n_users), np.full(whole.n_users, at)
    pairs = zip(raw_columns(layout, found, users, now), raw_columns(layout, whole, users, now), strict=True)
    for (name, column), (other, wanted) in pairs:
        assert name == other
        np.testing.assert_array_equal(column, wanted, err_msg=name)
    allowed = (allowed_actions(GUARDRAILS, each, users, now + 1) for each in (found, whole))
    np.testing.assert_array_equal(*allowed)
    np.testing.assert_array_equal(found.churned_at, whole.churned_at)
    np.testing.assert_array_equal(found.observed_from, whole.observed_from)


def test_contexts_and_guardrails_are_those_of_the_whole_log_day_by_day(loop: Loop) -> None:
    """The whole log counts up to a time, so that one log serves every day; totals move on by a day each."""
    unsubscribe_early(loop)
    whole = read_history(loop.log, loop.decided)
    layout, recent = layout_of(whole), recent_of(loop, whole)
    cuts = list[int]()
    for at in range(whole.span[1] - 3 * DAY, whole.span[1] + 4 * DAY, DAY):
        found = recent.read(at)
        assert_equal(found, whole, layout, at)
        if found.earlier is not None:
            cuts.append(found.earlier.time)
    some = found.earlier
    assert some is not None
    assert (len(found.events), len(found.decisions)) < (len(whole.events), len(whole.decisions))
    for values in (some.by_hour, some.by_weekday, some.sent[:, 1:], some.last_message > 0):
        assert values.any()
    np.testing.assert_array_equal(some.churned_at < NEVER, whole.churned_at < some.time)
    assert (some.churned_at < NEVER).any()
    assert len(cuts) >= 3
    assert np.diff(cuts).tolist() == [DAY] * (len(cuts) - 1)


def test_a_passive_phase_decides_as_from_the_whole_log(
    simulated: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(simulating, "recent_log", lambda *_: None)
    whole = deployment(tmp_path / "run")
    assert (simulated / DAYS_FOLDER / TOTALS).is_file()
    assert not (whole.path / DAYS_FOLDER).exists()
    for file in sorted(whole.decided.rglob("*")):
        if file.is_file():
            assert file.read_bytes() == (simulated / "decisions" / file.relative_to(whole.decided)).read_bytes()


@pytest.mark.parametrize(
    "what", ["events", *(pytest.param(w, marks=pytest.mark.slow) for w in ("decisions", "decided"))]
)
def test_a_day_that_was_corrected_is_summed_up_again(loop: Loop, complete: History, what: str) -> None:
    recent, at = recent_of(loop, complete), complete.span[1]
    recent.read(at)
    assert recent.read(at).earlier is not None
    days = recent.log.days()
    file = recent.log.folder(days[1]) / f"{what}.parquet"
    if what == "decided":
        # Totals reach the first decided days only some days later.
        at += 6 * DAY
        recent.read(at)
        assert recent.read(at).earlier is not None
        file = decided_days(loop.decided)[0] / "decisions.parquet"
    table = pd.read_parquet(file)
    table.iloc[1 : len(table)].to_parquet(file, index=False)
    found = recent.read(at)
    assert found.earlier is None
    assert_equal(recent.read(at), read_history(loop.log, loop.decided), recent.layout, at)
    assert recent.read(at).earlier is not None


def test_a_row_in_the_file_of_a_later_day_is_not_lost(loop: Loop, complete: History) -> None:
    recent, at = recent_of(loop, complete), complete.span[1]
    recent.read(at)
    days = recent.log.days()
    file = recent.log.folder(days[-1]) / "events.parquet"
    late = pd.read_parquet(recent.log.folder(days[0]) / "events.parquet").iloc[:1]
    pd.concat([pd.read_parquet(file), late], ignore_index=True).to_parquet(file, index=False)
    found = recent.read(at)
    assert found.earlier is None
    assert_equal(found, read_history(loop.log, loop.decided), recent.layout, at)


@pytest.mark.parametrize("file", [TOTALS, pytest.param(RESTS_ON, marks=pytest.mark.slow)])
def test_damaged_totals_are_computed_again(loop: Loop, complete: History, file: str) -> None:
    recent, at = recent_of(loop, complete), complete.span[1]
    recent.read(at)
    (recent.folder / file).write_bytes(b"damaged")
    assert recent.read(at).earlier is None
    found = recent.read(at)
    assert found.earlier is not None
    assert_equal(found, read_history(loop.log, loop.decided), recent.layout, at)


def test_totals_of_other_events_or_hours_are_not_taken(loop: Loop, complete: History) -> None:
    recent, at = recent_of(loop, complete), complete.span[1]
    recent.read(at)
    activity = recent.layout.activity
    assert activity is not None
    for changed in (replace(activity, events=("clicked",)), replace(activity, time_zone="Asia/Tokyo")):
        other = replace(recent, layout=replace(recent.layout, activity=changed))
        assert other.read(at).earlier is None
        assert_equal(other.read(at), read_history(loop.log, loop.decided), other.layout, at)


def test_users_whose_observation_no_table_declares_need_the_whole_log(loop: Loop, complete: History) -> None:
    recent, at = recent_of(loop, complete), complete.span[1]
    users = pd.read_parquet(loop.log / "users.parquet").drop(columns="observed_from")
    users.to_parquet(loop.log / "users.parquet", index=False)
    for _ in range(2):
        assert recent.read(at).earlier is None
    assert not recent.folder.exists()


def test_an_earlier_time_than_that_of_the_totals_reads_the_whole_log(loop: Loop, complete: History) -> None:
    recent, at = recent_of(loop, complete), complete.span[1]
    recent.read(at)
    assert recent.read(at - DAY).earlier is None


def test_chosen_users_keep_their_totals(loop: Loop) -> None:
    whole = read_history(loop.log, loop.decided)
    recent, at = recent_of(loop, whole), whole.span[1]
    recent.read(at)
    chosen = np.arange(whole.n_users) % 3 == 1
    assert_equal(recent.read(at).select_users(chosen), whole.select_users(chosen), recent.layout, at)


def test_the_program_decides_as_from_the_whole_log(loop: Loop, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(loop.path.parent)
    run, log = Path("run"), DailyLog.open(loop.log)
    users = pd.read_parquet(loop.log / "users.parquet")["user_id"]
    channels = "|".join(log.modules[0].actions)
    pd.DataFrame({"user_id": users, "eligible_channel": channels}).to_csv("eligible.csv", index=False)
    moment = pd.Timestamp(log.end, unit="us") + pd.Timedelta("2h")
    flags = ["--at", f"{moment:%Y-%m-%dT%H:%M}", "--eligible", "eligible.csv", "--history.decided", run / "decisions"]
    found = []
    for out in ("first", "second", "whole"):
        if out == "whole":
            monkeypatch.setattr(decide, "recent_log", lambda *_: None)
        assert decide.main([str(each) for each in (run, "--out", out, *flags)]) == 0
        found.append({file.name: file.read_bytes() for file in Path(out).rglob("*.*") if file.is_file()})
    assert (run / DAYS_FOLDER / TOTALS).is_file()
    assert set(found[0]) >= {"decisions.parquet", "arms.parquet", "decide.json"}
    assert found[0] == found[1] == found[2]


def assert_decides_as_whole(loop: Loop, recent: RecentLog, at: int) -> History:
    """What is read is what the whole log says, twice: with totals that were there, and with those kept then."""
    whole = read_history(loop.log, loop.decided)
    for _ in range(2):
        found = recent.read(at)
        assert_equal(found, whole, recent.layout, at)
    return found


def recut(loop: Loop, shift: int) -> None:
    """Cut the files of the log's days at another time of day, such as local midnight; rows outside stay at the ends."""
    log = DailyLog.open(loop.log)
    days = log.days()
    for name in ("events", "decisions"):
        files = [log.folder(day) / f"{name}.parquet" for day in days]
        rows = pd.concat([pd.read_parquet(file) for file in files], ignore_index=True)
        time = pd.to_datetime(rows["time"], utc=True).dt.tz_localize(None).to_numpy("datetime64[us]").astype(np.int64)
        number = np.clip((time - log.start - shift) // DAY, 0, len(days) - 1)
        for k, file in enumerate(files):
            rows[number == k].to_parquet(file, index=False)


@pytest.mark.parametrize("hours", [-9, *(pytest.param(h, marks=pytest.mark.slow) for h in (-1, 1, 5, 8))])
def test_files_that_are_cut_at_another_midnight_lose_no_row(loop: Loop, complete: History, hours: int) -> None:
    """Days of time zones east and west of UTC: totals reach up to a time that divides the files."""
    recut(loop, hours * 3600 * 1_000_000)
    recent, at = recent_of(loop, complete), complete.span[1]
    for day in (at - DAY, at):
        found = assert_decides_as_whole(loop, recent, day)
        assert found.earlier is not None


def test_a_late_row_in_the_file_of_an_earlier_day_is_not_lost(loop: Loop, complete: History) -> None:
    """Such as one of a device whose clock is ahead: no time divides the files, so that the whole log is read."""
    recent, at = recent_of(loop, complete), complete.span[1]
    days = recent.log.days()
    first, last = (recent.log.folder(day) / "events.parquet" for day in (days[0], days[-1]))
    early = pd.concat([pd.read_parquet(first), pd.read_parquet(last).iloc[:3]], ignore_index=True)
    early.to_parquet(first, index=False)
    assert assert_decides_as_whole(loop, recent, at).earlier is None
    assert not recent.folder.exists()


def test_decisions_that_were_edited_to_another_time_are_not_lost(loop: Loop, complete: History) -> None:
    recent, at = recent_of(loop, complete), complete.span[1] + 6 * DAY
    file = decided_days(loop.decided)[0] / "decisions.parquet"
    table = pd.read_parquet(file)
    table["time"] = pd.to_datetime(table["time"], utc=True) + pd.Timedelta("8D") + pd.Timedelta("1h")
    table.to_parquet(file, index=False)
    assert_decides_as_whole(loop, recent, at)


def test_another_start_of_the_observation_changes_what_was_summed_up(loop: Loop, complete: History) -> None:
    recent, at = recent_of(loop, complete), complete.span[1]
    recent.read(at)
    assert recent.read(at).earlier is not None
    file = loop.log / "users.parquet"
    users = pd.read_parquet(file)
    users.loc[::3, "observed_from"] += pd.Timedelta("3D")
    users.to_parquet(file, index=False)
    assert recent.read(at).earlier is None
    assert assert_decides_as_whole(loop, recent, at).earlier is not None


def test_users_who_join_later_do_not_outdate_the_totals(loop: Loop, complete: History) -> None:
    recent, at = recent_of(loop, complete), complete.span[1]
    recent.read(at)
    file = loop.log / "users.parquet"
    users = pd.read_parquet(file)
    new = users.iloc[:2].assign(user_id=["zz-new", "aa-new"], observed_from=pd.Timestamp(at + DAY, unit="us"))
    pd.concat([new, users], ignore_index=True).to_parquet(file, index=False)
    assert recent.read(at).earlier is not None
    assert_decides_as_whole(loop, recent, at)


def test_a_user_who_vanished_is_refused_as_by_the_whole_log(loop: Loop, complete: History) -> None:
    recent, at = recent_of(loop, complete), complete.span[1]
    recent.read(at)
    # A user of the first days alone: no file that is read now names the user.
    late = read_history(loop.log, loop.decided)
    user = late.user_ids[0]
    for day in recent.log.days()[3:]:
        for folder in (recent.log.folder(day), loop.decided / recent.log.folder(day).name):
            for file in folder.glob("*.parquet"):
                table = pd.read_parquet(file)
                table[table["user_id"] != user].to_parquet(file, index=False)
    for _ in range(2):
        recent.read(at)
    users = pd.read_parquet(loop.log / "users.parquet")
    users[users["user_id"] != user].to_parquet(loop.log / "users.parquet", index=False)
    with pytest.raises(InputError, match="the user is not in the table of users"):
        read_history(loop.log, loop.decided)
    with pytest.raises(InputError, match="the user is not in the table of users"):
        recent.read(at)


def test_values_that_are_missing_from_some_day_on_are_refused_as_by_the_whole_log(
    loop: Loop, complete: History
) -> None:
    recent, at = recent_of(loop, complete), complete.span[1]
    recent.read(at)
    cut = int(recent.read(at).earlier.time)
    for day in recent.log.days():
        if day >= cut:
            file = recent.log.folder(day) / "events.parquet"
            table = pd.read_parquet(file)
            table.loc[table["event"].str.startswith("order"), "value"] = np.nan
            table.to_parquet(file, index=False)
    with pytest.raises(InputError, match="the value is missing"):
        recent.read(at)


def test_a_summed_day_that_is_removed_is_refused(loop: Loop, complete: History) -> None:
    recent, at = recent_of(loop, complete), complete.span[1]
    recent.read(at)
    day = recent.log.folder(recent.log.days()[1])
    (day / "events.parquet").unlink()
    with pytest.raises(InputError, match=r"events\.parquet"):
        recent.read(at)
    shutil.rmtree(day)
    with pytest.raises(InputError, match="is missing"):
        recent.read(at)


def test_days_without_rows_are_read_like_others(loop: Loop, complete: History) -> None:
    recent, at = recent_of(loop, complete), complete.span[1]
    days = recent.log.days()
    for day in (*days[:2], *days[5:8]):
        file = recent.log.folder(day) / "events.parquet"
        pd.read_parquet(file).iloc[:0].to_parquet(file, index=False)
    for time in (at - DAY, at, at + DAY):
        assert assert_decides_as_whole(loop, recent, time).earlier is not None


def test_a_time_beyond_the_log_needs_no_day_that_is_not_there(loop: Loop, complete: History) -> None:
    recent, at = recent_of(loop, complete), complete.span[1]
    for time in (at + 400 * DAY, at + 401 * DAY, at):
        assert_decides_as_whole(loop, recent, time)


def test_a_file_that_changes_while_it_is_read_outdates_the_totals(
    loop: Loop, complete: History, monkeypatch: pytest.MonkeyPatch
) -> None:
    recent, at = recent_of(loop, complete), complete.span[1]
    file = recent.log.folder(recent.log.days()[1]) / "events.parquet"
    read = DailyLog.read

    def read_and_change(*arguments: Any, **named: Any) -> History:
        found = read(*arguments, **named)
        pd.read_parquet(file).iloc[5:].to_parquet(file, index=False)
        return found

    with monkeypatch.context() as patched:
        patched.setattr(DailyLog, "read", read_and_change)
        recent.read(at)
    assert recent.read(at).earlier is None
    assert_decides_as_whole(loop, recent, at)


def test_another_process_that_keeps_totals_or_a_folder_without_rights_changes_no_decision(
    loop: Loop, complete: History, caplog: pytest.LogCaptureFixture
) -> None:
    recent, at = recent_of(loop, complete), complete.span[1]
    recent.folder.mkdir()
    with RunLock(recent.folder):
        assert_equal(recent.read(at), read_history(loop.log, loop.decided), recent.layout, at)
    assert "is not kept" in caplog.text
    assert not (recent.folder / TOTALS).exists()
    blocked = replace(recent, folder=loop.path / "config.yaml" / "days")
    assert_equal(blocked.read(at), read_history(loop.log, loop.decided), recent.layout, at)


def test_totals_without_their_description_or_with_an_earlier_one_are_not_taken(loop: Loop, complete: History) -> None:
    """As a process leaves them that was killed between the two files."""
    recent, at = recent_of(loop, complete), complete.span[1]
    recent.read(at - DAY)
    earlier = (recent.folder / RESTS_ON).read_bytes()
    recent.read(at)
    assert (recent.folder / RESTS_ON).read_bytes() != earlier
    (recent.folder / RESTS_ON).write_bytes(earlier)
    assert recent.read(at).earlier is None
    (recent.folder / RESTS_ON).unlink()
    assert recent.read(at).earlier is None
    assert_decides_as_whole(loop, recent, at)


def test_the_users_are_read_once(loop: Loop, complete: History, monkeypatch: pytest.MonkeyPatch) -> None:
    recent, at = recent_of(loop, complete), complete.span[1]
    files = list[str]()
    for module in (recent_module, daily):
        real = module.read_parquet
        monkeypatch.setattr(module, "read_parquet", lambda path, real=real: (files.append(path.name), real(path))[1])
    for _ in range(2):
        files.clear()
        recent.read(at)
        assert files.count("users.parquet") == 1


@pytest.mark.parametrize("moment", ["2100-01-01", "1995-01-01", "tomorrow"])
def test_a_time_that_the_log_does_not_cover_is_refused_beside_its_own_times(
    loop: Loop, monkeypatch: pytest.MonkeyPatch, moment: str
) -> None:
    """Those of the whole log, also where the recent days would be read."""
    monkeypatch.chdir(loop.path.parent)
    log = DailyLog.open(loop.log)
    users = pd.read_parquet(loop.log / "users.parquet")["user_id"]
    pd.DataFrame({"user_id": users, "eligible_channel": "none"}).to_csv("eligible.csv", index=False)
    now = f"{pd.Timestamp(log.end, unit='us') + pd.Timedelta('2h'):%Y-%m-%dT%H:%M}"
    flags = ["run", "--out", "days", "--eligible", "eligible.csv", "--history.decided", "run/decisions"]
    assert decide.main([*flags, "--at", now]) == 0
    first = pd.Timestamp(int(read_history(loop.log, loop.decided).decisions.time.min()), unit="us")
    wanted = "is not a time" if moment == "tomorrow" else f"first decision is at {first:%Y-%m-%d}"
    with pytest.raises(ConfigError, match=wanted):
        decide.main([*flags, "--at", moment])


def test_a_slot_that_the_recent_days_do_not_show_is_found_in_the_whole_log(loop: Loop) -> None:
    """Where nobody decided for a while, the last slots may lie before the days that were read."""
    whole = read_history(loop.log, loop.decided)
    recent, at = recent_of(loop, whole), whole.span[1]
    recent.read(at)
    found = recent.read(at)
    assert found.earlier is not None
    times = np.arange(found.earlier.time, at, DAY // 2)
    shown = [shows_slots(found, time, DAY) for time in times]
    assert any(shown)
    assert not all(shown)
    assert all(slot_at(found, time, DAY) == slot_at(whole, time, DAY) for time in times[shown])
    assert shows_slots(whole, at, DAY)
    d = found.decisions
    none = replace(found, decisions=take_rows(d, d.time < 0), events=replace(found.events, message=None))
    assert not shows_slots(none, at, DAY)
