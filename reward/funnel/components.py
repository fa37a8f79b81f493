"""Measure the components of the rewards of a history."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np

from crosschannel.core.arrays import BoolArray, FloatArray, IntArray
from crosschannel.core.errors import ConfigError
from crosschannel.histories.goals import GOALS_SETTING, Goal
from crosschannel.histories.history import History
from crosschannel.reward.frame import RewardFrame
from crosschannel.reward.funnel.engagement import measure_engagement
from crosschannel.reward.funnel.record import Components
from crosschannel.reward.funnel.spec import FunnelSpec
from crosschannel.reward.funnel.surrogates import SurrogateIndex
from crosschannel.reward.interface import RewardModel, with_spec
from crosschannel.reward.measurement.outcomes import GoalAmounts, Outcomes, measure_by_goal
from crosschannel.reward.reason import Reason
from crosschannel.reward.spec import RewardSpec


def with_components(model: RewardModel, history: History, outcomes: Outcomes, frame: RewardFrame) -> RewardFrame:
    """Return the rewards of a history with their components, where the model's spec declares a funnel.

    `model.fit_transform(history)` does it by itself. Prices and controls are those of this history, as for rewards.

    Args:
        model: The reward model.
        history: The history.
        outcomes: What `model.measure` measured on it.
        frame: The rewards that the model, fitted on these outcomes, gives them.
    """
    if model.spec.funnel is None:
        return frame
    return replace(frame, components=components(model, history, outcomes))


def components(model: RewardModel, history: History, outcomes: Outcomes) -> Components:
    """Measure the components of every decision of a history: see `Components`.

    Raises:
        ConfigError: If the model's spec has no funnel, or the funnel does not fit the history.
        NotIdentified: If too few windows without a message tell what surrogates are worth.
    """
    return measure_components(PricedGoals.fit(model, history, outcomes), history)


def measure_components(
    priced: PricedGoals, history: History, value: RewardFrame | None = None, told: BoolArray | None = None
) -> Components:
    """Measure the components of every decision of a history whose goals were measured and priced.

    Args:
        priced: The goals.
        history: The history.
        value: The value of every decision, where its controls are those of a larger log; by default of the history.
        told: Which actions of the first module tell engagement in that log (A,).
    """
    funnel, spec, amounts = priced.funnel, priced.model.spec, priced.amounts
    engagement = measure_engagement(history, funnel, spec.post, told)
    value = priced.frame() if value is None else value
    costs = [goal for goal in spec.goals if goal.event in funnel.costs]
    occurs = amounts.occurs[[priced.goals.index(goal) for goal in costs]].T.astype(np.float64)
    return Components(
        engaged=engagement.engaged,
        value=value.reward,
        value_se=value.se,
        cost=np.where((amounts.reason == Reason.IDENTIFIED)[:, None], occurs, np.nan),
        cost_names=tuple(goal.event for goal in costs),
        cost_weights=np.array([-goal.weight for goal in costs]),
        engaged_reason=engagement.reason,
        value_reason=value.reason,
        cost_reason=amounts.reason,
        engaged_at=engagement.available_at,
        value_at=value.available_at,
        cost_at=priced.outcomes.available_at,
        prices=priced.prices(),
    )


@dataclass(frozen=True)
class PricedGoals:
    """The goals that are not cost events, with surrogates in place of those that have some.

    Attributes:
        model: The reward model.
        outcomes: What it measured (n decisions).
        goals: Every goal that was measured by itself: those of the spec, then surrogates, each with the weight 1.
        amounts: Their amounts.
        indices: The surrogate index of each goal that has one.
    """

    model: RewardModel
    outcomes: Outcomes
    goals: tuple[Goal, ...]
    amounts: GoalAmounts
    indices: dict[Goal, SurrogateIndex]

    @classmethod
    def fit(cls, model: RewardModel, history: History, outcomes: Outcomes) -> PricedGoals:
        """Measure the goals and their surrogates around every decision, and learn the surrogates' prices.

        Raises:
            ConfigError: If the model's spec has no funnel, or an event counts twice.
            NotIdentified: If there are too few windows without a message.
        """
        spec = model.spec
        if spec.funnel is None:
            raise ConfigError("the reward has no `funnel`, so that it has no components")
        check_events(history, spec, spec.funnel)
        goals = measured_goals(spec)
        amounts = measure_by_goal(history, replace(spec, goals=goals, funnel=None), uses_pre=_uses_pre(model))
        indices = {goal: _fit_index(goal, spec, goals, amounts, outcomes) for goal in indexed_goals(spec)}
        return cls(model=model, outcomes=outcomes, goals=goals, amounts=amounts, indices=indices)

    @property
    def funnel(self) -> FunnelSpec:
        """The declared funnel."""
        assert self.model.spec.funnel is not None  # `fit` requires it
        return self.model.spec.funnel

    def index_of(self, goal: Goal) -> tuple[FloatArray, FloatArray]:
        """Return the index of a goal before and after every decision (n,), in units of the goal."""
        price = self.indices[goal].price[self.outcomes.fold % self.model.spec.folds]
        rows = [self.goals.index(one) for one in surrogates_of(goal, self.funnel)]
        before, after = np.zeros(len(price)), np.zeros(len(price))
        for s, row in enumerate(rows):
            before += price[:, s] * self.amounts.before[row]
            after += price[:, s] * self.amounts.after[row]
        return before, after

    def values(self) -> tuple[FloatArray, FloatArray]:
        """Return the value before and after every decision (n,), in reward units."""
        before, after = np.zeros(len(self.outcomes)), np.zeros(len(self.outcomes))
        for goal in self.funnel.value_goals(self.model.spec.goals):
            row = self.goals.index(goal)
            pair = self.index_of(goal) if goal in self.indices else (self.amounts.before[row], self.amounts.after[row])
            before += goal.weight * pair[0]
            after += goal.weight * pair[1]
        return before, after

    def value_weights(self) -> dict[Goal, float]:
        """Return the goals that the value is a sum of, each with its largest weight."""
        weights: dict[Goal, float] = {}
        for goal in self.funnel.value_goals(self.model.spec.goals):
            for one, weight in self.parts_of(goal).items():
                weights[one] = weights.get(one, 0.0) + abs(weight)
        return weights

    def parts_of(self, goal: Goal) -> dict[Goal, float]:
        """Return what a goal is valued through, with the largest weight of each: its surrogates, or itself."""
        if goal not in self.indices:
            return self.weight_of(goal)
        prices = self.indices[goal].price.max(0).tolist()
        return {one: goal.weight * price for one, price in zip(surrogates_of(goal, self.funnel), prices, strict=True)}

    def weight_of(self, goal: Goal) -> dict[Goal, float]:
        """Return a goal, counted by itself, with its weight."""
        return {replace(goal, weight=1.0): goal.weight}

    def model_of(
        self, weights: Mapping[Goal, float], before: FloatArray, after: FloatArray
    ) -> tuple[RewardModel, Outcomes]:
        """Return a model of other values before and after (n,), and its outcomes, whose windows and controls are equal.

        Args:
            weights: The goals that the values are sums of, each with its largest weight: they give the scale.
            before: Values before the decisions (n,).
            after: Values after them (n,).
        """
        fitted = self.outcomes.preprocessing
        kept = {goal: weight for goal, weight in weights.items() if weight != 0}
        if not kept:  # no surrogate has a price: the value is 0, on whatever scale
            kept = dict.fromkeys(list(weights)[:1], 1.0)
        measured = [replace(one, weight=1.0) for one in self.goals]
        rows = [measured.index(goal) for goal in kept]
        closes_at = fitted.closes_at
        if self.indices:
            learned_from = windows_without_messages(self.outcomes)
            closes_at = int(self.outcomes.available_at[learned_from].max(initial=closes_at))
        outcomes = replace(
            self.outcomes,
            pre=np.where(np.isnan(self.outcomes.pre), np.nan, before),
            post=after,
            preprocessing=replace(
                fitted, largest=self.amounts.largest[rows], limits=self.amounts.limits[rows], closes_at=closes_at
            ),
        )
        goals = tuple(replace(goal, weight=weight) for goal, weight in kept.items())
        return with_spec(self.model, replace(self.model.spec, goals=goals, funnel=None)), outcomes

    def frame(self) -> RewardFrame:
        """Return the incremental value of every decision, by the reward's own kind."""
        model, outcomes = self.model_of(self.value_weights(), *self.values())
        return model.fit_outcomes(outcomes).transform_outcomes(outcomes)

    def prices(self) -> dict[str, dict[str, float]]:
        """Return the mean price of each surrogate over the folds, in reward units, by goal and event."""
        return {
            goal.event: {
                one.event: float(goal.weight * price)
                for one, price in zip(surrogates_of(goal, self.funnel), index.price.mean(0), strict=True)
            }
            for goal, index in self.indices.items()
        }


def indexed_goals(spec: RewardSpec) -> list[Goal]:
    """Return the goals that are valued through surrogates."""
    assert spec.funnel is not None  # whoever calls it has one
    return [goal for goal in spec.goals if goal.event in spec.funnel.surrogates]


def measured_goals(spec: RewardSpec) -> tuple[Goal, ...]:
    """Return all goals that are measured by themselves: those of the spec, then surrogates."""
    assert spec.funnel is not None  # whoever calls it has one
    surrogates = [one for goal in indexed_goals(spec) for one in surrogates_of(goal, spec.funnel)]
    return tuple(dict.fromkeys([*spec.goals, *surrogates]))


def index_places(goal: Goal, spec: RewardSpec, goals: Sequence[Goal]) -> list[int]:
    """Return the places of a goal's surrogates, and of the goal itself, among all measured goals."""
    assert spec.funnel is not None  # whoever calls it has one
    return [goals.index(one) for one in (*surrogates_of(goal, spec.funnel), goal)]


def index_columns(
    goal: Goal, spec: RewardSpec, goals: Sequence[Goal], amounts: GoalAmounts, outcomes: Outcomes
) -> tuple[FloatArray, FloatArray, IntArray]:
    """Return amounts of a goal (w,) and of its surrogates (S, w) in windows without a message, and folds (w,)."""
    rows = windows_without_messages(outcomes)
    *surrogates, target = (amounts.after[place][rows] for place in index_places(goal, spec, goals))
    return target, np.stack(surrogates), outcomes.fold[rows] % spec.folds


def surrogates_of(goal: Goal, funnel: FunnelSpec) -> tuple[Goal, ...]:
    """Return the surrogates of a goal as goals of their own: counts, with the goal's credit."""
    events = funnel.surrogates[goal.event]
    return tuple(Goal(event, credit=goal.credit, half_life=goal.half_life) for event in events)


def windows_without_messages(outcomes: Outcomes) -> IntArray:
    """Return the controls in whose windows nothing was sent at all."""
    return np.flatnonzero(outcomes.control & ~outcomes.overlap)


def _fit_index(
    goal: Goal, spec: RewardSpec, goals: Sequence[Goal], amounts: GoalAmounts, outcomes: Outcomes
) -> SurrogateIndex:
    target, surrogates, fold = index_columns(goal, spec, goals, amounts, outcomes)
    # Powers of two above the largest amounts, so that squares and products are at most 1.
    largest = [float(np.abs(column).max(initial=0.0)) for column in (*surrogates, target)]
    units = np.ldexp(1.0, np.frexp(np.array(largest))[1])
    return SurrogateIndex.fit(target, surrogates, fold, spec.folds, units)


def _uses_pre(model: RewardModel) -> bool:
    return bool(getattr(model, "uses_pre", True))


def check_events(history: History, spec: RewardSpec, funnel: FunnelSpec) -> None:
    """Refuse a funnel in which a cost event, or a goal among its own surrogates, would count twice."""
    codes = {goal.event: set(history.event_codes([goal.event], GOALS_SETTING).tolist()) for goal in spec.goals}
    for cost in funnel.costs:
        for goal in funnel.value_goals(spec.goals):
            if codes[cost] & codes[goal.event]:
                raise ConfigError(
                    f"funnel.costs: the goal {goal.event!r} counts {cost!r} as well, which would then count twice: "
                    "name the events of that goal one by one"
                )
    for goal_event, events in funnel.surrogates.items():
        for event in events:
            if set(history.event_codes([event], f"reward.funnel.surrogates.{goal_event}").tolist()) & codes[goal_event]:
                raise ConfigError(
                    f"funnel.surrogates of {goal_event!r}: {event!r} stands for the goal itself: name earlier events"
                )
