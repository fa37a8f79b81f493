"""`crosschannel simulate --log`: the market's log bucket by bucket, which is that of all users at once."""

from __future__ import annotations

from pathlib import Path

import pytest

from crosschannel.core.errors import ConfigError
from crosschannel.envs.market import Market, MarketConfig, simulate_history
from crosschannel.histories import read_history, write_buckets
from crosschannel.pipeline.command_line import UsageError
from crosschannel.pipeline.simulation import market_log
from crosschannel.pipeline.simulation.market_log import write_market_log
from crosschannel.programs.simulate import main
from tests.histories.buckets.test_folder import assert_same
from tests.histories.buckets.test_making import contents
from tests.programs.samples import SMALL

MARKET = MarketConfig(users=50, days=4)


def test_the_log_is_that_of_all_users(tmp_path):
    whole, _ = simulate_history(Market(MARKET))
    write_buckets(whole, tmp_path / "whole", 8)
    write_market_log(MARKET, tmp_path / "log", 8, 64)
    assert contents(tmp_path / "log") == contents(tmp_path / "whole")
    assert_same(read_history(tmp_path / "log"), whole)


def test_a_run_that_stopped_is_resumed(tmp_path, monkeypatch):
    write_market_log(MARKET, tmp_path / "whole", 4, 64)
    write, done = market_log.write_bucket, []

    def stop(history, folder: Path, bucket: int):
        if len(done) == 2:
            raise KeyboardInterrupt
        done.append(bucket)
        return write(history, folder, bucket)

    monkeypatch.setattr(market_log, "write_bucket", stop)
    with pytest.raises(KeyboardInterrupt):
        write_market_log(MARKET, tmp_path / "log", 4, 64)
    done.clear()
    write_market_log(MARKET, tmp_path / "log", 4, 64)
    assert len(done) == 2
    assert contents(tmp_path / "log") == contents(tmp_path / "whole")


def test_the_program_writes_it(tmp_path, capsys):
    flags = ["--history.market.users", "20", "--history.market.days", "3"]
    assert main([*SMALL, *flags, "--log", str(tmp_path / "log"), "--buckets", "2"]) == 0
    assert "20 users, " in capsys.readouterr().out
    assert read_history(tmp_path / "log").n_users == 20


@pytest.mark.parametrize(
    ("flags", "message"),
    [
        (["--log", "log"], "--buckets is missing"),
        (["--buckets", "2"], "give --log FOLDER"),
        (["--log", "log", "--buckets", "2", "--out", "out"], "leave out --out"),
        (["--log", "log", "--buckets", "2", "--history.source", "folder"], "simulates a market"),
        (["--log", "log", "--buckets", "5"], "do not divide"),
    ],
)
def test_a_wrong_command_line_is_refused(flags, message):
    with pytest.raises((UsageError, ConfigError), match=message):
        main([*SMALL, *flags])
