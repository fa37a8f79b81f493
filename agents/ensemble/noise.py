"""How noisy a reward is in a context: an active user's rewards vary more than a quiet one's."""

from __future__ import annotations

import torch
from torch import Tensor

STEPS = 16
HALVINGS = 8
PLAUSIBLE = 0.5
FARTHEST = 3.0
NEGLIGIBLE = 1e-4
ENOUGH = 16_384


def noise_factor(context: Tensor, coefficients: Tensor) -> Tensor:
    """How many times the usual variance rewards have in contexts (N, D), from coefficients (D,): (N,)."""
    return (context @ coefficients).clamp(-FARTHEST, FARTHEST).exp()


def row_weights(precision: Tensor, factor: Tensor, cap: float) -> Tensor:
    r"""Weights (n,) of rows whose reported precision is p and whose noise is v times the usual.

    .. math:: w = \min(p / \sqrt v, c)

    Weights of :math:`p / v` would be the most precise if the description of rewards were complete (Aitken 1936). It
    never is: then a fit is the best for quiet users, and wrong for the active ones, where most is to be gained. The
    root keeps most of the gain, and half of the rows' say.

    Args:
        precision: As the rewards' own errors have it, 1 for a usual row, capped (n,).
        factor: The noise factor (n,).
        cap: The largest weight.
    """
    return (precision / factor.sqrt()).clamp(max=cap)


def some_rows(n: int) -> slice:
    """Evenly spaced rows of n, about as many as the variance needs to be learned from."""
    return slice(None, None, max(n // ENOUGH, 1))


def learn_noise(context: Tensor, square: Tensor) -> Tensor:
    r"""Coefficients (D,) of a log-linear variance of the rewards, up to a common factor.

    .. math::
        \max_{a, b} \; -\frac{1}{2 \phi} \sum_i (\eta_i + s_i e^{-\eta_i}) - \frac{D}{2 \tau^2} |b|^2, \qquad
        \eta_i = a + x_i^\top b, \qquad \phi = \max(1, \tfrac12 \overline{(s - 1)^2})

    the likelihood of squared errors s of normal rewards, of mean 1, by Fisher scoring with halved steps (Harvey 1976,
    "Estimating regression models with multiplicative heteroscedasticity", Econometrica). Squared errors of rare or
    skewed rewards vary more than those of normal ones and say so much less: by their overdispersion :math:`\phi`
    (Wedderburn 1974, "Quasi-likelihood functions", Biometrika). The prior believes that variances differ by a factor of
    about :math:`e^\tau`, as long as few rows say otherwise.

    Args:
        context: Contexts (N, D), standardised.
        square: Squared errors of the rewards' estimates (N,), in any unit.
    """
    phi = torch.cat([torch.ones_like(context[:, :1]), context], 1).double()
    square = (square.double() / square.double().mean().clamp_min(1e-300)).unsqueeze(1)
    dispersion = max(0.5 * float((square - 1.0).square().mean()), 1.0)
    ridge = torch.full((phi.shape[1], 1), dispersion * (phi.shape[1] - 1) / PLAUSIBLE**2, dtype=torch.float64)
    ridge[0] = 0.0
    information = torch.linalg.cholesky(0.5 * phi.t() @ phi + torch.diag(ridge[:, 0] + 1e-9))

    def objective(coefficients: Tensor) -> float:
        eta = phi @ coefficients
        return float(-0.5 * (eta + square * (-eta).exp()).sum() - 0.5 * (ridge * coefficients.square()).sum())

    coefficients = torch.zeros(phi.shape[1], 1, dtype=torch.float64)
    best = objective(coefficients)
    for _ in range(STEPS):
        score = 0.5 * phi.t() @ (square * (-(phi @ coefficients)).exp() - 1.0) - ridge * coefficients
        step = torch.cholesky_solve(score, information)
        for _ in range(HALVINGS):
            gain = objective(coefficients + step) - best
            if gain > 0:
                break
            step = step / 2.0
        if not gain > 0:
            break
        coefficients, best = coefficients + step, best + gain
        if gain < NEGLIGIBLE * dispersion:
            break
    return coefficients[1:, 0].float()
