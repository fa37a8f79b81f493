"""A day is written as a whole or not at all, and nothing that was carried out is lost when it is replaced."""

from __future__ import annotations

import shutil
from pathlib import Path

import pandas as pd
import pytest

from crosschannel.core.errors import ConfigError, InputError
from crosschannel.histories import Arms
from crosschannel.histories.readers.decided.days import SUMMARY_FILE, decided_days, draft_of, replaced_of
from crosschannel.pipeline import UsageError
from crosschannel.pipeline.loop import writing
from crosschannel.pipeline.loop.day_summaries import check_same_arms, compare_counts, previous_day, read_summary
from crosschannel.pipeline.loop.deciding import DecidedDay
from crosschannel.pipeline.loop.writing import write_day
from crosschannel.pipeline.run_files import RunLock


def a_day(name: str = "2024-10-15", action: str = "email", arms: Arms | None = None) -> DecidedDay:
    arms = arms or Arms()
    table = pd.DataFrame({"decision_id": ["a", "b"], "user_id": ["u1", "u2"], "channel": [action, "none"]})
    summary = {
        "arms": {"holdout": arms.holdout, "business_as_usual": 0.0, "salt": arms.salt, "cluster": arms.cluster},
        "counts": {"channel": {action: 1, "none": 1}},
    }
    return DecidedDay(name, table, pd.DataFrame({"user_id": ["u1", "u2"], "arm": "agent"}), summary)


def contents(folder: Path) -> dict[str, bytes]:
    return {str(path.relative_to(folder)): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def test_a_day_that_exists_is_replaced_only_if_that_is_asked_for(tmp_path):
    day = write_day(tmp_path / "decided", a_day())
    assert day == tmp_path / "decided" / "2024-10-15"
    before = contents(tmp_path)
    with pytest.raises(UsageError, match="the day was decided"):
        write_day(tmp_path / "decided", a_day(action="push"))
    assert contents(tmp_path) == before
    write_day(tmp_path / "decided", a_day(action="push"), force=True)
    assert set(pd.read_parquet(day / "decisions.parquet").channel) == {"push", "none"}
    assert contents(tmp_path).keys() == before.keys()
    write_day(tmp_path / "decided", a_day(), force=True)
    assert contents(tmp_path) == before, "the same day has the same bits"


class Killed(BaseException):
    """What SIGKILL would do: nothing after it runs."""


class Countdown:
    """Lets some steps that touch the disk happen, and kills at the next one."""

    def __init__(self, steps: int) -> None:
        self.left = steps

    def patch(self, monkeypatch: pytest.MonkeyPatch) -> None:
        for owner, name in (
            *((Path, name) for name in ("mkdir", "rename")),
            *((writing, name) for name in ("_flush", "_remove", "write_json")),
            (pd.DataFrame, "to_parquet"),
        ):
            monkeypatch.setattr(owner, name, self.counted(getattr(owner, name)))

    def counted(self, original):
        def step(*args, **kwargs):
            if self.left == 0:
                raise Killed
            self.left -= 1
            return original(*args, **kwargs)

        return step


@pytest.mark.parametrize("force", [False, True])
def test_a_day_that_is_interrupted_anywhere_is_whole_or_not_there(tmp_path, monkeypatch, force):
    """Each step that touches the disk is the last one in turn, until one run ends before it is killed."""
    folder, day, kills = tmp_path / "decided", tmp_path / "decided" / "2024-10-15", 0
    while True:
        if force:
            write_day(folder, a_day(action="push"), force=True)
        try:
            with monkeypatch.context() as patch:
                Countdown(kills).patch(patch)
                write_day(folder, a_day(), force=force)
            break
        except Killed:
            kills += 1
        if day.exists():
            assert set(pd.read_parquet(day / "decisions.parquet").channel) in ({"email", "none"}, {"push", "none"})
            assert read_summary(day)["counts"]["channel"]["none"] == 1
            decided_days(folder)
        elif force:
            with pytest.raises(InputError, match="the process that replaced this day was killed"):
                decided_days(folder)
        write_day(folder, a_day(), force=True)
        assert sorted(path.name for path in folder.iterdir()) == [".lock", "2024-10-15"]
        if not force:
            shutil.rmtree(day)
    assert kills > 8


def test_two_processes_do_not_write_the_same_folder(tmp_path):
    tmp_path.joinpath("decided").mkdir()
    with RunLock(tmp_path / "decided"), pytest.raises(ConfigError, match="is in use by process"):
        write_day(tmp_path / "decided", a_day())


def test_the_arms_of_the_day_before_are_kept_unless_a_change_is_meant(tmp_path):
    folder = tmp_path / "decided"
    check_same_arms(folder, "2024-10-15", Arms(0.1))
    write_day(folder, a_day("2024-10-15", arms=Arms(0.1)))
    check_same_arms(folder, "2024-10-16", Arms(0.1))
    check_same_arms(folder, "2024-10-14", Arms(0.3))
    with pytest.raises(ConfigError, match=r"holdout 0\.1 to 0\.2.*--change-arms"):
        check_same_arms(folder, "2024-10-16", Arms(0.2))
    with pytest.raises(ConfigError, match="salt 'crosschannel' to 'spring'"):
        check_same_arms(folder, "2024-10-16", Arms(0.1, salt="spring"))
    (folder / "2024-10-15" / SUMMARY_FILE).write_text("{}")
    with pytest.raises(ConfigError, match="damaged or was edited"):
        check_same_arms(folder, "2024-10-16", Arms(0.1))


def test_counts_stand_beside_those_of_the_day_before(tmp_path):
    assert previous_day(tmp_path / "none", "2024-10-16") is None
    write_day(tmp_path, a_day("2024-10-14"))
    write_day(tmp_path, a_day("2024-10-15"))
    found = previous_day(tmp_path, "2024-10-15")
    assert found is not None
    assert found.name == "2024-10-14"
    text = compare_counts({"channel": {"none": 1200, "push": 3}}, {"channel": {"none": 1000, "email": 50}})
    assert [line.split() for line in text.splitlines()] == [
        ["module", "action", "now", "before", "change"],
        ["channel", "email", "0", "50", "-50"],
        ["channel", "none", "1,200", "1,000", "+200"],
        ["channel", "push", "3", "0", "+3"],
    ]
    assert "before" not in compare_counts({"channel": {"none": 1}}, None)


def test_names_of_drafts_are_hidden(tmp_path):
    assert draft_of(tmp_path / "2024-10-15").name.startswith(".")
    assert replaced_of(tmp_path / "2024-10-15").name.startswith(".")
