"""`crosschannel bucket` as a user runs it: any source, the same history again, and plain refusals."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from crosschannel.core.errors import ConfigError
from crosschannel.histories import open_buckets, read_history, write_history
from crosschannel.histories.readers.daily import DailyLog
from crosschannel.pipeline import load_config
from crosschannel.pipeline.command_line import UsageError
from crosschannel.pipeline.reading import build_history
from crosschannel.programs.bucket import main
from tests import ROOT
from tests.histories.buckets.test_folder import assert_same
from tests.histories.buckets.test_making import contents, log, tables, write_day
from tests.programs.samples import SMALL

pytest.importorskip("duckdb", reason="DuckDB is not installed")


def daily_of(folder: Path) -> DailyLog:
    """A log by day without days, of the users of `log`."""
    history = log(days=8)
    daily = DailyLog(folder, "daily", history.modules, history.event_names, history.span[0])
    daily.create()
    daily.write_users(pd.DataFrame({"user_id": history.user_ids}))
    return daily


def test_a_folder_becomes_buckets_and_is_read_by_the_programs(tmp_path, capsys):
    history = log()
    write_history(history, tmp_path / "log")
    buckets = tmp_path / "buckets"
    assert main([str(tmp_path / "log"), str(buckets), "--buckets", "8"]) == 0
    shown = capsys.readouterr().out
    assert f"30 users, {len(history.decisions)} decisions, {len(history.events)} events in " in shown
    assert f"--history.source folder --history.path {buckets}" in shown
    assert_same(read_history(buckets), history)
    assert main([str(buckets), str(tmp_path / "others"), "--buckets", "2", "--leaves", "128"]) == 0
    assert open_buckets(tmp_path / "others").leaves == 128
    assert_same(read_history(tmp_path / "others"), history)


def test_a_configuration_names_the_log(tmp_path):
    """The market, which is simulated as a whole, and mapped tables in another folder than the configuration's."""
    assert main([*SMALL, str(tmp_path / "market"), "--buckets", "4"]) == 0
    assert_same(read_history(tmp_path / "market"), build_history(load_config(SMALL[1]))[0])
    tables(tmp_path / "log", log())
    (tmp_path / "shop.yaml").write_text(
        """history:
  source: tables
  ties: after
  observed_from: log
  churn_events: [visit]
  tables:
    decisions: {path: nowhere/decisions, columns: {user_id: customer, time: at}}
    events:
      - {path: nowhere/orders, columns: {user_id: customer, time: at}, constants: {event: order}}
      - {path: nowhere/others, columns: {user_id: customer, time: at}}
    modules:
      - {name: channel, actions: [none, email, push]}
      - {name: offer, actions: [small, large]}
"""
    )
    config = ["--config", str(tmp_path / "shop.yaml")]
    assert main([*config, str(tmp_path / "log"), str(tmp_path / "shop"), "--buckets", "8"]) == 0
    settings = load_config(config[1])
    whole, _ = build_history(
        type(settings)(history=settings.history.with_path(tmp_path / "log"), reward=settings.reward)
    )
    assert_same(read_history(tmp_path / "shop"), whole)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["log", "out"], "--buckets is missing"),
        (["out", "--buckets", "4"], "the log is missing"),
        (["a", "b", "c", "--buckets", "4"], "one folder too many"),
        (["log", "log", "--buckets", "4"], "is the log itself"),
        (["log", "out", "--buckets", "many"], "--buckets"),
    ],
)
def test_a_wrong_command_line_is_refused(arguments, message, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(UsageError, match=message):
        main(arguments)


def test_a_number_that_does_not_divide_is_refused_before_the_log_is_read(tmp_path):
    with pytest.raises(ConfigError, match="6 buckets do not divide 64 leaves"):
        main([str(tmp_path / "nowhere"), str(tmp_path / "out"), "--buckets", "6"])


@pytest.mark.slow
def test_kills_change_nothing(tmp_path):
    """20 SIGKILLs of the program at random moments: the run that ends has the bytes of one that was left alone."""
    daily, history = daily_of(tmp_path / "log"), log(days=8)
    for day in range(8):
        write_day(daily, history, day)
    arguments = [str(daily.path), str(tmp_path / "buckets"), "--buckets", "8"]
    command = [sys.executable, "-m", "crosschannel", "bucket", *arguments]
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "PYTHONPATH": str(ROOT)}
    main([str(daily.path), str(tmp_path / "whole"), "--buckets", "8"])
    wait, killed = np.random.default_rng(0), 0
    for _ in range(20):
        process = subprocess.Popen(command, env=environment, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        try:
            process.wait(float(wait.uniform(0.8, 3.0)))
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()
            killed += 1
    assert killed >= 5
    assert main(arguments) == 0
    assert contents(tmp_path / "buckets") == contents(tmp_path / "whole")


def test_duckdb_is_named_where_it_is_needed(tmp_path, monkeypatch):
    write_history(log(), tmp_path / "log")
    monkeypatch.setitem(__import__("sys").modules, "duckdb", None)
    with pytest.raises(ConfigError, match=r"pip install 'crosschannel\[duckdb\]'"):
        main([str(tmp_path / "log"), str(tmp_path / "out"), "--buckets", "4"])
    shutil.rmtree(tmp_path / "out", ignore_errors=True)
