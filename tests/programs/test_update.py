"""The program `update`: what it refuses to learn from."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest

from crosschannel.core.errors import ConfigError
from crosschannel.pipeline.loop.policies import Policies
from crosschannel.programs import update


def test_days_of_decisions_that_are_gone_are_missed(
    simulated: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A wrong path would be a log without the agent's messages, and another policy would decide tomorrow."""
    shutil.copytree(simulated, tmp_path / "copy")
    monkeypatch.chdir(tmp_path / "copy")
    before = Policies(Path("run")).current
    assert before is not None
    days = Policies(Path("run")).days_noted(before)
    assert days > 0
    expected = rf"elsewhere has no day of decisions, but policy {before} in use has learned with {days} days of them"
    with pytest.raises(ConfigError, match=expected):
        update.main(["run", "--history.path", "run/log", "--history.decided", "elsewhere"])
    assert Policies(Path("run")).current == before
