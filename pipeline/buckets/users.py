"""The users of a log in buckets, one row each, and what they did, added up bucket by bucket: for randomised trials.

Who is in which arm since when needs a few decisions of each user, and no event; what users did is added up where their
events are. So a few buckets of rows are in memory at a time, and one row a user.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path

import numpy as np
import pandas as pd

from crosschannel.core.arrays import FloatArray, IntArray
from crosschannel.core.times import parse_moment
from crosschannel.evaluation.trials.outcomes import Outcome, amounts, sends
from crosschannel.histories.buckets import open_buckets, read_bucket
from crosschannel.histories.buckets.merging import merge
from crosschannel.histories.history import History
from crosschannel.histories.logs import take_rows
from crosschannel.pipeline.buckets.columns import read_columns, write_columns
from crosschannel.pipeline.buckets.passes import Passes
from crosschannel.pipeline.building import with_declared
from crosschannel.pipeline.configuration import Config
from crosschannel.pipeline.run_files import scratch_folder

#: Below the folder of a bucket: all its rows, and its users with few of their decisions.
ALL, USERS = "all", "users"


def why_whole_trial(config: Config) -> str | None:
    """Return why a trial on a log in buckets needs the whole log in memory; None where it does not."""
    if config.history.decided is not None:
        return "history.decided: decisions by date do not join buckets yet"
    return None


@contextmanager
def users_of_buckets(
    config: Config, start: str | None, folder: Path, passes: Passes
) -> Iterator[tuple[History, BucketAmounts]]:
    """Read every bucket once; yield its users, and what adds up what they did.

    The history has all users, and of their decisions those that tell arms and enrolment: see `few_decisions`. It has no
    events.

    Args:
        config: The configuration, whose history is a bucketed folder.
        start: When the trial starts, if that is declared.
        folder: Below which columns are written while this lasts.
        passes: How functions run over buckets.

    Raises:
        InputError: If a bucket cannot be read.
    """
    assert config.history.path is not None  # the history is a bucketed folder
    buckets = open_buckets(config.history.path)
    begin = None if start is None else parse_moment(start)
    with scratch_folder(folder) as scratch:
        readings = [_Reading(path, scratch / path.name, config, begin) for path in buckets.paths]
        ids = list(passes.run(_read, readings, "reading buckets"))
        parts = [read_columns(reading.folder / USERS) for reading in readings]
        users = merge(parts, by_value=buckets.manifest.numbered)
        place = pd.Index(users.user_ids.astype(str))
        codes = tuple(np.asarray(place.get_indexer(pd.Index(one)), dtype=np.int64) for one in ids)
        yield users, BucketAmounts(tuple(each.folder / ALL for each in readings), codes, scratch, passes)


@dataclass(frozen=True)
class _Reading:
    """One bucket to read.

    Attributes:
        path: The bucket.
        folder: Where its columns are written.
        config: The configuration.
        start: When the trial starts, microseconds, if that is declared.
    """

    path: Path
    folder: Path
    config: Config
    start: int | None


def _read(reading: _Reading) -> list[str]:
    """Read a bucket and write its columns; return the ids of its users, as texts."""
    history = with_declared(read_bucket(reading.path), reading.config.history)
    write_columns(history, reading.folder / ALL, decides=False)
    rows = few_decisions(history, reading.start)
    nothing = np.zeros(0, dtype=np.int64)
    few = replace(history, decisions=take_rows(history.decisions, rows), events=take_rows(history.events, nothing))
    write_columns(few, reading.folder / USERS, decides=False)
    ids: list[str] = history.user_ids.astype(str).tolist()
    return ids


def few_decisions(history: History, start: int | None) -> IntArray:
    """Return the decisions (n,) from which the same arms, starts and enrolments follow as from all of them, ascending.

    Of each user the first one with each arm and without one, the same from the start on where that is declared, and the
    last one.
    """
    d = history.decisions
    arm = np.zeros(len(d), dtype=np.int64) if d.arm is None else pd.factorize(d.arm)[0]
    kept = np.zeros(len(d), dtype=bool)
    for rows in (np.arange(len(d)), np.flatnonzero(d.time >= (0 if start is None else start))):
        kept[rows[~pd.DataFrame({"user": d.user[rows], "arm": arm[rows]}).duplicated().to_numpy(dtype=bool)]] = True
    kept[~pd.Series(d.user).duplicated(keep="last").to_numpy(dtype=bool)] = True
    return np.flatnonzero(kept)


@dataclass
class BucketAmounts:
    """Adds up what users did, bucket by bucket: as `Amounts` does for one history.

    What is found is kept in files below a folder, mapped into memory: of each outcome one number a user and look.

    Attributes:
        folders: Columns of each bucket.
        codes: Which of all users those of each bucket are (U_b,).
        scratch: Folder of the files.
        passes: How functions run over buckets.
        files: Number of files that were written.
    """

    folders: tuple[Path, ...]
    codes: tuple[IntArray, ...]
    scratch: Path
    passes: Passes
    files: int = field(default=0)

    def __call__(
        self, outcomes: Sequence[Outcome], user: IntArray, begin: IntArray, edges: IntArray
    ) -> list[FloatArray]:
        """Return the amounts (n, K) of each outcome."""
        return self._collected(_Amounts(tuple(outcomes)), len(outcomes), user, begin, edges)

    def sends(self, actions: Sequence[int | None], user: IntArray, begin: IntArray, end: int) -> list[FloatArray]:
        """Return the messages (n,) of each action."""
        edges = np.array([end], dtype=np.int64)
        return [found[:, 0] for found in self._collected(_Sends(tuple(actions)), len(actions), user, begin, edges)]

    def _collected(
        self, function: _Amounts | _Sends, wanted: int, user: IntArray, begin: IntArray, edges: IntArray
    ) -> list[FloatArray]:
        """Return what a function finds of some users, each (n, K), from all buckets."""
        if not wanted:
            return []
        place = np.full(sum(map(len, self.codes)), -1, dtype=np.int64)
        place[user] = np.arange(len(user))
        out = [self._file((edges.shape[-1], len(user))) for _ in range(wanted)]
        rows_of, items = [], []
        for folder, codes in zip(self.folders, self.codes, strict=True):
            own = np.flatnonzero(place[codes] >= 0)
            rows = place[codes[own]]
            rows_of.append(rows)
            items.append(_Users(folder, own, begin[rows], edges if edges.ndim == 1 else edges[rows]))
        found = self.passes.run(function, items, "what users did")
        for rows, of_bucket in zip(rows_of, found, strict=True):
            for one, values in zip(out, of_bucket, strict=True):
                one[:, rows] = values.T
        return [one.T for one in out]

    def _file(self, shape: tuple[int, ...]) -> FloatArray:
        self.files += 1
        path = self.scratch / f"amounts-{self.files}.npy"
        if 0 in shape:
            return np.zeros(shape)
        return np.lib.format.open_memmap(path, mode="w+", dtype=np.float64, shape=shape)


@dataclass(frozen=True)
class _Users:
    """Some users of a bucket, and the times that count.

    Attributes:
        folder: Columns of the bucket.
        user: Codes of the users in the bucket (n,), ascending.
        begin: When each one's time begins, microseconds (n,).
        edges: Ends (K,), the same for all, or (n, K).
    """

    folder: Path
    user: IntArray
    begin: IntArray
    edges: IntArray


@dataclass(frozen=True)
class _Amounts:
    outcomes: tuple[Outcome, ...]

    def __call__(self, users: _Users) -> list[FloatArray]:
        history = read_columns(users.folder)
        return [amounts(history, one, users.user, users.begin, users.edges) for one in self.outcomes]


@dataclass(frozen=True)
class _Sends:
    actions: tuple[int | None, ...]

    def __call__(self, users: _Users) -> list[FloatArray]:
        history, end = read_columns(users.folder), int(users.edges[-1])
        return [sends(history, one, users.user, users.begin, end)[:, None] for one in self.actions]
