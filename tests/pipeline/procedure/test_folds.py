"""Folds of users are stable, and nothing of a fold reaches the agent or the rewards of another."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from crosschannel import pipeline
from crosschannel.core.errors import ConfigError
from crosschannel.core.hashing import keys
from crosschannel.pipeline.procedure.folds import fold_config, fold_data, folded_data, folds_of_keys
from crosschannel.pipeline.sections.evaluation import ProcedureSettings
from tests.pipeline.procedure.samples import small_config

KEYS = keys(np.array([f"u{i}" for i in range(30_000)], dtype=object))
CONFIG = small_config()


@pytest.fixture(scope="module")
def data():
    return pipeline.prepare(CONFIG)


def pooled(data):
    divided = [fold_data(CONFIG, data, k) for k in range(3)]
    return folded_data(
        CONFIG, data, tuple(each.test for each in divided), tuple(np.flatnonzero(each.rows("test")) for each in divided)
    )


def test_a_users_fold_depends_on_the_id_the_folds_and_the_seed_alone():
    fold = folds_of_keys(KEYS, 5, 0)
    assert (folds_of_keys(KEYS[::-1][:100], 5, 0) == fold[::-1][:100]).all()
    assert (fold != folds_of_keys(KEYS, 5, 1)).mean() == pytest.approx(0.8, abs=0.02)


@pytest.mark.parametrize("folds", [2, 3, 5, 10])
def test_folds_have_equal_shares_and_are_independent_of_the_split(folds):
    """Shares within 4.5 standard errors, and the same among the test users of the run."""
    fold = folds_of_keys(KEYS, folds, 0)
    tested = pipeline.building.split_users(KEYS, {"train": 0.7, "test": 0.3}, 0) == "test"
    for part in (fold, fold[tested]):
        shares = np.bincount(part, minlength=folds) / len(part)
        assert np.abs(shares - 1 / folds).max() < 4.5 * np.sqrt((1 / folds) * (1 - 1 / folds) / len(part))


def test_every_user_judges_in_one_fold_and_teaches_in_the_others(data):
    fold = folds_of_keys(data.history.user_keys, 3, CONFIG.seed)
    for k in range(3):
        divided = fold_data(CONFIG, data, k)
        assert ((divided.part == "test") == (fold == k)).all()
        judges, teachers = (set(split.history.user_ids) for split in (divided.test, divided.train))
        assert not judges & teachers
        assert judges | teachers == set(data.history.user_ids)
        expected = np.isin(data.history.decisions.user, np.flatnonzero(fold == k))
        assert (divided.rows("test") == expected).all()


def test_the_agents_have_the_settings_of_the_run_and_seeds_of_their_own():
    configs = [fold_config(CONFIG, k) for k in range(3)]
    assert len({each.seed for each in configs} | {CONFIG.seed}) == 4
    assert [each.seed for each in configs] == [fold_config(CONFIG, k).seed for k in range(3)]
    for each in configs:
        assert each.split.shares == pytest.approx({"train": 2 / 3, "validation": 0.0, "test": 1 / 3})
        assert replace(each, seed=CONFIG.seed, split=CONFIG.split) == CONFIG


def test_rewards_of_a_fold_rest_on_its_own_controls(data):
    """As those of a run's test users do; and all users together have the rewards of the folds."""
    every = pooled(data)
    rewards = every.test.rewards
    for k in range(3):
        divided = fold_data(CONFIG, data, k)
        own = divided.rows("test")
        np.testing.assert_array_equal(rewards.reward[own], divided.test.rewards.reward)
        np.testing.assert_array_equal(every.folds.fold[own], k)
    whole = every.test.model.fit_transform(data.history).reward
    assert (np.abs(whole - rewards.reward)[rewards.identified] > 1e-9).any(), "controls of all users give others"


def test_a_replicate_fits_the_rewards_of_each_fold_again(data):
    every = pooled(data)
    refit, n = every.test.refit(), len(every.history.decisions)
    np.testing.assert_allclose(refit(np.ones(n)), every.test.rewards.reward, atol=1e-12)
    counts = np.random.default_rng(0).integers(0, 3, data.history.n_users)[data.history.decisions.user].astype(float)
    found = refit(counts)
    only = every.folds.fold == 1
    elsewhere = refit(np.where(only, counts, 1.0))
    np.testing.assert_array_equal(found[only], elsewhere[only])
    np.testing.assert_allclose(elsewhere[~only], every.test.rewards.reward[~only], atol=1e-12)


def test_too_few_users_for_the_folds_are_refused(data):
    many = small_config(**{"evaluation.procedure.folds": 3000})
    with pytest.raises(ConfigError, match=r"400 users, too few for 3000 folds: set `evaluation.procedure.folds`"):
        [fold_data(many, data, k) for k in range(3000)]


@pytest.mark.parametrize("folds", [1, 0, -3])
def test_fewer_than_two_folds_are_refused(folds):
    with pytest.raises(ConfigError, match="each agent needs users to learn from and others to be judged by"):
        ProcedureSettings(folds=folds)
