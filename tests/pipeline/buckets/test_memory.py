"""Memory does not grow with the number of users: four times the users take no more, bucket by bucket."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path
from statistics import median

import pytest

from crosschannel.envs.market import Market, simulate_history
from crosschannel.histories.buckets import write_buckets
from crosschannel.histories.readers.folder import write_history
from crosschannel.pipeline.configuration import override, read_config
from tests import ROOT
from tests.programs.samples import FUNNEL, run_program

RUNS = 3

TRAIN = """
import re
from pathlib import Path
from crosschannel.agents.leaves import funnel
from crosschannel.agents.leaves.rows import blocks
from crosschannel.pipeline.buckets import training
from crosschannel.pipeline.buckets.passes import Passes
from tests.pipeline.buckets.samples import configuration

def peak():  # of this program alone: `ru_maxrss` begins with the memory of the process that started it
    return int(re.search("VmHWM:\\s+(\\d+) kB", Path("/proc/self/status").read_text())[1])

training._judge = lambda *_: None
funnel.blocks = lambda folders: blocks(folders, 4_096)  # so that the smaller log fills blocks as well
before = peak()
settings = {"evaluation.max_users": 400}
training.train_on_buckets(configuration(**settings), Path("run"), passes=Passes(shows=False))
print(before, peak())
"""

EFFECTS = """
import re
from pathlib import Path
from crosschannel.pipeline.buckets.effects import effects_over_buckets
from crosschannel.pipeline.buckets.passes import Passes
from crosschannel.reward.effects import EffectsRequest
from tests.pipeline.buckets.samples import configuration

def peak():
    return int(re.search("VmHWM:\\s+(\\d+) kB", Path("/proc/self/status").read_text())[1])

before = peak()
settings = {"evaluation.max_users": 400}
effects_over_buckets(configuration(**settings), EffectsRequest(), Passes(shows=False), Path("."))
print(before, peak())
"""

TRIAL = """
import re
from pathlib import Path
import numpy as np, pandas as pd
from crosschannel.core.hashing import keys, uniforms
from crosschannel.pipeline.buckets.passes import Passes
from crosschannel.pipeline.configuration import override
from crosschannel.programs import trial
from tests.pipeline.buckets.samples import configuration

def peak():
    return int(re.search("VmHWM:\\s+(\\d+) kB", Path("/proc/self/status").read_text())[1])

ids = np.concatenate([pd.read_parquet(file)["user_id"] for file in sorted(Path("log").glob("bucket-*/users.*"))])
arm = np.where(uniforms(keys(ids), 3) < 0.3, "business_as_usual", "agent")
pd.DataFrame({"user_id": ids, "arm": arm}).to_parquet("arms.parquet")
declared = {"trial.start": "2024-01-05T06:00", "trial.every": "1d"}
before = peak()
trial.read(configuration(**declared), Path("arms.parquet"), passes=None if WHOLE else Passes(shows=False))
print(before, peak())
"""

DECIDE = """
import re, threading, time
from pathlib import Path
from crosschannel.pipeline import priced_votes
from crosschannel.programs import decide

def anonymous():  # without files that are mapped, which the system drops when it needs room
    return int(re.search("RssAnon:\\s+(\\d+) kB", Path("/proc/self/status").read_text())[1])

def watch():
    while True:
        seen.append(anonymous())
        time.sleep(0.005)

priced_votes.ROWS_PER_BLOCK = 4_096  # so that the smaller log fills blocks as well
seen = [anonymous()]
threading.Thread(target=watch, daemon=True).start()
decide.main(["RUN", "--history.path", LOG, "--out", "decisions.parquet", "--force"])
print(seen[0], max(seen))
"""


UPDATE = """
import re
from pathlib import Path
from crosschannel.agents.leaves import funnel
from crosschannel.agents.leaves.rows import blocks
from crosschannel.pipeline.buckets.passes import Passes
from crosschannel.pipeline.buckets.updating import update_over_buckets
from crosschannel.pipeline.loop.parts import log
from tests.pipeline.buckets.samples import configuration, market_log
from tests.pipeline.loop.updates import started

def peak():
    return int(re.search("VmHWM:\\s+(\\d+) kB", Path("/proc/self/status").read_text())[1])

log.SAMPLE_USERS = 400
funnel.blocks = lambda parts: blocks(parts, 4_096)
run = started(configuration(), Path("run"), market_log(**{"history.market.users": 60}))
before = peak()
update_over_buckets(run, Passes(shows=False))
print(before, peak())
"""


def growth(folder: Path, users: int, buckets: int, program: str = TRAIN) -> float:
    """MiB by which a program on a log of so many users raises the peak of resident memory of a process.

    The median of three runs: what the allocator has given back at the peak differs from run to run.
    """
    config = override(read_config(Path(FUNNEL[1])), {"history.market.users": users})
    history, _ = simulate_history(Market(config.market()))
    write_buckets(history, folder / "log", buckets)
    if "whole" in program:
        write_history(history, folder / "whole")
    del history
    grown = []
    for _ in range(RUNS):
        shutil.rmtree(folder / "run", ignore_errors=True)
        done = subprocess.run(
            [sys.executable, "-c", program],
            cwd=folder,
            capture_output=True,
            text=True,
            env={**os.environ, "OMP_NUM_THREADS": "1", "PYTHONPATH": str(ROOT)},
        )
        assert done.returncode == 0, done.stderr
        before, after = map(int, done.stdout.splitlines()[-1].split())
        grown.append((after - before) / 1024)
    return median(grown)


@pytest.mark.slow
@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="the peak of resident memory is read from /proc")
def test_four_times_the_users_in_four_times_the_buckets(tmp_path: Path) -> None:
    """20,000 users in 16 buckets and 80,000 in 64, each of 1,250 users: samples, sums and buckets are equally large.

    With all users in memory four times the users take four times as much. What does grow here are lists of buckets, and
    memory that the allocator keeps: a quarter more is allowed.
    """
    few, many = growth(tmp_path / "few", 20_000, 16), growth(tmp_path / "many", 80_000, 64)
    print(f"growth of the peak: {few:.0f} MiB at 20,000 users, {many:.0f} MiB at 80,000")
    assert many < 1.25 * few


@pytest.mark.slow
@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="the peak of resident memory is read from /proc")
def test_updates_of_four_times_the_users(tmp_path: Path) -> None:
    """10,000 users in 8 buckets and 40,000 in 32, each of 1,250 users; as above, a quarter more is allowed.

    What grows are the keys of the decisions that were learned from, 8 bytes each, and 16 bytes a user.
    """
    few, many = (growth(tmp_path / name, n, n // 1_250, UPDATE) for name, n in (("few", 10_000), ("many", 40_000)))
    print(f"growth of the peak: {few:.0f} MiB at 10,000 users, {many:.0f} MiB at 40,000")
    assert many < 1.25 * few


@pytest.mark.slow
@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="the peak of resident memory is read from /proc")
def test_effects_of_four_times_the_users(tmp_path: Path) -> None:
    """10,000 users in 8 buckets and 40,000 in 32, each of 1,250 users; as above, a quarter more is allowed."""
    few, many = (growth(tmp_path / name, n, n // 1_250, EFFECTS) for name, n in (("few", 10_000), ("many", 40_000)))
    print(f"growth of the peak: {few:.0f} MiB at 10,000 users, {many:.0f} MiB at 40,000")
    assert many < 1.25 * few


@pytest.mark.slow
@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="the peak of resident memory is read from /proc")
def test_a_trial_takes_a_row_a_user(tmp_path: Path) -> None:
    """What one more user takes is less than half of what the user's rows take where the log is read as a whole.

    The log has 10 slots a user, so that most of what a user takes are numbers by look, which both have.
    """
    taken = []
    for whole in (False, True):
        program = TRIAL.replace("WHOLE", str(whole))
        few, many = (growth(tmp_path / f"{n}-{whole}", n, n // 1_250, program) for n in (10_000, 40_000))
        taken.append((many - few) * 1024 / 30_000)
    print(f"one more user takes {taken[0]:.1f} KiB, and {taken[1]:.1f} KiB of the whole log")
    assert taken[0] < 0.5 * taken[1]


@pytest.mark.slow
@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="the peak of anonymous memory is read from /proc")
def test_decisions_under_constraints_take_a_row_a_user(tmp_path: Path) -> None:
    """What one more user takes is less than a fifth of what it takes where the log is read as a whole.

    Here that is the user's row of the tables, and the votes that prices may still change; there the user's log and all
    votes as well.
    """
    run_program("train.py", *FUNNEL, cwd=tmp_path)
    run, taken = str(tmp_path / "runs" / "market"), []
    for log in ("log", "whole"):
        program = DECIDE.replace("RUN", run).replace("LOG", repr(log))
        few, many = (growth(tmp_path / f"{n}-{log}", n, n // 1_250, program) for n in (10_000, 40_000))
        print(f"{log}: {few:.0f} MiB at 10,000 users, {many:.0f} MiB at 40,000")
        taken.append((many - few) * 1024 / 30_000)
    print(f"one more user takes {taken[0]:.1f} KiB, and {taken[1]:.1f} KiB of the whole log")
    assert taken[0] < 0.2 * taken[1]
