"""The market's closed forms: organic rates, responses to messages, and the exact expected effect of every action."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from envs.market.calendar import Calendar
from envs.market.config import (
    BASKET,
    BLOCKS,
    CHANNELS,
    CLICKED,
    DELIVERED,
    IN_APP,
    OPENED,
    ORDER,
    SERVICES,
    UNSUBSCRIBED,
    VISIT,
    Dynamics,
)
from envs.market.users import Users
from histories.modules import FloatArray, IntArray


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


@dataclass(frozen=True)
class Responses:
    """What a message would do at N slots, by action.

    Attributes:
        opened: Probability of opening, given delivery (N, channels, blocks).
        visits: Mean extra visits, given opening (N, services, tones).
        unsubscribed: Probability of unsubscribing, given delivery (N, channels).
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


def responses(slots: Slots, dynamics: Dynamics, calendar: Calendar) -> Responses:
    r"""What a message would do, by channel c, block b, service s and tone k.

    .. math::
        p^{open}_{c,b} &= \sigma(\alpha_c + A_{u,c} + T_{u,b} - \varphi F_u), \qquad
        \text{in-app: times } 1 - e^{-\sum_s \lambda_{u,s}(d, b)} \\
        \Lambda_{s,k} &= \kappa \, \text{taste}_{u,s} \, \text{fit}_{u,k} \\
        p^{unsub}_c &= \min(1, h_c \, s_u \, e^{\gamma F_u})

    An in-app message needs the user in the app in its block; presence is drawn on its own, not from the visits that
    happen, so that a message meets users independently of what they would do anyway.
    """
    users = slots.users
    worn = users.affinity - (dynamics.fatigue_open * slots.fatigue)[:, None]
    odds = (worn + np.array([0.0, *dynamics.open_intercept]))[:, :, None] + users.time_match[:, None, :]
    opened = 1.0 / (1.0 + np.exp(-odds))
    opened[:, 0] = 0.0
    rates = organic_rates(users, calendar.common[slots.day])
    opened[:, IN_APP] *= 1.0 - np.exp(-sum(rates[:, s] for s in range(len(SERVICES))))
    visits = (dynamics.uplift * users.taste)[:, :, None] * users.tone_fit[:, None, :]
    hazard = users.sensitivity * np.exp(dynamics.fatigue_unsubscribe * slots.fatigue)
    unsubscribed = np.minimum(hazard[:, None] * np.array([0.0, *dynamics.hazard]), 1.0)
    return Responses(opened, visits, unsubscribed)


def visit_worth(dynamics: Dynamics, weights: FloatArray) -> FloatArray:
    """Expected worth (services,) of one visit: `w_visit + conversion (w_order + mean basket * w_value)`."""
    n = len(SERVICES)
    basket = np.array([(low + high) / 2 for low, high in dynamics.basket])
    order = weights[ORDER : ORDER + n] + basket * weights[BASKET : BASKET + n]
    return np.asarray(weights[VISIT : VISIT + n] + np.array(dynamics.conversion) * order)


def organic_value(slots: Slots, dynamics: Dynamics, calendar: Calendar, weights: FloatArray) -> FloatArray:
    """Expected goal value (N,) within each slot's day if nothing is sent."""
    rates = organic_rates(slots.users, calendar.common[slots.day])
    worth = visit_worth(dynamics, weights)
    total = np.zeros(len(slots))
    for s in range(len(SERVICES)):
        for b in range(len(BLOCKS)):
            total += worth[s] * rates[:, s, b]
    return total


def expected_effects(
    slots: Slots, actions: IntArray, dynamics: Dynamics, calendar: Calendar, weights: FloatArray
) -> FloatArray:
    r"""Expected goal value of an action minus that of sending nothing, within the slot's day.

    .. math::
        \tau = \mathbb{1}[\text{reachable}] \left( w_{del} + p^{open}_{c,b} \left( w_{open,c} + \Lambda v_s
        + (1 - e^{-\Lambda}) w_{click} \right) + p^{unsub}_c w_{unsub} \right), \qquad
        v_s = w_{visit,s} + q_s (w_{order,s} + \bar m_s w_{value,s})

    A message's whole effect lies in (t, t + 24 h): later slots feel only its fatigue and a lost subscription, which
    are part of their own effects. So the expected incremental value of a policy over a period is the expected sum of
    :math:`\tau` over its slots, exactly.

    Args:
        slots: N slots.
        actions: (N, M), one action a slot, or (N, J, M) or (1, J, M), J actions a slot.
        dynamics: The scenario's parameters.
        calendar: The market's calendar.
        weights: Worth of one unit of each daily count.

    Returns:
        (N,) or (N, J), in reward units; exactly 0 for sending nothing and for unreachable channels.
    """
    table = responses(slots, dynamics, calendar)
    gain = table.visits * visit_worth(dynamics, weights)[:, None] + (1.0 - np.exp(-table.visits)) * weights[CLICKED]
    rows = np.arange(len(slots)).reshape((-1,) + (1,) * (actions.ndim - 2))
    channel, block, service, tone = np.moveaxis(actions, -1, 0)
    opened_worth = np.array([0.0, *weights[OPENED : OPENED + len(CHANNELS) - 1]])[channel]
    value = (
        weights[DELIVERED]
        + table.opened[rows, channel, block] * (opened_worth + gain[rows, service, tone])
        + table.unsubscribed[rows, channel] * weights[UNSUBSCRIBED]
    )
    return np.asarray(np.where(slots.users.reachable[rows, channel], value, 0.0))
