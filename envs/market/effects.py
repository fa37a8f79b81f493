"""Exact expected effects on the market: of an action, of the best one, and of a policy given by its probabilities."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np

from crosschannel.core.arrays import BoolArray, FloatArray, IntArray
from crosschannel.core.errors import ConfigError
from crosschannel.envs.market.dynamics.calendar import Calendar
from crosschannel.envs.market.dynamics.responses import Slots, opening_table, organic_rates, responses, visits_table
from crosschannel.envs.market.scenarios import Dynamics
from crosschannel.envs.market.state import CHUNK
from crosschannel.envs.market.vocabulary import (
    BASKET,
    BLOCKS,
    CHANNELS,
    CLICKED,
    DELIVERED,
    MODULES,
    OPENED,
    ORDER,
    SERVICES,
    UNSUBSCRIBED,
    VISIT,
)

# One letter a module, in their order: channel, block (send time), service, offer, tone (k) and greeting.
_LETTERS = "cbsokg"


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


def action_effects(
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
    found = responses(slots, actions, dynamics, calendar)
    channel, service = actions[..., 0], actions[..., 2]
    rows = np.arange(len(slots)).reshape((-1,) + (1,) * (actions.ndim - 2))
    gain = found.visits * visit_worth(dynamics, weights)[service] + (1.0 - np.exp(-found.visits)) * weights[CLICKED]
    value = (
        weights[DELIVERED]
        + found.opened * (_opened_worth(weights)[channel] + gain)
        + found.unsubscribed * weights[UNSUBSCRIBED]
    )
    return np.asarray(np.where(slots.users.reachable[rows, channel], value, 0.0))


def _opened_worth(weights: FloatArray) -> FloatArray:
    return np.array([0.0, *weights[OPENED : OPENED + len(CHANNELS) - 1]])


@dataclass(frozen=True)
class Opening:
    """What messages are worth at N slots but for their content, which enters by its worth once opened.

    Attributes:
        sent: What sending is worth, opened or not; 0 where unreachable (N, channels).
        opened: Probability of opening; 0 where unreachable (N, channels, blocks).
        unsubscribed: Probability of unsubscribing; 0 where unreachable (N, channels).
        reading: What opening itself is worth (channels,).
    """

    sent: FloatArray
    opened: FloatArray
    unsubscribed: FloatArray
    reading: FloatArray

    @classmethod
    def of(cls, slots: Slots, dynamics: Dynamics, calendar: Calendar, weights: FloatArray) -> Opening:
        """Works out the parts."""
        opened, unsubscribed = opening_table(slots, dynamics, calendar)
        reach = slots.users.reachable
        return cls(
            sent=np.where(reach, weights[DELIVERED] + unsubscribed * weights[UNSUBSCRIBED], 0.0),
            opened=np.where(reach[:, :, None], opened, 0.0),
            unsubscribed=np.where(reach, unsubscribed, 0.0),
            reading=_opened_worth(weights),
        )

    def effects(self, content: FloatArray) -> FloatArray:
        """Effects (N, channels, blocks) of messages with content of the given worth (N,)."""
        return np.asarray(self.sent[:, :, None] + self.opened * (self.reading[:, None] + content[:, None, None]))


def content_worth(slots: Slots, dynamics: Dynamics, calendar: Calendar, weights: FloatArray) -> FloatArray:
    """What content is worth once opened (N, services, offers, tones, greetings)."""
    visits = visits_table(slots, dynamics, calendar)
    worth = visits * visit_worth(dynamics, weights)[:, None, None, None]
    return worth + (1.0 - np.exp(-visits)) * weights[CLICKED] if weights[CLICKED] else worth


def best_content(worth: FloatArray, mask: BoolArray) -> tuple[FloatArray, IntArray]:
    """Worth (N,) and choices (N, 4) of the best eligible content, which is the same for all channels and blocks.

    Args:
        worth: What content is worth (N, services, offers, tones, greetings).
        mask: Eligible actions (N, sum of actions).
    """
    service, offer, tone, greeting = MODULES.split(mask)[2:]
    eligible = (
        service[:, :, None, None, None]
        & offer[:, None, :, None, None]
        & tone[:, None, None, :, None]
        & greeting[:, None, None, None, :]
    )
    flat = np.where(eligible, worth, -np.inf).reshape(len(mask), -1)
    best = flat.argmax(1)
    choices = np.stack(np.unravel_index(best, worth.shape[1:]), axis=1)
    return flat[np.arange(len(mask)), best], np.asarray(choices, dtype=np.int64)


def best_message(values: FloatArray, mask: BoolArray, choices: IntArray) -> tuple[FloatArray, IntArray]:
    """The largest value (N,) and the action (N, M) that has it.

    Args:
        values: Values (N, channels, blocks) of messages with the best content; that of sending nothing in `[:, 0, 0]`.
        mask: Eligible actions (N, sum of actions).
        choices: The best content (N, 4).
    """
    channel, block = MODULES.split(mask)[:2]
    possible = channel[:, :, None] & block[:, None, :]
    possible[:, 0] = np.arange(len(BLOCKS)) == 0
    flat = np.where(possible, values, -np.inf).reshape(len(values), -1)
    best = flat.argmax(1)
    actions = np.column_stack([*np.unravel_index(best, values.shape[1:]), choices])
    return flat[np.arange(len(flat)), best], MODULES.canonical(actions)


def expected_effects(
    opening: Opening, content: FloatArray, probabilities: Sequence[FloatArray], given: Sequence[int | None]
) -> FloatArray:
    r"""Expected effects (N,) of a policy that chooses module by module.

    .. math::
        \sum_c \pi_c S_c + \sum_{c,b} \pi_c \pi_b P_{c,b} W_c
        + \sum_{c,b,s,o,k,g} \pi_c \pi_b \pi_s \pi_o \pi_k \pi_g P_{c,b} G_{s,o,k,g}

    with `opening`'s S (sent), P (opened) and W (reading), and the content's worth G; summed factor by factor in the
    order that is cheapest, whatever module a probability depends on, and never over the list of joint actions.

    Args:
        opening: What messages are worth but for their content.
        content: What content is worth once opened (N, services, offers, tones, greetings).
        probabilities: For each module (N, A_m), or (N, A_j, A_m) where it depends on the choice of module j.
        given: For each module that j, or None.
    """
    names = [f"n{'' if j is None else _LETTERS[j]}{letter}" for letter, j in zip(_LETTERS, given, strict=True)]

    def total(factors: dict[str, FloatArray], modules: int) -> FloatArray:
        operands = [*probabilities[:modules], *factors.values()]
        letters = ",".join([*names[:modules], *factors])
        return np.asarray(np.einsum(f"{letters}->n", *operands, optimize="greedy"))

    return (
        total({"nc": opening.sent}, 1)
        + total({"ncb": opening.opened, "c": opening.reading}, 2)
        + total({"ncb": opening.opened, "nsokg": content}, len(_LETTERS))
    )


def dependencies(probabilities: Sequence[FloatArray], given: Sequence[int | None] | None) -> Sequence[int | None]:
    """Checks which earlier module each module's probabilities depend on; by default on none.

    Raises:
        ConfigError: If shapes do not fit.
    """
    found = [None] * len(MODULES) if given is None else list(given)
    shapes = [p.shape[1:] for p in probabilities]
    sizes = MODULES.sizes
    wanted = [(sizes[m],) if j is None else (sizes[j], sizes[m]) for m, j in enumerate(found[: len(sizes)])]
    if shapes != wanted or any(j is not None and not 0 <= j < m for m, j in enumerate(found)):
        raise ConfigError(
            f"probabilities have the shapes (n, ...) {shapes}, given {found}: give one array for each of the modules "
            f"{list(MODULES.names)}, {wanted}, and name in `given` the earlier module on which one depends"
        )
    return found


def in_chunks(function: Callable[[slice], FloatArray], n: int) -> FloatArray:
    """Values (n,) of a function of slices, computed `CHUNK` rows at a time."""
    parts = [function(slice(start, min(start + CHUNK, n))) for start in range(0, n, CHUNK)]
    return np.concatenate(parts) if parts else np.zeros(0)
