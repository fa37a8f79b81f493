"""Linear regression of the reward for many actions at once, in closed form, with what their labels share."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, fields

import torch
from torch import Tensor

MOVES = 3
SMALLEST, LARGEST = 1e-3, 10.0


@dataclass(frozen=True)
class Sums:
    """All that a least-squares fit needs to know of its rows, for each of A cells; sums of rows are sums of these.

    Attributes:
        gram: Weighted Gram matrices of the features (..., A, F, F).
        moment: Weighted products of features and rewards (..., A, F).
        weight: Sum of the weights (...).
        total: Weighted sum of the rewards (...).
        square: Weighted sum of the squared rewards (...).
    """

    gram: Tensor
    moment: Tensor
    weight: Tensor
    total: Tensor
    square: Tensor

    @classmethod
    def nothing(cls, cells: int, width: int, *members: int) -> Sums:
        """No rows, for K members if a number of them is given."""
        zero = torch.zeros(members, dtype=torch.float64)
        gram = torch.zeros(*members, cells, width, width, dtype=torch.float64)
        return cls(gram, gram[..., 0].clone(), zero, zero, zero)

    @classmethod
    def of(cls, phi: Tensor, cell: Tensor, reward: Tensor, weight: Tensor, cells: int) -> Sums:
        """Sums of n rows.

        Args:
            phi: Features (n, F) float64.
            cell: Which cell each row belongs to (n,).
            reward: Rewards (n,), or (..., n) where they differ between members.
            weight: Weights (n,), or (..., n) where they differ between members.
            cells: How many cells there are.
        """
        weighted = weight * reward
        grams = []
        for rows in rows_by_cell(cell, cells):
            part = phi[rows].T
            grams.append((part * weight[..., rows].unsqueeze(-2)) @ part.T)
        return cls(
            torch.stack(grams, -3),
            moments(phi, cell, weighted, cells),
            weight.sum(-1),
            weighted.sum(-1),
            (weighted * reward).sum(-1),
        )

    def plus(self, other: Sums, kept: float = 1.0) -> Sums:
        """These rows and others, of these only a share `kept`."""
        return Sums(*(kept * getattr(self, f.name) + getattr(other, f.name) for f in fields(self)))

    def residual(self, coefficients: Tensor) -> Tensor:
        """Weighted mean squared error (...) of coefficients (..., A, F); 0 where there are no rows."""
        fitted = (coefficients * self.moment).sum((-2, -1))
        square = ((self.gram @ coefficients.unsqueeze(-1)).squeeze(-1) * coefficients).sum((-2, -1))
        return ((self.square - 2.0 * fitted + square) / self.weight.clamp(min=1e-300)).clamp(min=0.0)

    def variance(self) -> Tensor:
        """Weighted variance (...) of the rewards; 0 where there are no rows."""
        weight = self.weight.clamp(min=1e-300)
        return (self.square / weight - (self.total / weight).square()).clamp(min=0.0)


def rows_by_cell(cell: Tensor, cells: int) -> Sequence[Tensor]:
    """The rows of each cell, in order."""
    return torch.split(torch.argsort(cell, stable=True), torch.bincount(cell, minlength=cells).tolist())


def moments(phi: Tensor, cell: Tensor, weighted: Tensor, cells: int) -> Tensor:
    """Products (..., cells, F) of features (n, F) and weighted targets (..., n), each cell's own rows."""
    parts = [weighted[..., rows].unsqueeze(-2) @ phi[rows] for rows in rows_by_cell(cell, cells)]
    return torch.cat(parts, -2)


@dataclass(frozen=True)
class Prior:
    r"""What is believed of the coefficients before any row, in units of the noise.

    A cell's coefficients are :math:`\theta_a = \sum_l Z_{al} g_l + d_a`: what all cells and those of the same labels
    share (`agents.actions.design`), and what is the cell's own. A new action therefore begins with what its labels have
    earned elsewhere.

    Attributes:
        design: Z, (A, L); its first column is 1.
        own: Variances of d (F,), the same for every cell.
        shared: Variances of g (L, F).
    """

    design: Tensor
    own: Tensor
    shared: Tensor

    @classmethod
    def of(cls, design: Tensor, width: int, scale: float) -> Prior:
        """Effects of plausible size `scale` in standard deviations of the noise, all slopes together as much again.

        What all cells share says nothing of which one is best, and gets a wide prior of standard deviation 1.
        """
        own = torch.full((width,), scale**2, dtype=torch.float64)
        own[1:] /= max(width - 1, 1)
        shared = own.repeat(design.shape[1], 1)
        shared[0] /= scale**2
        return cls(design, own, shared)


@dataclass(frozen=True)
class Fit:
    """The posterior of all coefficients.

    Attributes:
        mean: (..., A, F).
        shared: Mean of what labels share (..., L, F).
        inverse: Inverse of each cell's own precision (..., A, F, F).
        system: Cholesky factor of the precision of what is shared (..., L F, L F).
        logdet: Logarithm of the determinant of the precision of all shared and own parts (...).
    """

    mean: Tensor
    shared: Tensor
    inverse: Tensor
    system: Tensor
    logdet: Tensor


def fit(sums: Sums, prior: Prior) -> Fit:
    r"""The posterior of :math:`\theta` under normal noise of variance 1 per unit of weight.

    .. math::
        \min_{g, d} \sum_a (\theta_a^\top G_a \theta_a - 2 \theta_a^\top b_a) + \sum_a |d_a|^2_{\Lambda}
        + \sum_l |g_l|^2_{\Lambda_l}

    Targets may have leading dimensions that the Gram matrices lack: they share one factorisation then.

    With :math:`M_a = G_a + \Lambda`, what is shared solves

    .. math::
        (\Lambda_l \delta_{lm} + \sum_a Z_{al} Z_{am} (\Lambda - \Lambda M_a^{-1} \Lambda)) g
        = \sum_a Z_{al} \Lambda M_a^{-1} b_a, \qquad \theta_a = M_a^{-1} (b_a + \Lambda \sum_l Z_{al} g_l)

    Lindley & Smith (1972), "Bayes estimates for the linear model", JRSS B.
    """
    z, own = prior.design, 1.0 / prior.own
    count, width = z.shape[1], len(own)
    factor = torch.linalg.cholesky(sums.gram + torch.diag(own))
    inverse = torch.cholesky_inverse(factor)
    alone = (inverse @ sums.moment.unsqueeze(-1)).squeeze(-1)
    left = torch.diag(own) - own.unsqueeze(-1) * inverse * own
    pairs = (z[:, :, None] * z[:, None, :]).reshape(len(z), -1).T
    batch = left.shape[:-3]
    system = (pairs @ left.reshape(*batch, len(z), -1)).reshape(*batch, count, count, width, width)
    system = system.transpose(-3, -2).reshape(*batch, count * width, count * width)
    system = torch.linalg.cholesky(system + torch.diag((1.0 / prior.shared).reshape(-1)))
    right = (z.T @ (own * alone)).flatten(-2).unsqueeze(-1)
    shared = torch.cholesky_solve(right, system).reshape(*right.shape[:-2], count, width)
    mean = alone + (inverse @ (own * (z @ shared)).unsqueeze(-1)).squeeze(-1)
    logdet = 2.0 * (_logs(factor).sum((-2, -1)) + _logs(system).sum(-1))
    return Fit(mean, shared, inverse, system, logdet)


def _logs(factor: Tensor) -> Tensor:
    """Logarithms of the diagonals of Cholesky factors (..., F, F): (..., F)."""
    return torch.diagonal(factor, dim1=-2, dim2=-1).log()


def evidence(sums: Sums, found: Fit, prior: Prior) -> float:
    r"""How well a prior foresaw the rewards: their log likelihood with all coefficients integrated out.

    .. math:: 	frac12 \log|P_0| - 	frac12 \log|P| - 	frac{n}{2} \log rac{S}{n}, \qquad S = \sum r^2 - b^	op 	heta

    up to a constant, with the noise at its best value, the precisions P before and after, and n the sum of the weights.
    MacKay (1992), "Bayesian interpolation", Neural Computation. Members' evidence is averaged.
    """
    cells = prior.design.shape[0]
    before = -(cells * prior.own.log().sum() + prior.shared.log().sum())
    left = (sums.square - (sums.moment * found.mean).sum((-2, -1))) / sums.weight
    return float((0.5 * (before - found.logdet) - 0.5 * sums.weight * left.clamp(min=1e-300).log()).mean())


def learn_scale(sums: Sums, design: Tensor, width: int, scale: float, guess: float) -> float:
    """The plausible size of effects that foresees the rewards best, by steps of a factor 2.

    A first guess keeps it from running off where there are few rows or few actions: its logarithm has a normal prior
    about that of the guess, with a standard deviation of a factor 4.

    Args:
        sums: What was seen; with no rows the scale stays.
        design: What the cells have in common (A, L).
        width: Features.
        scale: What it was last, in standard deviations of the noise; it moves by at most `MOVES` steps.
        guess: The first guess.
    """
    if not bool((sums.weight > 0).all()):
        return scale

    def at(value: float) -> float:
        prior = Prior.of(design, width, value)
        return evidence(sums, fit(sums, prior), prior) - 0.5 * (math.log(value / guess) / math.log(4.0)) ** 2

    best = at(scale)
    for factor in (2.0, 0.5):
        moved = False
        for _ in range(MOVES):
            candidate = scale * factor
            if not SMALLEST <= candidate <= LARGEST or (here := at(candidate)) <= best:
                break
            scale, best, moved = candidate, here, True
        if moved:
            break
    return scale


def deviations(found: Fit, prior: Prior, normals: Tensor) -> Tensor:
    """Draws of the posterior about its mean (K, A, F), in units of the noise.

    Args:
        found: The posterior.
        prior: The prior that it came from.
        normals: Standard normal numbers (K, L + A, F).
    """
    z = prior.design
    count = z.shape[1]
    flat = normals[:, :count].reshape(len(normals), -1, 1)
    shared = torch.linalg.solve_triangular(found.system.T, flat, upper=True).reshape(len(normals), count, -1)
    own = torch.linalg.cholesky(found.inverse) @ normals[:, count:].unsqueeze(-1)
    through = found.inverse @ ((z @ shared) / prior.own).unsqueeze(-1)
    return torch.add(own, through).squeeze(-1)
