"""How much of what is personal about actions' effects to follow: as much as policies that follow it earn."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import torch
from torch import Tensor

from crosschannel.agents.funnel.averages import PolicyMeans
from crosschannel.agents.funnel.design import Design
from crosschannel.agents.funnel.policy import Slots, flat_prices, preferred_shares
from crosschannel.agents.funnel.rows import FOLDS, FunnelRows
from crosschannel.agents.funnel.values import Effects, Heads

#: The weights that are tried.
WEIGHTS = (0.0, 0.1, 0.2, 0.3, 0.5, 0.75, 1.0)
#: Contexts of each half of the users at which the policies are valued.
CONTEXTS = 512
#: Standard errors by which a policy may earn less than the best, and by which one that follows slopes has to earn more
#: than one that does not.
MARGIN = 0.5


def personal_weight(
    design: Design, choosing: Sequence[Heads], judging: Sequence[Heads], contexts: Sequence[Tensor]
) -> float:
    r"""Return the weight of the slopes of actions' effects with which a greedy policy earns most.

    .. math:: V(s) = \tfrac12 \sum_{f} \overline{v_f\bigl(x, \arg\max_a v_{-f}^{(s)}(x, a)\bigr)}

    over the users of each half f, with :math:`v_f` the value by what half f taught, and :math:`v_{-f}^{(s)}` that by
    what the other half taught, with its slopes multiplied by s. Which action looks best is decided by errors as well as
    by effects, so that slopes may predict rewards and still choose badly; the half that did not choose does not share
    the errors of the one that did. The weight is the largest whose V is not below that of the best by more than
    `MARGIN` standard errors of the difference, from the posterior of the heads that judge: priors shrink these, and the
    halves know less than the whole, which both favour small weights. It is 0 where no V is above V(0) by as many
    standard errors: then the log does not tell that anything personal earns more than one message for all. Values are
    those of messages, before costs and without what surrogates miss; every action counts as eligible, as the rows do
    not say which were. The assumption is that the slopes of both halves are the same but for their noise.

    Cross-fitted values of targeting: Yadlowsky, Fleming, Shah, Brunskill & Wager (2021), "Evaluating treatment
    prioritization rules via rank-weighted average treatment effects", arXiv 2111.07966.

    Args:
        design: The columns.
        choosing: The best estimates by what each half of the users taught.
        judging: The same with draws from their posterior after the best estimates.
        contexts: Contexts (n, D) of messages of each half: see `contexts_to_judge`.
    """
    if design.each == 1:
        return 1.0  # no slopes
    total = torch.zeros(())
    for fold, x in enumerate(contexts):
        effects = Effects.build(design, judging[fold], x, None)
        earned = [_values(design, choosing[1 - fold], weight, judging[fold], effects, x) for weight in WEIGHTS]
        total = total + torch.stack(earned) / len(contexts)
    below, above = total[total[:, 0].argmax()] - total, total - total[0]
    near_the_best = below[:, 0] <= MARGIN * below[:, 1:].std(1)
    confirmed = above[:, 0] > MARGIN * above[:, 1:].std(1)
    followed = (near_the_best & confirmed).nonzero()
    return WEIGHTS[int(followed.max())] if len(followed) else 0.0


def contexts_to_judge(messages: FunnelRows) -> list[Tensor]:
    """Return the contexts (n, D) of at most `CONTEXTS` messages of each half, the first ones by `FunnelRows.order`.

    They are the same ones in whatever order the messages come and however the log is divided, and also where a hashed
    sample of the messages is at hand. Evenly spaced ones were others in each order.
    """
    order = torch.from_numpy(messages.order())
    fold = messages.fold[order]
    return [messages.x[order[fold == half][:CONTEXTS]] for half in range(FOLDS)]


def _values(design: Design, choosing: Heads, weight: float, heads: Heads, effects: Effects, x: Tensor) -> Tensor:
    """Return the mean values (V,), by some heads and their effects, of the messages that others choose."""
    choosing = replace(choosing, value=design.scale_slopes(choosing.value, weight))
    modules, prices = design.modules, flat_prices(design.modules, None)
    counts = (modules.n_table_cells(m) for m in range(len(modules)))
    eligible = tuple(torch.ones(count, len(x), dtype=torch.bool) for count in counts)
    no_costs = torch.zeros(len(heads.hazard))
    slots = Slots(modules, eligible, no_costs, prices)
    shares = preferred_shares(slots, choosing, Effects.build(design, choosing, x, None), [0.0] * len(modules))
    values = PolicyMeans(modules, effects, shares, heads.tested.float(), prices).values(heads, 0, no_costs)
    earned: Tensor = (values * shares[0]).sum(1).double().mean(1)
    return earned
