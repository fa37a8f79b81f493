"""The RewardFrame: one incremental reward per decision, with its error and what it rests on."""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np
import pandas as pd

from crosschannel.core.arrays import BoolArray, FloatArray, IntArray
from crosschannel.reward.controls import ExpectedChange
from crosschannel.reward.funnel.record import Components
from crosschannel.reward.measurement.censoring import inverse_probability
from crosschannel.reward.measurement.outcomes import Outcomes
from crosschannel.reward.reason import REWARD_REASONS, Reason


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
        level: Level of the decision's cell in `Matching.levels`: 0 for the narrowest, then one more for each fallback
            until there were enough controls; -1 where there is no reward.
        overlap: Whether another message falls into the pre or the post window, truncated or not.
        available_at: Microseconds since 1970 UTC at which the post window has closed, and all windows that the reward
            was learned from as well: those of the cell's controls, and for adjusted kinds, strata and learned limits
            those of the whole training history. No learner may use the reward earlier.
        reason: Why there is no reward: a code of `Reason`, `Reason.IDENTIFIED` where there is one.
        p_uncensored: Probability, by the log's propensities, that no later message takes the reward away: see
            `Outcomes.p_uncensored`.
        components: The parts of a declared funnel (`RewardSpec.funnel`): see `Components`. None without one.
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
    p_uncensored: FloatArray
    components: Components | None = None

    def __len__(self) -> int:
        return len(self.reward)

    @property
    def identified(self) -> BoolArray:
        """Which decisions have a reward (n,)."""
        return ~np.isnan(self.reward)

    @property
    def ipc_weight(self) -> FloatArray:
        """How often each decision counts (n,), as `Outcomes.ipc_weight`: 1/p_uncensored, or 1 where that is unknown."""
        return inverse_probability(self.p_uncensored)

    def counts(self) -> dict[str, int]:
        """Count the decisions that have a reward, and those that lack one for each reason, by its text."""
        return {reason.text: int((self.reason == reason).sum()) for reason in REWARD_REASONS}

    def counts_by_level(self) -> dict[int, int]:
        """Count the decisions whose reward comes from cells of each level that occurs."""
        levels, counts = np.unique(self.level[self.level >= 0], return_counts=True)
        return dict(zip(levels.tolist(), counts.tolist(), strict=True))

    def without(self, rows: BoolArray, reason: Reason) -> RewardFrame:
        """Return the frame without the rewards of some decisions (n,), for a reason; their components stay."""
        if not rows.any():
            return self
        taken = rows & self.identified
        return replace(
            self,
            reward=np.where(taken, np.nan, self.reward),
            se=np.where(taken, np.nan, self.se),
            counterfactual=np.where(taken, np.nan, self.counterfactual),
            level=np.where(taken, -1, self.level),
            reason=np.where(taken, reason, self.reason),
        )

    def to_pandas(self) -> pd.DataFrame:
        """Return the columns as a table, with `reason` as text; with components, those of `Components.columns` too."""
        columns = {name: getattr(self, name) for name in self.__dataclass_fields__ if name != "components"}
        columns["reason"] = np.array([reason.text for reason in Reason], dtype=object)[self.reason]
        if self.components is not None:
            columns |= self.components.columns()
        return pd.DataFrame(columns)


def build_frame(outcomes: Outcomes, overlap: str, reward: FloatArray, expected: ExpectedChange) -> RewardFrame:
    """Build a frame from rewards (n,), with NaN and a reason where a decision has none."""
    reason = np.where(expected.level < 0, Reason.FEW_CONTROLS, Reason.IDENTIFIED)
    if overlap == "exclude":
        reason[outcomes.overlap] = Reason.OVERLAPPING
    unseen = ~outcomes.observed
    not_measured = np.where(outcomes.reason == Reason.IDENTIFIED, Reason.OUTSIDE_OBSERVATION, outcomes.reason)
    reason[unseen] = not_measured[unseen]
    ok = reason == Reason.IDENTIFIED
    learned = np.maximum(expected.closes_at, outcomes.preprocessing.closes_at)
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
        p_uncensored=outcomes.p_uncensored,
    )
