"""Engines: the same results in the items' order whichever runs, errors that come through, and plain refusals."""

from __future__ import annotations

import os
import pickle
import signal
import sys
import time
from pathlib import Path

import numpy as np
import pytest

from crosschannel.core.errors import ConfigError
from crosschannel.engines import ENGINES, add_up, make_engine, run_locally, shard
from crosschannel.engines.results import answer, in_order
from crosschannel.reward.exact_sums import ExactSums
from tests import ROOT


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


def test_processes_stay_from_one_pass_to_the_next():
    engine = make_engine("processes", 1)
    first, again = (set(engine(process_of, [1, 2, 3])) for _ in range(2))
    assert first == again
    assert len(first) == 1
    os.kill(first.pop(), signal.SIGKILL)  # between two passes
    assert len(set(engine(process_of, [1, 2, 3])) | again) == 2


def written(item: Path) -> Path:
    time.sleep(0.05)
    item.write_text("")
    return item


def test_nothing_of_a_pass_that_was_given_up_still_runs(tmp_path):
    engine = make_engine("processes", 2)
    found = engine(written, [tmp_path / str(index) for index in range(40)])
    next(found)
    found.close()
    after = set(tmp_path.iterdir())
    assert list(engine(process_of, [1]))
    time.sleep(0.2)
    assert set(tmp_path.iterdir()) == after
    assert len(after) < 40


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


PACKAGES = {"ray": "ray", "spark": "pyspark"}


@pytest.mark.parametrize("name", ENGINES)
def test_no_items_give_no_results(name):
    pytest.importorskip(PACKAGES.get(name, "crosschannel.engines"), reason=f"{name} is not installed")
    assert list(make_engine(name)(sums_of, [])) == []


def test_wrong_settings_say_what_is_wrong(monkeypatch):
    with pytest.raises(ConfigError, match="processes"):
        make_engine("poll")
    with pytest.raises(ConfigError, match="at least 1"):
        make_engine("processes", 0)
    with pytest.raises(ConfigError, match="no buckets"):
        add_up([])
    with pytest.raises(ConfigError, match="has no address"):
        make_engine("local", address="auto")
    for name, package in PACKAGES.items():
        monkeypatch.setitem(sys.modules, package, None)
        with pytest.raises(ConfigError, match=rf"pip install 'crosschannel\[{name}\]'"):
            list(make_engine(name)(sums_of, [1]))


@pytest.mark.parametrize("n", [1, 3, 8, 50])
def test_each_item_is_in_one_shard(n):
    items = list(range(20))
    parts = [shard(items, f"{i}/{n}") for i in range(1, n + 1)]
    assert sorted(item for part in parts for item in part) == items
    assert max(map(len, parts)) - min(map(len, parts)) <= 1


@pytest.mark.parametrize("part", ["0/4", "5/4", "1", "a/b", "/", "1/0", "-1/4", "1/4/2", ""])
def test_a_wrong_shard_is_refused(part):
    with pytest.raises(ConfigError, match="is not i/n"):
        shard([1, 2], part)


def test_results_arrive_late_and_twice():
    """Each is counted once, in the items' order, and a lost one is not left out in silence."""
    sent = [(index, answer(sums_of, pickle.dumps(index))) for index in (2, 0, 2, 0, 1, 1, 3, 2)]
    got = [found.value() for found in in_order(sent, 4)]
    np.testing.assert_array_equal(got, [sums_of(index).value() for index in range(4)])
    with pytest.raises(ConfigError, match="lost the result of item 4 of 5"):
        list(in_order(sent, 5))


def killed_once(item: tuple[int, Path]) -> float:
    """Kill this process on item 3, the first time; only that: a process does not see its own death coming."""
    index, folder = item
    mark = folder / "killed"
    if index == 3 and not mark.exists():
        mark.write_text("")
        os.kill(os.getpid(), signal.SIGKILL)
    return float(sums_of(index).value().sum())


def always_killed(item: int) -> None:
    os.kill(os.getpid(), signal.SIGKILL)


def check_kills(name: str, folder: Path) -> None:
    items = [(index, folder) for index in range(8)]
    found = list(make_engine(name, 2)(killed_once, items))
    assert (folder / "killed").exists()
    assert found == [float(sums_of(index).value().sum()) for index in range(8)]


def test_a_killed_process_changes_nothing(tmp_path):
    check_kills("processes", tmp_path)


def test_a_process_that_is_always_killed_is_an_error():
    with pytest.raises(ConfigError, match="killed 4 times on item 0 of 1, perhaps for lack of memory"):
        list(make_engine("processes", 1)(always_killed, [1]))


@pytest.mark.slow
@pytest.mark.parametrize("name", PACKAGES)
def test_clusters_give_the_same_and_survive_a_kill(name, tmp_path, monkeypatch):
    pytest.importorskip(PACKAGES[name], reason=f"{name} is not installed")
    monkeypatch.setenv("RAY_USAGE_STATS_ENABLED", "0")
    monkeypatch.setenv("PYTHONPATH", str(ROOT))
    check_kills(name, tmp_path)
    items = list(range(5))
    for left, right in zip(make_engine(name)(sums_of, items), map(sums_of, items), strict=True):
        assert np.array_equal(left.high, right.high)
        assert np.array_equal(left.low, right.low)
    with pytest.raises(ConfigError, match="item 3 is wrong"):
        list(make_engine(name)(refuse, [3]))
