"""Calibrate estimated action probabilities, and measure their calibration error."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from scipy import special

from crosschannel.core.arrays import BoolArray, FloatArray, IntArray
from crosschannel.histories.propensities.newton import ImplicitInformation, maximise

RELIABILITY_BINS = 10

MAX_EXPLICIT = 100
"""Actions up to which the information of their offsets is written out as a matrix."""


def softmax(score: FloatArray, eligible: BoolArray) -> FloatArray:
    """Return probabilities (n, G) of actions from their scores (n, G), 0 for actions that are not eligible.

    Every row needs an eligible action.
    """
    return np.asarray(special.softmax(np.where(eligible, score, -np.inf), axis=1))


@dataclass(frozen=True)
class PlattScaling:
    r"""Platt scaling of the probabilities of G actions.

    .. math:: p_i(a) \propto e^{b_a + s z_i(a)} \text{ over the eligible a}

    It is fitted to scores z of a model that was fitted to other data. The slope s shrinks overconfident scores (or
    spreads underconfident ones), and the offsets :math:`b_a` set the overall shares. Both have a weak normal prior
    (variance 1, around 1 and around the given offsets), so that offsets of actions that do not occur remain finite.
    Platt (1999), "Probabilistic outputs for support vector machines"; for several actions Guo, Pleiss, Sun &
    Weinberger (2017), "On calibration of modern neural networks", ICML.

    Attributes:
        slope: s.
        offset: b, one per action (G,).
    """

    slope: float
    offset: FloatArray

    @classmethod
    def fit(cls, offset: FloatArray, score: FloatArray, eligible: BoolArray, taken: IntArray) -> PlattScaling:
        """Maximise the posterior density of scores and eligible (n, G), taken codes (n,) and prior offsets (G,).

        The prior makes the maximum finite and unique; see `newton.maximise` for when the iteration has converged.
        """
        n, size = score.shape
        prior = np.concatenate([[1.0], offset])
        z = np.where(eligible, score, 0.0)
        chosen = np.zeros((n, size))
        chosen[np.arange(n), taken] = 1.0

        def objective(theta: FloatArray) -> float:
            masked = np.where(eligible, theta[0] * z + theta[1:], -np.inf)
            likelihood = masked[np.arange(n), taken] - special.logsumexp(masked, axis=1)
            return float(likelihood.sum() - 0.5 * ((theta - prior) ** 2).sum())

        def derivatives(theta: FloatArray) -> tuple[FloatArray, FloatArray | ImplicitInformation]:
            p = softmax(theta[0] * z + theta[1:], eligible)
            missed = chosen - p
            gradient = np.concatenate([[(missed * z).sum()], missed.sum(0)]) - (theta - prior)
            deviation = p * (z - (p * z).sum(1, keepdims=True))
            if size > MAX_EXPLICIT:
                return gradient, _implicit(p, z, deviation)
            information = np.eye(size + 1)
            information[0, 0] += (deviation * z).sum()
            information[0, 1:] = information[1:, 0] = deviation.sum(0)
            information[1:, 1:] += np.diag(p.sum(0)) - p.T @ p
            return gradient, information

        theta = maximise(objective, derivatives, prior)
        return cls(float(theta[0]), theta[1:])

    def predict(self, score: FloatArray, eligible: BoolArray) -> FloatArray:
        """Return calibrated probabilities (n, G) of scores (n, G)."""
        return softmax(self.slope * score + self.offset, eligible)


def _implicit(p: FloatArray, z: FloatArray, deviation: FloatArray) -> ImplicitInformation:
    """Return the information of slope and offsets from probabilities, scores and their deviations (n, G)."""
    sums, slopes = p.sum(0), deviation.sum(0)
    slope = float((deviation * z).sum())

    def times(v: FloatArray) -> FloatArray:
        v = np.ravel(v)
        offsets = v[0] * slopes + sums * v[1:] - p.T @ (p @ v[1:])
        return np.asarray(v + np.concatenate([[slope * v[0] + slopes @ v[1:]], offsets]))

    diagonal = 1.0 + np.concatenate([[slope], sums - np.einsum("ng,ng->g", p, p)])
    return ImplicitInformation(times, diagonal)


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
