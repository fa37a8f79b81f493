"""Making the folder of a run: nothing that somebody has written there is removed unless that is asked for."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import ExitStack
from pathlib import Path

import pytest

from crosschannel import pipeline
from crosschannel.core.errors import ConfigError
from crosschannel.pipeline import UsageError
from crosschannel.pipeline.configuration import Config
from crosschannel.pipeline.run_files import RunLock
from crosschannel.pipeline.run_folder import Run
from crosschannel.programs import train
from tests.pipeline.loop.samples import FLAGS, train_until_the_tenth_day


def create(out: Path, *, force: bool) -> Run:
    with ExitStack() as locks:
        return Run.create(Config(), out, locks, force=force)


def written(folder: Path) -> dict[str, bytes]:
    inside = (path for path in folder.rglob("*") if path.is_file() and path.name != ".lock")
    return {str(path.relative_to(folder)): path.read_bytes() for path in inside}


@pytest.mark.parametrize("name", ["notes.txt", "config.yaml", "metrics.json"])
def test_what_came_into_the_folder_is_kept_unless_it_is_to_be_replaced(name: str, tmp_path: Path) -> None:
    out = tmp_path / "run"
    out.mkdir()
    (out / name).write_text("mine")
    with pytest.raises(UsageError, match="was written by another program meanwhile: give another --out"):
        create(out, force=False)
    assert written(out) == {name: b"mine"}
    create(out, force=True)
    assert set(written(out)) == {"config.yaml"}
    assert Run.open(out).config.name == "run"


def test_what_a_killed_process_left_is_used(tmp_path: Path) -> None:
    out = tmp_path / "run"
    (out / ".scratch.part").mkdir(parents=True)
    (out / ".config.yaml.part").write_text("half")
    create(out, force=False)
    assert set(written(out)) == {"config.yaml"}


def test_a_folder_whose_part_is_being_written_is_not_replaced(tmp_path: Path) -> None:
    out = tmp_path / "run"
    (out / "log").mkdir(parents=True)
    (out / "metrics.json").write_text("finished")
    with RunLock(out / "log"), pytest.raises(ConfigError, match="log is in use by process"):
        create(out, force=True)
    assert written(out) == {"metrics.json": b"finished"}
    create(out, force=True)
    assert not (out / "log").exists()


def test_a_training_does_not_replace_a_run_that_ended_while_it_read_its_log(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The folder was free when the training began, and `--force` was not given."""
    train_until_the_tenth_day(tmp_path)
    prepare: Callable[..., object] = pipeline.prepare
    flags = (
        *(flag for flag in FLAGS if flag != "--name=run"),
        "--history.source=folder",
        f"--history.path={tmp_path / 'log'}",
        "--out",
        str(tmp_path / "out"),
    )

    def slow(*arguments: object) -> object:
        (tmp_path / "run").rename(tmp_path / "out")
        return prepare(*arguments)

    before = written(tmp_path / "run")
    with monkeypatch.context() as patch:
        patch.setattr(pipeline, "prepare", slow)
        with pytest.raises(UsageError, match="was written by another program meanwhile"):
            train.main(list(flags))
    assert written(tmp_path / "out") == before
