"""`crosschannel decide` bucket by bucket under constraints: prices are those of all users, with the same bytes."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from crosschannel.agents.constraints import prices, votes
from crosschannel.histories import read_history, write_buckets, write_history
from crosschannel.pipeline import priced_votes
from crosschannel.programs import decide
from tests.pipeline.buckets.samples import contents, market_log

#: The default market's constraint is in the run: unsubscribing no more often than in the log.
CONTENT = ("--constraints.budgets", "[{name: bonus, amount: 0.06, costs: {offer: {percent_10: 1.0, percent_20: 2.0}}}]")
SPENT = ("--greedy", "--constraints.messages-per-week", "0")
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
        return contents(out)

    return run


@pytest.mark.parametrize("n", [8, *(pytest.param(n, marks=pytest.mark.slow) for n in (1, 16, 64))])
def test_days_under_the_constraints_of_the_run_have_the_same_bytes(n, decided, tmp_path, monkeypatch):
    """With a holdout, business as usual, users who churned and users who wait."""
    arguments = (*ARMS, "--ramp", "0.7")
    whole = decided("whole", tmp_path / "whole", *arguments)
    monkeypatch.setattr(decide, "build_history", lambda *_: pytest.fail("the log was read as a whole"))
    assert decided(str(n), tmp_path / "buckets", *arguments) == whole


@pytest.mark.parametrize("arguments", [CONTENT, pytest.param(("--greedy",), marks=pytest.mark.slow), SPENT])
def test_blocks_of_users_have_the_same_bytes(arguments, decided, tmp_path, monkeypatch):
    """Votes in several blocks, each of users from all buckets; budgets on content are priced again and again."""
    monkeypatch.setattr(priced_votes, "ROWS_PER_BLOCK", 200)
    monkeypatch.setattr(votes, "VALUES_PER_CHUNK", 5_000)
    monkeypatch.setattr(prices, "FIRST_SAMPLE", 64)
    whole = decided("whole", tmp_path / "whole", *arguments)
    assert decided("8", tmp_path / "buckets", *arguments) == whole
