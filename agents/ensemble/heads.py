"""Closed-form heads: Bayesian regressions of rewards on shared features, for all members and actions at once."""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Callable, Mapping
from dataclasses import dataclass, fields, replace

import torch
from torch import Tensor

ROWS_PER_CHUNK = 2048
GRAM_STRIPS = 3
ROUNDING_RIDGE = 1e-5


@dataclass(frozen=True)
class SufficientStatistics:
    """Sufficient statistics of weighted regressions, float64. All share leading dimensions (such as folds).

    Attributes:
        gram: Weighted sums of products of features (..., A, F, F).
        moment: Weighted sums of features times columns of targets (..., A, F, C).
        square: Weighted sum of squares of the first column (...,).
        rows: Number of rows, each multiplied by its discount for age (...,).
    """

    gram: Tensor
    moment: Tensor
    square: Tensor
    rows: Tensor

    @classmethod
    def zeros(cls, folds: int, actions: int, features: int, columns: int) -> SufficientStatistics:
        """Return the statistics of no rows."""
        shapes = (folds, actions, features, features), (folds, actions, features, columns), (folds,), (folds,)
        return cls(*(torch.zeros(shape, dtype=torch.float64) for shape in shapes))

    def __getitem__(self, fold: int) -> SufficientStatistics:
        return SufficientStatistics(self.gram[fold], self.moment[fold], self.square[fold], self.rows[fold])

    def __add__(self, other: SufficientStatistics) -> SufficientStatistics:
        return SufficientStatistics(
            self.gram + other.gram, self.moment + other.moment, self.square + other.square, self.rows + other.rows
        )

    def sum_folds(self, *, keepdim: bool = False) -> SufficientStatistics:
        """Return the sums over the first dimension, which stays with length 1 if `keepdim`."""
        return SufficientStatistics(*(getattr(self, f.name).sum(0, keepdim=keepdim) for f in fields(self)))

    def state_dict(self) -> dict[str, Tensor]:
        """Return the statistics, of each symmetric matrix the upper half row by row (..., A, F (F + 1) / 2)."""
        rows, columns = torch.triu_indices(*self.gram.shape[-2:])
        others = {name: getattr(self, name).clone() for name in ("moment", "square", "rows")}
        return {"gram": self.gram[..., rows, columns], **others}

    @classmethod
    def from_state_dict(cls, state: Mapping[str, Tensor]) -> SufficientStatistics:
        """Restore what `state_dict` returned."""
        half, moment = state["gram"], state["moment"].clone()
        features = moment.shape[-2]
        rows, columns = torch.triu_indices(features, features)
        gram = half.new_empty(*half.shape[:-1], features, features)
        gram[..., rows, columns] = gram[..., columns, rows] = half
        return cls(gram, moment, state["square"].clone(), state["rows"].clone())

    def discount(self, factor: float) -> None:
        """Multiply all statistics by a factor, in place, so that the rows so far count for less."""
        for part in (self.gram, self.moment, self.square, self.rows):
            part.mul_(factor)


def add_rows(
    statistics: SufficientStatistics,
    features: Callable[[Tensor, Tensor], object],
    x: Tensor,
    targets: Tensor,
    weight: Tensor,
    age_weight: Tensor,
    counts: Tensor,
    dtype: torch.dtype | None = None,
) -> None:
    """Add rows to the statistics of their fold and action, in place, in chunks that fit in the cache.

    Features and targets stand side by side in one matrix, so that a chunk's contribution to a cell is one product.
    Because the Gram matrix is symmetric, the product is computed in `GRAM_STRIPS` strips that skip most of one half.

    Args:
        statistics: Statistics with folds as their first dimension.
        features: Writes the features (n, F) of contexts (n, D) into its second argument.
        x: Contexts (N, D). Rows come in the order of their folds and, within them, of their actions.
        targets: Columns of targets (N, C).
        weight: Weights of the rows (N,), including the factor for their age.
        age_weight: Factor for the age of each row (N,), 1 without discounting.
        counts: Number of rows of each fold and action (folds, A).
        dtype: Precision of the sums within a chunk, by default that of the targets; chunks are added in double.
    """
    width = statistics.gram.shape[-1]
    strips = torch.arange(width).chunk(GRAM_STRIPS)
    dtype = dtype or targets.dtype
    root = weight.to(dtype).sqrt().unsqueeze(1)
    space = torch.empty(ROWS_PER_CHUNK, width + targets.shape[1], dtype=dtype)
    ends = counts.flatten().cumsum(0).tolist()
    for start in range(0, len(x), ROWS_PER_CHUNK):
        rows = slice(start, start + ROWS_PER_CHUNK)
        both = space[: len(x[rows])]
        features(x[rows], both[:, :width])
        both[:, width:] = targets[rows]
        both.mul_(root[rows])
        end = start
        while end < start + len(both):
            cell, begin = bisect_right(ends, end), end
            end = min(ends[cell], start + len(both))
            place, own = divmod(cell, counts.shape[1]), both[begin - start : end - start]
            for strip in strips:
                first, last = int(strip[0]), int(strip[-1]) + 1
                found = own[:, first:last].t() @ own[:, first:]
                statistics.gram[place][first:last, first:] += found[:, : width - first]
                statistics.moment[place][first:last] += found[:, width - first :]
            statistics.square[place[0]] += own[:, width].square().sum()
    for strip in strips:
        first, last = int(strip[0]), int(strip[-1]) + 1
        statistics.gram[..., last:, first:last] = statistics.gram[..., first:last, last:].transpose(-1, -2)
        block = statistics.gram[..., first:last, first:last]
        block.copy_(block.triu() + block.triu(1).transpose(-1, -2))
    statistics.rows.add_(torch.stack([each.double().sum() for each in torch.split(age_weight, counts.sum(1).tolist())]))


@dataclass(frozen=True)
class FeatureScaler:
    """A scaler to features with mean 0 and, for each block but the intercept, variances that add up to 1.

    The prior variance of a coefficient is then the variance of the rewards that its block explains, whatever the width.

    Attributes:
        mean: Subtracted first (F,), 0 for the intercept.
        scale: Multiplied afterwards (F,), 1 for the intercept.
    """

    mean: Tensor
    scale: Tensor

    @classmethod
    def fit(cls, gram: Tensor, blocks: Tensor) -> FeatureScaler:
        """Fit to the Gram matrix of the features (F, F), of which the first is 1, and each feature's block (F,)."""
        n = gram[0, 0].clamp_min(1e-12)
        mean, square = gram[0] / n, gram.diagonal() / n

        def total(each: Tensor) -> Tensor:
            return torch.zeros(int(blocks.max()) + 1, dtype=gram.dtype).index_add_(0, blocks, each)

        # A lower bound for blocks that hardly vary, where scaling up would amplify the rounding errors of the sums.
        variance = torch.maximum(total(square - mean.square()), 0.05 * total(square)).clamp_min(1e-8)
        scale = variance.rsqrt()[blocks]
        scale[0], mean[0] = 1.0, 0.0
        return cls(mean, scale)

    def transform(self, statistics: SufficientStatistics) -> SufficientStatistics:
        """Return the statistics of the scaled features."""
        mean, scale, gram, moment = self.mean, self.scale, statistics.gram, statistics.moment
        first = gram[..., 0]
        shift = first.unsqueeze(-1) * mean
        centred = gram - shift - shift.transpose(-1, -2) + gram[..., :1, :1] * torch.outer(mean, mean)
        return replace(
            statistics,
            gram=centred * torch.outer(scale, scale),
            moment=(moment - mean.unsqueeze(1) * moment[..., :1, :]) * scale.unsqueeze(1),
        )

    def unscale(self, coefficients: Tensor) -> Tensor:
        """Return coefficients (..., F, C) of the scaled features as those of the unscaled ones."""
        out = coefficients * self.scale.unsqueeze(1)
        out[..., 0, :] -= (out * self.mean.unsqueeze(1)).sum(-2)
        return out


@dataclass(frozen=True)
class Prior:
    """The prior of the coefficients and the noise.

    An action's coefficients are the sum of a part that is common to all actions and the action's own part, both normal
    with mean 0, so that actions share what holds for all of them. Variances are in units of the noise (the conjugate
    prior), so that the best estimate does not depend on the size of the noise.

    Attributes:
        guess: Initial variance of the coefficients, in units of the noise.
        variance: Learned variances of the coefficients of each block, common and own (2, B), in units of the noise.
        noise: Variance of a row of weight 1 around its expected reward, in standardised rewards.
    """

    guess: float
    variance: Tensor
    noise: float = 1.0


def solve(
    statistics: SufficientStatistics,
    prior: Prior,
    blocks: Tensor,
    common_start: Tensor | float = 0.0,
    own_start: Tensor | float = 0.0,
    design: Tensor | None = None,
) -> Tensor:
    r"""Solve for the coefficients (A, F, C) of every column of targets.

    .. math::
        \min_{t, d} \sum_a \sum_{i: a_i = a} w_i (r_i - \phi_i^\top (t + d_a))^2
        + |t - t^0|^2_{\Lambda_0} + \sum_a |d_a - d_a^0|^2_{\Lambda_1}

    Columns share their features and weights, and so one factorisation for each action. Writing :math:`M_a = G_a +
    \Lambda_1` and :math:`v_a = M_a^{-1} (b_a + \Lambda_1 d_a^0)`, the common part solves :math:`(\Lambda_0 + \sum_a
    (\Lambda_1 - \Lambda_1 M_a^{-1} \Lambda_1)) t = \Lambda_0 t^0 + \Lambda_1 \sum_a (v_a - d_a^0)`, and :math:`t + d_a
    = v_a + M_a^{-1} \Lambda_1 t`.

    With a design Z the common part is :math:`t + \sum_l Z_{al} g_l` instead, where g belongs to properties that actions
    share, such as labels. The block of the network has no g. For the other blocks half of the own variance is that of
    g, so that an action whose row of Z has length 1 has the same prior distance from t as without Z.

    Args:
        statistics: Statistics of all rows, without a fold dimension.
        prior: Variances of the coefficients; the noise matters only as their unit.
        blocks: Block of each feature (F,), the network's block last.
        common_start: Prior means of the common part (F, C), and below them those of g (L P, C) if there is a design, in
            prior standard deviations; P is the number of features outside the network's block.
        own_start: Prior means of the own parts (A, F, C), in prior standard deviations.
        design: Z (A, L).
    """
    if design is not None:
        prior = _halved(prior)
    common, own = (variance[blocks].unsqueeze(1) for variance in prior.variance)
    covariance = inverse(own_precision(statistics, prior, blocks))
    start = own_start * own.sqrt()
    alone = covariance @ (statistics.moment + start / own)
    left, pulls = marginal_information(covariance.sum(0), own[:, 0], len(covariance)), (alone - start) / own
    right = pulls.sum(0)
    if design is not None:
        p = untrained(blocks)
        left = _with_design(left, torch.diag_embed(1 / own[:, 0]) - covariance / own / own.t(), design, p)
        right = torch.cat([right, torch.einsum("al,apc->lpc", design, pulls[:, :p]).flatten(0, 1)])
        common = torch.cat([common, own[:p].repeat(design.shape[1], 1)])
    left = torch.diag(1 / common[:, 0]) + left
    right = common_start * common.rsqrt() + right
    shared = torch.linalg.solve(left, right)
    coefficients: Tensor = alone + covariance @ (shared[: len(own)] / own)
    if design is not None:
        part = torch.einsum("al,lpc->apc", design, shared[len(own) :].unflatten(0, (-1, p)))
        coefficients = coefficients + covariance[..., :p] @ (part / own[:p])
    return coefficients


def untrained(blocks: Tensor) -> int:
    """Return the number of features before the network's block, which is the last (F,)."""
    return int((blocks < blocks.max()).sum())


def _halved(prior: Prior) -> Prior:
    """Halve the own variance of every block but the network's."""
    variance = prior.variance.clone()
    variance[1, :-1] /= 2.0
    return replace(prior, variance=variance)


def _with_design(common: Tensor, each: Tensor, design: Tensor, p: int) -> Tensor:
    """Return the information of the rows about the common part and g (F + L P, F + L P).

    Args:
        common: Information about the common part (F, F).
        each: Information of each action's rows (A, F, F).
        design: Z (A, L).
        p: Number of features of g (P).
    """
    side = torch.einsum("al,afp->flp", design, each[..., :p]).flatten(1)
    corner = torch.einsum("ak,al,apq->kplq", design, design, each[:, :p, :p]).flatten(2).flatten(0, 1)
    return torch.cat([torch.cat([common, side], 1), torch.cat([side.t(), corner], 1)])


def own_precision(statistics: SufficientStatistics, prior: Prior, blocks: Tensor) -> Tensor:
    """Return the precisions (A, F, F) of the actions' own parts given the common part, in units of the noise."""
    precision = statistics.gram.clone()
    ridge = ROUNDING_RIDGE * statistics.gram[:, 0, 0, None]
    precision.diagonal(dim1=-2, dim2=-1).add_(1 / prior.variance[1, blocks] + ridge)
    return precision


def inverse(matrix: Tensor) -> Tensor:
    """Invert symmetric positive definite matrices (..., F, F)."""
    return torch.cholesky_inverse(torch.linalg.cholesky(matrix))


def marginal_information(total: Tensor, own: Tensor, actions: int) -> Tensor:
    """Return the information of the rows about the common part (F, F), with the own parts integrated out.

    Args:
        total: Sum over actions of the own parts' covariances given the common part (F, F).
        own: Prior variances of the own parts (F,).
        actions: Number of actions.
    """
    return torch.diag(actions / own) - total / torch.outer(own, own)
