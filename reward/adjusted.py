"""DiD rewards that adjust for covariates: by outcome regression, and doubly robust."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import ClassVar

import numpy as np

from crosschannel.core.arrays import FloatArray, IntArray
from crosschannel.reward.controls import CellMeans, ExpectedChange, narrowest_sufficient, near_one_by_cell
from crosschannel.reward.frame import RewardFrame, build_frame
from crosschannel.reward.measurement.outcomes import NO_CELL, Outcomes
from crosschannel.reward.models import BaseFittedReward, BaseRewardModel, specs_at_each_level
from crosschannel.reward.odds import Odds
from crosschannel.reward.spec import RewardSpec


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
    def fit(
        cls, change: FloatArray, x: FloatArray, cell: IntArray, weights: FloatArray, unit: float = 1.0
    ) -> OutcomeRegression:
        """Fit to n controls, each counted `weights` (n,) times; slopes come from differences within cells.

        Exact sums are kept in a `unit`, a power of two.
        """
        # Least squares adds up in the order of rows: put them into an order that only their content decides. Controls
        # that a bootstrap draw left out do not take part: a cell of such controls alone has no mean.
        order = np.lexsort((*x.T, weights, change, cell))
        order = order[weights[order] > 0]
        change, x, cell, weights = change[order], x[order], cell[order], weights[order]
        means = CellMeans.fit(change, cell, weights, unit=unit)
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
        """Return expected changes (n,); NaN in cells without controls."""
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
        residual: The controls' residuals by cell. `did_dr` corrects the prediction by their mean, which is set to 0 for
            `did_regression`.
    """

    regressions: tuple[OutcomeRegression, ...]
    residual: CellMeans


@dataclass(frozen=True)
class FittedAdjusted(BaseFittedReward):
    """A covariate-adjusted DiD reward whose regressions are fitted.

    Attributes:
        levels: Regressions with cells from narrow to wide.
        odds: The odds by which residuals were weighted, of the outcomes that it was fitted on; None for
            `did_regression`.
    """

    levels: tuple[AdjustedLevel, ...]
    odds: Odds | None = None

    def transform_outcomes(self, outcomes: Outcomes) -> RewardFrame:
        """Return the rewards of measured outcomes."""
        found = (
            _expected(fitted, outcomes, outcomes.cells(level))
            for fitted, level in zip(self.levels, self.spec.matching.levels, strict=True)
        )
        expected = narrowest_sufficient(found, self.spec.min_controls)
        return build_frame(outcomes, self.spec.overlap, outcomes.change - expected.mean, expected)

    def at_each_level(self) -> Sequence[BaseFittedReward]:
        """Return one fitted reward for each level of the matching, without fallback and with small cells included."""
        alone = zip(specs_at_each_level(self.spec), self.levels, strict=True)
        return [replace(self, spec=spec, levels=(level,)) for spec, level in alone]


def _expected(fitted: AdjustedLevel, outcomes: Outcomes, cell: IntArray) -> ExpectedChange:
    residual = fitted.residual.expected(cell)
    return replace(residual, mean=_predict(fitted.regressions, outcomes, cell) + residual.mean)


def _predict(regressions: tuple[OutcomeRegression, ...], outcomes: Outcomes, cell: IntArray) -> FloatArray:
    expected = np.full(len(outcomes), np.nan)
    for k, regression in enumerate(regressions):
        rows = outcomes.fold % len(regressions) == k
        expected[rows] = regression.predict(cell[rows], outcomes.covariates[rows])
    return expected


def _fit_level(
    outcomes: Outcomes, spec: RewardSpec, cell: IntArray, counts: FloatArray, odds: FloatArray | None
) -> AdjustedLevel:
    """Fit the regressions with the cells (n,) of one level; residuals are weighted by the odds (n,), if given."""
    rows = outcomes.control & (cell != NO_CELL)
    weights, unit = counts * outcomes.ipc_weight, outcomes.preprocessing.unit(spec)
    regressions = []
    for k in range(spec.folds):
        mine = rows & ((outcomes.fold % spec.folds != k) | (spec.folds == 1))
        regressions.append(
            OutcomeRegression.fit(outcomes.change[mine], outcomes.covariates[mine], cell[mine], weights[mine], unit)
        )
    error = outcomes.change - _predict(tuple(regressions), outcomes, cell)
    rows &= ~np.isnan(error)
    # Slopes and odds rest on decisions of all cells: nothing is known before the last of their windows has closed.
    closes_at = np.full(int(rows.sum()), outcomes.available_at[outcomes.observed].max(initial=np.iinfo(np.int64).min))
    weight = near_one_by_cell(outcomes.ipc_weight[rows] * (1.0 if odds is None else odds[rows]), cell[rows])
    residual = CellMeans.fit(error[rows], cell[rows], counts[rows], closes_at, weight, unit)
    return AdjustedLevel(tuple(regressions), residual)


@dataclass(frozen=True)
class DidRegressionReward(BaseRewardModel):
    r"""DiD by outcome regression.

    .. math:: r_i = \Delta_i - \hat m_{-k(i)}(c_i, x_i), \qquad \hat m(c, x) = \hat\alpha_c + x^\top \hat\beta

    with :math:`\Delta` the change from before to after, and m fitted on controls of other folds of users
    (cross-fitting), x being what was known before the decision and :math:`\alpha_c` the effect of the cell, at the
    narrowest level (`RewardSpec.matching`) that has enough controls. Assumes parallel trends among users of a cell with
    the same x, and that m has this form. It fails where the change is not linear in x, especially if treated and
    controls hardly overlap in x, and where the trigger of the sends is not in x. Heckman, Ichimura & Todd (1997),
    "Matching as an econometric evaluation estimator", Review of Economic Studies.
    """

    name: ClassVar[str] = "did_regression"
    adjust: ClassVar[bool] = True

    def fit_outcomes(self, outcomes: Outcomes, weights: FloatArray | None = None) -> FittedAdjusted:
        """Fit the regressions to measured outcomes."""
        counts = np.ones(len(outcomes)) if weights is None else weights
        levels = []
        for level in self.spec.matching.levels:
            fitted = _fit_level(outcomes, self.spec, outcomes.cells(level), counts, None)
            uncorrected = replace(fitted.residual, mean=np.zeros(len(fitted.residual.mean)))
            levels.append(replace(fitted, residual=uncorrected))
        return FittedAdjusted(self.spec, outcomes.preprocessing, tuple(levels))


@dataclass(frozen=True)
class DidDoublyRobustReward(BaseRewardModel):
    r"""Doubly robust DiD: outcome regression, corrected by the reweighted residuals of the controls.

    .. math::
        r_i = \Delta_i - \hat m_{-k(i)}(c_i, x_i)
              - \frac{\sum_{j \in C(c_i)} w_j (\Delta_j - \hat m_{-k(j)}(c_j, x_j))}{\sum_{j \in C(c_i)} w_j},
        \qquad w_j = \frac{p(x_j)}{1 - p(x_j)}

    with p the probability that something is sent, and cells as for `did_regression`. The mean over *all* sent
    decisions of a cell is right if either m or p is. The mean over some of them, such as those of one action, relies on
    the regression alone, because the odds are those of sending at all; `TreatmentEffects.by_action` therefore fits
    weights for each action. Dividing by the sum of the weights (Hajek, 1971) makes a change that is common to all drop
    out whatever p is.

    p is the logged one if all controls have it (logged or by design, `DecisionLog.propensity_source`), and else
    a logistic regression on x, fitted without the user's fold: see `Odds`. It fails where both are wrong, and where
    users with some x nearly always get a message: odds are capped at p = 0.995, and the mean then rests on few
    controls; `n_controls` is their effective number. Sant'Anna & Zhao (2020), "Doubly robust
    difference-in-differences estimators", Journal of Econometrics.
    """

    name: ClassVar[str] = "did_dr"
    adjust: ClassVar[bool] = True

    def fit_outcomes(self, outcomes: Outcomes, weights: FloatArray | None = None) -> FittedAdjusted:
        """Fit regressions and propensities to measured outcomes."""
        counts = np.ones(len(outcomes)) if weights is None else weights
        odds = Odds.fit(outcomes, self.spec, counts * outcomes.ipc_weight)
        levels = (
            _fit_level(outcomes, self.spec, outcomes.cells(level), counts, odds.value)
            for level in self.spec.matching.levels
        )
        return FittedAdjusted(self.spec, outcomes.preprocessing, tuple(levels), odds)
