"""DiD rewards that adjust for covariates: by outcome regression, and doubly robust."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import ClassVar

import numpy as np

from histories.context import ContextFeatures
from histories.errors import NotIdentified
from histories.history import History
from histories.logistic import Logistic
from histories.modules import FloatArray, IntArray
from reward.controls import CellMeans
from reward.frame import RewardFrame, build_frame
from reward.outcomes import Outcomes, RewardSpec, measure

LARGEST_PROPENSITY = 0.995


@dataclass(frozen=True)
class OutcomeRegression:
    r"""Expected change without a message, :math:`m(c, x) = \alpha_c + x^\top \beta`, by least squares on controls.

    Attributes:
        change: The controls' mean change by cell.
        covariates: Their mean covariates by cell (c, p).
        beta: Slopes, the same in all cells (p,).
    """

    change: CellMeans
    covariates: FloatArray
    beta: FloatArray

    @classmethod
    def fit(cls, change: FloatArray, x: FloatArray, cell: IntArray, weights: FloatArray) -> OutcomeRegression:
        """Fits n controls, each counted `weights` (n,) times; slopes come from differences within cells."""
        # Least squares adds up in the order of rows: put them into an order that only their content decides.
        order = np.lexsort((*x.T, weights, change, cell))
        change, x, cell, weights = change[order], x[order], cell[order], weights[order]
        means = CellMeans.of(change, cell, weights)
        place = np.searchsorted(means.cell, cell)
        x_mean = (
            np.stack([np.bincount(place, weights * column, len(means.cell)) for column in x.T], axis=1)
            if x.shape[1]
            else np.zeros((len(means.cell), 0))
        )
        with np.errstate(divide="ignore", invalid="ignore"):
            x_mean = x_mean / means.n[:, None]
        root = np.sqrt(weights)
        inner = root[:, None] * (x - x_mean[place])
        beta = np.zeros(x.shape[1])
        if x.size:
            beta = np.asarray(
                np.linalg.lstsq(inner, root * (change - means.mean[place]), rcond=1e-10)[0], dtype=np.float64
            )
        return cls(means, x_mean, beta)

    def predict(self, cell: IntArray, x: FloatArray) -> FloatArray:
        """Expected changes (n,); NaN in cells without controls."""
        _, mean, _ = self.change.look_up(cell)
        if len(self.change.cell) == 0:
            return mean
        place = np.minimum(np.searchsorted(self.change.cell, cell), len(self.change.cell) - 1)
        return np.asarray(mean + ((x - self.covariates[place]) * self.beta).sum(1))


@dataclass(frozen=True)
class FittedAdjusted:
    """A covariate-adjusted DiD reward whose regressions are known.

    Attributes:
        spec: What is measured.
        features: The covariates.
        regressions: One for each fold of users, fitted without that fold.
        residual: Mean residual of the controls by cell, weighted for `did_dr`; its mean is subtracted as well.
    """

    spec: RewardSpec
    features: ContextFeatures | None
    regressions: tuple[OutcomeRegression, ...]
    residual: CellMeans
    correct: bool

    def transform(self, history: History) -> RewardFrame:
        """Rewards of every decision of a history."""
        return self.transform_outcomes(measure(history, self.spec, self.features))

    def transform_outcomes(self, outcomes: Outcomes) -> RewardFrame:
        """Rewards of measured outcomes."""
        expected = _predict(self.regressions, outcomes)
        n, mean, sd = self.residual.look_up(outcomes.cell)
        if self.correct:
            expected = expected + mean
        few = (n < self.spec.min_controls) | np.isnan(expected)
        with np.errstate(divide="ignore", invalid="ignore"):
            se = sd * np.sqrt(1.0 + 1.0 / n)
        return build_frame(self.spec.overlap, outcomes, outcomes.change - expected, se, expected, n, few)


def _predict(regressions: tuple[OutcomeRegression, ...], outcomes: Outcomes) -> FloatArray:
    expected = np.full(len(outcomes), np.nan)
    for k, regression in enumerate(regressions):
        rows = outcomes.fold % len(regressions) == k
        expected[rows] = regression.predict(outcomes.cell[rows], outcomes.covariates[rows])
    return expected


def _regressions(outcomes: Outcomes, weights: FloatArray, folds: int) -> tuple[OutcomeRegression, ...]:
    fitted = []
    for k in range(folds):
        rows = outcomes.control & ((outcomes.fold % folds != k) | (folds == 1))
        fitted.append(
            OutcomeRegression.fit(outcomes.change[rows], outcomes.covariates[rows], outcomes.cell[rows], weights[rows])
        )
    return tuple(fitted)


@dataclass(frozen=True)
class DidRegressionReward:
    r"""DiD by outcome regression.

    .. math:: r_i = \Delta_i - \hat m_{-k(i)}(c_i, x_i), \qquad \hat m(c, x) = \hat\alpha_c + x^\top \hat\beta

    with :math:`\Delta` the change from before to after, and m fitted on controls of other folds of users
    (cross-fitting), x being what was known before the decision. Assumes parallel trends among users with the same x,
    and that m is of this form. Heckman, Ichimura & Todd (1997), "Matching as an econometric evaluation estimator",
    Review of Economic Studies.
    """

    spec: RewardSpec = field(default_factory=RewardSpec)
    name: ClassVar[str] = "did_regression"

    def measure(self, history: History) -> Outcomes:
        """Outcomes of a history, with covariates fitted on it."""
        return measure(history, self.spec, ContextFeatures.fit(history, self.spec.covariates))

    def fit(self, train: History) -> FittedAdjusted:
        """Learns the regressions from a history."""
        features = ContextFeatures.fit(train, self.spec.covariates)
        return self.fit_outcomes(measure(train, self.spec, features), features=features)

    def fit_outcomes(
        self, outcomes: Outcomes, weights: FloatArray | None = None, features: ContextFeatures | None = None
    ) -> FittedAdjusted:
        """Learns the regressions from measured outcomes."""
        w = np.ones(len(outcomes)) if weights is None else weights
        regressions = _regressions(outcomes, w, self.spec.folds)
        rows = outcomes.control
        error = (outcomes.change - _predict(regressions, outcomes))[rows]
        known = ~np.isnan(error)
        residual = CellMeans.of(error[known], outcomes.cell[rows][known], w[rows][known])
        return FittedAdjusted(self.spec, features, regressions, residual, correct=False)


@dataclass(frozen=True)
class DidDoublyRobustReward:
    r"""Doubly robust DiD: outcome regression, corrected by the reweighted residuals of the controls.

    .. math::
        r_i = \Delta_i - \hat m_{-k(i)}(c_i, x_i)
              - \frac{\sum_{j \in C(c_i)} w_j (\Delta_j - \hat m_{-k(j)}(c_j, x_j))}{\sum_{j \in C(c_i)} w_j},
        \qquad w_j = \frac{p(x_j)}{1 - p(x_j)}

    with p the probability that something is sent. The mean over the treated of a cell is right if either m or p is.
    p is the logged one wherever all controls have it, and else a logistic regression on x, fitted without the
    user's fold. Sant'Anna & Zhao (2020), "Doubly robust difference-in-differences estimators", Journal of
    Econometrics.
    """

    spec: RewardSpec = field(default_factory=RewardSpec)
    name: ClassVar[str] = "did_dr"

    def measure(self, history: History) -> Outcomes:
        """Outcomes of a history, with covariates fitted on it."""
        return measure(history, self.spec, ContextFeatures.fit(history, self.spec.covariates))

    def fit(self, train: History) -> FittedAdjusted:
        """Learns the regressions and the propensities from a history."""
        features = ContextFeatures.fit(train, self.spec.covariates)
        return self.fit_outcomes(measure(train, self.spec, features), features=features)

    def fit_outcomes(
        self, outcomes: Outcomes, weights: FloatArray | None = None, features: ContextFeatures | None = None
    ) -> FittedAdjusted:
        """Learns them from measured outcomes."""
        w = np.ones(len(outcomes)) if weights is None else weights
        regressions = _regressions(outcomes, w, self.spec.folds)
        rows = outcomes.control
        error = (outcomes.change - _predict(regressions, outcomes))[rows]
        p = np.minimum(sending_probability(outcomes, w, self.spec.folds)[rows], LARGEST_PROPENSITY)
        known = ~np.isnan(error)
        odds = (w[rows] * p / (1 - p))[known]
        counted = CellMeans.of(error[known], outcomes.cell[rows][known], w[rows][known])
        weighted = CellMeans.of(error[known], outcomes.cell[rows][known], odds)
        residual = CellMeans(counted.cell, counted.n, weighted.mean, counted.sd)
        return FittedAdjusted(self.spec, features, regressions, residual, correct=True)


def sending_probability(outcomes: Outcomes, weights: FloatArray, folds: int) -> FloatArray:
    """Probability that something is sent at each decision (n,): logged where every control has it, else estimated.

    Raises:
        NotIdentified: If it has to be estimated, and every decision made the same choice.
    """
    if not np.isnan(outcomes.p_nothing[outcomes.control]).any():
        return np.asarray(1.0 - outcomes.p_nothing)
    usable = outcomes.observed & (outcomes.treated | outcomes.control)
    estimated = np.full(len(outcomes), np.nan)
    for k in range(folds):
        mine = outcomes.fold % folds == k
        rows = usable & (~mine | (folds == 1))
        if not (outcomes.treated[rows].any() and (~outcomes.treated[rows]).any()):
            raise NotIdentified("the probability of sending cannot be estimated: a fold has only one kind of decision")
        model = Logistic.fit(outcomes.covariates[rows], outcomes.treated[rows], weights[rows])
        estimated[mine] = model.predict(outcomes.covariates[mine])
    return estimated
