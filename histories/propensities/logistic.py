"""Weighted logistic regression, for propensities."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from scipy.special import expit, log_expit

from crosschannel.core.arrays import BoolArray, FloatArray
from crosschannel.core.errors import NotIdentified
from crosschannel.histories.propensities.newton import maximise


@dataclass(frozen=True)
class Logistic:
    r"""A fitted model of :math:`P(y = 1 | x) = 1 / (1 + e^{-\alpha - x^\top \beta})`.

    Attributes:
        coefficients: Intercept, then one coefficient for each column (1 + p,).
    """

    coefficients: FloatArray

    @classmethod
    def fit(cls, x: FloatArray, y: BoolArray, weights: FloatArray | None = None, ridge: float = 1e-10) -> Logistic:
        r"""Maximise the log-likelihood minus `ridge` * n * :math:`|\beta|^2 / 2`; the intercept is not penalised.

        The penalty makes the maximum finite and unique where the likelihood alone has none: where a combination of
        columns separates the outcomes (Albert & Anderson 1984, "On the existence of maximum likelihood estimates in
        logistic regression models", Biometrika), and where columns are collinear. Coefficients are then determined to
        about the machine precision divided by `ridge`, and probabilities of rows like those fitted much better. See
        `newton.maximise` for when the iteration has converged.

        Args:
            x: Columns (n, p), best standardised.
            y: Outcomes (n,).
            weights: How often each row counts (n,).
            ridge: Strength of the penalty, per row; above 0.

        Raises:
            NotIdentified: If only one of the two outcomes occurs, or the iteration does not converge.
        """
        design = np.concatenate([np.ones((len(x), 1)), x], axis=1)
        w = np.ones(len(x)) if weights is None else weights
        total = float(w.sum())
        share = float(w @ y) / total if total > 0 else 0.0
        if not 0.0 < share < 1.0:
            raise NotIdentified("a propensity cannot be estimated: every decision made the same choice")
        start = np.zeros(design.shape[1])
        start[0] = np.log(share / (1 - share))
        penalty = np.full(len(start), ridge * total)
        penalty[0] = 0.0
        # Log-odds of the outcomes avoid differences of nearly equal probabilities.
        sign = np.where(y, 1.0, -1.0)

        def objective(beta: FloatArray) -> float:
            return float(w @ log_expit(sign * (design @ beta)) - 0.5 * penalty @ beta**2)

        def derivatives(beta: FloatArray) -> tuple[FloatArray, FloatArray]:
            log_odds = sign * (design @ beta)
            missed = expit(-log_odds)
            score = design.T @ (w * sign * missed) - penalty * beta
            information = (design * (w * missed * expit(log_odds))[:, None]).T @ design
            information[np.diag_indices_from(information)] += penalty
            return score, information

        return cls(maximise(objective, derivatives, start))

    def logit(self, x: FloatArray) -> FloatArray:
        """Return log-odds (n,) of rows (n, p)."""
        # Row by row, as a matrix product may round a row differently depending on its position.
        return np.asarray(self.coefficients[0] + np.einsum("ij,j->i", x, self.coefficients[1:]))

    def predict(self, x: FloatArray) -> FloatArray:
        """Return probabilities (n,) of rows (n, p)."""
        return np.asarray(expit(self.logit(x)))
