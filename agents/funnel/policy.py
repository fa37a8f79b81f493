"""The policy of a funnel: every module votes by the whole value, at the policy's mean over the other modules."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
import torch
from torch import Tensor

from crosschannel.agents.ensemble.mixtures import competing_cells, vote_shares_on_device
from crosschannel.agents.funnel.averages import PolicyMeans
from crosschannel.agents.funnel.values import Effects, Heads, components_of, hazards_of, value_of
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
        shares: Probabilities of the later modules (cells, N) float64, in their order.
        later: Values of the later modules' cells (V, cells, N).
    """

    channel: Tensor
    hazards: Tensor
    shares: tuple[Tensor, ...]
    later: tuple[Tensor, ...]


def vote(
    slots: Slots, heads: Heads, effects: Effects, floors: Sequence[float], preferred: Sequence[Tensor] | None = None
) -> Votes:
    """Let every module after the first vote, and value the first module's actions at their policy.

    The first voter is the best estimate. The later modules are valued at the actions that the best estimate prefers in
    the other modules, and the first module at the policy of the later ones. So the modules are drawn independently,
    given what they depend on, and the probability of an action is a product.

    Args:
        slots: The slots.
        heads: The model.
        effects: What the modules add up to there; of the voters after the first, or of the first where it is alone.
        floors: Each module's probability of a uniform draw.
        preferred: What `preferred_shares` returned for these slots, where it is known.
    """
    modules, weights = slots.modules, slots.cost_weights
    later = range(1, len(modules))
    preferred = preferred_shares(slots, heads, effects.best(), floors) if preferred is None else preferred
    voting = slice(1, None) if effects.voters > 1 else slice(None)
    means = _means(slots, heads, effects, preferred)
    values_later = [means.values(heads, m, weights) for m in later]
    groups = [competing_cells(modules, m) for m in range(len(modules))]
    final = [
        vote_shares_on_device(values[voting].transpose(0, 1), slots.eligible[m].t(), groups[m], floors[m]).t()
        for m, values in zip(later, values_later, strict=True)
    ]
    policy = means.with_shares({m: share.float() for m, share in zip(later, final, strict=True)})
    channel, hazards = _channels(slots, heads, effects, policy)
    return Votes(channel, hazards, tuple(final), tuple(values_later))


def components(
    slots: Slots, heads: Heads, effects: Effects, direct: Effects, floors: Sequence[float]
) -> tuple[Tensor, ...]:
    """Return engagement, gain, direct effect and hazards (3 + C, V, cells, N) of each module's cells.

    They are those of messages, at the policy's mean over the other modules, as the values of `vote` are; NaN where
    nothing is sent.

    Args:
        slots: The slots.
        heads: The model.
        effects: What the modules add up to there, of the members.
        direct: The same with the direct effect alone as the rest.
        floors: Each module's probability of a uniform draw.
    """
    shares = preferred_shares(slots, heads, effects.best(), floors)
    policy = [shares[0], *(share.float() for share in vote(slots, heads, effects, floors).shares)]
    channels = components_of(heads, _means(slots, heads, direct, policy).of_cells(0))
    channels[:, :, 0] = float("nan")
    means = _means(slots, heads, direct, shares)
    return channels, *(components_of(heads, means.of_cells(m)) for m in range(1, len(slots.modules)))


def _means(slots: Slots, heads: Heads, effects: Effects, shares: Sequence[Tensor]) -> PolicyMeans:
    return PolicyMeans(slots.modules, effects, shares, heads.tested.float(), slots.action_prices)


def preferred_shares(slots: Slots, heads: Heads, best: Effects, floors: Sequence[float]) -> list[Tensor]:
    """Return the share of each module's cells (cells, N) by the best estimate, each at those of the other modules."""
    modules, weights = slots.modules, slots.cost_weights
    groups = [competing_cells(modules, m) for m in range(len(modules))]
    uniform = [_uniform(slots, m) for m in range(len(modules))]
    means = _means(slots, heads, best, uniform)
    for _ in range(SWEEPS):
        for m in range(1, len(modules)):
            values = means.values(heads, m, weights)
            greedy = vote_shares_on_device(values.transpose(0, 1), slots.eligible[m].t(), groups[m], 0.0)
            means = means.with_shares({m: (1.0 - floors[m]) * greedy.t().float() + floors[m] * uniform[m]})
        means = means.with_shares({0: _preferred(slots, means.values(heads, 0, weights)[0])})
    return means.shares


def _channels(slots: Slots, heads: Heads, effects: Effects, means: PolicyMeans) -> tuple[Tensor, Tensor]:
    """Return values (V, A, N) of the first module's actions, and cost events' probabilities (C, A, N)."""
    total = means.of_cells(0)
    values = value_of(heads, total, slots.cost_weights, effects.mixing)
    values[:, 0] = 0.0
    hazards = hazards_of(heads, replace(total, logs=total.logs[:, :1]))
    events = torch.stack([each[0] for each in hazards]) if hazards else torch.zeros(0, *values.shape[1:])
    events[:, 0] = 0.0
    return values, events


def _preferred(slots: Slots, values: Tensor) -> Tensor:
    """Return 1 for the best eligible message of the first module, by values (A, N); otherwise 0."""
    eligible = slots.eligible[0].clone()
    eligible[0] = False
    best = torch.where(eligible, values, -torch.inf).argmax(0)
    return torch.zeros_like(values).scatter_(0, best.unsqueeze(0), 1.0)


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
