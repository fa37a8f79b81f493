"""The declaration of a randomised trial: when it starts, how long it lasts, what is compared, and how."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Literal

from crosschannel.core.errors import ConfigError
from crosschannel.core.times import DAY, duration, parse_moment
from crosschannel.histories.goals import Goal

#: Most looks of a trial: one a day for more than half a year, one an hour for more than a week.
MAX_LOOKS = 200
#: What is compared where nothing is declared, of the arms that the log has; the first pair is the primary one.
DEFAULT_PAIRS = (
    ("agent", "business_as_usual"),
    ("agent", "holdout"),
    ("business_as_usual", "holdout"),
)


@dataclass(frozen=True)
class TrialConfig:
    """How a randomised trial of arms is read; declare it before the trial starts.

    Attributes:
        start: When the trial starts, in UTC. None: with the first decision that has an arm, or the first of
            `history.decided`.
        days: Declared length of the trial (the horizon). What happens later does not count.
        alpha: Probability that a comparison without any effect has a significant outcome, over all looks and goals.
        compare: Pairs of arms such as `agent:business_as_usual`, the arm of interest first. The first pair is the
            primary one. None are named: agent, business_as_usual and holdout, as far as the log has them.
        shares: Share of the users that each arm was meant to have, for the test of the sample ratio.
        goals: What is compared, in the form of `reward.goals`; each event is an outcome of its own. None are named:
            those of the reward.
        looks: How the trial may be looked at. `group_sequential`: at any time up to the declared end. `once`: at the
            end only. `confidence_sequence`: without an end, over users whose `follow_up` has closed.
        every: Time between two looks that count as taken. All looks up to the last one, unless `--previous` names those
            that there were.
        follow_up: How long each user is followed from the enrolment on, for `looks: confidence_sequence`.
        planned_users: Number of users at which the confidence sequence is narrowest. None: those who are in the trial
            when it starts.
        enrolment: When a user enters. With the start or when `observed` for the first time, whichever is later; or with
            the `first_decision` that has an arm, for a trial of one decision a user.
        pre: Length of the period before, whose outcomes adjust for what users are like (CUPED). None adjusts for
            nothing.
        strata: Attributes of the users by which means are post-stratified.
        segments: Attributes of the users by which lifts are shown as exploratory.
        cluster: Attribute of the users, such as household, whose users depend on each other. None: users are
            independent.
    """

    start: str | None = None
    days: float = 28.0
    alpha: float = 0.05
    compare: tuple[str, ...] = ()
    shares: Mapping[str, float] = field(default_factory=dict)
    goals: tuple[Goal, ...] = ()
    looks: Literal["group_sequential", "once", "confidence_sequence"] = "group_sequential"
    every: str = "1d"
    follow_up: str | None = None
    planned_users: int | None = None
    enrolment: Literal["observed", "first_decision"] = "observed"
    pre: str | None = "28d"
    strata: tuple[str, ...] = ()
    segments: tuple[str, ...] = ()
    cluster: str | None = None

    def __post_init__(self) -> None:
        if self.start is not None:
            parse_moment(self.start)
        if not 0 < self.days < math.inf:
            raise ConfigError(f"days {self.days} is not a positive number")
        if not 0 < self.alpha < 0.5:
            raise ConfigError(f"alpha {self.alpha} is not between 0 and 0.5")
        if self.length / duration(self.every) > MAX_LOOKS:
            raise ConfigError(
                f"every {self.every!r} gives more than {MAX_LOOKS} looks in {self.days:g} days: look more rarely"
            )
        if self.pre is not None:
            duration(self.pre)
        self._check_arms()
        if self.looks == "confidence_sequence" and self.follow_up is None:
            raise ConfigError(
                "looks: confidence_sequence needs `follow_up`, such as 28d: users enter the sequence once each, when "
                "they have been followed that long. Over days of the same users no confidence sequence is valid: what "
                "a user does tomorrow resembles what the user did today, so that days are not the independent "
                "increments that the sequence assumes. Declare `follow_up`, or use looks: group_sequential"
            )
        if self.follow_up is not None:
            duration(self.follow_up)
            if self.looks != "confidence_sequence":
                raise ConfigError(f"follow_up is for looks: confidence_sequence, and looks is {self.looks!r}")

        if self.planned_users is not None and self.planned_users < 1:
            raise ConfigError(f"planned_users {self.planned_users} is not a positive number")

    def _check_arms(self) -> None:
        pairs = self.pairs
        if len(set(pairs)) < len(pairs):
            raise ConfigError(f"compare names a pair twice: {list(self.compare)}")
        for arm, share in self.shares.items():
            if not 0 < share < 1:
                raise ConfigError(f"shares: that of {arm!r} is {share}: a share lies between 0 and 1")
        if self.shares and abs(sum(self.shares.values()) - 1) > 1e-9:
            raise ConfigError(f"the shares {dict(self.shares)} do not add up to 1")

    @property
    def length(self) -> int:
        """Declared length in microseconds."""
        return round(self.days * DAY)

    @property
    def pairs(self) -> tuple[tuple[str, str], ...]:
        """The declared pairs of arms, the arm of interest first."""
        found = []
        for text in self.compare:
            treated, _, control = text.partition(":")
            if not treated or not control or ":" in control or treated == control:
                raise ConfigError(f"compare: {text!r} is not a pair of two arms, such as agent:business_as_usual")
            found.append((treated, control))
        return tuple(found)

    def pairs_among(self, arms: tuple[str, ...]) -> tuple[tuple[str, str], ...]:
        """Return the pairs to compare, given the arms that the log has.

        Raises:
            ConfigError: If a declared arm is not in the log, or none is declared and the log's are not known.
        """
        for name in {name for pair in self.pairs for name in pair} | set(self.shares):
            if name not in arms:
                raise ConfigError(f"no user of the log has the arm {name!r}; its arms are {list(arms)}")
        found = self.pairs or tuple(pair for pair in DEFAULT_PAIRS if set(pair) <= set(arms))
        if not found:
            raise ConfigError(
                f"the log's arms are {list(arms)}: name what to compare, such as trial.compare "
                f"{':'.join(arms[:2]) if len(arms) > 1 else 'treated:control'}"
            )
        return found
