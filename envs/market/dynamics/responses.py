"""Closed forms of the market: rates of organic visits, and responses to messages."""

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
    """N decision slots: everything that the effect of a message at the slot depends on.

    Attributes:
        users: The users, one row per slot.
        day: Market days (N,).
        fatigue: Fatigue before the slot (N,).
    """

    users: Users
    day: IntArray
    fatigue: FloatArray

    def __len__(self) -> int:
        return len(self.day)

    def take(self, rows: Any) -> Slots:
        """Return the slots of the given rows."""
        return Slots(self.users.take(rows), self.day[rows], self.fatigue[rows])


@dataclass(frozen=True)
class Response:
    """Responses to given messages: arrays (N,), or (N, J) for J messages per slot.

    Attributes:
        opened: Probability of opening, given delivery.
        visits: Mean extra visits, given opening.
        unsubscribed: Probability of unsubscribing, given delivery.
    """

    opened: FloatArray
    visits: FloatArray
    unsubscribed: FloatArray


def organic_rates(users: Users, common: FloatArray) -> FloatArray:
    r"""Return mean organic visits of users (N,): (N, S, B) for a common part (N, S, B), (N, D, S, B) for (1, D, S, B).

    .. math:: \lambda_{u,s}(d, b) = a_{u,s} \, q_{u,b} + C_s(d, b)

    with the user's own rate a and share q of the block, which do not change over time. The calendar C is added and is
    the same for all users: without messages the mean visits of any two groups of users change by the same amount from
    any day to any other. As conversion depends on the service alone, so do their orders. Trends are therefore parallel
    in *levels*, not in ratios.
    """
    own = users.visit_rate[:, :, None] * users.block_share[:, None, :]
    return np.asarray((own if common.ndim == 3 else own[:, None]) + common)


def _weekend(slots: Slots) -> FloatArray:
    """Return the change of the log odds of opening (N,) by the day of the week; its mean over a week is 0."""
    return np.where(slots.day % 7 >= 5, 1.0, -0.4) * slots.users.weekend_match


def _presence(slots: Slots, calendar: Calendar) -> FloatArray:
    """Return the probability that the user is in the app in each block (N, blocks)."""
    rates = organic_rates(slots.users, calendar.common[slots.day])
    return np.asarray(1.0 - np.exp(-sum(rates[:, s] for s in range(len(SERVICES)))))


def responses(slots: Slots, actions: IntArray, dynamics: Dynamics, calendar: Calendar) -> Response:
    r"""Return the responses to messages, by channel c, block b, service s, offer o, tone k and greeting g.

    .. math::
        p^{open}_{c,b} &= \sigma(\alpha_c + A_{u,c} + T_{u,b} + W_{u,d} - \varphi F_u), \qquad
        \text{in-app: times } 1 - e^{-\sum_s \lambda_{u,s}(d, b)} \\
        \Lambda_{s,o,k,g} &= \kappa \, G_s(d) \, \text{taste}_{u,s} \, \text{fit}_{u,o} \, \text{fit}_{u,k} \,
        \text{fit}_{u,g} \\
        p^{unsub}_c &= \min(1, h_c \, s_u \, e^{\gamma F_u})

    An in-app message is only opened by a user who is in the app in its block; presence is drawn separately, not from
    the simulated visits, so that it is independent of what the user would do anyway.

    Args:
        slots: N slots.
        actions: (N, M), one message per slot, or (N, J, M) or (1, J, M), J messages per slot.
        dynamics: The scenario's parameters.
        calendar: The market's calendar.
    """
    users = slots.users
    shape = (len(slots),) + (1,) * (actions.ndim - 2)
    rows = np.arange(len(slots)).reshape(shape)
    channel, block, service, offer, tone, greeting = np.moveaxis(actions, -1, 0)
    shift = (_weekend(slots) - dynamics.fatigue_open * slots.fatigue).reshape(shape)
    base = np.array([0.0, *dynamics.open_intercept])[channel] + users.affinity[rows, channel]
    opened = 1.0 / (1.0 + np.exp(-((base + users.time_match[rows, block]) + shift)))
    opened = np.where(channel == IN_APP, opened * _presence(slots, calendar)[rows, block], opened)
    attraction = dynamics.uplift * (calendar.appeal[slots.day] * users.taste)
    fit = users.offer_fit[rows, offer] * users.tone_fit[rows, tone] * users.greeting_fit[rows, greeting]
    hazard = (users.sensitivity * np.exp(dynamics.fatigue_unsubscribe * slots.fatigue)).reshape(shape)
    return Response(
        opened=np.where(channel == 0, 0.0, opened),
        visits=attraction[rows, service] * fit,
        unsubscribed=np.minimum(hazard * np.array([0.0, *dynamics.hazard])[channel], 1.0),
    )


def opening_table(slots: Slots, dynamics: Dynamics, calendar: Calendar) -> tuple[FloatArray, FloatArray]:
    """Return probabilities of opening (N, channels, blocks) and of unsubscribing (N, channels) of all messages at once.

    See `responses` for the formulas.
    """
    users = slots.users
    shift = _weekend(slots) - dynamics.fatigue_open * slots.fatigue
    base = np.array([0.0, *dynamics.open_intercept]) + users.affinity
    opened = 1.0 / (1.0 + np.exp(-((base[:, :, None] + users.time_match[:, None, :]) + shift[:, None, None])))
    opened[:, 0] = 0.0
    opened[:, IN_APP] *= _presence(slots, calendar)
    hazard = users.sensitivity * np.exp(dynamics.fatigue_unsubscribe * slots.fatigue)
    return opened, np.minimum(hazard[:, None] * np.array([0.0, *dynamics.hazard]), 1.0)


def visits_table(slots: Slots, dynamics: Dynamics, calendar: Calendar) -> FloatArray:
    """Return mean extra visits, given opening (N, services, offers, tones, greetings), of all messages at once."""
    users = slots.users
    attraction = dynamics.uplift * (calendar.appeal[slots.day] * users.taste)
    fit = users.offer_fit[:, :, None, None] * users.tone_fit[:, None, :, None] * users.greeting_fit[:, None, None, :]
    return np.asarray(attraction[:, :, None, None, None] * fit[:, None])
