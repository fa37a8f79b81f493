"""Rewards with heavy tails: the limit to which they are clipped, from the rows' number and their distribution."""

from __future__ import annotations

import torch
from torch import Tensor

MAX_SHARE = 0.1
MAX_SHIFT = 3.0


def clip_limit(error: Tensor, cell: Tensor, weight: Tensor, coefficients: int) -> float:
    r"""Return the limit :math:`\tau` beyond which errors (n,) are clipped, or infinity.

    .. math:: \sum_i w_i \min(e_i^2 / \tau^2, 1) = \min(p, \, 0.1 \textstyle\sum_i w_i)

    This limit grows with the rows, so that the bias of a clipped mean stays below its standard error for any
    distribution with a finite variance, while the standard error is nearly that for normal errors: adaptive Huber
    regression with p coefficients (Sun, Zhou & Fan 2020, JASA; the equation is that of Wang, Zheng, Zhou & Zhou 2021,
    "A new principle for tuning-free Huber regression", Statistica Sinica). Light tails are not clipped.

    Where large rewards are rare and of one sign, such as orders, their sum is what matters. The limit is therefore
    doubled until what is clipped off does not differ from 0 by more than three standard errors, over all rows and in
    every cell.

    Args:
        error: Deviations of the rewards from their mean (n,), in standard deviations of their noise.
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
    allowed = min(float(coefficients), MAX_SHARE * total)
    fits = below + (above - allowed) * size.square() <= 0  # the limit is at most |e_i|
    if not bool(fits.any()):
        return float("inf")
    first = int(fits.byte().argmax())
    limit = float(((below - w * size.square())[first] / (allowed - (above + w)[first])).clamp_min(0.0).sqrt())
    while limit < float(size[-1]):
        excess = weight * (error - error.clamp(-limit, limit))
        sums = torch.zeros(2, int(cell.max()) + 2, dtype=torch.float64)
        for place, values in enumerate((excess, excess.square())):
            sums[place, 1:].index_add_(0, cell, values)
        sums[:, 0] = sums.sum(1)
        if bool((sums[0].square() <= MAX_SHIFT**2 * sums[1]).all()):
            return limit
        limit *= 2.0
    return float("inf")
