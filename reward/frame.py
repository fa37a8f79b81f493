"""The RewardFrame: one incremental reward per decision, with its error and what it rests on."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

import numpy as np
import pandas as pd

from histories.modules import BoolArray, FloatArray, IntArray

if TYPE_CHECKING:
    from reward.outcomes import Outcomes


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
        overlap: Whether another message falls into the pre or the post window.
        available_at: Microseconds since 1970 UTC at which the post window closes: no learner may use it earlier.
        reason: Why there is no reward: one of `REASONS`, `identified` where there is one.
    """

    reward: FloatArray
    se: FloatArray
    pre: FloatArray
    post: FloatArray
    counterfactual: FloatArray
    n_controls: IntArray
    overlap: BoolArray
    available_at: IntArray
    reason: IntArray

    def __len__(self) -> int:
        return len(self.reward)

    @property
    def identified(self) -> BoolArray:
        """Which decisions have a reward, (n,)."""
        return ~np.isnan(self.reward)

    def counts(self) -> dict[str, int]:
        """How many decisions have a reward, and how many lack one for each reason."""
        return {name: int((self.reason == code).sum()) for code, name in enumerate(REASONS)}

    def to_pandas(self) -> pd.DataFrame:
        """The columns as a table, with `reason` by name."""
        columns = {name: getattr(self, name) for name in self.__dataclass_fields__}
        columns["reason"] = np.asarray(REASONS, dtype=object)[self.reason]
        return pd.DataFrame(columns)


IDENTIFIED, OUTSIDE, OVERLAPPING, FEW_CONTROLS = range(4)
REASONS = (
    "identified",
    "window reaches outside the observed time",
    "window overlaps another message",
    "too few controls in the calendar cell",
)


def build_frame(
    overlap: Literal["shared", "exclude"],
    outcomes: Outcomes,
    reward: FloatArray,
    se: FloatArray,
    counterfactual: FloatArray,
    n_controls: FloatArray,
    few: BoolArray,
) -> RewardFrame:
    """Puts rewards (n,) into a frame, and NaN with its reason where a decision has none."""
    reason = np.full(len(outcomes), IDENTIFIED, dtype=np.int64)
    reason[few] = FEW_CONTROLS
    if overlap == "exclude":
        reason[outcomes.overlap] = OVERLAPPING
    reason[~outcomes.observed] = OUTSIDE
    ok = reason == IDENTIFIED
    return RewardFrame(
        reward=np.where(ok, reward, np.nan),
        se=np.where(ok, se, np.nan),
        pre=outcomes.pre,
        post=outcomes.post,
        counterfactual=np.where(ok, counterfactual, np.nan),
        n_controls=n_controls.astype(np.int64),
        overlap=outcomes.overlap,
        available_at=outcomes.available_at,
        reason=reason,
    )
