"""Reward models: from outcomes to one incremental reward per decision."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from typing import ClassVar

import numpy as np

from crosschannel.core.arrays import FloatArray
from crosschannel.histories.history import History
from crosschannel.reward.controls import CellMeans, Controls, ExpectedChange, are_enough, find, narrowest_sufficient
from crosschannel.reward.frame import RewardFrame, build_frame
from crosschannel.reward.funnel.components import with_components
from crosschannel.reward.interface import FittedReward as FittedReward
from crosschannel.reward.interface import RewardModel as RewardModel
from crosschannel.reward.measurement.outcomes import NO_CELL, Outcomes, measure, measure_with
from crosschannel.reward.measurement.preprocessing import FittedPreprocessing
from crosschannel.reward.measurement.ties import check_order_is_known
from crosschannel.reward.spec import RewardSpec, pooled_buckets


@dataclass(frozen=True)
class BaseRewardModel(ABC):
    """What all kinds share: settings, and measuring before fitting.

    Attributes:
        spec: What is measured around each decision.
    """

    spec: RewardSpec = field(default_factory=RewardSpec)
    name: ClassVar[str]
    adjust: ClassVar[bool] = False
    uses_pre: ClassVar[bool] = True

    def measure(self, history: History) -> Outcomes:
        """Measure the outcomes of a history, with covariates fitted on it where the kind adjusts for them."""
        return measure(history, self.spec, adjust=self.adjust, uses_pre=self.uses_pre)

    def fit(self, train: History) -> FittedReward:
        """Learn from the decisions of a history what happens without a message."""
        return self.fit_outcomes(self.measure(train))

    @abstractmethod
    def fit_outcomes(self, outcomes: Outcomes, weights: FloatArray | None = None) -> FittedReward:
        """Fit to outcomes that were measured already, each counted `weights` (n,) times."""

    def fit_transform(self, train: History) -> RewardFrame:
        """Fit, and return the rewards of the same decisions: `fit(train).transform(train)`, with one measurement.

        With `RewardSpec.funnel` they have components, as from `reward.funnel.with_components`.
        """
        outcomes = self.measure(train)
        return with_components(self, train, outcomes, self.fit_outcomes(outcomes).transform_outcomes(outcomes))


@dataclass(frozen=True)
class BaseFittedReward(ABC):
    """What all fitted kinds share.

    Attributes:
        spec: What is measured.
        preprocessing: What it is measured with, fitted on the training history.
    """

    spec: RewardSpec
    preprocessing: FittedPreprocessing

    @property
    def uses_pre(self) -> bool:
        """Whether the reward needs the window before the decision."""
        return True

    def transform(self, history: History) -> RewardFrame:
        """Return the reward of every decision of a history.

        Raises:
            NotIdentified: If the order of its decisions and goal events is not known.
        """
        check_order_is_known(history, self.spec.goals)
        outcomes = measure_with(history, self.spec, self.preprocessing, uses_pre=self.uses_pre)
        return self.transform_outcomes(outcomes)

    @abstractmethod
    def transform_outcomes(self, outcomes: Outcomes) -> RewardFrame:
        """Return the rewards of measured outcomes."""

    def at_each_level(self) -> Sequence[BaseFittedReward]:
        """Return one fitted reward for each level of the matching, without fallback and with small cells included."""
        return ()


def specs_at_each_level(spec: RewardSpec) -> list[RewardSpec]:
    """Return one spec for each level of the matching, without fallback and with small cells included.

    Controls of cells that are too small for a reward still take part in a regression's slopes.
    """
    matching = spec.matching
    return [
        replace(
            spec,
            min_controls=2,
            matching=replace(
                matching,
                within=matching.within if "within" in level else (),
                strata=matching.strata if "strata" in level else 1,
                fallback=(),
                buckets=pooled_buckets(level),
            ),
        )
        for level in matching.levels
    ]


@dataclass(frozen=True)
class FittedWithoutControls(BaseFittedReward):
    """A reward without controls: the goal value after the decision, with or without that before subtracted.

    Attributes:
        before: Weight with which the value before the decision is subtracted: 0 for `raw`, 1 for `change`.
        sd: Standard deviation of the training outcomes.
    """

    before: float
    sd: float

    @property
    def uses_pre(self) -> bool:
        """Whether the reward needs the window before the decision."""
        return self.before != 0

    def transform_outcomes(self, outcomes: Outcomes) -> RewardFrame:
        """Return the rewards of measured outcomes."""
        reward = outcomes.post - self.before * outcomes.pre if self.before else outcomes.post
        nothing = np.zeros(len(reward))
        expected = ExpectedChange(
            n=nothing,
            mean=nothing,
            se=np.full(len(reward), self.sd),
            closes_at=outcomes.available_at,
            level=np.zeros(len(reward), dtype=np.int64),
        )
        return build_frame(outcomes, self.spec.overlap, reward, expected)

    @classmethod
    def fit(
        cls, spec: RewardSpec, outcomes: Outcomes, before: float, weights: FloatArray | None
    ) -> FittedWithoutControls:
        """Fit the standard deviation of measured outcomes, each counted `weights` (n,) times."""
        rows = outcomes.observed
        values = (outcomes.post - before * outcomes.pre if before else outcomes.post)[rows]
        return cls(
            spec,
            outcomes.preprocessing,
            before,
            _standard_deviation(values, None if weights is None else weights[rows]),
        )


def _standard_deviation(values: FloatArray, weights: FloatArray | None) -> float:
    if len(values) < 2:
        return float("nan")
    # Floating-point sums depend on the order of rows: put them into one that only their content decides.
    order = np.lexsort((values,) if weights is None else (weights, values))
    values, w = values[order], np.ones(len(values)) if weights is None else weights[order]
    mean = np.average(values, weights=w)
    return float(np.sqrt(np.average((values - mean) ** 2, weights=w)))


@dataclass(frozen=True)
class RawReward(BaseRewardModel):
    r"""The goal value after the decision, whoever caused it.

    .. math:: r_i = Y_{i,post}

    less the user's seasonal level, if that is asked for. Assumes that nothing would have happened without the message.
    It fails wherever users are active by themselves: every reward is too large, and more so for active users and for
    the actions that go to them, so a policy learns which users are active and not what to send. It serves as a
    comparison: it is the attribution by time window of marketing reports (Gordon et al., 2019, "A comparison of
    approaches to advertising measurement: evidence from big field experiments at Facebook", Marketing Science). The
    window before the decision is not needed, and where it was not observed `pre` is NaN.
    """

    name: ClassVar[str] = "raw"
    uses_pre: ClassVar[bool] = False

    def fit_outcomes(self, outcomes: Outcomes, weights: FloatArray | None = None) -> FittedWithoutControls:
        """Fit the standard deviation of measured outcomes."""
        return FittedWithoutControls.fit(self.spec, outcomes, 0.0, weights)


@dataclass(frozen=True)
class ChangeReward(BaseRewardModel):
    r"""The change of the goal value from before to after the decision, without controls.

    .. math:: r_i = Y_{i,post} - Y_{i,pre}

    with the pre window scaled to the post window. Removes each user's level. Assumes that nothing but the message
    changed over time. It fails with every calendar shock (pay day, rain, a sale), which it credits to whatever was sent
    that day, and with sends triggered by unusual activity, which returns to its mean by itself (Ashenfelter, 1978,
    "Estimating the effect of training programs on earnings", Review of Economics and Statistics).
    """

    name: ClassVar[str] = "change"

    def fit_outcomes(self, outcomes: Outcomes, weights: FloatArray | None = None) -> FittedWithoutControls:
        """Fit the standard deviation of measured outcomes."""
        return FittedWithoutControls.fit(self.spec, outcomes, 1.0, weights)


@dataclass(frozen=True)
class FittedDid(BaseFittedReward):
    """A DiD reward whose controls' mean changes are known.

    Attributes:
        controls: The means by cell, one for each level of `Matching.levels`.
    """

    controls: tuple[CellMeans, ...]

    def transform_outcomes(self, outcomes: Outcomes) -> RewardFrame:
        """Return the rewards of measured outcomes."""
        levels = zip(self.controls, self.spec.matching.levels, strict=True)
        found = (means.expected(outcomes.cells(level)) for means, level in levels)
        expected = narrowest_sufficient(found, self.spec.min_controls)
        return build_frame(outcomes, self.spec.overlap, outcomes.change - expected.mean, expected)

    def at_each_level(self) -> Sequence[BaseFittedReward]:
        """Return one fitted reward for each level of the matching, without fallback and with small cells included."""
        alone = zip(specs_at_each_level(self.spec), self.controls, strict=True)
        return [replace(self, spec=spec, controls=(means,)) for spec, means in alone]


@dataclass(frozen=True)
class DidReward(BaseRewardModel):
    r"""Difference in differences: the change, minus the mean change of controls in the same cell.

    .. math:: r_i = (Y_{i,post} - Y_{i,pre}) - \frac{1}{n_c} \sum_{j \in C(c_i)} (Y_{j,post} - Y_{j,pre})

    where :math:`C(c)` are the controls of cell c (`RewardSpec.controls`): those of the same time bucket that share what
    `RewardSpec.matching` asks for, at the narrowest level that has `min_controls` of them. Its mean over sent decisions
    estimates the average effect on the treated if, without messages, treated and controls of a cell would have changed
    alike (parallel trends), and if messages to some users do not act on the controls. The standard error of one reward
    is that of a new control's change around the cell's estimated mean, :math:`s_c \sqrt{1 + 1/n_c}`.

    It fails where sends follow what was about to change anyway: triggered by a dip in activity, which recovers by
    itself, or timed by habits that controls do not share. The pre-trend diagnostic sees the first kind, not all of the
    second; remedies are adjusting for the trigger (`did_dr`), strata of past activity and seasonality.

    Ashenfelter & Card (1985), "Using the longitudinal structure of earnings to estimate the effect of training
    programs", Review of Economics and Statistics; on cells, Abadie (2005), "Semiparametric difference-in-differences
    estimators", Review of Economic Studies.
    """

    name: ClassVar[str] = "did"

    def fit_outcomes(self, outcomes: Outcomes, weights: FloatArray | None = None) -> FittedDid:
        """Fit the controls' mean change to measured outcomes."""
        change = outcomes.change
        means = []
        for level in self.spec.matching.levels:
            cell = outcomes.cells(level)
            rows = outcomes.control & (cell != NO_CELL)
            chosen = None if weights is None else weights[rows]
            closes_at, weight = outcomes.available_at[rows], outcomes.ipc_weight[rows]
            unit = outcomes.preprocessing.unit(self.spec)
            means.append(CellMeans.fit(change[rows], cell[rows], chosen, closes_at, weight, unit))
        return FittedDid(self.spec, outcomes.preprocessing, tuple(means))


def refit_did(spec: RewardSpec, outcomes: Outcomes) -> Callable[[FloatArray], FloatArray]:
    """Return the function of weights (n,) that re-fits `DidReward` and returns the rewards (n,), equal to the bit.

    What does not depend on the weights is computed once: the cell of each decision and of each control.
    """
    change, weight = outcomes.change, outcomes.ipc_weight
    possible = outcomes.observed & ~(outcomes.overlap & (spec.overlap == "exclude"))
    levels = []
    for level in spec.matching.levels:
        cell = outcomes.cells(level)
        rows = np.flatnonzero(outcomes.control & (cell != NO_CELL))
        controls = Controls.from_cells(cell[rows], weight[rows], outcomes.preprocessing.unit(spec))
        hit, place = find(controls.cell, cell)
        levels.append((rows, change[rows], controls, np.where(possible & hit, place, len(controls.cell))))

    def rewards(weights: FloatArray) -> FloatArray:
        expected = np.full(len(change), np.nan)
        for rows, values, controls, place in levels:
            average = controls.average(values, weights[rows])
            # The last entry serves decisions without controls.
            mean = np.append(np.where(are_enough(average.n, spec.min_controls), average.mean, np.nan), np.nan)
            expected = np.where(np.isnan(expected), mean[place], expected)
        return np.asarray(change - expected)

    return rewards
