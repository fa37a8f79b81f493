"""What to change in the settings of constraints that cannot be kept."""

from __future__ import annotations

from crosschannel.agents.constraints.prices import InfeasibleBudget
from crosschannel.agents.constraints.settings import MESSAGES, Constraints, CostLimit

#: Numbers that are advised are larger by this share, so that they suffice after rounding to four digits.
ROUNDED_UP = 1e-3


def in_settings(error: InfeasibleBudget, constraints: Constraints) -> InfeasibleBudget:
    """Return the error with remedies in the units of the settings, in place of amounts of one decision time.

    Args:
        error: The error, whose budgets are those of the constraints, in their order.
        constraints: The constraints.
    """
    events = {limit.event: limit for limit in constraints.cost_events}
    amounts = {budget.name: budget.amount for budget in constraints.budgets}
    remedies = []
    for name, allowed, needed in zip(constraints.names, error.budgets, error.feasible, strict=True):
        factor = float(needed / allowed) * (1.0 + ROUNDED_UP) if allowed > 0.0 else None
        if name not in error.names:
            continue
        if name in events:
            remedies.append(_for_event(events[name], factor))
        elif name in amounts:
            remedies.append(_for_amount(f"the amount of the budget {name!r}", amounts[name], factor))
        else:
            remedies.append(_for_amount(f"`{MESSAGES}`", constraints.messages_per_week or 0.0, factor))
    other = (
        "" if error.floor is None else f"; or lower `agent.settings.floor` to {error.floor * (1.0 - ROUNDED_UP):.4g}"
    )
    return error.with_remedy(
        f"These amounts are of one decision time, all its users together. In the settings, {'; and '.join(remedies)}"
        f"{other}"
    )


def _for_amount(name: str, amount: float, factor: float | None) -> str:
    """Return how much is enough of what has to be `factor` times as much; None where it allows nothing."""
    return f"raise {name} above 0" if factor is None else f"raise {name} from {amount:g} to {amount * factor:.4g}"


def _for_event(limit: CostLimit, factor: float | None) -> str:
    """Return the same of a limit on an event, of which the rate without messages takes a part."""
    more = "above the rate without messages"
    if factor is not None:
        more = f"that leaves {factor:.4g} times as much above the rate without messages"
    less = -1.0 if factor is None else 1.0 - factor * (1.0 - limit.margin)
    margin = f", or lower its `margin` from {limit.margin:g} to {less:.4f}" if less >= ROUNDED_UP else ""
    if limit.at_most == "log":
        return f"the log's rate of {limit.event!r} is a fact: give `at_most` as a number {more}{margin}"
    return f"raise `at_most` of {limit.event!r} from {limit.at_most:g} to a number {more}{margin}"
