"""Decisions of the holdout are controls of the rewards, and no value of a policy rests on them."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from crosschannel.evaluation import EvaluationSettings, LoggedDecisions, TrajectorySettings, evaluate
from crosschannel.histories import ContextSpec, Goal, write_history
from crosschannel.pipeline import Config, prepare
from crosschannel.pipeline.configuration import EvaluationConfig, HistoryConfig, RewardConfig
from crosschannel.pipeline.judgement.following import episodes
from crosschannel.reward.reason import Reason
from tests.pipeline.loop.samples import daily_log, with_a_holdout


def config_of(folder: Path) -> Config:
    return Config(
        history=HistoryConfig("folder", path=folder),
        reward=RewardConfig(
            goals=(Goal("order"),), pre="1d", post="1d", time_bucket="1d", overlap="shared", min_controls=2
        ),
        context=ContextSpec(events=("visit",)),
    )


@pytest.fixture(scope="module")
def data(tmp_path_factory):
    """A log in which a fifth of the users is held out from the start, with propensity 1 for nothing."""
    history = with_a_holdout(daily_log(300))
    d = history.decisions
    d = replace(d, policy=np.full(len(d), "0123456789ab", dtype=object))
    folder = tmp_path_factory.mktemp("held")
    write_history(replace(history, decisions=d), folder)
    return prepare(config_of(folder))


def test_no_followed_policy_is_valued_at_users_of_the_holdout(data):
    trajectories = TrajectorySettings(slots=2)
    config = replace(config_of(Path("unused")), evaluation=EvaluationConfig(trajectories=trajectories))
    index = episodes(config, data.test)
    d = data.test.history.decisions
    assert len(index.user) > 20
    assert not (d.arm[index.rows[index.rows >= 0]] == "holdout").any()


def test_rewards_of_the_holdout_are_missing_and_the_others_have_them_as_controls(data):
    test = data.test
    held = test.history.decisions.arm == "holdout"
    assert held.sum() > 50
    assert (test.rewards.reason[held & test.outcomes.observed] == Reason.HELD_OUT).all()
    assert not test.rewards.identified[held].any()
    assert test.rewards.identified[~held].mean() > 0.5
    assert (
        test.rewards.counts()["user is held out or waits, and serves as a control"]
        == (test.rewards.reason == Reason.HELD_OUT).sum()
    )
    plain = data.model.fit_outcomes(test.outcomes).transform_outcomes(test.outcomes)
    np.testing.assert_array_equal(test.rewards.reward[~held], plain.reward[~held])
    alone = test.history.select_users(~np.isin(np.arange(test.history.n_users), test.history.decisions.user[held]))
    outcomes = data.model.measure(alone)
    fewer = data.model.fit_outcomes(outcomes).transform_outcomes(outcomes)
    assert plain.n_controls[~held].mean() > fewer.n_controls.mean(), "the holdout serves as controls"
    assert "held out" in test.losses.text("test")


def test_no_estimate_rests_on_the_holdout(data):
    """The estimates are those from the other rows alone, with the same rewards; a refit leaves them out as well."""
    test, modules = data.test, data.history.modules
    held = test.history.decisions.arm == "holdout"
    n = len(held)
    policy = [np.tile([0.5, 0.25, 0.25], (n, 1)), np.full((n, 2), 0.5)]
    policy[0][held] = [1.0, 0.0, 0.0]
    log = LoggedDecisions.from_history(test.history)
    settings = EvaluationSettings(bootstrap_replicates=40)
    found = evaluate(log, policy, test.refit(), rng=np.random.default_rng(0), settings=settings)
    rewards = np.where(held, np.nan, test.rewards.reward)
    kept = ~np.isnan(rewards)
    assert found.decisions == kept.sum()
    assert np.isnan(test.refit()(np.ones(n))[held]).all()
    apart = evaluate(
        log[~held], [p[~held] for p in policy], rewards[~held], rng=np.random.default_rng(0), settings=settings
    )
    points, expected = ([e.value.point for e in each.estimates] for each in (found, apart))
    assert points == pytest.approx(expected, nan_ok=True)
    assert found.logged.point == pytest.approx(float(np.nanmean(rewards)))
    assert modules.names == ("channel", "offer")
