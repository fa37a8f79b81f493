"""Propensities that are not of their log: nothing that is weighted by them is reported, by any program."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import yaml

import crosschannel
from crosschannel.core.action_space import ActionSpace, Module
from crosschannel.core.errors import InputError, NotIdentified
from crosschannel.core.times import DAY, HOUR
from crosschannel.evaluation import text_table
from crosschannel.histories.history import History
from crosschannel.histories.readers.folder import write_history
from crosschannel.programs import effects

START = np.datetime64("2024-03-04T06:00", "us").astype(np.int64)
MODULES = ActionSpace([Module("channel", ("none", "email"))])


def triggered(users: int = 300, days: int = 14) -> tuple[History, np.ndarray]:
    """Messages answer yesterday's orders with known chances, and have no effect.

    Returns the log with the right propensities, and the probability of a message at each decision (n,).
    """
    rng = np.random.default_rng(0)
    orders = rng.random((users, days)) < 0.4
    before = np.concatenate([np.zeros((users, 1), dtype=bool), orders[:, :-1]], axis=1)
    chance = np.where(before, 0.7, 0.2)
    sent = rng.random((users, days)) < chance
    user, day = (a.ravel() for a in np.meshgrid(np.arange(users), np.arange(days), indexing="ij"))
    buyer, at = np.nonzero(orders)
    decisions = pd.DataFrame(
        {
            "decision_id": np.arange(len(user)),
            "user_id": user,
            "time": (START + day * DAY).astype("datetime64[us]"),
            "channel": np.where(sent.ravel(), "email", "none"),
            "propensity": np.where(sent, chance, 1 - chance).ravel(),
        }
    )
    events = pd.DataFrame(
        {
            "user_id": buyer,
            "time": (START + at * DAY + rng.integers(HOUR, 20 * HOUR, len(at))).astype("datetime64[us]"),
            "event": "order",
        }
    )
    history = History.from_tables(decisions, events, MODULES, span=(int(START) - DAY, int(START) + (days + 1) * DAY))
    return history, chance.ravel()


SETTINGS = {
    "name": "wrong",
    "context": {"windows": ["2d"]},
    "reward": {"goals": [{"event": "order"}], "pre": "1d", "post": "1d", "time_bucket": "1d", "kind": "did"},
    "split": {"train": 0.5, "validation": 0.1, "test": 0.4},
    "agent": {"settings": {"members": 3, "hidden": [8], "batch_size": 64}},
    "train": {"num_envs": 64, "updates_per_step": 1, "offline_updates": 5, "log_every": 5, "checkpoint_every": 10},
    "evaluation": {"bootstrap_replicates": 40, "min_ess": 20, "min_users": 5},
}


def configured(folder: Path, history: History, kind: str = "did", overlap: str = "shared") -> str:
    write_history(history, folder / "log")
    settings = {**SETTINGS, "history": {"source": "folder", "path": str(folder / "log")}, "run_dir": str(folder)}
    settings["reward"] = {**SETTINGS["reward"], "kind": kind, "overlap": overlap}
    (folder / "wrong.yaml").write_text(yaml.safe_dump(settings))
    return str(folder / "wrong.yaml")


def with_p(history: History, p: np.ndarray) -> History:
    return history.with_propensities(p[:, None], p, "logged")


@pytest.mark.parametrize("kind", ["did", "did_dr"])
def test_the_probability_of_sending_on_every_row_is_refused_by_name(kind, tmp_path):
    history, chance = triggered()
    file = configured(tmp_path, with_p(history, chance), kind)
    message = "the probability of sending on every row, also where nothing was sent"
    with pytest.raises(InputError, match=message):
        crosschannel.train(crosschannel.load_config(file))
    with pytest.raises(InputError, match=message):
        effects.main(["--config", file])
    assert not (tmp_path / "wrong").exists()


def test_right_propensities_and_declared_missing_ones_pass(tmp_path, capsys):
    history, chance = triggered()
    file = configured(tmp_path, history, "did_dr")
    assert effects.main(["--config", file, "--by", "all"]) == 0
    assert "propensities: logged" in capsys.readouterr().out
    unknown = np.full((len(chance), 1), np.nan)
    file = configured(tmp_path, history.with_propensities(unknown, unknown[:, 0], "missing"), "did_dr")
    assert effects.main(["--config", file, "--by", "all", "--effects-of", "none"]) == 0
    assert "propensities missing" in capsys.readouterr().out


def test_a_run_that_was_right_does_not_judge_a_log_that_is_wrong(tmp_path):
    history, chance = triggered()
    run = crosschannel.train(crosschannel.load_config(configured(tmp_path, history)))
    write_history(with_p(history, chance), tmp_path / "later")
    with pytest.raises(InputError, match="not those of the log's actions"):
        crosschannel.evaluate(run, tmp_path / "later", out=tmp_path / "judged")
    assert not (tmp_path / "judged").exists()


def test_without_overlap_no_weighted_value_is_identified_anywhere(tmp_path):
    history, chance = triggered()
    ones = with_p(history, np.ones(len(chance)))
    run = crosschannel.train(crosschannel.load_config(configured(tmp_path, ones)))
    result = crosschannel.evaluate(run)
    reason = "the log has no overlap: 100% of the 4,200 decisions at which 'channel' had alternatives"
    for e in result.evaluation.estimates:
        assert not e.identified
        assert e.estimator == "dm" or e.reason.startswith(reason)
    assert result.evaluation.ladder is None
    assert f"not identified ({reason}" in text_table(result.evaluation)
    metrics = json.loads(run.metrics.read_text())
    for entry in metrics["evaluation"]["estimates"]:
        if entry["estimator"] != "dm":
            assert entry["value"] is None
            assert entry["reason"].startswith(reason)
    page = (run.path / "report.html").read_text()
    assert "the log has no overlap" in page
    assert reason in result.history


@pytest.mark.parametrize(("kind", "overlap"), [("did_dr", "shared"), ("did", "exclude")])
def test_rewards_that_are_weighted_by_propensities_need_overlap(kind, overlap, tmp_path):
    history, chance = triggered()
    file = configured(tmp_path, with_p(history, np.ones(len(chance))), kind, overlap)
    with pytest.raises(NotIdentified, match="are not identified: the log has no overlap"):
        crosschannel.train(crosschannel.load_config(file))
    with pytest.raises(NotIdentified, match="are not identified: the log has no overlap"):
        effects.main(["--config", file])


def test_doubly_robust_rewards_need_sending_nothing_to_be_possible(tmp_path):
    """Three actions, and half of the decisions could only choose between two messages."""
    history, _ = triggered()
    rng = np.random.default_rng(0)
    n = len(history.decisions)
    free = rng.random(n) < 0.5
    policy = np.where(free[:, None], [0.4, 0.3, 0.3], [0.0, 0.6, 0.4])
    taken = (rng.random(n)[:, None] > policy.cumsum(1)[:, :-1]).sum(1)
    p = policy[np.arange(n), taken]
    modules = ActionSpace([Module("channel", ("none", "email", "push"))])
    decisions = replace(history.decisions, actions=taken[:, None], propensity=p[:, None], joint=p)
    log = replace(history, modules=modules, decisions=decisions)
    with pytest.raises(NotIdentified, match="'none' of 'channel' was possible in at most"):
        effects.main(["--config", configured(tmp_path, log, "did_dr")])
    assert effects.main(["--config", configured(tmp_path, log, "did")]) == 0
