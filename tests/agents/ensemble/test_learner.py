"""Hashed weights, what members believe without data, and what they are measured in."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch

from crosschannel.agents import Batch, EnsembleThompson, EnsembleThompsonSettings, Observations, make_agent
from crosschannel.agents.buffers.buffer import Buffer
from crosschannel.agents.ensemble.learner import Learner
from crosschannel.agents.ensemble.noise import HELD_OUT_SHARE, held_out, signs
from crosschannel.core.action_space import ActionSpace, Module
from crosschannel.core.hashing import mix
from tests.agents.samples import PLAIN, SMALL, everything, observations_of, random_batch

pytestmark = pytest.mark.numerics

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
    assert held.mean() == pytest.approx(HELD_OUT_SHARE, abs=4 * np.sqrt(0.16 / len(KEYS)))
    assert signs(KEYS, 1, seed=3).numpy()[held].mean() == pytest.approx(0.0, abs=4 / np.sqrt(held.sum()))


def test_priors_give_disagreement_where_there_are_no_data() -> None:
    """Of the action that was never taken members keep their opinions; of the one taken often they come to agree.

    The action that was taken has an effect: were there none, the members would learn to expect none of the other.
    """
    agent = ensemble({"members": 10})
    batch = random_batch(8000)
    actions = np.where(batch.actions == 2, 1, batch.actions) * np.array([1, 0])
    rewards = batch.rewards + 0.5 * (actions[:, 0] == 1) * batch.observations.context[:, 0]
    agent.observe(replace(batch, actions=actions, rewards=rewards))
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
    agent = ensemble({"members": 7, "floor": 0.0, "exploration_scale": 0.0})
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
        agent.observe(replace(batch, rewards=rewards, se=se))
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
        agent.observe(replace(batch, rewards=rewards))
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
    agent.observe(replace(batch, rewards=noise, se=np.ones(8000)))
    agent.update(5)
    agent.observe(replace(batch, rewards=noise, se=np.ones(8000), keys=mix(batch.keys)))
    agent.update(5)
    learner = agent._learners[0]
    rows = agent._buffer.rows(False)[:8000]
    weight = learner._row_weights(agent._buffer, rows, agent._buffer["context"][rows])[0].numpy()
    assert weight[~loud].mean() > 3 * weight[loud].mean()


def known_learner(order: np.ndarray) -> tuple[Learner, dict[str, torch.Tensor]]:
    """A learner of 300 rows in some order, whose contexts, errors and noise all differ; and these rows."""
    rng = np.random.default_rng(3)
    n, modules = len(order), ActionSpace([Module("a", ("none", "x", "y"))])
    context = rng.standard_normal((n, 2)).astype(np.float32)
    seen = Observations(context, np.ones((n, 3), dtype=bool))
    se, actions = rng.uniform(0.5, 2.0, n), rng.integers(0, 3, (n, 1))
    batch = Batch(observations=seen, actions=actions, rewards=rng.standard_normal(n), se=se, keys=KEYS[:n])[order]
    buffer = Buffer(2, modules, 1000)
    buffer.add(batch)
    settings = EnsembleThompsonSettings(members=64, hidden=(3,), effect_scale=0.3)
    generator = torch.Generator().manual_seed(int(rng.integers(1000)))
    learner = Learner(2, modules, 0, np.zeros((3, 0)), settings, generator, 5, torch.device("cpu"))
    learner._prior = replace(learner._prior, noise=0.3)
    learner._noisiness = torch.tensor([1.0, -0.5])
    learner._add(buffer, buffer.rows(False))
    columns = {"context": seen.context, "se": se, "action": actions[:, 0]}
    return learner, {name: torch.from_numpy(np.asarray(column)) for name, column in columns.items()}


def test_members_vary_as_the_estimate_does() -> None:
    r"""Their variance at 200 contexts is that of the formula, written out for one dense regression.

    .. math:: \sigma^2 M^{-1} (\sum_i w_i^2 (v_i / p_i) \phi_i \phi_i^\top + \Lambda) M^{-1}

    Of 64 members a variance is known to 18 %; the mean over contexts and actions of different directions to about a
    third of that. What must not go unseen is off by far more: without the noise's deviation by a factor of 3.3, with
    sqrt(1 / p) for sqrt(v / p) by one of 1.7.
    """
    learner, rows = known_learner(np.arange(300))
    scaler = learner._fit_scaler(learner._statistics.sum_folds())

    def parts(x: torch.Tensor, action: torch.Tensor) -> torch.Tensor:
        phi = (learner._features(x).double() - scaler.mean) * scaler.scale
        own = torch.nn.functional.one_hot(action, 3).unsqueeze(2) * phi.unsqueeze(1)
        return torch.cat([phi, own.flatten(1)], 1)

    factor = (rows["context"] @ torch.tensor([1.0, -0.5])).clamp(-3, 3).exp().double()
    p = (1.0 / rows["se"] ** 2).clamp(max=4.0)
    w = (p / factor.sqrt()).clamp(max=4.0)
    phi = parts(rows["context"], rows["action"])
    believed = 1.0 / learner._prior.variance[:, learner._blocks]
    prior = torch.diag(torch.cat([believed[0], *[believed[1]] * 3]))
    bread = torch.linalg.inv(phi.T @ (w[:, None] * phi) + prior)
    covariance = 0.3 * bread @ (phi.T @ ((w**2 * factor / p)[:, None] * phi) + prior) @ bread
    x = torch.randn(200, 2, generator=torch.Generator().manual_seed(1))
    found = learner.values(x, learner.heads[:, 1:]).var(1, correction=0)
    for action in range(3):
        at = parts(x, torch.full((200,), action))
        expected = ((at @ covariance) * at).sum(1)
        assert float((found[action] / expected).mean()) == pytest.approx(1.0, abs=0.25)


def test_members_do_not_depend_on_the_order_of_rows() -> None:
    found = [known_learner(order)[0].heads for order in (np.arange(300), np.random.default_rng(0).permutation(300))]
    torch.testing.assert_close(found[0], found[1], atol=1e-4, rtol=1e-4)
