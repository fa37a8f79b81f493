"""Rewards are learned from when they are known, in the order of time, once."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from crosschannel.agents import Batch, Delay
from crosschannel.core.errors import ConfigError
from tests.agents.samples import random_batch


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
