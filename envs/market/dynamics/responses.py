"""The market's closed forms: how often users come by themselves, and how they respond to messages."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np

from crosschannel.core.arrays import FloatArray, IntArray
from crosschannel.envs.market.dynamics.calendar import Calendar
from crosschannel.envs.market.dynamics.users import Users
from crosschannel.envs.market.scenarios import Dynamics
from crosschannel.envs.market.vocabulary import IN_APP, SERVICES


@dataclass(frozen=True)
class Slots:
    """N decision slots: everything on which the effect of a message there depends.

    Attributes:
        users: The users, one row a slot.
        day: Market days (N,).
        fatigue: Fatigue before the slot (N,).
    """

    users: Users
    day: IntArray
    fatigue: FloatArray

    def __len__(self) -> int:
        return len(self.day)

    def take(self, rows: Any) -> Slots:
        """The slots of the given rows."""
        return Slots(self.users.take(rows), self.day[rows], self.fatigue[rows])


@dataclass(frozen=True)
class Response:
    """What given messages would do: arrays (N,), or (N, J) for J messages a slot.

    Attributes:
        opened: Probability of opening, given delivery.
        visits: Mean extra visits, given opening.
        unsubscribed: Probability of unsubscribing, given delivery.
    """

    opened: FloatArray
    visits: FloatArray
    unsubscribed: FloatArray


def organic_rates(users: Users, common: FloatArray) -> FloatArray:
    r"""Mean organic visits of users (N,): (N, S, B) for a common part (N, S, B), (N, D, S, B) for (1, D, S, B).

    .. math:: \lambda_{u,s}(d, b) = a_{u,s} \, q_{u,b} + C_s(d, b)

    with the user's own rate a and share of the block q, which do not change over time. The calendar C is added, and
    is the same for all: without messages the mean visits of any two groups of users change alike from any day to any
    other. As conversion depends on the service alone, so do their orders. Trends are therefore parallel in *levels*,
    not in ratios.
    """
    own = users.visit_rate[:, :, None] * users.block_share[:, None, :]
    return np.asarray((own if common.ndim == 3 else own[:, None]) + common)


def _weekend(slots: Slots) -> FloatArray:
    """Change of the log odds of opening (N,) by the day of the week; it is 0 on average over a week."""
    return np.where(slots.day % 7 >= 5, 1.0, -0.4) * slots.users.weekend_match


def _presence(slots: Slots, calendar: Calendar) -> FloatArray:
    """Probability that the user is in the app in each block (N, blocks)."""
    rates = organic_rates(slots.users, calendar.common[slots.day])
    return np.asarray(1.0 - np.exp(-sum(rates[:, s] for s in range(len(SERVICES)))))


def responses(slots: Slots, actions: IntArray, dynamics: Dynamics, calendar: Calendar) -> Response:
    r"""What messages would do, by channel c, block b, service s, offer o, tone k and greeting g.

    .. math::
        p^{open}_{c,b} &= \sigma(\alpha_c + A_{u,c} + T_{u,b} + W_{u,d} - \varphi F_u), \qquad
        \text{in-app: times } 1 - e^{-\sum_s \lambda_{u,s}(d, b)} \\
        \Lambda_{s,o,k,g} &= \kappa \, G_s(d) \, \text{taste}_{u,s} \, \text{fit}_{u,o} \, \text{fit}_{u,k} \,
        \text{fit}_{u,g} \\
        p^{unsub}_c &= \min(1, h_c \, s_u \, e^{\gamma F_u})

    An in-app message needs the user in the app in its block; presence is drawn on its own, not from the visits that
    happen, so that a message meets users independently of what they would do anyway.

    Args:
        slots: N slots.
        actions: (N, M), one message a slot, or (N, J, M) or (1, J, M), J messages a slot.
        dynamics: The scenario's parameters.
        calendar: The market's calendar.
    """
    users = slots.users
    lift = (len(slots),) + (1,) * (actions.ndim - 2)
    rows = np.arange(len(slots)).reshape(lift)
    channel, block, service, offer, tone, greeting = np.moveaxis(actions, -1, 0)
    mood = (_weekend(slots) - dynamics.fatigue_open * slots.fatigue).reshape(lift)
    base = np.array([0.0, *dynamics.open_intercept])[channel] + users.affinity[rows, channel]
    opened = 1.0 / (1.0 + np.exp(-((base + users.time_match[rows, block]) + mood)))
    opened = np.where(channel == IN_APP, opened * _presence(slots, calendar)[rows, block], opened)
    attraction = dynamics.uplift * (calendar.draw[slots.day] * users.taste)
    fit = users.offer_fit[rows, offer] * users.tone_fit[rows, tone] * users.greeting_fit[rows, greeting]
    hazard = (users.sensitivity * np.exp(dynamics.fatigue_unsubscribe * slots.fatigue)).reshape(lift)
    return Response(
        opened=np.where(channel == 0, 0.0, opened),
        visits=attraction[rows, service] * fit,
        unsubscribed=np.minimum(hazard * np.array([0.0, *dynamics.hazard])[channel], 1.0),
    )


def opening_table(slots: Slots, dynamics: Dynamics, calendar: Calendar) -> tuple[FloatArray, FloatArray]:
    """Probabilities of opening (N, channels, blocks) and of unsubscribing (N, channels) of all messages at once.

    See `responses` for the formulas.
    """
    users = slots.users
    mood = _weekend(slots) - dynamics.fatigue_open * slots.fatigue
    base = np.array([0.0, *dynamics.open_intercept]) + users.affinity
    opened = 1.0 / (1.0 + np.exp(-((base[:, :, None] + users.time_match[:, None, :]) + mood[:, None, None])))
    opened[:, 0] = 0.0
    opened[:, IN_APP] *= _presence(slots, calendar)
    hazard = users.sensitivity * np.exp(dynamics.fatigue_unsubscribe * slots.fatigue)
    return opened, np.minimum(hazard[:, None] * np.array([0.0, *dynamics.hazard]), 1.0)


def visits_table(slots: Slots, dynamics: Dynamics, calendar: Calendar) -> FloatArray:
    """Mean extra visits, given opening (N, services, offers, tones, greetings), of all messages at once."""
    users = slots.users
    attraction = dynamics.uplift * (calendar.draw[slots.day] * users.taste)
    fit = users.offer_fit[:, :, None, None] * users.tone_fit[:, None, :, None] * users.greeting_fit[:, None, None, :]
    return np.asarray(attraction[:, :, None, None, None] * fit[:, None])
