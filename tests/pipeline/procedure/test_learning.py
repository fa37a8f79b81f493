"""Agents of folds are kept: an interruption loses nothing, and what does not fit is learned again or refused."""

from __future__ import annotations

import json
import logging
import shutil
from dataclasses import replace

import pytest

from crosschannel import pipeline
from crosschannel.core.errors import ConfigError
from crosschannel.pipeline.configuration import override
from crosschannel.pipeline.procedure.learning import LEARNED, fold_folder
from crosschannel.pipeline.run_files import learns_alike
from crosschannel.programs.train import learn_fold, make_learner
from tests.pipeline.procedure.samples import small_config, valued

CONFIG = small_config(**{"history.market.users": 160})


@pytest.fixture(scope="module")
def data():
    return pipeline.prepare(CONFIG)


class Counting:
    """Learns folds, counts them, and may be interrupted before one."""

    def __init__(self, stop_at: int = -1) -> None:
        self.learned, self.stop_at = 0, stop_at

    def __call__(self, run, data):
        if self.learned == self.stop_at:
            raise KeyboardInterrupt
        self.learned += 1
        learn_fold(run, data)


def plain(value):
    return json.dumps(value.to_dict(), allow_nan=False)


@pytest.fixture(scope="module")
def once(tmp_path_factory, data):
    """The value found without interruption, and its folder."""
    folder = tmp_path_factory.mktemp("once")
    return plain(valued(folder, CONFIG, data)[0]), folder


@pytest.fixture
def first(once, tmp_path):
    """The same, with a copy of the folder that a test may change."""
    shutil.copytree(once[1], tmp_path / "run")
    return once[0], tmp_path / "run"


def test_an_interruption_loses_no_finished_fold(tmp_path, data, first):
    stopped = Counting(stop_at=2)
    with pytest.raises(KeyboardInterrupt):
        valued(tmp_path / "again", CONFIG, data, stopped)
    resumed = Counting()
    found, _ = valued(tmp_path / "again", CONFIG, data, resumed)
    assert (stopped.learned, resumed.learned) == (2, 1)
    assert plain(found) == first[0]


def test_an_interrupted_agent_resumes_to_the_same_bits(tmp_path, data, monkeypatch):
    """It is interrupted after a checkpoint, within the fold."""
    config = small_config(**{"train.offline_updates": 15, "history.market.users": 160})
    expected, _ = valued(tmp_path / "whole", config, data)
    updates = 0

    def interrupted(run, divided):
        agent_class = type(make_learner(run.config, divided)[1])
        original = agent_class.update

        def update(agent, steps):
            nonlocal updates
            updates += 1
            if updates == 15:
                raise KeyboardInterrupt
            return original(agent, steps)

        with monkeypatch.context() as patch:
            patch.setattr(agent_class, "update", update)
            learn_fold(run, divided)

    with pytest.raises(KeyboardInterrupt):
        valued(tmp_path / "again", config, data, interrupted)
    assert (fold_folder(tmp_path / "again", 0, 3) / "checkpoint.pt").is_file()
    assert plain(valued(tmp_path / "again", config, data)[0]) == plain(expected)


def test_a_finished_fold_keeps_no_rows_of_users(first):
    names = {path.name for path in (first[1] / "procedure").rglob("*") if path.is_file()}
    assert {LEARNED, "policy.pt"} <= names
    assert "checkpoint.pt" not in names


def test_what_evaluates_only_learns_nothing_again(data, first):
    other = override(CONFIG, {"evaluation.min_ess": 1.0, "evaluation.bootstrap_replicates": 50})
    again = Counting()
    valued(first[1], other, data, again)
    assert again.learned == 0


@pytest.mark.parametrize(
    "changes",
    [
        {"train.updates_per_step": 2},
        pytest.param({"seed": 7}, marks=pytest.mark.slow),
        pytest.param({"reward.goals": [{"event": "order:*", "weight": 2.0}]}, marks=pytest.mark.slow),
    ],
    ids=["training", "seed", "reward"],
)
def test_other_settings_learn_again_and_say_so(changes, data, first, caplog):
    changed, again = override(CONFIG, changes), Counting()
    with caplog.at_level(logging.INFO, logger="crosschannel"):
        valued(first[1], changed, replace(data, model=pipeline.prepare(changed).model), again)
    assert again.learned == 3
    assert "is of another log or of other settings: it is learned again" in caplog.text


@pytest.mark.slow
def test_another_log_learns_again(data, first):
    again = Counting()
    valued(first[1], CONFIG, replace(data, fingerprint="0" * 32), again)
    assert again.learned == 3


@pytest.mark.parametrize("file", [LEARNED, "policy.pt"])
@pytest.mark.parametrize("damage", ["edited", "cut"])
def test_edited_files_are_refused_with_what_to_delete(file, damage, data, first):
    path = fold_folder(first[1], 1, 3) / file
    content = path.read_bytes()
    path.write_bytes(content.replace(b"a", b"b", 1) if damage == "edited" else content[: len(content) // 2])
    with pytest.raises(ConfigError, match=r"Delete .*fold_2_of_3, and evaluate again"):
        valued(first[1], CONFIG, data)


def test_the_policy_of_another_fold_is_refused(data, first):
    one, other = (fold_folder(first[1], k, 3) / "policy.pt" for k in (0, 1))
    one.write_bytes(other.read_bytes())
    with pytest.raises(ConfigError, match="is not of the policy in"):
        valued(first[1], CONFIG, data)


@pytest.mark.parametrize(
    ("changes", "alike"),
    [
        ({"evaluation.min_ess": 7.0}, True),
        ({"arms.holdout": 0.1, "device": "cuda", "name": "other"}, True),
        ({"train.num_envs": 7}, False),
        ({"context.windows": ["3d"]}, False),
        ({"agent.settings.floor": 0.4}, False),
    ],
)
def test_what_changes_what_is_learned(changes, alike):
    config = small_config(**{"agent.name": "epsilon_greedy"})
    assert learns_alike(config, override(config, changes)) is alike
