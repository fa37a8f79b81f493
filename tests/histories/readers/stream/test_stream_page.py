"""The page about event streams: what it shows runs, and prints what it says."""

from __future__ import annotations

import json
import re
from pathlib import Path

import numpy as np
import pytest

from crosschannel.pipeline.building import prepare
from crosschannel.pipeline.configuration import Config, read_config
from crosschannel.pipeline.reading import build_history
from crosschannel.programs import train
from tests import ROOT

PAGE = (ROOT / "docs" / "histories.md").read_text().split("\n## One event stream\n")[1]


def block(kind: str) -> str:
    found = re.search(rf"```{kind}\n(.*?)```", PAGE, re.DOTALL)
    assert found is not None
    return found[1]


@pytest.fixture
def config(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Config:
    monkeypatch.chdir(tmp_path)
    Path("stream.yaml").write_text(block("yaml"))
    exec(compile(block("python"), "docs/histories.md", "exec"), {})
    return read_config(Path("stream.yaml"))


def test_the_stream_is_read_as_the_page_says(config: Config):
    history, _ = build_history(config)
    shown = re.search(r"```text\n(history: .*?)\n```", PAGE, re.DOTALL)
    assert shown is not None
    assert history.summary() == shown[1]


def test_the_rewards_are_what_the_stream_was_made_with(config: Config):
    """E-mails make 0.3 orders, large offers 0.6: within four standard errors of the 1,300 sends that train.

    The controls' error is a third of the sends', and so left out of the tolerance's four.
    """
    prepared = prepare(config)
    actions = prepared.train.history.decisions.actions
    for offer, truth in ((0, 0.3), (1, 0.6)):
        reward = prepared.train.rewards.reward[(actions[:, 0] == 1) & (actions[:, 1] == offer)]
        reward = reward[np.isfinite(reward)]
        assert len(reward) > 500
        assert abs(reward.mean() - truth) < 4 * reward.std() / len(reward) ** 0.5


def test_the_configuration_trains(config: Config):
    assert train.main(["--config", "stream.yaml", "--train.offline-updates", "2"]) == 0
    metrics = json.loads(Path("runs/stream/metrics.json").read_text())
    assert metrics["evaluation"]["propensities"] == "estimated propensities"
