"""The market's settings: its actions and events, the parameters of its scenarios, and what a simulation consists of."""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np

from histories.errors import ConfigError, nearest
from histories.modules import FloatArray, Module, Modules
from histories.times import DAY, HOUR
from reward.goals import Goal

CHANNELS = ("none", "email", "push", "sms", "in_app")
BLOCKS = ("morning", "midday", "afternoon", "evening", "night")
SERVICES = ("food", "groceries", "rides", "payments")
TONES = ("plain", "friendly", "urgent")

IN_APP = CHANNELS.index("in_app")
DAY_SECONDS = 86_400

#: Second of the slot's day at which each block begins, and the day's end: 06-10, 10-14, 14-18, 18-22 and 22-06 UTC.
BLOCK_BOUNDS = (0, 14_400, 28_800, 43_200, 57_600, DAY_SECONDS)

#: Market day 0 begins on Monday 2024-01-01 at 06:00 UTC; the slot of day d is at `START + d * DAY`.
START = 19_723 * DAY + 6 * HOUR

EVENTS = (
    *(f"visit:{service}" for service in SERVICES),
    *(f"order:{service}" for service in SERVICES),
    "delivered",
    *(f"opened:{channel}" for channel in CHANNELS[1:]),
    "clicked",
    "unsubscribed",
)
VISIT, ORDER = EVENTS.index("visit:food"), EVENTS.index("order:food")
DELIVERED, OPENED = EVENTS.index("delivered"), EVENTS.index("opened:email")
CLICKED, UNSUBSCRIBED = EVENTS.index("clicked"), EVENTS.index("unsubscribed")

#: What is counted a day: every event, the orders' values (`BASKET + s`), and messages by channel (`SENT + c - 1`).
BASKET = len(EVENTS)
SENT = BASKET + len(SERVICES)
N_COLUMNS = SENT + len(CHANNELS) - 1

MODULES = Modules(
    [Module("channel", CHANNELS), Module("send_time", BLOCKS), Module("service", SERVICES), Module("tone", TONES)]
)


@dataclass(frozen=True)
class Dynamics:
    """The parameters of a market: a scenario is one such set. Tuples are by channel, service or block.

    Attributes:
        popularity: Mean organic visits a day of each service that belong to the user.
        common: Mean visits a day of each service that all users have in common, and that move with the calendar.
        shock: Standard deviation of the logarithm of the daily shock to the common visits.
        conversion: Probability that a visit ends in an order.
        basket: Smallest and largest order value; values are whole numbers, all equally likely.
        open_intercept: Log odds of opening on each channel but `none`.
        time_match: Change of the log odds of opening in the user's best block (minus half of it elsewhere).
        fatigue_open: Fall of the log odds of opening per unit of fatigue (phi).
        fatigue_unsubscribe: Rise of the log hazard of unsubscribing per unit of fatigue (gamma).
        fatigue_kept: Share of fatigue that is left after a day.
        uplift: Mean extra visits per opened message at average taste and tone (kappa).
        hazard: Hazard of unsubscribing per delivered message on each channel but `none`.
    """

    popularity: tuple[float, ...] = (0.13, 0.09, 0.11, 0.08)
    common: tuple[float, ...] = (0.06, 0.04, 0.05, 0.03)
    shock: float = 0.3
    conversion: tuple[float, ...] = (0.22, 0.26, 0.20, 0.30)
    basket: tuple[tuple[int, int], ...] = ((8, 40), (15, 95), (5, 35), (5, 60))
    open_intercept: tuple[float, ...] = (-1.3, -1.0, -0.6, 1.0)
    time_match: float = 1.0
    fatigue_open: float = 0.35
    fatigue_unsubscribe: float = 0.5
    fatigue_kept: float = 0.8
    uplift: float = 0.75
    hazard: tuple[float, ...] = (0.0045, 0.0060, 0.0100, 0.0040)


SCENARIOS: dict[str, Dynamics] = {
    # Messages help or harm depending on user, channel, time, service and tone; a correct method finds the
    # truth that the market tells, and DiD with a pre window of two days has parallel trends in levels.
    "default": Dynamics(),
    # Messages are delivered and opened, but cause no visit, no order and no unsubscribe: a correct method finds
    # nothing, although messaged users are more active than others.
    "null": replace(Dynamics(), uplift=0.0, hazard=(0.0,) * (len(CHANNELS) - 1)),
}

DEFAULT_GOALS = (Goal("order:*", 1.0), Goal("visit:*", 0.1), Goal("unsubscribed", -3.0))


@dataclass(frozen=True)
class MarketConfig:
    """What is simulated.

    Attributes:
        users: Users of the market's history.
        days: Days with a decision slot, at least 2.
        warmup_days: Days of organic behaviour before the first slot, at least 2.
        seed: Seed of the calendar and of the history's users.
        scenario: Name of the market's parameters, one of `SCENARIOS`.
        min_gap_days: After a message nothing may be sent on so many days.
        goals: What counts, with which weight.
    """

    users: int = 20_000
    days: int = 28
    warmup_days: int = 14
    seed: int = 0
    scenario: str = "default"
    min_gap_days: int = 2
    goals: tuple[Goal, ...] = DEFAULT_GOALS

    def __post_init__(self) -> None:
        for name, least in (("users", 1), ("days", 2), ("warmup_days", 2), ("min_gap_days", 0), ("seed", 0)):
            if getattr(self, name) < least:
                raise ConfigError(f"market {name} {getattr(self, name)} is below {least}: give at least {least}")
        if self.scenario not in SCENARIOS:
            hint = nearest(self.scenario, SCENARIOS)
            raise ConfigError(f"there is no market scenario {self.scenario!r}. {hint}")
        goal_weights(self.goals)

    @property
    def horizon(self) -> int:
        """How many days are simulated, warm-up included."""
        return self.warmup_days + self.days

    @property
    def dynamics(self) -> Dynamics:
        """The scenario's parameters."""
        return SCENARIOS[self.scenario]


def goal_weights(goals: tuple[Goal, ...]) -> FloatArray:
    """What one unit of each daily count is worth, (N_COLUMNS,), in reward units.

    Raises:
        ConfigError: If a goal names no event of the market, or is clipped or fades: such a sum has no closed-form mean.
    """
    weights = np.zeros(N_COLUMNS)
    for goal in goals:
        prefix = goal.event[:-1] if goal.event.endswith("*") else None
        meant = [i for i, name in enumerate(EVENTS) if name == goal.event or (prefix and name.startswith(prefix))]
        if not meant:
            raise ConfigError(f"the market has no event {goal.event!r}. {nearest(goal.event, EVENTS)}")
        if goal.clip is not None or goal.winsor is not None or goal.credit != "uniform":
            raise ConfigError(
                f"goal {goal.event!r} has a clip, a winsor quantile or fading credit: "
                "the market's true effects exist only without them"
            )
        for event in meant:
            valued = goal.measure == "value" and ORDER <= event < ORDER + len(SERVICES)
            weights[event - ORDER + BASKET if valued else event] += goal.weight
    return weights
