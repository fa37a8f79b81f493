"""`crosschannel decide` on a log in buckets: the bytes of deciding for all users at once, however it is divided."""

from __future__ import annotations

from pathlib import Path

import pandas as pd
import pytest

from crosschannel.core.errors import ConfigError
from crosschannel.histories import read_history, write_buckets
from crosschannel.pipeline import UsageError
from crosschannel.programs import decide
from tests import ROOT
from tests.pipeline.loop.samples import ARMS, FIRST, train_until_the_tenth_day


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run, the log that it has learned from, and that log in 1, 8 and 64 buckets."""
    folder = tmp_path_factory.mktemp("days")
    train_until_the_tenth_day(folder)
    log = read_history(folder / "log")
    for n in (1, 8, 64):
        write_buckets(log, folder / f"buckets-{n}", n)
    return folder


def run(trained: Path, log: str, out: Path, *arguments: str, day: int = 0) -> None:
    at = f"{FIRST + pd.Timedelta(days=day):%Y-%m-%d}T06:00"
    path = ["--history.path", str(trained / log)]
    decide.main([str(trained / "run"), *path, "--at", at, "--out", str(out), *arguments])


def contents(folder: Path) -> dict[str, bytes]:
    return {str(path.relative_to(folder)): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


@pytest.mark.parametrize("n", [1, 8, pytest.param(64, marks=pytest.mark.slow)])
def test_days_have_the_same_bytes(n, trained, tmp_path, monkeypatch):
    """Two days, of which the second knows the first; the log is read bucket by bucket and never as a whole."""
    for day in (0, 1):
        run(trained, "log", tmp_path / "whole", *ARMS, "--ramp", "0.7", day=day)
    monkeypatch.setattr(decide, "build_history", lambda *_: pytest.fail("the log was read as a whole"))
    for day in (0, 1):
        run(trained, f"buckets-{n}", tmp_path / "buckets", *ARMS, "--ramp", "0.7", day=day)
    assert contents(tmp_path / "buckets") == contents(tmp_path / "whole")


@pytest.mark.slow
@pytest.mark.parametrize(("name", "package"), [("processes", "crosschannel"), ("ray", "ray"), ("spark", "pyspark")])
def test_engines_give_the_same_bytes(name, package, trained, tmp_path, monkeypatch):
    pytest.importorskip(package, reason=f"{package} is not installed")
    monkeypatch.setenv("PYTHONPATH", str(ROOT))
    monkeypatch.setenv("RAY_USAGE_STATS_ENABLED", "0")
    run(trained, "log", tmp_path / "whole.parquet", *ARMS)
    run(trained, "buckets-8", tmp_path / "engine.parquet", *ARMS, "--engine", name)
    assert (tmp_path / "engine.parquet").read_bytes() == (tmp_path / "whole.parquet").read_bytes()


def test_shards_give_the_same_decisions(trained, tmp_path):
    run(trained, "log", tmp_path / "whole.parquet", *ARMS)
    for i in (1, 2, 3):
        run(trained, "buckets-8", tmp_path / f"{i}.parquet", *ARMS, "--shard", f"{i}/3")
    parts = pd.concat([pd.read_parquet(tmp_path / f"{i}.parquet") for i in (1, 2, 3)])
    whole = pd.read_parquet(tmp_path / "whole.parquet")
    pd.testing.assert_frame_equal(parts.sort_values("user_id", ignore_index=True), whole)


def test_what_couples_users_is_decided_as_a_whole(trained, tmp_path):
    limit = ("--constraints.messages-per-week", "5")
    for log in ("log", "buckets-8"):
        run(trained, log, tmp_path / f"{log}.parquet", *limit)
    assert (tmp_path / "buckets-8.parquet").read_bytes() == (tmp_path / "log.parquet").read_bytes()
    with pytest.raises(UsageError, match="--shard divides a log in buckets whose users no constraint"):
        run(trained, "buckets-8", tmp_path / "part.parquet", *limit, "--shard", "1/2")


def test_wrong_shards_and_ages_are_refused(trained, tmp_path):
    with pytest.raises(UsageError, match="give a file as --out"):
        run(trained, "buckets-8", tmp_path / "days", "--shard", "1/2")
    with pytest.raises(ConfigError, match="is not i/n"):
        run(trained, "buckets-8", tmp_path / "part.parquet", "--shard", "3/2")
    with pytest.raises(ConfigError, match="is not covered by the log"):
        run(trained, "buckets-8", tmp_path / "late.parquet", day=90)
