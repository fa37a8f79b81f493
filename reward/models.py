"""Reward models: from outcomes to one incremental reward per decision."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import ClassVar, Protocol

import numpy as np

from histories.errors import ConfigError
from histories.history import History
from histories.modules import FloatArray, IntArray
from reward.frame import FEW_CONTROLS, IDENTIFIED, OUTSIDE, OVERLAPPING, RewardFrame
from reward.outcomes import Outcomes, RewardSpec, measure
from reward.sums import ExactSums


class FittedReward(Protocol):
    """A reward model that has learned what happens without a message."""

    def transform(self, history: History) -> RewardFrame:
        """Rewards of every decision of a history."""
        ...

    def transform_outcomes(self, outcomes: Outcomes) -> RewardFrame:
        """The same, from outcomes that were measured already."""
        ...


class RewardModel(Protocol):
    """How outcomes become rewards: `model.fit(train).transform(history)`."""

    name: ClassVar[str]

    @property
    def spec(self) -> RewardSpec:
        """What is measured around each decision."""
        ...

    def fit(self, train: History) -> FittedReward:
        """Learns from the decisions of a history what happens without a message."""
        ...

    def fit_outcomes(self, outcomes: Outcomes, weights: FloatArray | None = None) -> FittedReward:
        """The same from outcomes that were measured already, each counted `weights` (n,) times."""
        ...


@dataclass(frozen=True)
class CellMeans:
    """Mean change of the controls in each calendar cell.

    Attributes:
        cell: Cells, ascending (c,).
        n: Controls in each (c,).
        mean: Their mean change (c,).
        sd: Standard deviation of their change (c,).
    """

    cell: IntArray
    n: FloatArray
    mean: FloatArray
    sd: FloatArray

    @classmethod
    def of(cls, values: FloatArray, cell: IntArray, weights: FloatArray | None) -> CellMeans:
        """Averages values (n,) of controls by cell (n,), each counted `weights` (n,) times."""
        cells, code = np.unique(cell, return_inverse=True)
        w = np.ones(len(values)) if weights is None else weights
        n = ExactSums.of(w, code, len(cells)).value()
        with np.errstate(divide="ignore", invalid="ignore"):
            mean = ExactSums.of(w * values, code, len(cells)).value() / n
            square = ExactSums.of(w * (values - mean[code]) ** 2, code, len(cells)).value()
            sd = np.sqrt(square / (n - 1.0))
        return cls(cells, n, mean, sd)

    def look_up(self, cell: IntArray) -> tuple[FloatArray, FloatArray, FloatArray]:
        """Number, mean and standard deviation (n,) for each cell asked for; 0 and NaN where there is none."""
        if len(self.cell) == 0:
            return np.zeros(len(cell)), np.full(len(cell), np.nan), np.full(len(cell), np.nan)
        place = np.minimum(np.searchsorted(self.cell, cell), len(self.cell) - 1)
        hit = self.cell[place] == cell
        return (
            np.where(hit, self.n[place], 0.0),
            np.where(hit, self.mean[place], np.nan),
            np.where(hit, self.sd[place], np.nan),
        )


def _frame(
    spec: RewardSpec,
    outcomes: Outcomes,
    reward: FloatArray,
    se: FloatArray,
    counterfactual: FloatArray,
    n_controls: FloatArray,
    few: np.ndarray,
) -> RewardFrame:
    reason = np.full(len(outcomes), IDENTIFIED, dtype=np.int64)
    reason[few] = FEW_CONTROLS
    if spec.overlap == "exclude":
        reason[outcomes.overlap] = OVERLAPPING
    reason[~outcomes.observed] = OUTSIDE
    ok = reason == IDENTIFIED
    return RewardFrame(
        reward=np.where(ok, reward, np.nan),
        se=np.where(ok, se, np.nan),
        pre=outcomes.pre,
        post=outcomes.post,
        counterfactual=np.where(ok, counterfactual, np.nan),
        n_controls=n_controls.astype(np.int64),
        overlap=outcomes.overlap,
        available_at=outcomes.available_at,
        reason=reason,
    )


@dataclass(frozen=True)
class FittedSpread:
    """A reward without controls: only the spread of the outcomes was learned."""

    spec: RewardSpec
    subtract_pre: bool
    sd: float

    def transform(self, history: History) -> RewardFrame:
        """Rewards of every decision of a history."""
        return self.transform_outcomes(measure(history, self.spec))

    def transform_outcomes(self, outcomes: Outcomes) -> RewardFrame:
        """Rewards of measured outcomes."""
        n = len(outcomes)
        reward = outcomes.change if self.subtract_pre else outcomes.post
        nothing = np.zeros(n)
        return _frame(self.spec, outcomes, reward, np.full(n, self.sd), nothing, nothing, np.zeros(n, dtype=bool))


def _spread(values: FloatArray, weights: FloatArray | None) -> float:
    if len(values) < 2:
        return float("nan")
    w = np.ones(len(values)) if weights is None else weights
    mean = np.average(values, weights=w)
    return float(np.sqrt(np.average((values - mean) ** 2, weights=w)))


@dataclass(frozen=True)
class RawReward:
    r"""The goal value after the decision, whoever caused it.

    .. math:: r_i = Y_{i,post}

    Assumes that nothing would have happened without the message, which is wrong wherever users are active by
    themselves or messages go to the active. It is here to be compared with.
    """

    spec: RewardSpec = field(default_factory=RewardSpec)
    name: ClassVar[str] = "raw"

    def fit(self, train: History) -> FittedSpread:
        """Learns the spread of the outcomes."""
        return self.fit_outcomes(measure(train, self.spec))

    def fit_outcomes(self, outcomes: Outcomes, weights: FloatArray | None = None) -> FittedSpread:
        """Learns the spread of measured outcomes."""
        rows = outcomes.observed
        return FittedSpread(self.spec, False, _spread(outcomes.post[rows], None if weights is None else weights[rows]))


@dataclass(frozen=True)
class ChangeReward:
    r"""The change of the goal value from before to after the decision, without controls.

    .. math:: r_i = Y_{i,post} - Y_{i,pre}

    Removes each user's level. Assumes that nothing but the message changed over time; every calendar shock enters.
    """

    spec: RewardSpec = field(default_factory=RewardSpec)
    name: ClassVar[str] = "change"

    def fit(self, train: History) -> FittedSpread:
        """Learns the spread of the changes."""
        return self.fit_outcomes(measure(train, self.spec))

    def fit_outcomes(self, outcomes: Outcomes, weights: FloatArray | None = None) -> FittedSpread:
        """Learns the spread of measured changes."""
        rows = outcomes.observed
        return FittedSpread(self.spec, True, _spread(outcomes.change[rows], None if weights is None else weights[rows]))


@dataclass(frozen=True)
class FittedDid:
    """A DiD reward whose controls' changes are known."""

    spec: RewardSpec
    controls: CellMeans

    def transform(self, history: History) -> RewardFrame:
        """Rewards of every decision of a history."""
        return self.transform_outcomes(measure(history, self.spec))

    def transform_outcomes(self, outcomes: Outcomes) -> RewardFrame:
        """Rewards of measured outcomes."""
        n, mean, sd = self.controls.look_up(outcomes.cell)
        few = n < self.spec.min_controls
        with np.errstate(divide="ignore", invalid="ignore"):
            se = sd * np.sqrt(1.0 + 1.0 / n)
        return _frame(self.spec, outcomes, outcomes.change - mean, se, mean, n, few)


@dataclass(frozen=True)
class DidReward:
    r"""Difference in differences: the change, minus the mean change of controls in the same calendar cell.

    .. math:: r_i = (Y_{i,post} - Y_{i,pre}) - \frac{1}{n_c} \sum_{j \in C(c_i)} (Y_{j,post} - Y_{j,pre})

    where :math:`C(c)` are the decisions of cell c at which nothing was sent, nor anywhere in their two windows. Its
    mean over sent decisions estimates the average effect on the treated if, without messages, treated and controls
    would have changed alike (parallel trends). The standard error of one reward is that of a new control's change
    around the cell's estimated mean, :math:`s_c \sqrt{1 + 1/n_c}`.

    Ashenfelter & Card (1985), "Using the longitudinal structure of earnings to estimate the effect of training
    programs", Review of Economics and Statistics.
    """

    spec: RewardSpec = field(default_factory=RewardSpec)
    name: ClassVar[str] = "did"

    def fit(self, train: History) -> FittedDid:
        """Learns the controls' mean change in every cell."""
        return self.fit_outcomes(measure(train, self.spec))

    def fit_outcomes(self, outcomes: Outcomes, weights: FloatArray | None = None) -> FittedDid:
        """Learns the controls' mean change from measured outcomes."""
        rows = outcomes.control
        chosen = None if weights is None else weights[rows]
        return FittedDid(self.spec, CellMeans.of(outcomes.change[rows], outcomes.cell[rows], chosen))


REWARDS: dict[str, Callable[[RewardSpec], RewardModel]] = {
    "raw": RawReward,
    "change": ChangeReward,
    "did": DidReward,
}


def make_reward(kind: str, spec: RewardSpec) -> RewardModel:
    """The reward model of a kind by its name.

    Raises:
        ConfigError: If there is no such kind.
    """
    if kind not in REWARDS:
        raise ConfigError(f"there is no reward kind {kind!r}: choose one of {', '.join(REWARDS)}")
    return REWARDS[kind](spec)


def refit(model: RewardModel, outcomes: Outcomes) -> Callable[[FloatArray], FloatArray]:
    """A function from decision weights (n,) to rewards (n,), with the model re-fitted on the weighted outcomes.

    The bootstrap calls it in every replicate, so that the error of the controls' means is part of its interval.
    """
    return lambda weights: model.fit_outcomes(outcomes, weights).transform_outcomes(outcomes).reward
