"""The wheel: one top-level package with programs, configurations and types, which stands beside other software."""

from __future__ import annotations

import os
import stat
import subprocess
import sys
import sysconfig
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


#: What the package reads beside its modules: types, configurations, the report's page.
DATA = ("py.typed", "configs/*.yaml", "evaluation/report/templates/*.jinja")


def package_files() -> set[str]:
    """Every file of the package: those in `crosschannel/` and those that its links lead to."""
    package = ROOT / "crosschannel"
    tops = [package, *(path for path in package.iterdir() if path.is_dir())]
    found = {path for top in tops for path in (top.glob("*") if top == package else top.rglob("*"))}
    found |= set((package / "programs").glob("*"))
    names = {path.relative_to(package).as_posix() for path in found if path.suffix in (".py", ".pyi")}
    names |= {path.relative_to(package).as_posix() for pattern in DATA for path in package.glob(pattern)}
    return {f"crosschannel/{name}" for name in names}


def content(archive: zipfile.ZipFile) -> dict[str, bytes]:
    return {name: archive.read(name) for name in archive.namelist() if ".dist-info/" not in name}


def test_the_wheel_has_every_file_of_the_package_and_no_other(wheel):
    archive = zipfile.ZipFile(wheel)
    names = archive.namelist()
    assert len(names) == len(set(names))
    inside, wanted = set(content(archive)), package_files()
    assert len(wanted) > 300
    assert {
        "crosschannel/core/errors.py",
        "crosschannel/programs/train.py",
        "crosschannel/configs/market.yaml",
    } <= inside
    assert inside == wanted
    assert not [one.filename for one in archive.infolist() if stat.S_ISLNK(one.external_attr >> 16)]
    for name, data in content(archive).items():
        assert data == (ROOT / name).read_bytes(), name


@pytest.fixture(scope="module")
def sdist(wheel, tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("sdist")
    code = f"from setuptools.build_meta import build_sdist; build_sdist({str(folder)!r})"
    run([sys.executable, "-c", code], checkout(tmp_path_factory.mktemp("source")))
    return next(folder.glob("*.tar.gz"))


def test_an_sdist_holds_the_files_behind_the_links_and_builds_the_same_wheel(wheel, sdist, tmp_path):
    """Without git and without the checkout: what a build from an archive has."""
    with tarfile.open(sdist) as archive:
        members = archive.getmembers()
        archive.extractall(tmp_path, filter="data")
    assert not [one.name for one in members if one.issym() or one.islnk()]
    inside = {one.name.partition("/")[2] for one in members if one.isfile()}
    assert package_files() <= inside
    others = {name for name in inside - package_files() if not name.startswith("crosschannel.egg-info/")}
    assert others == {
        *("CHANGELOG.md", "LICENSE", "MANIFEST.in", "PKG-INFO", "README.md"),
        *("constraints.txt", "pyproject.toml", "setup.cfg"),
    }
    code = f"from setuptools.build_meta import build_wheel; build_wheel({str(tmp_path)!r})"
    run([sys.executable, "-c", code], next(path for path in tmp_path.iterdir() if path.is_dir()))
    again = next(tmp_path.glob("*.whl"))
    assert again.name == wheel.name
    assert content(zipfile.ZipFile(again)) == content(zipfile.ZipFile(wheel))


def test_the_checkers_of_make_dist_accept_both(wheel, sdist, tmp_path):
    for module in ("twine", "check_wheel_contents"):
        pytest.importorskip(module, reason=f"{module} (the extra release) is not installed")
    run([sys.executable, "-m", "twine", "check", "--strict", str(wheel), str(sdist)], tmp_path)
    run([sys.executable, "-m", "check_wheel_contents", str(wheel)], tmp_path)


def test_it_stands_beside_another_package_called_agents(site, tmp_path):
    code = (
        "import crosschannel, agents, gymnasium; from crosschannel.agents import make_agent; "
        "env = gymnasium.make('CrossChannelReplay-v0'); env.reset(seed=0); "
        "print(agents.whose, crosschannel.__version__, make_agent.__module__, crosschannel.__file__)"
    )
    shown = run([sys.executable, "-c", code], tmp_path, PYTHONPATH=str(site))
    assert shown.startswith(f"somebody else {_version()} crosschannel.agents.")
    assert str(site) in shown


@pytest.fixture(scope="module")
def commands(wheel: Path, tmp_path_factory) -> Path:
    """The folder of the commands of a fresh environment: the wheel, and what this one has installed beside it."""
    folder = tmp_path_factory.mktemp("fresh")
    run([sys.executable, "-m", "venv", "--without-pip", str(folder)], folder)
    bin_folder = folder / ("Scripts" if os.name == "nt" else "bin")
    where = "import sysconfig; print(sysconfig.get_path('purelib'))"
    packages = Path(run([str(bin_folder / "python"), "-c", where], folder).strip())
    # A path alone: what an editable installation does on import is not done in the fresh environment.
    (packages / "beside.pth").write_text(sysconfig.get_path("purelib") + "\n")
    install = [sys.executable, "-m", "pip", "--python", str(bin_folder / "python"), "install", "--no-deps"]
    run([*install, "--no-index", "--force-reinstall", "-q", str(wheel)], folder)
    return bin_folder


def test_the_quick_start_runs_from_an_empty_folder(commands, tmp_path):
    """The commands of the README in a smaller market; `-m slow` runs them as they are."""
    crosschannel = str(commands / "crosschannel")
    code = "import crosschannel; print(crosschannel.__file__)"
    assert Path(run([str(commands / "python"), "-c", code], tmp_path).strip()).is_relative_to(commands.parent)
    assert run([crosschannel, "--version"], tmp_path).strip() == f"crosschannel {_version()}"
    assert "crosschannel COMMAND --help" in run([crosschannel, "--help"], tmp_path)
    assert "--history.path" in run([crosschannel, "train", "--help"], tmp_path)
    small = [
        "--history.market.users=300",
        "--history.market.days=14",
        "--agent.name=best_fixed",
        "--train.offline-updates=0",
    ]
    small += ["--evaluation.bootstrap-replicates=40", "--evaluation.market-users=50", "--constraints.cost-events=[]"]
    assert "business as usual" in run([crosschannel, "train", *small], tmp_path)
    run([crosschannel, "evaluate", "runs/market"], tmp_path)
    assert (tmp_path / "runs" / "market" / "report.html").is_file()
    assert [path.name for path in tmp_path.iterdir()] == ["runs"]


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
