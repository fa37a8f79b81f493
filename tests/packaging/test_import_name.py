"""One import name: bare imports are refused, and links change nothing for pickles, tracebacks and coverage."""

from __future__ import annotations

import json
import os
import pickle
import subprocess
import sys
import traceback
from pathlib import Path

import pytest

import crosschannel
from crosschannel.core.action_space import ActionSpace, Module
from crosschannel.core.errors import ConfigError
from tests import ROOT

PACKAGES = ("core", "histories", "reward", "agents", "envs", "evaluation", "engines", "pipeline")


def python(code: str, cwd: Path) -> subprocess.CompletedProcess[str]:
    return subprocess.run([sys.executable, "-c", code], cwd=cwd, capture_output=True, text=True)


@pytest.mark.parametrize("name", PACKAGES)
def test_a_bare_import_in_a_checkout_is_refused_and_names_the_right_one(name):
    done = python(f"import {name}", cwd=ROOT)
    assert done.returncode == 1
    assert f"ImportError: import `crosschannel.{name}` instead of `{name}`" in done.stderr


@pytest.mark.parametrize("name", PACKAGES)
def test_each_package_is_linked_and_not_copied(name):
    link = Path(crosschannel.__file__).parent / name
    assert link.resolve() == ROOT / name


@pytest.mark.parametrize("name", ["train.py", "evaluate.py", "decide.py"])
def test_each_program_is_linked_and_not_copied(name):
    assert (Path(crosschannel.__file__).parent / "programs" / name).resolve() == ROOT / name


def test_classes_behind_links_are_pickled_by_the_one_name():
    space = ActionSpace([Module("channel", ("none", "push"))])
    data = pickle.dumps(space)
    assert b"crosschannel.core.action_space" in data
    assert pickle.loads(data) == space


def test_tracebacks_lead_to_a_file_that_can_be_opened():
    with pytest.raises(ConfigError) as error:
        ActionSpace([])
    frame = traceback.extract_tb(error.value.__traceback__)[-1]
    assert Path(frame.filename).samefile(ROOT / "core" / "action_space.py")
    assert frame.line is not None
    assert "raise ConfigError" in frame.line


def test_coverage_counts_lines_behind_links(tmp_path):
    pytest.importorskip("coverage")
    script = tmp_path / "script.py"
    script.write_text(
        "from crosschannel.core.action_space import ActionSpace, Module\n"
        "ActionSpace([Module('channel', ('none', 'push'))])\n"
    )
    data = f"--data-file={tmp_path / 'data'}"
    for arguments in (
        ("run", data, str(script)),
        ("json", data, "--include=core/*,tests/*", "-o", str(tmp_path / "report.json")),
    ):
        command = [sys.executable, "-m", "coverage", *arguments]
        subprocess.run(command, cwd=ROOT, env={**os.environ, "PYTHONPATH": str(ROOT)}, check=True, capture_output=True)
    files = json.loads((tmp_path / "report.json").read_text())["files"]
    assert files["core/action_space.py"]["summary"]["percent_covered"] > 20
    assert not any(name.startswith("tests") for name in files)
