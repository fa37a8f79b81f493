"""What follows each step of a replay log: the same user's next step, the end of the user, or the end of the log."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from crosschannel.core.arrays import BoolArray, FloatArray, IntArray
from crosschannel.envs.replay.log import ReplayLog


@dataclass(frozen=True, eq=False)
class TransitionIndex:
    """The step after each of a log's n steps. Where there is none and no end of the user, what follows is unknown.

    Attributes:
        next_row: Row of the same user's next step (n,); -1 where there is none.
        steps_to_next: Slots until then (n,): the time in median gaps between a user's steps, so that slots that are no
            steps count. NaN where there is none.
        terminal: Whether the user unsubscribed or left after the step, so that nothing follows (n,).
    """

    next_row: IntArray
    steps_to_next: FloatArray
    terminal: BoolArray

    @classmethod
    def from_log(cls, log: ReplayLog) -> TransitionIndex:
        """Index the transitions of a log."""
        followed = log.following >= 0
        gap = log.time[log.following[followed]] - log.time[followed]
        steps = np.full(len(log), np.nan)
        steps[followed] = gap / (float(np.median(gap)) if len(gap) else 1.0)
        return cls(log.following, steps, ~followed & log.gone[log.user])
