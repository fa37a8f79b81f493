"""The noise of rewards: a model of its variance by context, the row weights that follow, and hashes of rows."""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor

from crosschannel.core.arrays import UIntArray
from crosschannel.core.hashing import derive, uniforms

HELD_OUT_SHARE = 0.2
MAX_SCORING_STEPS = 16
MAX_HALVINGS = 8
PRIOR_SD = 0.5
MAX_LOG_FACTOR = 3.0
MIN_GAIN = 1e-4
SUBSAMPLE_ROWS = 16_384


def signs(keys: UIntArray, members: int, seed: int) -> Tensor:
    """Return +1 or -1 for each row and member (n, K), a hash of the decision's key, the member and the seed.

    The signs are therefore the same after a restart or a shuffle, and on another machine.
    """
    words = derive(keys, seed).astype("<u8").view(np.uint8).reshape(-1, 8)
    bits = np.unpackbits(words, axis=1, count=members, bitorder="little")
    return torch.from_numpy(bits).float().mul_(2.0).sub_(1.0)


def held_out(keys: UIntArray, seed: int) -> Tensor:
    """Mark the rows (n,) that no network is trained on, by a hash of their keys: a share of `HELD_OUT_SHARE`."""
    return torch.from_numpy(uniforms(keys, ~seed) < HELD_OUT_SHARE)


def noise_factor(context: Tensor, coefficients: Tensor) -> Tensor:
    """Return the relative variance (N,) of rewards in contexts (N, D), from coefficients (D,)."""
    return (context @ coefficients).clamp(-MAX_LOG_FACTOR, MAX_LOG_FACTOR).exp()


def row_weights(precision: Tensor, factor: Tensor, cap: float) -> Tensor:
    r"""Return the weights (n,) of rows with reported precision p and relative variance v.

    .. math:: w = \min(p / \sqrt v, c)

    Weights of :math:`p / v` would be optimal if the model of the mean rewards were correctly specified (Aitken 1936).
    It never is, and then such a fit is good for inactive users, whose rewards vary little, and poor for active users,
    where effects are largest. The square root keeps most of the gain in precision.

    Args:
        precision: Capped precision by the rewards' standard errors (n,), 1 at the median.
        factor: The relative variance (n,).
        cap: The largest weight.
    """
    return (precision / factor.sqrt()).clamp(max=cap)


def subsample(n: int) -> slice:
    """Select evenly spaced rows of n, about `SUBSAMPLE_ROWS`, which suffice to fit the variance."""
    return slice(None, None, max(n // SUBSAMPLE_ROWS, 1))


def learn_noise(context: Tensor, square: Tensor) -> Tensor:
    r"""Fit the coefficients (D,) of a log-linear variance of the rewards, up to a common factor.

    .. math::
        \max_{a, b} \; -\frac{1}{2 \phi} \sum_i (\eta_i + s_i e^{-\eta_i}) - \frac{D}{2 \tau^2} |b|^2, \qquad
        \eta_i = a + x_i^\top b, \qquad \phi = \max(1, \tfrac12 \overline{(s - 1)^2})

    the likelihood of squared errors s with mean 1 of normal rewards, by Fisher scoring with step halving (Harvey 1976,
    "Estimating regression models with multiplicative heteroscedasticity", Econometrica). Squared errors of rare or
    skewed rewards vary more than those of normal rewards and carry less information, by their overdispersion
    :math:`\phi` (Wedderburn 1974, "Quasi-likelihood functions", Biometrika). The prior shrinks the variances towards
    each other: it expects them to differ by a factor of about :math:`e^\tau`.

    Args:
        context: Contexts (N, D), standardised.
        square: Squared errors of the rewards' estimates (N,), in any unit.
    """
    phi = torch.cat([torch.ones_like(context[:, :1]), context], 1).double()
    square = (square.double() / square.double().mean().clamp_min(1e-300)).unsqueeze(1)
    dispersion = max(0.5 * float((square - 1.0).square().mean()), 1.0)
    ridge = torch.full((phi.shape[1], 1), dispersion * (phi.shape[1] - 1) / PRIOR_SD**2, dtype=torch.float64)
    ridge[0] = 0.0
    information = torch.linalg.cholesky(0.5 * phi.t() @ phi + torch.diag(ridge[:, 0] + 1e-9))

    def objective(coefficients: Tensor) -> float:
        eta = phi @ coefficients
        return float(-0.5 * (eta + square * (-eta).exp()).sum() - 0.5 * (ridge * coefficients.square()).sum())

    coefficients = torch.zeros(phi.shape[1], 1, dtype=torch.float64)
    best = objective(coefficients)
    for _ in range(MAX_SCORING_STEPS):
        score = 0.5 * phi.t() @ (square * (-(phi @ coefficients)).exp() - 1.0) - ridge * coefficients
        step = torch.cholesky_solve(score, information)
        for _ in range(MAX_HALVINGS):
            gain = objective(coefficients + step) - best
            if gain > 0:
                break
            step = step / 2.0
        if not gain > 0:
            break
        coefficients, best = coefficients + step, best + gain
        if gain < MIN_GAIN * dispersion:
            break
    return coefficients[1:, 0].float()
