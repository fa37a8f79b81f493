"""Bucketed folders: every user whole in one bucket, all of them the log again; damage is named, and nothing is lost."""

from __future__ import annotations

import json
import shutil
from dataclasses import fields, replace

import numpy as np
import pandas as pd
import pytest

from crosschannel.core.errors import ConfigError, InputError, OutputError
from crosschannel.core.files import lock
from crosschannel.envs.market import Market, MarketConfig, simulate_history
from crosschannel.histories import read_history
from crosschannel.histories.buckets import leaf_of, open_buckets, read_bucket, write_buckets, writing
from crosschannel.histories.history import History
from tests.samples import random_history

HISTORY, _ = simulate_history(Market(MarketConfig(users=60, days=4)))


def assert_same(left: History, right: History) -> None:
    """The same arrays in the same types, and so the same bits of all that follows."""
    for table in ("decisions", "events"):
        for f in fields(getattr(left, table)):
            one, other = (getattr(getattr(history, table), f.name) for history in (left, right))
            assert (one is None) == (other is None), f.name
            if one is not None:
                assert one.dtype.kind == other.dtype.kind, f.name
                np.testing.assert_array_equal(one, other, err_msg=f.name)
    assert left.fingerprint() == right.fingerprint()
    assert left.user_ids.dtype.kind == right.user_ids.dtype.kind
    if left.users is not None:
        for name in left.users.columns.drop("user_id", errors="ignore"):
            pd.testing.assert_series_equal(left.users[name], right.users[name], check_dtype=True)


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    path = tmp_path_factory.mktemp("buckets")
    write_buckets(HISTORY, path, 4)
    return path


@pytest.fixture
def copy(folder, tmp_path):
    return shutil.copytree(folder, tmp_path / "copy")


@pytest.mark.parametrize("n", [1, 8, 64])
def test_all_buckets_are_the_log(n, tmp_path):
    write_buckets(HISTORY, tmp_path, n)
    assert_same(read_history(tmp_path), HISTORY)


def test_each_user_is_whole_in_one_bucket(folder):
    buckets = open_buckets(folder)
    assert (buckets.n, buckets.leaves, buckets.span, buckets.modules) == (4, 64, HISTORY.span, HISTORY.modules)
    bucket = leaf_of(HISTORY.user_ids) % 4
    for b, path in enumerate(buckets.paths):
        assert path.name == f"bucket-{b:05d}"
        assert_same(read_history(path), HISTORY.select_users(bucket == b))
    assert buckets.manifest.counts == {
        "users": HISTORY.n_users,
        "decisions": len(HISTORY.decisions),
        "events": len(HISTORY.events),
    }
    assert buckets.manifest.days == ("all",)


def test_columns_of_few_users_are_columns_of_all(tmp_path):
    """Arms, eligibility and messages that only one user has, users without rows, and ids that are numbers in part."""
    d, e = HISTORY.decisions, HISTORY.events
    arm = np.where(d.user == 3, "policy", None).astype(object)
    message = np.full(len(e), -1)
    own = np.flatnonzero(e.user == 5)[-3:]
    message[own] = np.flatnonzero(d.user == 5)[0]
    attribute = np.array([str(k) for k in range(59)] + ["a"], dtype=object)
    users = pd.DataFrame({"code": attribute, "age": np.where(np.arange(60) % 7, 30.0, np.nan)})
    history = History.from_arrays(
        replace(d, arm=arm),
        replace(e, message=message),
        modules=HISTORY.modules,
        user_ids=np.array(sorted([*map(str, range(100, 150)), *(f"n{k}" for k in range(10))]), dtype=object),
        event_names=HISTORY.event_names,
        span=HISTORY.span,
        users=users,
    )
    for n in (2, 64):
        write_buckets(history, tmp_path / str(n), n)
        assert_same(read_history(tmp_path / str(n)), history)
        for path in open_buckets(tmp_path / str(n)).paths:
            part = read_bucket(path)
            assert part.decisions.arm is not None
            assert part.events.message is not None
            assert list(part.user_ids) == sorted(part.user_ids)  # as text, also where all of a bucket are numbers
            assert_same(part, history.select_users(np.isin(history.user_ids, part.user_ids)))


@pytest.mark.parametrize("kind", ["integer", "text"])
def test_numbers_are_in_the_order_of_their_values(kind, tmp_path):
    ids = np.arange(60) * 7 + 2
    history = replace(HISTORY, users=None, user_ids=ids if kind == "integer" else ids.astype(str).astype(object))
    write_buckets(history, tmp_path, 8)
    assert_same(read_history(tmp_path), history)


def test_users_without_any_row_stay(tmp_path):
    few = HISTORY.select_users(np.arange(60) < 3)
    history = History.from_arrays(
        replace(few.decisions, user=few.decisions.user + 2),
        replace(few.events, user=few.events.user + 2),
        modules=few.modules,
        user_ids=np.array([f"u{k}" for k in range(6)], dtype=object),
        event_names=few.event_names,
        span=few.span,
    )
    write_buckets(history, tmp_path, 64)
    assert 1 < len(open_buckets(tmp_path).paths) <= 6
    assert_same(read_history(tmp_path), history)


def test_the_same_history_gives_the_same_bytes_and_another_one_replaces_it(folder, copy, tmp_path):
    write_buckets(HISTORY, tmp_path / "again", 4)
    for path in sorted(folder.rglob("*")):
        if path.is_file():
            assert (tmp_path / "again" / path.relative_to(folder)).read_bytes() == path.read_bytes()
    write_buckets(HISTORY.select_users(np.arange(60) < 30), copy, 2)
    assert [path.name for path in open_buckets(copy).paths] == ["bucket-00000", "bucket-00001"]
    assert sorted(path.name for path in copy.iterdir() if path.is_dir()) == ["bucket-00000", "bucket-00001"]


def edit(folder, **changes):
    manifest = folder / "buckets.json"
    manifest.write_text(json.dumps(json.loads(manifest.read_text()) | changes))


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"format": "something else"}, "this is not 'crosschannel buckets'"),
        ({"version": 1}, "version is 1, but only 2 can be read.*with this version of the package"),
        ({"buckets": 3}, "3 buckets do not divide 64 leaves"),
        ({"buckets": 2}, "is not a file of one of 2 buckets"),
        ({"buckets": "4"}, "'4' is not a number"),
        ({"leaves": 63}, "power of two"),
        ({"counts": {"users": 59}}, "`counts` are"),
        ({"files": {"../log": {}}}, r"'\.\./log' is not a file"),
        ({"files": None}, "damaged"),
        ({"modules": []}, "damaged"),
        ({"span": ["2024-01-01"]}, "damaged"),
        ({"ties": "never"}, "before, after or null"),
        ({"event_names": [1]}, "not a list of texts"),
        ({"numbered": 1}, "is not true or false"),
    ],
)
def test_a_damaged_manifest_is_refused(copy, change, message):
    edit(copy, **change)
    with pytest.raises(InputError, match=message):
        open_buckets(copy)


def test_a_bucket_that_is_missing_cut_off_or_changed_is_named(copy):
    files = sorted((copy / "bucket-00002" / "events").iterdir())
    content = files[0].read_bytes()
    files[0].write_bytes(content[:-7])
    with pytest.raises(InputError, match=r"bucket-00002/events/.*bytes, but .* were written. It was cut off"):
        open_buckets(copy)
    files[0].write_bytes(content[:-1] + b"?")
    buckets = open_buckets(copy)
    for read in (lambda: read_bucket(copy / "bucket-00002"), buckets.verify, lambda: read_history(copy)):
        with pytest.raises(InputError, match=r"bucket-00002/events/.*checksum differs"):
            read()
    read_bucket(copy / "bucket-00001")
    files[0].unlink()
    with pytest.raises(InputError, match=r"bucket-00002/events/.*missing"):
        open_buckets(copy)
    shutil.rmtree(copy / "bucket-00002")
    with pytest.raises(InputError, match=r"bucket-00002: this part of a bucket is missing. Copy it too"):
        open_buckets(copy)
    (copy / "buckets.json").unlink()
    with pytest.raises(InputError, match="interrupted: run the same command again"):
        open_buckets(copy)
    with pytest.raises(InputError, match="there is no such folder"):
        open_buckets(copy / "nowhere")


def test_exchanged_buckets_are_named(copy):
    """Files under another bucket's name, with a manifest that says so: only the ids tell."""
    manifest = json.loads((copy / "buckets.json").read_text())
    swap = {"bucket-00000": "bucket-00001", "bucket-00001": "bucket-00000"}
    manifest["files"] = {swap.get(f[:12], f[:12]) + f[12:]: one for f, one in manifest["files"].items()}
    edit(copy, files=manifest["files"])
    for name, other in (("bucket-00000", "x"), ("bucket-00001", "bucket-00000"), ("x", "bucket-00001")):
        (copy / name).rename(copy / other)
    with pytest.raises(InputError, match="user belongs to the bucket 1"):
        read_bucket(copy / "bucket-00000")


def test_ids_that_are_not_the_numbers_of_the_manifest_are_named(copy):
    edit(copy, numbered=True)
    with pytest.raises(InputError, match=r"buckets\.json, column 'numbered': ids are said to be whole numbers"):
        read_history(copy)


def test_a_folder_has_one_writer(copy):
    with (copy / ".lock").open("ab") as held:
        assert lock(held)
        with pytest.raises(ConfigError, match="written by another process"):
            write_buckets(HISTORY, copy, 2)
    assert_same(read_history(copy), HISTORY)


def test_a_full_disk_leaves_what_was_there(copy, monkeypatch):
    def full(*_):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(writing.os, "replace", full)
    with pytest.raises(OutputError, match="No space left on device: what was written before stays"):
        write_buckets(HISTORY, copy, 2)
    assert_same(read_history(copy), HISTORY)
    assert not list(copy.rglob("*.part"))


def test_a_folder_that_cannot_be_made_is_named(tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(OutputError, match="cannot be written"):
        write_buckets(HISTORY, tmp_path / "file" / "buckets", 2)


@pytest.mark.parametrize("n", [0, 3, 128])
def test_buckets_divide_leaves(tmp_path, n):
    with pytest.raises(ConfigError, match="buckets"):
        write_buckets(HISTORY, tmp_path, n)
    write_buckets(HISTORY, tmp_path, 128, leaves=128)


def test_what_cannot_be_read_back_is_not_written(tmp_path):
    with pytest.raises(InputError, match="1990"):
        write_buckets(random_history(0), tmp_path / "b", 2)
    assert not (tmp_path / "b").exists()
