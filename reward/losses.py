"""How many decisions have no reward, why, and which setting would give them one."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from crosschannel.core.arrays import IntArray
from crosschannel.reward.frame import RewardFrame
from crosschannel.reward.reason import Reason
from crosschannel.reward.spec import RewardSpec

MAX_LOST_SHARE = 0.2
"""Share of decisions without a reward above which there is a warning."""

MAX_WITHOUT_CONTROLS = 0.05
"""The same for decisions that lack controls, of all or of the last third: a policy that sends more leaves fewer."""


@dataclass(frozen=True)
class LostRewards:
    """The decisions that have no reward for one reason.

    Attributes:
        reason: The reason, by its text.
        decisions: Their number.
        share: Their share of all decisions.
        recent_share: Their share of the last third of the decisions, by time.
        remedy: What would help.
    """

    reason: str
    decisions: int
    share: float
    recent_share: float
    remedy: str


@dataclass(frozen=True)
class RewardLosses:
    """The decisions of a log that have no reward, reason by reason.

    Attributes:
        decisions: Number of decisions.
        lost: The reasons that occur, the most frequent first.
    """

    decisions: int
    lost: tuple[LostRewards, ...]

    @classmethod
    def from_rewards(cls, frame: RewardFrame, time: IntArray, spec: RewardSpec) -> RewardLosses:
        """Count the rewards that are missing among decisions at some times (n,)."""
        recent = np.zeros(len(time), dtype=bool)
        recent[np.argsort(time, kind="stable")[len(time) - len(time) // 3 :]] = True
        lost = [
            LostRewards(
                reason=reason.text,
                decisions=int(np.count_nonzero(rows)),
                share=float(rows.mean()),
                recent_share=float(rows[recent].mean()) if recent.any() else float(rows.mean()),
                remedy=remedy(reason, spec),
            )
            for reason in Reason
            if reason != Reason.IDENTIFIED and (rows := frame.reason == reason).any()
        ]
        return cls(len(time), tuple(sorted(lost, key=lambda each: -each.decisions)))

    @property
    def share(self) -> float:
        """Share of the decisions that have no reward."""
        return sum(each.decisions for each in self.lost) / self.decisions if self.decisions else 0.0

    @property
    def warning(self) -> str:
        """A sentence where too many decisions have no reward, or lack controls; otherwise empty."""
        starved = [
            each
            for each in self.lost
            if each.reason == Reason.FEW_CONTROLS.text and max(each.share, each.recent_share) > MAX_WITHOUT_CONTROLS
        ]
        if starved:
            return (
                f"{starved[0].share:.0%} of the decisions lack controls, {starved[0].recent_share:.0%} of the last "
                f"third: nothing is learned from them. {starved[0].remedy}"
            )
        if self.share > MAX_LOST_SHARE:
            first = self.lost[0]
            return f"{self.share:.0%} of the decisions have no reward, above all: {first.reason}. {first.remedy}"
        return ""

    def text(self, whose: str) -> str:
        """Return lines on the decisions without a reward, their reasons and what would help.

        Args:
            whose: Which decisions they are, such as `training`.
        """
        count = sum(each.decisions for each in self.lost)
        head = f"{count:,} of {self.decisions:,} {whose} decisions have no reward ({self.share:.1%})"
        if not self.lost:
            return head
        reasons = [
            f"  {each.decisions:,} ({each.share:.1%}, {each.recent_share:.1%} of the last third): {each.reason}. "
            f"{each.remedy}"
            for each in self.lost
        ]
        return "\n".join([f"{head}:", *reasons])


def remedy(reason: Reason, spec: RewardSpec) -> str:
    """Return what would give decisions a reward that have none for a reason, by the settings as they are."""
    if reason == Reason.FEW_CONTROLS:
        return (
            f"A cell needs `reward.min_controls` ({spec.min_controls}) decisions without a message: keep a holdout at "
            f"random (`reward.controls: holdout`), or compare within a longer `reward.time_bucket` "
            f"({spec.time_bucket}) or a wider cell (`reward.matching.fallback`). Where a log lists messages only, "
            "`slots` adds the times at which nothing was sent."
        )
    return {
        Reason.OUTSIDE_OBSERVATION: f"Use shorter windows (`reward.pre` {spec.pre}, `reward.post` {spec.post}) or a "
        "longer log; the last decisions get theirs when the log is longer.",
        Reason.OVERLAPPING: f"Use shorter windows, or another `reward.overlap` ({spec.overlap}); where the log has "
        "propensities, the decisions with a reward are weighted to stand for these.",
        Reason.TOO_SHORT: f"Use a shorter `reward.min_post` ({spec.min_post}) or fewer messages in a row.",
        Reason.NO_SEASONALITY: "Use a longer log, or no `reward.seasonality`.",
        Reason.HELD_OUT: "No setting is wrong: no policy is valued where nothing could be sent.",
        Reason.CHURNED: "Nothing can be sent to these users any more: no setting is wrong.",
    }.get(reason, "See docs/reward.md.")
