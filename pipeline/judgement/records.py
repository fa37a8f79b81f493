"""What is known of a policy beside its estimates, as records: true values, comparators, constraints, evidence."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any

import pandas as pd

from crosschannel.core import serialization
from crosschannel.evaluation import CalibrationBin, Interval, WeightBin
from crosschannel.evaluation.report.plain_values import read_number


@dataclass(frozen=True)
class TrueValue:
    """The true value of one policy, known because the market is simulated.

    Attributes:
        policy: The policy's name.
        per_decision: Mean true effect per decision with a reward at the test users' logged decisions, weighted as in
            the off-policy estimates: their estimand.
        per_user: Mean incremental goal value per fresh user over the market's days.
        per_user_se: Its standard error over users.
        lift: `per_user` as a share of what happens with nothing sent; NaN where that is nothing.
        sends_per_user: Mean number of messages per user.
        unsubscribed: Share of the users who unsubscribed.
        users: Number of fresh users.
    """

    policy: str
    per_decision: float
    per_user: float
    per_user_se: float
    lift: float
    sends_per_user: float
    unsubscribed: float
    users: int


@dataclass(frozen=True)
class Comparator:
    """A policy beside the evaluated one, on the same users: see `crosschannel.pipeline.judgement.comparators`.

    Attributes:
        policy: The policy's name.
        detail: Its actions, where it always chooses the same.
        value: Mean reward per decision with a reward; all NaN where not identified.
        difference: `value` minus the mean reward of the log.
        lead: Value of the evaluated policy, by the same estimator, minus `value`; NaN where one is not identified.
        ess: Effective sample size.
        reason: Why the value is not identified; empty where it is.
        truth: Mean true effect per decision with a reward; NaN where unknown.
    """

    policy: str
    detail: str
    value: Interval
    difference: Interval
    lead: Interval
    ess: float
    reason: str = ""
    truth: float = math.nan

    def to_dict(self) -> dict[str, Any]:
        """Return it as plain values; what is not a finite number is None."""
        plain = serialization.finite_values(asdict(self))
        return plain | {name: serialization.finite_values(asdict(getattr(self, name))) for name in COMPARATOR_INTERVALS}

    @classmethod
    def from_dict(cls, data: Mapping[str, Any]) -> Comparator:
        """Return what `to_dict` turned into plain values; what is None becomes NaN.

        Raises:
            ConfigError: If a value is of another type.
        """
        intervals = {name: serialization.number_values(data[name]) for name in COMPARATOR_INTERVALS}
        return serialization.from_dict(
            cls,
            {**data, **intervals, "ess": read_number(data["ess"]), "truth": read_number(data["truth"])},
            "comparators",
        )


#: The intervals of a comparator.
COMPARATOR_INTERVALS = ("value", "difference", "lead")


@dataclass(frozen=True)
class ConstraintUse:
    """One constraint at the test users' slots.

    Attributes:
        name: The constraint's name.
        price: Its shadow price in reward units per unit of use, mean over the decision times.
        use: What the policy is expected to use, over all decision times.
        budget: What it may use there.
        binding: Share of the decision times at which it binds: at the others it costs nothing.
        decision_times: Number of decision times.
    """

    name: str
    price: float
    use: float
    budget: float
    binding: float
    decision_times: int

    @classmethod
    def summarise(cls, prices: pd.DataFrame) -> tuple[ConstraintUse, ...]:
        """Summarise each constraint of a `PricedPolicy.table` over the decision times."""
        return tuple(
            cls(
                name=str(name),
                price=float(part["price"].mean()),
                use=float(part["use"].sum()),
                budget=float(part["budget"].sum()),
                binding=float(part["binding"].mean()),
                decision_times=len(part),
            )
            for name, part in prices.groupby("constraint", sort=False)
        )


@dataclass(frozen=True)
class Calibration:
    """How well the value by the funnel agrees with the rewards of all messages of the other half of the users.

    How large effects may be is learned from both halves, so that where there is next to no effect the slope can lie
    well above 0.

    Attributes:
        slope: Slope of the rewards of all messages on the funnel's predicted value: 1 where its assumptions hold; NaN
            where predictions do not differ.
        slope_se: Its standard error over users; NaN with few users.
        intercept: Intercept of that regression.
        weight_of_funnel: How much the value of a message follows the funnel.
        weight_of_all_sends: How much it follows the regression of all sends' values, which needs no assumption on who
            engages.
        weight_of_missed: How much of what surrogates miss counts, within the funnel.
        weight_of_personal: How much of how actions' effects differ by context counts.
    """

    slope: float
    slope_se: float
    intercept: float
    weight_of_funnel: float
    weight_of_all_sends: float
    weight_of_missed: float = 0.0
    weight_of_personal: float = 1.0

    def __str__(self) -> str:
        slope = f"{self.slope:.2f} +- {1.96 * self.slope_se:.2f}"
        meaning = "about 1 if its assumptions hold, .8 where features are many; about 0 without effects"
        if math.isnan(self.slope_se):
            slope, meaning = "not identified", "with so few users, or predictions that do not differ"
        return (
            f"Slope of the rewards of all messages on the funnel's predicted value: {slope} ({meaning}). The "
            f"value of a message follows the funnel by {self.weight_of_funnel:.2f} and the regression of all sends by "
            f"{self.weight_of_all_sends:.2f}; what is personal about a choice counts by "
            f"{self.weight_of_personal:.2f}, and within the funnel what surrogates miss by {self.weight_of_missed:.2f}."
        )


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
            name: value if isinstance(value, str) else [serialization.finite_values(row) for row in value]
            for name, value in asdict(self).items()
        }

    @classmethod
    def from_dict(cls, data: Mapping[str, Any]) -> Evidence:
        """Return what `to_dict` turned into plain values; what is None becomes NaN.

        Raises:
            ConfigError: If a value is of another type.
        """
        numbers = {
            name: value if isinstance(value, str) else [serialization.number_values(row) for row in value]
            for name, value in data.items()
        }
        return serialization.from_dict(cls, numbers, "evidence")
