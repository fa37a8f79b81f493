"""Odds of a message against nothing, for doubly robust rewards: of any message or of one action."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from crosschannel.core.arrays import BoolArray, FloatArray, IntArray
from crosschannel.core.errors import NotIdentified
from crosschannel.histories.propensities.logistic import Logistic
from crosschannel.reward.measurement.outcomes import Outcomes
from crosschannel.reward.spec import RewardSpec

MAX_PROPENSITY = 0.995
LOGGED = "logged"
ESTIMATED = "estimated by a logistic regression on the covariates"
ACTION_ESTIMATED = "logged for sending at all, estimated for which action"


@dataclass(frozen=True)
class Odds:
    r"""Odds :math:`w(x) = P(D = 1 | x) / P(\text{nothing} | x)` of the treated decisions against the controls.

    `Outcomes.treated` decides which odds they are: of everything that was sent, or of one action alone. In the first
    case they are logged, wherever all controls log the probability of sending nothing. In the second case the log has
    the odds of sending at all but not, at a control, how they divide among actions, so that

    .. math:: w(x) = \frac{1 - p_0}{p_0} \, q(x), \qquad q(x) = P(D = 1 | \text{sent}, x)

    with q a logistic regression among what was sent. Without logged ones, w is a logistic regression of the treated
    against the controls. Regressions are fitted without the user's fold; :math:`p = w / (1 + w)` is capped at
    `MAX_PROPENSITY`.

    Attributes:
        value: Odds (n,); NaN where the log lacks them and the decision is neither treated nor a control.
        source: Where they come from, in words.
        score_derivative: Derivative of the log odds by the regression's linear score (n,); 0 where capped or logged.
        design: Columns of the regression (n, 1 + p), or none where nothing was estimated.
        row: The decisions that it was fitted on (l,).
        score: Their influence on its coefficients (l, 1 + p).
    """

    value: FloatArray
    source: str
    score_derivative: FloatArray
    design: FloatArray
    row: IntArray
    score: FloatArray

    @classmethod
    def fit(cls, outcomes: Outcomes, spec: RewardSpec, weights: FloatArray) -> Odds:
        """Read the odds from the log or estimate them, each decision counted `weights` (n,) times.

        Raises:
            NotIdentified: If they have to be estimated, and every decision made the same choice.
        """
        n = len(outcomes)
        usable = outcomes.observed & ~(outcomes.overlap & (spec.overlap == "exclude"))
        others = usable & (outcomes.actions[:, 0] > 0) & ~outcomes.treated
        logged = not np.isnan(outcomes.p_nothing[outcomes.control]).any()
        if not logged:
            p, row = cross_fitted(outcomes, usable & outcomes.treated, outcomes.control, spec.folds, weights)
            free = p < MAX_PROPENSITY
            p = np.minimum(p, MAX_PROPENSITY)
            design, score = _scores(outcomes, row, p, weights)
            return cls(
                value=p / (1.0 - p),
                source=ESTIMATED,
                score_derivative=free.astype(np.float64),
                design=design,
                row=row,
                score=score,
            )
        p = np.minimum(1.0 - outcomes.p_nothing, MAX_PROPENSITY)
        if not others.any():
            return cls(
                value=p / (1.0 - p),
                source=LOGGED,
                score_derivative=np.zeros(n),
                design=np.zeros((n, 0)),
                row=np.zeros(0, dtype=np.int64),
                score=np.zeros((0, 0)),
            )
        q, row = cross_fitted(outcomes, usable & outcomes.treated, others, spec.folds, weights)
        design, score = _scores(outcomes, row, q, weights)
        return cls(
            value=p / (1.0 - p) * q,
            source=ACTION_ESTIMATED,
            score_derivative=1.0 - q,
            design=design,
            row=row,
            score=score,
        )


def cross_fitted(
    outcomes: Outcomes, ones: BoolArray, zeros: BoolArray, folds: int, weights: FloatArray
) -> tuple[FloatArray, IntArray]:
    """Estimate the probability (n,) of being among `ones` rather than `zeros`, and return the rows of both (l,) too.

    Each user's probability given the covariates comes from a logistic regression on the other folds.

    Raises:
        NotIdentified: If a fold has only one kind of decision to learn from.
    """
    usable = ones | zeros
    estimated = np.full(len(outcomes), np.nan)
    for k in range(folds):
        mine = outcomes.fold % folds == k
        rows = usable & (~mine | (folds == 1))
        drawn = rows & (weights > 0)
        if not (ones[drawn].any() and zeros[drawn].any()):
            raise NotIdentified("the probability of sending cannot be estimated: a fold has only one kind of decision")
        # As for the outcome regression: an order of rows that only their content decides.
        x, one, w = outcomes.covariates[rows], ones[rows], weights[rows]
        order = np.lexsort((*x.T, w, one))
        model = Logistic.fit(x[order], one[order], w[order])
        estimated[mine] = model.predict(outcomes.covariates[mine])
    return estimated, np.flatnonzero(usable)


def _scores(outcomes: Outcomes, row: IntArray, p: FloatArray, weights: FloatArray) -> tuple[FloatArray, FloatArray]:
    """Return the columns (n, 1 + p) of a logistic regression, and its rows' influence on coefficients (l, 1 + p)."""
    design = np.concatenate([np.ones((len(outcomes), 1)), outcomes.covariates], axis=1)
    inside, chance, weight = design[row], p[row], weights[row]
    curvature = (inside * (weight * chance * (1.0 - chance))[:, None]).T @ inside
    score = inside @ np.linalg.pinv(curvature, rcond=1e-12, hermitian=True)
    return design, score * (weight * (outcomes.treated[row] - chance))[:, None]
