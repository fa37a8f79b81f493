"""What the pictures of a report show beside the estimates: records, as plain values for JSON and back."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any

from crosschannel.core.serialization import finite_values, from_dict, number_values
from crosschannel.evaluation import CalibrationBin, WeightBin


@dataclass(frozen=True)
class ActionShare:
    """How often an action is chosen by the log and by the policy, at the same decisions.

    Attributes:
        period: First day of the week or day that is counted; empty for all decisions.
        module: The module.
        action: The action.
        logged: Share of the log's choices: of all decisions for the first module, of its messages for the others.
        policy: Share of the policy's choices.
        decisions: Number of decisions.
    """

    period: str
    module: str
    action: str
    logged: float
    policy: float
    decisions: int


@dataclass(frozen=True)
class EventBin:
    """The effect of the training users' logged messages in one bin of time since the decision.

    Attributes:
        start: Where the bin begins, in days after the decision.
        effect: Effect relative to the base bin, in reward units per bin.
        low: Lower bound of its 95 % interval.
        high: Upper bound.
        tested: Whether the pre-trend test uses the bin: without an effect before the message it is 0.
    """

    start: float
    effect: float
    low: float
    high: float
    tested: bool


@dataclass(frozen=True)
class Evidence:
    """What the pictures of a report show beside the estimates.

    Attributes:
        shares: Shares of actions over all test users' decisions, then by week, or by day in logs below two weeks.
        weights: Bins of the headline's weights; empty where a propensity is missing.
        calibration: Bins of logged messages by expected reward; empty for agents without a funnel.
        events: Effect of the logged messages by time since the decision; empty for rewards of a user's own kind.
        pre_trends: What the pre-trend test found, and where it fails what that points at, in sentences.
    """

    shares: tuple[ActionShare, ...] = ()
    weights: tuple[WeightBin, ...] = ()
    calibration: tuple[CalibrationBin, ...] = ()
    events: tuple[EventBin, ...] = ()
    pre_trends: str = ""

    def to_dict(self) -> dict[str, Any]:
        """Return it as plain values; what is not a finite number is None."""
        return {
            name: value if isinstance(value, str) else [finite_values(row) for row in value]
            for name, value in asdict(self).items()
        }

    @classmethod
    def from_dict(cls, data: Mapping[str, Any]) -> Evidence:
        """Return what `to_dict` turned into plain values; what is None becomes NaN.

        Raises:
            ConfigError: If a value is of another type.
        """
        numbers = {
            name: value if isinstance(value, str) else [number_values(row) for row in value]
            for name, value in data.items()
        }
        return from_dict(cls, numbers, "evidence")
