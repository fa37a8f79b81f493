"""The heads' prior variances: chosen by the evidence of the rows, or by the prediction of held-out rows."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import cache

import torch
from torch import Tensor

from crosschannel.agents.ensemble.heads import (
    Prior,
    SufficientStatistics,
    inverse,
    marginal_information,
    own_precision,
)

MIN_SCALE, MAX_SCALE = 1e-3, 8.0
PSEUDO_COEFFICIENTS = 0.1
MIN_NOISE_VARIANCE = 0.05
MIN_ROWS_TO_LEARN_NOISE = 500
NEGLIGIBLE_SCALE = 0.02
CONVERGED_LOG_CHANGE = 0.1
MIN_LOG_LIKELIHOOD_GAIN = 4.0
# The variances that `select_prior_scale` chooses from; the first one is next to 0.
PRIOR_SCALES = (MIN_SCALE**2, *(4.0**power for power in range(-6, 3)))
# Of the blocks [1, x, |x|, h], common and own part: those whose variance `select_prior_scale` chooses.
NETWORK_BLOCK = torch.tensor([[False, False, False, True], [False, False, False, True]])
ABSOLUTE_BLOCK = torch.tensor([[False, False, False, False], [False, False, True, False]])


def learn_scales(statistics: SufficientStatistics, prior: Prior, blocks: Tensor, steps: int) -> Prior:
    r"""Fit the prior variances and the noise to the first column of targets, by maximum evidence.

    .. math::
        \sigma^2 \leftarrow \frac{\sum_i w_i r_i (r_i - \phi_i^\top \theta)}{n}, \qquad
        \lambda_b \leftarrow \frac{|\theta_b|^2}{\gamma_b \sigma^2}, \qquad
        \gamma_b = n_b - \mathrm{tr}(\Sigma_b) / \lambda_b

    The first is the best noise for variances in units of the noise. :math:`\gamma_b` is the number of a block's
    :math:`n_b` coefficients that the data determine (MacKay 1992, "Bayesian interpolation", Neural Computation).
    Expectation maximisation has the same fixed point, but was far from it after thirty steps. The initial guess counts
    as `PSEUDO_COEFFICIENTS` more coefficients. The variances that `select_prior_scale` chooses stay as they are.
    The iteration stops when no scale changes by more than 10 %, after adding `NEGLIGIBLE_SCALE` to each: the scale of a
    block without effect converges to 0 slowly.

    Args:
        statistics: Statistics of all rows, without a fold dimension.
        prior: The starting point.
        blocks: Block of each feature (F,).
        steps: Largest number of steps.
    """
    fixed = NETWORK_BLOCK | ABSOLUTE_BLOCK
    parts = _Parts.build(statistics, prior, blocks, ~fixed[1])
    blocks, j = blocks[parts.order], parts.free.shape[1]
    size = torch.bincount(blocks, minlength=prior.variance.shape[1]).double()
    actions = len(statistics.gram)

    def total(each: Tensor) -> Tensor:
        return torch.zeros_like(size).index_add_(0, blocks[-len(each) :], each)

    for _ in range(steps):
        variance, noise = prior.variance, prior.noise
        common, own = variance[:, blocks]
        found = parts.fit(common, own)
        if statistics.rows > MIN_ROWS_TO_LEARN_NOISE:
            fitted = float((parts.moment * found.coefficients).sum())
            noise = max((float(statistics.square) - fitted) / float(statistics.rows), MIN_NOISE_VARIANCE)
        covariance = torch.cholesky_inverse(found.factor)
        # Law of total variance: the own parts' variance given the common part, and that of their conditional mean.
        shrinkage = found.rows / own
        loading = (torch.eye(len(blocks), dtype=torch.float64)[-j:] - shrinkage).flatten(0, 1)
        own_variance = ((loading @ covariance) * loading).sum(1).view(actions, j)
        own_variance += found.rows[..., -j:].diagonal(dim1=1, dim2=2)
        deviation = (found.coefficients - found.common)[:, -j:, 0]
        left = torch.stack([total(covariance.diagonal()), total(own_variance.sum(0))]) / variance
        squares = torch.stack([total(found.common[:, 0].square()), total(deviation.square().sum(0))]) / noise
        determined = (torch.stack([size, actions * size]) - left).clamp_min(0.0)
        learned = (squares + PSEUDO_COEFFICIENTS * prior.guess) / (determined + PSEUDO_COEFFICIENTS)
        learned = learned.clamp(MIN_SCALE**2, MAX_SCALE**2)
        prior = replace(prior, variance=torch.where(fixed, variance, learned), noise=noise)
        change = ((prior.variance.sqrt() + NEGLIGIBLE_SCALE) / (variance.sqrt() + NEGLIGIBLE_SCALE)).log().abs().max()
        if float(change) < CONVERGED_LOG_CHANGE:
            break
    return prior


def select_prior_scale(
    train: SufficientStatistics, held_out: SufficientStatistics, prior: Prior, blocks: Tensor, which: Tensor
) -> Prior:
    """Choose the variance of some parts, of `PRIOR_SCALES`, that predicts held-out rows best.

    The evidence cannot choose it for the network's block: the hidden layer was trained on the rewards that its head is
    fitted to, so that the evidence overstates it where rewards are noisy. The network was never trained on the held-out
    rows. Where rewards are nearly all noise, every variance overfits a little, and the choice among many costs more
    than the best one gains: unless the log-likelihood of the held-out rows grows by more than
    `MIN_LOG_LIKELIHOOD_GAIN`, the parts get the first variance, which is next to 0.

    Args:
        train: Statistics of the rows that the network was trained on.
        held_out: Statistics of the other rows.
        prior: The prior; the search starts at its variance if that is one of `PRIOR_SCALES`, or else at the first.
        blocks: Block of each feature (F,).
        which: The parts whose variance to choose, common and own (2, B).
    """
    parts = _Parts.build(train, prior, blocks, which[1])
    gram, moment = _reorder(held_out.gram, parts.order), held_out.moment[:, parts.order, :1]

    def with_scale(index: int) -> Prior:
        return replace(prior, variance=prior.variance.masked_fill(which, PRIOR_SCALES[index]))

    @cache
    def error(index: int) -> float:
        """Return the squared error on the held-out rows, minus that of estimating 0."""
        found = parts.fit(*with_scale(index).variance[:, blocks[parts.order]]).coefficients
        return float((found * (gram @ found - 2.0 * moment)).sum())

    now = float(prior.variance[which].max())
    best = local_minimum(error, len(PRIOR_SCALES), PRIOR_SCALES.index(now) if now in PRIOR_SCALES else 0)
    # Half a squared error in units of the noise is a log-likelihood.
    gain_is_clear = error(0) - error(best) > 2.0 * MIN_LOG_LIKELIHOOD_GAIN * prior.noise
    return with_scale(best if gain_is_clear else 0)


def local_minimum(value: Callable[[int], float], n: int, start: int) -> int:
    """Return the index of a local minimum of a function of 0 to n - 1, descending from a start."""
    index = start
    for step in (1, -1):
        while 0 <= index + step < n and value(index + step) < value(index):
            index += step
        if index != start:
            break
    return index


def _reorder(matrix: Tensor, order: Tensor) -> Tensor:
    """Reorder the features (F,) of matrices (A, F, F)."""
    return matrix.index_select(1, order).index_select(2, order)


@dataclass(frozen=True)
class _Fit:
    """Coefficients under one prior.

    Attributes:
        coefficients: Coefficients of every action (A, F, 1).
        common: The part that is common to all actions (F, 1).
        factor: Cholesky factor of the common part's precision (F, F), in units of the noise.
        rows: Covariances of the free own parts with all own parts, given the common part (A, J, F).
    """

    coefficients: Tensor
    common: Tensor
    factor: Tensor
    rows: Tensor


@dataclass(frozen=True)
class _Parts:
    r"""Precisions of the own parts, with the features of fixed prior eliminated once: only the others are refitted.

    .. math::
        \begin{pmatrix} A & B^\top \\ B & D + \Lambda \end{pmatrix}^{-1} =
        \begin{pmatrix} A^{-1} + W^\top Q W & -W^\top Q \\ -Q W & Q \end{pmatrix}, \qquad
        W = B A^{-1}, \quad Q = (D - W B^\top + \Lambda)^{-1}

    Attributes:
        order: Order of the features, the J free ones last (F,).
        fixed: :math:`A^{-1}` (A, F - J, F - J).
        bridge: W (A, J, F - J).
        free: :math:`D - W B^\top` (A, J, J).
        moment: Products of features, in this order, and targets (A, F, 1).
    """

    order: Tensor
    fixed: Tensor
    bridge: Tensor
    free: Tensor
    moment: Tensor

    @classmethod
    def build(cls, statistics: SufficientStatistics, prior: Prior, blocks: Tensor, which: Tensor) -> _Parts:
        """Eliminate all features but those of the blocks whose own prior is free (B,)."""
        order = torch.argsort(which[blocks].long(), stable=True)
        p = int((~which[blocks]).sum())
        free_prior = replace(prior, variance=torch.where(which, torch.inf, prior.variance))
        precision = _reorder(own_precision(statistics, free_prior, blocks), order)
        fixed, side = inverse(precision[:, :p, :p]), precision[:, p:, :p]
        bridge = side @ fixed
        rest = precision[:, p:, p:] - bridge @ side.transpose(1, 2)
        moment = statistics.moment[:, order, :1]
        return cls(order=order, fixed=fixed, bridge=bridge, free=rest, moment=moment)

    def fit(self, common: Tensor, own: Tensor) -> _Fit:
        """Fit under prior variances of the common and own parts (F,); those of fixed features must not have changed."""
        actions, _, p = self.bridge.shape
        last = inverse(self.free + torch.diag(1 / own[p:]))
        across = last @ self.bridge

        def covariance(columns: Tensor) -> Tensor:
            found = last @ columns[:, p:] - across @ columns[:, :p]
            return torch.cat([self.fixed @ columns[:, :p] - self.bridge.transpose(1, 2) @ found, found], 1)

        rows = torch.cat([-across, last], 2)
        corner = self.fixed.sum(0) + self.bridge.reshape(-1, p).t() @ across.reshape(-1, p)
        lower = rows.sum(0)
        total = torch.cat([torch.cat([corner, lower[:, :p].t()], 1), lower])
        alone = covariance(self.moment)
        factor = torch.linalg.cholesky(torch.diag(1 / common) + marginal_information(total, own, actions))
        shared = torch.cholesky_solve(alone.sum(0) / own.unsqueeze(1), factor)
        pulled = covariance((shared / own.unsqueeze(1)).expand(actions, -1, -1))
        return _Fit(alone + pulled, shared, factor, rows)
