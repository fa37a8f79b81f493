"""What follows each replayed decision, for agents that look further than the slot."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from crosschannel.agents import Observations
from crosschannel.core.arrays import FloatArray, IntArray, UIntArray
from crosschannel.envs.replay.log import ReplayLog


@dataclass(frozen=True)
class Followers:
    """The next step of each step of a log, found by the decisions' keys.

    Attributes:
        log: The log.
        order: Its rows by key (n,).
        slot: Microseconds from slot to slot: the median gap between a user's steps, so that skipped slots count.
    """

    log: ReplayLog
    order: IntArray
    slot: float

    @classmethod
    def of(cls, log: ReplayLog) -> Followers:
        """Prepares a log."""
        row = np.flatnonzero(log.following >= 0)
        gaps = log.time[log.following[row]] - log.time[row]
        return cls(log, np.argsort(log.keys, kind="stable"), float(np.median(gaps)) if len(gaps) else 1.0)

    def rows(self, keys: UIntArray) -> IntArray:
        """The log's row of each decision (N,), by its key."""
        return np.asarray(self.order[np.searchsorted(self.log.keys, keys, sorter=self.order)])

    def observations(self, rows: IntArray) -> Observations:
        """What was known at rows of the log (N,), and of whom."""
        log = self.log
        return Observations(log.context[rows], log.action_mask[rows], log.user_keys[log.user[rows]])

    def after(self, rows: IntArray) -> tuple[Observations, FloatArray]:
        """What was known at the step after each of these rows (N,), and how many slots later: `Batch.elapsed`."""
        log = self.log
        following = log.following[rows]
        gap = (log.time[following] - log.time[rows]) / self.slot
        ends = np.where(log.gone[log.user[rows]], 0.0, np.nan)
        return self.observations(following), np.where(following >= 0, gap, ends)
