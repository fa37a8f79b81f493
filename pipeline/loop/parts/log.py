"""A log as parts of its users: one history in memory, or the columns of buckets, of which a few are open at a time."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field, replace
from functools import partial
from pathlib import Path
from typing import Any, TypeVar

import numpy as np

from crosschannel.core.arrays import BoolArray, IntArray, UIntArray
from crosschannel.core.hashing import derive
from crosschannel.core.times import NEVER
from crosschannel.histories.buckets.leaves import DEFAULT_LEAVES
from crosschannel.histories.buckets.merging import merge
from crosschannel.histories.history import History
from crosschannel.histories.observation.slicing import until
from crosschannel.pipeline.buckets.columns import read_columns, write_columns
from crosschannel.pipeline.buckets.passes import Passes

#: Most users on whom contexts are scaled, and limits, strata and seasonality are fitted.
SAMPLE_USERS = 10_000
SAMPLE_SALT = 0x6C6F6F70

Part = History | Path
Result = TypeVar("Result")


@dataclass(frozen=True)
class LogParts:
    """A log as parts of its users. What is learned from it does not depend on how many there are.

    Attributes:
        parts: A history, or the columns of histories (`write_columns`); every user is in one of them.
        shared: A history with all that the parts have in common: modules, span, names.
        user_keys: Keys of all users (U,).
        observed_from: When their observation begins, microseconds (U,).
        decisions: Number of decisions.
        first_decision: Time of the first one, microseconds; `NEVER` without any.
        leaves: Number of leaves of users, by which rows are summed.
        sampled: The users of whom `sample` takes some.
        by_value: Whether ids of users are in the order of their values as whole numbers.
        passes: How functions run over parts.
        scratch: Folder for files; None where parts are in memory.
    """

    parts: tuple[Part, ...]
    shared: History
    user_keys: UIntArray
    observed_from: IntArray
    decisions: int
    first_decision: int
    leaves: int = DEFAULT_LEAVES
    sampled: History | None = None
    by_value: bool = False
    passes: Passes = field(default_factory=lambda: Passes(shows=False))
    scratch: Path | None = None

    @classmethod
    def from_history(cls, history: History) -> LogParts:
        """Return a history as the only part of a log."""
        return cls(
            parts=(history,),
            shared=history,
            user_keys=history.user_keys,
            observed_from=history.observed_from,
            decisions=len(history.decisions),
            first_decision=int(history.decisions.time.min(initial=NEVER)),
            sampled=history,
        )

    def run(self, function: Callable[[History], Result], what: str) -> Iterator[Result]:
        """Return what a function, which can be pickled, finds in one part after the other.

        Args:
            function: The function.
            what: What the progress bar calls the pass.
        """
        return self.passes.run(partial(_on_opened, function=function), self.parts, what)

    def sampled_users(self, time: int) -> BoolArray:
        """Mark the users (U,) of the sample at a time: of those observed before it, the ones with the smallest hashes.

        Later users do not change it, so that what is learned is a function of what the log held by then.
        """
        known = self.observed_from < time
        if known.sum() <= SAMPLE_USERS:
            return known
        rank = np.where(known, derive(self.user_keys, SAMPLE_SALT), np.iinfo(np.uint64).max)
        chosen = np.zeros(len(rank), dtype=bool)
        chosen[np.argsort(rank, kind="stable")[:SAMPLE_USERS]] = True
        return chosen

    def sample(self, time: int) -> History:
        """Return the history of the sample as it was at a time."""
        assert self.sampled is not None  # whoever made the parts has read it
        keys = self.user_keys[self.sampled_users(time)]
        chosen = np.isin(self.sampled.user_keys, keys)
        return until(self.sampled if chosen.all() else self.sampled.select_users(chosen), time)

    def with_sample(self, times: Sequence[int]) -> LogParts:
        """Return the log with what `sample` needs at some times, which is read where parts are on disk."""
        if self.scratch is None:
            return self
        keys = self.user_keys[np.any([self.sampled_users(time) for time in times], axis=0)]
        write = partial(_write_sample, keys=keys, folder=self.scratch)
        folders = self.passes.run(write, list(enumerate(self.parts)), "a sample of users")
        sampled = merge([read_columns(folder) for folder in folders], by_value=self.by_value)
        return replace(self, sampled=sampled)

    def folder(self, name: str) -> Path | None:
        """Return a folder for files, which may not be there yet; None where parts are in memory."""
        return None if self.scratch is None else self.scratch / name


def _on_opened(part: Part, function: Callable[[History], Any]) -> Any:
    return function(_opened(part))


def _opened(part: Part) -> History:
    return part if isinstance(part, History) else read_columns(part)


def _write_sample(numbered: tuple[int, Part], keys: UIntArray, folder: Path) -> Path:
    """Write the columns of the users with some keys below a folder; return where they are."""
    number, part = numbered
    history, target = _opened(part), folder / f"sample-{number:05d}"
    write_columns(history.select_users(np.isin(history.user_keys, keys)), target, decides=True)
    return target
