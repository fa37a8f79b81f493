"""Named scenarios of the market: their parameters, and what a correct method must find in each."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field, replace

import numpy as np

from crosschannel.core.arrays import BoolArray, IntArray
from crosschannel.core.errors import ConfigError
from crosschannel.envs.market.vocabulary import CHANNELS, MODULES

#: First slot of the scenario `refresh` with the new actions, counted from 0.
REFRESH_SLOT = 14


@dataclass(frozen=True)
class Dynamics:
    """Parameters of the users' behaviour and responses. Tuples are by channel, service or block.

    Attributes:
        popularity: Mean organic visits per day of each service that differ by user.
        common: Mean organic visits per day of each service that are the same for all users and vary with the calendar.
        shock: Standard deviation of the logarithm of the daily shock to the common visits.
        conversion: Probability that a visit ends in an order.
        basket: Smallest and largest order value; values are whole numbers, all equally likely.
        open_intercept: Log odds of opening on each channel except `none`.
        time_match: Change of the log odds of opening in the user's best block (minus half of it elsewhere).
        weekend_match: Standard deviation of the users' change of the log odds of opening at weekends.
        fatigue_open: Decrease of the log odds of opening per unit of fatigue (phi).
        fatigue_unsubscribe: Increase of the log hazard of unsubscribing per unit of fatigue (gamma).
        fatigue_retention: Share of fatigue that is left after a day (rho).
        uplift: Mean extra visits per opened message at average taste and content (kappa).
        drift: How far the appeal of messages about food and rides falls over four weeks, and that of the other services
            rises: from `exp(drift)` to `exp(-drift)` times its mean.
        hazard: Hazard of unsubscribing per delivered message on each channel except `none`.
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
    fatigue_retention: float = 0.8
    uplift: float = 0.55
    drift: float = 0.0
    hazard: tuple[float, ...] = (0.0045, 0.0060, 0.0100, 0.0040)


@dataclass(frozen=True)
class Rules:
    """Parameters of business as usual: see `envs.market.policies.BusinessAsUsual`.

    Attributes:
        limits: Smallest numbers of visits in `[t - 14 d, t - 2 d)` of the second and the third segment.
        send: Probability of sending in each segment.
        quiet: Factors on this probability for users with and without a visit in the two days before the slot.
        channel: Preference for each channel except `none`, for users whom push does not reach and for those it reaches.
        send_time: Preference for each block.
        favourite: Probability of the most visited service, on top of its share of a uniform choice.
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
class ActionDates:
    """Slots at which an action can be chosen.

    Attributes:
        module: The module's name; not the first module.
        action: The action's name; action 0 of a module has no dates, so that one action is always eligible.
        start: First slot at which the action is eligible, counted from 0.
        end: First slot at which it is no longer eligible; None means never.
    """

    module: str
    action: str
    start: int = 0
    end: int | None = None

    def __post_init__(self) -> None:
        if self.module not in MODULES.names[1:] or self.action not in MODULES[self.module].actions[1:]:
            raise ConfigError(
                f"dates are given for action {self.action!r} of module {self.module!r}: only actions of "
                f"{list(MODULES.names[1:])} that are not the module's first can have dates"
            )


@dataclass(frozen=True)
class Scenario:
    """Parameters of a market.

    Attributes:
        dynamics: Behaviour and responses of the users.
        rules: Parameters of business as usual.
        dates: Dates of the actions that cannot always be chosen.
    """

    dynamics: Dynamics = field(default_factory=Dynamics)
    rules: Rules = field(default_factory=Rules)
    dates: tuple[ActionDates, ...] = ()

    def offered(self, slot: IntArray) -> BoolArray:
        """Return which actions of all modules can be chosen (N, sum of actions) at slots (N,), counted from 0."""
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

    A correct method finds the true effects: DiD with windows of two days before and one day after has parallel trends
    in levels, because business as usual does not depend on the two days before the slot. A comparison of levels
    overstates the effects by far, as active users get more messages. A good policy sends little to habitual users.
    """
    return Scenario()


def null() -> Scenario:
    """Messages are delivered and opened, but cause no visit, no order and no unsubscribe.

    A correct method finds no effect, although users with messages are more active than others: intervals of the effect
    include zero, and no policy has a higher value than sending nothing.
    """
    return Scenario(replace(Dynamics(), uplift=0.0, hazard=(0.0,) * (len(CHANNELS) - 1)))


def dip() -> Scenario:
    """Business as usual targets users without a visit for two days; effects are those of the default scenario.

    Such a user is back at the usual level the next day, with or without a message (Ashenfelter's dip). `did` mistakes
    this for an effect and is biased upwards, and its pre-trend test must reject. `did_dr` finds the true effect if it
    is given what triggers the messages: logged propensities, or the counts of the last two days as covariates.
    """
    return Scenario(rules=replace(Rules(), quiet=(0.25, 1.6)))


def fatigue() -> Scenario:
    """Fatigue lasts weeks longer than the reward's window: half of it is left after nine days, and lowers open rates.

    DiD still finds the effect of a single message at its slot, but a policy that maximises this effect sends too much.
    A correct sequential method sends less than the myopic oracle and reaches a higher value: `far_sighted`, the exact
    optimum, is the reference. Off-policy estimates of one step do not apply to such a policy.
    """
    return Scenario(replace(Dynamics(), fatigue_open=0.9, fatigue_unsubscribe=0.25, fatigue_retention=0.93))


def drift() -> Scenario:
    """Tastes drift: messages about food and rides start strong and end weak, those about other services the reverse.

    A correct method finds effects by period that follow the true ones. What was learned in the first two weeks is wrong
    in the last two: methods that discount old data, or have time as a feature, reach a higher value.
    """
    return Scenario(replace(Dynamics(), drift=0.8))


def refresh() -> Scenario:
    """Two weeks after the first slot a marketer retires three actions and brings three new ones.

    `percent_20`, `urgent` and `by_name` end; `free_delivery`, `playful` and `wave` begin. The mask of eligible actions
    has these dates, and the log contains no ineligible action. A correct method keeps what it has learned about the
    other actions, never chooses retired ones, and learns the new ones fast: they share labels (`Module.labels`) with
    old ones, and users respond to labels.
    """
    retired = (("offer", "percent_20"), ("tone", "urgent"), ("greeting", "by_name"))
    new = (("offer", "free_delivery"), ("tone", "playful"), ("greeting", "wave"))
    return Scenario(
        dates=(
            *(ActionDates(module, action, end=REFRESH_SLOT) for module, action in retired),
            *(ActionDates(module, action, start=REFRESH_SLOT) for module, action in new),
        )
    )


SCENARIOS: dict[str, Callable[[], Scenario]] = {
    build.__name__: build for build in (default, null, dip, fatigue, drift, refresh)
}
