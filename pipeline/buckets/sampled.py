"""Buckets that are read once for all of their users and for a sample of them, which checks and settings rest on."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from crosschannel.core.hashing import in_sample
from crosschannel.histories.buckets import Buckets
from crosschannel.histories.history import History
from crosschannel.pipeline.buckets.columns import write_columns
from crosschannel.pipeline.buckets.reading import SAMPLE, SAMPLE_SALT, merge_columns, order_of_sample, share_of_sample
from crosschannel.pipeline.configuration import Config

#: Below the folder of a bucket: the columns of all its users.
ALL = "all"


@dataclass(frozen=True)
class SampledBucket:
    """One bucket to read.

    Attributes:
        path: The bucket.
        folder: Where its columns are written.
        config: The configuration.
        share: Share of the users who are in the sample.
    """

    path: Path
    folder: Path
    config: Config
    share: float

    def write_sample(self, history: History) -> None:
        """Write the columns of those of the bucket's users who are in the sample."""
        chosen = in_sample(history.user_keys, self.share, SAMPLE_SALT)
        write_columns(history.select_users(chosen), self.folder / SAMPLE, decides=True)


def sampled_buckets(buckets: Buckets, config: Config, scratch: Path, most: int) -> list[SampledBucket]:
    """Return what is to be read of each bucket, with columns below a folder, for a sample of `most` users or none."""
    share = share_of_sample(most, buckets.manifest.counts["users"]) if most else 0.0
    return [SampledBucket(path, scratch / path.name, config, share) for path in buckets.paths]


def merge_samples(folders: Sequence[Path], buckets: Buckets, most: int) -> History:
    """Return the history of at most `most` users, those with the smallest hashes, of the samples of all buckets."""
    found = merge_columns([folder / SAMPLE for folder in folders], buckets)
    if found.n_users <= most:
        return found
    chosen = np.zeros(found.n_users, dtype=bool)
    chosen[order_of_sample(found)[:most]] = True
    return found.select_users(chosen)
