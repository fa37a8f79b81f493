"""Closed forms of the market: rates of organic visits, and responses to messages."""

from __future__ import annotations

from dataclasses import dataclass
from functools import reduce
from typing import Any, Protocol

import numpy as np
import numpy.typing as npt

from crosschannel.core.arrays import FloatArray, IntArray
from crosschannel.envs.market.dynamics.calendar import Calendar
from crosschannel.envs.market.dynamics.parameters import ContentParts, Dynamics
from crosschannel.envs.market.dynamics.users import Users
from crosschannel.envs.market.vocabulary import BLOCKS, CHANNELS, EMAIL, IN_APP, MODULES, OFFERS, TONES

NumericArray = npt.NDArray[Any]

CHANNEL, BLOCK, SERVICE, OFFER, TONE, GREETING = range(len(MODULES))
#: Number of modules whose contributions add up where content has parts: all but the channel.
N_PARTS = len(MODULES) - 1


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
        opened: Probability of being opened, given delivery.
        open_logged: Probability that an opening is logged, given delivery.
        acts: Probability of having an effect on visits, given delivery.
        visits: Mean extra visits, given that the message acts; also those offline.
        conversion: Probability that an extra visit ends in an order.
        unsubscribed: Probability of unsubscribing, given delivery.
    """

    opened: FloatArray
    open_logged: FloatArray
    acts: FloatArray
    visits: FloatArray
    conversion: FloatArray
    unsubscribed: FloatArray


def organic_rates(users: Users, common: FloatArray) -> FloatArray:
    r"""Return mean organic visits of users (N,): (N, S, B) for a common part (N, S, B), (N, D, S, B) for (1, D, S, B).

    .. math:: \lambda_{u,s}(d, b) = a_{u,s} \, q_{u,b} + C_s(d, b)

    with the user's own rate a and share q of the block, which do not change over time. The calendar C is added and is
    the same for all users: without messages the mean visits of any two groups of users change by the same amount from
    any day to any other. As conversion depends on the service alone, so do their orders. Trends are therefore parallel
    in *levels*, not in ratios. The kinds of days multiply these rates by independent factors of mean 1, which leaves
    the means as they are.
    """
    own = users.visit_rate[:, :, None] * users.block_share[:, None, :]
    return np.asarray((own if common.ndim == 3 else own[:, None]) + common)


def _weekend(slots: Slots) -> FloatArray:
    """Return the change of the log odds of opening (N,) by the day of the week; its mean over a week is 0."""
    return np.where(slots.day % 7 >= 5, 1.0, -0.4) * slots.users.weekend_match


class Messages(Protocol):
    """Messages at N slots, in one of two forms: arrays about them broadcast against each other."""

    def per_slot(self, values: NumericArray) -> Any:
        """Return values (N,) of the slots for their messages."""
        ...

    def per_action(self, values: NumericArray, module: int) -> Any:
        """Return values (A,) or (N, A) of a module's actions for the messages."""
        ...


@dataclass(frozen=True)
class Chosen:
    """Given messages: one per slot, (N, M), or J per slot, (N, J, M) or (1, J, M). Arrays are (N,) or (N, J)."""

    actions: IntArray

    def per_slot(self, values: NumericArray) -> Any:
        """Return values (N,) of the slots as (N,) or (N, 1)."""
        return values.reshape((-1,) + (1,) * (self.actions.ndim - 2))

    def per_action(self, values: NumericArray, module: int) -> Any:
        """Return the values of the chosen actions, from values (A,) or (N, A)."""
        chosen = self.actions[..., module]
        return values[chosen] if values.ndim == 1 else values[self.per_slot(np.arange(len(values))), chosen]


@dataclass(frozen=True)
class Every:
    """All messages at once. Arrays have an axis for slots and one for each module, of length 1 where all are alike."""

    def per_slot(self, values: NumericArray) -> Any:
        """Return values (N,) of the slots as (N, 1, ..., 1)."""
        return values.reshape((-1,) + (1,) * len(MODULES))

    def per_action(self, values: NumericArray, module: int) -> Any:
        """Return values (A,) or (N, A) with the actions on the module's own axis."""
        axes = [1] * len(MODULES)
        axes[module] = values.shape[-1]
        return values.reshape(-1, *axes)


def opening_probability(
    slots: Slots, messages: Messages, dynamics: Dynamics, calendar: Calendar, kind: IntArray | None = None
) -> FloatArray:
    """Return the probability that messages are opened, given delivery: see `responses`.

    Args:
        slots: N slots.
        messages: Messages at the slots.
        dynamics: The scenario's parameters.
        calendar: The market's calendar.
        kind: Kinds of the slots' days (N,); by default the mean over all kinds.
    """
    users = slots.users
    base = messages.per_action(np.array([-np.inf, *dynamics.open_intercept]), CHANNEL)
    odds = (base + messages.per_action(users.affinity, CHANNEL)) + messages.per_action(users.time_match, BLOCK)
    odds = odds + messages.per_slot(_weekend(slots) - dynamics.fatigue_open * slots.fatigue)
    if dynamics.opening_fit:
        fit = messages.per_action(users.tone_fit, TONE) * messages.per_action(users.greeting_fit, GREETING)
        odds = odds + dynamics.opening_fit * np.log(fit)
    in_app = messages.per_action(np.arange(len(CHANNELS)) == IN_APP, CHANNEL)
    in_block = organic_rates(users, calendar.common[slots.day]).sum(1)
    if dynamics.parts:
        in_block = np.repeat(in_block.sum(1, keepdims=True), len(BLOCKS), axis=1)
    opened = []
    for share, activity, opening in _kinds(dynamics, kind):
        given_kind = 1.0 / (1.0 + np.exp(-(odds + messages.per_slot(opening) if opening.any() else odds)))
        present = messages.per_action(1.0 - np.exp(-activity[:, None] * in_block), BLOCK)
        np.multiply(given_kind, present, out=given_kind, where=in_app)
        opened.append(given_kind if share == 1.0 else share * given_kind)
    return reduce(np.add, opened)


def _kinds(dynamics: Dynamics, kind: IntArray | None) -> list[tuple[float, FloatArray, FloatArray]]:
    """Return share, activity and change of the log odds of opening of all kinds of days, or of the slots' own (N,)."""
    activity = np.array([each.activity for each in dynamics.day_kinds])
    opening = np.array([each.opening for each in dynamics.day_kinds])
    if kind is not None:
        return [(1.0, activity[kind], opening[kind])]
    return [(each.share, activity[[i]], opening[[i]]) for i, each in enumerate(dynamics.day_kinds)]


def logged_probability(opened: FloatArray, slots: Slots, messages: Messages, dynamics: Dynamics) -> FloatArray:
    """Return the probability that an opening is logged, given that of opening."""
    if dynamics.mail_programs:
        email = messages.per_action(np.arange(len(CHANNELS)) == EMAIL, CHANNEL)
        opened = np.where(messages.per_slot(slots.users.mail_program) & email, 1.0, opened)
    if all(dynamics.open_logged):
        return opened
    return np.where(messages.per_action(np.array([False, *dynamics.open_logged]), CHANNEL), opened, 0.0)


def acting_probability(opened: FloatArray, messages: Messages, dynamics: Dynamics) -> FloatArray:
    """Return the probability that a message has its effect on visits, given that of opening."""
    if not any(dynamics.unseen):
        return opened
    return np.where(messages.per_action(np.array([False, *dynamics.unseen]), CHANNEL), 1.0, opened)


def extra_visits(slots: Slots, messages: Messages, dynamics: Dynamics, calendar: Calendar) -> FloatArray:
    """Return the mean number of extra visits, given that messages act: see `responses`."""
    users = slots.users
    if dynamics.parts:
        return _added_visits(slots, messages, dynamics, calendar, dynamics.parts)
    fit: Any = 1.0
    if not dynamics.conversion_fit:
        fit = fit * messages.per_action(users.offer_fit, OFFER)
    if not dynamics.opening_fit:
        fit = fit * messages.per_action(users.tone_fit, TONE) * messages.per_action(users.greeting_fit, GREETING)
    if set(dynamics.channel_gain) != {1.0}:
        fit = fit * messages.per_action(np.array([0.0, *dynamics.channel_gain]), CHANNEL)
    attraction = dynamics.uplift * (calendar.appeal[slots.day] * users.taste)
    return np.asarray(messages.per_action(attraction, SERVICE) * fit)


def _added_visits(
    slots: Slots, messages: Messages, dynamics: Dynamics, calendar: Calendar, parts: ContentParts
) -> FloatArray:
    """Return the mean number of extra visits where the contributions of the modules add up: see `responses`."""
    users = slots.users
    service = messages.per_action(calendar.appeal[slots.day] * users.taste, SERVICE)
    total = messages.per_action(len(BLOCKS) * users.block_share, BLOCK)
    total = total + messages.per_action(users.offer_fit**parts.exponent + np.array(parts.offer), OFFER)
    total = total + messages.per_action(users.tone_fit**parts.exponent + np.array(parts.tone), TONE)
    total = total + messages.per_action(users.greeting_fit**parts.exponent, GREETING)
    if parts.synergy:
        offer, tone = (np.array(list(known)) == name for known, name in zip((OFFERS, TONES), parts.pair, strict=True))
        total = total + parts.synergy * (messages.per_action(offer, OFFER) & messages.per_action(tone, TONE))
    visits = dynamics.uplift / N_PARTS * (service + messages.per_slot(users.taste.mean(1)) * total)
    if set(dynamics.channel_gain) != {1.0}:
        visits = visits * messages.per_action(np.array([0.0, *dynamics.channel_gain]), CHANNEL)
    return np.asarray(visits)


def extra_conversion(slots: Slots, messages: Messages, dynamics: Dynamics) -> FloatArray:
    """Return the probability that an extra visit ends in an order: see `responses`."""
    conversion = messages.per_action(np.array(dynamics.conversion), SERVICE)
    if not dynamics.conversion_fit:
        return np.asarray(conversion)
    fit = messages.per_action(slots.users.offer_fit**dynamics.conversion_fit, OFFER)
    return np.asarray(np.minimum(conversion * fit, 1.0))


def click_probability(visits: FloatArray, messages: Messages, dynamics: Dynamics) -> FloatArray:
    """Return the probability of a click, given that messages act, for mean numbers of extra visits.

    The first extra visit is a click if it comes on the message's day, in the app, and not after an unseen message.
    """
    clicked = (1.0 - np.exp(-visits)) * (dynamics.visit_delay[0] * (1.0 - dynamics.offline))
    if not any(dynamics.unseen):
        return clicked
    return np.where(messages.per_action(np.array([False, *dynamics.unseen]), CHANNEL), 0.0, clicked)


def unsubscribe_probability(slots: Slots, messages: Messages, dynamics: Dynamics) -> FloatArray:
    """Return the probability of unsubscribing, given delivery: see `responses`."""
    hazard = slots.users.sensitivity * np.exp(dynamics.fatigue_unsubscribe * slots.fatigue)
    channel = messages.per_action(np.array([0.0, *dynamics.hazard]), CHANNEL)
    return np.asarray(np.minimum(messages.per_slot(hazard) * channel, 1.0))


def responses(
    slots: Slots, actions: IntArray, dynamics: Dynamics, calendar: Calendar, kind: IntArray | None = None
) -> Response:
    r"""Return the responses to messages, by channel c, block b, service s, offer o, tone k and greeting g.

    .. math::
        p^{open}_{c,b} &= \sum_z \pi_z \, \sigma(\alpha_c + A_{u,c} + T_{u,b} + W_{u,d} + \omega_z - \varphi F_u), \;
        \text{in-app: times } 1 - e^{-a_z \sum_s \lambda_{u,s}(d, b)} \\
        p^{act}_{c,b} &= 1 \text{ on channels that act unseen, else } p^{open}_{c,b} \\
        \Lambda_{s,o,k,g} &= \kappa \, G_s(d) \, \text{taste}_{u,s} \, \text{fit}_{u,o} \, \text{fit}_{u,k} \,
        \text{fit}_{u,g} \\
        q_s &= \text{conversion}_s \\
        p^{unsub}_c &= \min(1, h_c \, s_u \, e^{\gamma F_u})

    with kinds z of the user's days, of share :math:`\pi_z`, activity :math:`a_z` and change :math:`\omega_z` of the log
    odds. In most scenarios there is one kind, with an activity of 1 and no change. In `subject_lines` the fits of tone
    and greeting move the log odds of opening by :math:`\theta \ln(\text{fit}_{u,k} \, \text{fit}_{u,g})` instead of the
    extra visits, the fit of the offer moves the conversion, :math:`q_{s,o} = \min(1, \text{conversion}_s \,
    \text{fit}_{u,o}^{\eta})`, and channels multiply the extra visits.

    In `additive` and `synergy` the modules of content contribute to the extra visits by parts that add up:

    .. math::
        \Lambda_{b,s,o,k,g} = \frac{\kappa}{5} \Big( G_s(d) \, \text{taste}_{u,s} + R_u \big( B \, q_{u,b} +
        \text{fit}_{u,o}^{\eta} + \alpha_o + \text{fit}_{u,k}^{\eta} + \beta_k + \text{fit}_{u,g}^{\eta} +
        \zeta \, \mathbb{1}[o = o^*, k = k^*] \big) \Big)

    with the user's mean taste :math:`R_u` over the services, the number B of blocks and the user's own share
    :math:`q_{u,b}` of visits in the block. In-app messages are then opened by users who are in the app on this day, so
    that opening depends on the channel alone where `time_match` is 0.

    An in-app message is only opened by a user who is in the app in its block; presence is drawn separately, not from
    the simulated visits, so that it is independent of what the user would do anyway on a day of this kind.

    Args:
        slots: N slots.
        actions: (N, M), one message per slot, or (N, J, M) or (1, J, M), J messages per slot.
        dynamics: The scenario's parameters.
        calendar: The market's calendar.
        kind: Kinds of the slots' days (N,); by default probabilities are means over all kinds.
    """
    messages = Chosen(actions)
    opened = opening_probability(slots, messages, dynamics, calendar, kind)
    return Response(
        opened=opened,
        open_logged=logged_probability(opened, slots, messages, dynamics),
        acts=acting_probability(opened, messages, dynamics),
        visits=extra_visits(slots, messages, dynamics, calendar),
        conversion=extra_conversion(slots, messages, dynamics),
        unsubscribed=unsubscribe_probability(slots, messages, dynamics),
    )
