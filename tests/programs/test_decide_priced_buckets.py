"""`crosschannel decide` bucket by bucket under constraints: prices are those of all users, with the same bytes."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from crosschannel.histories import read_history, write_buckets, write_history
from crosschannel.programs import decide
from tests.pipeline.buckets.samples import contents, market_log

#: The default market's constraint is in the run: unsubscribing no more often than in the log.
ARMS = ("--arms.holdout", "0.1", "--arms.business-as-usual", "0.1")


@pytest.fixture(scope="module")
def logs(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The log of the run, as a whole and in 1, 8, 16 and 64 buckets."""
    folder = tmp_path_factory.mktemp("logs")
    write_history(market_log(), folder / "whole")
    log = read_history(folder / "whole")
    for n in (1, 8, 16, 64):
        write_buckets(log, folder / str(n), n)
    return folder


@pytest.fixture
def decided(funnel_run: Path, logs: Path) -> Callable[..., dict[str, bytes]]:
    """Decides on a log into a folder by date, and returns the files."""

    def run(log: str, out: Path, *arguments: str) -> dict[str, bytes]:
        line = [str(funnel_run), "--history.path", str(logs / log), "--out", str(out), *arguments]
        assert decide.main(line) == 0
        return contents(out) if out.is_dir() else {"": out.read_bytes()}

    return run


@pytest.mark.parametrize("n", [1, 8, pytest.param(64, marks=pytest.mark.slow)])
def test_days_under_the_constraints_of_the_run_have_the_same_bytes(n, decided, tmp_path, monkeypatch):
    whole = decided("whole", tmp_path / "whole", *ARMS)
    monkeypatch.setattr(decide, "build_history", lambda *_: pytest.fail("the log was read as a whole"))
    assert decided(str(n), tmp_path / "buckets", *ARMS) == whole
