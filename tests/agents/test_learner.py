"""Hashed weights, what members believe without data, and what they are measured in."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from agent_samples import PLAIN, SMALL, everything, observations_of, random_batch

from agents import Batch, EnsembleThompson, make_agent
from agents.learner import HELD_OUT, held_out, signs
from histories.hashing import mix

KEYS = mix(np.arange(20_000, dtype=np.uint64))


def ensemble(settings: dict[str, object] | None = None, seed: int = 0) -> EnsembleThompson:
    agent = make_agent("ensemble_thompson", PLAIN, 4, {**SMALL, **(settings or {})}, seed)
    assert isinstance(agent, EnsembleThompson)
    return agent


def test_signs_belong_to_the_key_not_to_the_row() -> None:
    found = signs(KEYS, 4, seed=3)
    order = np.random.default_rng(0).permutation(len(KEYS))
    np.testing.assert_array_equal(signs(KEYS[order], 4, seed=3), found[order])
    np.testing.assert_array_equal(signs(KEYS[:7], 4, seed=3), found[:7])
    np.testing.assert_array_equal(signs(KEYS, 2, seed=3), found[:, :2])


def test_signs_are_fair_and_independent() -> None:
    found = np.concatenate([signs(KEYS, 64, seed=3), signs(KEYS, 1, seed=4)], 1)
    n = len(KEYS)
    assert set(np.unique(found)) == {-1.0, 1.0}
    np.testing.assert_allclose(found.mean(0), 0.0, atol=5 / np.sqrt(n))
    off = np.corrcoef(found.T)[~np.eye(65, dtype=bool)]
    assert np.abs(off).max() < 5 / np.sqrt(n)  # 2,080 pairs: the largest of them is at 3.9 on average


def test_a_fixed_share_is_held_out_independently_of_the_signs() -> None:
    held = held_out(KEYS, 3).numpy()
    assert held.mean() == pytest.approx(HELD_OUT, abs=4 * np.sqrt(0.16 / len(KEYS)))
    assert signs(KEYS, 1, seed=3).numpy()[held].mean() == pytest.approx(0.0, abs=4 / np.sqrt(held.sum()))


def test_priors_give_disagreement_where_there_are_no_data() -> None:
    """Of the action that was never taken members keep their opinions; of the one taken often they come to agree.

    The action that was taken has an effect: were there none, the members would learn to expect none of the other.
    """
    agent = ensemble({"members": 10})
    batch = random_batch(8000)
    actions = np.where(batch.actions == 2, 1, batch.actions) * np.array([1, 0])
    rewards = batch.rewards + 0.5 * (actions[:, 0] == 1) * batch.observations.context[:, 0]
    agent.observe(Batch(batch.observations, actions, rewards, batch.se, batch.keys))
    agent.update(20)
    seen = observations_of(everything(500, PLAIN), seed=5)
    channel = agent.expected_rewards(seen)[0].std(0).mean(0)
    assert channel[2] > 2 * channel[1]
    assert channel[2] > 0.05


def test_without_any_data_every_action_has_votes_and_the_spread_is_the_plausible_effect() -> None:
    agent = ensemble({"members": 40, "effect_scale": 0.3})
    seen = observations_of(everything(500, PLAIN))
    for estimates, shares in zip(agent.expected_rewards(seen), agent.action_probabilities(seen), strict=True):
        assert 0.3 < estimates.std(0).mean() < 1.0  # three blocks of two parts each: sqrt(6) * 0.3 = 0.73
        assert (shares.mean(0) > 0.5 / shares.shape[1]).all()


def test_the_members_mean_is_the_best_estimate() -> None:
    agent = ensemble({"members": 7, "floor": 0.0, "spread": 0.0})
    agent.observe(random_batch(1000))
    agent.update(5)
    seen = observations_of(everything(300, PLAIN))
    best = agent.act(seen, explore=False).actions[:, 0]
    mean = agent.expected_rewards(seen)[0].mean(0)
    np.testing.assert_allclose(mean[np.arange(300), best], mean.max(1), atol=1e-5)


def test_estimates_follow_the_unit_of_the_reward() -> None:
    """Rewards in cents instead of euros, and a baseline added to all of them, change no decision."""
    seen = observations_of(everything(200, PLAIN))
    batch = random_batch(2000)
    found = []
    for scale, offset in ((1.0, 0.0), (100.0, 500.0)):
        agent = ensemble()
        agent.observe(replace(batch, rewards=scale * batch.rewards + offset, se=scale * batch.se))
        agent.update(30)
        found.append(agent.expected_rewards(seen)[0])
    np.testing.assert_allclose(found[1], 100.0 * found[0] + 500.0, rtol=0.02, atol=0.5)


def test_precise_rows_count_for_more() -> None:
    """Three rows of ten with a third of the error contradict the others: without a cap they would weigh 9 times."""
    batch = random_batch(4000)
    precise = np.arange(4000) % 10 < 3
    rewards = np.where(precise, 1.0, -1.0) * (batch.actions[:, 0] == 1) + 0.1 * batch.rewards
    se = np.where(precise, 0.1, 0.3)
    estimates = []
    for cap in (1.0, 4.0, 100.0):
        agent = ensemble({"precision_cap": cap, "effect_scale": 1.0})
        agent.observe(Batch(batch.observations, batch.actions, rewards, se, batch.keys))
        agent.update(10)
        values = agent.expected_rewards(observations_of(everything(500, PLAIN)))[0].mean((0, 1))
        estimates.append(values[1] - values[0])
    expected = [(0.3 * weight - 0.7) / (0.3 * weight + 0.7) for weight in (1.0, 4.0, 9.0)]
    np.testing.assert_allclose(estimates, expected, atol=0.1)


def test_later_modules_learn_from_sent_rows_only() -> None:
    batch = random_batch(3000)
    sent = batch.actions[:, 0] != 0
    found = []
    for nothing in (0.0, 50.0):
        agent = ensemble()
        rewards = np.where(sent, batch.rewards, nothing)
        agent.observe(Batch(batch.observations, batch.actions, rewards, batch.se, batch.keys))
        agent.update(5)
        found.append(agent.expected_rewards(observations_of(everything(50, PLAIN))))
    np.testing.assert_array_equal(found[0][1], found[1][1])
    assert not np.allclose(found[0][0], found[1][0])


@pytest.mark.parametrize("seed", range(2))
def test_the_ensemble_knows_how_wrong_it_is(seed: int) -> None:
    """Where rewards are nothing but noise, the members' spread is the size of their mean's error."""
    agent = ensemble({"members": 20}, seed)
    agent.observe(random_batch(4000, seed=seed))
    agent.update(1)
    estimates = agent.expected_rewards(observations_of(everything(1000, PLAIN), seed=7))[0]
    contrast = estimates[..., 1:] - estimates[..., :1]
    error = float(np.sqrt(np.square(contrast.mean(0)).mean()))
    spread = float(np.sqrt(contrast.var(0).mean()))
    assert 0.5 < spread / error < 4.0


def test_rows_of_noisy_contexts_count_for_less() -> None:
    """A context whose rewards vary ten times as much is found out, and the weights of its rows fall."""
    agent = ensemble({"floor": 0.0})
    batch = random_batch(8000)
    loud = batch.observations.context[:, 0] > 0
    noise = np.random.default_rng(1).standard_normal(8000) * np.where(loud, 3.0, 0.3)
    agent.observe(Batch(batch.observations, batch.actions, noise, np.ones(8000), batch.keys))
    agent.update(5)
    agent.observe(Batch(batch.observations, batch.actions, noise, np.ones(8000), mix(batch.keys)))
    agent.update(5)
    learner = agent._learners[0]
    rows = agent._buffer.rows(False)[:8000]
    weight = learner._weighed(agent._buffer, rows, agent._buffer["context"][rows])[0].numpy()
    assert weight[~loud].mean() > 3 * weight[loud].mean()
