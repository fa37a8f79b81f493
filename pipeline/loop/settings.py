"""Settings of learning day by day."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

from crosschannel.core.errors import ConfigError
from crosschannel.core.times import duration


@dataclass(frozen=True)
class UpdateConfig:
    """How a policy in use learns from what came since.

    Attributes:
        every: Time from one update to the next, from the first decision of the log on.
        growth: Growth of the days after which all is fitted again. With .25 that is after 1 to 8 days, then 10,
            12, 15, 18, 22, 27, 33 and so on. In between each day is added to the sums of the last fit.
        longest: Longest time between two such fits.
        memory: How long a decision is learned from. Counted when all is fitted again.
        revise: How far back late or corrected events change what was learned. Older ones count at the next fit.
        keep: Number of earlier policies that are kept for a roll-back.
    """

    every: str = "1d"
    growth: float = 0.25
    longest: str = "28d"
    memory: str = "56d"
    revise: str = "14d"
    keep: int = 30

    def __post_init__(self) -> None:
        for name in ("every", "longest", "memory", "revise"):
            duration(getattr(self, name))
        if self.growth < 0:
            raise ConfigError(f"growth is {self.growth}: it is at least 0 (all is fitted again every day)")
        if self.keep < 1:
            raise ConfigError(f"keep is {self.keep}: at least the last policy is kept")


@dataclass(frozen=True)
class ActionChange:
    """What marketers change on one day.

    Attributes:
        day: Day of the loop, 0 for the first.
        add: Actions that may be chosen from that day on, and not before, by module.
        retire: Actions that may not be chosen any more from that day on, by module.
    """

    day: int
    add: Mapping[str, tuple[str, ...]] = field(default_factory=dict)
    retire: Mapping[str, tuple[str, ...]] = field(default_factory=dict)


@dataclass(frozen=True)
class LoopConfig:
    """A simulated deployment: `crosschannel simulate`.

    Attributes:
        late: Share of the users who join after the first day.
        leaving: Probability that a user leaves on a day. Nothing is seen of the user from then on.
        marketers: What marketers add and retire, day by day.
        active_days: Days on which the policy learns. Later it is frozen, and with it the actions; none: it always
            learns.
    """

    late: float = 0.1
    leaving: float = 0.001
    marketers: tuple[ActionChange, ...] = ()
    active_days: int | None = None

    def __post_init__(self) -> None:
        for name in ("late", "leaving"):
            if not 0.0 <= getattr(self, name) < 1.0:
                raise ConfigError(f"{name} is {getattr(self, name)}: it lies from 0 to below 1")
        if any(change.day < 0 for change in self.marketers):
            raise ConfigError("marketers: days count from 0")
        if self.active_days is not None and self.active_days < 1:
            raise ConfigError(f"active_days is {self.active_days}: it is at least 1, or none")


def last_refit(slots: int, update: UpdateConfig) -> int:
    """Return the number of closed slots after which all is fitted again for the last time so far; 0 before the first.

    Args:
        slots: Number of slots since the first.
        update: The settings.
    """
    longest = max(duration(update.longest) // duration(update.every), 1)
    return max(refits(slots, update.growth, longest), default=0)


def refits(slots: int, growth: float, longest: int) -> list[int]:
    """Return the numbers of closed slots, up to and including `slots`, after which all is fitted again, ascending.

    Args:
        slots: Number of slots since the first.
        growth: Growth of their number between two fits.
        longest: Largest number of slots between two fits.
    """
    found, k = list[int](), 1
    while k <= slots:
        found.append(k)
        k = min(max(k + 1, int(k * (1.0 + growth))), k + longest)
    return found
