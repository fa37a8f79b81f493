"""Reward models: from outcomes to one incremental reward per decision."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from typing import ClassVar, Protocol

import numpy as np

from crosschannel.core.arrays import FloatArray
from crosschannel.histories.history import History
from crosschannel.reward.controls import CellMeans, Expected, narrowest
from crosschannel.reward.frame import RewardFrame, build_frame
from crosschannel.reward.measurement.outcomes import NO_CELL, Outcomes, RewardSpec, measure
from crosschannel.reward.measurement.preprocessing import Gauge


class FittedReward(Protocol):
    """A reward model that has learned what happens without a message."""

    def transform(self, history: History) -> RewardFrame:
        """Rewards of every decision of a history."""
        ...

    def transform_outcomes(self, outcomes: Outcomes) -> RewardFrame:
        """The same, from outcomes that were measured already."""
        ...


class RewardModel(Protocol):
    """How outcomes become rewards: `model.fit(train).transform(history)`, or `model.fit_transform(history)` at once."""

    name: ClassVar[str]
    adjust: ClassVar[bool]

    @property
    def spec(self) -> RewardSpec:
        """What is measured around each decision."""
        ...

    def measure(self, history: History) -> Outcomes:
        """Outcomes of a history, with the covariates that the model needs."""
        ...

    def fit(self, train: History) -> FittedReward:
        """Learns from the decisions of a history what happens without a message."""
        ...

    def fit_outcomes(self, outcomes: Outcomes, weights: FloatArray | None = None) -> FittedReward:
        """The same from outcomes that were measured already, each counted `weights` (n,) times.

        What the outcomes were measured with, `Outcomes.gauge`, is kept for other histories and not learned anew.
        """
        ...

    def fit_transform(self, train: History) -> RewardFrame:
        """Rewards of the very decisions that the model is fitted on: `fit(train).transform(train)`, measured once."""
        ...


@dataclass(frozen=True)
class ModelOn(ABC):
    """What all kinds share: settings, and measuring before fitting.

    Attributes:
        spec: What is measured around each decision.
    """

    spec: RewardSpec = field(default_factory=RewardSpec)
    name: ClassVar[str]
    adjust: ClassVar[bool] = False

    def measure(self, history: History) -> Outcomes:
        """Outcomes of a history, with covariates fitted on it where the kind adjusts for them."""
        return measure(history, self.spec, adjust=self.adjust)

    def fit(self, train: History) -> FittedReward:
        """Learns from the decisions of a history what happens without a message."""
        return self.fit_outcomes(self.measure(train))

    @abstractmethod
    def fit_outcomes(self, outcomes: Outcomes, weights: FloatArray | None = None) -> FittedReward:
        """The same from outcomes that were measured already, each counted `weights` (n,) times."""

    def fit_transform(self, train: History) -> RewardFrame:
        """Rewards of the very decisions that the model is fitted on: `fit(train).transform(train)`, measured once."""
        outcomes = self.measure(train)
        return self.fit_outcomes(outcomes).transform_outcomes(outcomes)


@dataclass(frozen=True)
class FittedOn(ABC):
    """What all fitted kinds share.

    Attributes:
        spec: What is measured.
        gauge: What it is measured with.
    """

    spec: RewardSpec
    gauge: Gauge

    def transform(self, history: History) -> RewardFrame:
        """Rewards of every decision of a history."""
        return self.transform_outcomes(measure(history, self.spec, self.gauge))

    @abstractmethod
    def transform_outcomes(self, outcomes: Outcomes) -> RewardFrame:
        """Rewards of measured outcomes."""

    def one_level_each(self) -> Sequence[FittedOn]:
        """The same with the cells of one level of the matching each, small cells included."""
        return ()


def one_level_each(spec: RewardSpec) -> list[RewardSpec]:
    """Settings with the cells of one level of the matching each, small cells included.

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
                widen=(),
            ),
        )
        for level in matching.levels
    ]


@dataclass(frozen=True)
class FittedSpread(FittedOn):
    """A reward without controls: the part of each window's value that it counts, and the spread of the outcomes.

    Attributes:
        before: What a unit before the decision is subtracted with: 0 for `raw`, 1 for `change`.
        sd: Standard deviation of the training outcomes.
    """

    before: float
    sd: float

    def transform_outcomes(self, outcomes: Outcomes) -> RewardFrame:
        """Rewards of measured outcomes."""
        reward = outcomes.post - self.before * outcomes.pre
        nothing = np.zeros(len(reward))
        level = np.zeros(len(reward), dtype=np.int64)
        expected = Expected(nothing, nothing, np.full(len(reward), self.sd), outcomes.available_at, level)
        return build_frame(outcomes, self.spec.overlap, reward, expected)

    @classmethod
    def of(cls, spec: RewardSpec, outcomes: Outcomes, before: float, weights: FloatArray | None) -> FittedSpread:
        """Learns the spread of measured outcomes, each counted `weights` (n,) times."""
        rows = outcomes.observed
        values = (outcomes.post - before * outcomes.pre)[rows]
        return cls(spec, outcomes.gauge, before, _spread(values, None if weights is None else weights[rows]))


def _spread(values: FloatArray, weights: FloatArray | None) -> float:
    if len(values) < 2:
        return float("nan")
    # Floating-point sums depend on the order of rows: put them into one that only their content decides.
    order = np.lexsort((values,) if weights is None else (weights, values))
    values, w = values[order], np.ones(len(values)) if weights is None else weights[order]
    mean = np.average(values, weights=w)
    return float(np.sqrt(np.average((values - mean) ** 2, weights=w)))


@dataclass(frozen=True)
class RawReward(ModelOn):
    r"""The goal value after the decision, whoever caused it.

    .. math:: r_i = Y_{i,post}

    net of the user's rhythm, if that is asked for. Assumes that nothing would have happened without the message. It
    fails wherever users are active by themselves: every reward is too large, and more so for active users and for the
    actions that go to them, so a policy learns whom to watch and not what to send. It is here to be compared with; it
    is the attribution by time window of marketing reports (Gordon et al., 2019, "A comparison of approaches to
    advertising measurement: evidence from big field experiments at Facebook", Marketing Science).
    """

    name: ClassVar[str] = "raw"

    def fit_outcomes(self, outcomes: Outcomes, weights: FloatArray | None = None) -> FittedSpread:
        """Learns the spread of measured outcomes."""
        return FittedSpread.of(self.spec, outcomes, 0.0, weights)


@dataclass(frozen=True)
class ChangeReward(ModelOn):
    r"""The change of the goal value from before to after the decision, without controls.

    .. math:: r_i = Y_{i,post} - Y_{i,pre}

    with the pre window scaled to the post window. Removes each user's level. Assumes that nothing but the message
    changed over time. It fails with every calendar shock (pay day, rain, a sale), which it pays to whatever was sent
    that day, and with sends triggered by unusual activity, which returns to its mean by itself (Ashenfelter, 1978,
    "Estimating the effect of training programs on earnings", Review of Economics and Statistics).
    """

    name: ClassVar[str] = "change"

    def fit_outcomes(self, outcomes: Outcomes, weights: FloatArray | None = None) -> FittedSpread:
        """Learns the spread of measured outcomes."""
        return FittedSpread.of(self.spec, outcomes, 1.0, weights)


@dataclass(frozen=True)
class FittedDid(FittedOn):
    """A DiD reward whose controls' changes are known, in cells from narrow to wide (`Matching.levels`)."""

    controls: tuple[CellMeans, ...]

    def transform_outcomes(self, outcomes: Outcomes) -> RewardFrame:
        """Rewards of measured outcomes."""
        levels = zip(self.controls, self.spec.matching.levels, strict=True)
        found = (means.expected(outcomes.cells(level)) for means, level in levels)
        expected = narrowest(found, self.spec.min_controls)
        return build_frame(outcomes, self.spec.overlap, outcomes.change - expected.mean, expected)

    def one_level_each(self) -> Sequence[FittedOn]:
        """The same with the cells of one level of the matching each, small cells included."""
        alone = zip(one_level_each(self.spec), self.controls, strict=True)
        return [replace(self, spec=spec, controls=(means,)) for spec, means in alone]


@dataclass(frozen=True)
class DidReward(ModelOn):
    r"""Difference in differences: the change, minus the mean change of controls in the same calendar cell.

    .. math:: r_i = (Y_{i,post} - Y_{i,pre}) - \frac{1}{n_c} \sum_{j \in C(c_i)} (Y_{j,post} - Y_{j,pre})

    where :math:`C(c)` are the controls of cell c (`RewardSpec.controls`): the calendar cell, and within it what
    `RewardSpec.matching` asks for, widened until there are `min_controls` of them. Its mean over sent decisions
    estimates the average effect on the treated if, without messages, treated and controls of a cell would have changed
    alike (parallel trends), and if messages to some users do not act on the controls. The standard error of one reward
    is that of a new control's change around the cell's estimated mean, :math:`s_c \sqrt{1 + 1/n_c}`.

    It fails where sends follow what was about to change anyway: triggered by a dip in activity, which recovers by
    itself, or timed by habits that controls do not share. The pre-trend diagnostic sees the first kind, not all of the
    second; adjusting for the trigger (`did_dr`), strata of past activity or the rhythm are the remedies.

    Ashenfelter & Card (1985), "Using the longitudinal structure of earnings to estimate the effect of training
    programs", Review of Economics and Statistics; on cells, Abadie (2005), "Semiparametric difference-in-differences
    estimators", Review of Economic Studies.
    """

    name: ClassVar[str] = "did"

    def fit_outcomes(self, outcomes: Outcomes, weights: FloatArray | None = None) -> FittedDid:
        """Learns the controls' mean change from measured outcomes."""
        change = outcomes.change
        means = []
        for level in self.spec.matching.levels:
            cell = outcomes.cells(level)
            rows = outcomes.control & (cell != NO_CELL)
            chosen = None if weights is None else weights[rows]
            closes, stake = outcomes.available_at[rows], outcomes.stake[rows]
            means.append(CellMeans.of(change[rows], cell[rows], chosen, closes, stake))
        return FittedDid(self.spec, outcomes.gauge, tuple(means))
