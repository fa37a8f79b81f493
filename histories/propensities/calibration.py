"""Calibrate estimated choice probabilities, and measure their calibration error."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from crosschannel.core.arrays import BoolArray, FloatArray, IntArray

MAX_STEPS = 50
RELIABILITY_BINS = 10


def softmax(score: FloatArray, eligible: BoolArray) -> FloatArray:
    """Probabilities (n, G) of the eligible actions from their scores (n, G); 0 where an action is not eligible.

    Every row needs an eligible action.
    """
    masked = np.where(eligible, score, -np.inf)
    power = np.exp(masked - masked.max(1, keepdims=True))
    return np.asarray(power / power.sum(1, keepdims=True))


@dataclass(frozen=True)
class PlattScaling:
    r"""Platt scaling of a choice among G actions.

    .. math:: p_i(a) \propto e^{b_a + s z_i(a)} \text{ over the eligible a}

    fitted on scores z that are not of the data which made them. The slope s shrinks scores that are too sure of
    themselves (or spreads those that are not sure enough), the offsets :math:`b_a` set the overall shares. Both have
    a weak normal prior (variance 1, around 1 and around the offsets given), so that actions that do not occur stay
    finite. Platt (1999), "Probabilistic outputs for support vector machines"; for several actions Guo, Pleiss, Sun &
    Weinberger (2017), "On calibration of modern neural networks", ICML.

    Attributes:
        slope: s.
        offset: b, one an action (G,).
    """

    slope: float
    offset: FloatArray

    @classmethod
    def fit(cls, offset: FloatArray, score: FloatArray, eligible: BoolArray, taken: IntArray) -> PlattScaling:
        """Newton's method from slope 1 and the offsets (G,) given; scores and eligible (n, G), taken codes (n,)."""
        n, size = score.shape
        prior = np.concatenate([[1.0], offset])
        z = np.where(eligible, score, 0.0)
        chosen = np.zeros((n, size))
        chosen[np.arange(n), taken] = 1.0

        def loss(theta: FloatArray) -> float:
            masked = np.where(eligible, theta[0] * z + theta[1:], -np.inf)
            top = masked.max(1)
            total = np.log(np.exp(masked - top[:, None]).sum(1)) + top
            return float((total - masked[np.arange(n), taken]).sum() + 0.5 * ((theta - prior) ** 2).sum())

        theta = prior.copy()
        current = loss(theta)
        for _ in range(MAX_STEPS):
            p = softmax(theta[0] * z + theta[1:], eligible)
            missed = chosen - p
            spread = p * (z - (p * z).sum(1, keepdims=True))
            gradient = np.concatenate([[(missed * z).sum()], missed.sum(0)]) - (theta - prior)
            curvature = np.eye(size + 1)
            curvature[0, 0] += (spread * z).sum()
            curvature[0, 1:] = curvature[1:, 0] = spread.sum(0)
            curvature[1:, 1:] += np.diag(p.sum(0)) - p.T @ p
            step = np.linalg.solve(curvature, gradient)
            length = 1.0
            while (new := loss(theta + length * step)) > current and length > 1e-8:
                length /= 2
            theta = theta + length * step
            if current - new < 1e-10 * (1 + abs(current)):
                break
            current = new
        return cls(float(theta[0]), theta[1:])

    def predict(self, score: FloatArray, eligible: BoolArray) -> FloatArray:
        """Calibrated probabilities (n, G) of scores (n, G)."""
        return softmax(self.slope * score + self.offset, eligible)


@dataclass(frozen=True)
class Reliability:
    """Predicted and observed shares of one action, in bins of about equal size.

    Attributes:
        n: Number of rows of each bin (b,).
        predicted: Mean predicted probability (b,).
        observed: Share of rows in which the action was taken (b,).
    """

    n: IntArray
    predicted: FloatArray
    observed: FloatArray

    @classmethod
    def from_predictions(cls, probability: FloatArray, chosen: BoolArray, bins: int = RELIABILITY_BINS) -> Reliability:
        """Sort predictions (n,) into at most `bins` bins by their size; equal ones share a bin."""
        edges = np.unique(np.quantile(probability, np.arange(1, bins) / bins)) if len(probability) else np.zeros(0)
        _, place = np.unique(np.searchsorted(edges, probability, side="left"), return_inverse=True)
        n = np.bincount(place)
        return cls(n.astype(np.int64), np.bincount(place, probability) / n, np.bincount(place, chosen) / n)

    @property
    def error(self) -> float:
        r"""Expected calibration error :math:`\sum_b n_b |\hat p_b - o_b| / n`; NaN where there are no rows.

        Naeini, Cooper & Hauskrecht (2015), "Obtaining well calibrated probabilities using Bayesian binning", AAAI.
        """
        if not self.n.sum():
            return float("nan")
        return float((self.n * np.abs(self.predicted - self.observed)).sum() / self.n.sum())
