"""Linear regression of the reward for many actions at once, in closed form, with coefficients that labels share."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, fields

import torch
from torch import Tensor

MAX_SCALE_STEPS = 3
MIN_EFFECT_SCALE, MAX_EFFECT_SCALE = 1e-3, 10.0


@dataclass(frozen=True)
class RegressionStatistics:
    """Sufficient statistics of weighted least squares for each of A cells; they add up over rows.

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
    def zeros(cls, cells: int, width: int, *members: int) -> RegressionStatistics:
        """Return the statistics of no rows, for K members if their number is given."""
        zero = torch.zeros(members, dtype=torch.float64)
        gram = torch.zeros(*members, cells, width, width, dtype=torch.float64)
        return cls(gram=gram, moment=gram[..., 0].clone(), weight=zero, total=zero, square=zero)

    @classmethod
    def from_rows(cls, phi: Tensor, cell: Tensor, reward: Tensor, weight: Tensor, cells: int) -> RegressionStatistics:
        """Sum n rows.

        Args:
            phi: Features (n, F) float64.
            cell: Cell of each row (n,).
            reward: Rewards (n,), or (..., n) where they differ between members.
            weight: Weights (n,), or (..., n) where they differ between members.
            cells: Number of cells.
        """
        weighted = weight * reward
        grams = []
        for rows in rows_by_cell(cell, cells):
            part = phi[rows].T
            grams.append((part * weight[..., rows].unsqueeze(-2)) @ part.T)
        return cls(
            gram=torch.stack(grams, -3),
            moment=moments(phi, cell, weighted, cells),
            weight=weight.sum(-1),
            total=weighted.sum(-1),
            square=(weighted * reward).sum(-1),
        )

    def plus(self, other: RegressionStatistics, keep: float = 1.0) -> RegressionStatistics:
        """Add other rows, after multiplying these statistics by `keep`."""
        return RegressionStatistics(
            **{f.name: keep * getattr(self, f.name) + getattr(other, f.name) for f in fields(self)}
        )

    def residual(self, coefficients: Tensor) -> Tensor:
        """Return the weighted mean squared error (...) of coefficients (..., A, F); 0 where there are no rows."""
        fitted = (coefficients * self.moment).sum((-2, -1))
        square = ((self.gram @ coefficients.unsqueeze(-1)).squeeze(-1) * coefficients).sum((-2, -1))
        return ((self.square - 2.0 * fitted + square) / self.weight.clamp(min=1e-300)).clamp(min=0.0)

    def variance(self) -> Tensor:
        """Return the weighted variance (...) of the rewards; 0 where there are no rows."""
        weight = self.weight.clamp(min=1e-300)
        return (self.square / weight - (self.total / weight).square()).clamp(min=0.0)


def rows_by_cell(cell: Tensor, cells: int) -> Sequence[Tensor]:
    """Return the rows of each cell, in order."""
    return torch.split(torch.argsort(cell, stable=True), torch.bincount(cell, minlength=cells).tolist())


def moments(phi: Tensor, cell: Tensor, weighted: Tensor, cells: int) -> Tensor:
    """Return the products (..., cells, F) of features (n, F) and weighted targets (..., n) over each cell's rows."""
    parts = [weighted[..., rows].unsqueeze(-2) @ phi[rows] for rows in rows_by_cell(cell, cells)]
    return torch.cat(parts, -2)


@dataclass(frozen=True)
class Prior:
    r"""The prior of the coefficients, in units of the noise.

    A cell's coefficients are :math:`\theta_a = \sum_l Z_{al} g_l + d_a`: a part that all cells and those with the same
    labels share (`core.action_changes.design_matrix`), and the cell's own part. The estimate of a new action therefore
    starts from the rewards of actions with its labels.

    Attributes:
        design: Z, (A, L); its first column is 1.
        own: Variances of d (F,), the same for every cell.
        shared: Variances of g (L, F).
    """

    design: Tensor
    own: Tensor
    shared: Tensor

    @classmethod
    def build(cls, design: Tensor, width: int, scale: float) -> Prior:
        """Build the prior of effects with standard deviation `scale` (in noise units), and as much for all slopes.

        The part that all cells share does not affect which cell is best, and has a wide prior of standard deviation 1.
        """
        own = torch.full((width,), scale**2, dtype=torch.float64)
        own[1:] /= max(width - 1, 1)
        shared = own.repeat(design.shape[1], 1)
        shared[0] /= scale**2
        return cls(design, own, shared)


@dataclass(frozen=True)
class Posterior:
    """The posterior of all coefficients.

    Attributes:
        mean: (..., A, F).
        shared: Mean of the shared parts (..., L, F).
        inverse: Inverse of each cell's own precision (..., A, F, F).
        system: Cholesky factor of the precision of the shared parts (..., L F, L F).
        logdet: Logarithm of the determinant of the precision of all shared and own parts (...).
    """

    mean: Tensor
    shared: Tensor
    inverse: Tensor
    system: Tensor
    logdet: Tensor


def fit(statistics: RegressionStatistics, prior: Prior) -> Posterior:
    r"""Fit the posterior of :math:`\theta` under normal noise of variance 1 per unit of weight.

    .. math::
        \min_{g, d} \sum_a (\theta_a^\top G_a \theta_a - 2 \theta_a^\top b_a) + \sum_a |d_a|^2_{\Lambda}
        + \sum_l |g_l|^2_{\Lambda_l}

    Targets may have leading dimensions that the Gram matrices lack; then they share one factorisation.

    With :math:`M_a = G_a + \Lambda`, the shared parts solve

    .. math::
        (\Lambda_l \delta_{lm} + \sum_a Z_{al} Z_{am} (\Lambda - \Lambda M_a^{-1} \Lambda)) g
        = \sum_a Z_{al} \Lambda M_a^{-1} b_a, \qquad \theta_a = M_a^{-1} (b_a + \Lambda \sum_l Z_{al} g_l)

    Lindley & Smith (1972), "Bayes estimates for the linear model", JRSS B.
    """
    z, own = prior.design, 1.0 / prior.own
    count, width = z.shape[1], len(own)
    factor = torch.linalg.cholesky(statistics.gram + torch.diag(own))
    inverse = torch.cholesky_inverse(factor)
    alone = (inverse @ statistics.moment.unsqueeze(-1)).squeeze(-1)
    left = torch.diag(own) - own.unsqueeze(-1) * inverse * own
    pairs = (z[:, :, None] * z[:, None, :]).reshape(len(z), -1).T
    batch = left.shape[:-3]
    system = (pairs @ left.reshape(*batch, len(z), -1)).reshape(*batch, count, count, width, width)
    system = system.transpose(-3, -2).reshape(*batch, count * width, count * width)
    system = torch.linalg.cholesky(system + torch.diag((1.0 / prior.shared).reshape(-1)))
    right = (z.T @ (own * alone)).flatten(-2).unsqueeze(-1)
    shared = torch.cholesky_solve(right, system).reshape(*right.shape[:-2], count, width)
    mean = alone + (inverse @ (own * (z @ shared)).unsqueeze(-1)).squeeze(-1)
    logdet = 2.0 * (_log_diagonal(factor).sum((-2, -1)) + _log_diagonal(system).sum(-1))
    return Posterior(mean=mean, shared=shared, inverse=inverse, system=system, logdet=logdet)


def _log_diagonal(factor: Tensor) -> Tensor:
    """Return the logarithms of the diagonals (..., F) of Cholesky factors (..., F, F)."""
    return torch.diagonal(factor, dim1=-2, dim2=-1).log()


def evidence(statistics: RegressionStatistics, posterior: Posterior, prior: Prior) -> float:
    r"""Return the log marginal likelihood of the rewards under a prior, with all coefficients integrated out.

    .. math::
        \tfrac12 \log|P_0| - \tfrac12 \log|P| - \tfrac{n}{2} \log \frac{S}{n}, \qquad S = \sum r^2 - b^\top \theta

    up to a constant, with the noise at its maximum likelihood, the precisions :math:`P_0` before and P after the rows,
    and n the sum of the weights. MacKay (1992), "Bayesian interpolation", Neural Computation. The members' evidence is
    averaged.
    """
    cells = prior.design.shape[0]
    before = -(cells * prior.own.log().sum() + prior.shared.log().sum())
    left = (statistics.square - (statistics.moment * posterior.mean).sum((-2, -1))) / statistics.weight
    return float((0.5 * (before - posterior.logdet) - 0.5 * statistics.weight * left.clamp(min=1e-300).log()).mean())


def learn_scale(statistics: RegressionStatistics, design: Tensor, width: int, scale: float, guess: float) -> float:
    """Choose the prior scale of effects by the evidence, in steps of a factor 2.

    The logarithm of the scale has a normal prior centred at the initial guess, with a standard deviation of a factor 4,
    which bounds the scale where there are few rows or few actions.

    Args:
        statistics: Statistics of the observed rows; without rows the scale stays.
        design: Z of `Prior` (A, L).
        width: Number of features.
        scale: The last scale, in standard deviations of the noise; it moves by at most `MAX_SCALE_STEPS` steps.
        guess: The initial guess.
    """
    if not bool((statistics.weight > 0).all()):
        return scale

    def log_posterior(value: float) -> float:
        prior = Prior.build(design, width, value)
        fitted = fit(statistics, prior)
        return evidence(statistics, fitted, prior) - 0.5 * (math.log(value / guess) / math.log(4.0)) ** 2

    best = log_posterior(scale)
    for factor in (2.0, 0.5):
        moved = False
        for _ in range(MAX_SCALE_STEPS):
            candidate = scale * factor
            if not MIN_EFFECT_SCALE <= candidate <= MAX_EFFECT_SCALE or (here := log_posterior(candidate)) <= best:
                break
            scale, best, moved = candidate, here, True
        if moved:
            break
    return scale


def deviations(posterior: Posterior, prior: Prior, normals: Tensor) -> Tensor:
    """Sample deviations from the posterior mean (K, A, F), in units of the noise.

    Args:
        posterior: The posterior.
        prior: The prior it was fitted with.
        normals: Standard normal numbers (K, L + A, F).
    """
    z = prior.design
    count = z.shape[1]
    flat = normals[:, :count].reshape(len(normals), -1, 1)
    shared = torch.linalg.solve_triangular(posterior.system.T, flat, upper=True).reshape(len(normals), count, -1)
    own = torch.linalg.cholesky(posterior.inverse) @ normals[:, count:].unsqueeze(-1)
    through = posterior.inverse @ ((z @ shared) / prior.own).unsqueeze(-1)
    return torch.add(own, through).squeeze(-1)


class RefitSchedule:
    """A schedule for fits whose cost grows with the rows: the cost of all fits together stays proportional to the rows.

    Args:
        growth: A fit is due when the rows have grown by this factor since the last one.
    """

    def __init__(self, growth: float) -> None:
        self._growth = growth
        self._fitted = 0
        self._seen = 0

    def due(self, seen: int) -> bool:
        """Return whether to fit now that there are `seen` rows, and if so, count them as fitted.

        A second call without new rows makes a fit due if there are rows that the last fit did not include.
        """
        due = seen > self._fitted and (seen >= self._growth * self._fitted or seen == self._seen)
        self._seen = seen
        if due:
            self._fitted = seen
        return due

    def state_dict(self) -> dict[str, int]:
        """Return the number of rows at the last fit and at the last call."""
        return {"fitted": self._fitted, "seen": self._seen}

    def load_state_dict(self, state: Mapping[str, int]) -> None:
        """Restore what `state_dict` returned."""
        self._fitted, self._seen = int(state["fitted"]), int(state["seen"])
