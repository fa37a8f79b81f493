"""Learning from the days that can still change, and what is kept of the others, has the bits of the whole log."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from contextlib import chdir
from dataclasses import fields, replace
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest

from crosschannel.core.errors import ConfigError, InputError
from crosschannel.core.times import DAY
from crosschannel.histories.history import History
from crosschannel.histories.logs import take_rows
from crosschannel.histories.readers.daily import DailyLog
from crosschannel.histories.readers.decided.days import decided_days
from crosschannel.histories.readers.folder import read_history
from crosschannel.pipeline.configuration import load_config
from crosschannel.pipeline.loop.kept.arms import ARMS
from crosschannel.pipeline.loop.kept.log import KEPT_FOLDER, RECORD, KeptLog
from crosschannel.pipeline.loop.kept.rows import KeptRows, can_be_kept, with_rows
from crosschannel.pipeline.loop.updating import Updated, update, update_by_day
from crosschannel.pipeline.run_folder import Run
from crosschannel.pipeline.simulation import simulating
from crosschannel.pipeline.simulation.simulating import Loop, simulate
from crosschannel.programs import forget
from tests import ROOT

CONFIG = ROOT / "tests/programs/closed_loop.yaml"
USERS, DAYS, WARM_UP = 160, 11, 3
SETTINGS: dict[str, Any] = {
    "history.market.users": USERS,
    "history.market.days": DAYS,
    "history.market.warmup_days": WARM_UP,
    "update.revise": "3d",
    "update.memory": "6d",
    "update.growth": 1.0,
    "reward.min_controls": 3,
    "constraints.cost_events": (),
    "loop.marketers": (),
}


def deployment(folder: Path, **settings: Any) -> Loop:
    folder.parent.mkdir(exist_ok=True)
    with chdir(folder.parent):
        for _ in simulate(load_config(CONFIG, {**SETTINGS, **settings}), Path(folder.name)):
            pass
    return Loop(folder)


@pytest.fixture(scope="module")
def simulated(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return deployment(tmp_path_factory.mktemp("kept") / "run").path


@pytest.mark.slow
@pytest.mark.parametrize("changes", [{}, {"update.growth": 0.3, "history.market.days": 20}])
def test_a_deployment_that_keeps_rows_has_the_bits_of_one_that_reads_all(
    simulated: Path, tmp_path: Path, changes: dict[str, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    kept = deployment(tmp_path / "kept" / "run", **changes).path if changes else simulated
    monkeypatch.setattr(simulating, "update_by_day", lambda run, log, decided: update(run, read_history(log, decided)))
    whole = deployment(tmp_path / "run", **changes)
    assert (kept / KEPT_FOLDER / RECORD).is_file()
    assert not (whole.path / KEPT_FOLDER).exists()
    for folder, pattern in (("decisions", "*/*"), ("policies", "*.pt")):
        files = sorted(path for path in (whole.path / folder).glob(pattern) if path.is_file())
        assert files
        for file in files:
            assert file.read_bytes() == (kept / file.relative_to(whole.path)).read_bytes()


@pytest.fixture
def loop(simulated: Path, tmp_path: Path) -> Loop:
    """The deployment, whose last day has not been learned from; a test may change it."""
    copy = Loop(Path(shutil.copytree(simulated, tmp_path / "run")))
    last = day_file(copy, 1).parent, decided_days(copy.decided)[-1]
    for folder in last:
        folder.rename(tmp_path / folder.parent.name)
    learned(copy)  # copies are other files than those that rows were kept of
    for folder in last:
        (tmp_path / folder.parent.name).rename(folder)
    return copy


def learned(loop: Loop) -> Updated:
    return update_by_day(Run.open_in_use(loop.path), loop.log, loop.decided)


def learned_from_whole(loop: Loop) -> Updated:
    """What an update says of the same log and states where it reads the whole log, of a copy."""
    copy = Loop(Path(shutil.copytree(loop.path, loop.path.with_name("copy"))))
    shutil.rmtree(copy.path / KEPT_FOLDER, ignore_errors=True)
    return update(Run.open_in_use(copy.path), read_history(copy.log, copy.decided))


def count_whole_reads(monkeypatch: pytest.MonkeyPatch) -> list[History]:
    reads = list[History]()
    read = KeptLog.whole

    def whole(self: KeptLog) -> History:
        reads.append(read(self))
        return reads[-1]

    monkeypatch.setattr(KeptLog, "whole", whole)
    return reads


def day_file(loop: Loop, days_ago: int, name: str = "events") -> Path:
    log = DailyLog.open(loop.log)
    return log.folder(log.end - days_ago * DAY) / f"{name}.parquet"


def another_order(file: Path, time: pd.Timestamp | None = None) -> None:
    """Add an order of a user to a day, in its middle or at a time."""
    table = pd.read_parquet(file)
    order = table[table["event"] == "order:food"].iloc[:1].copy()
    order["time"] = pd.to_datetime(order["time"]).min() + pd.Timedelta("1s") if time is None else time
    pd.concat([table, order], ignore_index=True).to_parquet(file, index=False)


def test_a_day_that_is_added_takes_the_days_that_can_change(loop: Loop, monkeypatch: pytest.MonkeyPatch) -> None:
    wanted = learned_from_whole(loop)
    whole = count_whole_reads(monkeypatch)
    kept = KeptLog.open(loop.path, loop.log, loop.decided, Run.open_in_use(loop.path).config)
    read = kept.read()
    assert read is not None
    history, days = read
    complete = read_history(loop.log, loop.decided)
    assert history.earlier is not None
    assert 0 < len(history.events) < len(complete.events)
    assert len(days.digests) == DAYS - 2
    found = learned(loop)
    assert (found, whole) == (wanted, [])
    assert found.added == (DAYS,)
    words = (Run.open_in_use(loop.path).path / "policies" / f"{found.version}.json").read_bytes()
    assert learned(loop) == replace(found, added=())
    shutil.rmtree(loop.path / KEPT_FOLDER)
    assert learned(loop).version == found.version
    assert (loop.path / "policies" / f"{found.version}.json").read_bytes() == words


@pytest.mark.parametrize("days_ago", [3, *(pytest.param(k, marks=pytest.mark.slow) for k in (1, 2))])
def test_corrections_that_count_are_found_without_the_whole_log(
    loop: Loop, days_ago: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    another_order(day_file(loop, days_ago))
    wanted = learned_from_whole(loop)
    whole = count_whole_reads(monkeypatch)
    assert learned(loop) == wanted
    assert wanted.revised == int(days_ago > 1)
    assert not whole


def late_row(loop: Loop) -> None:
    early = pd.to_datetime(pd.read_parquet(day_file(loop, 9))["time"]).min()
    another_order(day_file(loop, 1), early + pd.Timedelta("1s"))


def other_arm(loop: Loop) -> None:
    file = decided_days(loop.decided)[-1] / "arms.parquet"
    table = pd.read_parquet(file)
    user = pd.read_parquet(day_file(loop, 9, "decisions"))["user_id"].iloc[0]
    assert (table.loc[table["user_id"] == user, "arm"] == "business_as_usual").all()
    table.loc[table["user_id"] == user, "arm"] = "agent"
    table.to_parquet(file, index=False)


def damaged_rows(loop: Loop) -> None:
    for file in (loop.path / KEPT_FOLDER).glob("rows-*.npz"):
        file.write_bytes(file.read_bytes()[:-200])


def damaged_record(loop: Loop) -> None:
    (loop.path / KEPT_FOLDER / RECORD).write_text("{}", encoding="utf-8")


def damaged_totals(loop: Loop) -> None:
    (loop.path / KEPT_FOLDER / "totals.parquet").unlink()


def observed_later(loop: Loop) -> None:
    users = pd.read_parquet(loop.log / "users.parquet")
    users.loc[::3, "observed_from"] += pd.Timedelta("3D")
    users.to_parquet(loop.log / "users.parquet", index=False)


@pytest.mark.parametrize(
    ("change", "late"),
    [
        (lambda loop: another_order(day_file(loop, 9)), 1),
        (late_row, 1),
        (other_arm, None),
        pytest.param(damaged_rows, 0, marks=pytest.mark.slow),
        pytest.param(observed_later, None, marks=pytest.mark.slow),
        pytest.param(damaged_record, 0, marks=pytest.mark.slow),
        pytest.param(damaged_totals, 0, marks=pytest.mark.slow),
    ],
)
def test_what_was_kept_is_not_taken_where_it_does_not_hold(
    loop: Loop, change: Callable[[Loop], object], late: int | None, monkeypatch: pytest.MonkeyPatch
) -> None:
    change(loop)
    wanted = learned_from_whole(loop)
    whole = count_whole_reads(monkeypatch)
    assert learned(loop) == wanted
    assert len(whole) == 1
    if late is not None:
        assert wanted.late == late


def test_rows_are_kept_again_after_the_whole_log_was_read(loop: Loop, monkeypatch: pytest.MonkeyPatch) -> None:
    another_order(day_file(loop, 9))
    learned(loop)
    whole = count_whole_reads(monkeypatch)
    (loop.path / "learning" / "last.pt").unlink()
    found = learned(loop)
    assert not whole
    assert found.version == learned_from_whole(loop).version


@pytest.mark.parametrize(
    ("at", "again"),
    [
        ("write_json", True),
        *(
            pytest.param(at, again, marks=pytest.mark.slow)
            for at in ("KeptRows.write", "KeptArms.write")
            for again in (True, False)
        ),
        pytest.param("write_json", False, marks=pytest.mark.slow),
    ],
)
def test_a_process_that_is_killed_while_it_keeps_rows_spoils_nothing(
    loop: Loop, at: str, again: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    """While it adds a day to what is kept, and while it keeps all again."""
    if again:
        damaged_rows(loop)
    wanted = learned_from_whole(loop)

    def killed(*_: object) -> None:
        raise KeyboardInterrupt

    with monkeypatch.context() as patched:
        patched.setattr(f"crosschannel.pipeline.loop.kept.log.{at}", killed)
        with pytest.raises(KeyboardInterrupt):
            learned(loop)
    (loop.path / "learning" / "last.pt").unlink()
    assert learned(loop).version == wanted.version
    (loop.path / "learning" / "last.pt").unlink()
    assert learned(loop).version == wanted.version


def test_a_user_who_vanished_is_refused_as_by_the_whole_log(loop: Loop) -> None:
    users = pd.read_parquet(loop.log / "users.parquet")
    named = pd.read_parquet(day_file(loop, 9))["user_id"].iloc[0]
    users[users["user_id"] != named].to_parquet(loop.log / "users.parquet", index=False)
    with pytest.raises(InputError, match="the user is not in the table of users"):
        learned(loop)


def test_kept_rows_of_users_who_are_forgotten_go(loop: Loop, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(loop.path.parent)
    pd.read_parquet(loop.log / "users.parquet")[["user_id"]].iloc[:2].to_csv("users.csv", index=False)
    arguments = ["run", "--users", "users.csv", "--history.decided", "run/decisions"]
    assert list((loop.path / KEPT_FOLDER).glob("rows-*.npz"))
    assert forget.main(arguments) == 0
    assert not [path for path in (loop.path / "learning").rglob("*") if path.is_file()]
    assert forget.main([*arguments, "--check"]) == 0
    assert learned(loop).version == learned_from_whole(loop).version


def test_rows_come_back_as_they_were_written(loop: Loop, tmp_path: Path) -> None:
    """Cut in three and put together again, a history has the same rows to the last bit."""
    history = read_history(loop.log, loop.decided)
    assert can_be_kept(history)
    times = [0, history.span[0] + 6 * DAY, history.span[0] + 9 * DAY + 1, history.span[1] + DAY]
    parts = []
    for k, (start, end) in enumerate(pairwise(times)):
        KeptRows.between(history, start, end).write(tmp_path / f"{k}.npz", "stamp")
        parts.append(KeptRows.read(tmp_path / f"{k}.npz", "stamp"))
    with pytest.raises(ConfigError, match="not of this log"):
        KeptRows.read(tmp_path / "0.npz", "other")
    d, e = history.decisions, history.events
    none = np.zeros(0, dtype=np.int64)
    empty = replace(history, decisions=take_rows(d, none), events=take_rows(e, none))
    found = with_rows(empty, parts)
    assert found is not None
    for one, other in ((found.decisions, d), (found.events, e)):
        for f in fields(one):
            if f.name != "id":
                np.testing.assert_array_equal(getattr(one, f.name), getattr(other, f.name), err_msg=f.name)
    named = replace(e, message=np.full(len(e), -1))
    assert not can_be_kept(replace(history, events=named))


@pytest.mark.parametrize(
    "damage", [lambda arms: arms.write_bytes(b"no table"), pytest.param(Path.unlink, marks=pytest.mark.slow)]
)
def test_arms_that_are_damaged_or_absent_are_read_again(loop: Loop, damage: Callable[[Path], Any]) -> None:
    """They are absent where rows were kept before anything was decided: the first decided day ends no update."""
    expected = learned_from_whole(loop)
    damage(loop.path / KEPT_FOLDER / ARMS)
    assert learned(loop) == expected


def test_what_is_cleared_leaves_no_arms(loop: Loop) -> None:
    KeptLog.open(loop.path, loop.log, loop.decided, Run.open_in_use(loop.path).config).clear()
    assert not (loop.path / KEPT_FOLDER / ARMS).exists()
