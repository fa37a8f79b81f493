"""Test whether messages act on a goal only as far as they act on its surrogates."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
import pandas as pd

from crosschannel.core.multiple_tests import holm_adjusted
from crosschannel.histories.goals import Goal
from crosschannel.reward.effects.estimates import Effect
from crosschannel.reward.funnel.effects import FunnelEffects, PricedEffects
from crosschannel.reward.funnel.inference import (
    SIGNIFICANCE_LEVEL,
    detectable_effect,
    p_value,
    shares_of_level,
)

#: Share of the level that the test over all channels has; the tests of the channels divide the rest.
SHARE_OF_ALL = 0.8
HOLDS, REJECTED, NOT_TESTED = "holds so far", "rejected", "cannot be tested"


@dataclass(frozen=True)
class SurrogateTest:
    """The test of one goal's surrogates: the effect of messages on the goal less that on its index.

    It is 0 if, given the surrogates, the goal does not depend on the message (surrogacy), and if surrogates foretell
    the goal after a message as without one (comparability). Effects are in reward units per sent decision.

    Attributes:
        goal: The goal's event.
        prices: The mean price of each surrogate, in reward units.
        on_goal: The effect on the goal itself.
        on_index: The effect on the index.
        residual: Their difference.
        by_channel: The difference on each channel.
        p_values: Of the difference, and then of each channel's.
        adjusted: The same, adjusted by Holm for their number, the first with the larger weight.
        detectable: The smallest differences that these tests find in 80 % of logs.
    """

    goal: str
    prices: dict[str, float]
    on_goal: Effect
    on_index: Effect
    residual: Effect
    by_channel: tuple[Effect, ...]
    p_values: tuple[float, ...]
    adjusted: tuple[float, ...]
    detectable: tuple[float, ...]

    @property
    def verdict(self) -> str:
        """`holds so far`, `rejected` or `cannot be tested`."""
        tested = [p for p in self.adjusted if not math.isnan(p)]
        if not tested:
            return NOT_TESTED
        return REJECTED if min(tested) < SIGNIFICANCE_LEVEL else HOLDS

    @property
    def sentence(self) -> str:
        """The verdict in words."""
        e = self.residual
        if self.verdict == NOT_TESTED:
            return f"surrogates of {self.goal}: cannot be tested, since too few users have a reward"
        found = (
            f"the effect on the goal is {self.on_goal.value:.4g}, that through surrogates {self.on_index.value:.4g}; "
            f"their difference is {e.value:.4g} ({e.low:.4g} to {e.high:.4g}), p = {self.p_values[0]:.2g}"
        )
        power = f"the test finds a difference of {self.detectable[0]:.4g} in 80 % of logs"
        if self.detectable[0] > abs(self.on_goal.value):
            power += ", more than the whole effect on the goal: a log of this size says little"
        else:
            power += f", {self.detectable[0] / abs(self.on_goal.value):.0%} of the effect on the goal"
        if self.verdict == HOLDS:
            return f"surrogates of {self.goal}: nothing contradicts them; {found}; {power}"
        where = [one.label for one, p in zip(self.by_channel, self.adjusted[1:], strict=True) if p < SIGNIFICANCE_LEVEL]
        on = f" (above all {', '.join(where)})" if where else ""
        return (
            f"surrogates of {self.goal}: rejected{on}; messages act on the goal in another way than through these "
            f"events, or the events foretell it differently after a message: {found}; {power}"
        )

    def table(self) -> pd.DataFrame:
        """Return one row for all messages and one for each channel."""
        rows = [
            (e.label, e.value, e.se, e.low, e.high, e.n_treated, p, adjusted, least)
            for e, p, adjusted, least in zip(
                (self.residual, *self.by_channel), self.p_values, self.adjusted, self.detectable, strict=True
            )
        ]
        columns = ["channel", "goal less index", "se", "low", "high", "n", "p", "p adjusted", "found in 80 %"]
        return pd.DataFrame(rows, columns=columns)


def surrogate_tests(effects: FunnelEffects) -> list[SurrogateTest]:
    """Test the surrogates of every goal that has some."""
    return [_surrogate_test(effects, goal) for goal in effects.priced.indices]


def _surrogate_test(effects: FunnelEffects, goal: Goal) -> SurrogateTest:
    priced, users = effects.priced, effects.history.n_users
    row = priced.goals.index(goal)
    own = goal.weight * priced.amounts.before[row], goal.weight * priced.amounts.after[row]
    index = tuple(goal.weight * part for part in priced.index_of(goal))
    itself, parts = priced.weight_of(goal), priced.parts_of(goal)
    on_goal = PricedEffects.fit(priced, users, itself, *own, through=())
    on_index = PricedEffects.fit(priced, users, parts, *index, through=(goal,))
    difference = [one - other for one, other in zip(own, index, strict=True)]
    residual = PricedEffects.fit(priced, users, itself | parts, *difference, through=(goal,), sign=-1.0)
    found = [residual.effect(), *(residual.effect(rows, name) for name, rows in effects.channels.items())]
    p_values = np.array([p_value(one) for one in found])
    weights = np.array([SHARE_OF_ALL, *[(1.0 - SHARE_OF_ALL) / max(len(found) - 1, 1)] * (len(found) - 1)])
    shares = shares_of_level(p_values, weights)
    return SurrogateTest(
        goal=goal.event,
        prices=priced.prices()[goal.event],
        on_goal=on_goal.effect(),
        on_index=on_index.effect(),
        residual=found[0],
        by_channel=tuple(found[1:]),
        p_values=tuple(p_values.tolist()),
        adjusted=tuple(holm_adjusted(p_values, weights).tolist()),
        detectable=tuple(detectable_effect(one, share) for one, share in zip(found, shares.tolist(), strict=True)),
    )
