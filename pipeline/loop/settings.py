"""Settings of learning day by day."""

from __future__ import annotations

from dataclasses import dataclass

from crosschannel.core.errors import ConfigError
from crosschannel.core.times import duration


@dataclass(frozen=True)
class UpdateConfig:
    """How a policy in use learns from what came since.

    Attributes:
        every: Time from one update to the next, from the first decision of the log on.
        growth: Growth of the days after which all is fitted anew. With .25 that is after 1 to 5 days, then 7, 9, 12,
            15, 19, 24, 30 and so on. In between each day is added to the sums of the last fit.
        longest: Longest time between two such fits.
        memory: How long a decision is learned from.
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
            raise ConfigError(f"growth is {self.growth}: it is at least 0 (all is fitted anew every day)")
        if self.keep < 1:
            raise ConfigError(f"keep is {self.keep}: at least the last policy is kept")


def refits(slots: int, growth: float, longest: int) -> list[int]:
    """Return the numbers of closed slots, up to and including `slots`, after which all is fitted anew, ascending.

    Args:
        slots: Number of slots since the first.
        every: Time from one update to the next, from the first decision of the log on.
        growth: Growth of their number between two fits.
        longest: Largest number of slots between two fits.
    """
    found, k = list[int](), 1
    while k <= slots:
        found.append(k)
        k = min(max(k + 1, int(k * (1.0 + growth))), k + longest)
    return found
