"""Simulated events of single users: organic visits and orders, and the events that messages cause."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, fields
from typing import Any

import numpy as np
import numpy.typing as npt

from crosschannel.core.arrays import BoolArray, FloatArray, IntArray, UIntArray
from crosschannel.envs.market.dynamics.calendar import Calendar
from crosschannel.envs.market.dynamics.draws import Purpose, inverse, poisson, uniform
from crosschannel.envs.market.dynamics.parameters import Dynamics
from crosschannel.envs.market.dynamics.responses import Response, organic_rates
from crosschannel.envs.market.dynamics.users import Users
from crosschannel.envs.market.vocabulary import (
    BASKET,
    BLOCK_BOUNDS,
    BLOCKS,
    CLICKED,
    DAY_SECONDS,
    DELIVERED,
    EMAIL,
    N_COLUMNS,
    OPENED,
    ORDER,
    SERVICES,
    UNSUBSCRIBED,
    VISIT,
)

_BLOCK_START = np.array(BLOCK_BOUNDS[:-1], dtype=np.int64)
_BLOCK_LENGTH = np.diff(BLOCK_BOUNDS).astype(np.int64)
_LAST_SECOND = DAY_SECONDS - 1
_HALF_HOUR, _TEN_MINUTES, _FIVE_MINUTES, _TEN_SECONDS = 1800, 600, 300, 10


@dataclass(frozen=True)
class SimulatedEvents:
    """Events of users (e,), in no particular order.

    Attributes:
        row: Row of the user among those simulated (e,).
        day: Market day (e,).
        second: Seconds since that day's slot, from 1 to 86,399 (e,): no event falls on a slot.
        event: Codes into `EVENTS` (e,).
        value: 1; for orders a whole amount (e,).
    """

    row: IntArray
    day: IntArray
    second: IntArray
    event: IntArray
    value: IntArray

    def __len__(self) -> int:
        return len(self.row)

    def take(self, rows: npt.NDArray[Any]) -> SimulatedEvents:
        """Return the events of the given rows."""
        return SimulatedEvents(**{f.name: getattr(self, f.name)[rows] for f in fields(self)})

    def tally(self, cell: IntArray, n: int) -> IntArray:
        """Return counts and order values (n, N_COLUMNS) of the events in each cell, given each event's cell (e,)."""
        out = np.zeros((n, N_COLUMNS), dtype=np.int64)
        np.add.at(out, (cell, self.event), 1)
        orders = (self.event >= ORDER) & (self.event < ORDER + len(SERVICES))
        np.add.at(out, (cell[orders], self.event[orders] - ORDER + BASKET), self.value[orders])
        return out

    @classmethod
    def concatenate(cls, parts: Sequence[SimulatedEvents]) -> SimulatedEvents:
        """Return the events of all parts."""
        return cls(**{f.name: np.concatenate([getattr(part, f.name) for part in parts]) for f in fields(cls)})


def _events(row: IntArray, day: IntArray, second: IntArray, event: npt.ArrayLike, value: Any = 1) -> SimulatedEvents:
    shape = row.shape
    return SimulatedEvents(
        row=row,
        day=day,
        second=second,
        event=np.broadcast_to(np.asarray(event, dtype=np.int64), shape),
        value=np.broadcast_to(np.asarray(value, dtype=np.int64), shape),
    )


def _later(second: IntArray, u: FloatArray, within: int | IntArray = DAY_SECONDS) -> IntArray:
    """Return seconds after the given ones, by at most `within`, on the same day."""
    return np.asarray(second + np.floor(u * np.minimum(within, _LAST_SECOND - second)).astype(np.int64))


def _any_time(u: FloatArray) -> IntArray:
    """Return seconds anywhere in a day, except its slot."""
    return _later(np.ones(len(u), dtype=np.int64), u)


def _enumerate_items(counts: IntArray) -> tuple[IntArray, IntArray]:
    """Return each item's entry and its number within the entry, both (sum of counts,), for counts (n,)."""
    entry = np.repeat(np.arange(len(counts)), counts)
    start = np.cumsum(counts) - counts
    return entry, np.arange(len(entry)) - start[entry]


def draw_day_kinds(key: UIntArray, day: IntArray, dynamics: Dynamics) -> IntArray:
    """Draw the kinds of days of users; keys and days broadcast."""
    shares = [kind.share for kind in dynamics.day_kinds]
    if len(shares) == 1:
        return np.zeros(np.broadcast_shapes(key.shape, day.shape), dtype=np.int64)
    return inverse(uniform(key, Purpose.DAY_KIND, day), shares)


def organic_events(users: Users, days: IntArray, dynamics: Dynamics, calendar: Calendar) -> SimulatedEvents:
    """Draw organic visits and orders of users (N,) on days (D,), which do not depend on messages.

    Orders that come after the last of these days are left out.
    """
    services, blocks = np.arange(len(SERVICES)), np.arange(len(BLOCKS))
    rates = organic_rates(users, calendar.common[days][None])
    if len(dynamics.day_kinds) > 1:
        activity = np.array([kind.activity for kind in dynamics.day_kinds])
        rates = rates * activity[draw_day_kinds(users.key[:, None], days, dynamics)][:, :, None, None]
    axes = days[:, None, None], services[:, None], blocks
    counts = poisson(uniform(users.key[:, None, None, None], Purpose.ORGANIC_VISITS, *axes), rates)
    row, d, service, block = np.nonzero(counts)
    entry, number = _enumerate_items(counts[row, d, service, block])
    row, day, service, block = row[entry], days[d[entry]], service[entry], block[entry]
    counters = (day, service, block, number)
    key = users.key[row]
    u = uniform(key, Purpose.ORGANIC_TIME, *counters)
    second = _BLOCK_START[block] + 1 + np.floor(u * (_BLOCK_LENGTH[block] - 1)).astype(np.int64)
    visits = _events(row, day, second, VISIT + service)
    conversion, offline = np.array(dynamics.conversion)[service], np.zeros(len(visits), dtype=bool)
    orders = _orders(visits, key, Purpose.ORGANIC_ORDER, counters, conversion, offline, dynamics)
    if len(dynamics.order_delay) > 1:
        orders = orders.take(orders.day <= days.max(initial=0))
    return SimulatedEvents.concatenate([visits, orders])


def _orders(
    visits: SimulatedEvents,
    key: UIntArray,
    purpose: Purpose,
    counters: tuple[Any, ...],
    conversion: FloatArray,
    offline: BoolArray,
    dynamics: Dynamics,
) -> SimulatedEvents:
    """Draw the orders that visits end in, those offline without delay; each visit has four draws of its own."""
    day, first, second, number = counters

    def u(which: int, chosen: npt.NDArray[Any]) -> FloatArray:
        return uniform(key[chosen], purpose, day[chosen], first[chosen], second[chosen], number[chosen] * 4 + which)

    service = visits.event - VISIT
    every = np.arange(len(visits))
    chosen = every[u(0, every) < conversion]
    low, high = np.array(dynamics.basket, dtype=np.int64)[service[chosen]].T.reshape(2, -1)
    value = low + np.floor(u(1, chosen) * (high - low + 1)).astype(np.int64)
    on, at = visits.day[chosen], _later(visits.second[chosen], u(2, chosen), _HALF_HOUR)
    if len(dynamics.order_delay) > 1:
        delay = np.where(offline[chosen], 0, inverse(u(3, chosen), dynamics.order_delay))
        on, at = on + delay, np.where(delay > 0, _any_time(u(2, chosen)), at)
    return _events(visits.row[chosen], on, at, ORDER + service[chosen], value)


def message_events(
    users: Users, on: IntArray, actions: IntArray, response: Response, dynamics: Dynamics
) -> SimulatedEvents:
    """Draw the events that N messages cause, all of them before the next slot unless the scenario has delays.

    Every draw depends on the user, the day and its purpose, not on the action: the potential outcomes of several
    actions share their random numbers.

    Args:
        users: The users (N,).
        on: Market days of the messages (N,).
        actions: Actions that send a message, to reachable users (N, M).
        response: Responses to the messages on these days, arrays (N,).
        dynamics: The scenario's parameters.
    """
    key, row = users.key, np.arange(len(users))
    channel, block, service = actions[:, :3].T

    delay = np.floor(uniform(key, Purpose.DELIVERED_TIME, on) * _TEN_MINUTES).astype(np.int64)
    delivered = _BLOCK_START[block] + 1 + delay
    left = np.flatnonzero(uniform(key, Purpose.UNSUBSCRIBED, on) < response.unsubscribed)
    left_at = _later(delivered[left], uniform(key[left], Purpose.UNSUBSCRIBED_TIME, on[left]))

    u = uniform(key, Purpose.OPENED, on)
    o = np.flatnonzero(u < response.open_logged)
    by_program = users.mail_program[o] & (channel[o] == EMAIL)
    within = np.where(by_program, _TEN_SECONDS, DAY_SECONDS)
    opened = _later(delivered[o], uniform(key[o], Purpose.OPENED_TIME, on[o]), within)

    a = np.flatnonzero(u < response.acts)
    read = _later(delivered[a], uniform(key[a], Purpose.OPENED_TIME, on[a]))
    extra = poisson(uniform(key[a], Purpose.EXTRA_VISITS, on[a]), response.visits[a])
    entry, number = _enumerate_items(extra)
    who = a[entry]
    counters = (on[who], np.zeros_like(number), np.zeros_like(number), number)
    u = uniform(key[who], Purpose.EXTRA_TIME, *counters)
    delay = _delays(key[who], Purpose.EXTRA_DELAY, counters, dynamics.visit_delay)
    first = number == 0
    click = first & (delay == 0) & ~np.array([False, *dynamics.unseen])[channel[who]]
    second = np.where(first, _later(read[entry], u, _FIVE_MINUTES), _later(read[entry], u))
    second = np.where(delay > 0, _any_time(u), second)
    visits = _events(who, on[who] + delay, second, VISIT + service[who])
    offline = np.zeros(len(who), dtype=bool)
    if dynamics.offline:
        offline = uniform(key[who], Purpose.EXTRA_OFFLINE, *counters) < dynamics.offline
        click &= ~offline
    orders = _orders(visits, key[who], Purpose.EXTRA_ORDER, counters, response.conversion[who], offline, dynamics)
    visits = visits.take(~offline) if dynamics.offline else visits
    return SimulatedEvents.concatenate(
        [
            _events(row, on, delivered, DELIVERED),
            _events(o, on[o], opened, OPENED + channel[o] - 1),
            _events(who[click], on[who[click]], second[click], CLICKED),
            visits,
            orders,
            _events(left, on[left], left_at, UNSUBSCRIBED),
        ]
    )


def _delays(key: UIntArray, purpose: Purpose, counters: tuple[Any, ...], shares: tuple[float, ...]) -> IntArray:
    """Draw numbers of days with the given probabilities."""
    if len(shares) == 1:
        return np.zeros(len(key), dtype=np.int64)
    return inverse(uniform(key, purpose, *counters), shares)
