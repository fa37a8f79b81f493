"""Buckets on disk: every user in one of them, whole, by the id alone; incomplete folders are refused."""

from __future__ import annotations

import shutil

import numpy as np
import pytest

from crosschannel.core.errors import ConfigError, InputError
from crosschannel.core.files import read_yaml, write_yaml
from crosschannel.core.hashing import keys
from crosschannel.envs.market import Market, MarketConfig, simulate_history
from crosschannel.histories.buckets import bucket_of, bucket_paths, write_buckets
from crosschannel.histories.history import History
from crosschannel.histories.readers.folder import read_history

HISTORY, _ = simulate_history(Market(MarketConfig(users=60, days=4)))


def rows(history: History) -> set[tuple]:
    """Each decision as it is on disk, with the user's id."""
    return set(history.decisions_frame().astype(str).itertuples(index=False, name=None))


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    path = tmp_path_factory.mktemp("buckets")
    write_buckets(HISTORY, path, 4)
    return path


def test_each_user_is_whole_in_one_bucket(folder):
    paths = bucket_paths(folder)
    assert [path.name for path in paths] == [f"bucket-{b:05d}" for b in range(4)]
    parts = [read_history(path) for path in paths]
    assert sorted(user for part in parts for user in part.user_ids) == sorted(HISTORY.user_ids)
    assert sum(len(part.decisions) for part in parts) == len(HISTORY.decisions)
    assert sum(len(part.events) for part in parts) == len(HISTORY.events)
    assert set().union(*map(rows, parts)) == rows(HISTORY)
    bucket = bucket_of(HISTORY.user_keys, 4)
    for b, part in enumerate(parts):
        mine = HISTORY.select_users(bucket == b)
        assert (part.span, part.event_names, part.modules) == (HISTORY.span, HISTORY.event_names, HISTORY.modules)
        assert np.array_equal(part.events.event, mine.events.event)
        assert np.array_equal(part.decisions.time, mine.decisions.time)


def test_a_user_s_bucket_depends_on_the_id_alone():
    ids = np.array([f"u{i}" for i in range(4_000)], dtype=object)
    bucket = bucket_of(keys(ids), 8)
    order = np.random.default_rng(0).permutation(len(ids))[:100]
    assert np.array_equal(bucket_of(keys(ids[order]), 8), bucket[order])
    # 500 users a bucket are expected; five binomial standard deviations are 105.
    assert np.abs(np.bincount(bucket, minlength=8) - 500).max() < 105


def test_more_buckets_than_users_leave_the_empty_ones_out(tmp_path):
    few, _ = simulate_history(Market(MarketConfig(users=3, days=4)))
    write_buckets(few, tmp_path, 50)
    paths = bucket_paths(tmp_path)
    assert 1 < len(paths) <= 3
    assert set().union(*(rows(read_history(path)) for path in paths)) == rows(few)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda c: c | {"folders": c["folders"][1:]}, "are not those of the folder"),
        (lambda c: c | {"folders": [*c["folders"], c["folders"][0]]}, "are not those of the folder"),
        (lambda c: c | {"buckets": -1}, "are not those of the folder"),
        (lambda c: c | {"buckets": 2}, "are not those of the folder"),
        (lambda c: c | {"buckets": "4"}, "are not those of the folder"),
        (lambda c: c | {"folders": []}, "are not those of the folder"),
        (lambda c: c | {"folders": ["../log"]}, "has what is not a name"),
        (lambda c: c | {"folders": ["bucket-" + "0" * 400]}, "has what is not a name"),
        (lambda c: c | {"folders": [1, None]}, "has what is not a name"),
    ],
)
def test_a_list_that_leaves_users_out_is_refused(folder, tmp_path, change, message):
    copy = tmp_path / "copy"
    shutil.copytree(folder, copy)
    write_yaml(change(read_yaml(copy / "buckets.yaml")), copy / "buckets.yaml")
    with pytest.raises(InputError, match=message):
        bucket_paths(copy)


def test_buckets_that_were_written_before_are_replaced(folder, tmp_path):
    copy = tmp_path / "copy"
    shutil.copytree(folder, copy)
    write_buckets(HISTORY, copy, 2)
    assert [path.name for path in bucket_paths(copy)] == ["bucket-00000", "bucket-00001"]


def test_an_incomplete_folder_is_refused(folder, tmp_path):
    with pytest.raises(InputError, match="interrupted"):
        bucket_paths(tmp_path)
    copy = tmp_path / "copy"
    shutil.copytree(folder, copy)
    shutil.rmtree(copy / "bucket-00002")
    with pytest.raises(InputError, match="missing: bucket-00002"):
        bucket_paths(copy)
    (copy / "buckets.yaml").write_text("format: something else\n")
    with pytest.raises(InputError, match="Write the folder again"):
        bucket_paths(copy)
    with pytest.raises(ConfigError, match="at least 1"):
        write_buckets(HISTORY, copy, 0)
