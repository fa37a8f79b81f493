"""Calendar of the market: weekly and daily seasonality and daily shocks, the same for every user."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from crosschannel.core.arrays import FloatArray, IntArray
from crosschannel.core.hashing import mix
from crosschannel.core.times import DAY
from crosschannel.envs.market.dynamics.draws import Purpose, normal
from crosschannel.envs.market.dynamics.parameters import Dynamics
from crosschannel.envs.market.vocabulary import SERVICES, START

#: Share of a day's common visits in each block, by service: meals, errands, commutes, bills.
DAILY_PROFILE = (
    (0.10, 0.30, 0.15, 0.35, 0.10),
    (0.25, 0.20, 0.25, 0.25, 0.05),
    (0.35, 0.10, 0.20, 0.25, 0.10),
    (0.20, 0.30, 0.25, 0.20, 0.05),
)
#: Level of each day of the week, Monday first, by service.
WEEKLY_PROFILE = (
    (0.85, 0.85, 0.90, 1.00, 1.25, 1.25, 0.90),
    (0.90, 0.85, 0.85, 0.90, 1.10, 1.30, 1.10),
    (1.10, 1.10, 1.10, 1.15, 1.20, 0.75, 0.60),
    (1.30, 1.10, 1.00, 1.00, 1.10, 0.75, 0.75),
)

#: Direction in which the appeal of messages about each service drifts.
_DRIFT_DIRECTION = (1.0, -1.0, 1.0, -1.0)
#: Market day at which the drift begins, and days until it is reversed.
_DRIFT_FIRST_DAY, _DRIFT_DAYS = 14, 28


def slot_time(day: IntArray) -> IntArray:
    """Return the times, in microseconds since 1970 UTC, of the slots of market days (n,)."""
    return np.asarray(START + np.asarray(day, dtype=np.int64) * DAY)


@dataclass(frozen=True)
class Calendar:
    r"""Visits and appeal of messages by day, common to all users.

    .. math::
        C_s(d, b) &= c_s \, W_s(d \bmod 7) \, D_s(b) \, \exp(\sigma z_{s,d} - \sigma^2 / 2) \ge 0 \\
        G_s(d) &= \exp(\pm \delta \cos(\pi (d - 14) / 28))

    with level c_s, weekly profile W, daily profile D, shocks z that are standard normal hashes of the market's seed,
    the service and the day, and a drift that reverses the appeal G of messages about a service within four weeks.

    Attributes:
        common: Visits :math:`C_s(d, b)`, (days, services, blocks).
        appeal: Factors :math:`G_s(d)` on the extra visits of an opened message, (days, services).
    """

    common: FloatArray
    appeal: FloatArray

    @classmethod
    def build(cls, dynamics: Dynamics, seed: int, days: int) -> Calendar:
        """Draw the calendar of a market's seed; a longer calendar begins with the days of a shorter one."""
        key = mix(np.array([seed], dtype=np.uint64))
        day = np.arange(days)
        shock = normal(key, Purpose.CALENDAR, 0, np.arange(len(SERVICES))[None, :], day[:, None])
        level = np.exp(dynamics.shock * shock - dynamics.shock**2 / 2) * np.array(WEEKLY_PROFILE).T[day % 7]
        common = (np.array(dynamics.common) * level)[:, :, None] * np.array(DAILY_PROFILE)[None]
        swing = np.cos(np.pi * (day - _DRIFT_FIRST_DAY) / _DRIFT_DAYS)
        return cls(common, np.exp(dynamics.drift * swing[:, None] * np.array(_DRIFT_DIRECTION)))
