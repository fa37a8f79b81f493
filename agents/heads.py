"""Closed-form heads: Bayesian regressions of rewards on shared features, for all members and actions at once."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace

import torch
from torch import Tensor

CHUNK = 2048
SMALLEST, LARGEST = 1e-3, 2.0
PSEUDO = 0.1
ROUNDING = 1e-5
LEAST_NOISE = 0.05
ENOUGH = 500
NEGLIGIBLE = 0.02
CONVINCING = 4.0
TRUSTS = tuple(4.0**power for power in range(-6, 1))
# Of the blocks [1, x, |x|, h], common part and own: what is trusted as far as it predicts held-out rows.
NETWORK = torch.tensor([[False, False, False, True], [False, False, False, True]])
CURVES = torch.tensor([[False, False, False, False], [False, False, True, False]])


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

    def fade(self, share: float) -> None:
        """Keeps that share of everything, in place: what is older counts for less."""
        for part in (self.gram, self.moment, self.square, self.rows):
            part.mul_(share)

    def first(self) -> Sums:
        """The same with the first column of targets only."""
        return replace(self, moment=self.moment[..., :1])


def add_rows(
    sums: Sums,
    features: Callable[[Tensor, Tensor], object],
    x: Tensor,
    action: Tensor,
    targets: Tensor,
    weight: Tensor,
    memory: Tensor,
    fold: Tensor,
) -> None:
    """Adds rows to the sums of their fold and action, in place, in chunks that stay in cache.

    Rows are brought into the order of their cells, and features and targets stand side by side, so that what a chunk
    adds to a cell is one product.

    Args:
        sums: Sums with folds as their first dimension.
        features: Writes the features (n, F) of contexts (n, D) into its second argument.
        x: Contexts (N, D).
        action: Codes of the taken actions (N,).
        targets: Columns of targets (N, C).
        weight: Weights of the rows (N,), memory included.
        memory: How much each row counts as a row (N,): 1 unless it is being forgotten.
        fold: Each row's fold (N,).
    """
    folds, actions, width, _ = sums.gram.shape
    cell = fold * actions + action
    order = torch.argsort(cell, stable=True)
    ends = torch.bincount(cell, minlength=folds * actions).cumsum(0).tolist()
    root = weight.sqrt().unsqueeze(1)
    space = targets.new_empty(CHUNK, width + targets.shape[1])
    here = 0
    for start in range(0, len(order), CHUNK):
        part = order[start : start + CHUNK]
        both = space[: len(part)]
        features(x.index_select(0, part), both[:, :width])
        both[:, width:] = targets.index_select(0, part)
        both.mul_(root.index_select(0, part))
        end = start + len(part)
        while start < end:
            while ends[here] <= start:
                here += 1
            own, start = both[start - end :][: ends[here] - start], min(ends[here], end)
            place = divmod(here, actions)
            found = own[:, :width].t() @ own
            sums.gram[place] += found[:, :width]
            sums.moment[place] += found[:, width:]
            sums.square[place[0]] += own[:, width].square().sum()
    sums.rows.index_add_(0, fold, memory.double())


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
    holds for all actions need not be learned again for each.

    Attributes:
        guess: Variance of the coefficients before any data, in standardised rewards.
        variance: Variances of the coefficients of each block, common and own (2, B), as learned.
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
        \min_{t, d} \frac{1}{\sigma^2} \sum_a \sum_{i: a_i = a} w_i (r_i - \phi_i^\top (t + d_a))^2
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
        prior: Variances of coefficients and noise.
        blocks: The block that each feature belongs to (F,), the trained one last.
        common_start: Means of the common part (F, C), and below them those of g (L P, C) if there is a design, in prior
            standard deviations; P is the number of untrained features.
        own_start: Means of the own parts (A, F, C), in prior standard deviations.
        design: What actions have in common (A, L).
    """
    if design is not None:
        prior = _halved(prior)
    common, own = (variance[blocks].unsqueeze(1) for variance in prior.variance)
    inverse = _inverse(sums, prior, blocks)
    start = own_start * own.sqrt()
    alone = inverse @ (sums.moment / prior.noise + start / own)
    left, pulls = _marginal(inverse, own), (alone - start) / own
    right = pulls.sum(0)
    if design is not None:
        p = untrained(blocks)
        left = _with_design(left, torch.diag_embed(1 / own[:, 0]) - inverse / own / own.t(), design, p)
        right = torch.cat([right, torch.einsum("al,apc->lpc", design, pulls[:, :p]).flatten(0, 1)])
        common = torch.cat([common, own[:p].repeat(design.shape[1], 1)])
    left = torch.diag(1 / common[:, 0]) + left
    right = common_start * common.rsqrt() + right
    shared = torch.linalg.solve(left, right)
    coefficients: Tensor = alone + inverse @ (shared[: len(own)] / own)
    if design is not None:
        part = torch.einsum("al,lpc->apc", design, shared[len(own) :].unflatten(0, (-1, p)))
        coefficients = coefficients + inverse[..., :p] @ (part / own[:p])
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


def _inverse(sums: Sums, prior: Prior, blocks: Tensor) -> Tensor:
    """Covariances (A, F, F) of the actions' own parts, given the common one."""
    ridge = 1 / prior.variance[1, blocks] + ROUNDING * sums.gram[:, 0, 0, None] / prior.noise
    precision = sums.gram / prior.noise
    precision.diagonal(dim1=-2, dim2=-1).add_(ridge)
    return torch.cholesky_inverse(torch.linalg.cholesky(precision))


def _marginal(inverse: Tensor, own: Tensor) -> Tensor:
    """What the rows say of the common part (F, F), the actions' own parts integrated out; `own` is (F, 1)."""
    return len(inverse) * torch.diag(1 / own[:, 0]) - inverse.sum(0) / own / own.t()


def learn_scales(sums: Sums, prior: Prior, blocks: Tensor, steps: int) -> Prior:
    r"""Prior variances and noise by maximum evidence, of first columns of targets.

    .. math::
        \lambda_b \leftarrow \frac{|\theta_b|^2}{\gamma_b}, \qquad
        \gamma_b = n_b - \mathrm{tr}(\Sigma_b) / \lambda_b, \qquad
        \sigma^2 \leftarrow \frac{\sum_i w_i (r_i - \phi_i^\top \theta)^2}{n - \sum_b \gamma_b}

    :math:`\gamma_b` is how many of a block's :math:`n_b` coefficients the data determine (MacKay 1992, "Bayesian
    interpolation", Neural Computation). Expectation maximisation has the same fixed point, but was still far from it
    after thirty steps. The guess counts as `PSEUDO` coefficients more. What `trust` chooses stays.
    Ends where no scale changes by more than 10 %, `NEGLIGIBLE` added to each: a block that fades out takes long to.
    """
    size = torch.bincount(blocks, minlength=prior.variance.shape[1]).double()
    actions = len(sums.gram)

    def total(each: Tensor) -> Tensor:
        return torch.zeros_like(size).index_add_(0, blocks, each)

    for _ in range(steps):
        variance = prior.variance
        common, own = (each[blocks].unsqueeze(1) for each in variance)
        inverse = _inverse(sums, prior, blocks)
        covariance = torch.cholesky_inverse(
            torch.linalg.cholesky(torch.diag(1 / common[:, 0]) + _marginal(inverse, own))
        )
        moment = sums.moment[..., :1] / prior.noise
        alone = inverse @ moment
        shared = covariance @ (alone / own).sum(0)
        moved = torch.eye(len(blocks), dtype=torch.float64) - inverse / own.t()
        deviation = alone - moved @ shared
        spread = inverse.diagonal(dim1=1, dim2=2) + ((moved @ covariance) * moved).sum(2)
        determined = torch.stack(
            [size - total(covariance.diagonal()) / variance[0], actions * size - total(spread.sum(0)) / variance[1]]
        ).clamp_min(0.0)
        squares = torch.stack([total(shared[:, 0].square()), total(deviation[..., 0].square().sum(0))])
        found = ((squares + PSEUDO * prior.guess) / (determined + PSEUDO)).clamp(SMALLEST**2, LARGEST**2)
        found = torch.where(NETWORK | CURVES, variance, found)
        noise = prior.noise
        if sums.rows > ENOUGH:
            left = float(sums.square) + squared_error(sums, shared + deviation)
            noise = max(left / max(float(sums.rows - determined.sum()), 1.0), LEAST_NOISE)
        prior = replace(prior, variance=found, noise=noise)
        change = ((found.sqrt() + NEGLIGIBLE) / (variance.sqrt() + NEGLIGIBLE)).log().abs().max()
        if float(change) < 0.1:
            break
    return prior


def squared_error(sums: Sums, coefficients: Tensor) -> float:
    """Weighted squared error of coefficients (A, F, 1) on rows known by their sums, less that of estimating 0."""
    fitted = coefficients * (sums.gram @ coefficients - 2.0 * sums.moment[..., :1])
    return float(fitted.sum())


def trust(train: Sums, held_out: Sums, prior: Prior, blocks: Tensor, which: Tensor) -> Prior:
    """The prior with that variance of some parts, of `TRUSTS`, which predicts held-out rows best.

    The evidence cannot choose it for the trained block: the hidden layer has seen the rewards of the rows that its head
    is fitted to, and would be trusted far too much where rewards are noisy. Held out are rows that the network has not
    been trained on. Where rewards are nearly all noise, any variance overfits a little, and what is gained by it is
    lost in the choice: unless the best one is `CONVINCING`, the parts keep the smallest.

    Args:
        train: Sums over the rows that the network was trained on.
        held_out: Sums over the others.
        prior: The prior.
        blocks: The block that each feature belongs to (F,).
        which: The parts whose variance is chosen, common and own (2, B).
    """

    def at(value: float) -> Prior:
        return replace(prior, variance=prior.variance.masked_fill(which, value))

    def error(value: float) -> float:
        return squared_error(held_out, solve(train.first(), at(value), blocks))

    none = error(SMALLEST**2)
    chosen, best = SMALLEST**2, float("inf")
    for value in TRUSTS:
        if (found := error(value)) >= best:
            break
        chosen, best = value, found
    # Half a squared error in units of the noise is a log likelihood.
    return at(chosen if none - best > 2.0 * CONVINCING * prior.noise else SMALLEST**2)
