"""`crosschannel decide` on a log in buckets: the bytes of deciding for all users at once, however it is divided."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from crosschannel.core.arrays import BoolArray
from crosschannel.core.errors import ConfigError, InputError
from crosschannel.core.times import DAY
from crosschannel.histories import History, leaf_of, read_history, write_buckets, write_history
from crosschannel.histories.buckets import opening
from crosschannel.histories.logs import take_rows
from crosschannel.pipeline import UsageError
from crosschannel.pipeline.loop.decisions import buckets
from crosschannel.programs import decide
from tests import ROOT
from tests.pipeline.loop.samples import ARMS, FIRST, START, train_until_the_tenth_day


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


def test_a_scheduler_may_have_more_tasks_than_buckets(trained, tmp_path, caplog):
    """The task that has no bucket decides for nobody: the files together are the decisions, column for column."""
    run(trained, "log", tmp_path / "whole.parquet", *ARMS)
    with caplog.at_level("WARNING"):
        for i in (1, 2):
            run(trained, "buckets-1", tmp_path / f"{i}.parquet", *ARMS, "--shard", f"{i}/2")
    assert (
        "--shard 2/2: the log has 1 buckets with users and none for this task, which decides for nobody" in caplog.text
    )
    assert "--shard 1/2" not in caplog.text
    parts = [pd.read_parquet(tmp_path / f"{i}.parquet") for i in (1, 2)]
    whole = pd.read_parquet(tmp_path / "whole.parquet")
    assert len(parts[1]) == 0
    assert parts[1].columns.tolist() == whole.columns.tolist()
    pd.testing.assert_frame_equal(parts[0], whole)
    pd.testing.assert_frame_equal(pd.concat(parts), whole)
    run(trained, "buckets-1", tmp_path / "2.csv", *ARMS, "--shard", "2/2")
    assert (tmp_path / "2.csv").read_text() == ",".join(whole.columns) + "\n"


def opened(log: History) -> History:
    """The log without a word on what was eligible."""
    return replace(log, decisions=replace(log.decisions, eligible=None))


def all_but_first_channel(log: History, rows: BoolArray) -> BoolArray:
    """What is eligible: all, but for some rows (n,) the first channel, where it was not the one that was taken."""
    eligible = np.ones((len(log.decisions), log.modules.total), dtype=bool)
    eligible[rows & (log.decisions.actions[:, 0] != 1), 1] = False
    return eligible


def with_email(log: History, addresses: BoolArray) -> History:
    """A log whose users have an address or none (U,), in a column with the name of a channel."""
    assert log.users is not None
    some = np.where(addresses, "somebody@example.org", None)
    return replace(opened(log), users=log.users.assign(email=some))


@pytest.mark.parametrize("arguments", [(), ("--shard", "1/8"), ("--shard", "2/2")])
def test_consent_is_judged_over_all_buckets(trained, tmp_path, arguments):
    """A column named `email` is consent where it is true or false for everybody, and an address is neither."""
    log = read_history(trained / "log")
    bucket = leaf_of(log.user_ids) % 8
    write_buckets(with_email(log, bucket != 0), tmp_path / "addresses", 8)  # the first bucket has none
    run(trained, str(tmp_path / "addresses"), tmp_path / "addresses.parquet", *arguments)
    write_buckets(with_email(log, np.zeros(log.n_users, dtype=bool)), tmp_path / "unknown", 8)
    with pytest.raises(ConfigError, match="columns of the users look like consent or reachability: email"):
        run(trained, str(tmp_path / "unknown"), tmp_path / "unknown.parquet", *arguments)
    settled = ("--ignore-columns", "email")
    run(trained, str(tmp_path / "unknown"), tmp_path / "unknown.parquet", *arguments, *settled)


@pytest.mark.parametrize("part", ["1/8", "3/8", "9/9"])
def test_a_shard_is_not_refused_where_the_log_is_not(part, trained, tmp_path):
    """What was eligible is said of one user of one bucket alone: so the log says it, and nothing has to be refused."""
    log = read_history(trained / "log")
    user = int(np.flatnonzero(leaf_of(log.user_ids) % 8 == 5)[0])
    eligible = all_but_first_channel(log, log.decisions.user == user)
    said = replace(opened(log), users=log.users.assign(marketing_consent=True))
    said = replace(said, decisions=replace(said.decisions, eligible=eligible))
    write_buckets(said, tmp_path / "said", 8)
    run(trained, str(tmp_path / "said"), tmp_path / "out.parquet", "--shard", part)
    write_buckets(replace(said, decisions=replace(said.decisions, eligible=None)), tmp_path / "silent", 8)
    with pytest.raises(ConfigError, match="look like consent or reachability: marketing_consent"):
        run(trained, str(tmp_path / "silent"), tmp_path / "out-2.parquet", "--shard", part)


def test_a_shard_begins_when_the_log_does(trained, tmp_path):
    """The first decision is one of all users: before it all tasks are refused, and after it none."""
    log = read_history(trained / "log")
    d = log.decisions
    late = (d.time >= START + DAY) | (leaf_of(log.user_ids) % 8 == 5)[d.user]
    events = take_rows(log.events, np.zeros(0, dtype=np.int64))
    write_buckets(replace(log, decisions=take_rows(d, late), events=events), tmp_path / "late", 8)
    first = pd.Timestamp(int(d.time.min()), unit="us")
    for part in ("1/8", "6/8"):
        name = tmp_path / f"{part[0]}.parquet"
        with pytest.raises(ConfigError, match=f"first decision is at {first:%Y-%m-%d %H:%M}"):
            run(trained, str(tmp_path / "late"), name, "--shard", part, "--at", str(first))
        run(trained, str(tmp_path / "late"), name, "--shard", part, "--at", str(first + pd.Timedelta("1h")))
        assert len(pd.read_parquet(name))


def test_what_is_said_of_users_is_said_of_all_buckets_together(trained, tmp_path, caplog):
    """One sentence, with the number of users of all buckets: an action that some have is not new to anybody."""
    log = read_history(trained / "log")
    some = np.isin(log.decisions.user, np.flatnonzero(leaf_of(log.user_ids) % 8 == 5))
    eligible = all_but_first_channel(log, some)
    told = replace(log, decisions=replace(log.decisions, eligible=eligible))
    write_history(told, tmp_path / "whole")
    write_buckets(told, tmp_path / "buckets", 8)
    found = []
    for name, extra in (("whole", ()), ("buckets", ()), ("buckets", ("--constraints.messages-per-week", "100"))):
        caplog.clear()
        with caplog.at_level("INFO"):
            run(trained, str(tmp_path / name), tmp_path / f"{name}.parquet", *extra, "--force")
        found.append([text for text in caplog.messages if "eligible is" in text or "nothing is eligible" in text])
    assert found[0] == found[1] == found[2]
    assert len(found[0]) == 1


@pytest.mark.parametrize("arguments", [(), ("--shard", "3/8"), ("--constraints.messages-per-week", "5")])
def test_into_a_file_each_bucket_is_read_once(trained, tmp_path, monkeypatch, arguments):
    """A task reads its own buckets, and the others only where consent is not settled."""
    read = []

    def read_bucket(path, decided):
        read.append(path.name)
        return opening.read_bucket(path, decided)

    monkeypatch.setattr(buckets, "read_bucket", read_bucket)
    run(trained, "buckets-8", tmp_path / "out.parquet", *arguments)
    assert read == ([f"bucket-{b:05d}" for b in range(8)] if "--shard" not in arguments else ["bucket-00002"])


@pytest.mark.parametrize("arguments", [(), ("--greedy",)])
def test_votes_without_a_funnel_are_priced_by_bucket(arguments, trained, tmp_path, monkeypatch):
    limit = ("--constraints.messages-per-week", "5", *arguments)
    run(trained, "log", tmp_path / "log.parquet", *limit)
    monkeypatch.setattr(decide, "build_history", lambda *_: pytest.fail("the log was read as a whole"))
    run(trained, "buckets-8", tmp_path / "buckets-8.parquet", *limit)
    assert (tmp_path / "buckets-8.parquet").read_bytes() == (tmp_path / "log.parquet").read_bytes()


def test_shards_are_refused_where_prices_need_all_users(trained, tmp_path):
    with pytest.raises(UsageError, match=r"--shard: the prices of constraints \(messages_per_week\) rest on the users"):
        run(
            *(trained, "buckets-8", tmp_path / "part.parquet"),
            *("--constraints.messages-per-week", "5", "--shard", "1/2"),
        )
    with pytest.raises(UsageError, match="--shard divides a log in buckets: bucket the log"):
        run(trained, "log", tmp_path / "part.parquet", "--shard", "1/2")


def told(trained: Path, folder: Path) -> tuple[str, ...]:
    """Files of what is eligible for most users, and of the users who may get messages, in an order of their own."""
    ids = pd.Series(read_history(trained / "log").user_ids).sample(frac=1.0, random_state=0)
    channels = np.where(np.arange(len(ids)) % 3 == 0, "none", "none|email|push")
    table = pd.DataFrame({"user_id": ids, "eligible_channel": channels})[5:]
    table.to_csv(folder / "eligible.csv", index=False)
    table.sort_values("user_id")[["user_id"]][::2].to_parquet(folder / "pilot.parquet")
    return ("--eligible", str(folder / "eligible.csv"), "--only-users", str(folder / "pilot.parquet"))


@pytest.mark.parametrize("limit", [(), ("--constraints.messages-per-week", "5")])
def test_files_of_users_are_divided_as_the_log_is(limit, trained, tmp_path, monkeypatch):
    arguments = (*told(trained, tmp_path), *ARMS, "--ramp", "0.9", *limit)
    run(trained, "log", tmp_path / "whole", *arguments)
    monkeypatch.setattr(decide, "build_history", lambda *_: pytest.fail("the log was read as a whole"))
    run(trained, "buckets-8", tmp_path / "buckets", *arguments)
    assert contents(tmp_path / "buckets") == contents(tmp_path / "whole")


def test_shards_take_their_part_of_files_of_users(trained, tmp_path):
    arguments = told(trained, tmp_path)
    run(trained, "log", tmp_path / "whole.parquet", *arguments)
    for i in (1, 2):
        run(trained, "buckets-8", tmp_path / f"{i}.parquet", *arguments, "--shard", f"{i}/2")
    parts = pd.concat([pd.read_parquet(tmp_path / f"{i}.parquet") for i in (1, 2)])
    whole = pd.read_parquet(tmp_path / "whole.parquet")
    pd.testing.assert_frame_equal(parts.sort_values("user_id", ignore_index=True), whole)


@pytest.mark.parametrize(
    ("flag", "text"), [("--eligible", "has no such user"), ("--only-users", "none of these users")]
)
def test_faults_of_files_of_users_are_those_of_the_whole_log(flag, text, trained, tmp_path):
    pd.DataFrame({"user_id": ["nobody"], "eligible_channel": ["none"]}).to_csv(tmp_path / "file.csv", index=False)
    found = []
    for log in ("log", "buckets-8"):
        with pytest.raises(InputError, match=text) as refused:
            run(trained, log, tmp_path / "out.parquet", flag, str(tmp_path / "file.csv"))
        found.append(str(refused.value))
    assert found[0] == found[1]


def test_wrong_shards_and_ages_are_refused(trained, tmp_path):
    with pytest.raises(UsageError, match="give a file as --out"):
        run(trained, "buckets-8", tmp_path / "days", "--shard", "1/2")
    with pytest.raises(ConfigError, match="is not i/n"):
        run(trained, "buckets-8", tmp_path / "part.parquet", "--shard", "3/2")
    with pytest.raises(ConfigError, match="is not covered by the log"):
        run(trained, "buckets-8", tmp_path / "late.parquet", day=90)
