"""How wide the heads' prior is: by the evidence of the rows, or by what predicts rows that were held out."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import cache

import torch
from torch import Tensor

from crosschannel.agents.ensemble.heads import Prior, Sums, inverse, marginal, own_precision

SMALLEST, LARGEST = 1e-3, 8.0
PSEUDO = 0.1
LEAST_NOISE = 0.05
ENOUGH = 500
NEGLIGIBLE = 0.02
CONVINCING = 4.0
TRUSTS = (SMALLEST**2, *(4.0**power for power in range(-6, 3)))
# Of the blocks [1, x, |x|, h], common part and own: what is trusted as far as it predicts held-out rows.
NETWORK = torch.tensor([[False, False, False, True], [False, False, False, True]])
CURVES = torch.tensor([[False, False, False, False], [False, False, True, False]])


def learn_scales(sums: Sums, prior: Prior, blocks: Tensor, steps: int) -> Prior:
    r"""Prior variances and noise by maximum evidence, of first columns of targets.

    .. math::
        \sigma^2 \leftarrow \frac{\sum_i w_i r_i (r_i - \phi_i^\top \theta)}{n}, \qquad
        \lambda_b \leftarrow \frac{|\theta_b|^2}{\gamma_b \sigma^2}, \qquad
        \gamma_b = n_b - \mathrm{tr}(\Sigma_b) / \lambda_b

    The first is the best noise where variances are in its units. :math:`\gamma_b` is how many of a block's :math:`n_b`
    coefficients the data determine (MacKay 1992, "Bayesian interpolation", Neural Computation). Expectation
    maximisation has the same fixed point, but was still far from it after thirty steps. The guess counts as `PSEUDO`
    coefficients more. What `trust` chooses stays.
    Ends where no scale changes by more than 10 %, `NEGLIGIBLE` added to each: a block that fades out takes long to.

    Args:
        sums: Sums over the rows, without a fold dimension.
        prior: Where to begin.
        blocks: The block that each feature belongs to (F,).
        steps: Steps at most.
    """
    fixed = NETWORK | CURVES
    parts = _Parts.of(sums, prior, blocks, ~fixed[1])
    blocks, j = blocks[parts.order], parts.open.shape[1]
    size = torch.bincount(blocks, minlength=prior.variance.shape[1]).double()
    actions = len(sums.gram)

    def total(each: Tensor) -> Tensor:
        return torch.zeros_like(size).index_add_(0, blocks[-len(each) :], each)

    for _ in range(steps):
        variance, noise = prior.variance, prior.noise
        common, own = variance[:, blocks]
        found = parts.fit(common, own)
        if sums.rows > ENOUGH:
            explained = float((parts.moment * found.coefficients).sum())
            noise = max((float(sums.square) - explained) / float(sums.rows), LEAST_NOISE)
        covariance = torch.cholesky_inverse(found.factor)
        # An own part is what rows say of the action alone, less their pull on the common part: so is its variance.
        pull = found.rows / own
        kept = (torch.eye(len(blocks), dtype=torch.float64)[-j:] - pull).flatten(0, 1)
        spread = ((kept @ covariance) * kept).sum(1).view(actions, j)
        spread += found.rows[..., -j:].diagonal(dim1=1, dim2=2)
        deviation = (found.coefficients - found.common)[:, -j:, 0]
        left = torch.stack([total(covariance.diagonal()), total(spread.sum(0))]) / variance
        squares = torch.stack([total(found.common[:, 0].square()), total(deviation.square().sum(0))]) / noise
        determined = (torch.stack([size, actions * size]) - left).clamp_min(0.0)
        learned = ((squares + PSEUDO * prior.guess) / (determined + PSEUDO)).clamp(SMALLEST**2, LARGEST**2)
        prior = replace(prior, variance=torch.where(fixed, variance, learned), noise=noise)
        change = ((prior.variance.sqrt() + NEGLIGIBLE) / (variance.sqrt() + NEGLIGIBLE)).log().abs().max()
        if float(change) < 0.1:
            break
    return prior


def trust(train: Sums, held_out: Sums, prior: Prior, blocks: Tensor, which: Tensor) -> Prior:
    """The prior with that variance of some parts, of `TRUSTS`, which predicts held-out rows best; 0 is the first.

    The evidence cannot choose it for the trained block: the hidden layer has seen the rewards of the rows that its head
    is fitted to, and would be trusted far too much where rewards are noisy. Held out are rows that the network has not
    been trained on. Where rewards are nearly all noise, any variance overfits a little, and what is gained by it is
    lost in the choice: unless the best one is `CONVINCING`, the parts keep the first.

    Args:
        train: Sums over the rows that the network was trained on.
        held_out: Sums over the others.
        prior: The prior; the search begins at the variance that was chosen before, or else at the first.
        blocks: The block that each feature belongs to (F,).
        which: The parts whose variance is chosen, common and own (2, B).
    """
    parts = _Parts.of(train, prior, blocks, which[1])
    gram, moment = _ordered(held_out.gram, parts.order), held_out.moment[:, parts.order, :1]

    def at(place: int) -> Prior:
        return replace(prior, variance=prior.variance.masked_fill(which, TRUSTS[place]))

    @cache
    def error(place: int) -> float:
        """Squared error on the held-out rows, less that of estimating 0."""
        found = parts.fit(*at(place).variance[:, blocks[parts.order]]).coefficients
        return float((found * (gram @ found - 2.0 * moment)).sum())

    now = float(prior.variance[which].max())
    chosen = lowest(error, len(TRUSTS), TRUSTS.index(now) if now in TRUSTS else 0)
    # Half a squared error in units of the noise is a log likelihood.
    convincing = error(0) - error(chosen) > 2.0 * CONVINCING * prior.noise
    return at(chosen if convincing else 0)


def lowest(value: Callable[[int], float], n: int, first: int) -> int:
    """Walks downhill over n places from one of them, and gives that where it ends."""
    place = first
    for step in (1, -1):
        while 0 <= place + step < n and value(place + step) < value(place):
            place += step
        if place != first:
            break
    return place


def _ordered(matrix: Tensor, order: Tensor) -> Tensor:
    """Matrices (A, F, F) with the features in another order (F,)."""
    return matrix.index_select(1, order).index_select(2, order)


@dataclass(frozen=True)
class _Fit:
    """Coefficients under one prior.

    Attributes:
        coefficients: Of every action (A, F, 1).
        common: The part that is common to all (F, 1).
        factor: Cholesky factor of the common part's precision (F, F), in units of the noise.
        rows: Covariances of the open own parts with all own ones, given the common one (A, J, F).
    """

    coefficients: Tensor
    common: Tensor
    factor: Tensor
    rows: Tensor


@dataclass(frozen=True)
class _Parts:
    r"""Precisions of own parts, with the features eliminated whose prior is fixed: what is left is open to any.

    .. math::
        \begin{pmatrix} A & B^\top \\ B & D + \Lambda \end{pmatrix}^{-1} =
        \begin{pmatrix} A^{-1} + W^\top Q W & -W^\top Q \\ -Q W & Q \end{pmatrix}, \qquad
        W = B A^{-1}, \quad Q = (D - W B^\top + \Lambda)^{-1}

    Attributes:
        order: Places of the features, the J open ones last (F,).
        fixed: :math:`A^{-1}` (A, F - J, F - J).
        bridge: W (A, J, F - J).
        open: :math:`D - W B^\top` (A, J, J).
        moment: Products of features, in this order, and targets (A, F, 1).
    """

    order: Tensor
    fixed: Tensor
    bridge: Tensor
    open: Tensor
    moment: Tensor

    @classmethod
    def of(cls, sums: Sums, prior: Prior, blocks: Tensor, which: Tensor) -> _Parts:
        """From sums over rows, a prior, each feature's block (F,), and the blocks whose own prior is open (B,)."""
        order = torch.argsort(which[blocks].long(), stable=True)
        p = int((~which[blocks]).sum())
        open_prior = replace(prior, variance=torch.where(which, torch.inf, prior.variance))
        precision = _ordered(own_precision(sums, open_prior, blocks), order)
        fixed, side = inverse(precision[:, :p, :p]), precision[:, p:, :p]
        bridge = side @ fixed
        rest = precision[:, p:, p:] - bridge @ side.transpose(1, 2)
        return cls(order, fixed, bridge, rest, sums.moment[:, order, :1])

    def fit(self, common: Tensor, own: Tensor) -> _Fit:
        """Coefficients under prior variances of the common and of the own parts (F,), those of fixed ones as before."""
        actions, _, p = self.bridge.shape
        last = inverse(self.open + torch.diag(1 / own[p:]))
        across = last @ self.bridge

        def covariance(columns: Tensor) -> Tensor:
            found = last @ columns[:, p:] - across @ columns[:, :p]
            return torch.cat([self.fixed @ columns[:, :p] - self.bridge.transpose(1, 2) @ found, found], 1)

        rows = torch.cat([-across, last], 2)
        corner = self.fixed.sum(0) + self.bridge.reshape(-1, p).t() @ across.reshape(-1, p)
        lower = rows.sum(0)
        total = torch.cat([torch.cat([corner, lower[:, :p].t()], 1), lower])
        alone = covariance(self.moment)
        factor = torch.linalg.cholesky(torch.diag(1 / common) + marginal(total, own, actions))
        shared = torch.cholesky_solve(alone.sum(0) / own.unsqueeze(1), factor)
        pulled = covariance((shared / own.unsqueeze(1)).expand(actions, -1, -1))
        return _Fit(alone + pulled, shared, factor, rows)
