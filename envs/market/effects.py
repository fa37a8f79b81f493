"""Exact expected effects on the market: of an action, of the best action, and of a policy's probabilities."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import reduce

import numpy as np

from crosschannel.core.arrays import BoolArray, FloatArray, IntArray
from crosschannel.core.errors import ConfigError
from crosschannel.envs.market.dynamics.calendar import Calendar
from crosschannel.envs.market.dynamics.parameters import Dynamics
from crosschannel.envs.market.dynamics.responses import (
    CHANNEL,
    SERVICE,
    Chosen,
    Every,
    Messages,
    Slots,
    acting_probability,
    click_probability,
    extra_conversion,
    extra_visits,
    logged_probability,
    opening_probability,
    organic_rates,
    responses,
    unsubscribe_probability,
)
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
# Axes of the content modules in arrays of all messages, whose first axis is that of the slots.
_CONTENT_AXES = (3, 4, 5, 6)


def order_value(dynamics: Dynamics, weights: FloatArray) -> FloatArray:
    """Return the expected value (services,) of an order: `w_order + mean basket * w_value`."""
    n = len(SERVICES)
    basket = np.array([(low + high) / 2 for low, high in dynamics.basket])
    return np.asarray(weights[ORDER : ORDER + n] + basket * weights[BASKET : BASKET + n])


def organic_value(slots: Slots, dynamics: Dynamics, calendar: Calendar, weights: FloatArray) -> FloatArray:
    """Return the expected goal value (N,) of each slot's day if nothing is sent.

    Where orders come days after their visits, these are the visits of earlier days, from the market's first day on.
    """
    orders = np.array(dynamics.conversion) * order_value(dynamics, weights)
    total = np.zeros(len(slots))
    for delay, share in enumerate(dynamics.order_delay):
        value = share * orders
        if delay == 0:
            value = weights[VISIT : VISIT + len(SERVICES)] + value
        day = np.maximum(slots.day - delay, 0)
        rates = organic_rates(slots.users, calendar.common[day]) * (slots.day >= delay)[:, None, None]
        for s in range(len(SERVICES)):
            for b in range(len(BLOCKS)):
                total += value[s] * rates[:, s, b]
    return total


def acting_value(
    slots: Slots, messages: Messages, visits: FloatArray, dynamics: Dynamics, weights: FloatArray
) -> FloatArray:
    r"""Return the value of messages that act, for mean numbers of extra visits: see `action_effects`."""
    logged = messages.per_action((1.0 - dynamics.offline) * weights[VISIT : VISIT + len(SERVICES)], SERVICE)
    orders = messages.per_action(order_value(dynamics, weights), SERVICE)
    value = visits * (logged + extra_conversion(slots, messages, dynamics) * orders)
    if not weights[CLICKED]:
        return np.asarray(value)
    return np.asarray(value + click_probability(visits, messages, dynamics) * weights[CLICKED])


def action_effects(
    slots: Slots, actions: IntArray, dynamics: Dynamics, calendar: Calendar, weights: FloatArray
) -> FloatArray:
    r"""Return the expected goal value of an action minus that of sending nothing.

    .. math::
        \tau &= \mathbb{1}[\text{reachable}] \left( w_{del} + p^{log}_{c,b} w_{open,c} + p^{act}_{c,b} \left( \Lambda v
        + p^{click} w_{click} \right) + p^{unsub}_c w_{unsub} \right) \\
        v &= (1 - f) w_{visit,s} + q (w_{order,s} + \bar m_s w_{value,s}), \qquad
        p^{click} = k_0 (1 - f) (1 - e^{-\Lambda})

    with the responses of `dynamics.responses.responses`, the probability :math:`p^{log}` that an opening is logged, the
    share f of extra visits that are offline and the share :math:`k_0` of those on the message's day. Channels that act
    unseen are not clicked. Where effects have delays, this is the whole effect, on the message's day and later, also
    after the market's last day; in the other scenarios it lies in (t, t + 24 h). A message's fatigue and a lost
    subscription are part of the effects of later slots. So the expected incremental value of a policy's messages is the
    expected sum of :math:`\tau` over its slots, exactly.

    Args:
        slots: N slots.
        actions: (N, M), one action per slot, or (N, J, M) or (1, J, M), J actions per slot.
        dynamics: The scenario's parameters.
        calendar: The market's calendar.
        weights: Value of one unit of each daily count.

    Returns:
        (N,) or (N, J), in reward units; exactly 0 for sending nothing and for unreachable channels.
    """
    found, messages = responses(slots, actions, dynamics, calendar), Chosen(actions)
    value = (
        weights[DELIVERED]
        + found.open_logged * messages.per_action(_open_event_value(weights), CHANNEL)
        + found.acts * acting_value(slots, messages, found.visits, dynamics, weights)
        + found.unsubscribed * weights[UNSUBSCRIBED]
    )
    return np.asarray(np.where(messages.per_action(slots.users.reachable, CHANNEL), value, 0.0))


def _open_event_value(weights: FloatArray) -> FloatArray:
    return np.array([0.0, *weights[OPENED : OPENED + len(CHANNELS) - 1]])


@dataclass(frozen=True)
class OpenValue:
    """Parts of the value of messages at N slots that do not depend on their service and offer.

    Arrays have an axis for the slots and one for each module, of length 1 where the module makes no difference: tone
    and greeting matter in scenarios in which they move opening. All are 0 if the user is unreachable.

    Attributes:
        event_value: Value of the delivery, of an opening that is logged, and of unsubscribing.
        acting: Probability that a message has its content's effect: it is opened, or acts unseen.
        unsubscribe_probability: Probability of unsubscribing (N, channels).
    """

    event_value: FloatArray
    acting: FloatArray
    unsubscribe_probability: FloatArray

    @classmethod
    def build(cls, slots: Slots, dynamics: Dynamics, calendar: Calendar, weights: FloatArray) -> OpenValue:
        """Compute the parts at N slots."""
        every = Every()
        opened = opening_probability(slots, every, dynamics, calendar)
        unsubscribed = unsubscribe_probability(slots, every, dynamics)
        reach = every.per_action(slots.users.reachable, CHANNEL)
        event_value = weights[DELIVERED] + unsubscribed * weights[UNSUBSCRIBED]
        if (opening_value := _open_event_value(weights)).any():
            logged = logged_probability(opened, slots, every, dynamics)
            event_value = event_value + logged * every.per_action(opening_value, CHANNEL)
        return cls(
            event_value=np.where(reach, event_value, 0.0),
            acting=np.where(reach, acting_probability(opened, every, dynamics), 0.0),
            unsubscribe_probability=np.where(reach, unsubscribed, 0.0).reshape(len(slots), len(CHANNELS)),
        )

    def effects(self, content: FloatArray) -> FloatArray:
        """Return effects of messages with content of the given value; arrays over all messages."""
        return np.asarray(self.event_value + self.acting * content)


def content_value(slots: Slots, dynamics: Dynamics, calendar: Calendar, weights: FloatArray) -> FloatArray:
    """Return the value of content once a message acts: an axis for the slots and one for each module.

    The axes of modules that make no difference have length 1: send time and channel in most scenarios.
    """
    every = Every()
    return acting_value(slots, every, extra_visits(slots, every, dynamics, calendar), dynamics, weights)


@dataclass(frozen=True)
class BestContent:
    """The best content given the modules on which opening depends, which is best at any probability of opening.

    Attributes:
        value: Value of content once a message acts, with axes of length 1 for the modules that were chosen.
        choices: Codes of the chosen modules; 0 for those that are still open (4, shape of `value`).
        eligible: Which combinations of the other modules are eligible; channel 0 with block 0 is to send nothing.
    """

    value: FloatArray
    choices: IntArray
    eligible: BoolArray


def best_content(content: FloatArray, acting: FloatArray, mask: BoolArray) -> BestContent:
    """Choose the modules of content on which the probability of acting does not depend.

    Args:
        content: Value of content once a message acts (N, one axis for each module).
        acting: Probability of acting (N, one axis for each module).
        mask: Eligible actions (N, sum of actions).
    """
    chosen = tuple(axis for axis in _CONTENT_AXES if acting.shape[axis] == 1)
    masked = np.where(_eligible(mask, chosen), content, -np.inf)
    kept = [axis for axis in range(masked.ndim) if axis not in chosen]
    flat = masked.transpose(*kept, *chosen).reshape(*(masked.shape[axis] for axis in kept), -1)
    best = flat.argmax(-1)
    shape = tuple(1 if axis in chosen else size for axis, size in enumerate(masked.shape))
    choices = np.zeros((len(_CONTENT_AXES), *shape), dtype=np.int64)
    # One axis only: for others of length 1 at the end, NumPy 2.4.6 gives 0 after the first 8,192 entries.
    for axis, code in zip(chosen, np.unravel_index(best.ravel(), [masked.shape[a] for a in chosen]), strict=True):
        choices[_CONTENT_AXES.index(axis)] = code.reshape(shape)
    others = _eligible(mask, tuple(axis for axis in range(1, 1 + len(MODULES)) if axis not in chosen))
    others[:, 0, 1:] = False
    return BestContent(np.take_along_axis(flat, best[..., None], -1).reshape(shape), choices, others)


def best_message(values: FloatArray, content: BestContent) -> tuple[FloatArray, IntArray]:
    """Return the largest value (N,) and the action (N, M) that has it.

    Args:
        values: Values of messages with the best content (N, one axis for each module); at channel 0 and block 0, that
            of sending nothing.
        content: The best content.
    """
    flat = np.where(content.eligible, values, -np.inf).reshape(len(values), -1)
    best = flat.argmax(1)
    rows = np.arange(len(flat))
    codes = np.unravel_index(best, values.shape[1:])
    at = [np.minimum(code, size - 1) for code, size in zip(codes, content.value.shape[1:], strict=True)]
    actions = np.column_stack(codes).astype(np.int64)
    actions[:, -len(_CONTENT_AXES) :] += content.choices[(slice(None), rows, *at)].T
    return flat[rows, best], MODULES.canonical(actions)


def _eligible(mask: BoolArray, axes: tuple[int, ...]) -> BoolArray:
    """Return which combinations of the actions of some modules are eligible (N, one axis for each module)."""
    parts = [Every().per_action(mask[:, MODULES.slices[axis - 1]], axis - 1) for axis in axes]
    return np.asarray(reduce(np.logical_and, parts))


def expected_effects(
    open_value: OpenValue, content: FloatArray, probabilities: Sequence[FloatArray], given: Sequence[int | None]
) -> FloatArray:
    r"""Return expected effects (N,) of a policy that chooses module by module.

    .. math::
        \sum_{c,b,k,g} \pi_c \pi_b \pi_k \pi_g E_{c,b,k,g}
        + \sum_{c,b,s,o,k,g} \pi_c \pi_b \pi_s \pi_o \pi_k \pi_g P_{c,b,k,g} G_{c,s,o,k,g}

    with E and P the `event_value` and `acting` of `OpenValue`, and G the value of content; summed factor by factor in
    the cheapest order over those modules on which a factor depends, for any dependencies between modules, and never
    over the list of joint actions.

    Args:
        open_value: Parts of the value that do not depend on service and offer.
        content: Value of content once a message acts (N, one axis for each module).
        probabilities: For each module (N, A_m), or (N, A_j, A_m) if it depends on the choice of module j.
        given: For each module that j, or None.
    """
    letters = _EINSUM_LETTERS
    names = [f"n{'' if j is None else letters[j]}{letter}" for letter, j in zip(letters, given, strict=True)]

    def total(*factors: FloatArray) -> FloatArray:
        axes = [[m for m in range(len(letters)) if factor.shape[m + 1] > 1] for factor in factors]
        modules = 1 + max((m for each in axes for m in each), default=-1)
        operands = [f.reshape(len(f), *(f.shape[m + 1] for m in each)) for f, each in zip(factors, axes, strict=True)]
        subscripts = [*names[:modules], *("n" + "".join(letters[m] for m in each) for each in axes)]
        found = np.einsum(",".join(subscripts) + "->n", *probabilities[:modules], *operands, optimize="greedy")
        return np.asarray(found)

    return total(open_value.event_value) + total(open_value.acting, content)


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
