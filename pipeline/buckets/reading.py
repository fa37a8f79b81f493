"""Read every bucket once: count its users, and keep what later passes need as columns."""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from crosschannel.core.arrays import BoolArray, IntArray
from crosschannel.core.errors import ConfigError, OutputError
from crosschannel.core.hashing import derive, in_sample
from crosschannel.core.wording import counted
from crosschannel.histories.buckets import Buckets, is_bucketed, open_buckets, read_bucket
from crosschannel.histories.buckets.merging import merge
from crosschannel.histories.history import History
from crosschannel.histories.splits import split_users
from crosschannel.pipeline.buckets.columns import read_columns, write_columns
from crosschannel.pipeline.buckets.facts import Facts, add_facts
from crosschannel.pipeline.buckets.passes import Passes
from crosschannel.pipeline.configuration import Config
from crosschannel.pipeline.reading import with_declared

FACTS_FILE = "facts.json"
#: The users who are test users of two runs that are compared, beside the names of the parts.
COMMON = "common"
SAMPLE_SALT = 0x73616D706C65
OVERSAMPLING = 1.1
#: Below the folder of a bucket: columns of its training users, of its users in the sample, and of all.
TRAIN, SAMPLE, ALL = "train", "sample", "all"


def reads_buckets(config: Config) -> bool:
    """Return whether a configuration's history is a bucketed folder."""
    source = config.history
    return source.source == "folder" and source.path is not None and is_bucketed(source.path)


@dataclass(frozen=True)
class BucketedLog:
    """A bucketed folder, read once.

    Attributes:
        buckets: The folder.
        facts: What all its buckets hold.
        folders: Where each bucket's columns are: of its training users (`train`), and of the users in the sample.
        sample: The users that are judged, and those that the context and the settings of rewards are fitted on.
        fingerprint: Fingerprint of the whole log, however it is divided.
    """

    buckets: Buckets
    facts: Facts
    folders: tuple[Path, ...]
    sample: History
    fingerprint: str


@dataclass(frozen=True)
class _Reading:
    """One bucket to read.

    Attributes:
        path: The bucket.
        folder: Where its columns are written.
        source: What identifies its files.
        config: The configuration.
        shares: Share of the users of each part that are in the sample.
        learns: Whether columns of the training users are kept.
        beside: The configuration of the run that this one is compared with, if it is.
    """

    path: Path
    folder: Path
    source: str
    config: Config
    shares: dict[str, float]
    learns: bool
    beside: Config | None = None


def read_log(
    config: Config, scratch: Path, passes: Passes, *, learns: bool, beside: Config | None = None
) -> BucketedLog:
    """Read every bucket of a configuration's history; buckets that were read before are not read again.

    Args:
        config: The configuration, whose history is a bucketed folder.
        scratch: Folder for the columns.
        passes: How functions run over buckets.
        learns: Whether columns of all training users are kept.
        beside: The configuration of a run that this one is compared with: users who are test users of both come into
            the sample of test users before others, and they are the same ones in the sample of either run.

    Raises:
        ConfigError: If settings do not fit the history, or cannot be used with buckets.
        InputError: If a bucket cannot be read.
    """
    source = config.history
    assert source.path is not None  # `reads_buckets` says so
    if source.decided is not None:
        raise ConfigError("history.decided: decisions by date do not join buckets yet: leave it out")
    buckets = open_buckets(source.path)
    users = buckets.manifest.counts["users"]
    readings = [
        _Reading(
            path=path,
            folder=scratch / "columns" / path.name,
            source=_identity(buckets, path),
            config=config,
            shares=_shares_of_sample(config, users, beside),
            learns=learns,
            beside=beside,
        )
        for path in buckets.paths
    ]
    facts = add_facts(list(passes.run(_read, readings, "reading buckets")))
    folders = tuple(reading.folder for reading in readings)
    sample = _at_most(merge_columns([folder / SAMPLE for folder in folders], buckets), config, beside)
    return BucketedLog(
        buckets=buckets, facts=facts, folders=folders, sample=sample, fingerprint=facts.fingerprint(sample)
    )


def merge_columns(folders: Sequence[Path], buckets: Buckets) -> History:
    """Return the history of the users whose columns are in some folders."""
    return merge([read_columns(folder) for folder in folders], by_value=buckets.manifest.numbered)


def sample_sizes(config: Config) -> dict[str, int]:
    """Return the most users of each part that are in the sample: `evaluation.max_users`, and half of that elsewhere."""
    most = config.evaluation.max_users
    return {"train": max(most // 2, 1), "validation": max(most // 2, 1), "test": most}


def _shares_of_sample(config: Config, users: int, beside: Config | None = None) -> dict[str, float]:
    """Return shares that hardly ever give fewer users than the sizes, and not many more: `_at_most` takes these."""
    parts, sizes = dict(config.split.shares), sample_sizes(config)
    if beside is not None:
        same = (config.seed, config.split) == (beside.seed, beside.split)
        parts[COMMON] = parts["test"] * (1.0 if same else beside.split.shares["test"])
        sizes[COMMON] = sizes["test"]
    return {name: share_of_sample(size, users * parts[name]) for name, size in sizes.items()}


def share_of_sample(size: int, users: float) -> float:
    """Return a share of the users that hardly ever gives fewer than a number of them, and not many more."""
    return OVERSAMPLING * (size + 10.0) / max(users, 1.0)


def _at_most(sample: History, config: Config, beside: Config | None = None) -> History:
    """Return the history of the users with the smallest hashes, where a part has more than its size."""
    part = split_users(sample.user_keys, config.split.shares, config.seed)
    chosen = np.ones(sample.n_users, dtype=bool)
    rank = order_of_sample(sample)
    if beside is not None:  # users of both runs before others, each in their order
        rank = rank[np.argsort(~_common(sample, config, beside)[rank], kind="stable")]
    for name, size in sample_sizes(config).items():
        mine = rank[part[rank] == name]
        chosen[mine[size:]] = False
    return sample if chosen.all() else sample.select_users(chosen)


def _common(history: History, config: Config, beside: Config) -> BoolArray:
    """Mark the users (U,) who are test users of two runs."""
    one, other = (split_users(history.user_keys, run.split.shares, run.seed) for run in (config, beside))
    return np.asarray((one == "test") & (other == "test"))


def order_of_sample(sample: History) -> IntArray:
    """Return the users (U,) in the order in which they enter the sample."""
    return np.argsort(derive(sample.user_keys, SAMPLE_SALT), kind="stable")


def _read(reading: _Reading) -> Facts:
    """Read a bucket, write its columns and return its facts; from the columns where they stand already."""
    done = reading.folder / FACTS_FILE
    if done.is_file():
        content = json.loads(done.read_text())
        if content["source"] == reading.source:
            return Facts.from_dict(content["facts"])
    config = reading.config
    history = with_declared(read_bucket(reading.path), config.history)
    part = split_users(history.user_keys, config.split.shares, config.seed)
    train = history.select_users(part == "train")
    facts = Facts.of_bucket(history, train, config.reward)
    draft = reading.folder.with_name(reading.folder.name + ".draft")
    shutil.rmtree(draft, ignore_errors=True)
    shutil.rmtree(reading.folder, ignore_errors=True)
    chosen = np.zeros(history.n_users, dtype=bool)
    members = {name: part == name for name in sample_sizes(config)}
    if reading.beside is not None:
        members[COMMON] = _common(history, config, reading.beside)
    for name, mine in members.items():
        chosen |= mine & in_sample(history.user_keys, reading.shares[name], SAMPLE_SALT)
    write_columns(history.select_users(chosen), draft / SAMPLE, decides=True)
    if reading.learns:
        write_columns(train, draft / TRAIN, decides=False)
    try:
        (draft / FACTS_FILE).write_text(json.dumps({"source": reading.source, "facts": facts.to_dict()}))
        os.replace(draft, reading.folder)
    except OSError as error:
        raise OutputError(f"{reading.folder} cannot be written: {error.strerror or error}") from None
    return facts


def _identity(buckets: Buckets, path: Path) -> str:
    """Return what identifies the content of a bucket: the checksums of its files."""
    files = buckets.manifest.files
    return " ".join(f"{name}:{files[name].md5}" for name in sorted(files) if name.startswith(f"{path.name}/"))


def train_columns(log: BucketedLog) -> Iterator[Path]:
    """Yield where the columns of each bucket's training users are."""
    return (folder / TRAIN for folder in log.folders)


def summary(log: BucketedLog) -> str:
    """Return a line with what a log holds, then the notes of its sample."""
    facts, name = log.facts, log.sample.name
    unknown = f", {facts.unknown:,} without a propensity" if facts.unknown else ""
    line = (
        f"{name}: {counted(facts.users, 'user')} in {counted(len(log.folders), 'bucket')}, "
        f"{counted(facts.decisions, 'decision')} "
        f"({facts.sent:,} sent{unknown}), {counted(facts.events, 'event')} of "
        f"{counted(len(log.sample.event_names), 'kind')}"
    )
    return "\n".join((line, *log.sample.notes))


@dataclass(frozen=True)
class SampledBucket:
    """One bucket that is read for all of its users, and for a sample of them.

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
