"""The files of --eligible and --only-users, divided by bucket: what may be sent to whom, and who may get messages."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pandas as pd

from crosschannel.core.arrays import BoolArray, IntArray, ObjectArray
from crosschannel.core.errors import Fault, InputError
from crosschannel.histories import Buckets, History
from crosschannel.histories.eligibility import eligible_of_users, users_on_list


@dataclass(frozen=True)
class ListedBucket:
    """A bucket, with its users' rows of the files of --eligible and --only-users.

    Attributes:
        path: The bucket.
        ids: Ids of the users as texts (u,); None without a file.
        eligible: What may be sent to them before guardrails (u, sum of actions); None without such a file.
        listed: Which of them are on the list of users who may get messages (u,); None without a list.
    """

    path: Path
    ids: ObjectArray | None = None
    eligible: BoolArray | None = None
    listed: BoolArray | None = None

    def eligible_of(self, history: History) -> BoolArray | None:
        """Return what may be sent to the users of the bucket's history (U, sum of actions).

        Raises:
            InputError: If a user of the history is not in the bucket's table of users.
        """
        return None if self.eligible is None else self.eligible[self._places(history)]

    def listed_of(self, history: History) -> BoolArray | None:
        """Return which users of the bucket's history are on the list (U,).

        Raises:
            InputError: If a user of the history is not in the bucket's table of users.
        """
        return None if self.listed is None else self.listed[self._places(history)]

    def _places(self, history: History) -> IntArray:
        assert self.ids is not None  # where there is a file
        place = np.asarray(pd.Index(self.ids).get_indexer(pd.Index(history.user_ids.astype(str))), dtype=np.int64)
        if len(unknown := np.flatnonzero(place < 0)):  # as an index, -1 would be the consent of another user
            raise InputError(
                [
                    Fault(
                        file=str(self.path),
                        column="user_id",
                        value=history.user_ids[unknown[0]],
                        count=len(unknown),
                        problem="the user is not in the bucket's table of users, for which --eligible and --only-users "
                        "were read",
                        remedy="The buckets changed meanwhile: decide again once they are written.",
                    )
                ]
            )
        return place


def list_buckets(buckets: Buckets, eligible: Path | None, only_users: Path | None) -> list[ListedBucket]:
    """Return each bucket with its users' rows of the files, whose faults are those for all buckets together.

    Args:
        buckets: The bucketed log.
        eligible: File of what may be sent: see `read_eligible`.
        only_users: File of the users who may get messages: see `read_user_list`.

    Raises:
        InputError: If a file cannot be read, or does not fit the users of all buckets together.
    """
    if eligible is None and only_users is None:
        return [ListedBucket(path) for path in buckets.paths]
    ids = [buckets.user_ids(path) for path in buckets.paths]
    everybody = np.concatenate(ids)
    ends = np.cumsum([len(one) for one in ids])[:-1]
    mask = None if eligible is None else eligible_of_users(eligible, buckets.modules, everybody)
    listed = None if only_users is None else users_on_list(only_users, everybody)
    masks, lists = _divided(mask, ends, len(ids)), _divided(listed, ends, len(ids))
    return [ListedBucket(*each) for each in zip(buckets.paths, ids, masks, lists, strict=True)]


def _divided(rows: BoolArray | None, ends: IntArray, parts: int) -> Sequence[BoolArray | None]:
    return [None] * parts if rows is None else np.split(rows, ends)
