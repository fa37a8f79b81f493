"""Beta Thompson sampling: its integral against draws, and what it keeps of each user."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from crosschannel.agents import Batch, Observations, make_agent
from crosschannel.agents.beta import BetaThompson, largest_draw
from crosschannel.core.hashing import mix
from tests.agents.samples import PLAIN, everything

pytestmark = pytest.mark.numerics


@given(seed=st.integers(0, 10_000), size=st.integers(1, 6), strength=st.sampled_from([4.0, 30.0, 1000.0]))
@settings(max_examples=30, deadline=None, derandomize=True)
def test_the_integral_is_the_frequency_of_the_largest_draw(seed: int, size: int, strength: float) -> None:
    """Parameters of 1 or more, as a prior gives them. 100,000 draws err by .0016 at most, the grid by a little more."""
    rng = np.random.default_rng(seed)
    mean = np.clip(0.5 + 0.5 * rng.normal(size=size) / strength**0.5, 0.05, 0.95)
    n = strength * rng.uniform(0.3, 3.0, size)
    a, b = np.maximum(mean * n, 1.0), np.maximum((1 - mean) * n, 1.0)
    mask = rng.random(size) < 0.8
    found = largest_draw(a, b, mask)
    if not mask.any():
        assert (found == 0).all()
        return
    draws = np.where(mask, rng.beta(a, b, (100_000, size)), -1.0)
    np.testing.assert_allclose(found, np.bincount(draws.argmax(1), minlength=size) / 100_000, atol=0.01)
    assert found.sum() == pytest.approx(1.0)


def batch_of(users: np.ndarray | None, channel: np.ndarray, reward: np.ndarray) -> Batch:
    n = len(channel)
    actions = PLAIN.canonical(np.stack([channel, np.zeros(n, dtype=int)], axis=1))
    seen = Observations(np.zeros((n, 4), np.float32), everything(n, PLAIN), users)
    return Batch(
        observations=seen, actions=actions, rewards=reward, se=np.ones(n), keys=mix(np.arange(n, dtype=np.uint64))
    )


def at(users: list[int] | None, n: int = 1) -> Observations:
    keys = None if users is None else np.array(users, dtype=np.uint64)
    n = n if users is None else len(users)
    return Observations(np.zeros((n, 4), np.float32), everything(n, PLAIN), keys)


def tastes(rows: int = 400, seed: int = 0) -> Batch:
    """Users 0 to 9 like e-mail, users 10 to 19 push, and more users like push; nobody minds nothing."""
    rng = np.random.default_rng(seed)
    user = rng.integers(0, 30, 20 * rows)
    channel = rng.integers(0, 3, len(user))
    liked = np.where(user < 10, 1, 2)
    return batch_of(user.astype(np.uint64), channel, (channel == liked) * 1.0 + rng.normal(size=len(user)))


def test_each_user_has_a_taste_and_a_new_one_that_of_all() -> None:
    agent = make_agent("beta_thompson", PLAIN, 4)
    agent.observe(tastes())
    seen = at([3, 13, 99])
    np.testing.assert_array_equal(agent.act(seen, explore=False).actions[:, 0], [1, 2, 2])
    channel = agent.action_probabilities(seen)[0]
    assert channel[0, 1] > 0.9
    assert channel[1, 2] > 0.9
    unknown = agent.action_probabilities(at(None))[0]
    np.testing.assert_array_equal(unknown[0], channel[2])


def test_without_users_all_are_one() -> None:
    batch = tastes()
    with_users, without = make_agent("beta_thompson", PLAIN, 4), make_agent("beta_thompson", PLAIN, 4)
    with_users.observe(batch)
    without.observe(batch_of(None, batch.actions[:, 0], batch.rewards))
    for a, b in zip(with_users.action_probabilities(at(None)), without.action_probabilities(at([3])), strict=True):
        np.testing.assert_array_equal(a, b)


def test_the_parameters_are_the_prior_plus_what_was_seen() -> None:
    """Three rewards of one user: degrees of success 1, 1/2 and 0 at a limit of 2."""
    agent = make_agent("beta_thompson", PLAIN, 4, {"strength": 10.0, "pooled_strength": 1e9})
    assert isinstance(agent, BetaThompson)
    users = np.array([7, 7, 7, 8], dtype=np.uint64)
    agent.observe(batch_of(users, np.array([1, 1, 1, 0]), np.array([2.0, 0.0, -2.0, 2.0])))
    mean = agent.preferences(at([7, 8, 9]))[0]
    np.testing.assert_allclose(mean[0], [0.5, (5 + 1.5) / 13, 0.5], atol=1e-6)
    np.testing.assert_allclose(mean[1], [(5 + 1.0) / 11, 0.5, 0.5], atol=0.01)
    np.testing.assert_allclose(mean[2], 0.5, atol=1e-6)


def test_a_half_life_forgets_users_and_all_alike() -> None:
    """The same as shrinking every number at every batch, also after the stored scale has been renewed."""
    life, nu = 50.0, 10.0
    agent = make_agent("beta_thompson", PLAIN, 4, {"half_life": life, "pooled_strength": 1e9, "strength": nu})
    success, weight = np.zeros((30, 3)), np.zeros((30, 3))
    limit = 0.0
    for step in range(30):
        batch = tastes(2, seed=step)
        agent.observe(batch)
        limit = limit or float(np.quantile(np.abs(batch.rewards), 0.99))
        assert batch.observations.users is not None
        place = (batch.observations.users.astype(int), batch.actions[:, 0])
        kept = 0.5 ** (len(batch) / life)
        success, weight = kept * success, kept * weight
        np.add.at(success, place, np.clip(0.5 + batch.rewards / (2 * limit), 0, 1))
        np.add.at(weight, place, 1.0)
    found = agent.preferences(at(list(range(30))))[0]  # type: ignore[attr-defined]
    np.testing.assert_allclose(found, (0.5 * nu + success) / (nu + weight), rtol=1e-4)
