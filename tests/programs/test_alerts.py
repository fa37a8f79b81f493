"""`crosschannel alerts` on a deployment: its exit code, its file, and bounds that may change at any time."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest
import yaml

from crosschannel.core.errors import ConfigError
from crosschannel.pipeline.run_files import read_json
from crosschannel.programs import alerts

#: An hour after the last decisions of the deployment, and two days later.
AFTER, LATE = "2024-01-08T07:00", "2024-01-12T07:00"


@pytest.fixture
def folder(simulated: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A copy of the deployment, in which the test runs."""
    shutil.copytree(simulated, tmp_path / "copy")
    monkeypatch.chdir(tmp_path / "copy")
    return tmp_path / "copy"


def test_no_alert(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert alerts.main(["run", "--at", AFTER]) == 0
    out = capsys.readouterr().out
    assert out.startswith("no alerts; checked: age of the log, decisions")
    content = read_json(folder / "run" / "alerts.json", "", 99)
    assert content["version"] == 1
    assert content["at"].startswith(AFTER)
    assert content["alerts"] == []
    assert set(content["not_checked"]) == {"deliveries"}


def test_alerts_have_an_exit_code_of_their_own_and_say_what_to_do(
    folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert alerts.main(["run", "--at", LATE, "--history.path", "run/log", "--history.decided", "run/decisions"]) == 5
    out = capsys.readouterr().out
    content = json.loads((folder / "run" / "alerts.json").read_text())
    assert [one["rule"] for one in content["alerts"]] == ["age of the log", "decisions"]
    for one in content["alerts"]:
        assert f"{one['severity']}, {one['rule']}: {one['finding']} {one['remedy']}" in out
    # Nothing is written about a check that fails.
    assert not list((folder / "run").glob(".alerts*"))


def test_a_warning_is_printed_and_does_not_stop_the_job(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    file = folder / "run" / "config.yaml"
    content = yaml.safe_load(file.read_text())
    content["alerts"]["max_action_share"] = 1e-5  # one message of an action is more than that, beyond chance
    file.write_text(yaml.safe_dump(content))
    assert alerts.main(["run", "--at", AFTER]) == 0
    assert capsys.readouterr().out.startswith("warning, share of an action: `")
    (alert,) = read_json(folder / "run" / "alerts.json", "", 99)["alerts"]
    assert alert["severity"] == "warning"


def test_bounds_may_change_at_any_time(folder: Path) -> None:
    file = folder / "run" / "config.yaml"
    content = yaml.safe_load(file.read_text())
    content["alerts"] |= {"max_log_age": "9d", "max_drop": None}
    file.write_text(yaml.safe_dump(content))
    assert alerts.main(["run", "--at", LATE]) == 0
    assert read_json(folder / "run" / "alerts.json", "", 99)["not_checked"]["decisions"] == "switched off"
    content["alerts"]["max_drop"] = 2.0
    file.write_text(yaml.safe_dump(content))
    with pytest.raises(ConfigError, match=r"max_drop is 2\.0"):
        alerts.main(["run", "--at", LATE])
