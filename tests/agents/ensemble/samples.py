"""Random rows for heads: their features, actions, targets and weights, and the sums over them."""

from __future__ import annotations

import torch

from crosschannel.agents.ensemble.heads import Prior, SufficientStatistics, add_rows

BLOCKS = torch.tensor([0, 1, 1, 1, 2, 2, 3])
A, F, C = 2, 7, 3


def rows(n: int, seed: int = 0) -> tuple[torch.Tensor, ...]:
    g = torch.Generator().manual_seed(seed)
    phi = torch.randn(n, F, generator=g, dtype=torch.float64)
    phi[:, 0] = 1.0
    action = torch.randint(A, (n,), generator=g)
    weight = torch.rand(n, generator=g, dtype=torch.float64) + 0.5
    return phi, action, torch.randn(n, C, generator=g, dtype=torch.float64), weight


def by_fold(
    phi: torch.Tensor, action: torch.Tensor, targets: torch.Tensor, weight: torch.Tensor, age_weight: float = 1.0
) -> SufficientStatistics:
    sums = SufficientStatistics.zeros(2, A, F, targets.shape[1])
    cell = torch.arange(len(phi)) % 2 * A + action
    order = torch.argsort(cell)
    counts = torch.bincount(cell, minlength=2 * A).view(2, A)
    data = (column[order] for column in (phi, targets, weight, torch.full((len(phi),), age_weight)))
    add_rows(sums, lambda x, out: out.copy_(x), *data, counts)
    return sums


def sums_of(*data: torch.Tensor) -> SufficientStatistics:
    sums = by_fold(*data)
    return sums[0] + sums[1]


def prior(variance: float = 0.04, noise: float = 1.0) -> Prior:
    scales = variance * torch.tensor([[1.0, 2.0, 0.5, 1.0], [0.3, 1.0, 2.0, 4.0]], dtype=torch.float64)
    return Prior(variance, scales, noise)
