"""What a training leaves of users: its checkpoint goes, and nothing else of the run names them."""

from __future__ import annotations

import shutil
from pathlib import Path

import pandas as pd
import pytest

from crosschannel.core.errors import ConfigError
from crosschannel.pipeline.buckets.training import SCRATCH_FOLDER
from crosschannel.pipeline.run_files import PROCEDURE
from crosschannel.pipeline.run_folder import Run
from crosschannel.programs import decide, forget, train
from tests.pipeline.loop.samples import daily_log, train_on


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("forgetting")
    train_on(daily_log(), folder, "--agent.name=neural_linear", "--agent.settings.hidden", "4")
    pd.DataFrame({"user_id": daily_log().user_ids[:5]}).to_csv(folder / "users.csv", index=False)
    return folder


@pytest.fixture
def folder(trained: Path, tmp_path: Path) -> Path:
    shutil.copytree(trained, tmp_path / "copy")
    return tmp_path / "copy"


def arguments(folder: Path, *more: str) -> list[str]:
    return [str(folder / "run"), "--users", str(folder / "users.csv"), *more]


def test_the_checkpoint_of_a_finished_run_goes_and_nothing_else_names_users(folder: Path, capsys) -> None:
    log = f"--history.path={folder / 'log'}"
    assert forget.main(arguments(folder, "--check", log)) == 1
    out = capsys.readouterr().out
    named = [line for line in out.splitlines() if line.startswith("found")]
    assert len(named) == 1
    assert "checkpoint.pt" in named[0]
    assert forget.main(arguments(folder, log)) == 0
    assert not (folder / "run" / "checkpoint.pt").exists()
    assert forget.main(arguments(folder, "--check", log)) == 0
    # The run is finished as before: it decides.
    run = Run.open_ended(folder / "run")
    assert run.ended
    decide.main([str(folder / "run"), log, f"--out={folder / 'decisions.parquet'}"])
    assert train.main(["--resume", str(folder / "run")]) == 0


def test_a_run_that_is_not_finished_is_refused(folder: Path) -> None:
    (folder / "run" / "metrics.json").unlink()
    with pytest.raises(ConfigError, match="is not finished"):
        forget.main(arguments(folder))
    assert (folder / "run" / "checkpoint.pt").is_file()


def test_what_a_killed_process_kept_of_a_bucketed_log_goes(folder: Path) -> None:
    """A training that ended just before its columns were removed, an evaluation, and a decision."""
    users = pd.read_csv(folder / "users.csv")
    for name in (SCRATCH_FOLDER, ".scratch-k3v9.part", "decisions/.scratch-p7m2.part"):
        kept = folder / "run" / name / "columns" / "bucket-00000"
        kept.mkdir(parents=True)
        users.to_parquet(kept / "users.parquet")
        (kept / ".facts.json.part").write_text("{}")
    assert forget.main(arguments(folder, "--check")) == 1
    assert forget.main(arguments(folder)) == 0
    assert not list((folder / "run").rglob(".scratch*"))
    assert forget.main(arguments(folder, "--check")) == 0


def test_days_of_decisions_outside_the_run(folder: Path) -> None:
    decisions, log = str(folder / "decisions"), f"--history.path={folder / 'log'}"
    decide.main([str(folder / "run"), log, f"--out={decisions}", "--clear-ids"])
    assert forget.main(arguments(folder, "--check", "--history.decided", decisions)) == 1
    # A day whose replacement was interrupted is put back first, and drafts go.
    (day,) = (
        Path(decisions).iterdir()
        if not (Path(decisions) / ".lock").exists()
        else [one for one in Path(decisions).iterdir() if one.is_dir()]
    )
    day.rename(day.with_name(f".{day.name}.replaced"))
    shutil.copytree(day.with_name(f".{day.name}.replaced"), day.with_name(f".{day.name}.part"))
    assert forget.main(arguments(folder, "--history.decided", decisions)) == 0
    assert [one.name for one in Path(decisions).iterdir() if one.is_dir()] == [day.name]
    listed = pd.read_csv(folder / "users.csv")["user_id"]
    arms = pd.read_parquet(day / "arms.parquet")
    assert not arms["user_id"].isin(listed).any()
    assert len(arms) == 115


def test_the_checkpoint_of_an_interrupted_agent_of_a_fold_goes(folder: Path, capsys) -> None:
    log = f"--history.path={folder / 'log'}"
    interrupted = folder / "run" / PROCEDURE / "fold_1_of_2"
    interrupted.mkdir(parents=True)
    shutil.copy(folder / "run" / "checkpoint.pt", interrupted)
    shutil.copy(folder / "run" / "policy.pt", interrupted)
    assert forget.main(arguments(folder, "--check", log)) == 1
    assert "fold_1_of_2/checkpoint.pt" in capsys.readouterr().out
    assert forget.main(arguments(folder, log)) == 0
    assert [path.name for path in interrupted.iterdir()] == ["policy.pt"]
