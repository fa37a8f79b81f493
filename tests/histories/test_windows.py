"""Searching timelines and exact sums, against the slow and obvious way."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from crosschannel.histories import windows
from crosschannel.histories.windows import Timeline, exact_mean

pytestmark = pytest.mark.numerics


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
        patch.setattr(windows, "QUERIES_PER_BLOCK", block)
        patch.setattr(windows, "MAX_ROWS_IN_STEP", heavy)
        found = Timeline(time, offsets).before(asked_user, asked_time, inclusive=inclusive)
    for row, u, t in zip(found, asked_user, asked_time, strict=True):
        mine = time[user == u]
        assert row == offsets[u] + (mine <= t if inclusive else mine < t).sum()


@settings(max_examples=100, deadline=None)
@given(
    seed=st.integers(0, 10_000),
    users=st.integers(1, 8),
    events=st.integers(0, 60),
    spread=st.sampled_from([3, 40]),
    block=st.sampled_from([1, 3, 1 << 14]),
    heavy=st.sampled_from([5, 4096]),
)
def test_windows_equal_counting(seed, users, events, spread, block, heavy):
    """Windows from none to all of a user's rows, in blocks that need more rows or fewer than those before them."""
    rng = np.random.default_rng(seed)
    user = np.sort(rng.integers(0, users, events))
    time = rng.integers(-spread, spread, events)
    time = time[np.lexsort((time, user))]
    offsets = np.searchsorted(user, np.arange(users + 1))
    asked_user, asked_time = rng.integers(0, users, 40), rng.integers(-spread - 2, spread + 2, 40)
    pre, post = int(rng.integers(1, spread)), rng.integers(0, 2 * spread, 40)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(windows, "QUERIES_PER_BLOCK", block)
        patch.setattr(windows, "MAX_ROWS_IN_STEP", heavy)
        found = Timeline(time, offsets).windows(asked_user, asked_time, pre, post)
    for rows, u, t, length in zip(np.stack(found, axis=1), asked_user, asked_time, post, strict=True):
        mine = time[user == u]
        ends = [(mine < t - pre).sum(), (mine < t).sum(), (mine < t + length).sum()]
        assert (rows - offsets[u]).tolist() == ends


def test_several_times_of_each_user_are_searched_at_once():
    timeline = Timeline(np.array([1, 2, 3, 2, 4]), np.array([0, 3, 5]))
    asked = np.array([[0, 3], [2, 4], [9, 9]])
    assert timeline.before(np.array([0, 1]), asked).tolist() == [[0, 4], [1, 4], [3, 5]]


def test_no_queries_and_no_events():
    nothing = np.zeros(0, dtype=np.int64)
    empty = Timeline(nothing, np.zeros(4, dtype=np.int64))
    assert empty.before(nothing, nothing).shape == (0,)
    assert empty.before(np.array([1, 2]), np.array([0, 0])).tolist() == [0, 0]
    for rows in empty.windows(np.array([1, 2]), np.array([0, 0]), 1, np.array([1, 1])):
        assert rows.tolist() == [0, 0]


def test_exact_mean():
    values = np.array([1e-6, 1e6, -3.5, 0.1])
    assert exact_mean(values) == exact_mean(values[::-1]) == pytest.approx(values.mean(), rel=1e-9)
    assert exact_mean(np.zeros(0)) == 0.0
