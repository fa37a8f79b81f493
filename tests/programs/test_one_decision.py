"""A campaign trial with one decision a user, the shape of most public uplift data: effects and a policy."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import yaml

from crosschannel.histories.features import CONSTANT
from crosschannel.pipeline.building import prepare
from crosschannel.pipeline.configuration import read_config
from crosschannel.pipeline.reading import build_history
from crosschannel.programs import train
from crosschannel.reward import make_reward
from crosschannel.reward.effects import TreatmentEffects

EFFECTS = {"Mens E-Mail": 0.08, "Womens E-Mail": 0.03}


@pytest.fixture
def trial(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """3,000 users with one randomised decision on one date, and dates of orders in the days after it."""
    monkeypatch.chdir(tmp_path)
    rng = np.random.default_rng(0)
    actions = np.array(["No E-Mail", *EFFECTS])[rng.integers(0, 3, 3000)]
    rate = 0.1 + np.array([EFFECTS.get(action, 0.0) for action in actions])
    frame = {"decision_id": np.arange(3000), "user_id": np.arange(3000), "time": "2024-05-15T00:00:00Z"}
    pd.DataFrame(frame | {"campaign": actions, "propensity": 1 / 3}).to_csv("decisions.csv", index=False)
    buyer = np.repeat(np.arange(3000), rng.poisson(rate))
    date = pd.Timestamp("2024-05-16") + pd.to_timedelta(rng.integers(0, 10, len(buyer)), unit="D")
    orders = pd.DataFrame({"user_id": buyer, "time": date.strftime("%Y-%m-%d"), "event": "order"})
    orders.to_csv("orders.csv", index=False)
    tables = {
        "decisions": {"path": "decisions.csv"},
        "events": [{"path": "orders.csv"}],
        "modules": [{"name": "campaign", "actions": ["No E-Mail", *EFFECTS]}],
        "span": ["2024-04-01", "2024-06-30"],
        "propensity_source": "by design",
    }
    config = {
        "history": {"source": "tables", "tables": tables},
        "reward": {"goals": [{"event": "order"}], "pre": "14d", "post": "14d"},
        "train": {"num_envs": 256, "updates_per_step": 1, "offline_updates": 20},
        "evaluation": {"bootstrap_replicates": 40},
    }
    Path("trial.yaml").write_text(yaml.safe_dump(config), encoding="utf-8")
    return tmp_path / "trial.yaml"


def test_the_effect_is_the_difference_in_means(trial: Path):
    config = read_config(trial)
    history, _ = build_history(config)
    assert (history.observed_from == history.span[0]).all()
    fitted = TreatmentEffects.fit(make_reward("did", config.reward), history)
    count = np.bincount(history.events.user, minlength=history.n_users)[history.decisions.user]
    action = history.decisions.actions[:, 0]
    for effect in fitted.by_action(history, "campaign"):
        code = history.modules[0].actions.index(effect.label)
        assert effect.value == pytest.approx(count[action == code].mean() - count[action == 0].mean(), abs=1e-9)
    assert prepare(config).features.names == (CONSTANT,)


@pytest.mark.parametrize("kind", ["did", "raw"])
@pytest.mark.parametrize("agent", ["ensemble_thompson", "linear_thompson", "beta_thompson"])
def test_a_policy_learns_from_one_decision_a_user(trial: Path, kind: str, agent: str):
    """Nothing is known about users: the policy sends to nearly all what the trial found best."""
    arguments = ["--config", str(trial), "--reward.kind", kind, "--agent.name", agent, "--out", "out"]
    assert train.main(arguments) == 0
    metrics = json.loads(Path("out/metrics.json").read_text(encoding="utf-8"))
    evaluation = metrics["evaluation"]
    assert evaluation["decisions"] == evaluation["users"] == evaluation["logged_decisions"] > 800
    modelled = next(one for one in evaluation["estimates"] if one["estimator"] == "dm")
    # The policy sends more, and the better e-mail: that is worth more than the log's third of each.
    if agent != "beta_thompson":  # which learns slowly from rewards that are mostly 0
        assert modelled["difference"]["point"] > 0.01
