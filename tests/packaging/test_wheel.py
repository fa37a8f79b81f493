"""The wheel: one top-level package with programs, configurations and types, which stands beside other software."""

from __future__ import annotations

import os
import subprocess
import sys
import tarfile
import zipfile
from pathlib import Path

import pytest

from tests import ROOT


def run(command: list[str], cwd: Path, **environment: str) -> str:
    inherited = {name: value for name, value in os.environ.items() if name not in ("PYTHONPATH", "COV_CORE_SOURCE")}
    done = subprocess.run(
        command,
        cwd=cwd,
        capture_output=True,
        text=True,
        env={**inherited, "OMP_NUM_THREADS": "1", **environment},
    )
    assert done.returncode == 0, f"{command} ended with {done.returncode}:\n{done.stdout}\n{done.stderr}"
    return done.stdout


def checkout(folder: Path) -> Path:
    """A copy of what is tracked, so that building leaves nothing behind in the checkout."""
    names = run(["git", "ls-files", "--cached", "--others", "--exclude-standard"], ROOT).splitlines()
    for name in names:
        source, target = ROOT / name, folder / name
        if not source.is_symlink() and not source.is_file():
            continue
        target.parent.mkdir(parents=True, exist_ok=True)
        if source.is_symlink():
            target.symlink_to(os.readlink(source))
        else:
            target.write_bytes(source.read_bytes())
    return folder


@pytest.fixture(scope="module")
def wheel(tmp_path_factory) -> Path:
    if not (ROOT / ".git").exists():
        pytest.skip("not a checkout: which files belong to the project is not known")
    folder = tmp_path_factory.mktemp("wheel")
    command = [sys.executable, "-m", "pip", "wheel", "--no-deps", "--no-build-isolation", "--no-index", "-q", "-w"]
    run([*command, str(folder), "."], checkout(tmp_path_factory.mktemp("checkout")))
    return next(folder.glob("*.whl"))


@pytest.fixture(scope="module")
def site(wheel: Path, tmp_path_factory) -> Path:
    """A folder with the installed wheel and, beside it, somebody else's package `agents`."""
    folder = tmp_path_factory.mktemp("site")
    command = [sys.executable, "-m", "pip", "install", "--no-deps", "--no-index", "-q", "--target", str(folder)]
    run([*command, str(wheel)], folder)
    (folder / "agents").mkdir()
    (folder / "agents" / "__init__.py").write_text("whose = 'somebody else'\n")
    return folder


def test_the_wheel_has_one_top_level_package_with_all_that_runs(wheel):
    names = zipfile.ZipFile(wheel).namelist()
    assert {name.split("/")[0] for name in names if ".dist-info" not in name} == {"crosschannel"}
    assert len(names) == len(set(names))
    for name in ("py.typed", "__main__.py", "programs/train.py", "programs/decide.py", "configs/market.yaml"):
        assert f"crosschannel/{name}" in names
    sources = [p.relative_to(ROOT) for d in ("core", "agents", "pipeline") for p in (ROOT / d).rglob("*.py")]
    assert all(f"crosschannel/{path.as_posix()}" in names for path in sources)


def test_an_sdist_holds_the_files_behind_the_links(tmp_path):
    if not (ROOT / ".git").exists():
        pytest.skip("not a checkout: which files belong to the project is not known")
    source = checkout(tmp_path / "checkout")
    code = f"from setuptools.build_meta import build_sdist; build_sdist({str(tmp_path)!r})"
    run([sys.executable, "-c", code], source)
    with tarfile.open(next(tmp_path.glob("*.tar.gz"))) as archive:
        names = archive.getnames()
    inside = {name.partition("/")[2] for name in names}
    assert {"crosschannel/core/errors.py", "crosschannel/configs/market.yaml", "pyproject.toml"} <= inside


def test_it_stands_beside_another_package_called_agents(site, tmp_path):
    code = (
        "import crosschannel, agents, gymnasium; from crosschannel.agents import make_agent; "
        "env = gymnasium.make('CrossChannelReplay-v0'); env.reset(seed=0); "
        "print(agents.whose, crosschannel.__version__, make_agent.__module__, crosschannel.__file__)"
    )
    shown = run([sys.executable, "-c", code], tmp_path, PYTHONPATH=str(site))
    assert shown.startswith(f"somebody else {_version()} crosschannel.agents.")
    assert str(site) in shown


def test_the_command_explains_itself_from_an_empty_folder(site, tmp_path):
    shown = run([sys.executable, "-m", "crosschannel", "train", "--help"], tmp_path, PYTHONPATH=str(site))
    assert "--history.path" in shown
    run([str(site / "bin" / "crosschannel"), "--help"], tmp_path, PYTHONPATH=str(site))


@pytest.mark.slow
def test_it_trains_beside_the_openai_agents_sdk_in_a_fresh_environment(wheel, tmp_path):
    """Install both from the package index, and train on the default configuration from an empty folder."""
    environment, empty = tmp_path / "environment", tmp_path / "empty"
    empty.mkdir()
    run([sys.executable, "-m", "venv", str(environment)], tmp_path)
    python = str(environment / "bin" / "python")
    probe = [python, "-m", "pip", "download", "--no-deps", "-q", "-d", str(tmp_path / "probe"), "openai-agents"]
    if subprocess.run(probe, capture_output=True, timeout=120).returncode:
        pytest.skip("no package index answers")
    constraints = str(ROOT / "constraints.txt")
    run([python, "-m", "pip", "install", "-q", "-c", constraints, str(wheel), "openai-agents"], tmp_path)
    code = "import crosschannel, agents; from agents import Agent; from crosschannel.agents import make_agent"
    run([python, "-c", code], empty)
    command = str(environment / "bin" / "crosschannel")
    assert "--history.path" in run([command, "train", "--help"], empty)
    assert "business as usual" in run([command, "train"], empty)
    assert (empty / "runs" / "market" / "metrics.json").is_file()
    code = "import crosschannel, gymnasium; gymnasium.make('CrossChannelReplay-v0').reset(seed=0)"
    run([python, "-c", code], empty)


def _version() -> str:
    namespace: dict[str, str] = {}
    exec((ROOT / "crosschannel" / "version.py").read_text(), namespace)
    return namespace["__version__"]
