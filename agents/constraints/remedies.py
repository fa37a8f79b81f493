"""What to change in the settings of constraints that cannot be kept."""

from __future__ import annotations

from collections.abc import Mapping
from math import ceil, floor, log10

from crosschannel.agents.constraints.prices import InfeasibleBudget
from crosschannel.agents.constraints.settings import MESSAGES, Constraints, CostLimit

#: Numbers that are advised are larger by this share, so that they suffice after rounding to four digits.
ROUNDED_UP = 1e-3


def in_settings(
    error: InfeasibleBudget, constraints: Constraints, user_weeks: float, organic: Mapping[str, float]
) -> InfeasibleBudget:
    """Return the error with remedies in the units of the settings, in place of amounts of one decision time.

    Args:
        error: The error, whose budgets are those of the constraints, in their order.
        constraints: The constraints.
        user_weeks: Number of users of the decision time, times the weeks until the next one.
        organic: Events per user and week without a message, by name, those of `budgets_at`.
    """
    events = {limit.event: limit for limit in constraints.cost_events}
    amounts = {budget.name: budget.amount for budget in constraints.budgets}
    remedies = []
    for name, allowed, needed in zip(constraints.names, error.budgets, error.feasible, strict=True):
        factor = float(needed / allowed) * (1.0 + ROUNDED_UP) if allowed > 0.0 else None
        if name not in error.names:
            continue
        if name in events:
            least = float(needed) / user_weeks * (1.0 + ROUNDED_UP)
            remedies.append(_for_event(events[name], factor, least, organic.get(name, 0.0)))
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


def _for_event(limit: CostLimit, factor: float | None, least: float, organic: float) -> str:
    """Return how high a limit on an event has to be.

    Args:
        limit: The limit.
        factor: What messages may cause has to be this many times as much; None where they may cause nothing.
        least: What messages have to be allowed to cause, per user and week.
        organic: What happens without messages, per user and week.
    """
    enough = (
        f"{_up(organic + least / (1.0 - limit.margin)):.4g}, as {organic:.4g} per user and week happen without messages"
    )
    less = -1.0 if factor is None else 1.0 - factor * (1.0 - limit.margin)
    margin = f", or lower its `margin` from {limit.margin:g} to {less:.4f}" if less >= ROUNDED_UP else ""
    if limit.at_most == "log":
        return f"the log's rate of {limit.event!r} is a fact: give `at_most` as a number, at least {enough}{margin}"
    return f"raise `at_most` of {limit.event!r} from {limit.at_most:g} to at least {enough}{margin}"


def _up(number: float) -> float:
    """Return a number above 0 rounded up to four digits: what messages may cause may be a small part of it."""
    unit = 10.0 ** (floor(log10(number)) - 3)
    return ceil(number / unit) * unit
