"""Parameters of a market: how its users behave, what business as usual does, and when actions can be chosen."""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np

from crosschannel.core.arrays import BoolArray, FloatArray, IntArray
from crosschannel.core.errors import ConfigError
from crosschannel.envs.market.vocabulary import MODULES, OFFERS, TONES


@dataclass(frozen=True)
class DayKind:
    """A kind of day in a user's life; each of a user's days is of one kind, drawn independently of all other days.

    Attributes:
        share: Probability of this kind.
        activity: Factor on the user's organic visits; its mean over the kinds is 1.
        opening: Change of the log odds of opening a message.
    """

    share: float = 1.0
    activity: float = 1.0
    opening: float = 0.0


@dataclass(frozen=True)
class ContentParts:
    """What the modules of content contribute to the extra visits, where contributions add up: see `responses`.

    Attributes:
        exponent: Exponent of the users' fits of offers, tones and greetings; 0 means that all users are alike in them.
        offer: Added to the contribution of each offer.
        tone: Added to the contribution of each tone.
        pair: An offer and a tone that interact, by name.
        synergy: Contribution of this pair beyond those of its offer and its tone.
    """

    exponent: float = 3.0
    offer: tuple[float, ...] = (0.0,) * len(OFFERS)
    tone: tuple[float, ...] = (0.0,) * len(TONES)
    pair: tuple[str, str] = ("no_offer", "plain")
    synergy: float = 0.0

    def __post_init__(self) -> None:
        for module, given, known in (("offer", self.offer, OFFERS), ("tone", self.tone, TONES)):
            if len(given) != len(known):
                raise ConfigError(f"content has contributions of {len(given)} {module}s: give {len(known)}")
        if self.pair[0] not in OFFERS or self.pair[1] not in TONES:
            raise ConfigError(f"the pair {self.pair} of content is not an offer and a tone of the market")


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
        unseen: Whether messages on each channel except `none` act unseen: they cause the same visits whether they are
            opened or not, since people read them without opening them, and come without clicking.
        open_logged: Whether the opening of a message on each channel except `none` is logged.
        mail_programs: Share of the users whose mail program opens every e-mail at once: this one opening is logged,
            whether or not the user opens the e-mail as well.
        day_kinds: Kinds of a user's days, which move organic visits and opening.
        opening_fit: Change of the log odds of opening per unit of the logarithm of the fits of tone and greeting; if it
            is not 0, they move opening and no longer the number of extra visits.
        conversion_fit: Exponent of the offer's fit as a factor on the conversion of extra visits; if it is not 0, the
            offers move conversion and no longer the number of extra visits.
        channel_gain: Factor on the extra visits by channel except `none`.
        visit_delay: Probability that an extra visit comes 0, 1, ... days after the message's day.
        order_delay: Probability that an order comes 0, 1, ... days after its visit, if that is not offline.
        offline: Share of the extra visits that happen outside the app: they are not logged, but their orders are, on
            the day of the visit.
        parts: Contributions of the modules of content to the extra visits; None where they are factors. With parts, who
            is in the app on the day of an in-app message can open it, whatever its block.
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
    unseen: tuple[bool, ...] = (False, False, False, False)
    open_logged: tuple[bool, ...] = (True, True, True, True)
    mail_programs: float = 0.0
    day_kinds: tuple[DayKind, ...] = (DayKind(),)
    opening_fit: float = 0.0
    conversion_fit: float = 0.0
    channel_gain: tuple[float, ...] = (1.0, 1.0, 1.0, 1.0)
    visit_delay: tuple[float, ...] = (1.0,)
    order_delay: tuple[float, ...] = (1.0,)
    offline: float = 0.0
    parts: ContentParts | None = None

    def __post_init__(self) -> None:
        if self.parts and (self.opening_fit or self.conversion_fit):
            raise ConfigError(
                "content has parts that add up, or fits that move opening or conversion: give one of them"
            )
        means = {
            "the shares of day_kinds": sum(kind.share for kind in self.day_kinds),
            "the mean activity of day_kinds": sum(kind.share * kind.activity for kind in self.day_kinds),
            "visit_delay": sum(self.visit_delay),
            "order_delay": sum(self.order_delay),
        }
        for name, total in means.items():
            if abs(total - 1.0) > 1e-9:
                raise ConfigError(f"{name} of the market's dynamics must be 1 in all, but is {total:.6g}")

    @property
    def last_day(self) -> int:
        """Number of days after a message's day on which its last order may come."""
        return len(self.visit_delay) + len(self.order_delay) - 2


@dataclass(frozen=True)
class Rules:
    """Parameters of business as usual: see `envs.market.policies.BusinessAsUsual`.

    Attributes:
        window: Days before the slot at which the window of the visits that the rules look at begins and ends.
        limits: Smallest numbers of visits in this window of the second and the third segment.
        send: Probability of sending in each segment.
        quiet: Factors on this probability for users with and without a visit in the two days before the slot.
        channel: Preference for each channel except `none`, for users whom push does not reach and for those it reaches.
        send_time: Preference for each block.
        favourite: Probability of the most visited service, on top of its share of a uniform choice.
        offer: Preference for each offer.
        tone: Preference for each tone.
        greeting: Preference for each greeting.
        templates: Offer, tone and preference of each template; if there are any, every message has the offer and the
            tone of one of them, in place of independent ones.
    """

    window: tuple[int, int] = (14, 2)
    limits: tuple[int, int] = (5, 12)
    send: tuple[float, float, float] = (0.12, 0.25, 0.45)
    quiet: tuple[float, float] = (1.0, 1.0)
    channel: tuple[tuple[float, ...], tuple[float, ...]] = ((0.60, 0.00, 0.20, 0.20), (0.30, 0.40, 0.14, 0.16))
    send_time: tuple[float, ...] = (0.32, 0.17, 0.17, 0.17, 0.17)
    favourite: float = 0.4
    offer: tuple[float, ...] = (0.28, 0.18, 0.18, 0.18, 0.18)
    tone: tuple[float, ...] = (0.34, 0.22, 0.22, 0.22)
    greeting: tuple[float, ...] = (0.34, 0.33, 0.33)
    templates: tuple[tuple[str, str, float], ...] = ()

    def __post_init__(self) -> None:
        for offer, tone, _ in self.templates:
            if offer not in OFFERS or tone not in TONES:
                raise ConfigError(f"the template {(offer, tone)} is not an offer and a tone of the market")

    @property
    def template_preferences(self) -> FloatArray:
        """Preference for each pair of an offer and a tone (offers, tones); 0 for pairs that no template has."""
        table = np.zeros((len(OFFERS), len(TONES)))
        for offer, tone, preference in self.templates:
            table[list(OFFERS).index(offer), list(TONES).index(tone)] += preference
        return table


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
