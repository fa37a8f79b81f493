"""Counts of rewards, and of what they rest on, that add up over users."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from crosschannel.core.arrays import FloatArray, IntArray
from crosschannel.reward.effects.influence import WITHOUT_CONTROLS
from crosschannel.reward.frame import RewardFrame
from crosschannel.reward.losses import remedy
from crosschannel.reward.measurement.outcomes import Outcomes
from crosschannel.reward.reason import Reason
from crosschannel.reward.spec import RewardSpec


@dataclass(frozen=True)
class RewardCounts:
    """Numbers of decisions; `+` adds those of other users.

    Attributes:
        sent: Sent decisions by the code of their `Reason` (R,).
        observed: Sent decisions whose windows were observed.
        overlapping: Those of them whose windows hold another message.
        controls: Controls.
        behind: Numbers of controls that rewards of sent decisions rest on, ascending (k,).
        resting: How many rewards rest on each (k,).
        by_level: Rewards from cells of each level (L,).
        unknown: Decisions with a reward whose probability to be uncensored is not known.
        least: The smallest of these probabilities that is known; 1 without one.
    """

    sent: IntArray
    observed: int
    overlapping: int
    controls: int
    behind: IntArray
    resting: IntArray
    by_level: IntArray
    unknown: int
    least: float

    @classmethod
    def from_outcomes(cls, outcomes: Outcomes, frame: RewardFrame) -> RewardCounts:
        """Count the decisions of measured outcomes and their rewards."""
        o, seen = outcomes, outcomes.treated & outcomes.observed
        behind, resting = np.unique(frame.n_controls[o.treated & frame.identified], return_counts=True)
        return cls(
            sent=np.bincount(frame.reason[o.treated], minlength=len(Reason)),
            observed=int(seen.sum()),
            overlapping=int(o.overlap[seen].sum()),
            controls=int(o.control.sum()),
            behind=behind,
            resting=resting,
            by_level=np.bincount(frame.level[frame.level >= 0]),
            unknown=int(np.isnan(o.p_uncensored[(o.treated | o.control) & frame.identified]).sum()),
            least=float(np.nanmin(o.p_uncensored[frame.identified], initial=1.0)),
        )

    def __add__(self, other: RewardCounts) -> RewardCounts:
        behind, code = np.unique(np.concatenate([self.behind, other.behind]), return_inverse=True)
        levels = max(len(self.by_level), len(other.by_level))
        return RewardCounts(
            sent=self.sent + other.sent,
            observed=self.observed + other.observed,
            overlapping=self.overlapping + other.overlapping,
            controls=self.controls + other.controls,
            behind=behind,
            resting=np.bincount(code, np.concatenate([self.resting, other.resting]), len(behind)).astype(np.int64),
            by_level=np.add(*(np.pad(one.by_level, (0, levels - len(one.by_level))) for one in (self, other))),
            unknown=self.unknown + other.unknown,
            least=min(self.least, other.least),
        )

    @property
    def n_sent(self) -> int:
        """Number of sent decisions."""
        return int(self.sent.sum())

    @property
    def n_identified(self) -> int:
        """Number of those that have a reward."""
        return int(self.sent[Reason.IDENTIFIED])

    def why_unidentified(self, spec: RewardSpec) -> str:
        """Return why no sent decision has a reward, and what would help, in sentences; nothing where one has."""
        if self.n_identified:
            return ""
        if not self.n_sent:
            return "the log has no message, so that no effect of one is measured."
        reason = list(Reason)[int(self.sent.argmax())]
        if reason == Reason.FEW_CONTROLS and not self.controls:
            why = "there is no decision without a message to compare with"
        else:
            why = reason.text
        return f"no sent decision has a reward, above all: {why}. {remedy(reason, spec)}"

    def lines(self, kind: str, levels: int) -> tuple[str, ...]:
        """Describe the share of overlapping windows, the controls behind a reward, and what was left out and why.

        Args:
            kind: The reward kind.
            levels: Number of levels of the matching.
        """
        lines = [f"sent decisions: {self.n_sent:,}, with a reward {self.n_identified:,}"]
        for reason in Reason:
            if reason != Reason.IDENTIFIED and (n := int(self.sent[reason])):
                lines.append(f"  without: {n:,} ({reason.text})")
        if self.observed:
            share = self.overlapping / self.observed
            lines.append(f"overlap: {share:.1%} of the sent decisions with observed windows")
        if self.n_identified and kind not in WITHOUT_CONTROLS:
            low, middle = self._fewest_and_median()
            lines.append(
                f"controls: {self.controls:,} in all; behind a reward at least {low:,.0f}, median {middle:,.0f}"
                + (" (effective numbers)" if kind == "did_dr" else "")
            )
        if self.least < 1:
            lines.append(
                "later messages: decisions are weighted by the inverse of their probability to be uncensored, "
                f"at least {self.least:.2g}"
            )
        if levels > 1:
            found = np.pad(self.by_level, (0, levels))[:levels]
            shares = (f"{count:,} at level {level}" for level, count in enumerate(found.tolist()))
            lines.append(f"cells, from the narrowest to the widest: {', '.join(shares)}")
        return tuple(lines)

    def _fewest_and_median(self) -> FloatArray:
        """Return the fewest controls behind a reward, and the median of their number (2,)."""
        ends = np.cumsum(self.resting)
        middle = np.searchsorted(ends, [(ends[-1] - 1) // 2, ends[-1] // 2], side="right")
        return np.array([self.behind[0], self.behind[middle].mean()])
