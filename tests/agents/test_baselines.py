"""The baselines play what they say they play."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from crosschannel.agents import make_agent
from tests.agents.samples import NESTED, PLAIN, TABLES, everything, observations_of, random_batch

NAMES = ("uniform", "no_send", "logging")


def test_no_send_never_sends() -> None:
    agent = make_agent("no_send", PLAIN, 4)
    decisions = agent.act(observations_of(everything(10, PLAIN)))
    assert (decisions.actions == 0).all()
    assert (decisions.joint == 1).all()


def test_logging_plays_the_frequencies_of_the_log() -> None:
    batch = random_batch(6000)
    rng = np.random.default_rng(1)
    actions = PLAIN.canonical(np.stack([rng.choice(3, 6000, p=[0.6, 0.3, 0.1]), rng.choice(2, 6000, p=[0.8, 0.2])], 1))
    agent = make_agent("logging", PLAIN, 4)
    agent.observe(replace(batch, actions=actions))
    mask = np.array([[1, 1, 1, 1, 1], [1, 0, 1, 1, 0]], dtype=bool)
    channel, offer = agent.action_probabilities(observations_of(mask))
    np.testing.assert_allclose(channel, np.array([[0.6, 0.3, 0.1], [6 / 7, 0.0, 1 / 7]]), atol=0.02)
    np.testing.assert_allclose(offer, np.array([[0.8, 0.2], [1.0, 0.0]]), atol=0.03)


def test_logging_counts_within_the_parents_choice() -> None:
    agent = make_agent("logging", NESTED, 4)
    agent.observe(random_batch(5000, NESTED))
    offer = agent.action_probabilities(observations_of(everything(1, NESTED)))[2][0]
    np.testing.assert_allclose(offer, np.array([1 / 2, 1 / 2, 1 / 3, 1 / 3, 1 / 3, 1]), atol=0.05)


def test_logging_counts_for_each_choice_it_is_conditioned_on() -> None:
    batch = random_batch(4000, TABLES)
    actions = batch.actions.copy()
    actions[actions[:, 0] == 1, 1] = 0  # every e-mail in the morning
    agent = make_agent("logging", TABLES, 4)
    agent.observe(replace(batch, actions=actions))
    hour = agent.action_probabilities(observations_of(everything(1, TABLES)))[1][0]
    np.testing.assert_allclose(hour[1:], [[1.0, 0.0], [0.5, 0.5]], atol=0.05)


@pytest.mark.parametrize("name", NAMES)
def test_a_restored_baseline_draws_what_the_first_would_have_drawn(name: str) -> None:
    seen = observations_of(everything(300, PLAIN))
    first, second = make_agent(name, PLAIN, 4, seed=1), make_agent(name, PLAIN, 4, seed=2)
    first.observe(random_batch(100))
    first.act(seen)
    second.load_state_dict(first.state_dict())
    np.testing.assert_array_equal(first.act(seen).actions, second.act(seen).actions)
