"""The market's named scenarios: the parameters of each, and what a correct method must find there."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field, replace

import numpy as np

from crosschannel.core.arrays import BoolArray, IntArray
from crosschannel.core.errors import ConfigError
from crosschannel.envs.market.vocabulary import CHANNELS, MODULES

#: Slots after the first from which the scenario `refresh` has its new actions.
REFRESHED = 14


@dataclass(frozen=True)
class Dynamics:
    """How users behave and respond. Tuples are by channel, service or block.

    Attributes:
        popularity: Mean organic visits a day of each service that belong to the user.
        common: Mean visits a day of each service that all users have in common, and that move with the calendar.
        shock: Standard deviation of the logarithm of the daily shock to the common visits.
        conversion: Probability that a visit ends in an order.
        basket: Smallest and largest order value; values are whole numbers, all equally likely.
        open_intercept: Log odds of opening on each channel but `none`.
        time_match: Change of the log odds of opening in the user's best block (minus half of it elsewhere).
        weekend_match: Standard deviation of the users' change of the log odds of opening at weekends.
        fatigue_open: Fall of the log odds of opening per unit of fatigue (phi).
        fatigue_unsubscribe: Rise of the log hazard of unsubscribing per unit of fatigue (gamma).
        fatigue_kept: Share of fatigue that is left after a day.
        uplift: Mean extra visits per opened message at average taste and content (kappa).
        drift: How far the draw of messages about food and rides falls, and that of the other services rises, over
            four weeks: from `exp(drift)` to `exp(-drift)` times its mean.
        hazard: Hazard of unsubscribing per delivered message on each channel but `none`.
    """

    popularity: tuple[float, ...] = (0.12, 0.09, 0.11, 0.08)
    common: tuple[float, ...] = (0.05, 0.04, 0.05, 0.03)
    shock: float = 0.3
    conversion: tuple[float, ...] = (0.20, 0.26, 0.20, 0.30)
    basket: tuple[tuple[int, int], ...] = ((8, 40), (15, 95), (5, 35), (5, 60))
    open_intercept: tuple[float, ...] = (-1.3, -1.0, -0.6, 1.0)
    time_match: float = 1.0
    weekend_match: float = 0.3
    fatigue_open: float = 0.35
    fatigue_unsubscribe: float = 0.5
    fatigue_kept: float = 0.8
    uplift: float = 0.55
    drift: float = 0.0
    hazard: tuple[float, ...] = (0.0045, 0.0060, 0.0100, 0.0040)


@dataclass(frozen=True)
class Rules:
    """What business as usual does: see `envs.market.policies.BusinessAsUsual`.

    Attributes:
        limits: Visits in `[t - 14 d, t - 2 d)` from which the second and the third segment begin.
        send: Probability of sending in each segment.
        quiet: Factors on it for users with a visit in the two days before the slot, and for those without.
        channel: Preference for each channel but `none`, where push does not reach the user and where it does.
        send_time: Preference for each block.
        favourite: Probability that the most visited service is chosen as such.
        offer: Preference for each offer.
        tone: Preference for each tone.
        greeting: Preference for each greeting.
    """

    limits: tuple[int, int] = (5, 12)
    send: tuple[float, float, float] = (0.12, 0.25, 0.45)
    quiet: tuple[float, float] = (1.0, 1.0)
    channel: tuple[tuple[float, ...], tuple[float, ...]] = ((0.60, 0.00, 0.20, 0.20), (0.30, 0.40, 0.14, 0.16))
    send_time: tuple[float, ...] = (0.32, 0.17, 0.17, 0.17, 0.17)
    favourite: float = 0.4
    offer: tuple[float, ...] = (0.28, 0.18, 0.18, 0.18, 0.18)
    tone: tuple[float, ...] = (0.34, 0.22, 0.22, 0.22)
    greeting: tuple[float, ...] = (0.34, 0.33, 0.33)


@dataclass(frozen=True)
class Dates:
    """When an action can be chosen.

    Attributes:
        module: The module's name, not that of the first.
        action: The action's name; action 0 of a module has no dates, so that there is always something to choose.
        start: First slot at which it is eligible, counted from the first slot.
        end: First slot at which it no longer is; None: never.
    """

    module: str
    action: str
    start: int = 0
    end: int | None = None

    def __post_init__(self) -> None:
        if self.module not in MODULES.names[1:] or self.action not in MODULES[self.module].actions[1:]:
            raise ConfigError(
                f"dates are given for {self.module!r}, {self.action!r}: name an action of {list(MODULES.names[1:])} "
                "that is not the module's first"
            )


@dataclass(frozen=True)
class Scenario:
    """A market's parameters.

    Attributes:
        dynamics: How users behave and respond.
        rules: What business as usual does.
        dates: When actions can be chosen, of those that cannot always be.
    """

    dynamics: Dynamics = field(default_factory=Dynamics)
    rules: Rules = field(default_factory=Rules)
    dates: tuple[Dates, ...] = ()

    def offered(self, slot: IntArray) -> BoolArray:
        """Which actions of all modules can be chosen (N, sum of actions) at the slots of these numbers (N,)."""
        start, end = np.zeros(MODULES.total, dtype=np.int64), np.full(MODULES.total, np.iinfo(np.int64).max)
        for dates in self.dates:
            m = MODULES.names.index(dates.module)
            column = MODULES.slices[m].start + MODULES[m].actions.index(dates.action)
            start[column] = dates.start
            end[column] = end[column] if dates.end is None else dates.end
        at = np.asarray(slot)[:, None]
        return np.asarray((start <= at) & (at < end))


def default() -> Scenario:
    """Messages help or harm depending on user, channel, time, service and content.

    A correct method finds the truth that the market tells: DiD with windows of two days before and one day after has
    parallel trends in levels, because business as usual does not look at the two days before the slot. A comparison
    of levels finds far too much, as active users get more messages. A good policy leaves users of habit alone.
    """
    return Scenario()


def null() -> Scenario:
    """Messages are delivered and opened, but cause no visit, no order and no unsubscribe.

    A correct method finds nothing, although messaged users are more active than others: intervals of the effect
    include zero, and no policy is worth more than sending nothing.
    """
    return Scenario(replace(Dynamics(), uplift=0.0, hazard=(0.0,) * (len(CHANNELS) - 1)))


def dip() -> Scenario:
    """Business as usual sends to those who were quiet for two days; effects are those of the default scenario.

    A quiet user is back at the usual level the next day, with or without a message. `did` takes this for an effect
    and is biased upwards, and its pre-trend test must say so. `did_dr`, given what triggers the messages, by logged
    propensities or by the counts of the last two days among its covariates, finds the truth.
    """
    return Scenario(rules=replace(Rules(), quiet=(0.25, 1.6)))


def fatigue() -> Scenario:
    """Fatigue outlasts the reward's window by weeks: half of it is left after nine days, and it spoils every opening.

    The effect of a single message at its slot is still found by DiD, and a policy that maximises it over-sends. A
    correct sequential method sends less than the myopic oracle and ends higher: `far_sighted` is the reference, the
    exact optimum. Off-policy values of one step say nothing about such a policy.
    """
    return Scenario(replace(Dynamics(), fatigue_open=0.9, fatigue_unsubscribe=0.25, fatigue_kept=0.93))


def drift() -> Scenario:
    """Tastes move: messages about food and rides begin strong and end weak, those about the other services reverse.

    A correct method finds effects by period that move as the truth does, and a mean over all periods for what it is.
    What was learned in the first two weeks is wrong in the last two: methods that forget, or learn time, end higher.
    """
    return Scenario(replace(Dynamics(), drift=0.8))


def refresh() -> Scenario:
    """Two weeks after the first slot a marketer retires three actions and brings three new ones.

    `percent_20`, `urgent` and `by_name` end; `free_delivery`, `playful` and `wave` begin. The mask of eligible
    actions says so at every slot, and nothing ineligible is ever in the log. A correct method goes on with what it
    knows of the actions that stay, never counts on retired ones, and learns the new ones fast: they share labels
    (`Module.labels`) with old ones, and users respond to labels.
    """
    retired = (("offer", "percent_20"), ("tone", "urgent"), ("greeting", "by_name"))
    new = (("offer", "free_delivery"), ("tone", "playful"), ("greeting", "wave"))
    return Scenario(
        dates=(
            *(Dates(module, action, end=REFRESHED) for module, action in retired),
            *(Dates(module, action, start=REFRESHED) for module, action in new),
        )
    )


SCENARIOS: dict[str, Callable[[], Scenario]] = {
    build.__name__: build for build in (default, null, dip, fatigue, drift, refresh)
}
