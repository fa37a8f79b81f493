"""Closed-form heads: Bayesian regressions of rewards on shared features, for all members and actions at once."""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace

import torch
from torch import Tensor

CHUNK = 2048
STRIPS = 3
ROUNDING = 1e-5


@dataclass(frozen=True)
class Sums:
    """Sufficient statistics of weighted regressions, float64. All share leading dimensions (such as folds).

    Attributes:
        gram: Weighted sums of products of features (..., A, F, F).
        moment: Weighted sums of features times columns of targets (..., A, F, C).
        square: Weighted sum of squares of the first column (...,).
        rows: Rows, each counting as much as it has not been forgotten (...,).
    """

    gram: Tensor
    moment: Tensor
    square: Tensor
    rows: Tensor

    @classmethod
    def empty(cls, folds: int, actions: int, features: int, columns: int) -> Sums:
        """Of no rows."""
        shapes = (folds, actions, features, features), (folds, actions, features, columns), (folds,), (folds,)
        return cls(*(torch.zeros(shape, dtype=torch.float64) for shape in shapes))

    def __getitem__(self, fold: int) -> Sums:
        return Sums(self.gram[fold], self.moment[fold], self.square[fold], self.rows[fold])

    def __add__(self, other: Sums) -> Sums:
        return Sums(
            self.gram + other.gram, self.moment + other.moment, self.square + other.square, self.rows + other.rows
        )

    def state_dict(self) -> dict[str, Tensor]:
        """The sums, of each symmetric matrix the upper half row by row (..., A, F (F + 1) / 2)."""
        rows, columns = torch.triu_indices(*self.gram.shape[-2:])
        others = {name: getattr(self, name).clone() for name in ("moment", "square", "rows")}
        return {"gram": self.gram[..., rows, columns], **others}

    @classmethod
    def from_state_dict(cls, state: Mapping[str, Tensor]) -> Sums:
        """The inverse of `state_dict`."""
        half, moment = state["gram"], state["moment"].clone()
        features = moment.shape[-2]
        rows, columns = torch.triu_indices(features, features)
        gram = half.new_empty(*half.shape[:-1], features, features)
        gram[..., rows, columns] = gram[..., columns, rows] = half
        return cls(gram, moment, state["square"].clone(), state["rows"].clone())

    def fade(self, share: float) -> None:
        """Keeps that share of everything, in place: what is older counts for less."""
        for part in (self.gram, self.moment, self.square, self.rows):
            part.mul_(share)


def add_rows(
    sums: Sums,
    features: Callable[[Tensor, Tensor], object],
    x: Tensor,
    targets: Tensor,
    weight: Tensor,
    memory: Tensor,
    counts: Tensor,
) -> None:
    """Adds rows to the sums of their fold and action, in place, in chunks that stay in cache.

    Features and targets stand side by side, so that what a chunk adds to a cell is one product, but for the half of it
    that is known by symmetry: it is made in `STRIPS`, each without what the ones before it have.

    Args:
        sums: Sums with folds as their first dimension.
        features: Writes the features (n, F) of contexts (n, D) into its second argument.
        x: Contexts (N, D). Rows come in the order of their folds and, within them, of their actions.
        targets: Columns of targets (N, C).
        weight: Weights of the rows (N,), memory included.
        memory: How much each row counts as a row (N,): 1 unless it is being forgotten.
        counts: Rows of each fold and action (folds, A).
    """
    width = sums.gram.shape[-1]
    strips = torch.arange(width).chunk(STRIPS)
    root = weight.sqrt().unsqueeze(1)
    space = targets.new_empty(CHUNK, width + targets.shape[1])
    ends = counts.flatten().cumsum(0).tolist()
    for start in range(0, len(x), CHUNK):
        rows = slice(start, start + CHUNK)
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
                sums.gram[place][first:last, first:] += found[:, : width - first]
                sums.moment[place][first:last] += found[:, width - first :]
            sums.square[place[0]] += own[:, width].square().sum()
    upper = sums.gram.triu()
    torch.add(upper, upper.triu(1).transpose(-1, -2), out=sums.gram)
    sums.rows.add_(torch.stack([each.double().sum() for each in torch.split(memory, counts.sum(1).tolist())]))


@dataclass(frozen=True)
class Coordinates:
    """Features with mean 0 and, for each block but the intercept, variances that add up to 1.

    A coefficient's prior variance then is the variance of the rewards that its block explains, whatever its width.

    Attributes:
        mean: Subtracted first (F,), 0 for the intercept.
        scale: Multiplied then (F,), 1 for the intercept.
    """

    mean: Tensor
    scale: Tensor

    @classmethod
    def of(cls, gram: Tensor, blocks: Tensor) -> Coordinates:
        """From sums of products of the features (F, F), of which the first is 1, and each one's block (F,)."""
        n = gram[0, 0].clamp_min(1e-12)
        mean, square = gram[0] / n, gram.diagonal() / n

        def total(each: Tensor) -> Tensor:
            return torch.zeros(int(blocks.max()) + 1, dtype=gram.dtype).index_add_(0, blocks, each)

        # A block that hardly varies must not be blown up: it would be mostly rounding errors of the sums.
        spread = torch.maximum(total(square - mean.square()), 0.05 * total(square)).clamp_min(1e-8)
        scale = spread.rsqrt()[blocks]
        scale[0], mean[0] = 1.0, 0.0
        return cls(mean, scale)

    def apply(self, sums: Sums) -> Sums:
        """The sums of the features in these coordinates."""
        mean, scale, gram, moment = self.mean, self.scale, sums.gram, sums.moment
        first = gram[..., 0]
        shift = first.unsqueeze(-1) * mean
        centred = gram - shift - shift.transpose(-1, -2) + gram[..., :1, :1] * torch.outer(mean, mean)
        return replace(
            sums,
            gram=centred * torch.outer(scale, scale),
            moment=(moment - mean.unsqueeze(1) * moment[..., :1, :]) * scale.unsqueeze(1),
        )

    def back(self, coefficients: Tensor) -> Tensor:
        """Coefficients (..., F, C) in these coordinates, as those of the features as they are."""
        out = coefficients * self.scale.unsqueeze(1)
        out[..., 0, :] -= (out * self.mean.unsqueeze(1)).sum(-2)
        return out


@dataclass(frozen=True)
class Prior:
    """What coefficients and noise are before any data.

    An action's coefficients are a part common to all actions plus its own deviation, both normal with mean 0: what
    holds for all actions need not be learned again for each. Their variances are in units of the noise (the conjugate
    prior), so that the best estimate does not depend on how large that is.

    Attributes:
        guess: Variance of the coefficients before any data, in units of the noise.
        variance: Variances of the coefficients of each block, common and own (2, B), in units of the noise, as learned.
        noise: Variance of a row of weight 1 around its expected reward, in standardised rewards.
    """

    guess: float
    variance: Tensor
    noise: float = 1.0


def solve(
    sums: Sums,
    prior: Prior,
    blocks: Tensor,
    common_start: Tensor | float = 0.0,
    own_start: Tensor | float = 0.0,
    design: Tensor | None = None,
) -> Tensor:
    r"""Coefficients (A, F, C) of every column of targets.

    .. math::
        \min_{t, d} \sum_a \sum_{i: a_i = a} w_i (r_i - \phi_i^\top (t + d_a))^2
        + |t - t^0|^2_{\Lambda_0} + \sum_a |d_a - d_a^0|^2_{\Lambda_1}

    Columns share their features and weights, and so one factorisation for each action. Writing :math:`M_a = G_a +
    \Lambda_1` and :math:`v_a = M_a^{-1} (b_a + \Lambda_1 d_a^0)`, the common part solves :math:`(\Lambda_0 + \sum_a
    (\Lambda_1 - \Lambda_1 M_a^{-1} \Lambda_1)) t = \Lambda_0 t^0 + \Lambda_1 \sum_a (v_a - d_a^0)`, and :math:`t + d_a
    = v_a + M_a^{-1} \Lambda_1 t`.

    With a design Z the common part is :math:`t + \sum_l Z_{al} g_l` instead: what actions share that have something in
    common. The trained block has no g. Of the other blocks half of the own variance is that of g, so that an action
    whose row of Z is of length 1 is believed to lie as far from t as without Z.

    Args:
        sums: Sums over the rows, without a fold dimension.
        prior: Variances of the coefficients; of the noise only the unit matters.
        blocks: The block that each feature belongs to (F,), the trained one last.
        common_start: Means of the common part (F, C), and below them those of g (L P, C) if there is a design, in prior
            standard deviations; P is the number of untrained features.
        own_start: Means of the own parts (A, F, C), in prior standard deviations.
        design: What actions have in common (A, L).
    """
    if design is not None:
        prior = _halved(prior)
    common, own = (variance[blocks].unsqueeze(1) for variance in prior.variance)
    covariance = inverse(own_precision(sums, prior, blocks))
    start = own_start * own.sqrt()
    alone = covariance @ (sums.moment + start / own)
    left, pulls = marginal(covariance.sum(0), own[:, 0], len(covariance)), (alone - start) / own
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
    """How many features there are before the trained block, which is the last (F,)."""
    return int((blocks < blocks.max()).sum())


def _halved(prior: Prior) -> Prior:
    """The same with half of the own variance of every block but the trained one."""
    variance = prior.variance.clone()
    variance[1, :-1] /= 2.0
    return replace(prior, variance=variance)


def _with_design(common: Tensor, each: Tensor, design: Tensor, p: int) -> Tensor:
    """What the rows say of the common part and of g (F + L P, F + L P).

    Args:
        common: What they say of the common part (F, F).
        each: What those of each action say (A, F, F).
        design: What actions have in common (A, L).
        p: Features that g has (P).
    """
    side = torch.einsum("al,afp->flp", design, each[..., :p]).flatten(1)
    corner = torch.einsum("ak,al,apq->kplq", design, design, each[:, :p, :p]).flatten(2).flatten(0, 1)
    return torch.cat([torch.cat([common, side], 1), torch.cat([side.t(), corner], 1)])


def own_precision(sums: Sums, prior: Prior, blocks: Tensor) -> Tensor:
    """Precisions (A, F, F) of the actions' own parts, given the common one, in units of the noise."""
    precision = sums.gram.clone()
    precision.diagonal(dim1=-2, dim2=-1).add_(1 / prior.variance[1, blocks] + ROUNDING * sums.gram[:, 0, 0, None])
    return precision


def inverse(matrix: Tensor) -> Tensor:
    """Inverses of symmetric positive definite matrices (..., F, F)."""
    return torch.cholesky_inverse(torch.linalg.cholesky(matrix))


def marginal(total: Tensor, own: Tensor, actions: int) -> Tensor:
    """What the rows say of the common part (F, F), the actions' own parts integrated out.

    Args:
        total: Sum over actions of the own parts' covariances, given the common one (F, F).
        own: Prior variances of the own parts (F,).
        actions: How many there are.
    """
    return torch.diag(actions / own) - total / torch.outer(own, own)
