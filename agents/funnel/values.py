"""Coefficients of a funnel, and the value of every action along it, at the policy's mean over the other modules."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, fields, replace
from typing import Any

import torch
from torch import Tensor

from crosschannel.agents.funnel.calibration import Blend
from crosschannel.agents.funnel.design import Design

#: The components of a value; hazards of cost events follow them.
ENGAGEMENT, GAIN, DIRECT, ALL_SENDS = range(4)
COMPONENTS = ("engagement", "gain", "direct", "all sends")
#: Log hazards are averaged up to here, so that none overflows; hazards themselves are at most 1.
LARGEST_LOG = 60.0
#: Parts of a value that are linear in the heads: engagement, what it earns beyond the direct effect, and the rest.
ENGAGED, EXTRA, REST = range(3)


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
        return {f.name: getattr(self, f.name) for f in fields(self)} | {"blend": self.blend.to_dict()}

    @classmethod
    def from_state_dict(cls, state: Mapping[str, Any]) -> Heads:
        """Restore what `state_dict` returned."""
        tensors = {f.name: state[f.name].clone() for f in fields(cls) if f.name != "blend"}
        return cls(**tensors, blend=Blend.from_dict(state["blend"]))

    def best(self) -> Heads:
        """Return the best estimates alone."""
        return replace(self, value=self.value[:, :1], hazard=self.hazard[:, :1])

    def of_present(self, actions: Tensor) -> Heads:
        """Return the heads with `tested` for some of the first module's actions (A,)."""
        return replace(self, tested=self.tested[actions])


@dataclass(frozen=True)
class Effects:
    """What the modules add up to at N contexts, for V voters (members or mixtures, the best estimate first).

    What is linear in the heads is kept for the M members, the best estimate first, and mixed where it is multiplied:
    means over actions of eleven members take a sixth of the time of those of 65 voters.

    Attributes:
        linear: The common part (3, M, 1, N) of engagement, extra and rest.
        logs: That of the log hazards (C, V, 1, N).
        linear_cells: Each module's linear effects (3, M, cells, N).
        log_cells: Each module's effects on the log hazards (C, V, cells, N).
        mixing: The voters as combinations of the members (V, M); None where the members vote themselves.
    """

    linear: Tensor
    logs: Tensor
    linear_cells: tuple[Tensor, ...]
    log_cells: tuple[Tensor, ...]
    mixing: Tensor | None

    @classmethod
    def build(
        cls,
        design: Design,
        heads: Heads,
        x: Tensor,
        matrix: Tensor | None,
        *,
        blend: Blend | None = None,
        present: Sequence[Tensor] | None = None,
    ) -> Effects:
        """Compute the effects at contexts (N, D).

        Args:
            design: The columns.
            heads: The model.
            x: Contexts (N, D).
            matrix: Mixtures of the members (L, K), which vote in their place; None where the members vote.
            blend: Weights of the direct effect and of all sends in the rest; the model's by default.
            present: The present entries of each module's table (cells,); all of them by default.
        """
        blend = heads.blend if blend is None else blend
        value = heads.value
        rest = blend.funnel * value[DIRECT] + blend.all_sends * value[ALL_SENDS]
        parts = torch.cat([torch.stack([value[ENGAGEMENT], value[GAIN] - value[DIRECT], rest]), heads.hazard])
        mixing = None if matrix is None else _with_best(matrix)
        common, own = design.common(x).t().contiguous(), design.of_cells(x).t().contiguous()
        found = [(parts[..., : design.base] @ common).unsqueeze(2)]
        for m, (start, count) in enumerate(zip(design.starts, design.cells, strict=True)):
            cells = parts[..., start : start + count * design.each]
            cells = cells.reshape(*cells.shape[:-1], count, design.each)
            entries = design.cells_of_table(m)
            entries = entries if present is None else entries[present[m]]
            every = len(entries) == count and bool((entries == torch.arange(count)).all())
            found.append((cells if every else cells[:, :, entries]) @ own)
        linear, logs = zip(*((each[: REST + 1], mixed(each[REST + 1 :], mixing)) for each in found), strict=True)
        return cls(linear=linear[0], logs=logs[0], linear_cells=linear[1:], log_cells=logs[1:], mixing=mixing)

    @property
    def voters(self) -> int:
        """Number of voters."""
        return self.linear.shape[1] if self.mixing is None else len(self.mixing)

    def best(self) -> Effects:
        """Return the effects of the best estimate alone."""
        return Effects(
            linear=self.linear[:, :1],
            logs=self.logs[:, :1],
            linear_cells=tuple(each[:, :1] for each in self.linear_cells),
            log_cells=tuple(each[:, :1] for each in self.log_cells),
            mixing=None,
        )


def _with_best(matrix: Tensor) -> Tensor:
    """Return the best estimate and mixtures by a matrix (L, K) as combinations (1 + L, 1 + K) of it and the members."""
    first = torch.zeros(1, 1 + matrix.shape[1])
    first[0, 0] = 1.0
    return torch.cat([first, torch.cat([1.0 - matrix.sum(1, keepdim=True), matrix], 1)])


def mixed(values: Tensor, mixing: Tensor | None) -> Tensor:
    """Return what is linear in the heads for the voters (..., V, cells, N), from the members (..., M, cells, N)."""
    if mixing is None:
        return values
    found = torch.matmul(mixing, values.flatten(-2))
    return found.reshape(*found.shape[:-1], *values.shape[-2:])


@dataclass(frozen=True)
class Means:
    """Mean effects over a policy, with what does not follow from them; 1 in place of the cells if equal for all.

    Attributes:
        linear: Means of engagement, extra and rest by member (3, M, cells, N).
        logs: Logarithm of each cost event's mean hazard by voter (C, V, cells, N).
        together: Covariance of engagement with extra by voter (V, cells, N).
        tested: Probability that the message's channel tells who engages (cells, N).
        price: Mean of what budgets charge (cells, N).
    """

    linear: Tensor
    logs: Tensor
    together: Tensor
    tested: Tensor
    price: Tensor

    def __add__(self, other: Means) -> Means:
        """Add the effects of other modules, which choose independently of these."""
        return Means(
            linear=self.linear + other.linear,
            logs=self.logs + other.logs,
            together=self.together + other.together,
            tested=self.tested + other.tested,
            price=self.price + other.price,
        )

    def select(self, cells: Tensor) -> Means:
        """Return the means of some cells (cells,)."""
        return Means(
            linear=_of_cells(self.linear, cells),
            logs=_of_cells(self.logs, cells),
            together=_of_cells(self.together, cells),
            tested=_of_cells(self.tested, cells),
            price=_of_cells(self.price, cells),
        )

    def products(self, mixing: Tensor | None) -> Products:
        """Return what is averaged for each voter and does not follow from the members' means."""
        engaged, extra = mixed(self.linear[: EXTRA + 1], mixing)
        hazards = self.logs.clamp(max=LARGEST_LOG).exp_()
        return Products(torch.addcmul(self.together, engaged, extra), hazards)

    def average(
        self, weights: Tensor, groups: Sequence[Tensor], mixing: Tensor | None, products: Products | None = None
    ) -> Means:
        """Average over the cells (cells,) of each group.

        Args:
            weights: Weights (cells, N) that add up to 1 within each group.
            groups: The groups.
            mixing: The voters as combinations of the members, as in `Effects`.
            products: What `products` returned of these means, where it is known.
        """
        products = self.products(mixing) if products is None else products
        if len(groups) == 1:
            return self._average(weights, mixing, products)
        found = [self.select(cells)._average(weights[cells], mixing, products.select(cells)) for cells in groups]
        return Means(
            linear=torch.cat([each.linear for each in found], -2),
            logs=torch.cat([each.logs for each in found], -2),
            together=torch.cat([each.together for each in found], -2),
            tested=torch.cat([each.tested for each in found], -2),
            price=torch.cat([each.price for each in found], -2),
        )

    def _average(self, weight: Tensor, mixing: Tensor | None, products: Products) -> Means:
        """Average over all cells: the covariance is the mean of the products less the product of the means."""
        linear, logs = _weighted(self.linear, weight), _weighted(products.hazards, weight).log_()
        engaged, extra = mixed(linear[: EXTRA + 1], mixing)
        together = _weighted(products.together, weight).addcmul_(engaged, extra, value=-1.0)
        return Means(
            linear=linear,
            logs=logs,
            together=together,
            tested=_weighted(self.tested, weight),
            price=_weighted(self.price, weight),
        )


@dataclass(frozen=True)
class Products:
    """What voters average over cells beside the members' means.

    Attributes:
        together: Products of engagement and extra, with their covariance within a cell (V, cells, N).
        hazards: Factors of the hazards (C, V, cells, N).
    """

    together: Tensor
    hazards: Tensor

    def select(self, cells: Tensor) -> Products:
        """Return the products of some cells (cells,)."""
        return Products(_of_cells(self.together, cells), _of_cells(self.hazards, cells))


def _of_cells(values: Tensor, cells: Tensor) -> Tensor:
    """Return values (..., cells, N) of some cells; one that holds for all cells stays as it is."""
    return values if values.shape[-2] == 1 else values.index_select(-2, cells)


def _weighted(values: Tensor, weight: Tensor) -> Tensor:
    """Return the sum over cells (..., 1, N) of values (..., cells, N) by weights (cells, N).

    Cells are added one by one: a product of matrices for each of the N slots was measured to take ten times as long.
    """
    if not len(weight):
        return torch.zeros(*values.shape[:-2], 1, weight.shape[-1])
    values = values.expand(*values.shape[:-2], len(weight), values.shape[-1])
    if values.shape[-1] == 1:  # equal at all slots
        return values.transpose(-1, -2) @ weight
    out = values[..., 0, :] * weight[0]
    for cell in range(1, len(weight)):
        out.addcmul_(values[..., cell, :], weight[cell])
    return out.unsqueeze(-2)


def value_of(heads: Heads, total: Means, cost_prices: Tensor, mixing: Tensor | None = None) -> Tensor:
    r"""Return the value of messages (V, cells, N) from their mean effects.

    .. math:: b_1 \left( P G + (1 - P) D \right) + b_2 R - \sum_c \pi_c (h_c - h_c^0)^+

    Neither of the first two terms includes cost events, so that each of these counts once, at its full price.

    Args:
        heads: The model.
        total: Mean effects of all modules together.
        cost_prices: Goal weight plus shadow price of each cost event (C,), or (C, N).
        mixing: The voters as combinations of the members (V, M), as in `Effects`.
    """
    scale = heads.blend.funnel * total.tested
    engaged, extra, rest = total.linear
    engaged, found = mixed(engaged, mixing).clamp(0.0, 1.0), mixed(rest, mixing)
    found = torch.addcmul(found, engaged, mixed(extra * scale, mixing)).addcmul_(total.together, scale)
    for price, hazard in zip(cost_prices, hazards_of(heads, total), strict=False):
        found.addcmul_(hazard, price, value=-1.0)
    return found


def components_of(heads: Heads, total: Means) -> Tensor:
    """Return engagement, gain, direct effect and hazards (3 + C, V, cells, N) of messages from their mean effects.

    The effects are those of members, with the direct effect alone as the rest. Where nothing tells who engages there is
    no engagement and no gain (NaN): the direct effect is the whole effect.
    """
    engaged, extra, direct = total.linear
    known = torch.where(total.tested > 0.0, 1.0, float("nan"))
    engagement = engaged.clamp(0.0, 1.0) * total.tested * known
    return torch.stack([engagement, (direct + extra) * known, direct, *hazards_of(heads, total)])


def hazards_of(heads: Heads, total: Means) -> list[Tensor]:
    """Return each cost event's probability (V, cells, N) beyond that without a message."""
    pairs = zip(total.logs, heads.organic.tolist(), strict=True)
    return [each.exp().clamp_(max=1.0).sub_(usual).clamp_(min=0.0) for each, usual in pairs]
