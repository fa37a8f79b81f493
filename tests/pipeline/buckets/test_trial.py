"""A trial on a log in buckets is that of the folder, without all rows in memory."""

from __future__ import annotations

import json
import math
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest

from crosschannel.core.errors import ConfigError
from crosschannel.core.times import DAY, SECOND
from crosschannel.engines import make_engine
from crosschannel.histories import write_history
from crosschannel.histories.buckets import Buckets, write_buckets
from crosschannel.histories.history import History
from crosschannel.histories.logs import take_rows
from crosschannel.pipeline.buckets import users as module
from crosschannel.pipeline.buckets.users import few_decisions
from crosschannel.programs import trial
from tests import ROOT
from tests.evaluation.trials.worlds import GOALS, START, trial_history

#: Below the settings of rewards that every configuration has.
REWARD = ("--reward.goals", json.dumps([{"event": one.event, "weight": one.weight} for one in GOALS]))
DECLARED = ("--trial.start", "2024-01-15", "--trial.every", "7d")


@dataclass(frozen=True)
class World:
    """A log with arms, and how its trial is read."""

    log: Callable[[], History]
    flags: tuple[str, ...] = DECLARED
    table: bool = False
    notes: tuple[str, ...] = field(default=())


def with_two_arms_each(history: History) -> History:
    """Some users have decisions of another arm later, and some decisions before the start have one."""
    d = history.decisions
    assert d.arm is not None
    arm = d.arm.copy()
    arm[(d.user % 7 == 0) & (d.time > START + 9 * DAY)] = "holdout"
    arm[d.user % 5 == 1] = None
    return replace(history, decisions=replace(d, arm=arm))


def with_copies(history: History) -> History:
    """Orders of food have a copy half a minute later: the readout has a caution."""
    e = history.events
    rows = np.flatnonzero((e.event == 0) & (e.time < history.span[1] - DAY))
    both = np.concatenate([np.arange(len(e)), rows])
    time = e.time[both]
    time[len(e) :] += 30 * SECOND
    copied = replace(take_rows(e, both), time=time)
    return replace(history, events=take_rows(copied, np.lexsort((copied.time, copied.user))))


WORLDS = {
    "copies": World(lambda: with_copies(trial_history(16)), notes=("within a minute",)),
    "a column": World(lambda: trial_history(1, lift=0.5, joined=0.3)),
    "decisions": World(lambda: with_two_arms_each(trial_history(2, arms_in="decisions")), notes=("several arms",)),
    "decisions, no start": World(
        lambda: trial_history(3, arms_in="decisions", joined=0.2), flags=("--trial.every", "14d")
    ),
    "first decisions": World(
        lambda: trial_history(4, arms_in="decisions", joined=0.3),
        flags=(*DECLARED, "--trial.enrolment", "first_decision", "--trial.compare", "agent:holdout"),
    ),
    "a table": World(lambda: trial_history(5, arms_in="nowhere"), table=True),
    "by hash": World(lambda: trial_history(6, arms_in="nowhere"), flags=(*DECLARED, "--arms.holdout", "0.3")),
    "households": World(
        lambda: trial_history(7),
        flags=(*DECLARED, "--trial.cluster", "household", "--trial.strata", "city", "--trial.segments", "city"),
    ),
    "followed": World(
        lambda: trial_history(8, joined=0.4),
        flags=(*DECLARED, "--trial.looks", "confidence_sequence", "--trial.follow-up", "7d"),
    ),
    "values": World(
        lambda: trial_history(9),
        flags=(*DECLARED, "--trial.pre", "none", "--trial.goals", '[{event: "order:*", measure: value}]'),
    ),
}


def read(folder: Path, log: str, world: World, *more: str) -> tuple[dict[str, Any], str]:
    """What `crosschannel trial` writes."""
    out = folder / f"out-{log}{''.join(more)}".replace(str(folder), "")
    line = ["--history.source", "folder", "--history.path", str(folder / log), *REWARD, *world.flags]
    line += ["--arms", str(folder / "arms.parquet")] if world.table else []
    assert trial.main([*line, "--out", str(out), "--scratch", str(folder), *more]) == 0
    return json.loads((out / "trial.json").read_text()), (out / "trial.html").read_text()


def same(found: Any, wanted: Any, place: str = "") -> None:
    """Equal up to 1e-9, and all that is not a number equal."""
    assert type(found) is type(wanted), place
    if isinstance(wanted, dict):
        assert found.keys() == wanted.keys(), place
        for name, value in wanted.items():
            same(found[name], value, f"{place}.{name}")
    elif isinstance(wanted, list):
        assert len(found) == len(wanted), place
        for k, (one, other) in enumerate(zip(found, wanted, strict=True)):
            same(one, other, f"{place}[{k}]")
    elif isinstance(wanted, float):
        assert math.isclose(found, wanted, rel_tol=1e-9, abs_tol=1e-12), (place, found, wanted)
    else:
        assert found == wanted, place


@pytest.mark.parametrize(
    ("name", "divisions"),
    [
        *((name, (8,)) for name in ("decisions", "households", "followed", "copies")),
        *(pytest.param(name, (1, 8, 64), marks=pytest.mark.slow) for name in WORLDS),
    ],
)
def test_it_is_the_trial_of_the_folder(
    name: str, divisions: tuple[int, ...], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    world = WORLDS[name]
    history = world.log()
    write_history(history, tmp_path / "native")
    arm = np.where(np.arange(history.n_users) % 3 == 0, "business_as_usual", "agent")
    pd.DataFrame({"user_id": history.user_ids, "arm": arm}).to_parquet(tmp_path / "arms.parquet")
    wanted, _ = read(tmp_path, "native", world)
    monkeypatch.setattr(trial, "build_history", lambda *_: pytest.fail("the log was read as a whole"))
    for n in divisions:
        write_buckets(history, tmp_path / f"in-{n}", n)
        found, _ = read(tmp_path, f"in-{n}", world)
        same(found, wanted)
    assert all(any(note in one for one in wanted["notes"]) for note in world.notes)
    assert not list(tmp_path.glob(".scratch*"))


def test_few_rows_of_users_are_in_memory(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Of 28 slots a user three at most are kept (the first, the first since the start, the last), and no event."""
    history = trial_history(10, arms_in="decisions")
    write_buckets(history, tmp_path / "in-8", 8)
    seen: list[History] = []
    merge = module.merge_columns

    def merged(folders: list[Path], buckets: Buckets) -> History:
        seen.append(merge(folders, buckets))
        return seen[-1]

    monkeypatch.setattr(module, "merge_columns", merged)
    read(tmp_path, "in-8", WORLDS["decisions"])
    (kept,) = seen  # everybody; the sample, for cautions on goal events, is merged elsewhere
    assert kept.n_users == history.n_users
    assert len(kept.events) == 0
    assert len(kept.decisions) <= 3 * kept.n_users < len(history.decisions) / 3


@pytest.mark.parametrize("start", [None, START, START + 5 * DAY])
def test_few_decisions_tell_what_all_tell(start: int | None) -> None:
    history = with_two_arms_each(trial_history(11, arms_in="decisions"))
    d, rows = history.decisions, few_decisions(history, start)
    few = take_rows(d, rows)
    table, kept = (
        pd.DataFrame({"user": one.user, "time": one.time, "arm": one.arm}).astype({"arm": str}) for one in (d, few)
    )
    for begin in (0, START if start is None else start):
        every, some = (part[part["time"] >= begin] for part in (table, kept))
        for by in (["user", "arm"], ["user"]):
            pd.testing.assert_frame_equal(
                every.drop_duplicates(by).reset_index(drop=True), some.drop_duplicates(by).reset_index(drop=True)
            )
        assert {*every["user"]} == {*some["user"]}


def test_arms_of_the_log_that_the_hash_does_not_give_are_refused(tmp_path: Path) -> None:
    history = trial_history(12, arms_in="decisions")
    write_history(history, tmp_path / "native")
    write_buckets(history, tmp_path / "in-8", 8)
    world, messages = WORLDS["by hash"], []
    for log in ("native", "in-8"):
        with pytest.raises(ConfigError, match="users of the log have decisions of another arm than") as error:
            read(tmp_path, log, world)
        messages.append(str(error.value))
    assert messages[0] == messages[1]


def test_later_looks_keep_what_earlier_ones_found(tmp_path: Path) -> None:
    history, world = trial_history(13, lift=0.8), WORLDS["a column"]
    write_history(history, tmp_path / "native")
    write_buckets(history, tmp_path / "in-8", 8)
    found = []
    for log in ("native", "in-8"):
        read(tmp_path, log, world, "--at", "2024-01-25")
        before = tmp_path / f"out-{log}--at2024-01-25" / "trial.json"
        found.append(read(tmp_path, log, world, "--previous", str(before))[0])
    same(found[1], found[0])


def test_the_whole_log_is_read_where_that_is_asked_for(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write_buckets(trial_history(14), tmp_path / "in-8", 8)

    class Whole(Exception):
        """The log was read as a whole."""

    def whole(*_: object) -> None:
        raise Whole

    monkeypatch.setattr(trial, "build_history", whole)
    with pytest.raises(Whole):
        read(tmp_path, "in-8", WORLDS["a column"], "--whole")


@pytest.mark.slow
@pytest.mark.parametrize(("engine", "package"), [("processes", "crosschannel"), ("ray", "ray"), ("spark", "pyspark")])
def test_engines_give_the_same(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, engine: str, package: str) -> None:
    pytest.importorskip(package, reason=f"{package} is not installed")
    monkeypatch.setenv("PYTHONPATH", str(ROOT))
    monkeypatch.setenv("RAY_USAGE_STATS_ENABLED", "0")
    assert make_engine(engine, 2) is not None
    write_buckets(trial_history(15, lift=0.3), tmp_path / "in-8", 8)
    wanted, _ = read(tmp_path, "in-8", WORLDS["a column"])
    assert read(tmp_path, "in-8", WORLDS["a column"], "--engine", engine)[0] == wanted
