"""Exact expected effects on the market: of an action, of the best action, and of a policy's probabilities."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np

from crosschannel.core.arrays import BoolArray, FloatArray, IntArray
from crosschannel.core.errors import ConfigError
from crosschannel.envs.market.dynamics.calendar import Calendar
from crosschannel.envs.market.dynamics.responses import Slots, opening_table, organic_rates, responses, visits_table
from crosschannel.envs.market.scenarios import Dynamics
from crosschannel.envs.market.state import ROWS_PER_CHUNK
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

# One letter per module, in their order: channel, block (send time), service, offer, tone (k) and greeting.
_EINSUM_LETTERS = "cbsokg"


def visit_value(dynamics: Dynamics, weights: FloatArray) -> FloatArray:
    """Return the expected value (services,) of one visit: `w_visit + conversion (w_order + mean basket * w_value)`."""
    n = len(SERVICES)
    basket = np.array([(low + high) / 2 for low, high in dynamics.basket])
    order = weights[ORDER : ORDER + n] + basket * weights[BASKET : BASKET + n]
    return np.asarray(weights[VISIT : VISIT + n] + np.array(dynamics.conversion) * order)


def organic_value(slots: Slots, dynamics: Dynamics, calendar: Calendar, weights: FloatArray) -> FloatArray:
    """Return the expected goal value (N,) of each slot's day if nothing is sent."""
    rates = organic_rates(slots.users, calendar.common[slots.day])
    value = visit_value(dynamics, weights)
    total = np.zeros(len(slots))
    for s in range(len(SERVICES)):
        for b in range(len(BLOCKS)):
            total += value[s] * rates[:, s, b]
    return total


def action_effects(
    slots: Slots, actions: IntArray, dynamics: Dynamics, calendar: Calendar, weights: FloatArray
) -> FloatArray:
    r"""Return the expected goal value of an action minus that of sending nothing, within the slot's day.

    .. math::
        \tau = \mathbb{1}[\text{reachable}] \left( w_{del} + p^{open}_{c,b} \left( w_{open,c} + \Lambda v_s
        + (1 - e^{-\Lambda}) w_{click} \right) + p^{unsub}_c w_{unsub} \right), \qquad
        v_s = w_{visit,s} + q_s (w_{order,s} + \bar m_s w_{value,s})

    A message's whole effect lies in (t, t + 24 h); its fatigue and a lost subscription are part of the effects of
    later slots. So the expected incremental value of a policy over a period is the expected sum of
    :math:`\tau` over its slots, exactly.

    Args:
        slots: N slots.
        actions: (N, M), one action per slot, or (N, J, M) or (1, J, M), J actions per slot.
        dynamics: The scenario's parameters.
        calendar: The market's calendar.
        weights: Value of one unit of each daily count.

    Returns:
        (N,) or (N, J), in reward units; exactly 0 for sending nothing and for unreachable channels.
    """
    found = responses(slots, actions, dynamics, calendar)
    channel, service = actions[..., 0], actions[..., 2]
    rows = np.arange(len(slots)).reshape((-1,) + (1,) * (actions.ndim - 2))
    gain = found.visits * visit_value(dynamics, weights)[service] + (1.0 - np.exp(-found.visits)) * weights[CLICKED]
    value = (
        weights[DELIVERED]
        + found.opened * (_open_event_value(weights)[channel] + gain)
        + found.unsubscribed * weights[UNSUBSCRIBED]
    )
    return np.asarray(np.where(slots.users.reachable[rows, channel], value, 0.0))


def _open_event_value(weights: FloatArray) -> FloatArray:
    return np.array([0.0, *weights[OPENED : OPENED + len(CHANNELS) - 1]])


@dataclass(frozen=True)
class OpenValue:
    """Parts of the value of messages at N slots that do not depend on their content.

    Content adds its value once the message is opened: `effects`.

    Attributes:
        delivery_value: Value of a sent message, opened or not; 0 if the user is unreachable (N, channels).
        open_probability: Probability of opening; 0 if the user is unreachable (N, channels, blocks).
        unsubscribe_probability: Probability of unsubscribing; 0 if the user is unreachable (N, channels).
        open_event_value: Value of the event "opened" itself (channels,).
    """

    delivery_value: FloatArray
    open_probability: FloatArray
    unsubscribe_probability: FloatArray
    open_event_value: FloatArray

    @classmethod
    def build(cls, slots: Slots, dynamics: Dynamics, calendar: Calendar, weights: FloatArray) -> OpenValue:
        """Compute the parts at N slots."""
        opened, unsubscribed = opening_table(slots, dynamics, calendar)
        reach = slots.users.reachable
        return cls(
            delivery_value=np.where(reach, weights[DELIVERED] + unsubscribed * weights[UNSUBSCRIBED], 0.0),
            open_probability=np.where(reach[:, :, None], opened, 0.0),
            unsubscribe_probability=np.where(reach, unsubscribed, 0.0),
            open_event_value=_open_event_value(weights),
        )

    def effects(self, content: FloatArray) -> FloatArray:
        """Return effects (N, channels, blocks) of messages with content of the given value (N,)."""
        once_opened = self.open_event_value[:, None] + content[:, None, None]
        return np.asarray(self.delivery_value[:, :, None] + self.open_probability * once_opened)


def content_value(slots: Slots, dynamics: Dynamics, calendar: Calendar, weights: FloatArray) -> FloatArray:
    """Return the value of content, once opened (N, services, offers, tones, greetings)."""
    visits = visits_table(slots, dynamics, calendar)
    value = visits * visit_value(dynamics, weights)[:, None, None, None]
    return value + (1.0 - np.exp(-visits)) * weights[CLICKED] if weights[CLICKED] else value


def best_content(content: FloatArray, mask: BoolArray) -> tuple[FloatArray, IntArray]:
    """Return value (N,) and choices (N, 4) of the best eligible content, which is the same for all channels and blocks.

    Args:
        content: Value of content, once opened (N, services, offers, tones, greetings).
        mask: Eligible actions (N, sum of actions).
    """
    service, offer, tone, greeting = MODULES.split(mask)[2:]
    eligible = (
        service[:, :, None, None, None]
        & offer[:, None, :, None, None]
        & tone[:, None, None, :, None]
        & greeting[:, None, None, None, :]
    )
    flat = np.where(eligible, content, -np.inf).reshape(len(mask), -1)
    best = flat.argmax(1)
    choices = np.stack(np.unravel_index(best, content.shape[1:]), axis=1)
    return flat[np.arange(len(mask)), best], np.asarray(choices, dtype=np.int64)


def best_message(values: FloatArray, mask: BoolArray, choices: IntArray) -> tuple[FloatArray, IntArray]:
    """Return the largest value (N,) and the action (N, M) that has it.

    Args:
        values: Values (N, channels, blocks) of messages with the best content; `[:, 0, 0]` is that of sending nothing.
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
    open_value: OpenValue, content: FloatArray, probabilities: Sequence[FloatArray], given: Sequence[int | None]
) -> FloatArray:
    r"""Return expected effects (N,) of a policy that chooses module by module.

    .. math::
        \sum_c \pi_c S_c + \sum_{c,b} \pi_c \pi_b P_{c,b} W_c
        + \sum_{c,b,s,o,k,g} \pi_c \pi_b \pi_s \pi_o \pi_k \pi_g P_{c,b} G_{s,o,k,g}

    with S, P and W the `delivery_value`, `open_probability` and `open_event_value` of `OpenValue`, and G the value of
    content; summed factor by factor in the cheapest order, for any dependencies between modules, and never over the
    list of joint actions.

    Args:
        open_value: Parts of the value that do not depend on content.
        content: Value of content, once opened (N, services, offers, tones, greetings).
        probabilities: For each module (N, A_m), or (N, A_j, A_m) if it depends on the choice of module j.
        given: For each module that j, or None.
    """
    letters = _EINSUM_LETTERS
    names = [f"n{'' if j is None else letters[j]}{letter}" for letter, j in zip(letters, given, strict=True)]

    def total(factors: dict[str, FloatArray], modules: int) -> FloatArray:
        operands = [*probabilities[:modules], *factors.values()]
        subscripts = ",".join([*names[:modules], *factors])
        return np.asarray(np.einsum(f"{subscripts}->n", *operands, optimize="greedy"))

    return (
        total({"nc": open_value.delivery_value}, 1)
        + total({"ncb": open_value.open_probability, "c": open_value.open_event_value}, 2)
        + total({"ncb": open_value.open_probability, "nsokg": content}, len(letters))
    )


def check_dependencies(probabilities: Sequence[FloatArray], given: Sequence[int | None] | None) -> Sequence[int | None]:
    """Check and return which earlier module each module's probabilities depend on; None means on no other.

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
            f"{list(MODULES.names)}, {wanted}, and set in `given` the earlier module that a module depends on"
        )
    return found


def in_chunks(function: Callable[[slice], FloatArray], n: int) -> FloatArray:
    """Return the values (n,) of a function of slices, computed `ROWS_PER_CHUNK` rows at a time."""
    parts = [function(slice(start, min(start + ROWS_PER_CHUNK, n))) for start in range(0, n, ROWS_PER_CHUNK)]
    return np.concatenate(parts) if parts else np.zeros(0)
