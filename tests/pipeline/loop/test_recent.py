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

from crosschannel.core.times import DAY, NEVER
from crosschannel.histories.context.activity import Activity, BlockHabits, WeekendHabits
from crosschannel.histories.context.columns import raw_columns
from crosschannel.histories.context.layout import ContextSpec, Layout
from crosschannel.histories.guardrails import Guardrails, allowed_actions
from crosschannel.histories.history import History
from crosschannel.histories.readers.daily import DailyLog
from crosschannel.histories.readers.decided.days import decided_days
from crosschannel.histories.readers.folder import read_history
from crosschannel.pipeline.configuration import load_config
from crosschannel.pipeline.loop.recent import DAYS_FOLDER, RESTS_ON, TOTALS, RecentLog
from crosschannel.pipeline.simulation import simulating
from crosschannel.pipeline.simulation.simulating import Loop, simulate
from crosschannel.programs import decide
from tests import ROOT

USERS, DAYS, WARM_UP, LEARNS = 120, 9, 5, 2
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


def recent_of(loop: Loop, layout: Layout | None = None, folder: str = "totals") -> RecentLog:
    log, decided = DailyLog.open(loop.log), loop.decided
    layout = layout_of(log.read(decided)) if layout is None else layout
    return RecentLog(loop.path / folder, log, decided, layout, GUARDRAILS)


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
    layout, recent = layout_of(whole), recent_of(loop)
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


@pytest.mark.parametrize("what", ["events", "decisions", "decided"])
def test_a_day_that_was_corrected_is_summed_up_again(loop: Loop, what: str) -> None:
    recent, at = recent_of(loop), read_history(loop.log, loop.decided).span[1]
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


def test_a_row_in_the_file_of_a_later_day_is_not_lost(loop: Loop) -> None:
    recent, at = recent_of(loop), read_history(loop.log, loop.decided).span[1]
    recent.read(at)
    days = recent.log.days()
    file = recent.log.folder(days[-1]) / "events.parquet"
    late = pd.read_parquet(recent.log.folder(days[0]) / "events.parquet").iloc[:1]
    pd.concat([pd.read_parquet(file), late], ignore_index=True).to_parquet(file, index=False)
    found = recent.read(at)
    assert found.earlier is None
    assert_equal(found, read_history(loop.log, loop.decided), recent.layout, at)


@pytest.mark.parametrize("file", [TOTALS, RESTS_ON])
def test_damaged_totals_are_computed_again(loop: Loop, file: str) -> None:
    recent, at = recent_of(loop), read_history(loop.log, loop.decided).span[1]
    recent.read(at)
    (recent.folder / file).write_bytes(b"damaged")
    assert recent.read(at).earlier is None
    found = recent.read(at)
    assert found.earlier is not None
    assert_equal(found, read_history(loop.log, loop.decided), recent.layout, at)


def test_totals_of_other_events_or_hours_are_not_taken(loop: Loop) -> None:
    recent, at = recent_of(loop), read_history(loop.log, loop.decided).span[1]
    recent.read(at)
    activity = recent.layout.activity
    assert activity is not None
    for changed in (replace(activity, events=("clicked",)), replace(activity, time_zone="Asia/Tokyo")):
        other = replace(recent, layout=replace(recent.layout, activity=changed))
        assert other.read(at).earlier is None
        assert_equal(other.read(at), read_history(loop.log, loop.decided), other.layout, at)


def test_users_whose_observation_no_table_declares_need_the_whole_log(loop: Loop) -> None:
    recent, at = recent_of(loop), read_history(loop.log, loop.decided).span[1]
    users = pd.read_parquet(loop.log / "users.parquet").drop(columns="observed_from")
    users.to_parquet(loop.log / "users.parquet", index=False)
    for _ in range(2):
        assert recent.read(at).earlier is None
    assert not recent.folder.exists()


def test_an_earlier_time_than_that_of_the_totals_reads_the_whole_log(loop: Loop) -> None:
    recent, at = recent_of(loop), read_history(loop.log, loop.decided).span[1]
    recent.read(at)
    assert recent.read(at - DAY).earlier is None


def test_chosen_users_keep_their_totals(loop: Loop) -> None:
    whole = read_history(loop.log, loop.decided)
    recent, at = recent_of(loop), whole.span[1]
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
