"""The lists of users who may get messages, divided by bucket: each user has the own entry, and never another one's."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from crosschannel.core.errors import InputError
from crosschannel.pipeline.loop.decisions.bucket_lists import ListedBucket
from tests.samples import random_history


def test_each_user_has_the_own_entry():
    history = random_history(0, users=6)
    order = np.array([3, 1, 5, 0, 4, 2])
    eligible = np.arange(6 * history.modules.total).reshape(6, -1) % 5 == 0
    listed = np.arange(6) % 2 == 0
    bucket = ListedBucket(Path("bucket-00000"), history.user_ids[order].astype(str), eligible[order], listed[order])
    np.testing.assert_array_equal(bucket.eligible_of(history), eligible)
    np.testing.assert_array_equal(bucket.listed_of(history), listed)


def test_a_user_without_an_entry_does_not_get_that_of_another():
    history = random_history(0, users=6)
    ids = history.user_ids[:4].astype(str).astype(object)
    everything = np.ones((4, history.modules.total), dtype=bool)
    bucket = ListedBucket(Path("bucket-00000"), ids, everything, np.ones(4, dtype=bool))
    for of in (bucket.eligible_of, bucket.listed_of):
        with pytest.raises(InputError, match="not in the bucket's table of users") as refused:
            of(history)
        (fault,) = refused.value.faults
        assert (fault.file, fault.column, fault.count) == ("bucket-00000", "user_id", 2)
        assert fault.value == history.user_ids[4]
