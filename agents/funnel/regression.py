"""Bayesian regressions with a learned prior variance for each block of columns, and draws from their posterior."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor

from crosschannel.agents.funnel.design import Design
from crosschannel.agents.funnel.sums import DesignStatistics

MAX_STEPS = 8
PSEUDO_COEFFICIENTS = 0.01
#: A block's variance is drawn to its group's as by so many times the block's own coefficients.
SIMILAR = 1.0
#: Rounds in which the variances of a group's blocks and its own are found from each other.
ROUNDS = 3
MIN_VARIANCE, MAX_VARIANCE = 1e-8, 1e2
#: Prior variance of the common intercept, which is not shrunk.
INTERCEPT_VARIANCE = 1e4
CONVERGED_LOG_CHANGE = 0.1
NEGLIGIBLE_SCALE = 2e-3
ROUNDING_RIDGE = 1e-7
#: Smallest noise as a share of the mean square, and where all targets are 0; no other limit knows units of rewards.
MIN_NOISE_SHARE, TINY = 1e-6, 1e-300
#: Probes of a trace: its error is a few percent of what a block of few coefficients has, and less for larger ones.
PROBES = 128


@dataclass(frozen=True)
class Posterior:
    """Coefficients of a regression.

    Attributes:
        mean: The best estimate (D,).
        root: Lower triangular factor of the posterior precision (D, D), in units of the noise.
        variance: Prior variances of the blocks (blocks,), in units of the noise.
        noise: Variance of a row around its expectation.
    """

    mean: Tensor
    root: Tensor
    variance: Tensor
    noise: float

    def draws(self, normals: Tensor) -> Tensor:
        """Return draws (D, K), from standard normals (D, K) that are centred first: their mean is the best estimate."""
        deviations: Tensor = torch.linalg.solve_triangular(self.root.t(), centred(normals, 1), upper=True)
        return self.mean.unsqueeze(1) + math.sqrt(self.noise) * deviations


def centred(normals: Tensor, axis: int) -> Tensor:
    """Return standard normals less their mean along an axis, scaled so that they keep the variance 1."""
    k = normals.shape[axis]
    out: Tensor = (normals - normals.mean(axis, keepdim=True)) * math.sqrt(k / max(k - 1, 1))
    return out


def fit(
    design: Design, sums: DesignStatistics, guess: float, start: Tensor | None = None, steps: int = MAX_STEPS
) -> Posterior:
    r"""Fit coefficients to a single target, with the blocks' variances and the noise by maximum evidence.

    .. math::
        \sigma^2 \leftarrow \frac{\sum_i r_i (r_i - \phi_i^\top \theta)}{n}, \qquad
        \lambda_b \leftarrow \frac{\theta_b^\top Q_b \theta_b / \sigma^2 + s n_b \lambda_g}{\gamma_b + s n_b}, \qquad
        \frac{1}{\lambda_g} \leftarrow \frac{\sum_{b \in g} n_b / \lambda_b}{\sum_{b \in g} n_b}

    with :math:`\gamma_b = n_b - \mathrm{tr}(Q_b \Sigma_b) / \lambda_b` and :math:`Q_b` the inverse of the prior
    correlation (MacKay 1992, "Bayesian interpolation", Neural Computation). A module that does not move the target gets
    a variance next to 0: which module moves what is learned. Within a group, such as one module's slopes, each context
    feature has a variance of its own (automatic relevance determination, Neal 1996, "Bayesian learning for neural
    networks"), as few features tell who differs. Alone these would follow the noise: they have a scaled inverse
    chi-squared prior whose degrees of freedom are `SIMILAR` times a block's coefficients, and whose scale, the group's
    variance, is the most likely one given the blocks', their harmonic mean. So the many features that tell nothing
    set it, and not the few that do.

    Args:
        design: The columns.
        sums: The rows' sums.
        guess: Initial variance of a block, in units of the noise; it counts as `PSEUDO_COEFFICIENTS` more coefficients.
        start: Variances to start from (blocks,), such as those of an earlier fit.
        steps: Largest number of steps.
    """
    noise = max(float(sums.square[0]) / max(sums.rows, 1), TINY)
    return _iterate(design, sums, guess, start, steps, noise, lambda found: _noise(sums, found))


def fit_known_noise(
    design: Design,
    sums: DesignStatistics,
    guess: float,
    start: Tensor | None,
    steps: int,
    intercept: float = INTERCEPT_VARIANCE,
    held: Tensor | None = None,
) -> Posterior:
    """Fit coefficients to a target whose rows have weights in units of their precision, so that the noise is 1.

    `intercept` is the prior variance of the common intercept; the blocks `held` (blocks,) keep the variance of `start`.
    """
    return _iterate(design, sums, guess, start, steps, 1.0, lambda _: 1.0, intercept, held)


def refit(design: Design, sums: DesignStatistics, variance: Tensor, noise: float) -> Posterior:
    """Fit coefficients to other rows with the variances (blocks,) and the noise of an earlier fit."""
    mean, root = _solve(design, sums, variance)
    return Posterior(mean, root, variance, noise)


def _noise(sums: DesignStatistics, mean: Tensor) -> float:
    unexplained = float(sums.square[0] - sums.moment[:, 0] @ mean)
    return max(max(unexplained, MIN_NOISE_SHARE * float(sums.square[0])) / max(sums.rows, 1), TINY)


def _iterate(
    design: Design,
    sums: DesignStatistics,
    guess: float,
    start: Tensor | None,
    steps: int,
    noise: float,
    noise_of: Callable[[Tensor], float],
    intercept: float = INTERCEPT_VARIANCE,
    held: Tensor | None = None,
) -> Posterior:
    variance = torch.full((design.blocks,), guess, dtype=torch.float64) if start is None else start.clone()
    variance[0] = intercept
    size = torch.bincount(design.block, minlength=design.blocks).double()
    probes = _probes(design.columns)
    for _ in range(steps):
        mean, root = _solve(design, sums, variance)
        noise = noise_of(mean)
        determined = (size - _traces(design, root, probes) / variance).clamp_min(0.0)
        squares = design.squares(mean.unsqueeze(1))[:, 0] / noise
        learned = _learned_variance(design, size, squares, determined, guess).clamp(MIN_VARIANCE, MAX_VARIANCE)
        learned[0] = intercept
        if held is not None:
            learned = torch.where(held, variance, learned)
        change = ((learned.sqrt() + NEGLIGIBLE_SCALE) / (variance.sqrt() + NEGLIGIBLE_SCALE)).log().abs().max()
        variance = learned
        if float(change) < CONVERGED_LOG_CHANGE:
            break
    mean, root = _solve(design, sums, variance)
    return Posterior(mean, root, variance, noise_of(mean))


def _learned_variance(design: Design, size: Tensor, squares: Tensor, determined: Tensor, guess: float) -> Tensor:
    """Return the variance of each block (blocks,), from its squares and determined coefficients and its group's."""
    similar = SIMILAR * size

    def of_blocks(of_group: Tensor) -> Tensor:
        return (squares + similar * of_group[design.group]) / (determined + similar)

    of_group = (_in_groups(design, squares) + PSEUDO_COEFFICIENTS * guess) / (
        _in_groups(design, determined) + PSEUDO_COEFFICIENTS
    )
    for _ in range(ROUNDS):
        variance = of_blocks(of_group).clamp_min(MIN_VARIANCE)
        of_group = _in_groups(design, size) / _in_groups(design, size / variance)
    return of_blocks(of_group)


def _in_groups(design: Design, values: Tensor) -> Tensor:
    """Return the sums (groups,) of the blocks' values (blocks,)."""
    return torch.zeros(design.groups, dtype=values.dtype).index_add_(0, design.group, values)


def _probes(columns: int) -> Tensor:
    """Return fixed numbers (columns, P) whose products estimate traces; exact ones where there are few columns."""
    if columns <= PROBES:
        return torch.eye(columns, dtype=torch.float64)
    generator = torch.Generator().manual_seed(columns)
    signs = torch.randint(0, 2, (columns, PROBES), generator=generator, dtype=torch.float64)
    return (2.0 * signs - 1.0) / math.sqrt(PROBES)


def _traces(design: Design, root: Tensor, probes: Tensor) -> Tensor:
    r"""Return the trace (blocks,) of each block's covariance times the inverse of its prior correlation.

    As the sum over probes z of :math:`(L^{-\top} z)_b^\top Q_b (L^{-\top} z)_b`, which costs much less than the inverse
    (Hutchinson 1990, "A stochastic estimator of the trace of the influence matrix", Communications in Statistics).
    """
    return design.squares(torch.linalg.solve_triangular(root.t(), probes, upper=True)).sum(1)


def _solve(design: Design, sums: DesignStatistics, variance: Tensor) -> tuple[Tensor, Tensor]:
    precision = design.precision(variance).add_(sums.gram)
    precision.diagonal().add_(ROUNDING_RIDGE * sums.gram.diagonal())
    root = torch.linalg.cholesky(precision)
    return torch.cholesky_solve(sums.moment[:, :1], root)[:, 0], root
