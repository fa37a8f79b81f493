"""What a pass over the parts of a log tells of its days and users: digests, and which days have decisions."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from functools import partial, reduce
from operator import add

import numpy as np

from crosschannel.core.arrays import UIntArray
from crosschannel.histories.history import History
from crosschannel.histories.observation.digests import digests, words_by_day, words_of_users
from crosschannel.pipeline.loop.parts.log import LogParts


@dataclass(frozen=True)
class Survey:
    """What is known of a log up to its last slot.

    Attributes:
        days: A digest of each day that was looked at.
        users: Digests of what was known of the users before each slot, and after the last one.
        decided: Numbers of the slots that have decisions.
    """

    days: tuple[str, ...]
    users: tuple[str, ...]
    decided: frozenset[int]


def survey(log: LogParts, first: int, every: int, count: int, known: int = 0) -> Survey:
    """Make a pass over the parts of a log.

    Args:
        log: The log.
        first: When the first slot begins, microseconds since 1970 UTC.
        every: Length of a slot, microseconds.
        count: Number of slots.
        known: Number of first slots whose digests are known.
    """
    look = partial(_look, first=first, every=every, count=count, known=known)
    found = reduce(add, log.run(look, "digests of days"))
    h = log.shared
    common = repr((h.modules.to_dict(), h.event_names, h.churn_events, h.ties)).encode()
    named = (hashlib.blake2b(one.encode() + common, digest_size=16).hexdigest() for one in digests(found.users))
    return Survey(tuple(digests(found.days)), tuple(named), found.decided)


@dataclass(frozen=True)
class _Found:
    """Sums of hashes by day (count - known, 2) and of users (count + 1, 2), and slots with decisions; `+` adds them."""

    days: UIntArray
    users: UIntArray
    decided: frozenset[int]

    def __add__(self, other: _Found) -> _Found:
        return _Found(self.days + other.days, self.users + other.users, self.decided | other.decided)


def _look(history: History, first: int, every: int, count: int, known: int) -> _Found:
    return _Found(
        days=words_by_day(history, first, every, count, known),
        users=words_of_users(history, first + every * np.arange(count + 1)),
        decided=frozenset(np.unique((history.decisions.time - first) // every).tolist()),
    )
