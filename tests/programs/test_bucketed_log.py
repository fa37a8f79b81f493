"""Programs on a bucketed folder do what they do on the native folder that it was made of."""

from __future__ import annotations

import pytest

from crosschannel.envs.market import Market, MarketConfig, simulate_history
from crosschannel.histories import read_history, write_buckets, write_history
from crosschannel.pipeline import load_config
from crosschannel.pipeline.building import prepare
from crosschannel.pipeline.configuration import override
from crosschannel.programs import effects, trial
from tests.programs.samples import SMALL


@pytest.fixture(scope="module")
def folders(tmp_path_factory):
    folder = tmp_path_factory.mktemp("logs")
    history, _ = simulate_history(Market(MarketConfig(users=300, days=8)))
    write_history(history, folder / "native")
    write_buckets(history, folder / "buckets", 8)
    return folder


def test_effects_are_the_same(folders, capsys):
    shown = []
    for name in ("native", "buckets"):
        assert effects.main([*SMALL, "--history.source", "folder", "--history.path", str(folders / name)]) == 0
        shown.append(capsys.readouterr().out)
    assert "Average effects on the treated" in shown[0]
    (native, report), (buckets, other) = (text.split("\n", 1) for text in shown)
    assert report == other  # the first line says what was read
    assert ": 300 users, " in native
    assert "300 users in 8 buckets, " in buckets


def test_a_trial_is_the_same(folders, tmp_path, capsys):
    arms = read_history(folders / "native").users[["user_id"]].assign(arm=["agent", "holdout"] * 150)
    arms.to_parquet(tmp_path / "arms.parquet")
    shown = []
    for name in ("native", "buckets"):
        log = ["--history.source", "folder", "--history.path", str(folders / name)]
        start = ["--trial.start", "2024-01-20", "--arms", str(tmp_path / "arms.parquet")]
        assert trial.main([*SMALL, *log, *start]) == 0
        shown.append(capsys.readouterr().out)
    assert shown[0] == shown[1]


def test_training_data_are_the_same(folders):
    config = load_config(SMALL[1])
    native, buckets = (
        prepare(override(config, {"history.source": "folder", "history.path": str(folders / name)}))
        for name in ("native", "buckets")
    )
    assert native.fingerprint == buckets.fingerprint
    assert native.train.rewards.reward.tobytes() == buckets.train.rewards.reward.tobytes()
    assert native.train.observations.context.tobytes() == buckets.train.observations.context.tobytes()
