"""How much of what is personal about actions' effects to follow: as much as policies that follow it earn."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import torch
from torch import Tensor

from crosschannel.agents.funnel.averages import PolicyMeans
from crosschannel.agents.funnel.design import Design
from crosschannel.agents.funnel.policy import Slots, flat_prices, preferred_shares
from crosschannel.agents.funnel.values import ALL_SENDS, Effects, Heads, value_of

#: The weights that are tried; of equal ones the smallest is taken.
WEIGHTS = (0.0, 0.1, 0.2, 0.3, 0.5, 0.75, 1.0)
#: Contexts of each half of the users at which the policies are valued, evenly spaced.
CONTEXTS = 2048


def personal_weight(design: Design, heads: Sequence[Heads], contexts: Sequence[Tensor]) -> float:
    r"""Return the weight of the slopes of actions' effects with which a greedy policy earns most.

    .. math:: \hat s = \arg\max_s \sum_{f} \overline{v_f\bigl(x, \arg\max_a v_{-f}^{(s)}(x, a)\bigr)}

    over the users of each half f, with :math:`v_f` the value by what half f taught, and :math:`v_{-f}^{(s)}` that by
    what the other half taught, with its slopes multiplied by s. Which action looks best is decided by errors as well as
    by effects, so that slopes may predict rewards and still choose badly; the half that did not choose does not share
    the errors of the one that did. Values are those of messages, before costs; every action counts as eligible, as the
    rows do not say which were. The assumption is that the slopes of both halves are the same but for their noise;
    priors shrink those that value the policies, which is on the side of less.

    Cross-fitted values of targeting: Yadlowsky, Fleming, Shah, Brunskill & Wager (2021), "Evaluating treatment
    prioritization rules via rank-weighted average treatment effects", arXiv 2111.07966.

    Args:
        design: The columns.
        heads: The best estimates by what each half of the users taught.
        contexts: Contexts (n, D) of each half's messages.
    """
    if design.each == 1:
        return 1.0  # no slopes
    total = torch.zeros(len(WEIGHTS), dtype=torch.float64)
    for fold, every in enumerate(contexts):
        x = every[:: max(len(every) // CONTEXTS, 1)]
        judging = Effects.build(design, heads[fold], x, None)
        for place, weight in enumerate(WEIGHTS):
            total[place] += _value(design, heads[1 - fold], weight, heads[fold], judging, x)
    return WEIGHTS[int(total.argmax())]


def _value(design: Design, choosing: Heads, weight: float, heads: Heads, judging: Effects, x: Tensor) -> float:
    """Return the mean value, by some heads and their effects, of the messages that others choose."""
    scaled = choosing.value.clone()
    scaled[:ALL_SENDS] = torch.stack([design.scale_slopes(head, weight) for head in scaled[:ALL_SENDS]])
    choosing = replace(choosing, value=scaled)
    modules, prices = design.modules, flat_prices(design.modules, None)
    eligible = tuple(torch.ones(count, len(x), dtype=torch.bool) for count in design.cells)
    no_costs = torch.zeros(len(heads.hazard))
    slots = Slots(modules, eligible, no_costs, prices)
    shares = preferred_shares(slots, choosing, Effects.build(design, choosing, x, None), [0.0] * len(modules))
    channels = PolicyMeans(modules, judging, shares, heads.tested.float(), prices).of_cells(0)
    earned = value_of(heads, channels, no_costs)[0] * shares[0]
    return float(earned.sum(0).double().mean())
