"""DiD rewards that adjust for covariates: by outcome regression, and doubly robust."""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from typing import ClassVar

import numpy as np

from histories.errors import NotIdentified
from histories.history import History
from histories.logistic import Logistic
from histories.modules import FloatArray, IntArray
from reward.controls import CellMeans, Expected, narrowest
from reward.frame import RewardFrame, build_frame
from reward.gauge import Gauge
from reward.outcomes import NO_CELL, Outcomes, RewardSpec, measure

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
class AdjustedLevel:
    """Regressions whose cell effects are those of the cells of one level.

    Attributes:
        regressions: One for each fold of users, fitted without that fold.
        residual: Mean residual of the controls by cell; weighted by the odds of sending for `did_dr`.
    """

    regressions: tuple[OutcomeRegression, ...]
    residual: CellMeans


@dataclass(frozen=True)
class FittedAdjusted:
    """A covariate-adjusted DiD reward whose regressions are known.

    Attributes:
        spec: What is measured.
        gauge: What it is measured with.
        levels: Regressions with cells from narrow to wide (`Matching.levels`).
        correct: Whether the mean residual is subtracted as well, as `did_dr` does.
    """

    spec: RewardSpec
    gauge: Gauge
    levels: tuple[AdjustedLevel, ...]
    correct: bool

    def transform(self, history: History) -> RewardFrame:
        """Rewards of every decision of a history."""
        return self.transform_outcomes(measure(history, self.spec, self.gauge))

    def transform_outcomes(self, outcomes: Outcomes) -> RewardFrame:
        """Rewards of measured outcomes."""
        found = (
            self._expected(fitted, outcomes, outcomes.cells(level))
            for fitted, level in zip(self.levels, self.spec.matching.levels, strict=True)
        )
        expected = narrowest(found, self.spec.min_controls)
        return build_frame(outcomes, self.spec.overlap, outcomes.change - expected.mean, expected)

    def _expected(self, fitted: AdjustedLevel, outcomes: Outcomes, cell: IntArray) -> Expected:
        residual = fitted.residual.expected(cell)
        mean = _predict(fitted.regressions, outcomes, cell)
        return replace(residual, mean=mean + residual.mean if self.correct else mean)


def _predict(regressions: tuple[OutcomeRegression, ...], outcomes: Outcomes, cell: IntArray) -> FloatArray:
    expected = np.full(len(outcomes), np.nan)
    for k, regression in enumerate(regressions):
        rows = outcomes.fold % len(regressions) == k
        expected[rows] = regression.predict(cell[rows], outcomes.covariates[rows])
    return expected


def _fit_levels(outcomes: Outcomes, spec: RewardSpec, weights: FloatArray, odds: FloatArray) -> FittedAdjusted:
    """Fits the regressions at every level; residuals (n,) count `odds` (n,) times in their cell's mean."""
    levels = []
    for level in spec.matching.levels:
        cell = outcomes.cells(level)
        rows = outcomes.control & (cell != NO_CELL)
        regressions = []
        for k in range(spec.folds):
            mine = rows & ((outcomes.fold % spec.folds != k) | (spec.folds == 1))
            regressions.append(
                OutcomeRegression.fit(outcomes.change[mine], outcomes.covariates[mine], cell[mine], weights[mine])
            )
        fitted = tuple(regressions)
        error = outcomes.change - _predict(fitted, outcomes, cell)
        rows &= ~np.isnan(error)
        counted = CellMeans.of(error[rows], cell[rows], weights[rows], outcomes.available_at[rows])
        weighted = CellMeans.of(error[rows], cell[rows], _relative(odds[rows], cell[rows]))
        levels.append(AdjustedLevel(fitted, replace(counted, mean=weighted.mean)))
    return FittedAdjusted(spec, outcomes.gauge, tuple(levels), correct=odds is not weights)


def _relative(weights: FloatArray, cell: IntArray) -> FloatArray:
    """Weights (n,) in units of a power of two near the cell's largest, so that tiny ones keep their digits."""
    cells, code = np.unique(cell, return_inverse=True)
    largest = np.zeros(len(cells))
    np.maximum.at(largest, code, weights)
    return np.asarray(np.ldexp(weights, -np.frexp(largest)[1][code]))


@dataclass(frozen=True)
class DidRegressionReward:
    r"""DiD by outcome regression.

    .. math:: r_i = \Delta_i - \hat m_{-k(i)}(c_i, x_i), \qquad \hat m(c, x) = \hat\alpha_c + x^\top \hat\beta

    with :math:`\Delta` the change from before to after, and m fitted on controls of other folds of users
    (cross-fitting), x being what was known before the decision and :math:`\alpha_c` the effect of the cell, at the
    narrowest level (`RewardSpec.matching`) that has enough controls. Assumes parallel trends among users of a cell with
    the same x, and that m is of this form. It fails where the change is not linear in x, most of all if treated and
    controls hardly overlap in x, and where what triggers the sends is not in x. Heckman, Ichimura & Todd (1997),
    "Matching as an econometric evaluation estimator", Review of Economic Studies.
    """

    spec: RewardSpec = field(default_factory=RewardSpec)
    name: ClassVar[str] = "did_regression"

    def measure(self, history: History) -> Outcomes:
        """Outcomes of a history, with covariates fitted on it."""
        return measure(history, self.spec, adjust=True)

    def fit(self, train: History) -> FittedAdjusted:
        """Learns the regressions from a history."""
        return self.fit_outcomes(self.measure(train))

    def fit_outcomes(self, outcomes: Outcomes, weights: FloatArray | None = None) -> FittedAdjusted:
        """Learns the regressions from measured outcomes."""
        w = np.ones(len(outcomes)) if weights is None else weights
        return _fit_levels(outcomes, self.spec, w, w)


@dataclass(frozen=True)
class DidDoublyRobustReward:
    r"""Doubly robust DiD: outcome regression, corrected by the reweighted residuals of the controls.

    .. math::
        r_i = \Delta_i - \hat m_{-k(i)}(c_i, x_i)
              - \frac{\sum_{j \in C(c_i)} w_j (\Delta_j - \hat m_{-k(j)}(c_j, x_j))}{\sum_{j \in C(c_i)} w_j},
        \qquad w_j = \frac{p(x_j)}{1 - p(x_j)}

    with p the probability that something is sent, and cells as for `did_regression`. The mean over the treated of a
    cell is right if either m or p is. p is the logged one wherever all controls have it, and else a logistic regression
    on x, fitted without the user's fold. It fails where both are wrong, and where some x are nearly always sent to:
    odds are capped at p = 0.995, and few controls then carry the mean. Sant'Anna & Zhao (2020), "Doubly robust
    difference-in-differences estimators", Journal of Econometrics.
    """

    spec: RewardSpec = field(default_factory=RewardSpec)
    name: ClassVar[str] = "did_dr"

    def measure(self, history: History) -> Outcomes:
        """Outcomes of a history, with covariates fitted on it."""
        return measure(history, self.spec, adjust=True)

    def fit(self, train: History) -> FittedAdjusted:
        """Learns the regressions and the propensities from a history."""
        return self.fit_outcomes(self.measure(train))

    def fit_outcomes(self, outcomes: Outcomes, weights: FloatArray | None = None) -> FittedAdjusted:
        """Learns them from measured outcomes."""
        w = np.ones(len(outcomes)) if weights is None else weights
        p = np.minimum(sending_probability(outcomes, w, self.spec.folds), LARGEST_PROPENSITY)
        return _fit_levels(outcomes, self.spec, w, w * p / (1 - p))


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
        # As for the outcome regression: an order of rows that only their content decides.
        x, treated, w = outcomes.covariates[rows], outcomes.treated[rows], weights[rows]
        order = np.lexsort((*x.T, w, treated))
        model = Logistic.fit(x[order], treated[order], w[order])
        estimated[mine] = model.predict(outcomes.covariates[mine])
    return estimated
