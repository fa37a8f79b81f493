"""`crosschannel decide` bucket by bucket under constraints: prices are those of all users, with the same bytes."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from crosschannel.agents.constraints import prices, votes
from crosschannel.agents.constraints.prices import InfeasibleBudget
from crosschannel.core.errors import OutputError
from crosschannel.histories import read_history, write_buckets, write_history
from crosschannel.pipeline import priced_votes
from crosschannel.pipeline.run_files import scratch_folder
from crosschannel.programs import decide
from tests import ROOT
from tests.pipeline.buckets.samples import contents, market_log

#: The default market's constraint is in the run: unsubscribing no more often than in the log.
CONTENT = ("--constraints.budgets", "[{name: bonus, amount: 0.06, costs: {offer: {percent_10: 1.0, percent_20: 2.0}}}]")
IMPOSSIBLE = (CONTENT[0], CONTENT[1].replace("0.06", "0.0"))
GREEDY = ("--greedy",)
SPENT = (*GREEDY, "--constraints.messages-per-week", "0")
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


@pytest.mark.parametrize("share", ["0.01", pytest.param("0", marks=pytest.mark.slow)])
def test_buckets_may_have_nobody_to_decide_for(share, decided, tmp_path):
    """With 5 users in 8 buckets some have none; with none at all nothing is priced."""
    whole = decided("whole", tmp_path / "whole", "--ramp", share)
    assert decided("8", tmp_path / "buckets", "--ramp", share) == whole


@pytest.mark.parametrize(
    "arguments", [CONTENT, *(pytest.param(each, marks=pytest.mark.slow) for each in (GREEDY, SPENT))]
)
def test_blocks_of_users_have_the_same_bytes(arguments, decided, tmp_path, monkeypatch):
    """Votes in several blocks, each of users from all buckets; budgets on content are priced again and again."""
    monkeypatch.setattr(priced_votes, "ROWS_PER_BLOCK", 200)
    monkeypatch.setattr(votes, "VALUES_PER_CHUNK", 5_000)
    monkeypatch.setattr(prices, "FIRST_SAMPLE", 64)
    whole = decided("whole", tmp_path / "whole", *arguments)
    assert decided("8", tmp_path / "buckets", *arguments) == whole


@pytest.mark.slow
@pytest.mark.parametrize(("name", "package"), [("processes", "crosschannel"), ("ray", "ray"), ("spark", "pyspark")])
def test_engines_have_the_same_bytes(name, package, decided, tmp_path, monkeypatch):
    pytest.importorskip(package, reason=f"{package} is not installed")
    monkeypatch.setenv("PYTHONPATH", str(ROOT))
    monkeypatch.setenv("RAY_USAGE_STATS_ENABLED", "0")
    monkeypatch.setattr(priced_votes, "ROWS_PER_BLOCK", 200)
    whole = decided("whole", tmp_path / "whole", *ARMS)
    assert decided("8", tmp_path / "buckets", *ARMS, "--engine", name) == whole


def test_what_is_found_of_users_is_gone_in_the_end(decided, tmp_path):
    """After decisions and after errors; and so is what killed processes left, but not what others work with."""
    out = tmp_path / "days"
    (out / ".scratch-left.part" / "bucket-00000").mkdir(parents=True)
    with scratch_folder(out) as other:
        decided("1", out)
        assert sorted(item.name for item in out.iterdir() if item.name != ".lock") == [other.name, "2024-01-25"]
    with pytest.raises(InfeasibleBudget, match="bonus: the budget is"):
        decided("1", tmp_path / "none", *IMPOSSIBLE)
    assert not (tmp_path / "none").exists()


@pytest.mark.skipif(sys.platform == "win32", reason="limits of files are POSIX")
@pytest.mark.parametrize(
    ("kilobytes", "name"), [pytest.param(1, "bucket-00000", marks=pytest.mark.slow), (300, "values.bin")]
)
def test_a_full_disk_is_reported(kilobytes, name, decided, tmp_path):
    """A file that may not grow stands for it: what is known of users does not fit, or their votes do not."""
    import resource

    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (kilobytes * 1024, before[1]))
    try:
        with pytest.raises(OutputError, match=f"{name}.* cannot be written"):
            decided("8", tmp_path / "days")
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)
    assert not (tmp_path / "days").exists()


#: Decides, and is killed after some calls.
KILLED = """
import os, signal, sys
from crosschannel.pipeline.run_files import scratch_folder
from crosschannel.programs import decide
from tests import ROOT

def engine(function, items, left=[int(sys.argv.pop(1))]):
    for item in items:
        if left[0] == 0:
            os.kill(os.getpid(), signal.SIGKILL)
        left[0] -= 1
        yield function(item)

decide.make_engine = lambda *_: engine
decide.main(sys.argv[1:])
"""


@pytest.mark.slow
@pytest.mark.skipif(sys.platform == "win32", reason="SIGKILL is POSIX")
@pytest.mark.parametrize("calls", [3, 11, 16, 17, 20])
def test_a_killed_decision_leaves_no_day(calls, decided, funnel_run, logs, tmp_path):
    """Killed as it looks for slots, reads buckets, votes, draws and makes tables; then it is decided again."""
    out = tmp_path / "days"
    line = [sys.executable, "-c", KILLED, str(calls), str(funnel_run), "--history.path", str(logs / "8")]
    env = {**os.environ, "OMP_NUM_THREADS": "1", "PYTHONPATH": str(ROOT)}
    done = subprocess.run([*line, "--out", str(out)], env=env, check=False, capture_output=True)
    assert done.returncode == -signal.SIGKILL, done.stderr.decode()
    assert not out.exists() or not [item for item in out.iterdir() if not item.name.startswith(".")]
    assert len(list(out.glob(".scratch-*.part"))) == (calls > 8)
    assert decided("8", out) == decided("whole", tmp_path / "whole")
    assert not list(out.glob(".scratch-*"))
