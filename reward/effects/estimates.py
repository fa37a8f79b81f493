"""Average effects on the treated, of any reward kind and over any group, with user-clustered errors."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property

import numpy as np
import pandas as pd

from crosschannel.core.arrays import BoolArray, FloatArray, IntArray
from crosschannel.core.errors import ConfigError, NotIdentified, nearest
from crosschannel.core.times import duration, timestamps
from crosschannel.histories.history import History
from crosschannel.reward.adjusted import FittedAdjusted
from crosschannel.reward.effects.buckets.counts import RewardCounts
from crosschannel.reward.effects.groups import attribute_groups
from crosschannel.reward.effects.inference import student_quantile
from crosschannel.reward.effects.influence import WITHOUT_CONTROLS, WITHOUT_INFLUENCE, Influences
from crosschannel.reward.frame import RewardFrame
from crosschannel.reward.measurement.outcomes import Outcomes, measure
from crosschannel.reward.measurement.preprocessing import in_arms
from crosschannel.reward.models import BaseFittedReward, DidReward, RewardModel
from crosschannel.reward.reason import Reason
from crosschannel.reward.spec import RewardSpec

EFFECT_COLUMNS = ("by", "label", "effect", "se", "low", "high", "n_treated", "n_controls", "n_users", "n_without")
GROUPINGS = ("all", "goal", "action", "module:NAME", "time_bucket", "period:LENGTH", "attribute:NAME")


@dataclass(frozen=True)
class Effect:
    """An average effect on the treated.

    Attributes:
        label: The group of decisions that it is about.
        value: The effect, in reward units per decision; NaN where it is not identified.
        se: Its user-clustered standard error.
        n_treated: Sent decisions that it averages.
        n_controls: Controls that it is compared with.
        n_without: Sent decisions of the group that have no reward and are left out.
        n_users: Users on the smaller side, treated or controls: few of them widen the interval.
    """

    label: str
    value: float
    se: float
    n_treated: int
    n_controls: int
    n_without: int = 0
    n_users: int = 0

    @classmethod
    def not_identified(cls, label: str, *, n_treated: int = 0, n_without: int = 0) -> Effect:
        """Return an effect without a value."""
        return cls(label, np.nan, np.nan, n_treated=n_treated, n_controls=0, n_without=n_without)

    @property
    def low(self) -> float:
        """Lower end of the 95 % interval, by Student's t with one degree of freedom less than `n_users`."""
        return self.value - self._margin

    @property
    def high(self) -> float:
        """Upper end of the 95 % interval."""
        return self.value + self._margin

    @property
    def _margin(self) -> float:
        return student_quantile(max(self.n_users - 1, 1)) * self.se


@dataclass(frozen=True)
class TreatmentEffects:
    r"""A reward model, fitted on a log, whose rewards can be averaged over groups of its sent decisions.

    .. math:: \widehat{ATT}_g = \frac{1}{n_1} \sum_{i \in g} r_i, \qquad
        \hat V = \frac{G}{G - 1} \sum_u \psi_u^2

    over the group's sent decisions that have a reward, with :math:`\psi_u` the influence of user u (`Influences`): it
    includes the error of the controls' means, and decisions of one user may depend on each other. For `raw` and
    `change` it is a plain average with its error, an effect only under their assumptions. Where `overlap: exclude`
    takes rewards away, both sides are averaged with `Outcomes.ipc_weight`, so that the average is about all decisions.

    Attributes:
        model: The reward model.
        outcomes: What was measured (n decisions).
        frame: The rewards.
        influences: The influence of users on averages of them.
    """

    model: RewardModel
    outcomes: Outcomes
    frame: RewardFrame
    influences: Influences

    @cached_property
    def counts(self) -> RewardCounts:
        """How many decisions have a reward, and what rewards rest on."""
        return RewardCounts.from_outcomes(self.outcomes, self.frame)

    @classmethod
    def fit(cls, model: RewardModel, history: History) -> TreatmentEffects:
        """Measure a history, and fit the model on it."""
        return cls.fit_outcomes(model, model.measure(history))

    @classmethod
    def fit_outcomes(cls, model: RewardModel, outcomes: Outcomes) -> TreatmentEffects:
        """Fit the model on measured outcomes.

        Raises:
            ConfigError: If the model is not one of this package's kinds: it has no influence function.
        """
        fitted = model.fit_outcomes(outcomes)
        frame = fitted.transform_outcomes(outcomes)
        if not isinstance(fitted, BaseFittedReward):
            raise ConfigError(WITHOUT_INFLUENCE.format(model.name))
        by_level = [frame.reward]
        if len(model.spec.matching.levels) > 1 or (frame.reason == Reason.FEW_CONTROLS).any():
            by_level = [one.transform_outcomes(outcomes).reward for one in fitted.at_each_level()]
        odds = fitted.odds if isinstance(fitted, FittedAdjusted) else None
        return cls(model, outcomes, frame, Influences.build(model.name, outcomes, model.spec, frame, by_level, odds))

    def effect(self, group: BoolArray | None = None, label: str = "all") -> Effect:
        """Return the average effect on the sent decisions of a group (n,), by default on all.

        For `did_dr` a group of whole cells is doubly robust, as all are; any other group relies on the regression alone
        (`by_action` and `by_attribute` fit the model to each group, and do not).
        """
        return self.effect_and_influence(group, label)[0]

    def effect_and_influence(self, group: BoolArray | None = None, label: str = "all") -> tuple[Effect, FloatArray]:
        """Return the effect and the influence of every user code (U,), for joint tests; all 0 where there is none."""
        o = self.outcomes
        wanted = o.treated if group is None else o.treated & group
        rows = np.flatnonzero(wanted & self.frame.identified)
        without = int(wanted.sum()) - len(rows)
        if len(rows) < 2:
            none = Effect.not_identified(label, n_treated=len(rows), n_without=without)
            return none, np.zeros(self.influences.users)
        value = float(np.average(self.frame.reward[rows], weights=o.ipc_weight[rows]))
        influence = self.influences.by_user(rows)
        controls = self.influences.controls_of(rows)
        is_treated, is_control = (np.bincount(o.user[some], minlength=len(influence)) > 0 for some in (rows, controls))
        users, n_treated = int((is_treated | is_control).sum()), int(is_treated.sum())
        fewer = n_treated if self.model.name in WITHOUT_CONTROLS else min(n_treated, int(is_control.sum()))
        se = float(np.sqrt((influence**2).sum() * users / (users - 1))) if users > 1 else np.nan
        effect = Effect(
            label=label,
            value=value,
            se=se,
            n_treated=len(rows),
            n_controls=len(controls),
            n_without=without,
            n_users=fewer,
        )
        return effect, influence

    def by_time_bucket(self) -> list[Effect]:
        """Return one effect for each time bucket in which something was sent."""
        return self.by_period(self.model.spec.time_bucket)

    def by_period(self, period: str = "1w") -> list[Effect]:
        """Return one effect for each calendar period (whole lengths since 1970) in which something was sent."""
        code = periods_of(self.outcomes, self.model.spec, period)
        codes = np.unique(code[self.outcomes.treated])
        return [self.effect(code == c, name_of_period(c, period)) for c in codes]

    def by_action(self, history: History, module: str) -> list[Effect]:
        """Return one effect for each action of a module that was ever sent: see `fit_each_action`."""
        return [
            Effect.not_identified(label, n_without=sent) if fitted is None else fitted.effect(None, label)
            for label, sent, fitted in fit_each_action(self.model, self.outcomes, history, module)
        ]

    def by_goal(self, history: History) -> list[Effect]:
        """Return one effect for each goal, with its weight, as if it were the only one; they add up to the whole."""
        return [
            self.with_values(one.pre, one.post).effect(None, f"{goal.event} x {goal.weight:g}")
            for goal in self.model.spec.goals
            for one in [measure(history, replace(self.model.spec, goals=(goal,), funnel=None))]
        ]

    def by_attribute(self, history: History, name: str) -> list[Effect]:
        """Return one effect for each group of users by an attribute, each against the controls of its own group.

        Only what is fixed before the log may divide users: groups by their activity in the log would regress to the
        mean. See `attribute_groups`.
        """
        return [
            self.restricted(users[self.outcomes.user]).effect(None, label)
            for label, users in attribute_groups(history, name)
        ]

    def with_values(self, pre: FloatArray, post: FloatArray) -> TreatmentEffects:
        """Fit the model on the same decisions and controls with other values before and after."""
        return self.fit_outcomes(self.model, replace(self.outcomes, pre=pre, post=post))

    def restricted(self, rows: BoolArray) -> TreatmentEffects:
        """Fit the model on some of the decisions alone."""
        return self.fit_outcomes(self.model, self.outcomes.select(rows))


def periods_of(outcomes: Outcomes, spec: RewardSpec, period: str) -> IntArray:
    """Return the calendar period (n,) of each decision: whole lengths since 1970."""
    return (outcomes.available_at - duration(spec.post)) // duration(period)


def name_of_period(code: int, period: str) -> str:
    """Return when a period begins."""
    return f"{timestamps(np.array([code * duration(period)])).iloc[0]:%Y-%m-%d %H:%M}"


def fit_each_action(
    model: RewardModel, outcomes: Outcomes, history: History, module: str
) -> Iterator[tuple[str, int, TreatmentEffects | None]]:
    """Yield each action of a module that was ever sent, how often, and the model fitted to it; None if too rare.

    Sends of other actions are neither treated nor controls, and the odds of `did_dr` are those of this action against
    nothing, so that each number is doubly robust: see `Odds`. Controls are those of all sends, at slots where the
    action was eligible: where it could not be sent, not sending it does not depend on the user. To users who are held
    out nothing could be sent by design, and they are controls of every action: the assumption is that those of them who
    could not have got it would have changed as those who got it.

    Args:
        model: The reward model.
        outcomes: What it measured (n decisions): `model.measure(history)`.
        history: The log.
        module: The module.

    Raises:
        ConfigError: If there is no such module.
    """
    if module not in history.modules.names:
        raise ConfigError(f"there is no module {module!r}. {nearest(module, history.modules.names)}")
    m = history.modules.names.index(module)
    for code in np.unique(outcomes.actions[outcomes.treated, m]):
        of_this = of_action(outcomes, history, model.spec, m, int(code))
        label = history.modules[module].actions[code]
        fitted: TreatmentEffects | None
        try:
            fitted = TreatmentEffects.fit_outcomes(model, of_this)
        except NotIdentified:
            fitted = None
        yield label, int(of_this.treated.sum()), fitted


def of_action(outcomes: Outcomes, history: History, spec: RewardSpec, module: int, code: int) -> Outcomes:
    """Return outcomes in which one action of a module alone is treated: see `fit_each_action`."""
    o, slices = outcomes, history.modules.slices
    eligible = history.eligible[:, slices[module]][:, code]
    held_out = in_arms(history, spec.holdout_arms) & ~history.eligible[:, slices[0]][:, 1:].any(axis=1)
    control = o.control & (eligible | held_out)
    return replace(o, treated=o.treated & (o.actions[:, module] == code), control=control)


def average_effect(outcomes: Outcomes, spec: RewardSpec, group: BoolArray, label: str) -> Effect:
    r"""Return the DiD estimate of the average effect on the treated decisions of a group.

    .. math:: \widehat{ATT} = \sum_c \frac{n_{1c}}{n_1} (\bar\Delta_{1c} - \bar\Delta_{0c})

    over cells c, with :math:`\bar\Delta_{1c}` the mean change of the group's treated decisions and
    :math:`\bar\Delta_{0c}` that of the controls.
    """
    return TreatmentEffects.fit_outcomes(DidReward(spec), outcomes).effect(group, label)


def effects_table(effects: Mapping[str, Sequence[Effect]]) -> pd.DataFrame:
    """Return effects by grouping as one table with the columns `EFFECT_COLUMNS`, one row per effect."""
    rows = [
        (by, e.label, e.value, e.se, e.low, e.high, e.n_treated, e.n_controls, e.n_users, e.n_without)
        for by, group in effects.items()
        for e in group
    ]
    return pd.DataFrame(rows, columns=list(EFFECT_COLUMNS))


def effects_by(fitted: TreatmentEffects, history: History, groupings: Sequence[str]) -> dict[str, list[Effect]]:
    """Estimate effects by each grouping named.

    Args:
        fitted: The model, fitted on the history.
        history: The history.
        groupings: Any of `GROUPINGS`; `action` stands for every module, `period` for weeks.

    Raises:
        ConfigError: If a grouping is not known.
    """
    found: dict[str, list[Effect]] = {}
    for name in groupings:
        kind, _, detail = name.partition(":")
        if kind == "all":
            found["all"] = [fitted.effect()]
        elif kind == "goal":
            found["goal"] = fitted.by_goal(history)
        elif kind == "action":
            found |= {module.name: fitted.by_action(history, module.name) for module in history.modules}
        elif kind == "module":
            found[detail] = fitted.by_action(history, detail)
        elif kind == "time_bucket":
            found["time_bucket"] = fitted.by_time_bucket()
        elif kind == "period":
            found["period"] = fitted.by_period(detail or "1w")
        elif kind == "attribute":
            found[detail] = fitted.by_attribute(history, detail)
        else:
            raise ConfigError(f"there is no grouping {name!r}. {nearest(kind, GROUPINGS)}")
    return found
