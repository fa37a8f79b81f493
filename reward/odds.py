"""Odds of a message against nothing, for doubly robust rewards: of any message or of one action."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from crosschannel.core.arrays import BoolArray, FloatArray, IntArray
from crosschannel.core.errors import NotIdentified
from crosschannel.histories.propensities.logistic import Logistic
from crosschannel.reward.measurement.outcomes import Outcomes, RewardSpec

LARGEST_PROPENSITY = 0.995
LOGGED = "logged"
ESTIMATED = "estimated by a logistic regression on the covariates"
ACTION_ESTIMATED = "logged for sending at all, estimated for which action"


@dataclass(frozen=True)
class Odds:
    r"""Odds :math:`w(x) = P(D = 1 | x) / P(\text{nothing} | x)` of the treated decisions against the controls.

    `Outcomes.treated` says whose odds they are: of everything that was sent, or of one action alone. In the first case
    they are logged, wherever all controls log the probability of sending nothing. In the second the log still knows the
    odds of sending at all but not, at a control, how they divide among actions, so that

    .. math:: w(x) = \frac{1 - p_0}{p_0} \, q(x), \qquad q(x) = P(D = 1 | \text{sent}, x)

    with q a logistic regression among what was sent. Without logged ones, w is a logistic regression of the treated
    against the controls. Regressions are fitted without the user's fold; :math:`p = w / (1 + w)` is capped at
    `LARGEST_PROPENSITY`.

    Attributes:
        value: Odds (n,); NaN where the log lacks them and the decision is neither treated nor a control.
        source: Where they come from, for the reader.
        steepness: Derivative of log odds by the linear score of the regression (n,); 0 where capped or logged.
        design: Columns of the regression (n, 1 + p), or none where nothing was estimated.
        row: The decisions that it was fitted on (l,).
        score: Their influence on its coefficients (l, 1 + p).
    """

    value: FloatArray
    source: str
    steepness: FloatArray
    design: FloatArray
    row: IntArray
    score: FloatArray

    @classmethod
    def of(cls, outcomes: Outcomes, spec: RewardSpec, weights: FloatArray) -> Odds:
        """Reads or fits the odds, each decision counted `weights` (n,) times.

        Raises:
            NotIdentified: If they have to be estimated, and every decision made the same choice.
        """
        n = len(outcomes)
        kept = outcomes.observed & ~(outcomes.overlap & (spec.overlap == "exclude"))
        others = kept & (outcomes.actions[:, 0] > 0) & ~outcomes.treated
        logged = not np.isnan(outcomes.p_nothing[outcomes.control]).any()
        if not logged:
            p, row = cross_fitted(outcomes, kept & outcomes.treated, outcomes.control, spec.folds, weights)
            free = p < LARGEST_PROPENSITY
            p = np.minimum(p, LARGEST_PROPENSITY)
            design, score = _scores(outcomes, row, p, weights)
            return cls(p / (1.0 - p), ESTIMATED, free.astype(np.float64), design, row, score)
        p = np.minimum(1.0 - outcomes.p_nothing, LARGEST_PROPENSITY)
        if not others.any():
            nothing = np.zeros((n, 0))
            return cls(p / (1.0 - p), LOGGED, np.zeros(n), nothing, np.zeros(0, dtype=np.int64), nothing[:0])
        q, row = cross_fitted(outcomes, kept & outcomes.treated, others, spec.folds, weights)
        design, score = _scores(outcomes, row, q, weights)
        return cls(p / (1.0 - p) * q, ACTION_ESTIMATED, 1.0 - q, design, row, score)


def cross_fitted(
    outcomes: Outcomes, ones: BoolArray, zeros: BoolArray, folds: int, weights: FloatArray
) -> tuple[FloatArray, IntArray]:
    """Probability (n,) of being among `ones` rather than `zeros` given the covariates, and the rows of both (l,).

    Raises:
        NotIdentified: If a fold has only one kind of decision to learn from.
    """
    usable = ones | zeros
    estimated = np.full(len(outcomes), np.nan)
    for k in range(folds):
        mine = outcomes.fold % folds == k
        rows = usable & (~mine | (folds == 1))
        if not (ones[rows].any() and zeros[rows].any()):
            raise NotIdentified("the probability of sending cannot be estimated: a fold has only one kind of decision")
        # As for the outcome regression: an order of rows that only their content decides.
        x, one, w = outcomes.covariates[rows], ones[rows], weights[rows]
        order = np.lexsort((*x.T, w, one))
        model = Logistic.fit(x[order], one[order], w[order])
        estimated[mine] = model.predict(outcomes.covariates[mine])
    return estimated, np.flatnonzero(usable)


def _scores(outcomes: Outcomes, row: IntArray, p: FloatArray, weights: FloatArray) -> tuple[FloatArray, FloatArray]:
    """Columns (n, 1 + p) of a logistic regression, and the influence of its rows on the coefficients (l, 1 + p)."""
    design = np.concatenate([np.ones((len(outcomes), 1)), outcomes.covariates], axis=1)
    inside, chance, weight = design[row], p[row], weights[row]
    curvature = (inside * (weight * chance * (1.0 - chance))[:, None]).T @ inside
    score = inside @ np.linalg.pinv(curvature, rcond=1e-12, hermitian=True)
    return design, score * (weight * (outcomes.treated[row] - chance))[:, None]
