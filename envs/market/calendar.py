"""The market's calendar: weekly and daily rhythm and daily shocks, the same for every user."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from envs.market.config import SERVICES, START, Dynamics
from envs.market.draws import Purpose, normal
from histories.hashing import mix
from histories.modules import FloatArray, IntArray
from histories.times import DAY

#: Share of a day's common visits in each block, by service: meals, errands, commutes, bills.
DAILY = (
    (0.10, 0.30, 0.15, 0.35, 0.10),
    (0.25, 0.20, 0.25, 0.25, 0.05),
    (0.35, 0.10, 0.20, 0.25, 0.10),
    (0.20, 0.30, 0.25, 0.20, 0.05),
)
#: Level of each day of the week, Monday first, by service.
WEEKLY = (
    (0.85, 0.85, 0.90, 1.00, 1.25, 1.25, 0.90),
    (0.90, 0.85, 0.85, 0.90, 1.10, 1.30, 1.10),
    (1.10, 1.10, 1.10, 1.15, 1.20, 0.75, 0.60),
    (1.30, 1.10, 1.00, 1.00, 1.10, 0.75, 0.75),
)


def slot_time(day: IntArray) -> IntArray:
    """Microseconds since 1970 UTC of the slots of market days (n,)."""
    return np.asarray(START + np.asarray(day, dtype=np.int64) * DAY)


@dataclass(frozen=True)
class Calendar:
    r"""Visits that all users have in common.

    .. math:: C_s(d, b) = c_s \, W_s(d \bmod 7) \, D_s(b) \, \exp(\sigma z_{s,d} - \sigma^2 / 2) \ge 0

    with level c_s, weekly rhythm W, daily rhythm D, and shocks z that are standard normal hashes of the market's
    seed, the service and the day.

    Attributes:
        common: Visits :math:`C_s(d, b)`, (days, services, blocks).
    """

    common: FloatArray

    @classmethod
    def of(cls, dynamics: Dynamics, seed: int, days: int) -> Calendar:
        """Draws the calendar of a market's seed; a longer one begins with the shorter one's days."""
        key = mix(np.array([seed], dtype=np.uint64))
        day = np.arange(days)
        shock = normal(key, Purpose.CALENDAR, 0, np.arange(len(SERVICES))[None, :], day[:, None])
        level = np.exp(dynamics.shock * shock - dynamics.shock**2 / 2) * np.array(WEEKLY).T[day % 7]
        common = (np.array(dynamics.common) * level)[:, :, None] * np.array(DAILY)[None]
        return cls(common)
