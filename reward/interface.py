"""What a reward model must have, this package's or a user's own."""

from __future__ import annotations

from collections.abc import Callable
from typing import ClassVar, Protocol

from crosschannel.core.arrays import FloatArray
from crosschannel.histories.history import History
from crosschannel.reward.frame import RewardFrame
from crosschannel.reward.measurement.outcomes import Outcomes
from crosschannel.reward.spec import RewardSpec


class FittedReward(Protocol):
    """A reward model that has learned what happens without a message."""

    def transform(self, history: History) -> RewardFrame:
        """Return the reward of every decision of a history."""
        ...

    def transform_outcomes(self, outcomes: Outcomes) -> RewardFrame:
        """Return the rewards of outcomes that were measured already."""
        ...


class RewardModel(Protocol):
    """How outcomes become rewards: `model.fit(train).transform(history)`, or `model.fit_transform(history)`."""

    name: ClassVar[str]
    adjust: ClassVar[bool]

    @property
    def spec(self) -> RewardSpec:
        """What is measured around each decision."""
        ...

    def measure(self, history: History) -> Outcomes:
        """Measure the outcomes of a history, with the covariates that the model needs."""
        ...

    def fit(self, train: History) -> FittedReward:
        """Learn from the decisions of a history what happens without a message."""
        ...

    def fit_outcomes(self, outcomes: Outcomes, weights: FloatArray | None = None) -> FittedReward:
        """Fit to outcomes that were measured already, each counted `weights` (n,) times.

        The preprocessing is not fitted again: `Outcomes.preprocessing` is applied to other histories as it is.
        """
        ...

    def fit_transform(self, train: History) -> RewardFrame:
        """Fit, and return the rewards of the same decisions, with components where the spec declares a funnel.

        Without them, it is `fit(train).transform(train)` with one measurement.
        """
        ...


def with_spec(model: RewardModel, spec: RewardSpec) -> RewardModel:
    """Return a model of the same kind with another spec: every kind is called as `Class(spec)`."""
    kind: Callable[[RewardSpec], RewardModel] = type(model)
    return kind(spec)
