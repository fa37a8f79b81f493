"""Searching timelines and exact sums, against the slow and obvious way."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import histories.windows
from histories.errors import ConfigError
from histories.windows import Timeline, exact_mean, from_fixed, running, to_fixed


@settings(max_examples=60, deadline=None)
@given(
    seed=st.integers(0, 10_000),
    users=st.integers(1, 8),
    events=st.integers(0, 60),
    block=st.sampled_from([1, 3, 1 << 14]),
    heavy=st.sampled_from([0, 5, 4096]),
    inclusive=st.booleans(),
)
def test_before_equals_counting(seed, users, events, block, heavy, inclusive):
    """Few distinct times, so that ties are common; blocks and heavy users of all sizes."""
    rng = np.random.default_rng(seed)
    user = np.sort(rng.integers(0, users, events))
    time = rng.integers(-5, 5, events)
    time = time[np.lexsort((time, user))]
    offsets = np.searchsorted(user, np.arange(users + 1))
    asked_user, asked_time = rng.integers(0, users, 40), rng.integers(-7, 7, 40)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(histories.windows, "BLOCK", block)
        patch.setattr(histories.windows, "HEAVY", heavy)
        found = Timeline(time, offsets).before(asked_user, asked_time, inclusive=inclusive)
    for row, u, t in zip(found, asked_user, asked_time, strict=True):
        mine = time[user == u]
        assert row == offsets[u] + (mine <= t if inclusive else mine < t).sum()


def test_no_queries_and_no_events():
    nothing = np.zeros(0, dtype=np.int64)
    empty = Timeline(nothing, np.zeros(4, dtype=np.int64))
    assert empty.before(nothing, nothing).shape == (0,)
    assert empty.before(np.array([1, 2]), np.array([0, 0])).tolist() == [0, 0]


def test_fixed_point_sums_do_not_depend_on_order_and_survive_wrapping():
    rng = np.random.default_rng(0)
    values = rng.uniform(-1e6, 1e6, 20_000)
    fixed = to_fixed(values)
    shuffled = rng.permutation(20_000)
    assert fixed.sum() == fixed[shuffled].sum()
    many = running(np.full(10_000, to_fixed(np.array([2e6]))[0]))  # the running total wraps around
    assert from_fixed(many[5001:5002] - many[5000:5001]).tolist() == [2e6]


def test_values_that_are_too_large_are_refused():
    with pytest.raises(ConfigError, match="too large for exact sums: divide the values"):
        to_fixed(np.array([1.0, 1e9]))


def test_exact_mean():
    values = np.array([1e-6, 1e6, -3.5, 0.1])
    assert exact_mean(values) == exact_mean(values[::-1]) == pytest.approx(values.mean(), rel=1e-9)
    assert exact_mean(np.zeros(0)) == 0.0
