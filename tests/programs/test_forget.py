"""Forgotten users are nowhere in a run's files, whatever the moment at which a first attempt was killed."""

from __future__ import annotations

import os
import shutil
import signal
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from crosschannel.histories.readers.folder import read_history
from crosschannel.pipeline.loop.policies import Policies
from crosschannel.pipeline.run_folder import Run
from crosschannel.pipeline.watch.forgetting import JOURNAL_FILE, Forgotten, policies_that_learned
from crosschannel.programs import alerts, decide, forget, update

LIST = "users.csv"
RUN = ("run", "--users", LIST)


@pytest.fixture
def folder(simulated: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A copy of it, in which the test runs."""
    copy = tmp_path / "copy"
    shutil.copytree(simulated, copy)
    monkeypatch.chdir(copy)
    return copy


def tables(folder: Path) -> dict[str, pd.DataFrame]:
    files = [path for path in folder.rglob("*.parquet") if "run" in path.parts]
    return {str(path.relative_to(folder)): pd.read_parquet(path) for path in files}


def files(folder: Path) -> dict[str, bytes]:
    inside = (path for path in folder.rglob("*") if path.is_file() and path.name != ".lock")
    return {str(path.relative_to(folder)): path.read_bytes() for path in inside}


def test_users_are_found_before_and_nowhere_after(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    listed = pd.read_csv(LIST)["user_id"].tolist()
    before = tables(folder)
    totals = folder / "run" / "days" / "totals.parquet"  # as a day leaves them that reads the recent log alone
    totals.parent.mkdir(exist_ok=True)
    pd.DataFrame({"user_id": listed, "last_message": 0}).to_parquet(totals)
    unchanged = files(folder)
    assert forget.main([*RUN, "--check"]) == 1
    assert files(folder) == unchanged
    found = capsys.readouterr().out
    for part in ("arms.parquet", "decisions.parquet", "events.parquet", "users.parquet", "totals.parquet"):
        assert part in found
    assert forget.main(list(RUN)) == 0
    out = capsys.readouterr().out
    assert "nothing is left of the users" in out
    assert "learns again" in out
    for name, table in tables(folder).items():
        kept = before[name][~before[name]["user_id"].isin(listed)].reset_index(drop=True)
        pd.testing.assert_frame_equal(table, kept)
    assert not list((folder / "run" / "learning").iterdir())
    assert not totals.exists()
    assert forget.main([*RUN, "--check"]) == 0


def test_no_byte_of_any_file_has_an_id_or_a_decision(folder: Path) -> None:
    """The search of the program is not needed for this: ids and decision ids are long enough to be unique."""
    listed = pd.read_csv(LIST)["user_id"].tolist()
    before = pd.concat([table for name, table in tables(folder).items() if name.endswith("decisions.parquet")])
    mine = before[before["user_id"].isin(listed)]
    assert len(mine) > 5
    wanted = {*listed, *mine["decision_id"], *(one.partition("-")[2] for one in mine["decision_id"])}
    assert forget.main(list(RUN)) == 0
    for name, content in files(folder).items():
        if name != LIST:
            assert [one for one in wanted if one.encode() in content] == [], name
    for name, table in tables(folder).items():
        texts = table.select_dtypes(include=["object", "string"]).astype(str).to_numpy().ravel()
        assert not np.isin(texts, list(wanted)).any(), name


def test_the_programs_go_on_without_them(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    known = read_history(Path("run/log"), Path("run/decisions"))
    assert forget.main(list(RUN)) == 0
    history = read_history(Path("run/log"), Path("run/decisions"))
    assert history.n_users == known.n_users - len(pd.read_csv(LIST))
    assert len(history.decisions) < len(known.decisions)
    earlier = set(policies_that_learned(Path("run")))
    assert Policies(Path("run")).current in earlier
    # An update learns again from the log without them; then the policies that knew them can go.
    assert update.main(["run"]) == 0
    now = Policies(Path("run")).current
    assert now not in earlier
    capsys.readouterr()
    assert forget.main([*RUN, "--policies"]) == 0
    assert "have learned from forgotten" not in capsys.readouterr().out
    assert Policies(Path("run")).versions == [now]
    at = str(pd.Timestamp(history.span[1], unit="us"))
    assert decide.main(["run", "--history.path", "run/log", "--at", at, "--out", "run/decisions"]) == 0
    assert alerts.main(["run", "--at", at]) in (0, 5)
    assert forget.main([*RUN, "--check"]) == 0


def test_users_without_a_trace_change_nothing_but_the_states(folder: Path) -> None:
    pd.DataFrame({"user_id": ["nobody-at-all"]}).to_csv(LIST, index=False)
    before = tables(folder)
    assert forget.main([*RUN, "--check"]) == 0
    assert forget.main(list(RUN)) == 0
    for name, table in tables(folder).items():
        pd.testing.assert_frame_equal(table, before[name])


def killed_at(operation: int) -> bool:
    """Forget in a process that is killed before its n-th change of the file system; return whether it was."""
    child = os.fork()
    if child == 0:
        count = 0

        def deadly(change):
            def changed(*arguments, **named):
                nonlocal count
                count += 1
                if count == operation:
                    os.kill(os.getpid(), signal.SIGKILL)
                return change(*arguments, **named)

            return changed

        for name in ("replace", "rename", "unlink", "rmdir"):
            setattr(os, name, deadly(getattr(os, name)))
        code = 1
        try:
            code = forget.main(list(RUN))
        finally:
            os._exit(code)
    _, status = os.waitpid(child, 0)
    return os.WIFSIGNALED(status)


@pytest.mark.skipif(not hasattr(os, "fork"), reason="needs fork")
@pytest.mark.parametrize("step", [17, pytest.param(1, marks=pytest.mark.slow)])
def test_a_killed_attempt_is_finished_by_the_next(folder: Path, step: int) -> None:
    """Killed before any of its changes, each attempt goes on from what the last one left, to the same bits."""
    wanted = folder.parent / "wanted"
    shutil.copytree(folder, wanted)
    os.chdir(wanted)
    assert forget.main(list(RUN)) == 0
    kills, operation = 0, 1
    while True:
        attempt = folder.parent / "attempt"
        shutil.rmtree(attempt, ignore_errors=True)
        shutil.copytree(folder, attempt)
        os.chdir(attempt)
        if not killed_at(operation):
            break
        kills += 1
        assert forget.main([*RUN, "--check"]) == 1
        assert forget.main(list(RUN)) == 0
        assert not (attempt / "run" / JOURNAL_FILE).exists()
        assert files(attempt) == files(wanted)
        operation += step
    assert kills >= 3


def test_a_list_without_users_or_a_wrong_flag_is_refused(folder: Path) -> None:
    from crosschannel.core.errors import ConfigError, InputError

    with pytest.raises(ConfigError, match="--users is missing"):
        forget.main(["run"])
    with pytest.raises(ConfigError, match="--check changes nothing"):
        forget.main([*RUN, "--check", "--policies"])
    pd.DataFrame({"user": ["a"]}).to_csv(LIST, index=False)
    with pytest.raises(InputError, match="user_id"):
        forget.main(list(RUN))
    pd.DataFrame({"user_id": []}).to_csv(LIST, index=False)
    with pytest.raises(InputError):
        forget.main(list(RUN))
    with pytest.raises(ConfigError, match="not a folder of decisions"):
        forget.main([*RUN, "--history.decided", "elsewhere"])
    # The search would find nothing, although the user is there.
    user = pd.read_parquet(next(Path("run").rglob("arms.parquet")))["user_id"][0]
    pd.DataFrame({"user_id": [f"{user} "]}).to_csv(LIST, index=False)
    for flag in ([], ["--check"]):
        with pytest.raises(InputError, match=f"the log writes this user '{user}'"):
            forget.main([*RUN, *flag])
    assert Run.is_at(Path("run"))


def test_one_user_and_one_file_are_in_the_singular():
    told = forget.text(Forgotten(users=1, searched=1), Path("run"), check=False)
    assert told.splitlines() == ["1 user; rows removed: none", "1 file searched: nothing is left of the users"]
    assert forget.text(Forgotten(users=2, searched=1200), Path("run"), check=False).startswith("2 users; ")
