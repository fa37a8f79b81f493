"""Stable hashes: pinned values, independence of order and type, and numbers that look uniform and independent."""

from __future__ import annotations

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from crosschannel.core.hashing import derive, keys, mix, uniforms, unit


def test_mix_is_the_published_splitmix64():
    # The first outputs of the reference generator with seed 0, whose state grows by the golden gamma.
    gamma = 0x9E3779B97F4A7C15
    state = np.array([0, gamma, 2 * gamma % 2**64], dtype=np.uint64)
    published = [0xE220A8397B1DCDAF, 0x6E789E6AA1B965F4, 0x06C45D188009454F]
    assert mix(state).tolist() == published


def test_keys_are_the_same_on_every_machine_and_after_every_restart():
    pinned = [2984610181246591869, 1568588710791152757]
    assert keys(np.array(["u1", "17"], dtype=object)).tolist() == pinned


@given(st.lists(st.integers(0, 2**62), min_size=1, max_size=20))
def test_a_number_and_its_text_are_the_same_id(ids: list[int]):
    text = np.array([str(i) for i in ids], dtype=object)
    np.testing.assert_array_equal(keys(np.array(ids, dtype=np.int64)), keys(text))
    np.testing.assert_array_equal(keys(text), keys(text.astype(str)))


@given(st.permutations(range(12)), st.integers())
def test_numbers_follow_their_key_in_every_order(order: list[int], salt: int):
    key = keys(np.arange(12))
    np.testing.assert_array_equal(uniforms(key, salt)[order], uniforms(key[order], salt))
    np.testing.assert_array_equal(uniforms(key, salt)[:3], uniforms(key[:3], salt))


def test_uniforms_look_uniform_and_independent_between_salts():
    n = 200_000
    key = keys(np.arange(n))
    a, b = uniforms(key, 0), uniforms(key, 1)
    assert a.min() > 0
    assert a.max() < 1
    # Chi-square with 99 degrees of freedom: mean 99, standard deviation 14.
    counts = np.histogram(a, bins=100, range=(0, 1))[0]
    assert ((counts - n / 100) ** 2 / (n / 100)).sum() < 99 + 5 * 14
    assert abs(np.corrcoef(a, b)[0, 1]) < 5 / np.sqrt(n)
    assert abs(np.corrcoef(a[:-1], a[1:])[0, 1]) < 5 / np.sqrt(n)


def test_the_smallest_and_the_largest_word_stay_inside_the_unit_interval():
    low, high = unit(np.array([0, 0xFFFFFFFFFFFFFFFF], dtype=np.uint64))
    assert 0 < low < high < 1
    assert low + high == 1


def test_derived_keys_do_not_collide():
    key = keys(np.arange(50_000))
    assert len(np.unique(np.concatenate([derive(key, salt) for salt in range(4)]))) == 200_000
