"""How noisy a reward is in a context: an active user's rewards vary more than a quiet one's."""

from __future__ import annotations

import torch
from torch import Tensor

STEPS = 16
PLAUSIBLE = 0.5
FARTHEST = 3.0
ENOUGH = 16_384


def noise_factor(context: Tensor, coefficients: Tensor) -> Tensor:
    """How many times the usual variance rewards have in contexts (N, D), from coefficients (D,): (N,)."""
    return (context @ coefficients).clamp(-FARTHEST, FARTHEST).exp()


def some_rows(n: int) -> slice:
    """Evenly spaced rows of n, about as many as the variance needs to be learned from."""
    return slice(None, None, max(n // ENOUGH, 1))


def learn_noise(context: Tensor, square: Tensor) -> Tensor:
    r"""Coefficients (D,) of a log-linear variance of the rewards, up to a common factor.

    .. math::
        \max_{a, b} \; -\frac12 \sum_i (\eta_i + s_i e^{-\eta_i}) - \frac{D}{2 \tau^2} |b|^2, \qquad
        \eta_i = a + x_i^\top b

    the likelihood of squared errors s of normal rewards, by Fisher scoring; the prior believes that variances differ by
    a factor of about :math:`e^\tau`, as long as few rows say otherwise. Weighing rows by the inverse of their variance
    makes regressions as precise as they can be (Aitken 1936), and keeps the many small and the few large rewards from
    being taken for an effect of what makes them so. Harvey (1976), "Estimating regression models with multiplicative
    heteroscedasticity", Econometrica.

    Args:
        context: Contexts (N, D), standardised.
        square: Squared errors of the rewards' estimates (N,), in any unit.
    """
    phi = torch.cat([torch.ones_like(context[:, :1]), context], 1).double()
    square = square.double() / square.double().mean().clamp_min(1e-300)
    ridge = torch.full((phi.shape[1],), (phi.shape[1] - 1) / PLAUSIBLE**2, dtype=torch.float64)
    ridge[0] = 0.0
    information = torch.linalg.cholesky(0.5 * phi.t() @ phi + torch.diag(ridge))
    coefficients = torch.zeros(phi.shape[1], 1, dtype=torch.float64)
    for _ in range(STEPS):
        eta = (phi @ coefficients).squeeze(1).clamp(-FARTHEST, FARTHEST)
        score = 0.5 * phi.t() @ (square * (-eta).exp() - 1.0).unsqueeze(1) - ridge.unsqueeze(1) * coefficients
        coefficients = coefficients + torch.cholesky_solve(score, information)
    return coefficients[1:, 0].float()
