"""Every file with a structure has a version of its format, which its reader checks; docs/runs.md lists them all."""

from __future__ import annotations

import hashlib
import json
import os
import re
import shutil
import struct
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
import yaml

from crosschannel import agents
from crosschannel.agents.checkpoints import CHECKPOINT_VERSION
from crosschannel.core.errors import ConfigError, CrosschannelError
from crosschannel.core.files import check_version
from crosschannel.envs.market import Market, MarketConfig, simulate_history
from crosschannel.evaluation.trials.results import VERSION as TRIAL_VERSION
from crosschannel.histories import read_history, write_history
from crosschannel.histories.buckets import manifest
from crosschannel.histories.readers import daily, folder
from crosschannel.pipeline.configuration import CONFIG_VERSION
from crosschannel.pipeline.judgement.comparing import COMPARISON_VERSION
from crosschannel.pipeline.judgement.results import RESULT_VERSION
from crosschannel.pipeline.loop.day_summaries import DAY_VERSION, read_summary
from crosschannel.pipeline.loop.kept.log import KEPT_FOLDER, RECORD
from crosschannel.pipeline.loop.kept.log import VERSION as KEPT_VERSION
from crosschannel.pipeline.loop.policies import FORMAT_VERSION as POLICIES_VERSION
from crosschannel.pipeline.loop.policies import Policies
from crosschannel.pipeline.loop.states import VERSION as STATES_VERSION
from crosschannel.pipeline.procedure.learning import FOLD_VERSION, LEARNED
from crosschannel.pipeline.run_files import read_json, write_json
from crosschannel.pipeline.run_folder import METRICS_VERSION, Run
from crosschannel.pipeline.simulation.market_log import write_market_log
from crosschannel.pipeline.watch.forgetting import FORGOTTEN_VERSION, LEARNED_FILE, policies_that_learned
from crosschannel.pipeline.watch.records import ALERTS_VERSION
from crosschannel.programs import alerts, decide, evaluate, forget, plan, trial, update
from crosschannel.programs.plan import PLAN_VERSION
from tests import ROOT

#: Files without a structure of the package's own: text, tables of text, pages, pictures, locks, TensorBoard's.
OTHERS = (".csv", ".md", ".html", ".lock")
#: What describes the tables in its folder, or in folders below.
DESCRIPTIONS = ("decide.json", "history.yaml", "buckets.json", RECORD)
#: A version that no program writes.
NEWER = 99


@pytest.fixture(scope="module")
def written(small_run: tuple[Path, str], simulated: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with what the programs write: a run and a deployment, and what is found in them later."""
    place = tmp_path_factory.mktemp("written")
    shutil.copytree(small_run[0], place / "run")
    shutil.copytree(simulated / "run", place / "loop" / "run")
    before = Path.cwd()
    os.chdir(place)
    try:
        assert evaluate.main(["run", "--out", "again"]) == 0
        assert evaluate.main(["run", "--compare", "run", "--out", "compared"]) == 0
        assert decide.main(["run", "--out", "decisions"]) == 0
        assert plan.main(["--base-rate", "0.05", "--lift", "0.1", "--out", "plan.json"]) == 0
        write_history(simulate_history(Market(MarketConfig(users=20, days=2)))[0], Path("folder"))
        write_market_log(MarketConfig(users=20, days=2), Path("buckets"), 2, 64)
        os.chdir("loop")
        assert update.main(["run"]) == 0
        assert alerts.main(["run"]) in (0, 5)
        assert trial.main(["--config", "run/config.yaml", "--out", "trial"]) in (0, 5)
        assert forget.main(["run", "--users", str(simulated / "users.csv")]) == 0
        assert update.main(["run"]) == 0
    finally:
        os.chdir(before)
    return place


@pytest.fixture
def place(written: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A copy of it, which a test may spoil."""
    shutil.copytree(written, tmp_path / "written")
    monkeypatch.chdir(tmp_path / "written" / "loop")
    return tmp_path / "written"


def version_in(path: Path) -> Any:
    """The version that a file, or what describes it, gives."""
    if path.suffix == ".json":
        return json.loads(path.read_text())["version"]
    if path.suffix == ".yaml":
        return yaml.safe_load(path.read_text())["version"]
    if path.suffix == ".pt":
        return torch.load(path, weights_only=True)["version"]
    assert path.suffix in (".parquet", ".npz"), f"{path} has a format that docs/runs.md does not list"
    beside = (parent / name for parent in path.parents for name in DESCRIPTIONS)
    return version_in(next(one for one in beside if one.is_file()))


def test_every_file_with_a_structure_has_a_version(written: Path) -> None:
    files = [path for path in written.rglob("*") if path.is_file() and path.parent.name != "tensorboard"]
    checked = [path for path in files if path.suffix not in OTHERS and path.name not in OTHERS]
    assert {path.suffix for path in checked} == {".json", ".yaml", ".pt", ".parquet", ".npz"}
    for path in checked:
        assert type(version_in(path)) is int, path
        assert 1 <= version_in(path) < NEWER, path
    names = {path.name for path in checked}
    assert names >= {"config.yaml", "metrics.json", "comparison.json", "order.json", "current.json", LEARNED_FILE}


def test_the_page_lists_every_version() -> None:
    rows = re.findall(r"^\| (.+?) \| (\d+) \| [^|]+ \|$", (ROOT / "docs" / "runs.md").read_text(), re.M)
    listed = {name: int(version) for row, version in rows for name in re.findall(r"`([^`]+)`", row.split(", for")[0])}
    kinds = {row.split("`")[2].strip(): int(version) for row, version in rows if row.startswith("`history.yaml`")}
    assert kinds == {
        "of a folder, for its tables too": folder.FORMAT_VERSION,
        "of a log by day, for its tables too": daily.FORMAT_VERSION,
    }
    assert {name: version for name, version in listed.items() if name not in ("history.yaml", "version")} == {
        "config.yaml": CONFIG_VERSION,
        **dict.fromkeys(("checkpoint.pt", "policy.pt", "policies/*.pt", "learning/*.pt"), CHECKPOINT_VERSION),
        **dict.fromkeys(("learning/fitted.pt", "learning/last.pt"), STATES_VERSION),
        "metrics.json": METRICS_VERSION,
        "evaluation.json": RESULT_VERSION,
        "comparison.json": COMPARISON_VERSION,
        LEARNED: FOLD_VERSION,
        f"{KEPT_FOLDER}/{RECORD}": KEPT_VERSION,
        **dict.fromkeys(("policies/current.json", "policies/order.json", "policies/<version>.json"), POLICIES_VERSION),
        "alerts.json": ALERTS_VERSION,
        "forgotten.json": FORGOTTEN_VERSION,
        "decide.json": DAY_VERSION,
        "trial.json": TRIAL_VERSION,
        "plan --out FILE": PLAN_VERSION,
        "buckets.json": manifest.FORMAT_VERSION,
    }


def give(path: Path, version: int | None) -> None:
    """Change the version of a file as its writer would, or take it away."""
    if path.suffix == ".pt":
        state = torch.load(path, weights_only=True)
        torch.save(state | {"version": version}, path)
        data = path.read_bytes()[:-2] + struct.pack("<H", 71)
        path.write_bytes(data + b"sha256:" + hashlib.sha256(data).hexdigest().encode())
        return
    content = yaml.safe_load(path.read_text())  # JSON is YAML
    content = {key: value for key, value in content.items() if key not in ("version", "checksum")}
    content = content if version is None else {"version": version, **content}
    if path.name in ("trial.json", "buckets.json"):
        path.write_text(json.dumps(content))
    elif path.suffix == ".json":
        write_json(content, path)
    else:
        path.write_text(yaml.safe_dump(content))


def a_day(place: Path) -> Path:
    return next((place / "decisions").glob("2*"))


def read_trial(place: Path) -> object:
    return trial.main(["--config", "run/config.yaml", "--out", "next", "--previous", "trial/trial.json"])


#: Where a file is in the folder, and what reads it.
READERS: dict[str, tuple[str, Callable[[Path], object]]] = {
    "configuration": ("run/config.yaml", lambda place: Run.open(place / "run")),
    "metrics": ("run/metrics.json", lambda place: Run.open_ended(place / "run")),
    "policy": ("run/policy.pt", lambda place: agents.load_policy(place / "run" / "policy.pt")),
    "checkpoint": ("run/checkpoint.pt", lambda place: agents.load_agent(place / "run" / "checkpoint.pt")),
    "fit": ("loop/run/learning/fitted.pt", lambda place: agents.load_fit(place / "loop/run/learning/fitted.pt")),
    "evaluation": ("run/evaluation.json", lambda place: Run.open_ended(place / "run").stored_result()),
    "policy in use": ("loop/run/policies/current.json", lambda place: Policies(place / "loop" / "run").current),
    "order of policies": ("loop/run/policies/order.json", lambda place: Policies(place / "loop" / "run").versions),
    "forgotten": ("loop/run/forgotten.json", lambda place: policies_that_learned(place / "loop" / "run")),
    "day": ("decisions/*/decide.json", lambda place: read_summary(a_day(place))),
    "trial": ("loop/trial/trial.json", read_trial),
    "folder": ("folder/history.yaml", lambda place: read_history(place / "folder")),
    "log by day": ("loop/run/log/history.yaml", lambda place: read_history(place / "loop" / "run" / "log")),
    "buckets": ("buckets/buckets.json", lambda place: read_history(place / "buckets")),
}
#: Files that had no version before they had version 1.
WITHOUT = ("configuration", "metrics", "policy in use", "order of policies")


@pytest.mark.parametrize("kind", READERS)
def test_a_newer_version_is_one_error_that_names_the_file_and_the_version(kind: str, place: Path) -> None:
    name, read = READERS[kind]
    (path,) = place.glob(name)
    give(path, NEWER)
    with pytest.raises(CrosschannelError) as error:
        read(place)
    assert path.name in str(error.value)
    assert "version" in str(error.value)
    assert len(str(error.value).splitlines()) == 1


@pytest.mark.parametrize("kind", WITHOUT)
def test_a_file_from_before_it_had_a_version_is_read_as_version_1(kind: str, place: Path) -> None:
    name, read = READERS[kind]
    before = read(place)
    give(place / name, None)
    assert read(place) == before


def test_a_version_of_another_kind_is_refused(tmp_path: Path) -> None:
    assert check_version(None, 3, "file") == 1
    assert check_version(3, 3, "file") == 3
    for wrong in (0, -1, "2", 1.0, True, [1]):
        with pytest.raises(ConfigError, match=r"file: the version .* is not a whole number from 1 on"):
            check_version(wrong, 3, "file")
    write_json({"version": 4}, tmp_path / "a.json")
    with pytest.raises(ConfigError, match=r"a\.json: the file has version 4 .* versions up to 3: a newer crosschannel"):
        read_json(tmp_path / "a.json", "", 3)
