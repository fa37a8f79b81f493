"""The commands of the pages run, in a folder that has what the reader's own would have; so does operations.md's job."""

from __future__ import annotations

import contextlib
import io
import os
import shlex
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pandas as pd
import pytest
import yaml

from crosschannel.__main__ import main
from crosschannel.core import CrosschannelError
from crosschannel.envs.market import Market, MarketConfig, simulate_history
from crosschannel.histories import write_history
from crosschannel.histories.readers.decided.days import decided_days
from tests import ROOT
from tests.docs.pages import Block, command_lines, read_blocks

CONFIGS = ROOT / "tests" / "programs"
#: Exit codes that say what was found, and not that a command is wrong: the gate's, and that of alerts.
FINDINGS = {0, 3, 4, 5}
#: What the pages call the reader's own, and what it is in the folder of these tests; longer names come first.
TRAINED = {
    "--config starbucks_rewards": "--config folder.yaml",
    "--config FILE": "--config folder.yaml",
    "--out FOLDER": "--out other",
    "FOLDER": "log",
    "LOG": "log",
    "runs/TODAY": "runs/trained",
    "runs/YESTERDAY": "runs/earlier",
    "runs/NAME": "runs/trained",
    "2026-11-24T10:05": "2024-01-22T06:00",
    "--name default": "--config folder.yaml --name default",
}
DEPLOYED = {
    "/data/log": "runs/shop/log",
    "/data/decisions": "runs/shop/decisions",
    "--history.decided decisions": "--history.decided runs/shop/decisions",
    "--config shop.yaml --history.path runs/shop/log --out runs/shop": "--config start.yaml --out runs/started",
    "--config FILE": "--config runs/shop/config.yaml",
    "--users FILE": "--users users.csv",
    "--history.path FOLDER": "--history.path runs/shop/log",
    "--history.path LOG": "--history.path runs/shop/log",
    "runs/NAME": "runs/shop",
    "runs/closed_loop": "runs/shop",
    "NOW": "2024-01-09T06:00",
}
#: The pages by what their commands are about. The slow ones run with `-m slow`, for the time of the whole suite.
PAGES = [
    pytest.param("README.md", "starbucks_rewards", TRAINED, id="README.md, a log"),
    pytest.param("README.md", "crosschannel alerts", DEPLOYED, id="README.md, in daily use", marks=pytest.mark.slow),
    pytest.param("docs/operations.md", "", DEPLOYED, id="operations.md"),
    pytest.param("docs/trials.md", "", DEPLOYED, id="trials.md"),
    pytest.param("docs/simulation.md", "", DEPLOYED, id="simulation.md", marks=pytest.mark.slow),
    pytest.param("docs/planning.md", "", TRAINED, id="planning.md", marks=pytest.mark.slow),
    pytest.param("docs/runs.md", "", TRAINED, id="runs.md", marks=pytest.mark.slow),
    pytest.param("docs/report.md", "", TRAINED, id="report.md", marks=pytest.mark.slow),
]
#: Settings that make a command of a page short where the page's own takes minutes.
SHORT = {
    "train": ["--config", str(CONFIGS / "small.yaml")],
    "simulate": ["--config", str(CONFIGS / "closed_loop.yaml"), "--name", "closed_loop"],
}


@contextlib.contextmanager
def inside(folder: Path) -> Iterator[None]:
    with contextlib.chdir(folder), contextlib.redirect_stdout(io.StringIO()), contextlib.redirect_stderr(io.StringIO()):
        yield


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with a log and two runs on it, and a deployment of five days."""
    folder = tmp_path_factory.mktemp("reader")
    small = yaml.safe_load((CONFIGS / "small.yaml").read_text())
    history, _ = simulate_history(Market(MarketConfig(users=400, days=8)))
    small["history"] = {"source": "folder", "path": "log"}
    small["evaluation"].pop("market_users")
    with inside(folder):
        write_history(history, Path("log"))
        Path("folder.yaml").write_text(yaml.safe_dump(small))
        flags = ["--config", "folder.yaml", "--train.offline-updates", "4"]
        assert main(["train", *flags, "--out", "runs/trained"]) == 0
        assert main(["train", *flags, "--agent.settings.exploration-scale", "0.5", "--out", "runs/earlier"]) == 0
        loop = ["--config", str(CONFIGS / "closed_loop.yaml"), "--out", "runs/shop"]
        assert main(["simulate", *loop]) == 0
        start = yaml.safe_load(Path("runs/shop/config.yaml").read_text())
        start["history"]["decided"] = None
        Path("start.yaml").write_text(yaml.safe_dump(start))
        last = pd.read_parquet(decided_days(Path("runs/shop/decisions"))[-1] / "arms.parquet")
        last[["user_id"]].head(3).to_csv("users.csv", index=False)
    return folder


@pytest.fixture
def folder(made: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A copy of it."""
    target = tmp_path / "reader"
    shutil.copytree(made, target, symlinks=True)
    monkeypatch.chdir(target)
    return target


def in_this_folder(command: str, own: dict[str, str]) -> list[str]:
    """Return the arguments of a command of a page, with what stands for the reader's own."""
    for text, here in own.items():
        command = command.replace(text, here)
    _, program, *arguments = shlex.split(command)
    short = SHORT.get(program, []) if not {"--config", "--resume"} & set(arguments) else []
    return [program, *short, *arguments]


def run(arguments: list[str]) -> tuple[int, str]:
    """Run a command in this process; return its exit code and what it printed."""
    shown = io.StringIO()
    with contextlib.redirect_stdout(shown), contextlib.redirect_stderr(shown):
        try:
            code = main(arguments)
        except CrosschannelError as error:
            return 2, f"{shown.getvalue()}\n{error}"
    return code, shown.getvalue()


def blocks_of(page: str, part: str) -> list[Block]:
    """Return the blocks of commands of a page that are run here, which have a part of the text."""
    found = [block for block in read_blocks(ROOT / page) if block.language == "sh" and block.is_run]
    return [block for block in found if part in block.text]


def deployed_names() -> dict[str, str]:
    """Names that a page has an example of, and a deployment others: a decision, and a version of the policy."""
    last = pd.read_parquet(decided_days(Path("runs/shop/decisions"))[-1] / "decisions.parquet")
    return {
        "20261124T100000-1cb0243a4ddeb0be63bcf20ef269f6e0": str(last["decision_id"].iloc[0]),
        "4eabf10b9646": str(last["policy"].dropna().iloc[0]),
    }


@pytest.mark.parametrize(("page", "part", "own"), PAGES)
def test_the_commands_of_a_page_run(page: str, part: str, own: dict[str, str], folder: Path):
    blocks = blocks_of(page, part)
    assert blocks, f"{page} has no block of commands with {part!r}"
    own = own | deployed_names()
    for block in blocks:
        for command in command_lines(block.text):
            if not command.startswith("crosschannel "):
                assert command.startswith("make "), command
                continue
            arguments = in_this_folder(command, own)
            code, shown = run(arguments)
            refused = "--require-gate" in arguments and "verdict" in shown
            assert code in FINDINGS or refused, f"{block.name}: {' '.join(arguments)}\n{shown}"


def test_every_block_of_commands_is_run_or_says_why_not():
    """Blocks of commands without a note are those of the pages above."""
    run_here = [block for param in PAGES for block in blocks_of(*param.values[:2])]
    for path in [*sorted(ROOT.glob("docs/**/*.md")), ROOT / "README.md"]:
        for block in read_blocks(path):
            if block.language == "sh" and block.is_run:
                assert block in run_here, f"{block.name} is run by no test, and does not say why"


SHIM = """#!/bin/sh
exec {python} -m crosschannel "$@"
"""


@pytest.mark.slow
def test_the_daily_job_runs_as_operations_md_shows_it(folder: Path, monkeypatch: pytest.MonkeyPatch):
    """Twice on one day: the second time the day's decisions exist and are kept."""
    (block,) = [one for one in read_blocks(ROOT / "docs" / "operations.md") if one.title == "daily.sh"]
    text = block.text.replace("cd /opt/shop", f"cd {folder}").replace("PATH=/opt/shop/.venv/bin:$PATH\n", "")
    text = text.replace("/data/log", "runs/shop/log").replace("/data/decisions", "runs/shop/decisions")
    text = text.replace("/data/eligible.parquet", "eligible.csv")
    programs = {
        "crosschannel": SHIM.format(python=sys.executable),
        "date": '#!/bin/sh\nexec /bin/date -d 2024-01-09T06:00Z "$@"\n',
        "export_log": "#!/bin/sh\n",
        "export_eligible": "#!/bin/sh\n",
        "send_messages": '#!/bin/sh\ntest -d "$1" && echo sent >> sent.txt\n',
    }
    (folder / "bin").mkdir()
    for name, script in programs.items():
        (folder / "bin" / name).write_text(script)
        (folder / "bin" / name).chmod(0o755)
    users = pd.read_parquet("runs/shop/log/users.parquet")["user_id"]
    pd.DataFrame({"user_id": users, "eligible_channel": "none|email|push"}).to_csv("eligible.csv", index=False)
    monkeypatch.setenv("PATH", f"{folder / 'bin'}:{os.environ['PATH']}")
    monkeypatch.setenv("PYTHONPATH", str(ROOT))
    Path("daily.sh").write_text(text)
    for _ in range(2):
        done = subprocess.run(["sh", "daily.sh"], capture_output=True, text=True)
        assert done.returncode in (0, 5), done.stdout + done.stderr
    decided = pd.read_parquet("runs/shop/decisions/2024-01-09/decisions.parquet")
    assert set(decided["channel"]) <= {"none", "email", "push"}
