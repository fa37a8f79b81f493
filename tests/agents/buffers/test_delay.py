"""Rewards are learned from when they are known, in the order of time, once."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from crosschannel.agents import Batch, Components, Delay
from crosschannel.core.errors import ConfigError
from tests.agents.samples import PLAIN, random_batch


@given(seed=st.integers(0, 10_000), pieces=st.integers(1, 5))
@settings(max_examples=40, deadline=None)
def test_each_row_comes_once_when_it_is_known_however_it_was_put_in(seed: int, pieces: int) -> None:
    rng = np.random.default_rng(seed)
    batch = random_batch(60, seed=seed)
    available = rng.integers(0, 20, 60)
    queue = Delay()
    for rows in np.array_split(rng.permutation(60), pieces):
        queue.put(batch[rows], available[rows])
    order = np.lexsort((batch.keys, available))
    taken: list[Batch] = []
    for now in (3, 3, 11, 30):
        before = len(queue)
        part = queue.due(now)
        if part is not None:
            taken.append(part)
            assert len(queue) == before - len(part)
        left = available > now
        assert len(queue) == left.sum()
    np.testing.assert_array_equal(np.concatenate([part.keys for part in taken]), batch.keys[order])
    np.testing.assert_array_equal(np.concatenate([part.rewards for part in taken]), batch.rewards[order])
    terminal = [part.terminal for part in taken if part.terminal is not None]
    np.testing.assert_array_equal(np.concatenate(terminal), batch.terminal[order])
    assert queue.due(10**9) is None


def test_what_is_held_outlives_a_restart() -> None:
    batch = random_batch(40)
    first, second = Delay(), Delay()
    first.put(batch, np.arange(40))
    first.due(9)
    second.load_state_dict(first.state_dict())
    a, b = first.due(25), second.due(25)
    assert a is not None
    assert b is not None
    assert len(b) == 16
    for name in ("actions", "rewards", "se", "keys", "steps_to_next", "terminal"):
        np.testing.assert_array_equal(getattr(a, name), getattr(b, name))
    np.testing.assert_array_equal(a.observations.users, b.observations.users)
    assert a.next_observations is not None
    assert b.next_observations is not None
    np.testing.assert_array_equal(a.next_observations.action_mask, b.next_observations.action_mask)
    empty = Delay()
    empty.load_state_dict(Delay().state_dict())
    assert len(empty) == 0
    assert empty.due(0) is None


def test_one_time_a_row() -> None:
    with pytest.raises(ConfigError, match="one time per row"):
        Delay().put(random_batch(5), np.arange(4))


def assert_same(found: Batch | None, wanted: Batch) -> None:
    """All parts of two batches are equal, NaN included."""
    assert found is not None
    assert found.components is not None
    assert wanted.components is not None
    for name in ("actions", "rewards", "se", "keys", "steps_to_next", "terminal"):
        np.testing.assert_array_equal(getattr(found, name), getattr(wanted, name))
    for name in ("context", "action_mask", "users", "action_prices"):
        np.testing.assert_array_equal(getattr(found.observations, name), getattr(wanted.observations, name))
        np.testing.assert_array_equal(getattr(found.next_observations, name), getattr(wanted.next_observations, name))
    for name in ("engaged", "value", "cost", "cost_weights"):
        np.testing.assert_array_equal(getattr(found.components, name), getattr(wanted.components, name))
    assert found.components.cost_names == wanted.components.cost_names


def with_components(n: int, costs: int = 2, seed: int = 0) -> Batch:
    """Rows with prices of actions and components, some of them unknown."""
    rng = np.random.default_rng([seed, 5])
    batch = random_batch(n, seed=seed)
    assert batch.next_observations is not None
    priced, later = (
        replace(part, action_prices=rng.random((n, PLAIN.total)))
        for part in (batch.observations, batch.next_observations)
    )
    parts = Components(
        engaged=rng.choice([0.0, 1.0, np.nan], n),
        value=np.where(rng.random(n) < 0.2, np.nan, rng.standard_normal(n)),
        cost=rng.choice([0.0, 1.0, np.nan], (n, costs)),
        odds=rng.exponential(size=n),
        cost_names=tuple(f"cost {c}" for c in range(costs)),
        cost_weights=rng.random(costs) + 1.0,
    )
    return replace(batch, observations=priced, next_observations=later, components=parts)


@pytest.mark.parametrize("costs", [0, 2])
def test_components_and_prices_stay_with_their_rows(costs: int) -> None:
    batch, queue = with_components(60, costs), Delay()
    available = np.random.default_rng(0).permutation(60)
    for rows in np.array_split(np.random.default_rng(1).permutation(60), 4):
        queue.put(batch[rows], available[rows])
    order = np.argsort(available)
    assert_same(queue.due(24), batch[order[:25]])
    restored = Delay()
    restored.load_state_dict(queue.state_dict())
    assert_same(restored.due(100), batch[order[25:]])
    assert_same(queue.due(100), batch[order[25:]])


def test_rows_of_other_kinds_do_not_join() -> None:
    whole = with_components(10)
    assert whole.components is not None
    dearer = replace(whole.components, cost_weights=2.0 * whole.components.cost_weights)
    for other, words in (
        (replace(whole, components=None), "`components`"),
        (replace(whole, components=dearer), "same cost events"),
        (with_components(10, 1), "same cost events"),
        (replace(whole, next_observations=None), "`next_observations`"),
        (replace(whole, terminal=None), "`terminal`"),
        (replace(whole, observations=replace(whole.observations, users=None)), "`observations.users`"),
        (replace(whole, observations=replace(whole.observations, action_prices=None)), "`observations.action_prices`"),
    ):
        for first, second in ((whole, other), (other, whole)):
            queue = Delay()
            queue.put(first, np.arange(10))
            with pytest.raises(ConfigError, match=words):
                queue.put(second, np.arange(10))
            assert len(queue) == 10
