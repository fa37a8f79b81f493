"""The units of rewards: their mean and scale, and the limit to which rewards with heavy tails are clipped."""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from torch import Tensor

from crosschannel.agents.ensemble.noise import subsample

MAX_SHARE = 0.1
MAX_SHIFT = 3.0
MIN_ROWS_OF_SIGN, MIN_SHARE_OF_SIGN = 5, 0.15
MIN_SCALE = 1e-8


@dataclass(frozen=True)
class RewardUnits:
    """What standardised rewards are measured in.

    Attributes:
        mean: The rewards' precision-weighted mean.
        scale: Their standard deviation.
        limit: Largest standardised reward of a row with average noise; larger ones are clipped.
    """

    mean: float = 0.0
    scale: float = 1.0
    limit: float = float("inf")

    @classmethod
    def fit(
        cls, reward: Tensor, deviation: Tensor, weight: Tensor, age_weight: Tensor, cell: Tensor, coefficients: int
    ) -> RewardUnits:
        """Fit the units to rows.

        Args:
            reward: Rewards (n,).
            deviation: Standard deviations of the rewards' noise (n,), 1 for a row of average noise.
            weight: Weights of the rows (n,) by their precision.
            age_weight: Factor for the age of each row (n,).
            cell: The action of each row (n,), or cell of the module's table.
            coefficients: Number of coefficients that the rows determine.
        """
        reward, weight = reward.double(), (weight * age_weight).double()
        centre, some = reward.median(), subsample(len(reward))
        error = (reward - centre) / deviation
        share = len(error[some]) / len(error)
        limit = clip_limit(error[some], cell[some], age_weight[some], share * coefficients)
        if math.isfinite(limit):
            reward = centre + deviation * error.clamp(-limit, limit)
        mean = (weight * reward).sum() / weight.sum()
        scale = ((weight * (reward - mean).square()).sum() / weight.sum()).sqrt().clamp_min(MIN_SCALE)
        return cls(float(mean), float(scale), limit / float(scale))

    def standardise(self, reward: Tensor, deviation: Tensor) -> Tensor:
        """Return standardised rewards (n,), clipped at the limit times the standard deviations of their noise (n,)."""
        return ((reward - self.mean) / self.scale).clamp(-self.limit * deviation, self.limit * deviation)


def clip_limit(error: Tensor, cell: Tensor, weight: Tensor, coefficients: float) -> float:
    r"""Return the limit :math:`\tau` beyond which errors (n,) are clipped, or infinity.

    .. math:: \sum_i w_i \min(e_i^2 / \tau^2, 1) = \min(p, \, 0.1 \textstyle\sum_i w_i)

    This limit grows with the rows, so that the bias of a clipped mean stays below its standard error for any
    distribution with a finite variance, while the standard error is nearly that for normal errors: adaptive Huber
    regression with p coefficients (Sun, Zhou & Fan 2020, JASA; the equation is that of Wang, Zheng, Zhou & Zhou 2021,
    "A new principle for tuning-free Huber regression", Statistica Sinica). Light tails are not clipped.

    Where large rewards are rare and of one sign, such as orders, their sum is what matters. No reward is therefore
    clipped if what would be clipped off has a sign: if it is of five rows or more of which less than 15 % have the
    other sign, or if its sum, or the difference between its positive and negative rows, differs from 0 by more than
    three standard errors over all rows, or clearly in a cell.

    Args:
        error: Deviations of the rewards from their median (n,), in standard deviations of their noise.
        cell: The action of each row (n,), or cell of the module's table.
        weight: Factor for the age of each row (n,).
        coefficients: Number of coefficients p that the rows determine.
    """
    error, weight = error.double(), weight.double()
    size, order = error.abs().sort()
    w = weight[order]
    total = float(w.sum())
    below = torch.cumsum(w * size.square(), 0)
    above = total - torch.cumsum(w, 0)
    allowed = min(coefficients, MAX_SHARE * total)
    fits = (below + (above - allowed) * size.square() <= 0) & (size > 0)  # the limit is at most |e_i|
    if not bool(fits.any()):
        return float("inf")
    first = int(fits.byte().argmax())
    inside, outside = below[first] - w[first] * size[first].square(), above[first] + w[first]
    limit = float((inside / (allowed - outside)).clamp_min(0.0).sqrt())
    # If so few errors differ from 0 that the equation has no solution, the limit is 0.
    clips = limit > 0 and _is_balanced(error - error.clamp(-limit, limit), cell, weight)
    return limit if clips else float("inf")


def _is_balanced(excess: Tensor, cell: Tensor, weight: Tensor) -> bool:
    """Return whether what is clipped off has no sign, by its sum and by its rows, over all rows and in each cell."""
    positive, negative = (float(weight[part].sum()) for part in (excess > 0, excess < 0))
    clipped = positive + negative
    if clipped >= MIN_ROWS_OF_SIGN and min(positive, negative) < MIN_SHARE_OF_SIGN * clipped:
        return False
    sums = torch.zeros(4, 1 + int(cell.max()) + 1, dtype=torch.float64)
    for place, values in enumerate((weight * excess, weight * excess.sign())):
        sums[2 * place, 1:].index_add_(0, cell, values)
        sums[2 * place + 1, 1:].index_add_(0, cell, values.square())
    sums[:, 0] = sums.sum(1)
    most = torch.full((sums.shape[1],), MAX_SHIFT**2 + 2.0 * math.log(sums.shape[1]), dtype=torch.float64)
    most[0] = MAX_SHIFT**2
    return bool((sums[0::2].square() <= most * sums[1::2]).all())
