"""Pages that lead from files to a result run as they are written: each named block, each command in its order."""

from __future__ import annotations

import contextlib
import io
import re
import runpy
import shlex
import sys
from pathlib import Path

import pytest

from crosschannel.__main__ import main
from tests import ROOT
from tests.docs.pages import command_lines, read_blocks

PAGES = ("your_stream.md", "your_warehouse.md", "extend/agent.md")


def run(command: str) -> str:
    """Run a command of a page in this process, and return what it printed."""
    program, *arguments = shlex.split(command)
    if program == "export":  # `walk` has the folder on the path
        return ""
    shown = io.StringIO()
    with contextlib.redirect_stdout(shown), contextlib.redirect_stderr(shown):
        if program == "python":
            runpy.run_path(arguments[0], run_name="__main__")
        else:
            assert program == "crosschannel"
            assert main(arguments) == 0, shown.getvalue()
    return shown.getvalue()


def walk(page: str, folder: Path, monkeypatch: pytest.MonkeyPatch) -> dict[str, str]:
    """Write the files of a page and run its commands; return what each printed."""
    monkeypatch.chdir(folder)
    monkeypatch.syspath_prepend(str(folder))
    printed = {}
    for block in read_blocks(ROOT / "docs" / page):
        if block.language in ("python", "yaml") and block.title:
            Path(block.title).write_text(block.text, encoding="utf-8")
        elif block.language == "console":
            printed |= {command: run(command) for command in command_lines(block.text)}
    everything = "\n".join(printed.values())
    for block in read_blocks(ROOT / "docs" / page):
        if block.title == "output":
            assert block.text.strip() in everything, everything
    return printed


def effect_of(text: str, row: str) -> float:
    """Return the effect in a row of the table of `crosschannel effects`."""
    found = re.search(rf"^ *{row} +(-?[\d.]+) ", text, re.MULTILINE)
    assert found is not None, text
    return float(found[1])


def test_a_stream_becomes_a_judged_policy(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    """A large offer makes 0.5 orders and a small one 0.2; four standard errors of 3,500 sends are 0.06."""
    printed = walk("your_stream.md", tmp_path, monkeypatch)
    effects = next(text for command, text in printed.items() if " effects " in command)
    assert effect_of(effects, "offer large") == pytest.approx(0.5, abs=0.06)
    assert effect_of(effects, "offer small") == pytest.approx(0.2, abs=0.06)
    assert "is better than the logging policy" in printed["crosschannel evaluate runs/app"]
    assert len(list(Path("decisions").iterdir())) >= 1


def test_tables_of_a_warehouse_become_a_judged_policy(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    """Android users get push, which makes 0.3 orders, and others e-mail, which makes 0.15."""
    import pandas as pd

    printed = walk("your_warehouse.md", tmp_path, monkeypatch)
    assert "logged propensities" in printed["crosschannel evaluate runs/service"]
    assert "is better than the logging policy" in printed["crosschannel evaluate runs/service"]
    whole = printed["crosschannel effects --config whole.yaml"]
    # An order is worth 32: an opened e-mail makes .375 of them, others none; standard errors are .65 and .38.
    assert effect_of(whole, "email +gain") == pytest.approx(12.0, abs=2.6)
    assert effect_of(whole, "email +direct") == pytest.approx(0.0, abs=1.5)
    assert effect_of(whole, "email hazard of unsubscribed") == pytest.approx(0.004, abs=0.003)
    decided = pd.read_parquet("decided.parquet")
    platform = pd.read_parquet("customers").set_index("customer")["platform"]
    of_user = decided["user_id"].astype(int).map(platform)
    assert (decided["channel"][of_user == "android"] == "push").mean() > 0.8
    assert (decided["channel"][of_user == "ios"] == "email").mean() > 0.8


def test_an_agent_of_ones_own_is_written_used_and_judged(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    printed = walk("extend/agent.md", tmp_path, monkeypatch)
    train = next(text for command, text in printed.items() if " train " in command)
    assert "my_agents:BestSoFar" in train
    by_hand = printed["python by_hand.py"]
    assert "mine" in by_hand
    assert "business_as_usual" in by_hand
    sys.modules.pop("my_agents", None)


def test_the_pages_are_found():
    navigation = (ROOT / "mkdocs.yml").read_text()
    assert all(page in navigation for page in PAGES)
