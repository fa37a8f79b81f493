"""Rewards that drift: the half-life of rows that predicts newer rows best, and how rows count by their age."""

from __future__ import annotations

import math

import torch
from torch import Tensor

BLOCKS = 16
PREDICTED_BLOCKS = 4
HALVINGS = (0, 1, 2, 3, 4)  # half-lives in each window: the window, its half, ..., its sixteenth
NARROWING = 4
MIN_ROWS, MAX_ROWS = 1_000, 32_768
MIN_LOG_LIKELIHOOD_GAIN = 15.0
RIDGES = (20.0, 300.0, 5_000.0)
# Half-lives after which rows hardly count, and after which they are left out.
HORIZON, LAST = 4.0, 8.0


def age_weights(age: Tensor, half_life: float) -> Tensor:
    """Return the factors (n,) by which rows of some ages (n,) are discounted; 1 without a half-life, 0."""
    return torch.exp2(-age / half_life) if half_life else torch.ones(len(age))


def horizon(rows: int, half_life: float) -> float:
    """Return how many of some rows matter: all, or as many as have nearly all the weight."""
    return min(HORIZON * half_life, rows) if half_life else rows


def learn_half_life(context: Tensor, cell: Tensor, target: Tensor, weight: Tensor, age: Tensor, cells: int) -> float:
    r"""Return the number of newer rows after which a row should count half, or 0 if all rows should count alike.

    The rows are cut by age into `BLOCKS` blocks. For each half-life, linear regressions of the rewards on the contexts
    from all older rows, discounted, predict each of the last `PREDICTED_BLOCKS` blocks: their squared errors say which
    half-life predicts newer rows best. Each half-life has the ridge that is best for it, so that a short memory does
    not win by shrinking more. It must be at least `exp(15)` times as likely as no discount: a policy that changes while
    it learns visits other contexts, and where the regression misses the shape of the rewards there, newer rows predict
    a little better without any drift. If no half-life or the shortest is best, shorter ones are tried on the newest
    rows alone.

    Args:
        context: Contexts (n, D), standardised, and the present estimate of each row's reward, which has the shape of
            the rewards that a regression on the contexts would miss.
        cell: The action of each row (n,), or cell of the module's table.
        target: Standardised rewards (n,).
        weight: Weights of the rows (n,) by their precision.
        age: Number of newer rows of each row (n,).
        cells: Number of actions or cells.
    """
    found, window = 0.0, float(age.max()) + 1.0
    while int((age < window).sum()) >= MIN_ROWS:
        inside = age < window
        best = _best_half_life(
            context[inside], cell[inside], target[inside], weight[inside], age[inside], cells, window
        )
        found = best or found
        if found > window / 2 ** HALVINGS[-1]:
            break
        window /= NARROWING
    return found


def _best_half_life(
    context: Tensor, cell: Tensor, target: Tensor, weight: Tensor, age: Tensor, cells: int, window: float
) -> float:
    """Return the best of the half-lives of a window, or 0 if none is clearly better than no discount."""
    block = (BLOCKS - 1 - (age * (BLOCKS / window)).long()).clamp(0, BLOCKS - 1)
    gram, moment = _block_sums(context, cell, target, weight, block, cells)
    candidates = torch.tensor([math.inf, *(window / 2**power for power in HALVINGS)], dtype=torch.float64)
    keep = torch.exp2(-window / BLOCKS / candidates).view(-1, 1, 1, 1, 1)
    sums = torch.zeros(len(candidates), 1, *gram.shape[1:], dtype=torch.float64)
    cross = torch.zeros(len(candidates), 1, *moment.shape[1:], dtype=torch.float64)
    error = torch.zeros(len(candidates), len(RIDGES), dtype=torch.float64)
    for each in range(BLOCKS):
        if each >= BLOCKS - PREDICTED_BLOCKS:
            theta = _ridge(sums, cross)
            error += (theta * (gram[each] @ theta - 2.0 * moment[each])).sum((2, 3, 4))
        sums, cross = sums * keep + gram[each], cross * keep + moment[each]
    predicted = block >= BLOCKS - PREDICTED_BLOCKS
    square = float((weight * target.square())[predicted].double().sum())
    error = error.amin(1)
    best = int(error.argmin())
    noise = max((square + float(error[best])) / max(float(weight[predicted].sum()), 1.0), 1e-12)
    if float(error[0] - error[best]) < 2.0 * MIN_LOG_LIKELIHOOD_GAIN * noise:
        return 0.0
    return float(candidates[best])


def _block_sums(
    context: Tensor, cell: Tensor, target: Tensor, weight: Tensor, block: Tensor, cells: int
) -> tuple[Tensor, Tensor]:
    """Return sums of products of features [1, x] (blocks, cells, F, F), and of features and targets (..., F, 1)."""
    order = torch.argsort(block * cells + cell, stable=True)
    counts = torch.bincount(block * cells + cell, minlength=BLOCKS * cells).tolist()
    root = weight[order].sqrt().unsqueeze(1)
    both = torch.cat([torch.ones_like(root), context[order], target[order].unsqueeze(1)], 1) * root
    products = torch.stack([part.t() @ part for part in torch.split(both, counts)]).double()
    products = products.view(BLOCKS, cells, *products.shape[1:])
    return products[..., :-1, :-1], products[..., :-1, -1:]


def _ridge(gram: Tensor, moment: Tensor) -> Tensor:
    """Return coefficients (H, R, A, F, 1): a part common to all actions, then each action's own, for each ridge."""
    features = torch.eye(gram.shape[-1], dtype=gram.dtype)
    features[0, 0] = 0.01
    ridge = torch.tensor(RIDGES, dtype=gram.dtype).view(-1, 1, 1, 1) * features
    common = torch.linalg.solve(gram.sum(2) + ridge[:, 0], moment.sum(2)).unsqueeze(2)
    own: Tensor = torch.linalg.solve(gram + ridge, moment - gram @ common)
    found: Tensor = common + own
    return found
