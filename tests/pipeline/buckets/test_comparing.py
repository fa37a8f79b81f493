"""Two runs over buckets are compared on one sample of the users that neither has learned from."""

from __future__ import annotations

import json
import shutil
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from crosschannel.core.errors import ConfigError
from crosschannel.histories import write_history
from crosschannel.histories.buckets import write_buckets
from crosschannel.histories.splits import split_users
from crosschannel.pipeline.buckets import training
from crosschannel.pipeline.buckets.passes import Passes
from crosschannel.pipeline.buckets.reading import read_log
from crosschannel.pipeline.configuration import write_config
from crosschannel.pipeline.judgement import comparing
from crosschannel.pipeline.run_files import write_json
from crosschannel.pipeline.run_folder import Run
from crosschannel.programs import evaluate
from tests.pipeline.buckets.samples import configuration, contents, market_log, write_log

HISTORY = market_log()
SEEDS = {"one": 0, "other": 3}


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with two runs, whose seeds split the users in two ways, on a log in 4 buckets; and the log otherwise."""
    folder = write_log(HISTORY, tmp_path_factory.mktemp("compared"), 4)
    write_buckets(HISTORY, folder / "more", 16)
    write_history(HISTORY, folder / "native")
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)
        patch.setattr(training, "_judge", lambda run, *_: write_json({"policy": run._policy_digest()}, run.metrics))
        for name, seed in SEEDS.items():
            training.train_on_buckets(configuration(seed=seed), Path(name), passes=Passes(shows=False))
    return folder


@pytest.fixture(autouse=True)
def there(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(folder)


def compare(tmp_path: Path, *arguments: str) -> dict[str, Any]:
    """What `evaluate --compare` writes."""
    out = tmp_path / "-".join(("out", *arguments)).replace("/", "_")
    assert evaluate.main(["one", "--compare", "other", *arguments, "--out", str(out)]) == 0
    assert [item.name for item in out.iterdir()] == ["comparison.json"]
    content: dict[str, Any] = json.loads((out / "comparison.json").read_text())
    del content["checksum"]
    return content


def test_a_small_log_is_compared_as_a_whole(tmp_path: Path) -> None:
    """The numbers are those of the log in a native folder, to the last digit."""
    before = contents(Path())
    found = compare(tmp_path)
    assert found == compare(tmp_path, "--history.path=native")
    assert found["sample"] is None
    assert found["identified"]
    assert contents(Path()) == before


def test_a_larger_log_is_compared_on_a_sample(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """It is never read as a whole, and the sample does not depend on how the log is divided."""
    tested = [split_users(HISTORY.user_keys, configuration().split.shares, seed) == "test" for seed in SEEDS.values()]
    monkeypatch.setattr(comparing, "prepare", lambda *_: pytest.fail("the log was read as a whole"))
    few = "--evaluation.max-users=40"
    found = compare(tmp_path, few)
    assert found == compare(tmp_path, few, "--history.path=more")
    assert found["users"] <= 40 < (tested[0] & tested[1]).sum()
    assert found["sample"] == "40 of the users that neither has learned from, chosen by a hash (evaluation.max_users)"
    assert f"on {found['sample']}" in capsys.readouterr().out


@pytest.mark.parametrize("most", [10, 40, 150, 10_000])
def test_the_sample_has_the_same_users_for_both_runs(tmp_path: Path, most: int) -> None:
    """As many as there may be, by the smallest hashes; test users of one run alone fill what is left of its sample."""
    configs = [configuration(**{"seed": seed, "evaluation.max_users": most}) for seed in SEEDS.values()]
    parts = [split_users(HISTORY.user_keys, each.split.shares, each.seed) == "test" for each in configs]
    common = HISTORY.user_ids[parts[0] & parts[1]]
    samples, passes = [], Passes(shows=False)
    for k, config in enumerate(configs):
        log = read_log(config, tmp_path / f"{k}", passes, learns=False, beside=configs[1 - k])
        is_test = split_users(log.sample.user_keys, config.split.shares, config.seed) == "test"
        assert is_test.sum() == min(most, parts[k].sum())
        samples.append(set(log.sample.user_ids[is_test]) & set(common))
    assert samples[0] == samples[1]
    assert len(samples[0]) == min(most, len(common))


def test_runs_on_another_log_are_refused(tmp_path: Path) -> None:
    write_buckets(HISTORY.select_users(np.arange(HISTORY.n_users) > 5), tmp_path / "log", 4)
    shutil.copytree("one", tmp_path / "run")
    config = Run.open(Path("one")).config
    moved = replace(config, history=config.history.with_path(tmp_path / "log"))
    write_config(moved, tmp_path / "run" / "config.yaml")
    with pytest.raises(ConfigError, match="have different logs: name the one to compare them on"):
        evaluate.main(["one", "--compare", str(tmp_path / "run")])
