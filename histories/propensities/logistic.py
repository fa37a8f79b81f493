"""Weighted logistic regression by Newton's method, for propensities."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from crosschannel.core.arrays import BoolArray, FloatArray
from crosschannel.core.errors import NotIdentified

MAX_STEPS = 50


@dataclass(frozen=True)
class Logistic:
    r"""A fitted model of :math:`P(y = 1 | x) = 1 / (1 + e^{-\alpha - x^\top \beta})`.

    Attributes:
        coefficients: Intercept, then one coefficient for each column (1 + p,).
    """

    coefficients: FloatArray

    @classmethod
    def fit(cls, x: FloatArray, y: BoolArray, weights: FloatArray | None = None, ridge: float = 1e-10) -> Logistic:
        r"""Maximises the likelihood minus `ridge` * n * :math:`|\beta|^2 / 2`; the intercept is not penalised.

        Args:
            x: Columns (n, p), best standardised.
            y: Outcomes (n,).
            weights: How often each row counts (n,).
            ridge: Strength of the penalty, per row.

        Raises:
            NotIdentified: If only one of the two outcomes occurs.
        """
        design = np.concatenate([np.ones((len(x), 1)), x], axis=1)
        w = np.ones(len(x)) if weights is None else weights
        share = float(w @ y) / float(w.sum()) if len(x) else 0.0
        if not 0.0 < share < 1.0:
            raise NotIdentified("a propensity cannot be estimated: every decision made the same choice")
        beta = np.zeros(design.shape[1])
        beta[0] = np.log(share / (1 - share))
        penalty = np.full(len(beta), ridge * w.sum())
        penalty[0] = 0.0

        def loss(b: FloatArray) -> float:
            score = design @ b
            return float(w @ (np.logaddexp(0.0, score) - y * score) + 0.5 * penalty @ b**2)

        current = loss(beta)
        for _ in range(MAX_STEPS):
            p = _sigmoid(design @ beta)
            gradient = design.T @ (w * (y - p)) - penalty * beta
            curvature = (design * (w * p * (1 - p))[:, None]).T @ design
            curvature[np.diag_indices_from(curvature)] += penalty + 1e-12 * w.sum()
            step = np.linalg.solve(curvature, gradient)
            size = 1.0
            while (new := loss(beta + size * step)) > current and size > 1e-8:
                size /= 2
            beta = beta + size * step
            if current - new < 1e-12 * (1 + abs(current)):
                break
            current = new
        return cls(beta)

    def logit(self, x: FloatArray) -> FloatArray:
        """Log-odds (n,) of rows (n, p)."""
        # Row by row: a matrix product may round a row differently at another place in the matrix.
        return np.asarray(self.coefficients[0] + np.einsum("ij,j->i", x, self.coefficients[1:]))

    def predict(self, x: FloatArray) -> FloatArray:
        """Probabilities (n,) of rows (n, p)."""
        return _sigmoid(self.logit(x))


def _sigmoid(score: FloatArray) -> FloatArray:
    return np.asarray(np.exp(-np.logaddexp(0.0, -score)))
