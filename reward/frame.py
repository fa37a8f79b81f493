"""The RewardFrame: one incremental reward per decision, with its error and what it rests on."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
import pandas as pd

from crosschannel.core.arrays import BoolArray, FloatArray, IntArray

if TYPE_CHECKING:
    from crosschannel.reward.controls import Expected
    from crosschannel.reward.measurement.outcomes import Outcomes


@dataclass(frozen=True)
class RewardFrame:
    """Rewards of the decisions of a history, in its order. All arrays (n,).

    Attributes:
        reward: Incremental reward of the action taken; NaN where the log does not identify one.
        se: Its standard error; NaN with the reward.
        pre: Goal value in the window before the decision, per length of the post window.
        post: Goal value in the window after the decision.
        counterfactual: Expected change without a message, which was subtracted.
        n_controls: Controls that `counterfactual` rests on.
        level: How often the decision's cell was widened until it had enough controls: 0 for the narrowest, then one
            for each step of `Matching.levels`; -1 where there is no reward.
        overlap: Whether another message falls into the pre or the post window, truncated or not.
        available_at: Microseconds since 1970 UTC at which the post window has closed, and all windows that the reward
            was learned from as well: those of the cell's controls, and for adjusted kinds, strata and learned limits
            those of the whole training history. No learner may use the reward earlier.
        reason: Why there is no reward: one of `REASONS`, `identified` where there is one.
        kept: Probability, by the log's propensities, that no later message takes the reward away: see `Outcomes.kept`.
    """

    reward: FloatArray
    se: FloatArray
    pre: FloatArray
    post: FloatArray
    counterfactual: FloatArray
    n_controls: IntArray
    level: IntArray
    overlap: BoolArray
    available_at: IntArray
    reason: IntArray
    kept: FloatArray

    def __len__(self) -> int:
        return len(self.reward)

    @property
    def identified(self) -> BoolArray:
        """Which decisions have a reward, (n,)."""
        return ~np.isnan(self.reward)

    def counts(self) -> dict[str, int]:
        """How many decisions have a reward, and how many lack one for each reason."""
        return {name: int((self.reason == code).sum()) for code, name in enumerate(REASONS)}

    def widened(self) -> dict[int, int]:
        """How many decisions have their reward from cells of each level that occurs."""
        levels, counts = np.unique(self.level[self.level >= 0], return_counts=True)
        return dict(zip(levels.tolist(), counts.tolist(), strict=True))

    def to_pandas(self) -> pd.DataFrame:
        """The columns as a table, with `reason` by name."""
        columns = {name: getattr(self, name) for name in self.__dataclass_fields__}
        columns["reason"] = np.asarray(REASONS, dtype=object)[self.reason]
        return pd.DataFrame(columns)


IDENTIFIED, OUTSIDE, OVERLAPPING, FEW_CONTROLS, TOO_SHORT, NO_RHYTHM, GONE = range(7)
REASONS = (
    "identified",
    "window reaches outside the observed time",
    "window overlaps another message",
    "too few controls in the calendar cell",
    "window cut too short by the next message",
    "no earlier time to learn the rhythm from",
    "slot after the user was gone",
)


def build_frame(outcomes: Outcomes, overlap: str, reward: FloatArray, expected: Expected) -> RewardFrame:
    """Puts rewards (n,) into a frame, and NaN with its reason where a decision has none."""
    reason = np.where(expected.level < 0, FEW_CONTROLS, IDENTIFIED)
    if overlap == "exclude":
        reason[outcomes.overlap] = OVERLAPPING
    unseen = ~outcomes.observed
    reason[unseen] = np.where(outcomes.reason == IDENTIFIED, OUTSIDE, outcomes.reason)[unseen]
    ok = reason == IDENTIFIED
    learned = np.maximum(expected.closes, outcomes.gauge.closes)
    return RewardFrame(
        reward=np.where(ok, reward, np.nan),
        se=np.where(ok, expected.se, np.nan),
        pre=outcomes.pre,
        post=outcomes.post,
        counterfactual=np.where(ok, expected.mean, np.nan),
        n_controls=expected.n.astype(np.int64),
        level=np.where(ok, expected.level, -1),
        overlap=outcomes.overlap,
        available_at=np.where(ok, np.maximum(outcomes.available_at, learned), outcomes.available_at),
        reason=reason,
        kept=outcomes.kept,
    )
