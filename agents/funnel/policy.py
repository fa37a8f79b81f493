"""The policy of a funnel: every module votes by the whole value, at the policy's mean over the other modules."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from crosschannel.agents.ensemble.mixtures import competing_cells, vote_shares_on_device
from crosschannel.agents.funnel.model import Heads
from crosschannel.agents.funnel.values import Effects, Means, components_of, hazards_of, sum_of, value_of
from crosschannel.core.action_space import ActionSpace
from crosschannel.core.arrays import FloatArray

#: Sweeps over the modules in which each takes its best action, given those of the others.
SWEEPS = 2


@dataclass(frozen=True)
class Slots:
    """N slots at which something may be sent.

    Attributes:
        modules: The present actions.
        eligible: Eligible cells of each module (cells, N).
        cost_weights: Goal weights of the cost events (C,).
        action_prices: Price of each module's actions (A_m, N) or (A_m, 1), in reward units.
    """

    modules: ActionSpace
    eligible: tuple[Tensor, ...]
    cost_weights: Tensor
    action_prices: tuple[Tensor, ...]


@dataclass(frozen=True)
class Votes:
    """What the voters think of every action, and what the policy of the later modules is.

    Attributes:
        channel: Values of the first module's actions (V, A, N), 0 for sending nothing: without shadow prices.
        hazards: Each cost event's probability by the best estimate, by the first module's action (C, A, N).
        shares: Probabilities of the later modules (cells, N), in their order.
        later: Values of the later modules' cells (V, cells, N).
    """

    channel: Tensor
    hazards: Tensor
    shares: tuple[Tensor, ...]
    later: tuple[Tensor, ...]


def vote(slots: Slots, heads: Heads, effects: Effects, floors: Sequence[float]) -> Votes:
    """Let every module after the first vote, and value the first module's actions at their policy.

    The first voter is the best estimate. The later modules are valued at the actions that the best estimate prefers in
    the other modules, and the first module at the policy of the later ones. So the modules are drawn independently,
    given what they depend on, and the probability of an action is a product.

    Args:
        slots: The slots.
        heads: The model.
        effects: What the modules add up to there; of the voters after the first, or of the first where it is alone.
        floors: Each module's probability of a uniform draw.
    """
    policy = _Policy(slots, heads)
    reach, shares = policy.settled(effects.best(), floors)
    voting = slice(1, None) if effects.base.shape[1] > 1 else slice(None)
    later, final, means = [], list(shares), policy.means(effects, reach, shares)
    for m in range(1, len(slots.modules)):
        later.append(policy.values(effects, m, reach, shares, means))
        found = later[-1][voting].transpose(0, 1)
        final[m] = vote_shares_on_device(found, slots.eligible[m].t(), policy.groups[m], floors[m]).t().float()
    channel, hazards = policy.channels(effects, final)
    return Votes(channel, hazards, tuple(final[1:]), tuple(later))


def components(slots: Slots, heads: Heads, effects: Effects, floors: Sequence[float]) -> tuple[Tensor, ...]:
    """Return engagement, gain, direct effect and hazards (3 + C, V, cells, N) of each module's cells.

    They are those of messages, at the policy's mean over the other modules, as the values of `vote` are.
    """
    policy = _Policy(slots, heads)
    reach, shares = policy.settled(effects.best(), floors)
    means = policy.means(effects, reach, shares)
    final = [shares[0], *vote(slots, heads, effects, floors).shares]
    channels = [components_of(heads, *total) for total in policy.channel_totals(effects, final)]
    first = [torch.full_like(channels[0], float("nan")), *channels]
    later = [
        components_of(heads, *policy.total(effects, m, reach, shares, means)) for m in range(1, len(slots.modules))
    ]
    return torch.stack(first, 2), *later


class _Policy:
    """Values of one module's actions at the policy of the others."""

    def __init__(self, slots: Slots, heads: Heads) -> None:
        self._slots, self._modules, self._heads = slots, slots.modules, heads
        self.groups = [competing_cells(slots.modules, m) for m in range(len(slots.modules))]
        known = heads.tested[: slots.modules.sizes[0]] if len(heads.tested) else heads.tested
        self._tested = known.float()

    def settled(self, best: Effects, floors: Sequence[float]) -> tuple[Tensor, list[Tensor]]:
        """Return the first module's preferred messages (A, N) and all shares, after sweeps by the best estimate."""
        slots = self._slots
        uniform = [_uniform(slots, m) for m in range(len(slots.modules))]
        shares, reach = list(uniform), uniform[0].clone()
        for _ in range(SWEEPS):
            for m in range(1, len(slots.modules)):
                values = self.values(best, m, reach, shares, self.means(best, reach, shares))
                greedy = vote_shares_on_device(values.transpose(0, 1), slots.eligible[m].t(), self.groups[m], 0.0)
                shares[m] = (1.0 - floors[m]) * greedy.t().float() + floors[m] * uniform[m]
            reach = self.preferred(self.channels(best, shares)[0][0])
        return reach, shares

    def means(self, effects: Effects, reach: Tensor, shares: Sequence[Tensor]) -> list[Means]:
        """Return each module's mean effects, where the first module's shares are `reach`."""
        weights = self._cell_weights(reach, shares)
        return [Means.over(each, weight) for each, weight in zip(effects.cells, weights, strict=True)]

    def values(
        self, effects: Effects, m: int, reach: Tensor, shares: Sequence[Tensor], means: Sequence[Means]
    ) -> Tensor:
        """Return the values (V, cells, N) of a later module's cells, at the means of the other modules."""
        found = value_of(self._heads, *self.total(effects, m, reach, shares, means), self._slots.cost_weights)
        price = self._slots.action_prices[m]
        return found - (price if self._modules.condition(m) is None else price.repeat(found.shape[1] // len(price), 1))

    def total(
        self, effects: Effects, m: int, reach: Tensor, shares: Sequence[Tensor], means: Sequence[Means]
    ) -> tuple[Means, Tensor]:
        """Return the mean effects of all modules for a later module's cells, and the share whose channel is tested."""
        depends = self._dependency(m)
        others = [each for j, each in enumerate(means) if j not in (m, depends)]
        mean = sum_of([Means(effects.base, torch.zeros_like(effects.base[0])), *others]).unsqueeze()
        own, tested = effects.cells[m], (self._tested[:, None] * reach).sum(0)
        if depends is not None:
            codes = self._codes(m)
            own = own + _by_code(effects, depends, codes, self._cell_weights(reach, shares), self._modules)
            if depends == 0:
                tested = self._tested[codes][:, None]
        return Means(mean.mean + own, mean.together), tested

    def channels(self, effects: Effects, shares: Sequence[Tensor]) -> tuple[Tensor, Tensor]:
        """Return values (V, A, N) of the first module's actions, and cost events' probabilities (C, A, N)."""
        first = effects.cells[0]
        values = torch.zeros(first.shape[1:])
        hazards = torch.zeros(len(self._slots.cost_weights), *first.shape[2:])
        for code, (total, tested) in enumerate(self.channel_totals(effects, shares), 1):
            values[:, code] = value_of(self._heads, total, tested, self._slots.cost_weights)
            for c, each in enumerate(hazards_of(self._heads, total)):
                hazards[c, code] = each[0]
        return values, hazards

    def channel_totals(self, effects: Effects, shares: Sequence[Tensor]) -> Iterator[tuple[Means, Tensor]]:
        """Yield the mean effects of all modules for each message of the first module, and whether it is tested."""
        first = effects.cells[0]
        means: Means | None = None
        changes = any(self._dependency(m) == 0 for m in range(1, len(self._modules)))
        for code in range(1, first.shape[2]):
            if means is None or changes:
                reach = torch.zeros(first.shape[2:])
                reach[code] = 1.0
                weights = self._cell_weights(reach, shares)
                parts = [Means.over(effects.cells[j], weights[j]) for j in range(1, len(self._modules))]
                means = sum_of([Means(effects.base, torch.zeros_like(effects.base[0])), *parts])
            yield Means(means.mean + first[:, :, code], means.together), self._tested[code]

    def preferred(self, values: Tensor) -> Tensor:
        """Return 1 for the best eligible message of the first module, by values (A, N); otherwise 0."""
        eligible = self._slots.eligible[0].clone()
        eligible[0] = False
        best = torch.where(eligible, values, -torch.inf).argmax(0)
        return torch.zeros_like(values).scatter_(0, best.unsqueeze(0), 1.0)

    def _dependency(self, m: int) -> int | None:
        parent = self._modules.parent(m)
        return parent[0] if parent is not None else self._modules.condition(m)

    def _codes(self, m: int) -> Tensor:
        """Return the code of the module that module m depends on, for each of m's cells."""
        parent = self._modules.parent(m)
        if parent is not None:
            return torch.from_numpy(parent[1])
        return torch.arange(self._modules.n_table_cells(m)) // self._modules.sizes[m]

    def _cell_weights(self, reach: Tensor, shares: Sequence[Tensor]) -> list[Tensor]:
        """Return the probability of each module's cells (cells, N), given the first module's shares (A, N)."""
        weights, marginals = [reach], [reach]
        for m in range(1, len(self._modules)):
            depends, found = self._dependency(m), shares[m]
            if depends is not None:
                found = found * marginals[depends][self._codes(m)]
            weights.append(found)
            table = self._modules.condition(m) is not None
            marginals.append(found.view(-1, self._modules.sizes[m], found.shape[1]).sum(0) if table else found)
        return weights


def _by_code(effects: Effects, j: int, codes: Tensor, weights: Sequence[Tensor], modules: ActionSpace) -> Tensor:
    """Return the effects (parts, V, cells, N) of module j's actions (cells,); of a table, the mean over its rows."""
    found = effects.cells[j]
    if modules.condition(j) is not None:
        rows = weights[j].view(-1, modules.sizes[j], weights[j].shape[1])
        rows = rows / rows.sum(0).clamp_min(1e-12)
        found = (found.unflatten(2, rows.shape[:2]) * rows).sum(2)
    return found[:, :, codes]


def _uniform(slots: Slots, m: int) -> Tensor:
    """Return equal shares (cells, N) of a module's eligible cells, within each group; of messages for the first."""
    eligible = slots.eligible[m].float()
    if m == 0:
        eligible = eligible.clone()
        eligible[0] = 0.0
    out = torch.zeros_like(eligible)
    for group in [np.arange(len(eligible))] if m == 0 else competing_cells(slots.modules, m):
        part = eligible[group]
        out[group] = part / part.sum(0).clamp_min(1.0)
    return out


def flat_prices(modules: ActionSpace, prices: FloatArray | None) -> tuple[Tensor, ...]:
    """Return the price of each module's actions (A_m, N) from prices (N, sum of actions); 0 without prices."""
    if prices is None:
        return tuple(torch.zeros(size, 1) for size in modules.sizes)
    return tuple(torch.from_numpy(np.ascontiguousarray(part.T)).float() for part in modules.split(prices))
