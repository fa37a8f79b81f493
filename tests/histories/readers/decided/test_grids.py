"""Days of decisions join streams and tables of sends, whose slots lie on a grid, as files of decisions do."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from crosschannel.histories import ARMS, History, TableSource
from crosschannel.histories.readers.decided.days import ARMS_FILE, DECISIONS_FILE, SUMMARY_FILE
from crosschannel.pipeline import Config, load_history
from crosschannel.pipeline.configuration import HistoryConfig
from tests.histories.readers.test_decided import POLICY_DAYS, START, USERS, read, stream, tables, write_log


def by_date(folder: Path) -> Path:
    """Put the files of decisions into a folder by date, with an arm for every user."""
    out = folder / "days"
    users = [f"u{k:03d}" for k in range(USERS)]
    for day in POLICY_DAYS:
        target = out / f"{START + pd.Timedelta(days=day):%Y-%m-%d}"
        target.mkdir(parents=True)
        frame = pd.read_csv(folder / "decided" / f"{day}.csv")
        frame.assign(time=pd.to_datetime(frame["time"], utc=True)).to_parquet(target / DECISIONS_FILE, index=False)
        arms = [ARMS[k % 3] for k in range(USERS)]
        pd.DataFrame({"user_id": users, "arm": arms}).to_parquet(target / ARMS_FILE, index=False)
        (target / SUMMARY_FILE).write_text("{}")
    return out


def configured(source: str, folder: Path, decided: Path) -> History:
    if source == "stream":
        return load_history(
            Config(history=HistoryConfig("stream", stream=replace(stream(folder), decided=None), decided=decided))
        )
    return load_history(
        Config(history=HistoryConfig("tables", tables=replace(tables(folder), decided=None), decided=decided))
    )


@pytest.mark.parametrize("source", ["stream", "tables"])
def test_a_folder_by_date_is_read_as_the_files_are_and_has_the_arms(tmp_path, source):
    write_log(tmp_path, pd.Timedelta("0h"))
    expected, found = read(source, tmp_path), configured(source, tmp_path, by_date(tmp_path))
    for name in ("id", "user", "time", "actions", "propensity", "joint", "eligible", "propensity_source"):
        np.testing.assert_array_equal(getattr(found.decisions, name), getattr(expected.decisions, name))
    assert expected.decisions.arm is None
    arms = np.array(ARMS, dtype=object)[found.decisions.user % 3]
    began = int((START + pd.Timedelta(days=min(POLICY_DAYS))).normalize().timestamp() * 1e6)
    arms = np.where(found.decisions.time >= began, arms, None)
    np.testing.assert_array_equal(found.decisions.arm, arms)


@pytest.mark.parametrize("source", ["stream", "tables"])
def test_a_mapping_may_name_the_folder_by_date_as_well(tmp_path, source):
    write_log(tmp_path, pd.Timedelta("0h"))
    expected, out = read(source, tmp_path), by_date(tmp_path)
    decided = TableSource(out)
    mapping = stream(tmp_path) if source == "stream" else tables(tmp_path)
    config = HistoryConfig(source, **{source: replace(mapping, decided=decided)})
    found = load_history(Config(history=config))
    np.testing.assert_array_equal(found.decisions.actions, expected.decisions.actions)
    np.testing.assert_array_equal(found.decisions.joint, expected.decisions.joint)


def test_a_log_may_be_elsewhere_than_the_decisions(tmp_path):
    """`history.path` moves the files of the mapping, and not the folder of the days."""
    write_log(tmp_path, pd.Timedelta("0h"))
    days = by_date(tmp_path)
    (tmp_path / "newest").mkdir()
    for name in ("sends.csv", "visits.csv"):
        (tmp_path / name).rename(tmp_path / "newest" / name)
    for source, mapping in (("stream", stream(tmp_path)), ("tables", tables(tmp_path))):
        moved = HistoryConfig(source, path=tmp_path / "newest", decided=days, **{source: mapping})
        found = load_history(Config(history=moved))
        assert (found.decisions.propensity_source == 0).sum() == len(POLICY_DAYS) * USERS
