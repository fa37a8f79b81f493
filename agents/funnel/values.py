"""Coefficients of a funnel, and the value of every action along it, at the policy's mean over the other modules."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, fields, replace
from typing import Any

import torch
from torch import Tensor

from crosschannel.agents.ensemble.mixtures import mix
from crosschannel.agents.funnel.calibration import Blend
from crosschannel.agents.funnel.design import Design

#: The components of a value; hazards of cost events follow them.
ENGAGEMENT, GAIN, DIRECT, ALL_SENDS = range(4)
COMPONENTS = ("engagement", "gain", "direct", "all sends")
#: Log hazards are averaged up to here, so that none overflows; hazards themselves are at most 1.
LARGEST_LOG = 60.0


@dataclass(frozen=True)
class Heads:
    """Coefficients of the components, float32: the best estimate, then the members.

    Attributes:
        value: Engagement, gain, direct effect, and the regression of all sends (4, 1 + K, columns).
        hazard: The logarithm of each cost event's hazard (C, 1 + K, columns).
        organic: Probability of each cost event where nothing is sent (C,).
        tested: Whether the log tells who engaged with the messages of each action of the first module (A,).
        blend: Weights of the funnel and of the regression of all sends.
        sd: Standard deviation that each block of columns has, by component, costs last (4 + C, blocks).
    """

    value: Tensor
    hazard: Tensor
    organic: Tensor
    tested: Tensor
    blend: Blend
    sd: Tensor

    def state_dict(self) -> dict[str, Any]:
        """Return the heads as tensors and plain values."""
        return {f.name: getattr(self, f.name) for f in fields(self)} | {"blend": asdict(self.blend)}

    @classmethod
    def from_state_dict(cls, state: Mapping[str, Any]) -> Heads:
        """Restore what `state_dict` returned."""
        tensors = {f.name: state[f.name].clone() for f in fields(cls) if f.name != "blend"}
        return cls(**tensors, blend=Blend(**state["blend"]))

    def best(self) -> Heads:
        """Return the best estimates alone."""
        return replace(self, value=self.value[:, :1], hazard=self.hazard[:, :1])

    def of_present(self, actions: Tensor) -> Heads:
        """Return the heads with `tested` for some of the first module's actions (A,)."""
        return replace(self, tested=self.tested[actions])


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
        weight, effects = weights[cells], self.mean[:, :, cells]
        additive, logs = effects[: ALL_SENDS + 1], effects[ALL_SENDS + 1 :]
        mean = torch.einsum("pvcn,cn->pvn", additive, weight)
        hazard = torch.einsum("pvcn,cn->pvn", logs.clamp(max=LARGEST_LOG).exp(), weight).log()
        extra = additive[GAIN] - additive[DIRECT]
        product = torch.einsum("vcn,cn->vn", additive[ENGAGEMENT] * extra + self.together[:, cells], weight)
        together = product - mean[ENGAGEMENT] * (mean[GAIN] - mean[DIRECT])
        tested, price = (weight * self.tested[cells]).sum(0), (weight * self.price[cells]).sum(0)
        return Means(torch.cat([mean, hazard]), together, tested, price)


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
