"""Rows of a leaf come back as they were written, in blocks of one size, and what was changed is refused."""

from __future__ import annotations

from dataclasses import fields, replace
from pathlib import Path

import numpy as np
import pytest

from crosschannel.agents.leaves.leaves import leaves_per_task
from crosschannel.agents.leaves.rows import LeafRows, blocks
from crosschannel.core.errors import ConfigError
from crosschannel.core.hashing import in_sample
from tests.agents.leaves.samples import WORLD, write_leaves


def columns(rows: LeafRows) -> dict[str, np.ndarray]:
    return {f.name: np.asarray(getattr(rows, f.name)) for f in fields(rows) if getattr(rows, f.name) is not None}


def assert_same(found: LeafRows, wanted: LeafRows) -> None:
    assert columns(found).keys() == columns(wanted).keys()
    for name, column in columns(wanted).items():
        assert columns(found)[name].dtype == column.dtype, name
        assert columns(found)[name].tobytes() == column.tobytes(), name


def test_what_is_written_is_read(tmp_path: Path) -> None:
    rows = LeafRows.from_batch(WORLD.log(50))
    digest = rows.write(tmp_path / "leaf")
    assert_same(LeafRows.open(tmp_path / "leaf", check=True), rows)
    assert digest == rows[:].write(tmp_path / "again")
    assert digest != rows[::-1].write(tmp_path / "other")


@pytest.mark.parametrize("size", [1, 7, 64, 1000])
def test_blocks_have_one_size_whatever_the_leaves(tmp_path: Path, size: int) -> None:
    leaves = write_leaves(WORLD.log(300, users=40), tmp_path, 8)
    found = list(blocks(leaves.parts, size))
    assert [len(block) for block in found[:-1]] == [size] * (300 // size - (300 % size == 0)) * bool(size < 300)
    whole = LeafRows.joined([LeafRows.open(folder)[:] for folder in leaves.parts])
    assert_same(LeafRows.joined(found), whole)


def test_a_leaf_without_rows(tmp_path: Path) -> None:
    LeafRows.from_batch(WORLD.log(10))[:0].write(tmp_path / "leaf")
    assert len(LeafRows.open(tmp_path / "leaf", check=True)) == 0
    assert list(blocks([tmp_path / "leaf"])) == []


@pytest.mark.parametrize("damage", ["truncated", "missing", "changed", "no description"])
def test_damaged_leaves_are_refused(tmp_path: Path, damage: str) -> None:
    LeafRows.from_batch(WORLD.log(50)).write(tmp_path / "leaf")
    file = tmp_path / "leaf" / "reward.npy"
    if damage == "truncated":
        file.write_bytes(file.read_bytes()[:-40])
    elif damage == "missing":
        file.unlink()
    elif damage == "changed":
        content = bytearray(file.read_bytes())
        content[-1] ^= 1
        file.write_bytes(content)
    else:
        (tmp_path / "leaf" / "leaf.json").unlink()
    with pytest.raises(ConfigError, match="does not hold the rows of a leaf as they were written"):
        LeafRows.open(tmp_path / "leaf", check=True)


def test_a_sample_has_its_share_and_does_not_depend_on_other_rows() -> None:
    rows = LeafRows.from_batch(WORLD.log(20_000))
    chosen = in_sample(rows.key, 0.1, 7)
    assert abs(chosen.mean() - 0.1) < 4 * np.sqrt(0.09 / 20_000)
    assert (in_sample(rows.key[::3], 0.1, 7) == chosen[::3]).all()
    assert in_sample(rows.key, 1.0, 7).all()
    both = (chosen & in_sample(rows.key, 0.1, 8)).mean()
    assert abs(both - 0.01) < 4 * np.sqrt(0.0099 / 20_000)


def test_few_rows_are_one_task_and_many_are_groups_of_leaves(tmp_path: Path) -> None:
    """By the number of rows and leaves alone, so that sums have the same bits however a log is divided."""
    leaves = write_leaves(WORLD.log(200), tmp_path)
    for rows, wanted in ((200, [16]), (65_536, [16]), (65_537, [8, 8])):
        found = replace(leaves, per_task=leaves_per_task(rows, 16))
        assert [len(task) for task in found.tasks] == wanted


def test_rows_in_memory_are_those_on_disk(tmp_path: Path) -> None:
    leaves = write_leaves(WORLD.log(500), tmp_path)
    here = [LeafRows.open(part)[:] for part in leaves.parts if isinstance(part, Path)]
    for one, other in zip(blocks(here, 100), blocks(leaves.parts, 100), strict=True):
        assert np.array_equal(one.key, other.key)
        assert np.array_equal(one.context, other.context)
