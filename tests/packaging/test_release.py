"""What a release rests on: one version, workflows with few rights, an image that does not run as root."""

from __future__ import annotations

import re
import subprocess

import pytest
import yaml

from crosschannel.version import __version__
from tests import ROOT

WORKFLOWS = sorted((ROOT / ".github" / "workflows").glob("*.yml"))


def test_the_changelog_begins_with_the_version() -> None:
    first = re.search(r"^## (\S+)", (ROOT / "CHANGELOG.md").read_text(), re.MULTILINE)
    assert first is not None
    assert first[1] == __version__


@pytest.mark.parametrize("path", WORKFLOWS, ids=lambda path: path.stem)
def test_workflows_read_only_and_end(path) -> None:
    workflow = yaml.safe_load(path.read_text())
    assert workflow["permissions"] == {"contents": "read"}
    for name, job in workflow["jobs"].items():
        runs = any("run" in step for step in job["steps"])
        assert not runs or "timeout-minutes" in job, f"{name} may run for hours"
        # A job with more rights runs no code of the repository.
        assert "permissions" not in job or not runs, name


def test_only_a_tag_releases_and_only_after_all_checks() -> None:
    workflow = yaml.safe_load((ROOT / ".github" / "workflows" / "release.yml").read_text())
    assert workflow[True] == {"push": {"tags": ["v*"]}}  # YAML reads `on` as true
    build = [step["run"] for step in workflow["jobs"]["build"]["steps"] if "run" in step]
    assert build[0] == "bash .ci/run"
    assert workflow["jobs"]["publish"]["needs"] == "build"
    assert workflow["jobs"]["publish"]["permissions"] == {"id-token": "write"}


def test_another_tag_than_the_version_is_refused() -> None:
    rule = re.search(r"^dist:.*\n\t(.*)$", (ROOT / "Makefile").read_text(), re.MULTILINE)
    assert rule is not None
    for tag, code in (("", 0), (f"v{__version__}", 0), ("v9.9.9", 1)):
        line = rule[1].replace("$$", "$").replace("$(TAG)", tag).replace("$(BIN)/python", f"echo {__version__} #")
        line = re.sub(r"\$\(echo.*\)", f"{__version__}", line)
        assert subprocess.run(["sh", "-c", line], check=False).returncode == code, line


def test_the_image_is_pinned_slim_and_not_root() -> None:
    lines = [line for line in (ROOT / "Dockerfile").read_text().splitlines() if line and not line.startswith("#")]
    bases = [line.split()[1] for line in lines if line.startswith("FROM")]
    assert len(bases) == 2
    assert len(set(bases)) == 1
    assert re.fullmatch(r"python:3\.11\.\d+-slim-\w+", bases[0]), "an exact version, which dependabot raises"
    user = next(place for place, line in enumerate(lines) if line.startswith("USER"))
    assert lines[user].split()[1] != "root"
    assert not any(line.startswith(("RUN", "COPY", "ADD")) for line in lines[user:])
    assert "--constraint constraints.txt" in "\n".join(lines)
    ignored = (ROOT / ".dockerignore").read_text().split()
    assert {".git", ".venv", "runs"} <= set(ignored)


def test_updates_and_reports_have_a_place() -> None:
    updates = yaml.safe_load((ROOT / ".github" / "dependabot.yml").read_text())["updates"]
    assert {update["package-ecosystem"] for update in updates} == {"pip", "github-actions", "docker"}
    for name in ("SECURITY.md", "CODE_OF_CONDUCT.md", ".github/pull_request_template.md"):
        assert (ROOT / name).is_file()
