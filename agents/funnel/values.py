"""The value of every action along the funnel, at the policy's mean over the other modules."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from crosschannel.agents.ensemble.mixtures import mix
from crosschannel.agents.funnel.design import Design
from crosschannel.agents.funnel.model import ALL_SENDS, DIRECT, ENGAGEMENT, GAIN, Heads

#: Log hazards are averaged up to here, so that none overflows; hazards themselves are at most 1.
LARGEST_LOG = 60.0


@dataclass(frozen=True)
class Effects:
    """What the modules add up to at N contexts, for V voters (members or mixtures, the best estimate first).

    Attributes:
        base: The common part (parts, V, N): engagement, gain, direct effect, all sends, then log hazards.
        cells: Each module's effects (parts, V, cells, N).
    """

    base: Tensor
    cells: tuple[Tensor, ...]

    @classmethod
    def build(cls, design: Design, heads: Heads, x: Tensor, matrix: Tensor | None) -> Effects:
        """Compute the effects at contexts (N, D); mixtures by a matrix (L, K) take the members' place."""
        parts = torch.cat([heads.value, heads.hazard])
        common, own = design.common(x).t(), design.of_cells(x).t()

        def voters(found: Tensor) -> Tensor:
            if matrix is None:
                return found
            return torch.cat([found[..., :1, :], mix(found, matrix)], -2)

        base = voters(parts[..., : design.base] @ common)
        cells = []
        for start, count in zip(design.starts, design.cells, strict=True):
            own_heads = parts[..., start : start + count * design.each]
            own_heads = own_heads.reshape(*parts.shape[:2], count, design.each)
            each = voters(own_heads.transpose(1, 2) @ own)  # (parts, cells, V, N)
            cells.append(each.transpose(1, 2))
        return cls(base, tuple(cells))

    def present(self, cells: Sequence[Tensor]) -> Effects:
        """Return the effects of some cells of each module (cells,)."""
        return Effects(self.base, tuple(each[:, :, own] for each, own in zip(self.cells, cells, strict=True)))

    def best(self) -> Effects:
        """Return the effects of the best estimate alone."""
        return Effects(self.base[:, :1], tuple(each[:, :1] for each in self.cells))


@dataclass(frozen=True)
class Means:
    """Mean effects over a policy, with what does not follow from them.

    Attributes:
        mean: Mean effects (parts, V, ..., N); of a cost event the logarithm of its mean hazard.
        together: Covariance of engagement with what engagement earns beyond the direct effect (V, ..., N).
        tested: Probability that the message's channel tells who engages (..., N).
        price: Mean of what budgets charge (..., N).
    """

    mean: Tensor
    together: Tensor
    tested: Tensor
    price: Tensor

    def __add__(self, other: Means) -> Means:
        """Add the effects of other modules, which choose independently of these."""
        return Means(
            self.mean + other.mean,
            self.together + other.together,
            self.tested + other.tested,
            self.price + other.price,
        )

    def select(self, cells: Tensor) -> Means:
        """Return the means of some cells (cells,); one that holds whatever else is chosen stays as it is."""
        if self.mean.shape[2] == 1:
            return self
        return Means(self.mean[:, :, cells], self.together[:, cells], self.tested[cells], self.price[cells])

    def average(self, weights: Tensor, groups: Sequence[Tensor]) -> Means:
        """Average over the cells (cells,) of each group, by weights (cells, N) that add up to 1 within each."""
        found = [self._average(weights, cells) for cells in groups]
        return Means(
            torch.stack([each.mean for each in found], 2),
            torch.stack([each.together for each in found], 1),
            torch.stack([each.tested for each in found]),
            torch.stack([each.price for each in found]),
        )

    def _average(self, weights: Tensor, cells: Tensor) -> Means:
        everything = len(cells) == self.mean.shape[2]  # then nothing has to be copied
        own = self if everything else self.select(cells)
        weight = weights if everything else weights[cells]
        additive, logs = own.mean[: ALL_SENDS + 1], own.mean[ALL_SENDS + 1 :]
        out = torch.empty(len(own.mean), own.mean.shape[1], own.mean.shape[3])
        mean = _weighted(additive, weight, out[: ALL_SENDS + 1])
        torch.log(_weighted(logs.clamp(max=LARGEST_LOG).exp_(), weight), out=out[ALL_SENDS + 1 :])
        product = torch.addcmul(own.together, additive[ENGAGEMENT], additive[GAIN] - additive[DIRECT])
        together = _weighted(product, weight) - mean[ENGAGEMENT] * (mean[GAIN] - mean[DIRECT])
        return Means(out, together, _weighted(own.tested, weight), _weighted(own.price, weight))


def _weighted(values: Tensor, weight: Tensor, out: Tensor | None = None) -> Tensor:
    """Return the sum over cells (..., N) of values (..., cells, N) by weights (cells, N).

    Cells are added one by one: a product of matrices for each of the N slots was measured to take ten times as long.
    """
    out = torch.mul(values[..., 0, :], weight[0], out=out)
    for cell in range(1, len(weight)):
        out.addcmul_(values[..., cell, :], weight[cell])
    return out


def value_of(heads: Heads, total: Means, cost_prices: Tensor) -> Tensor:
    r"""Return the value of messages (V, ..., N) from their mean effects.

    .. math:: b_1 \left( P G + (1 - P) D \right) + b_2 R - \sum_c \pi_c (h_c - h_c^0)^+

    Neither of the first two terms includes cost events, so that each of these counts once, at its full price.

    Args:
        heads: The model.
        total: Mean effects of all modules together (parts, V, ..., N).
        cost_prices: Goal weight plus shadow price of each cost event (C,), or (C, N).
    """
    part = total.mean
    p = part[ENGAGEMENT].clamp(0.0, 1.0) * total.tested
    extra = part[GAIN] - part[DIRECT]
    found = heads.blend.funnel * (p * extra + part[DIRECT] + total.together * total.tested)
    found = found + heads.blend.all_sends * part[ALL_SENDS]
    for c, hazard in enumerate(hazards_of(heads, total)):
        found = found - cost_prices[c] * hazard
    return found


def components_of(heads: Heads, total: Means) -> Tensor:
    """Return engagement, gain, direct effect and hazards (3 + C, V, ..., N) of messages from their mean effects.

    Where nothing tells who engages there is no engagement and no gain (NaN): the direct effect is the whole effect.
    """
    part = total.mean
    known = torch.where(total.tested > 0.0, 1.0, float("nan"))
    engagement = part[ENGAGEMENT].clamp(0.0, 1.0) * total.tested * known
    return torch.stack([engagement, part[GAIN] * known, part[DIRECT], *hazards_of(heads, total)])


def hazards_of(heads: Heads, total: Means) -> list[Tensor]:
    """Return each cost event's probability (V, ..., N) beyond that without a message."""
    logs = total.mean[ALL_SENDS + 1 :]
    return [(each.exp().clamp(max=1.0) - usual).clamp_min(0.0) for each, usual in zip(logs, heads.organic, strict=True)]
