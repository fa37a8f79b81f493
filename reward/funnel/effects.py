"""Average components of the logged messages, with intervals: engagement, gain, direct effect, hazards."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np
import pandas as pd

from crosschannel.core.arrays import BoolArray, FloatArray, IntArray
from crosschannel.histories.goals import Goal
from crosschannel.histories.history import History
from crosschannel.reward.effects.estimates import Effect, TreatmentEffects
from crosschannel.reward.effects.inference import student_quantile
from crosschannel.reward.funnel.components import (
    PricedGoals,
    measure_components,
    surrogates_of,
    windows_without_messages,
)
from crosschannel.reward.funnel.record import Components
from crosschannel.reward.interface import RewardModel
from crosschannel.reward.measurement.outcomes import Outcomes

ENGAGEMENT, GAIN, DIRECT, VALUE, HAZARD = "engagement", "gain", "direct", "value", "hazard of {}"


@dataclass(frozen=True)
class PricedEffects:
    """Average effects on a sum of goals, some of which are valued through surrogates with learned prices.

    Attributes:
        effects: The effects, as if prices were known.
        surrogates: Effects on each surrogate, one after another: the derivatives by their prices.
        prices: The influence of every user on these prices, in reward units (U, S).
    """

    effects: TreatmentEffects
    surrogates: tuple[TreatmentEffects, ...]
    prices: FloatArray

    @classmethod
    def fit(
        cls,
        priced: PricedGoals,
        users: int,
        weights: Mapping[Goal, float],
        before: FloatArray,
        after: FloatArray,
        *,
        through: Sequence[Goal] | None = None,
        sign: float = 1.0,
    ) -> PricedEffects:
        """Fit the effects on values before and after every decision (n,).

        Args:
            priced: The goals.
            users: Number of users.
            weights: The goals that the values are sums of, as in `PricedGoals.model_of`.
            before: Values before the decisions (n,).
            after: Values after them (n,).
            through: The goals that are valued through surrogates; None for all that have some.
            sign: How their prices enter the values: -1 where the index is subtracted.
        """
        effects = TreatmentEffects.fit_outcomes(*priced.model_of(weights, before, after))
        surrogates, prices = [], [np.zeros((users, 0))]
        amounts, rows = priced.amounts, windows_without_messages(priced.outcomes)
        for goal in priced.indices if through is None else through:
            index = priced.indices[goal]
            events = surrogates_of(goal, priced.funnel)
            places = [priced.goals.index(one) for one in events]
            for one, s in zip(events, places, strict=True):
                parts = {one: 1.0}, amounts.before[s], amounts.after[s]
                surrogates.append(TreatmentEffects.fit_outcomes(*priced.model_of(*parts)))
            target = amounts.after[priced.goals.index(goal)][rows]
            influence = index.influence(target, amounts.after[places][:, rows], priced.outcomes.user[rows], users)
            prices.append(sign * goal.weight * influence)
        return cls(effects, tuple(surrogates), np.concatenate(prices, axis=1))

    def effect_and_influence(self, group: BoolArray | None = None, label: str = "all") -> tuple[Effect, FloatArray]:
        """Return the effect on the sent decisions of a group (n,), and the influence of every user on it (U,).

        Both include the error of the prices.
        """
        effect, influence = self.effects.effect_and_influence(group, label)
        total = np.zeros(len(self.prices))
        total[: len(influence)] = influence
        if not self.surrogates or not np.isfinite(effect.value):
            return effect, total
        change = np.array([one.effect(group).value for one in self.surrogates])
        total = total + self.prices @ change
        return replace(effect, se=_clustered_error(total)), total

    def effect(self, group: BoolArray | None = None, label: str = "all") -> Effect:
        """Return the effect on the sent decisions of a group (n,), by default on all."""
        return self.effect_and_influence(group, label)[0]

    def restricted(self, rows: BoolArray) -> PricedEffects:
        """Fit the effects on some of the decisions (n,) alone, with the same prices."""
        surrogates = tuple(one.restricted(rows) for one in self.surrogates)
        return replace(self, effects=self.effects.restricted(rows), surrogates=surrogates)


@dataclass(frozen=True)
class FunnelEffects:
    """The components of a log's messages, to be averaged over groups of sent decisions.

    Attributes:
        history: The log.
        priced: Its goals.
        components: The components of every decision.
        value: Effects on the value.
    """

    history: History
    priced: PricedGoals
    components: Components
    value: PricedEffects

    @classmethod
    def fit(cls, model: RewardModel, history: History, outcomes: Outcomes | None = None) -> FunnelEffects:
        """Measure the components of a history, whose outcomes may have been measured already.

        Raises:
            ConfigError: If the model's spec has no funnel, the funnel does not fit the history, or the model is not one
                of this package's kinds: it has no influence function.
            NotIdentified: If too few windows without a message tell what surrogates are worth.
        """
        priced = PricedGoals.fit(model, history, model.measure(history) if outcomes is None else outcomes)
        value = PricedEffects.fit(priced, history.n_users, priced.value_weights(), *priced.values())
        return cls(history, priced, measure_components(priced, history), value)

    @property
    def channel(self) -> IntArray:
        """Code of each decision's channel, the first module's action (n,)."""
        return np.asarray(self.history.decisions.actions[:, 0])

    @property
    def channels(self) -> dict[str, BoolArray]:
        """The sent decisions of each channel on which something was sent (n,), by its name."""
        names = self.history.modules[0].actions
        codes = np.unique(self.channel[self.priced.outcomes.treated])
        return {names[code]: self.priced.outcomes.treated & (self.channel == code) for code in codes}

    def of(self, group: BoolArray | None = None, label: str = "all") -> dict[str, Effect]:
        """Return the average components of the sent decisions of a group (n,), by default of all.

        `gain` and `direct` are the effects on the engaged and on those who are not; `value` is that on all, engagement
        known or not. Hazards are shares of messages that a cost event followed.
        """
        rows = self.priced.outcomes.treated if group is None else self.priced.outcomes.treated & group
        k, user = self.components, self.history.decisions.user
        found: dict[str, Effect] = {ENGAGEMENT: share_of(k.engaged, user, rows, label)}
        for part, engaged in ((GAIN, 1.0), (DIRECT, 0.0)):
            found[part] = self.value.effect(rows & (k.engaged == engaged), label)
        found[VALUE] = self.value.effect(rows, label)
        for c, name in enumerate(k.cost_names):
            found[HAZARD.format(name)] = share_of(k.cost[:, c], user, rows, label)
        return found

    def table(self) -> pd.DataFrame:
        """Return the average components by channel, then those of all messages, one row each."""
        groups = self.channels | {"all": self.priced.outcomes.treated}
        rows = [
            (label, part, e.value, e.se, e.low, e.high, e.n_treated, e.n_users, e.n_without)
            for label, group in groups.items()
            for part, e in self.of(group, label).items()
        ]
        columns = ["channel", "component", "estimate", "se", "low", "high", "n", "n_users", "n_without"]
        return pd.DataFrame(rows, columns=columns)


@dataclass(frozen=True)
class Share(Effect):
    r"""A share of messages, whose interval stays within 0 and 1 and is right for rare events too.

    .. math:: \frac{p + z^2 / 2m \pm z \sqrt{p (1 - p) / m + z^2 / 4 m^2}}{1 + z^2 / m}, \qquad
        m = n / \max(1, se^2 n / p (1 - p))

    with z Student's quantile and m the number of independent messages that are worth as much as the n of the log, whose
    error is clustered by user; where all messages are alike, which tells nothing of how a user's go together, m is the
    number of users. Wilson (1927), "Probable inference, the law of succession, and statistical inference",
    Journal of the American Statistical Association; Kish (1965), "Survey sampling", on the design effect.
    """

    @property
    def low(self) -> float:
        """Lower end of the 95 % interval."""
        return self._wilson(-1.0)

    @property
    def high(self) -> float:
        """Upper end of the 95 % interval."""
        return self._wilson(1.0)

    def _wilson(self, sign: float) -> float:
        if not np.isfinite(self.se):
            return np.nan
        p, n = self.value, self.n_treated
        variance = p * (1.0 - p)
        m = n / max(1.0, self.se**2 * n / variance) if variance > 0 else self.n_users
        z = student_quantile(max(self.n_users - 1, 1))
        root = np.sqrt(variance / m + z**2 / (4.0 * m**2))
        end = (p + z**2 / (2.0 * m) + sign * z * root) / (1.0 + z**2 / m)
        return float(np.clip(end, 0.0, 1.0))


def share_of(values: FloatArray, user: IntArray, rows: BoolArray, label: str) -> Share:
    """Return the mean of values 0 and 1 (n,) over chosen rows (n,), its error clustered by user; NaN are left out."""
    known = rows & ~np.isnan(values)
    n, without = int(known.sum()), int((rows & np.isnan(values)).sum())
    users = len(np.unique(user[known]))
    if users < 2:
        return Share(label, np.nan, np.nan, n_treated=n, n_controls=0, n_without=without)
    mean = float(values[known].mean())
    influence = np.bincount(user[known], (values[known] - mean) / n)
    se = float(np.sqrt((influence**2).sum() * users / (users - 1)))
    return Share(label, mean, se, n_treated=n, n_controls=0, n_without=without, n_users=users)


def _clustered_error(influence: FloatArray) -> float:
    users = int(np.count_nonzero(influence))
    return float(np.sqrt((influence**2).sum() * users / max(users - 1, 1)))
