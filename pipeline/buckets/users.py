"""The users of a log in buckets, one row each, and what they did, added up bucket by bucket: for randomised trials.

Who is in which arm since when needs a few decisions of each user, and no event; what users did is added up where their
events are. So a few buckets of rows are in memory at a time, and one row a user.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from functools import partial, reduce
from operator import add
from pathlib import Path

import numpy as np
import pandas as pd

from crosschannel.core.arrays import FloatArray, IntArray
from crosschannel.core.errors import Fault, InputError
from crosschannel.core.times import parse_moment
from crosschannel.evaluation.trials.outcomes import Outcome, amounts, sends
from crosschannel.histories.buckets import Buckets, leaf_of, open_buckets, read_bucket
from crosschannel.histories.buckets.manifest import number_of
from crosschannel.histories.goals import Goal
from crosschannel.histories.history import History
from crosschannel.histories.logs import take_rows
from crosschannel.histories.observation.goal_events import goal_notes
from crosschannel.histories.observation.slicing import until
from crosschannel.pipeline.buckets.columns import read_columns, write_columns
from crosschannel.pipeline.buckets.passes import Passes
from crosschannel.pipeline.buckets.reading import ALL, SampledBucket, merge_columns, merge_samples, sampled_buckets
from crosschannel.pipeline.configuration import Config
from crosschannel.pipeline.loop.decisions.eligible import own_decisions
from crosschannel.pipeline.reading import with_declared
from crosschannel.pipeline.run_files import scratch_folder
from crosschannel.pipeline.watch.daily_rules import DecisionCounts

#: Below the folder of a bucket: its users with few of their decisions.
USERS = "users"


@dataclass(frozen=True)
class ReadUsers:
    """Buckets that were read once.

    Attributes:
        buckets: The folder.
        folders: Where each bucket's columns are.
        ids: Ids of each bucket's users, as texts.
        own_start: When a policy of this package decided first, microseconds; None if none has.
        counts: How many decisions the policy made at each time, and messages.
        passes: How functions run over buckets.
    """

    buckets: Buckets
    folders: tuple[Path, ...]
    ids: tuple[list[str], ...]
    own_start: int | None
    counts: DecisionCounts
    passes: Passes

    def users(self, start: int | None) -> History:
        """Return the history of all users with few of their decisions and no event: see `few_decisions`.

        Args:
            start: When the trial starts, microseconds; None: with the first decision that has an arm.
        """
        list(self.passes.run(partial(_write_few, start=start), self.folders, "decisions that tell arms"))
        return merge_columns([folder / USERS for folder in self.folders], self.buckets)

    def sample(self, most: int) -> History:
        """Return the history of at most so many users, chosen by a hash, whose columns were kept."""
        return merge_samples(self.folders, self.buckets, most)

    def amounts(self, users: History, scratch: Path) -> BucketAmounts:
        """Return what adds up what the users did, with files in a folder."""
        place = pd.Index(users.user_ids.astype(str))
        codes = tuple(np.asarray(place.get_indexer(pd.Index(one)), dtype=np.int64) for one in self.ids)
        return BucketAmounts(tuple(folder / ALL for folder in self.folders), codes, scratch, self.passes)


@contextmanager
def users_of_buckets(
    config: Config, start: str | None, goals: Sequence[Goal], folder: Path, passes: Passes
) -> Iterator[tuple[History, BucketAmounts]]:
    """Read every bucket once; yield its users, and what adds up what they did.

    The history has the cautions on goal events (`goal_notes`) of a sample of at most `evaluation.max_users` users.

    Args:
        config: The configuration, whose history is a bucketed folder.
        start: When the trial starts, if that is declared.
        goals: What is compared.
        folder: Below which columns are written while this lasts.
        passes: How functions run over buckets.

    Raises:
        InputError: If a bucket cannot be read.
    """
    with scratch_folder(folder) as scratch:
        most = config.evaluation.max_users
        read = read_users(config, scratch, passes, most=most)
        notes = goal_notes(read.sample(most), goals)
        users = read.users(None if start is None else parse_moment(start)).with_notes(notes)
        yield users, read.amounts(users, scratch)


def read_users(config: Config, scratch: Path, passes: Passes, now: int | None = None, most: int = 0) -> ReadUsers:
    """Read every bucket once, and keep its columns in a folder.

    Args:
        config: The configuration, whose history is a bucketed folder.
        scratch: The folder.
        passes: How functions run over buckets.
        now: Time up to which the log counts, microseconds; None for all of it.
        most: Most users of whom all is kept for a sample: see `ReadUsers.sample`.

    Raises:
        InputError: If a bucket cannot be read.
    """
    assert config.history.path is not None  # the history is a bucketed folder
    buckets = open_buckets(config.history.path)
    readings = sampled_buckets(buckets, config, scratch, most)
    found = list(passes.run(partial(_read, now=now), readings, "reading buckets"))
    own = [each.own_start for each in found if each.own_start is not None]
    return ReadUsers(
        buckets=buckets,
        folders=tuple(reading.folder for reading in readings),
        ids=tuple(each.ids for each in found),
        own_start=min(own, default=None),
        counts=reduce(add, (each.counts for each in found)),
        passes=passes,
    )


@dataclass(frozen=True)
class _Found:
    """What reading a bucket finds: see `ReadUsers`."""

    ids: list[str]
    own_start: int | None
    counts: DecisionCounts


def _read(reading: SampledBucket, now: int | None) -> _Found:
    """Read a bucket up to a time, microseconds (None for all of it), and write its columns."""
    declared = reading.config.history
    history = with_declared(read_bucket(reading.path, declared.decided), declared)
    if now is not None:
        history = until(history, now + 1)  # with the decisions for this very moment
    write_columns(history, reading.folder / ALL, decides=False)
    if reading.share:
        reading.write_sample(history)
    d, ids = history.decisions, history.user_ids.astype(str).tolist()
    own = d.time[own_decisions(d)]
    end = history.span[1] if now is None else now
    return _Found(ids, int(own.min()) if len(own) else None, DecisionCounts.from_history(history, end))


def _write_few(folder: Path, start: int | None) -> None:
    """Write the users of a bucket with few of their decisions: see `few_decisions`."""
    history = read_columns(folder / ALL)
    decisions = take_rows(history.decisions, few_decisions(history, start))
    events = take_rows(history.events, np.zeros(0, dtype=np.int64))
    write_columns(replace(history, decisions=decisions, events=events), folder / USERS, decides=False)


def few_decisions(history: History, start: int | None) -> IntArray:
    """Return the decisions (n,) from which the same arms, starts and enrolments follow as from all of them, ascending.

    Of each user the first one with each arm and without one, by a policy of this package and by others, the same from
    the start on where that is known, and the last one.
    """
    d = history.decisions
    arm = np.zeros(len(d), dtype=np.int64) if d.arm is None else pd.factorize(d.arm)[0]
    arm = 2 * arm + own_decisions(d)
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
        return self._collected(partial(_amounts, outcomes=tuple(outcomes)), len(outcomes), user, begin, edges)

    def sends(self, actions: Sequence[int | None], user: IntArray, begin: IntArray, end: int) -> list[FloatArray]:
        """Return the messages (n,) of each action."""
        edges = np.array([end], dtype=np.int64)
        of_bucket = partial(_sends, actions=tuple(actions))
        return [found[:, 0] for found in self._collected(of_bucket, len(actions), user, begin, edges)]

    def _collected(
        self,
        function: Callable[[_Users], list[FloatArray]],
        wanted: int,
        user: IntArray,
        begin: IntArray,
        edges: IntArray,
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


def _amounts(users: _Users, outcomes: tuple[Outcome, ...]) -> list[FloatArray]:
    """Return the amounts (n, K) of each outcome."""
    history = read_columns(users.folder)
    return [amounts(history, one, users.user, users.begin, users.edges) for one in outcomes]


def _sends(users: _Users, actions: tuple[int | None, ...]) -> list[FloatArray]:
    """Return the messages (n, 1) of each action."""
    history, end = read_columns(users.folder), int(users.edges[-1])
    return [sends(history, one, users.user, users.begin, end)[:, None] for one in actions]


def history_of_user(config: Config, user_id: str) -> History:
    """Return the history of the users who are in the bucket of one of them: no other bucket is read.

    Args:
        config: The configuration, whose history is a bucketed folder.
        user_id: The user's id, as text.

    Raises:
        InputError: If the bucket cannot be read, or has no users.
    """
    assert config.history.path is not None  # the history is a bucketed folder
    buckets = open_buckets(config.history.path)
    number = int(leaf_of(np.array([user_id], dtype=object), buckets.leaves)[0]) % buckets.n
    for path in buckets.paths:
        if number_of(path) == number:
            return with_declared(read_bucket(path, config.history.decided), config.history)
    problem, remedy = "the log has no such user", "Read the log of the decision."
    raise InputError([Fault(str(buckets.folder), problem, remedy, "user_id", value=user_id)])
