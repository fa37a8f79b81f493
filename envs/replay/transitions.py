"""Transitions of a replay log: each step leads to the user's next step, to churn, or to the end of the log."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from crosschannel.core.arrays import BoolArray, FloatArray, IntArray
from crosschannel.envs.replay.log import ReplayLog


@dataclass(frozen=True, eq=False)
class TransitionIndex:
    """The step after each of a log's n steps; without a next step and without churn, the next step is unknown.

    Attributes:
        next_row: Row of the same user's next step (n,); -1 if there is none.
        steps_to_next: Number of slots until then (n,): the time in units of the median gap between a user's steps, so
            that slots that are not steps count. NaN if there is none.
        terminal: Whether the user churned after the step, so that there is no next step (n,).
    """

    next_row: IntArray
    steps_to_next: FloatArray
    terminal: BoolArray

    @classmethod
    def from_log(cls, log: ReplayLog) -> TransitionIndex:
        """Index the transitions of a log."""
        followed = log.next_row >= 0
        gap = log.time[log.next_row[followed]] - log.time[followed]
        steps = np.full(len(log), np.nan)
        steps[followed] = gap / (float(np.median(gap)) if len(gap) else 1.0)
        return cls(log.next_row, steps, ~followed & log.churned[log.user])
