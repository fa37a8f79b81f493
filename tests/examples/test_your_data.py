"""The page for people with a campaign tool's log: every block runs as it is written, and finds what is true."""

from __future__ import annotations

import json
import os
import re
import shlex
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests import ROOT

PAGE = (ROOT / "docs" / "your_data.md").read_text(encoding="utf-8")
BLOCK = re.compile(r'^```(\w+)(?: title="([^"]+)")?\n(.*?)^```$', re.DOTALL | re.MULTILINE)
#: What is shown as a program's name runs with this interpreter and this package.
PROGRAMS = {"mkdir": ["mkdir"], "python": [sys.executable], "crosschannel": [sys.executable, "-m", "crosschannel"]}


def blocks() -> Iterator[tuple[str, str, str]]:
    """Kind, title and text of each block of the page, in its order."""
    yield from BLOCK.findall(PAGE)


def run(command: str, folder: Path) -> str:
    name, *arguments = shlex.split(command)
    done = subprocess.run(
        [*PROGRAMS[name], *arguments],
        cwd=folder,
        env={**os.environ, "PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1"},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, f"{command}\n{done.stdout}\n{done.stderr}"
    return done.stdout + done.stderr


@pytest.fixture(scope="module")
def outputs(tmp_path_factory: pytest.TempPathFactory) -> dict[str, str]:
    """What each command of the page printed, and under `folder` where it ran."""
    folder = tmp_path_factory.mktemp("your_data")
    found = {"folder": str(folder)}
    for kind, title, text in blocks():
        if kind in ("python", "yaml"):
            (folder / title).write_text(text, encoding="utf-8")
        elif kind == "console":
            for line in text.splitlines():
                assert line.startswith("$ ")
                found[line[2:]] = run(line[2:], folder)
    return found


def printed(outputs: dict[str, str], program: str) -> str:
    (text,) = [text for command, text in outputs.items() if command.startswith(program)]
    return text


def test_the_log_is_read_as_the_page_shows(outputs: dict[str, str]):
    (shown,) = [text for kind, title, text in blocks() if title == "output"]
    assert shown.strip() in printed(outputs, "crosschannel effects")


def test_effects_are_those_that_the_log_was_made_with(outputs: dict[str, str]):
    """A message by push makes 0.2 orders on average, one by e-mail 0.1; four standard errors are 0.04."""
    text = printed(outputs, "crosschannel effects")
    for channel, truth in (("email", 0.1), ("push", 0.2)):
        row = re.search(rf"^ *{channel} order \(count\) +did +(\S+)", text, re.MULTILINE)
        assert row is not None
        assert abs(float(row[1]) - truth) < 0.04


def test_the_policy_is_judged_and_found_to_be_better(outputs: dict[str, str]):
    """The best policy, a discount by push to everybody, makes 0.3 orders a decision; the tool made 0.3 x 0.15."""
    assert "propensities of" in printed(outputs, "crosschannel train")
    result = json.loads((Path(outputs["folder"]) / "runs" / "shop" / "metrics.json").read_text())["evaluation"]
    assert result["propensities"] == "estimated propensities"
    assert "is better than the logging policy" in printed(outputs, "crosschannel evaluate")
    assert (Path(outputs["folder"]) / "runs" / "shop" / "report.html").is_file()


def test_the_next_log_has_the_decisions_with_their_propensities(outputs: dict[str, str]):
    text = printed(outputs, "python next_log.py")
    assert "decisions of a policy: 1,500, " in text
    assert "0 of these have no send in the log" in text
    assert re.search(r"propensities .*1,500", text.splitlines()[0]), text.splitlines()[0]


def test_the_page_is_found(outputs: dict[str, str]):
    assert "your_data.md" in (ROOT / "mkdocs.yml").read_text()
    assert "your_data.md" in (ROOT / "README.md").read_text()
    assert "your_data.md" in (ROOT / "docs" / "histories.md").read_text()
