"""What one reading of a bucket tells of its users: numbers that add up, the largest amounts, and a fingerprint."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from functools import reduce
from operator import add
from typing import Any

import numpy as np

from crosschannel.core.hashing import DIGEST_SALTS, keys, row_hashes, sums_of_hashes
from crosschannel.core.times import duration
from crosschannel.histories.history import History
from crosschannel.histories.logs import NO_MESSAGE
from crosschannel.histories.propensities.sources import MISSING
from crosschannel.pipeline.cost_counts import CostCounts
from crosschannel.reward.buckets.passes import goals_to_measure
from crosschannel.reward.measurement.amounts import largest_amounts
from crosschannel.reward.spec import RewardSpec

_WORD = (1 << 64) - 1


@dataclass(frozen=True)
class Facts:
    """Numbers of a bucket, or of several: `+` adds other users.

    Attributes:
        users: Number of users.
        decisions: Number of decisions.
        sent: Number of messages.
        events: Number of events.
        unknown: Number of decisions without a propensity.
        largest: The largest amount of each goal that is measured, over the training users.
        costs: Cost events of the funnel among the training users, and their time.
        words: Sums of hashes of all rows, which do not depend on their order.
    """

    users: int
    decisions: int
    sent: int
    events: int
    unknown: int
    largest: tuple[float, ...]
    costs: CostCounts
    words: tuple[int, ...]

    @classmethod
    def of_bucket(cls, history: History, train: History, spec: RewardSpec) -> Facts:
        """Count what a bucket holds, given the history of its training users as well."""
        costs = () if spec.funnel is None else spec.funnel.costs
        d = history.decisions
        return cls(
            users=history.n_users,
            decisions=len(d),
            sent=int(history.modules.sends(d.actions).sum()),
            events=len(history.events),
            unknown=int((d.propensity_source == MISSING).sum()),
            largest=tuple(largest_amounts(goals_to_measure(spec), train).tolist()),
            costs=CostCounts.of(train, costs, duration(spec.post)),
            words=_words(history),
        )

    def __add__(self, other: Facts) -> Facts:
        return Facts(
            users=self.users + other.users,
            decisions=self.decisions + other.decisions,
            sent=self.sent + other.sent,
            events=self.events + other.events,
            unknown=self.unknown + other.unknown,
            largest=tuple(map(max, self.largest, other.largest)),
            costs=self.costs + other.costs,
            words=tuple((a + b) & _WORD for a, b in zip(self.words, other.words, strict=True)),
        )

    def to_dict(self) -> dict[str, Any]:
        """Return the numbers as plain values."""
        return asdict(self)

    @classmethod
    def from_dict(cls, data: dict[str, Any]) -> Facts:
        """Restore what `to_dict` returned, read from JSON."""
        return cls(**(_with_tuples(data) | {"costs": CostCounts(**_with_tuples(data["costs"]))}))

    def fingerprint(self, history: History) -> str:
        """Return a 128-bit digest, as text, of all that the buckets hold, given any of them: one for each division."""
        h = history
        plain = (h.span, h.event_names, h.churn_events, h.ties, h.modules.to_dict(), self.words, self.users)
        return hashlib.blake2b(repr(plain).encode(), digest_size=16).hexdigest()


def _with_tuples(data: dict[str, Any]) -> dict[str, Any]:
    return {name: tuple(value) if isinstance(value, list) else value for name, value in data.items()}


def _words(history: History) -> tuple[int, ...]:
    """Return sums of hashes of a history's decisions, events and users, modulo 2^64."""
    d, e, user = history.decisions, history.events, history.user_keys
    texts = [part for part in (d.arm, d.policy) if part is not None]
    eligible = [] if d.eligible is None else list(np.packbits(d.eligible, axis=1).T)
    decisions = row_hashes(
        user[d.user],
        [d.key, d.time, *d.actions.T, *d.propensity.T, d.joint, d.propensity_source, *eligible, *map(keys, texts)],
    )
    named = keys(np.array(history.event_names, dtype=object))
    events = row_hashes(user[e.user], [e.time, named[e.event] if len(named) else e.event, e.value])
    if e.message is not None:
        # Row by row, as a bucket in which no event names a decision has no such column.
        of_message, known = np.zeros(len(e), dtype=np.uint64), e.message >= 0
        of_message[known] = d.key[e.message[known]]
        events = np.where(e.message == NO_MESSAGE, events, row_hashes(events, [of_message]))
    attributes = [] if history.users is None else [history.users[name] for name in sorted(history.users.columns)]
    texts = [keys(np.asarray(column, dtype=object).astype(str).astype(object)) for column in attributes]
    users = row_hashes(user, [history.observed_from, history.observed_until, *texts])
    tables = (decisions, events, users)
    nothing = np.zeros(len(DIGEST_SALTS), np.uint64)
    found = sum((sums_of_hashes(rows, place) for place, rows in enumerate(tables)), nothing)
    return tuple(map(int, found))


def add_facts(parts: Sequence[Facts]) -> Facts:
    """Return the numbers of all buckets."""
    return reduce(add, parts)
