"""Exports: Minari episodes are what the env replays; bandit feedback has the documented keys, shapes and weights."""

from __future__ import annotations

import json
import sys
import warnings

import numpy as np
import pytest

from crosschannel.agents.base import Observations
from crosschannel.agents.baselines import Uniform
from crosschannel.core.errors import ConfigError
from crosschannel.envs.replay.env import CrossChannelReplay
from crosschannel.envs.replay.exports import to_bandit_feedback, to_minari
from crosschannel.envs.replay.log import ReplayLog
from crosschannel.histories.features import ContextFeatures
from tests.envs.replay.samples import rewards_of, sample_history, sample_log
from tests.envs.wrappers.samples import LOG
from tests.samples import MODULES

HOLES = sample_log(1, known=0.5)


@pytest.fixture
def minari(tmp_path, monkeypatch):
    monkeypatch.setenv("MINARI_DATASETS_PATH", str(tmp_path))
    pytest.importorskip("h5py", reason="Minari's storage is not installed")
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # Minari recommends an author and a permalink
        yield pytest.importorskip("minari", reason="Minari is not installed")


def test_minari_episodes_are_the_env_s(minari):
    to_minari(LOG, "crosschannel/test-v0", author="nobody")
    dataset = minari.load_dataset("crosschannel/test-v0")
    assert dataset.total_episodes == LOG.n_users
    assert dataset.total_steps == len(LOG)
    env = CrossChannelReplay(LOG)
    assert dataset.observation_space == env.observation_space
    assert dataset.action_space == env.action_space
    gone = 0
    for episode in dataset:
        observation, _ = env.reset(seed=0, options={"user": LOG.user_ids[episode.id]})
        for t in range(len(episode.rewards)):
            for name in ("context", "action_mask"):
                assert np.array_equal(episode.observations[name][t], observation[name])
                assert episode.observations[name].dtype == observation[name].dtype
            assert episode.actions[t] in env.action_space
            observation, reward, terminated, truncated, info = env.step(episode.actions[t])
            assert info["matched"]
            assert np.array_equal(info["executed_action"], episode.actions[t])
            got = (episode.rewards[t], episode.terminations[t], episode.truncations[t])
            assert got == (reward, terminated, truncated)
            told = {name: values[t] for name, values in episode.infos.items()}
            assert told["joint"] == info["propensity"]
            assert np.array_equal(told["propensity"], info["propensities"])
            assert told["keys"] == info["key"]
            for name in ("se", "available_at", "decision_row"):
                assert told[name] == info[name]
        assert terminated or truncated
        for name in ("context", "action_mask"):
            assert np.array_equal(episode.observations[name][-1], observation[name])
        gone += terminated
    assert 0 < gone < LOG.n_users


def test_a_minari_data_set_says_what_it_is(minari):
    dataset = to_minari(LOG, "crosschannel/labelled-v0", algorithm_name="ours")
    description = json.loads(dataset.storage.metadata["description"])
    assert description["propensity_source"] == "logged"
    assert description["modules"] == MODULES.to_dict()
    assert "logged policy" in description["rewards"]
    assert dataset.storage.metadata["algorithm_name"] == "ours"


def test_without_minari_the_error_names_the_command(monkeypatch):
    monkeypatch.setitem(sys.modules, "minari", None)
    with pytest.raises(ConfigError, match=r"pip install 'crosschannel\[minari\]'"):
        to_minari(LOG, "crosschannel/test-v0")


@pytest.mark.parametrize("export", [to_bandit_feedback, lambda log: to_bandit_feedback(log, "channel")])
def test_unknown_propensities_are_refused(export):
    with pytest.raises(ConfigError, match="lacks the propensities of"):
        export(HOLES)


def test_minari_refuses_unknown_propensities(minari):
    with pytest.raises(ConfigError, match="lacks the propensities of"):
        to_minari(HOLES, "crosschannel/holes-v0")
    assert list(minari.list_local_datasets()) == []


@pytest.mark.parametrize("module", [None, "channel", "offer"])
def test_bandit_feedback_has_the_documented_keys_and_shapes(module):
    """What `obp.utils.check_bandit_feedback_inputs` asks for; the package itself refuses Python 3.11."""
    feedback = to_bandit_feedback(LOG, module)
    n, actions = feedback["n_rounds"], feedback["n_actions"]
    assert type(n) is type(actions) is int
    assert {"n_rounds", "n_actions", "action", "position", "reward", "pscore", "context", "action_context"} <= set(
        feedback
    )
    for name in ("action", "position", "reward", "pscore"):
        assert feedback[name].shape == (n,)
    assert feedback["context"].shape == (n, LOG.context.shape[1])
    assert feedback["action_context"].shape[0] == actions
    assert feedback["action_context"].ndim == 2
    for name in ("action", "position"):
        assert np.issubdtype(feedback[name].dtype, np.integer)
        assert feedback[name].min() >= 0
    assert feedback["action"].max() < actions
    assert feedback["position"].max() == 0
    assert ((feedback["pscore"] > 0) & (feedback["pscore"] <= 1)).all()
    assert np.isfinite(feedback["reward"]).all()
    assert feedback["action_mask"].shape == (n, actions)
    assert (feedback["propensity_source"] == "logged").all()


def test_whole_actions_are_numbered_as_the_composites():
    feedback = to_bandit_feedback(LOG)
    assert feedback["n_actions"] == 5
    assert np.array_equal(MODULES.joint_actions[feedback["action"]], LOG.actions)
    assert np.array_equal(feedback["pscore"], LOG.joint)
    assert np.array_equal(feedback["reward"], LOG.rewards)
    # channel one-hot, then offer; sending nothing has no offer.
    assert feedback["action_context"].tolist() == [
        [1, 0, 0, 0, 0],
        [0, 1, 0, 1, 0],
        [0, 1, 0, 0, 1],
        [0, 0, 1, 1, 0],
        [0, 0, 1, 0, 1],
    ]


def test_a_later_module_s_rounds_are_the_slots_with_a_message():
    channel, offer = to_bandit_feedback(LOG, "channel"), to_bandit_feedback(LOG, "offer")
    sent = LOG.actions[:, 0] > 0
    assert channel["n_rounds"] == len(LOG)
    assert offer["n_rounds"] == sent.sum() < len(LOG)
    assert np.array_equal(offer["action"], LOG.actions[sent, 1])
    assert np.array_equal(offer["pscore"], LOG.propensity[sent, 1])
    assert np.array_equal(offer["user"], LOG.user[sent])
    with pytest.raises(ConfigError, match="name one of"):
        to_bandit_feedback(LOG, "colour")


def test_importance_weighting_of_the_feedback_is_that_of_the_log():
    """An IPS value as the pipeline forms it, (n, A) probabilities at the actions, equals the log's own weights."""
    probabilities = Uniform(MODULES, LOG.context.shape[1]).action_probabilities(
        Observations(LOG.context, LOG.action_mask)
    )
    feedback = to_bandit_feedback(LOG)
    dist = MODULES.all_joint_probabilities(probabilities)
    assert np.allclose(dist.sum(1), 1.0)
    assert dist[~feedback["action_mask"]].max() == 0.0
    weights = dist[np.arange(len(LOG)), feedback["action"]] / feedback["pscore"]
    own = MODULES.chosen_probabilities(probabilities, LOG.actions).prod(1) / LOG.joint
    assert np.allclose(weights, own, rtol=1e-12, atol=0)


def test_estimated_propensities_are_labelled():
    history = sample_history()
    d = history.decisions
    estimated = history.with_propensities(d.propensity, d.joint, "estimated")
    log = ReplayLog.build(estimated, rewards_of(history), ContextFeatures.fit(history))
    assert (to_bandit_feedback(log)["propensity_source"] == "estimated").all()
