"""Engines: the same results in the items' order whichever runs, errors that come through, and plain refusals."""

from __future__ import annotations

import os
import sys

import numpy as np
import pytest

from crosschannel.core.errors import ConfigError
from crosschannel.core.exact_sums import ExactSums
from crosschannel.engines import ENGINES, add_up, make_engine, run_locally


def sums_of(seed: int) -> ExactSums:
    rng = np.random.default_rng(seed)
    return ExactSums.from_values(rng.normal(0, 10.0 ** (seed % 7), 500), rng.integers(0, 9, 500), 9)


def process_of(item: int) -> int:
    return os.getpid()


def refuse(item: int) -> int:
    raise ConfigError(f"item {item} is wrong")


def test_a_pool_gives_what_this_process_gives():
    items = list(range(12))
    here, pool = list(run_locally(sums_of, items)), list(make_engine("processes", 2)(sums_of, items))
    for left, right in zip(here, pool, strict=True):
        assert np.array_equal(left.high, right.high)
        assert np.array_equal(left.low, right.low)
    processes = set(make_engine("processes", 2)(process_of, items))
    assert os.getpid() not in processes
    assert set(run_locally(process_of, items)) == {os.getpid()}


def test_sums_are_equal_in_any_order():
    items = list(range(12))
    forward, backward = add_up(map(sums_of, items)), add_up(map(sums_of, items[::-1]))
    assert np.array_equal(forward.value(), backward.value())
    floats = [sums_of(item).value() for item in items]
    assert not np.array_equal(sum(floats), sum(floats[::-1]))  # plain floats are not


@pytest.mark.parametrize("name", ["local", "processes"])
def test_an_error_in_an_item_comes_through(name):
    with pytest.raises(ConfigError, match="item 3 is wrong"):
        list(make_engine(name)(refuse, [3]))


@pytest.mark.parametrize("name", ENGINES)
def test_no_items_give_no_results(name):
    pytest.importorskip("ray" if name == "ray" else "crosschannel.engines", reason="Ray is not installed")
    assert list(make_engine(name)(sums_of, [])) == []


def test_wrong_settings_say_what_is_wrong(monkeypatch):
    with pytest.raises(ConfigError, match="processes"):
        make_engine("poll")
    with pytest.raises(ConfigError, match="at least 1"):
        make_engine("processes", 0)
    with pytest.raises(ConfigError, match="no buckets"):
        add_up([])
    monkeypatch.setitem(sys.modules, "ray", None)
    with pytest.raises(ConfigError, match=r"pip install 'crosschannel\[ray\]'"):
        list(make_engine("ray")(sums_of, [1]))
