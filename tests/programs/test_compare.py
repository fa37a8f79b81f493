"""One policy against another: `evaluate RUN --compare RUN` on real runs, and what cannot be compared."""

from __future__ import annotations

import json
import shutil
import sys
from pathlib import Path

import numpy as np
import pytest

from crosschannel.core import ConfigError
from crosschannel.pipeline import TrainingData, prepare
from crosschannel.pipeline.command_line import UsageError
from crosschannel.pipeline.configuration import override, write_config
from crosschannel.pipeline.judgement.comparing import aligned
from crosschannel.pipeline.run_folder import Run
from crosschannel.programs import evaluate
from tests import ROOT
from tests.programs.samples import QUICK, run_here


@pytest.fixture(scope="module")
def runs(small_run, tmp_path_factory) -> dict[str, Path]:
    """A run, one with another seed, one with another reward, and a copy whose configuration names another log."""
    folder = tmp_path_factory.mktemp("compared")
    for name, flag in {"other_seed": "--seed=3", "other_reward": "--reward.post=2d"}.items():
        run_here("train.py", *QUICK, flag, "--out", name, cwd=folder)
    copy = Path(shutil.copytree(small_run[0], folder / "other_log"))
    write_config(override(Run.open(copy).config, {"history.market.seed": 5}), copy / "config.yaml")
    return {"run": small_run[0], **{name: folder / name for name in ("other_seed", "other_reward", "other_log")}}


@pytest.fixture(autouse=True)
def started_as_a_script(monkeypatch, tmp_path):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "argv", [str(ROOT / "evaluate.py")])


def prepared(path: Path) -> TrainingData:
    run = Run.open_ended(path)
    return prepare(run.config, run.trained_with("policy").features)


def test_a_policy_is_worth_as_much_as_itself(runs, capsys):
    run = str(runs["run"])
    written = (runs["run"] / "evaluation.json").read_bytes()
    assert evaluate.main([run, "--compare", run, "--out", "found"]) == 0
    found = json.loads(Path("found/comparison.json").read_text())
    assert found["difference"] == {"point": 0.0, "low": 0.0, "high": 0.0, "se": 0.0}
    assert (found["identified"], found["reason"], found["ess"]) == (True, None, 0.0)
    assert "+0 [0, 0]" in capsys.readouterr().out
    # Nothing of the run is written, and nothing is overwritten unless asked for.
    assert (runs["run"] / "evaluation.json").read_bytes() == written
    assert [path.name for path in Path("found").iterdir()] == ["comparison.json"]
    with pytest.raises(UsageError, match=r"comparison\.json"):
        evaluate.main([run, "--compare", run, "--out", "found"])


def test_users_that_trained_one_of_the_policies_do_not_count(runs):
    """Both spellings of the command; the two runs divide the users differently."""
    one, other = runs["run"], runs["other_seed"]
    free = ["--evaluation.min-ess=1", "--evaluation.min-users=2", "--evaluation.max-unsupported-mass=1"]
    assert evaluate.main(["--compare", str(other), str(one), *free, "--out", "found"]) == 0
    found = json.loads(Path("found/comparison.json").read_text())
    data, others = prepared(one), prepared(other)
    both = data.rows("test") & others.rows("test")
    assert 0 < both.sum() < data.rows("test").sum()
    rewarded = np.zeros(len(both), dtype=bool)
    rewarded[np.flatnonzero(data.rows("test"))] = data.test.rewards.identified
    assert found["decisions"] == (both & rewarded).sum()
    assert found["users"] == len(np.unique(data.history.decisions.user[both & rewarded]))
    assert f"of {one} minus that of {other}" in found["estimand"]
    assert found["identified"]
    assert found["difference"]["low"] < found["difference"]["point"] < found["difference"]["high"]


def test_what_is_not_identified_says_why(runs, capsys):
    evaluate.main(
        [str(runs["run"]), "--compare", str(runs["other_seed"]), "--evaluation.min-ess=1e6", "--out", "found"]
    )
    found = json.loads(Path("found/comparison.json").read_text())
    assert found["difference"] is None
    assert not found["identified"]
    assert found["reason"] in capsys.readouterr().out


def test_runs_that_cannot_be_compared(runs):
    run = str(runs["run"])
    with pytest.raises(ConfigError, match=r"different logs: .* --history\.path"):
        evaluate.main([run, "--compare", str(runs["other_log"])])
    with pytest.raises(ConfigError, match=r"different settings of `reward`"):
        evaluate.main([run, "--compare", str(runs["other_reward"])])
    with pytest.raises(ConfigError, match="is not a run"):
        evaluate.main([run, "--compare", "nothing"])
    with pytest.raises(UsageError, match="leave out --compare"):
        evaluate.main([run, "--compare", run, "--gate"])


def test_policies_are_aligned_by_decision():
    own, other = np.arange(4.0)[:, None] * np.ones((4, 2)), 10 + np.arange(3.0)[:, None] * np.ones((3, 2))
    keys, other_keys = np.array([1, 3, 5, 7], dtype=np.uint64), np.array([3, 4, 7], dtype=np.uint64)
    found = aligned([own], [other], keys, other_keys)
    assert found[0][:, 0].tolist() == [0.0, 10.0, 2.0, 12.0]
    assert own[:, 0].tolist() == [0.0, 1.0, 2.0, 3.0]
    back = aligned([own[::-1]], [other[::-1]], keys[::-1], other_keys[::-1])
    assert back[0][:, 0].tolist() == [12.0, 2.0, 10.0, 0.0]
