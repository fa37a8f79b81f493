"""DiD rewards with the components of a funnel over buckets: three passes between which only small sums are kept.

1. Sums of the controls by cell, sums of the products that price surrogates, and which channels tell engagement.
2. Squares of the controls' distances from their means, and sums of the controls' values, in which surrogates have the
   place of the goals that they price.
3. Rewards and components.

Before the first pass the largest amounts of all users must be known (`largest_amounts` over the buckets), which set the
scales of exact sums. All sums are exact: rewards are those of the whole history to the last bit. Values may differ in
their last digits, as the scale of the prices' sums is an upper bound over buckets.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass, replace
from functools import partial, reduce
from operator import add
from typing import Any

import numpy as np

from crosschannel.core.arrays import BoolArray, FloatArray
from crosschannel.core.errors import ConfigError
from crosschannel.histories.goals import Goal
from crosschannel.histories.history import History
from crosschannel.reward.buckets.did import (
    ControlSquares,
    ControlSums,
    squares_of_controls,
    sums_of_controls,
)
from crosschannel.reward.controls import CellMeans
from crosschannel.reward.exact_sums import ExactSums
from crosschannel.reward.frame import RewardFrame
from crosschannel.reward.funnel.components import (
    PricedGoals,
    check_events,
    index_columns,
    index_places,
    indexed_goals,
    measure_components,
    measured_goals,
)
from crosschannel.reward.funnel.engagement import measure_engagement
from crosschannel.reward.funnel.surrogates import SurrogateIndex, surrogate_products
from crosschannel.reward.measurement.outcomes import (
    GoalAmounts,
    Outcomes,
    fit_goals,
    measure,
    measure_by_goal_with,
    measure_with,
)
from crosschannel.reward.measurement.preprocessing import FittedPreprocessing
from crosschannel.reward.models import DidReward, FittedDid
from crosschannel.reward.spec import RewardSpec

#: Runs a function, which can be pickled, over the histories of all parts of the users, under the name of the pass.
RunOverHistories = Callable[[Callable[[History], Any], str], Iterable[Any]]


def goals_to_measure(spec: RewardSpec) -> tuple[Goal, ...]:
    """Return the goals whose largest amounts the passes need: those of the spec, then surrogates."""
    return spec.goals if spec.funnel is None else measured_goals(spec)


@dataclass(frozen=True)
class Measuring:
    """What is fitted in order to measure buckets.

    Attributes:
        spec: What is measured.
        outcomes: What the reward is measured with.
        goals: What each goal is measured with by itself; None without a funnel.
    """

    spec: RewardSpec
    outcomes: FittedPreprocessing
    goals: FittedPreprocessing | None

    @classmethod
    def fit(cls, sample: History, spec: RewardSpec, largest: FloatArray) -> Measuring:
        """Fit limits, strata, attribute values and seasonality to a sample of users; scales to all users.

        Args:
            sample: The history of a sample of users.
            spec: What is measured.
            largest: The largest amounts of `goals_to_measure`, over all users (G,).

        Raises:
            ConfigError: If the spec names an event, an attribute or an arm that the history does not have.
            NotIdentified: If the order of decisions and goal events is not known.
        """
        outcomes = replace(measure(sample, spec).preprocessing, largest=largest[: len(spec.goals)])
        if spec.funnel is None:
            return cls(spec, outcomes, None)
        check_events(sample, spec, spec.funnel)
        return cls(spec, outcomes, replace(fit_goals(sample, _of_goals(spec)), largest=largest))

    def measure(self, history: History) -> tuple[Outcomes, GoalAmounts | None]:
        """Measure a bucket: its outcomes, and the amounts of each goal."""
        outcomes = measure_with(history, self.spec, self.outcomes)
        amounts = None if self.goals is None else measure_by_goal_with(history, _of_goals(self.spec), self.goals)
        return outcomes, amounts

    def units(self, goal: Goal) -> FloatArray:
        """Return powers of two above the amounts of a goal's surrogates and of the goal (S + 1,)."""
        assert self.goals is not None  # only goals with surrogates have such sums
        largest = self.goals.largest[index_places(goal, self.spec, measured_goals(self.spec))]
        return np.ldexp(1.0, np.frexp(largest)[1])


@dataclass(frozen=True)
class FirstSums:
    """Sums of the first pass; `+` adds those of other users.

    Attributes:
        controls: Sums of the controls, for each level of the matching.
        products: Sums that price surrogates, for each goal that has some.
        told: Which actions of the first module tell engagement (A,).
    """

    controls: tuple[ControlSums, ...]
    products: tuple[ExactSums, ...]
    told: BoolArray

    def __add__(self, other: FirstSums) -> FirstSums:
        return FirstSums(
            tuple(map(add, self.controls, other.controls)),
            tuple(map(add, self.products, other.products)),
            self.told | other.told,
        )


def first_sums(history: History, measuring: Measuring) -> FirstSums:
    """Make the first pass over a bucket."""
    spec = measuring.spec
    outcomes, amounts = measuring.measure(history)
    told, products = np.zeros(history.modules.sizes[0], dtype=bool), []
    if amounts is not None:
        assert spec.funnel is not None  # amounts are measured for a funnel
        engaged = measure_engagement(history, spec.funnel, spec.post, np.ones_like(told)).engaged == 1.0
        told[history.decisions.actions[engaged, 0]] = True
        for goal in indexed_goals(spec):
            columns = index_columns(goal, spec, measured_goals(spec), amounts, outcomes)
            products.append(surrogate_products(*columns, spec.folds, measuring.units(goal)))
    return FirstSums(sums_of_controls(outcomes, spec), tuple(products), told)


@dataclass(frozen=True)
class Pricing:
    """What the first pass has found: the controls' means, and the prices of surrogates.

    Attributes:
        measuring: What buckets are measured with.
        sums: Sums over all buckets.
        indices: The surrogate index of each goal that has one.
    """

    measuring: Measuring
    sums: FirstSums
    indices: dict[Goal, SurrogateIndex]

    @classmethod
    def fit(cls, measuring: Measuring, sums: FirstSums) -> Pricing:
        """Learn the prices of surrogates.

        Raises:
            NotIdentified: If there are too few windows without a message.
        """
        spec = measuring.spec
        goals = [] if spec.funnel is None else indexed_goals(spec)
        found = zip(goals, sums.products, strict=True)
        indices = {g: SurrogateIndex.from_products(each, spec.folds, measuring.units(g)) for g, each in found}
        return cls(measuring, sums, indices)

    def priced(self, outcomes: Outcomes, amounts: GoalAmounts | None) -> PricedGoals | None:
        """Return the measured goals of a bucket with their prices; None without a funnel."""
        if amounts is None:
            return None
        spec = self.measuring.spec
        return PricedGoals(
            model=DidReward(spec), outcomes=outcomes, goals=measured_goals(spec), amounts=amounts, indices=self.indices
        )

    def values(self, priced: PricedGoals) -> tuple[RewardSpec, Outcomes]:
        """Return the spec of the value, and its outcomes in a bucket."""
        model, outcomes = priced.model_of(priced.value_weights(), *priced.values())
        return model.spec, outcomes


@dataclass(frozen=True)
class SecondSums:
    """Sums of the second pass; `+` adds those of other users.

    Attributes:
        squares: Squared distances of the controls' changes from their means, for each level of the matching.
        values: Sums of the controls' changes of the value; none without a funnel.
    """

    squares: tuple[ControlSquares, ...]
    values: tuple[ControlSums, ...]

    def __add__(self, other: SecondSums) -> SecondSums:
        return SecondSums(tuple(map(add, self.squares, other.squares)), tuple(map(add, self.values, other.values)))


def second_sums(history: History, pricing: Pricing) -> SecondSums:
    """Make the second pass over a bucket."""
    spec = pricing.measuring.spec
    outcomes, amounts = pricing.measuring.measure(history)
    squares = squares_of_controls(outcomes, spec, pricing.sums.controls)
    priced = pricing.priced(outcomes, amounts)
    if priced is None:
        return SecondSums(squares, ())
    value_spec, value_outcomes = pricing.values(priced)
    return SecondSums(squares, sums_of_controls(value_outcomes, value_spec))


@dataclass(frozen=True)
class FittedRewards:
    """A DiD reward with its components, fitted over buckets.

    Attributes:
        pricing: What the first pass has found.
        controls: Means of the controls' changes, for each level of the matching.
        values: Means of the controls' changes of the value, without standard deviations; none without a funnel.
    """

    pricing: Pricing
    controls: tuple[CellMeans, ...]
    values: tuple[CellMeans, ...]

    @classmethod
    def fit(cls, pricing: Pricing, sums: SecondSums) -> FittedRewards:
        """Fit the means from both passes' sums."""
        pairs = zip(pricing.sums.controls, sums.squares, strict=True)
        means = tuple(total.means(square) for total, square in pairs)
        return cls(pricing, means, tuple(total.means_alone() for total in sums.values))

    def transform(self, history: History) -> RewardFrame:
        """Return the rewards of a bucket's decisions with their components: the third pass.

        The components' standard errors are not known: they are NaN.
        """
        measuring = self.pricing.measuring
        outcomes, amounts = measuring.measure(history)
        frame = FittedDid(measuring.spec, measuring.outcomes, self.controls).transform_outcomes(outcomes)
        priced = self.pricing.priced(outcomes, amounts)
        if priced is None:
            return frame
        spec, value_outcomes = self.pricing.values(priced)
        value = FittedDid(spec, value_outcomes.preprocessing, self.values).transform_outcomes(value_outcomes)
        return replace(frame, components=measure_components(priced, history, value, self.pricing.sums.told))


def fit_rewards(sample: History, spec: RewardSpec, largest: FloatArray, run: RunOverHistories) -> FittedRewards:
    """Fit rewards to the users of all parts: the first and the second pass.

    Args:
        sample: The history of a sample of users, on which limits, strata, attribute values and seasonality are fitted.
        spec: What is measured.
        largest: The largest amounts of `goals_to_measure`, over all users (G,).
        run: Runs a pass over the parts.

    Raises:
        ConfigError: If the spec names what the history does not have.
        NotIdentified: If the order of decisions and goal events is not known, or surrogates cannot be priced.
    """
    measuring = Measuring.fit(sample, spec, largest)
    pricing = Pricing.fit(measuring, reduce(add, run(partial(first_sums, measuring=measuring), "rewards, pass 1")))
    return FittedRewards.fit(pricing, reduce(add, run(partial(second_sums, pricing=pricing), "rewards, pass 2")))


def check_kind(kind: str) -> None:
    """Refuse kinds of rewards that the passes do not know.

    Raises:
        ConfigError: If the kind is another one.
    """
    if kind != DidReward.name:
        raise ConfigError(
            f"reward.kind is {kind!r}, but rewards over buckets are of the kind {DidReward.name!r}: choose it, or "
            "train on one folder with all users in memory"
        )


def _of_goals(spec: RewardSpec) -> RewardSpec:
    return replace(spec, goals=measured_goals(spec), funnel=None)
