"""What happens in the market: organic visits and orders, and what messages bring about, as events of single users."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, fields
from typing import Any

import numpy as np
import numpy.typing as npt

from crosschannel.core.arrays import FloatArray, IntArray, UIntArray
from crosschannel.envs.market.dynamics.calendar import Calendar
from crosschannel.envs.market.dynamics.draws import Purpose, poisson, uniform
from crosschannel.envs.market.dynamics.responses import Response, organic_rates
from crosschannel.envs.market.dynamics.users import Users
from crosschannel.envs.market.scenarios import Dynamics
from crosschannel.envs.market.vocabulary import (
    BASKET,
    BLOCK_BOUNDS,
    BLOCKS,
    CLICKED,
    DAY_SECONDS,
    DELIVERED,
    N_COLUMNS,
    OPENED,
    ORDER,
    SERVICES,
    UNSUBSCRIBED,
    VISIT,
)

_BEGIN = np.array(BLOCK_BOUNDS[:-1], dtype=np.int64)
_LENGTH = np.diff(BLOCK_BOUNDS).astype(np.int64)
_LAST = DAY_SECONDS - 1
_HALF_HOUR, _TEN_MINUTES, _FIVE_MINUTES = 1800, 600, 300


@dataclass(frozen=True)
class Happenings:
    """Events, in no order; e of them.

    Attributes:
        row: Whose: a row of the users simulated (e,).
        day: Market day (e,).
        second: Second of that day, counted from the slot, from 1 to 86,399 (e,): no event falls on a slot.
        event: Codes into `EVENTS` (e,).
        value: 1, and whole amounts for orders (e,).
    """

    row: IntArray
    day: IntArray
    second: IntArray
    event: IntArray
    value: IntArray

    def __len__(self) -> int:
        return len(self.row)

    def tally(self, cell: IntArray, n: int) -> IntArray:
        """Counts and order values (n, N_COLUMNS) of the events in each cell, given the event's cell (e,)."""
        out = np.zeros((n, N_COLUMNS), dtype=np.int64)
        np.add.at(out, (cell, self.event), 1)
        orders = (self.event >= ORDER) & (self.event < ORDER + len(SERVICES))
        np.add.at(out, (cell[orders], self.event[orders] - ORDER + BASKET), self.value[orders])
        return out

    @classmethod
    def joined(cls, parts: Sequence[Happenings]) -> Happenings:
        """All events of several."""
        return cls(**{f.name: np.concatenate([getattr(part, f.name) for part in parts]) for f in fields(cls)})


def _events(row: IntArray, day: IntArray, second: IntArray, event: npt.ArrayLike, value: Any = 1) -> Happenings:
    shape = row.shape
    return Happenings(
        row,
        day,
        second,
        np.broadcast_to(np.asarray(event, dtype=np.int64), shape),
        np.broadcast_to(np.asarray(value, dtype=np.int64), shape),
    )


def _later(second: IntArray, u: FloatArray, within: int = DAY_SECONDS) -> IntArray:
    """Seconds after the given ones, within so many, still on the same day."""
    return np.asarray(second + np.floor(u * np.minimum(within, _LAST - second)).astype(np.int64))


def _numbered(counts: IntArray) -> tuple[IntArray, IntArray]:
    """For counts (n,): which entry each single item belongs to, and its number there, both (sum of counts,)."""
    entry = np.repeat(np.arange(len(counts)), counts)
    start = np.cumsum(counts) - counts
    return entry, np.arange(len(entry)) - start[entry]


def organic(users: Users, days: IntArray, dynamics: Dynamics, calendar: Calendar) -> Happenings:
    """Organic visits and orders of users (N,) on days (D,): what happens whether or not anything is sent."""
    services, blocks = np.arange(len(SERVICES)), np.arange(len(BLOCKS))
    rates = organic_rates(users, calendar.common[days][None])
    axes = days[:, None, None], services[:, None], blocks
    counts = poisson(uniform(users.key[:, None, None, None], Purpose.ORGANIC_VISITS, *axes), rates)
    row, d, service, block = np.nonzero(counts)
    entry, number = _numbered(counts[row, d, service, block])
    row, day, service, block = row[entry], days[d[entry]], service[entry], block[entry]
    counters = (day, service, block, number)
    key = users.key[row]
    u = uniform(key, Purpose.ORGANIC_TIME, *counters)
    second = _BEGIN[block] + 1 + np.floor(u * (_LENGTH[block] - 1)).astype(np.int64)
    visits = _events(row, day, second, VISIT + service)
    return Happenings.joined([visits, _orders(visits, key, Purpose.ORGANIC_ORDER, counters, dynamics)])


def _orders(
    visits: Happenings, key: UIntArray, purpose: Purpose, counters: tuple[Any, ...], dynamics: Dynamics
) -> Happenings:
    """The orders that visits end in; the visits' numbers stay below 2^14, so that three draws fit each."""
    day, first, second, number = counters

    def u(which: int, chosen: npt.NDArray[Any]) -> FloatArray:
        return uniform(key[chosen], purpose, day[chosen], first[chosen], second[chosen], number[chosen] * 4 + which)

    service = visits.event - VISIT
    every = np.arange(len(visits))
    chosen = every[u(0, every) < np.array(dynamics.conversion)[service]]
    low, high = np.array(dynamics.basket, dtype=np.int64)[service[chosen]].T.reshape(2, -1)
    value = low + np.floor(u(1, chosen) * (high - low + 1)).astype(np.int64)
    at = _later(visits.second[chosen], u(2, chosen), _HALF_HOUR)
    return _events(visits.row[chosen], visits.day[chosen], at, ORDER + service[chosen], value)


def caused(key: UIntArray, on: IntArray, actions: IntArray, response: Response, dynamics: Dynamics) -> Happenings:
    """What N messages bring about on their days, all of it before the next slot.

    Every draw depends on the user, the day and what it is for, not on the action: potential outcomes of several
    actions share their random numbers.

    Args:
        key: Keys of the users (N,).
        on: Market days (N,).
        actions: Actions that send something, where reachable (N, M).
        response: What they do there, arrays (N,).
        dynamics: The scenario's parameters.
    """
    row = np.arange(len(key))
    channel, block, service = actions[:, :3].T

    delivered = _BEGIN[block] + 1 + np.floor(uniform(key, Purpose.DELIVERED_TIME, on) * _TEN_MINUTES).astype(np.int64)
    left = np.flatnonzero(uniform(key, Purpose.UNSUBSCRIBED, on) < response.unsubscribed)
    left_at = _later(delivered[left], uniform(key[left], Purpose.UNSUBSCRIBED_TIME, on[left]))

    o = np.flatnonzero(uniform(key, Purpose.OPENED, on) < response.opened)
    opened = _later(delivered[o], uniform(key[o], Purpose.OPENED_TIME, on[o]))
    extra = poisson(uniform(key[o], Purpose.EXTRA_VISITS, on[o]), response.visits[o])

    entry, number = _numbered(extra)
    who = o[entry]
    first = number == 0
    u = uniform(key[who], Purpose.EXTRA_TIME, on[who], 0, 0, number)
    click = _later(opened[entry], u, _FIVE_MINUTES)
    second = np.where(first, click, _later(opened[entry], u))
    visits = _events(who, on[who], second, VISIT + service[who])
    nothing = np.zeros_like(number)
    orders = _orders(visits, key[who], Purpose.EXTRA_ORDER, (on[who], nothing, nothing, number), dynamics)
    return Happenings.joined(
        [
            _events(row, on, delivered, DELIVERED),
            _events(o, on[o], opened, OPENED + channel[o] - 1),
            _events(who[first], on[who[first]], click[first], CLICKED),
            visits,
            orders,
            _events(left, on[left], left_at, UNSUBSCRIBED),
        ]
    )
