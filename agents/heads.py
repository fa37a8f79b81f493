"""Closed-form heads: each member's weighted ridge regression of rewards on its features, with learned prior scales."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace

import torch
from torch import Tensor

CHUNK = 2048
SMALLEST, LARGEST = 1e-3, 2.0
PSEUDO = 4.0
ROUNDING = 1e-5


@dataclass(frozen=True)
class Sums:
    """Sufficient statistics of weighted regressions, float64.

    Attributes:
        gram: Weighted sums of products of features (..., K, A, F, F).
        moment: Weighted sums of features times rewards (..., K, A, F).
    """

    gram: Tensor
    moment: Tensor

    def __add__(self, other: Sums) -> Sums:
        return Sums(self.gram + other.gram, self.moment + other.moment)

    def __sub__(self, other: Sums) -> Sums:
        return Sums(self.gram - other.gram, self.moment - other.moment)


def sums_by_fold(
    features: Callable[[Tensor], Tensor],
    weights: Callable[[Tensor], Tensor],
    x: Tensor,
    action: Tensor,
    target: Tensor,
    fold: Tensor,
    shape: tuple[int, int],
) -> Sums:
    """Sums of each fold of the rows, stacked along a first dimension; every row is visited once, in chunks.

    Args:
        features: Features (K, n, F) of contexts (n, D), as a tensor that may be written to.
        weights: Weights (K, n) of rows, by their indices (n,).
        x: Contexts (N, D).
        action: Codes of the taken actions (N,).
        target: Standardised rewards (N,).
        fold: Each row's fold (N,).
        shape: Folds and actions.
    """
    folds, actions = shape
    label = fold * actions + action
    order = torch.argsort(label, stable=True)
    counts = torch.bincount(label, minlength=folds * actions).tolist()
    k, _, f = features(x[:1]).shape
    gram = torch.zeros(folds * actions, k, f, f, dtype=torch.float64)
    moment = torch.zeros(folds * actions, k, f, dtype=torch.float64)
    for segment, rows in enumerate(torch.split(order, counts)):
        for part in torch.split(rows, CHUNK):
            if len(part) == 0:
                continue
            root = weights(part).sqrt().unsqueeze(-1)
            phi = features(x[part]).mul_(root)
            gram[segment] += torch.bmm(phi.transpose(1, 2), phi)
            moment[segment] += torch.bmm(phi.transpose(1, 2), root * target[part, None]).squeeze(-1)
    return Sums(gram.view(folds, actions, k, f, f).transpose(1, 2), moment.view(folds, actions, k, f).transpose(1, 2))


def standardise(gram: Tensor, blocks: Tensor) -> Tensor:
    """Maps (K, F, F) to features with mean 0 and, for each block but the intercept, variances that add up to 1.

    A coefficient's prior variance then is the variance of the rewards that its block explains, whatever its width.

    Args:
        gram: Sums of products of the features over all actions (K, F, F); the first feature is 1.
        blocks: The block that each feature belongs to (F,).
    """
    n = gram[:, 0, 0].clamp_min(1e-12)
    mean = gram[:, 0, :] / n[:, None]
    square = gram.diagonal(dim1=1, dim2=2) / n[:, None]

    def total(each: Tensor) -> Tensor:
        return torch.zeros(len(gram), int(blocks.max()) + 1, dtype=gram.dtype).index_add_(1, blocks, each)

    # A block that hardly varies must not be blown up: it would be mostly rounding errors of the sums.
    spread = torch.maximum(total(square - mean.square()), 0.05 * total(square)).clamp_min(1e-8)
    scale = spread.rsqrt()[:, blocks]
    scale[:, 0], mean[:, 0] = 1.0, 0.0
    out = torch.diag_embed(scale)
    out[:, :, 0] -= scale * mean
    return out


def in_coordinates(sums: Sums, transform: Tensor) -> Sums:
    """The sums of the features that `standardise` maps to."""
    t = transform.unsqueeze(1)
    return Sums(t @ sums.gram @ t.transpose(-1, -2), (t @ sums.moment.unsqueeze(-1)).squeeze(-1))


@dataclass(frozen=True)
class Prior:
    """What coefficients are before any data.

    An action's coefficients are a part common to all actions plus its own deviation, both normal with mean 0: what
    holds for all actions need not be learned again for each.

    Attributes:
        guess: Variance of the coefficients before any data, in standardised rewards.
        variance: Variances of the coefficients of each block, common and own (2, B), as learned.
        common: Standard normal draws, one for each member (K, F).
        own: Standard normal draws, for each member and action (K, A, F).
    """

    guess: float
    variance: Tensor
    common: Tensor
    own: Tensor


def solve(sums: Sums, prior: Prior, blocks: Tensor) -> tuple[Tensor, Tensor]:
    r"""Each member's coefficients (K, A, F) and their common part (K, F).

    .. math::
        \min_{t, d} \sum_a \sum_{i: a_i = a} w_{ki} (r_i - \phi_{ki}^\top (t + d_a))^2
        + |t - t_k^0|^2_{\Lambda_0} + \sum_a |d_a - d_{ka}^0|^2_{\Lambda_1}

    With random weights w of mean 1 and random prior draws :math:`t^0, d^0` the minimisers vary as the posterior does
    (the weighted likelihood bootstrap of Newton & Raftery 1994; the anchored form of Pearce et al. 2020). Writing
    :math:`M_a = G_a + \Lambda_1` and :math:`v_a = M_a^{-1} (b_a + \Lambda_1 d_a^0)`, the common part solves
    :math:`(\Lambda_0 + \sum_a (\Lambda_1 - \Lambda_1 M_a^{-1} \Lambda_1)) t = \Lambda_0 t^0 + \Lambda_1 \sum_a (v_a -
    d_a^0)`, and :math:`t + d_a = v_a + M_a^{-1} \Lambda_1 t`.
    """
    common, own = prior.variance[:, blocks]
    n = sums.gram[..., 0, 0, None]
    inverse = torch.cholesky_inverse(torch.linalg.cholesky(sums.gram + torch.diag_embed(1 / own + ROUNDING * n)))
    start = prior.own * own.sqrt()
    alone = (inverse @ (sums.moment + start / own).unsqueeze(-1)).squeeze(-1)
    left = torch.diag(1 / common) + (torch.diag(1 / own) - inverse / own / own.unsqueeze(-1)).sum(1)
    right = prior.common * common.rsqrt() + ((alone - start) / own).sum(1)
    shared = torch.linalg.solve(left, right)
    return alone + (inverse @ (shared / own)[:, None, :, None]).squeeze(-1), shared


def learn_scales(sums: Sums, prior: Prior, blocks: Tensor, steps: int) -> Prior:
    """Prior variances that fit the members' coefficients: expectation maximisation, members standing for the posterior.

    Each step sets a block's variance to the mean square of its coefficients over members (Dempster, Laird & Rubin
    1977; MacKay 1992), the guess counting as `PSEUDO` coefficients more. The last block, the trained one, keeps its
    own. Ends where nothing changes by more than 5 %.
    """
    count = torch.bincount(blocks, minlength=prior.variance.shape[1]).double()
    count = torch.stack([count, count * sums.gram.shape[1]])
    for _ in range(steps):
        coefficients, common = solve(sums, prior, blocks)
        own = (coefficients - common.unsqueeze(1)).square().sum(1)
        squares = torch.stack([common.square().mean(0), own.mean(0)])
        found = torch.zeros_like(prior.variance).index_add_(1, blocks, squares)
        found = ((found + PSEUDO * prior.guess) / (count + PSEUDO)).clamp(SMALLEST**2, LARGEST**2)
        found[:, -1] = prior.variance[:, -1]
        change = float((found / prior.variance).log().abs().max())
        prior = replace(prior, variance=found)
        if change < 0.05:
            break
    return prior


def held_out_error(sums: Sums, coefficients: Tensor) -> float:
    """Weighted squared error of coefficients (K, A, F) on rows known by their sums, up to a constant."""
    quadratic = torch.einsum("kaf,kafg,kag->", coefficients, sums.gram, coefficients)
    return float(quadratic - 2.0 * (coefficients * sums.moment).sum())


def trust_network(train: Sums, held_out: Sums, prior: Prior, blocks: Tensor, moves: int) -> Prior:
    """The prior with that variance of the trained block, of those a factor 4 apart, which predicts held-out rows best.

    The evidence cannot choose it: the hidden layer has seen the rewards of the rows that its head is fitted to, and
    would be trusted far too much where rewards are noisy. Held out are, for each member, rows that its network has
    not been trained on.
    """

    def at(value: float) -> Prior:
        variance = prior.variance.clone()
        variance[:, -1] = value
        return replace(prior, variance=variance)

    def error(value: float) -> float:
        return held_out_error(held_out, solve(train, at(value), blocks)[0])

    value = float(prior.variance[1, -1])
    best = error(value)
    for factor in (4.0, 0.25):
        moved = False
        for _ in range(moves):
            candidate = value * factor
            if not SMALLEST**2 <= candidate <= LARGEST**2 or (found := error(candidate)) >= best:
                break
            value, best, moved = candidate, found, True
        if moved:
            break
    return at(value)
