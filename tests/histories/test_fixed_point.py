"""Exact sums: the same in every order, for amounts in millions and in millionths, and refused where they overflow."""

from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from crosschannel.core.errors import ConfigError
from crosschannel.histories.fixed_point import (
    LOG2_OF_LARGEST_FITTED,
    check_sums,
    fit_bits,
    from_fixed,
    largest_sum,
    to_fixed,
    unit_of,
)
from crosschannel.histories.windows import running_totals

pytestmark = pytest.mark.numerics


def test_fixed_point_sums_do_not_depend_on_order_and_survive_wrapping():
    rng = np.random.default_rng(0)
    values = rng.uniform(-1e6, 1e6, 20_000)
    fixed = to_fixed(values)
    assert fixed.sum() == fixed[rng.permutation(20_000)].sum()
    many = running_totals(np.full(10_000, to_fixed(np.array([2e6]))[0]))  # the running total wraps around
    assert from_fixed(many[5001:5002] - many[5000:5001]).tolist() == [2e6]


@given(st.floats(1e-250, 1e250))
def test_scales_keep_the_largest_sum_in_range_with_at_least_48_places(largest):
    bits = fit_bits(largest)
    assert LOG2_OF_LARGEST_FITTED - 8 <= math.log2(largest) + bits <= LOG2_OF_LARGEST_FITTED
    assert bits % 8 == 0
    value = np.array([largest, -largest / 3])
    np.testing.assert_allclose(from_fixed(to_fixed(value, bits), bits), value, rtol=2.0**-46)


def test_scales_without_amounts_and_at_the_ends_of_the_range():
    assert fit_bits(0.0) == 32
    for largest in (5e-324, 1.7e308):
        assert np.isfinite(from_fixed(to_fixed(np.array([largest]), fit_bits(largest)), fit_bits(largest))).all()
    with pytest.raises(ConfigError, match="their sum is infinite"):
        fit_bits(math.inf)


@given(st.integers(0, 10_000))
def test_the_bound_is_the_same_in_every_order_and_division(seed):
    rng = np.random.default_rng(seed)
    users = 6
    user = np.sort(rng.integers(0, users, 40))
    value, chosen = rng.normal(0, 1, 40) * 10.0 ** rng.integers(-9, 9, 40), rng.random(40) < 0.7
    offsets = np.searchsorted(user, np.arange(users + 1))
    bound = largest_sum(value, chosen, offsets)
    order = np.lexsort((rng.random(40), user))
    assert largest_sum(value[order], chosen[order], offsets) == bound
    half = user < 3
    parts = [
        largest_sum(value[rows], chosen[rows], np.searchsorted(user[rows], first + np.arange(4)))
        for rows, first in ((half, 0), (~half, 3))
    ]
    assert max(parts) == bound
    sums = [np.abs(value[chosen & (user == u)]).sum() for u in range(users)]
    assert max(sums) <= bound * (1 + 1e-12)


def test_sums_and_not_single_values_are_checked():
    offsets = np.array([0, 1000, 1001])
    value = np.full(1001, 1e6)
    bits = fit_bits(1e9)
    check_sums(value, offsets, bits, "order")
    with pytest.raises(ConfigError, match=r"the values of 'order' of one user add up to 1e.12.*units or currency"):
        check_sums(value * 1000, offsets, bits, "order")
    # The sum over all users may be larger than what one user may have.
    many = np.full(100_000, 1e9)
    check_sums(many, np.arange(100_001), bits, "order")


def test_units_are_powers_of_two_near_the_largest_reward():
    for largest in (1e-12, 1.0, 3e5, 4e13):
        unit = unit_of([largest, largest])
        assert math.log2(unit) % 8 == 0
        assert 2**8 < 2 * largest / unit <= 2**16
    assert unit_of([0.0]) == 1.0
