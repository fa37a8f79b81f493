"""The packed order of rows equals that of `np.lexsort`, ties and all."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from crosschannel.histories.sorting import argsort_by_user_and_time


@settings(max_examples=60, deadline=None)
@given(
    seed=st.integers(0, 10_000),
    rows=st.integers(0, 300),
    users=st.sampled_from([1, 3, 1000]),
    span=st.sampled_from([1, 50, 10**6, 10**13, 2**61]),
)
def test_order_equals_lexsort(seed, rows, users, span):
    """Spans from all times equal to far more bits than the packed integer has left."""
    rng = np.random.default_rng(seed)
    user, tie = rng.integers(0, users, rows), rng.integers(0, 2, rows)
    time = rng.integers(-span, span, rows)
    time[::3] = time[:1] + rng.integers(0, 3, len(time[::3])) if rows else time[::3]  # neighbours closer than a bit
    np.testing.assert_array_equal(argsort_by_user_and_time(user, time, tie), np.lexsort((tie, time, user)))


@pytest.mark.parametrize("users", [2**50, 2**62])
def test_codes_too_wide_to_pack_are_ordered_all_the_same(users):
    rng = np.random.default_rng(0)
    user, time = rng.choice([0, 1, users], 100), rng.integers(0, 2**40, 100)
    np.testing.assert_array_equal(argsort_by_user_and_time(user, time), np.lexsort((time, user)))
