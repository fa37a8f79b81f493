"""A log that grows by a folder a day is read back as it was written, and what is wrong with it is named."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from crosschannel.core.errors import InputError
from crosschannel.core.times import DAY
from crosschannel.envs.market import Market, MarketConfig, simulate_history
from crosschannel.histories.history import History
from crosschannel.histories.readers.daily import DailyLog
from crosschannel.histories.readers.folder import read_history
from tests import ROOT


@pytest.fixture(scope="module")
def history() -> History:
    return simulate_history(Market(MarketConfig(users=30, days=4, warmup_days=2)))[0]


def written(history: History, path: Path) -> DailyLog:
    log = DailyLog(path, history.name, history.modules, history.event_names, history.span[0])
    log.create()
    users = history.users.copy()
    log.write_users(users)
    decisions, events = history.decisions_frame(), history.events_frame()
    for time in range(history.span[0], history.span[1], DAY):
        day = pd.Timestamp(time, unit="us", tz="UTC"), pd.Timestamp(time + DAY, unit="us", tz="UTC")
        parts = [frame[(frame["time"] >= day[0]) & (frame["time"] < day[1])] for frame in (decisions, events)]
        log.write_day(time, *parts)
    return log


def test_what_a_killed_process_wrote_of_a_day_is_gone_when_the_day_is_written(
    history: History, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def killed(self: Path, target: Path) -> Path:
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(Path, "rename", killed)
        with pytest.raises(KeyboardInterrupt):
            written(history, tmp_path / "log")
    (draft,) = (entry for entry in (tmp_path / "log").iterdir() if entry.is_dir())
    monkeypatch.setattr("os.getpid", lambda: 1)  # another process goes on
    written(history, tmp_path / "log")
    assert not draft.exists()
    assert len([entry for entry in (tmp_path / "log").iterdir() if entry.is_dir()]) == 6


def test_it_is_read_back_as_it_was(history: History, tmp_path: Path) -> None:
    log = written(history, tmp_path / "log")
    found = read_history(tmp_path / "log")
    assert found.span == history.span
    assert found.event_names == history.event_names
    for name in ("user", "time", "actions", "propensity", "joint", "eligible"):
        assert np.array_equal(getattr(found.decisions, name), getattr(history.decisions, name)), name
    for name in ("user", "time", "event", "value"):
        assert np.array_equal(getattr(found.events, name), getattr(history.events, name)), name
    assert len(log.days()) == 6


def test_the_description_of_the_docs_is_read_and_a_wrong_key_is_named(tmp_path: Path) -> None:
    page = (ROOT / "docs" / "simulation.md").read_text(encoding="utf-8")
    block = page.partition('```yaml title="history.yaml"\n')[2].partition("```")[0]
    file = tmp_path / "history.yaml"
    file.write_text(block, encoding="utf-8")
    log = DailyLog.open(tmp_path)
    assert log.modules[1].actions == ("reminder", "discount")
    assert (log.day, log.ties, log.event_names) == ("1d", None, ("visit", "order", "unsubscribed"))
    file.write_text(block.replace("ties:", "tie:"), encoding="utf-8")
    with pytest.raises(InputError, match=r"history.yaml.*unknown tie; missing ties"):
        DailyLog.open(tmp_path)


def test_a_log_may_begin_without_decisions(history: History, tmp_path: Path) -> None:
    log = written(history, tmp_path / "log")
    for time in log.days()[2:]:
        for file in log.folder(time).iterdir():
            file.unlink()
        log.folder(time).rmdir()
    found = read_history(tmp_path / "log")
    assert len(found.decisions) == 0
    assert len(found.events) > 0
    assert found.span[1] == history.span[0] + 2 * DAY


def test_a_missing_day_is_named(history: History, tmp_path: Path) -> None:
    log = written(history, tmp_path / "log")
    gone = log.folder(log.days()[3])
    gone.rename(tmp_path / "elsewhere")
    with pytest.raises(InputError, match=f"the day {gone.name} is missing"):
        read_history(tmp_path / "log")


def test_a_fault_names_the_file_of_its_day_and_its_row_there(history: History, tmp_path: Path) -> None:
    log = written(history, tmp_path / "log")
    file = log.folder(log.days()[3]) / "decisions.parquet"
    table = pd.read_parquet(file)
    table.loc[4, "channel"] = "pigeon"
    table.to_parquet(file)
    with pytest.raises(InputError) as error:
        read_history(tmp_path / "log")
    (fault,) = error.value.faults
    assert (fault.file, fault.row, fault.column, fault.value) == (str(file), 5, "channel", "pigeon")


def test_an_event_that_the_description_does_not_name(history: History, tmp_path: Path) -> None:
    log = written(history, tmp_path / "log")
    file = log.folder(log.days()[0]) / "events.parquet"
    table = pd.read_parquet(file)
    table.loc[0, "event"] = "visit:zoo"
    table.to_parquet(file)
    with pytest.raises(InputError, match="visit:zoo"):
        read_history(tmp_path / "log")


@pytest.mark.parametrize("text", ["format: crosschannel daily log\nversion: 2\n", "format: crosschannel daily log\n"])
def test_a_damaged_description(history: History, tmp_path: Path, text: str) -> None:
    written(history, tmp_path / "log")
    (tmp_path / "log" / "history.yaml").write_text(text)
    with pytest.raises(InputError, match="does not describe a crosschannel daily log"):
        read_history(tmp_path / "log")


def test_what_validation_notes_is_in_the_summary(history: History, tmp_path: Path) -> None:
    """An event after the last day: it is left out, and counted."""
    log = written(history, tmp_path / "log")
    file = log.folder(log.days()[-1]) / "events.parquet"
    table = pd.read_parquet(file)
    table.loc[0, "time"] += pd.Timedelta("2D")
    table.to_parquet(file)
    assert "outside the observation period: 0 decisions or sends, and 1 event" in read_history(log.path).summary()
