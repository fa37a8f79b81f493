"""Settings of constraints: limits on cost events, messages and budgets, typed and free of heavy imports."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal

from crosschannel.core.errors import ConfigError

#: Name of the constraint on messages, beside those of events and budgets.
MESSAGES = "messages_per_week"


@dataclass(frozen=True)
class CostLimit:
    """The most that an unwanted event, such as an unsubscribe, may be expected to follow messages.

    Attributes:
        event: The event's name.
        at_most: Events per user and week; or `log`, the rate in the log from the users' first decisions on.
        margin: Share of what the limit leaves to messages that the expected events do not use. A policy sends to other
            users, and more often, than the log did, where hazards are extrapolated and so understated.
    """

    event: str
    at_most: float | Literal["log"] = "log"
    margin: float = 0.2

    def __post_init__(self) -> None:
        if not self.event:
            raise ConfigError("a limit on a cost event has no name: give the event's, such as `unsubscribed`")
        if isinstance(self.at_most, str):
            if self.at_most != "log":
                raise ConfigError(f"{self.event!r}: at_most {self.at_most!r} is neither 'log' nor a number")
        else:
            _check_amount(self.at_most, f"{self.event!r}: at_most")
        if not 0.0 <= self.margin < 1.0:
            raise ConfigError(f"{self.event!r}: margin is {self.margin}: give a share from 0 to below 1")


@dataclass(frozen=True)
class Budget:
    """What messages may cost, in any unit.

    Attributes:
        name: The budget's name.
        amount: How much may be spent.
        costs: What an action of a module costs with each message, `{offer: {bonus: 2.5}, channel: {sms: 0.07}}`. Others
            cost nothing.
        per: What the amount is for: one user and `week`, or one `decision_time` with all its users.
    """

    name: str
    amount: float
    costs: Mapping[str, Mapping[str, float]]
    per: Literal["week", "decision_time"] = "week"

    def __post_init__(self) -> None:
        if not self.name:
            raise ConfigError("a budget has no name: give it one")
        place = f"budget {self.name!r}"
        _check_amount(self.amount, f"{place}: amount")
        for module, actions in self.costs.items():
            for action, cost in actions.items():
                _check_amount(cost, f"{place}: the cost of {module}.{action}")
        if not any(cost > 0.0 for actions in self.costs.values() for cost in actions.values()):
            raise ConfigError(f"{place}: no action costs anything: give `costs`, such as {{channel: {{sms: 0.07}}}}")
        if self.per not in ("week", "decision_time"):
            raise ConfigError(f"{place}: per {self.per!r} is neither 'week' nor 'decision_time'")


@dataclass(frozen=True)
class Constraints:
    """Limits on the policy's expected use, kept by shadow prices. Without any setting there is no constraint.

    Attributes:
        cost_events: Limits on unwanted events that messages cause, `{event: unsubscribed, at_most: log}`.
        messages_per_week: Most messages per user and week, on average over users. None for no limit.
        budgets: What messages may cost, `{name: sms, amount: 0.02, costs: {channel: {sms: 0.07}}}`.
        discount: Weight of a user's next slot, per slot, in the price of a message: a message closes slots after it,
            tires the user and may end the subscription. 0 counts only what the message itself does.
    """

    cost_events: tuple[CostLimit, ...] = ()
    messages_per_week: float | None = None
    budgets: tuple[Budget, ...] = ()
    discount: float = 0.0

    def __post_init__(self) -> None:
        if not 0.0 <= self.discount < 1.0:
            raise ConfigError(f"discount is {self.discount}: give a number from 0 to below 1")
        if self.messages_per_week is not None:
            _check_amount(self.messages_per_week, MESSAGES)
        if twice := sorted({name for name in self.names if self.names.count(name) > 1}):
            raise ConfigError(f"two constraints have the name {twice[0]!r}: name each cost event and budget once")

    @property
    def price_messages(self) -> bool:
        """Whether anything is charged for messages, so that the agent has to show its votes."""
        return bool(self.names) or self.discount > 0.0

    @property
    def names(self) -> tuple[str, ...]:
        """The constraints' names, in the order of their budgets, uses and prices: events, messages, budgets."""
        messages = () if self.messages_per_week is None else (MESSAGES,)
        return (*(one.event for one in self.cost_events), *messages, *(one.name for one in self.budgets))


def _check_amount(amount: float, what: str) -> None:
    if not 0.0 <= amount < math.inf:
        raise ConfigError(f"{what} is {amount}: give a finite number of at least 0, or leave the limit out")
