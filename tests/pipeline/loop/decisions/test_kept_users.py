"""What decisions by bucket keep of users on disk is read as it was."""

from __future__ import annotations

from dataclasses import fields
from pathlib import Path

import numpy as np
import pytest

from crosschannel.pipeline.loop.decisions.day_users import DayUsers
from crosschannel.pipeline.loop.decisions.vote_files import VoteFiles
from crosschannel.pipeline.priced_votes import PricedVotes
from tests.samples import random_history

MODULES = random_history(0, users=2, days=2).modules


@pytest.mark.parametrize("ids", [np.array([3, 20, 100]), np.array(["ä", "b,c", "007"], dtype=object), np.zeros(0, "O")])
def test_users(ids: np.ndarray, tmp_path: Path) -> None:
    n = len(ids)
    users = DayUsers(
        user_ids=ids,
        arm=np.array(["agent", "holdout", "business_as_usual"], dtype=object)[:n],
        users=np.arange(n),
        decides=np.arange(n) == 0,
        waits=np.arange(n) == 1,
        churned=np.arange(n) == 2,
        unguarded=np.ones((n, MODULES.total), dtype=bool),
        eligible=np.zeros((n, MODULES.total), dtype=bool),
        contexts=np.array([f"{k:016x}" for k in range(n)], dtype=object),
        modules=MODULES,
        log_ends=1_700_000_000_000_000,
    )
    users.write(tmp_path)
    found = DayUsers.read(tmp_path)
    for field in fields(users):
        expected, value = getattr(users, field.name), getattr(found, field.name)
        if isinstance(expected, np.ndarray):
            assert value.tolist() == expected.tolist(), field.name
            assert value.dtype.kind == expected.dtype.kind or not n, field.name
        else:
            assert value == expected, field.name


def test_votes_in_blocks(tmp_path: Path) -> None:
    """Blocks are written in any order, also twice; the arrays are those of all rows to the last bit."""
    rng = np.random.default_rng(0)
    votes = PricedVotes(
        values=np.asfortranarray(rng.standard_normal((4, 10, 3)).astype(np.float32)),
        mask=rng.random((10, 3)) < 0.5,
        use=rng.random((2, 10, 3)),
        later=(rng.random((10, 3, 2)), rng.random((10, 4))),
        floor=0.02,
    )

    def part(rows: slice) -> PricedVotes:
        arrays = {name: array[(slice(None),) * axis + (rows,)] for name, (array, axis) in votes.arrays().items()}
        return PricedVotes.from_arrays(arrays, votes.floor)

    files = VoteFiles.create(tmp_path, 10, part(slice(0, 1)))
    for rows in (slice(7, 10), slice(0, 4), slice(4, 7), slice(0, 4)):
        files.write(rows.start, part(rows))
    for name, (array, _) in files.read().arrays().items():
        np.testing.assert_array_equal(array, votes.arrays()[name][0])
        assert array.dtype == votes.arrays()[name][0].dtype
    for name, (array, _) in files.read_block(slice(3, 8)).arrays().items():
        np.testing.assert_array_equal(array, part(slice(3, 8)).arrays()[name][0])
    assert files.read().floor == votes.floor
