"""Q-learning finds what a decision costs later: a small problem of fatigue whose answer is known by enumeration."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from crosschannel.agents import Batch, Observations, make_agent
from crosschannel.agents.bootstrapped_q import BootstrappedQ
from crosschannel.agents.ensemble.noise import noise_factor
from crosschannel.core.action_space import ActionSpace, Module
from crosschannel.core.errors import ConfigError, InputError
from crosschannel.core.hashing import mix
from tests.agents.samples import everything, random_batch

pytestmark = pytest.mark.numerics

PUSH = ActionSpace([Module("channel", ("none", "push"))])
LEVELS, GAMMA = 4, 0.9
EARNS = np.array([1.0, 0.7, 0.1, 0.05])


def following(level: np.ndarray, sent: np.ndarray) -> np.ndarray:
    """A message tires by one level, a slot of rest recovers one."""
    return np.clip(np.where(sent, level + 1, level - 1), 0, LEVELS - 1)


def optimum(gamma: float) -> np.ndarray:
    """Values (level, action) of the best policy, by value iteration."""
    q = np.zeros((LEVELS, 2))
    for _ in range(500):
        for action in (0, 1):
            later = following(np.arange(LEVELS), np.full(LEVELS, action == 1))
            q[:, action] = action * EARNS + gamma * q[later].max(1)
    return q


def one_hot(level: np.ndarray) -> np.ndarray:
    return np.eye(LEVELS, dtype=np.float32)[level][:, 1:]


def log_of(n: int, seed: int, noise: float = 1.0, end: float = 0.0) -> Batch:
    """Slots of a policy that sends half of the time, a share of which is followed by nothing known."""
    rng = np.random.default_rng(seed)
    level, sent = rng.integers(0, LEVELS, n), rng.random(n) < 0.5
    reward = sent * EARNS[level] + noise * rng.normal(size=n)
    steps = np.where(rng.random(n) < end, np.nan, 1.0)
    mask = everything(n, PUSH)
    return Batch(
        observations=Observations(one_hot(level), mask),
        actions=sent[:, None].astype(np.int64),
        rewards=reward,
        se=np.ones(n),
        keys=mix(np.arange(n, dtype=np.uint64) + np.uint64(seed * 10**9)),
        next_observations=Observations(one_hot(following(level, sent)), mask),
        steps_to_next=steps,
        terminal=np.zeros(n, dtype=bool),
    )


def learned(batch: Batch, seed: int = 0, **settings: object) -> BootstrappedQ:
    agent = make_agent("bootstrapped_q", PUSH, LEVELS - 1, {"discount": GAMMA, "sweeps": 60} | settings, seed)
    assert isinstance(agent, BootstrappedQ)
    agent.observe(batch)
    agent.update(1)
    return agent


EVERY_LEVEL = Observations(one_hot(np.arange(LEVELS)), everything(LEVELS, PUSH))


def gains(agent: BootstrappedQ) -> np.ndarray:
    """What sending gains over not sending at each level (K, LEVELS)."""
    return np.asarray(agent.expected_rewards(EVERY_LEVEL)[0][:, :, 1])


def test_gains_are_those_of_value_iteration() -> None:
    """3 logs of 20,000 slots, noise as large as the largest reward. Within .1 of gains that reach from -.42 to .37."""
    truth = np.diff(optimum(GAMMA), axis=1)[:, 0]
    for seed in range(3):
        found = gains(learned(log_of(20_000, seed), seed)).mean(0)
        np.testing.assert_allclose(found, truth, atol=0.1)


def test_far_sight_sends_less_and_earns_more() -> None:
    """Followed for 200 slots without noise, from no fatigue."""

    def worth(agent: BootstrappedQ) -> tuple[float, int]:
        level, earned, sends = 0, 0.0, 0
        sent = agent.act(EVERY_LEVEL, explore=False).actions[:, 0] == 1
        for _ in range(200):
            earned += float(EARNS[level]) if sent[level] else 0.0
            sends += int(sent[level])
            level = int(following(np.array(level), sent[level]))
        return earned, sends

    batch = log_of(20_000, 3)
    far, near = worth(learned(batch)), worth(learned(batch, discount=0.0))
    assert near[1] == 200, "every message earns something"
    assert far[1] == 100
    assert far[0] > 5 * near[0]


def test_without_a_discount_it_is_the_reward_alone() -> None:
    found = gains(learned(log_of(20_000, 1), discount=0.0))
    np.testing.assert_allclose(found.mean(0), EARNS, atol=0.1)


def test_rows_with_an_unknown_future_are_left_out_and_those_without_one_are_not() -> None:
    """Where half of the rows end with the log, values are the same; where users leave, nothing follows."""
    truth = np.diff(optimum(GAMMA), axis=1)[:, 0]
    cut = learned(log_of(40_000, 2, end=0.5))
    np.testing.assert_allclose(gains(cut).mean(0), truth, atol=0.1)
    batch = log_of(20_000, 2)
    gone = replace(batch, terminal=batch.actions[:, 0] == 1)
    # Who gets a message leaves: it gains its reward at once and loses what was to come.
    q = np.zeros(LEVELS)
    for _ in range(500):
        q = np.maximum(EARNS, GAMMA * q[following(np.arange(LEVELS), np.zeros(LEVELS, dtype=bool))])
    waiting = GAMMA * q[following(np.arange(LEVELS), np.zeros(LEVELS, dtype=bool))]
    np.testing.assert_allclose(gains(learned(gone)).mean(0), EARNS - waiting, atol=0.12)


def test_slots_in_between_discount() -> None:
    """What follows two slots later counts gamma squared."""
    batch = log_of(20_000, 4)
    twice = gains(learned(replace(batch, steps_to_next=np.full(len(batch), 2.0)))).mean(0)
    np.testing.assert_allclose(twice, np.diff(optimum(GAMMA**2), axis=1)[:, 0], atol=0.1)


def test_members_differ_and_more_rows_bring_them_together() -> None:
    few, many = (gains(learned(log_of(n, 5))).std(0, ddof=1).mean() for n in (500, 20_000))
    assert few > 3 * many
    assert many > 0


def test_it_does_not_matter_in_which_order_rows_come() -> None:
    batch = log_of(2000, 6)
    a, b = learned(batch), learned(batch[np.random.default_rng(0).permutation(2000)])
    np.testing.assert_allclose(gains(a), gains(b), atol=1e-8)


def test_what_follows_must_be_handed_over() -> None:
    batch = log_of(10, 0)
    agent = make_agent("bootstrapped_q", PUSH, LEVELS - 1)
    with pytest.raises(ConfigError, match="provide `next_observations`, `steps_to_next` and `terminal` in the batch"):
        agent.observe(replace(batch, next_observations=None, steps_to_next=None, terminal=None))
    wrong = replace(batch, steps_to_next=np.array([1.0] * 9 + [-1.0]))
    with pytest.raises(InputError, match=r"column 'steps_to_next', row 10, value -1\.0"):
        agent.observe(wrong)
    with pytest.raises(ConfigError, match="contexts have 4 features"):
        agent.observe(replace(batch, next_observations=random_batch(10).observations))


def test_members_stray_as_far_as_the_estimates_err() -> None:
    """40 logs of 500 slots, discount 0: the members' deviation is that of the best estimate over logs, within a third.

    Each is known to about a sixth: 40 logs of 3 levels that are nearly independent.
    """
    found = [gains(learned(log_of(500, seed), seed, discount=0.0, members=30)) for seed in range(40)]
    believed = np.sqrt(np.mean([each.var(0, ddof=1) for each in found]))
    errs = np.sqrt(np.mean([(each.mean(0) - EARNS) ** 2 for each in found]))
    assert 0.67 < believed / errs < 1.5


def test_slots_of_noisy_contexts_count_for_less() -> None:
    """At three of four levels rewards vary a tenth as much: their rows weigh at least twice as much."""
    batch = log_of(20_000, 7, noise=0.0)
    loud = batch.observations.context.sum(1) == 0
    noise = np.random.default_rng(0).standard_normal(20_000) * np.where(loud, 3.0, 0.3)
    agent = learned(replace(batch, rewards=batch.rewards + noise), discount=0.0)
    weight = agent._weights(noise_factor(agent._rows.context, agent._noisiness)).numpy()
    assert weight[~loud].mean() > 2 * weight[loud].mean()
