"""The Python API: from a log to a judged policy in ten lines, with the same results as the programs."""

from __future__ import annotations

import json
import re

import numpy as np
import pytest

import crosschannel
from crosschannel.core import ConfigError
from crosschannel.evaluation import Evaluation
from crosschannel.histories import write_history
from crosschannel.pipeline import EvaluationResult
from tests import ROOT
from tests.programs.samples import SMALL, run_here


@pytest.fixture(scope="module")
def finished(tmp_path_factory) -> tuple[crosschannel.Config, crosschannel.Run]:
    folder = tmp_path_factory.mktemp("api")
    config = crosschannel.load_config(SMALL[1], {"run_dir": str(folder)})
    return config, crosschannel.train(config)


def test_everything_that_is_public_can_be_imported():
    assert set(crosschannel.__all__) <= set(dir(crosschannel))
    for name in crosschannel.__all__:
        assert getattr(crosschannel, name) is not None


def test_the_readme_snippet_runs(tmp_path, monkeypatch, capsys):
    found = re.search(r"```python\n(.*?)```", (ROOT / "README.md").read_text(), re.DOTALL)
    assert found is not None
    assert len(found[1].strip().splitlines()) <= 10
    monkeypatch.chdir(tmp_path)
    code = found[1].replace('"history.market.users": 2000', '"history.market.users": 400').replace("500}", "100}")
    assert code != found[1]
    exec(compile(code, "README.md", "exec"), {})
    assert "Off-policy estimate, from the log alone" in capsys.readouterr().out
    assert (tmp_path / "runs" / "market" / "report.html").is_file()


def test_the_api_finds_what_the_program_finds(finished, tmp_path):
    _, run = finished
    run_here("train.py", *SMALL, "--run-dir", str(tmp_path), cwd=tmp_path)
    theirs, ours = (json.loads((path / "metrics.json").read_text()) for path in (tmp_path / "market", run.path))
    assert [row["policy"] for row in theirs["truth"]] == [row["policy"] for row in ours["truth"]]
    for one, other in zip(theirs["truth"], ours["truth"], strict=True):
        numbers = {name: value for name, value in one.items() if name != "policy" and value is not None}
        assert numbers == pytest.approx({name: other[name] for name in numbers}, rel=1e-6)


def test_a_stored_result_is_read_back_as_it_was(finished):
    _, run = finished
    result = run.stored_result()
    assert isinstance(result, EvaluationResult)
    assert isinstance(result.evaluation, Evaluation)
    again = EvaluationResult.from_dict(json.loads(json.dumps(result.to_dict())))
    assert again.to_dict() == result.to_dict()
    assert str(again) == str(result)


def test_evaluate_reads_what_train_found_unless_the_settings_differ(finished, caplog, tmp_path):
    config, run = finished
    before = (run.path / "metrics.json").read_bytes()
    with caplog.at_level("INFO", logger="crosschannel"):
        same = crosschannel.evaluate(run)
    assert "has an evaluation of this log, policy and settings" in caplog.text
    assert same.metrics().items() < json.loads(before).items()
    settings = type(config.evaluation)(confidence_level=0.8, market_users=100)
    with pytest.raises(ConfigError, match="need a folder of their own"):
        crosschannel.evaluate(run, settings=settings)
    other = crosschannel.evaluate(run, settings=settings, out=tmp_path / "other")
    assert other.evaluation.settings.confidence_level == 0.8
    assert (run.path / "metrics.json").read_bytes() == before  # what training found stays


def test_evaluate_reads_what_train_found_where_propensities_were_estimated(finished, tmp_path, caplog):
    config, _ = finished
    history = crosschannel.load_history(config)
    unknown = np.full_like(history.decisions.propensity, np.nan)
    write_history(history.with_propensities(unknown, unknown[:, 0], "missing"), tmp_path / "log")
    settings = {"run_dir": str(tmp_path), "history.source": "folder", "history.path": str(tmp_path / "log")}
    settings |= {"agent.name": "best_fixed", "agent.settings": {}, "train.offline_updates": 0}
    run = crosschannel.train(crosschannel.load_config(SMALL[1], settings))
    with caplog.at_level("INFO", logger="crosschannel"):
        crosschannel.evaluate(run)
    assert "has an evaluation of this log, policy and settings" in caplog.text


def test_a_run_is_replaced_only_on_request(finished, tmp_path):
    config, run = finished
    with pytest.raises(ConfigError, match="exists already"):
        crosschannel.train(config, out=run.path)
    (tmp_path / "notes.txt").write_text("not a run")
    with pytest.raises(ConfigError, match="is not a run: --force replaces runs only"):
        crosschannel.train(config, out=tmp_path, force=True)
    assert (tmp_path / "notes.txt").is_file()


def test_rewards_of_a_folder_are_those_of_the_configuration(finished, tmp_path):
    config, _ = finished
    history = crosschannel.load_history(config)
    write_history(history, tmp_path / "log")
    again = crosschannel.load_history(tmp_path / "log")
    one, other = crosschannel.compute_rewards(history, config), crosschannel.compute_rewards(again, config.reward)
    assert one.identified.any()
    np.testing.assert_array_equal(one.reward, other.reward)


@pytest.mark.parametrize(
    ("source", "settings", "message"),
    [
        ("markt", {}, "there is no configuration 'markt'. Did you mean 'market'"),
        ("market", {"tran.num_envs": 3}, "unknown key 'tran'. Did you mean 'train'"),
        ("market", {"train.num_env": 3}, "unknown key 'num_env'. Did you mean 'num_envs'"),
        ("market", {"seed.value": 3}, "'seed' is a setting, not a section"),
        ("market", {"seed": -1}, "seed"),
    ],
)
def test_wrong_settings_are_refused_with_the_nearest_name(source, settings, message):
    with pytest.raises(ConfigError, match=re.escape(message)):
        crosschannel.load_config(source, settings)
