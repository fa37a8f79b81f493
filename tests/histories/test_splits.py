"""Splits: shares as asked for, the same user always in the same part, and time cut strictly."""

from __future__ import annotations

import numpy as np
import pytest

from crosschannel.core.errors import ConfigError
from crosschannel.core.hashing import keys
from crosschannel.core.times import DAY, HOUR
from crosschannel.histories.splits import split_time, split_users
from tests.samples import random_history

SHARES = {"train": 0.6, "validation": 0.1, "test": 0.3}


def test_shares_are_as_asked_for():
    part = split_users(keys(np.arange(40_000)), SHARES, seed=3)
    for name, share in SHARES.items():
        error = np.sqrt(share * (1 - share) / 40_000)
        assert abs((part == name).mean() - share) < 4 * error


def test_a_users_part_depends_on_nothing_but_the_user():
    ids = np.array([f"u{i}" for i in range(500)], dtype=object)
    part = split_users(keys(ids), SHARES, seed=1)
    order = np.random.default_rng(0).permutation(500)
    np.testing.assert_array_equal(split_users(keys(ids[order]), SHARES, seed=1), part[order])
    np.testing.assert_array_equal(split_users(keys(ids[:20]), SHARES, seed=1), part[:20])


def test_another_seed_is_an_independent_split():
    key = keys(np.arange(20_000))
    a = split_users(key, {"a": 0.5, "b": 0.5}, seed=1) == "a"
    b = split_users(key, {"a": 0.5, "b": 0.5}, seed=2) == "a"
    assert abs((a & b).mean() - 0.25) < 4 * np.sqrt(0.25 * 0.75 / 20_000)


def test_a_share_of_0_is_an_empty_part_and_of_1_everyone():
    key = keys(np.arange(2000))
    assert set(split_users(key, {"train": 0.5, "validation": 0.0, "test": 0.5})) == {"train", "test"}
    assert set(split_users(key, {"train": 0.0, "test": 1.0})) == {"test"}


@pytest.mark.parametrize("shares", [{}, {"a": 0.5}, {"a": 1.2, "b": -0.2}, {"a": 0.6, "b": 0.6}, {"a": float("nan")}])
def test_shares_that_do_not_add_up_are_refused(shares: dict[str, float]):
    with pytest.raises(ConfigError, match="do not add up to 1"):
        split_users(keys(np.arange(3)), shares)


def test_time_is_cut_strictly():
    history = random_history(2)
    until = 6 * DAY + 6 * HOUR
    assert (history.decisions.time == until).any()
    before, later = split_time(history, until)
    assert before.decisions.time.max() < until
    assert before.events.time.max() < until
    assert (history.decisions.time[later] >= until).all()
    assert len(before.decisions) + later.sum() == len(history.decisions)
    assert len(before.events) == (history.events.time < until).sum()
    assert before.span == (history.span[0], until)
    assert before.n_users == history.n_users
    np.testing.assert_array_equal(before.decisions.id, history.decisions.id[~later])


@pytest.mark.parametrize("until", [0, 100 * DAY])
def test_a_time_that_leaves_nothing_on_one_side_is_refused(until: int):
    with pytest.raises(ConfigError, match="choose a time between 1970-01-03"):
        split_time(random_history(2), until)
