"""Named scenarios of the market: their parameters, and what a correct method must find in each."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

import numpy as np

from crosschannel.envs.market.dynamics.parameters import (
    ActionDates,
    ContentParts,
    DayKind,
    Dynamics,
    Rules,
    Scenario,
)
from crosschannel.envs.market.vocabulary import CHANNELS, OFFERS, SERVICES, TONES

#: First slot of the scenario `refresh` with the new actions, counted from 0.
REFRESH_SLOT = 14
#: Exponent of the tail of the daily bursts in `heavy_tails`.
TAIL_EXPONENT = 1.5
#: The offer and the tone that interact in `synergy`, what each adds by itself, and the bias of the estimator that
#: assumes no interaction, as a share of the lift of the policy `always_pair`.
SYNERGY_PAIR = ("percent_10", "friendly")
PAIR_PART = 4.0
SYNERGY_BIAS = 0.3

_ADDITIVE = Dynamics(
    uplift=0.6,
    time_match=0.0,
    conversion=(0.24,) * len(SERVICES),
    basket=((5, 60),) * len(SERVICES),
    parts=ContentParts(),
)


def default() -> Scenario:
    """Messages help or harm depending on user, channel, time, service and content.

    A correct method finds the true effects: DiD with windows of two days before and one day after has parallel trends
    in levels, because business as usual does not depend on the two days before the slot. A comparison of levels
    overstates the effects by far, as active users get more messages. A good policy sends little to habitual users.
    """
    return Scenario()


def null() -> Scenario:
    """Messages are delivered and opened, but cause no visit, no order and no unsubscribe.

    A correct method finds no effect, although users with messages are more active than others: intervals of the effect
    include zero, and no policy has a higher value than sending nothing.
    """
    return Scenario(replace(Dynamics(), uplift=0.0, hazard=(0.0,) * (len(CHANNELS) - 1)))


def dip() -> Scenario:
    """Business as usual targets users without a visit for two days; effects are those of the default scenario.

    Such a user is back at the usual level the next day, with or without a message (Ashenfelter's dip). `did` mistakes
    this for an effect and is biased upwards, and its pre-trend test must reject. `did_dr` finds the true effect if it
    is given what triggers the messages: logged propensities, or the counts of the last two days as covariates.
    """
    return Scenario(rules=replace(Rules(), quiet=(0.25, 1.6)))


def fatigue() -> Scenario:
    """Fatigue lasts weeks longer than the reward's window: half of it is left after nine days, and lowers open rates.

    DiD still finds the effect of a single message at its slot, but a policy that maximises this effect sends too much.
    A correct sequential method sends less than the myopic oracle and reaches a higher value: `far_sighted`, the exact
    optimum, is the reference. Off-policy estimates of one step do not apply to such a policy.
    """
    return Scenario(replace(Dynamics(), fatigue_open=0.9, fatigue_unsubscribe=0.25, fatigue_retention=0.93))


def drift() -> Scenario:
    """Tastes drift: messages about food and rides start strong and end weak, those about other services the reverse.

    A correct method finds effects by period that follow the true ones. What was learned in the first two weeks is wrong
    in the last two: methods that discount old data, or have time as a feature, reach a higher value.
    """
    return Scenario(replace(Dynamics(), drift=0.8))


def refresh() -> Scenario:
    """Two weeks after the first slot a marketer retires three actions and brings three new ones.

    `percent_20`, `urgent` and `by_name` end; `free_delivery`, `playful` and `wave` begin. The mask of eligible actions
    has these dates, and the log contains no ineligible action. A correct method keeps what it has learned about the
    other actions, never chooses retired ones, and learns the new ones fast: they share labels (`Module.labels`) with
    old ones, and users respond to labels.
    """
    retired = (("offer", "percent_20"), ("tone", "urgent"), ("greeting", "by_name"))
    new = (("offer", "free_delivery"), ("tone", "playful"), ("greeting", "wave"))
    return Scenario(
        dates=(
            *(ActionDates(module, action, end=REFRESH_SLOT) for module, action in retired),
            *(ActionDates(module, action, start=REFRESH_SLOT) for module, action in new),
        )
    )


def direct() -> Scenario:
    """Pushes and SMS act unseen, by as much as seen ones: people read them on the locked screen, and visit later.

    E-mails and in-app messages act only if they are opened. A correct method finds that pushes and SMS that were not
    opened had an effect, rejects for these two channels the assumption that an unseen message does nothing, does not
    reject it for e-mail, and values a push by all sends rather than by its probability of being opened.
    """
    return Scenario(replace(Dynamics(), unseen=(False, True, True, False), uplift=0.3))


def no_opens() -> Scenario:
    """The effects are those of the default scenario, but no opening is logged; clicks are.

    A correct method finds that the log does not contain who has seen a message, and learns from all sends alike. A
    method that takes messages without an open event for unseen ones gives the whole effect to the unseen. Clicks are no
    replacement: each is an extra visit, so that those who clicked are those on whom the message acted.
    """
    return Scenario(replace(Dynamics(), open_logged=(False, False, False, False)))


def confounded_opens() -> Scenario:
    """Users have busy days, on which they visit more, order more and open more, with or without a message.

    A quarter of each user's days are busy, at random. Whether to send does not depend on it, so that DiD of all sends
    finds the true effects, which are about those of the default scenario. Who opens does: a correct method finds that
    those who did not open seem to lose, as their days are mostly quiet, and that the gain of those who opened is
    overstated by far if compared with users without a message. Only both together are causal.
    """
    quiet, busy = DayKind(0.75, 0.4, -0.5), DayKind(0.25, 2.8, 1.2)
    return Scenario(replace(Dynamics(), day_kinds=(quiet, busy)))


def heavy_tails() -> Scenario:
    """Organic visits come in heavy-tailed bursts: most days are quieter than the mean, a few are many times as busy.

    The factor on all visits of a user's day is proportional to 1, 2, 4, ..., 64, and exceeds each of these with a
    probability that falls with its power of -1.5: without an end of the tail its variance would be infinite. So goal
    values of single days, and hence rewards, have heavy tails too; most of a log's variance comes from a few days. The
    effects are those of the default scenario, but for in-app messages, whose readers are in the app less often. A
    correct method finds the true effects, with wider intervals; one that limits the influence of large values must not
    take limited sums for effects, since a limit on goals changes what is measured.
    """
    size = 2.0 ** np.arange(7)
    exceeds = size**-TAIL_EXPONENT
    share = exceeds - np.append(exceeds[1:], 0.0)
    activity = size / (share * size).sum()
    kinds = tuple(DayKind(*each) for each in zip(share.tolist(), activity.tolist(), strict=True))
    return Scenario(replace(Dynamics(), day_kinds=kinds))


def subject_lines() -> Scenario:
    """Tone and greeting are the subject line and move opening, offers move conversion, and channels move the gain.

    In the default scenario offer, tone and greeting act alike, on the visits after opening. Here a correct method finds
    which module moves which part of the funnel: tone and greeting the share of messages that are opened and nothing
    else; offers the orders of the visits that follow and nothing else; channels both opening and the number of visits,
    and in different orders: in-app messages are opened most and bring least.
    """
    return Scenario(
        replace(Dynamics(), uplift=0.35, opening_fit=5.0, conversion_fit=2.0, channel_gain=(1.6, 0.7, 1.2, 0.5))
    )


def machine_opens() -> Scenario:
    """The mail program of half of the users opens every e-mail within seconds, whether or not the user sees it.

    Only this opening is logged. The effects are those of the default scenario. A correct method finds that for these
    users an e-mail's open event means nothing: their e-mails are all opened, and an opened one gains less than those of
    other users, by the share that they read. A method that takes each open event for attention, without distinguishing
    these users, overstates what their e-mails gain and understates those of the others.
    """
    return Scenario(replace(Dynamics(), mail_programs=0.5))


def slow() -> Scenario:
    """Effects last a week: extra visits come over five days, orders up to two days after visits, some without a visit.

    A third of what a message adds happens offline: no visit is logged, but the orders are. A message's true effect is
    its whole effect, which lies within the seven days after its slot; what comes after the market's last day counts as
    well. It is about three times that of the default scenario. Organic orders come up to two days after their visits
    too; business as usual looks at visits from 14 to 4 days before the slot, so that their late orders are over before
    a pre window of two days begins.

    A correct method finds that `post: 1d` sees all of the cost, as users unsubscribe on the same day, but 35 % of the
    visits and 21 % of the orders. `post: 3d` sees 80 % and 68 %: the longest window that, with a gap of two days,
    ends before the next message may be sent. `post: 7d` sees everything, but with `overlap: exclude` (weighted by the
    logged propensities) few decisions remain and errors are six times as large. Visits as surrogates for orders, with
    the conversion of organic visits, miss a third of the effect on orders: a correct test of the surrogates finds that
    orders depend on the message given the visits.
    """
    return Scenario(
        replace(
            Dynamics(),
            uplift=1.1,
            visit_delay=(0.35, 0.25, 0.20, 0.12, 0.08),
            order_delay=(0.40, 0.35, 0.25),
            offline=1 / 3,
        ),
        replace(Rules(), window=(14, 4), limits=(4, 10)),
    )


def additive() -> Scenario:
    r"""What the modules of content earn adds up exactly, given the channel: no two of them interact.

    Send time, service, offer, tone and greeting each contribute their own number of extra visits, in place of factors.
    Opening depends on the channel, the user and the day, but not on the block; visits to all services end in orders
    with the same probability and of the same value. So the true effect is, for each user, day and channel c,

    .. math:: \tau(c, b, s, o, k, g) = \tau_0(c) + f_b(c) + f_s(c) + f_o(c) + f_k(c) + f_g(c)

    for all goals that count the services alike and do not count clicks, as the default ones. Interactions of content
    with the channel remain. A correct method finds no interaction of content modules, and the estimator that assumes
    none (order 1 of the interaction ladder, the pseudoinverse estimator) is unbiased for every policy.
    """
    return Scenario(_ADDITIVE)


def synergy() -> Scenario:
    r"""One pair of parts interacts: a 10 % discount earns more if it is announced in a friendly tone.

    All users are alike in what offers, tones and greetings add; otherwise this is `additive`. In units of
    :math:`\kappa R_u / 5` extra visits per message that acts, the offer `percent_10` adds :math:`\alpha`, the tone
    `friendly` adds :math:`\alpha`, and both together add :math:`\zeta` more. Business as usual chooses them
    independently with the probabilities :math:`\mu_o` and :math:`\mu_k`. For a policy that sends as business as usual,
    but with this offer with the probability :math:`\pi_o` and, independently, this tone with :math:`\pi_k`, the truth
    and the mean of the estimator that assumes no interactions (order 1, without an outcome model) are, above the log,

    .. math::
        V - V_{log} &= \alpha (\pi_o - \mu_o) + \alpha (\pi_k - \mu_k) + \zeta (\pi_o \pi_k - \mu_o \mu_k) \\
        V_1 - V &= -\zeta (\pi_o - \mu_o)(\pi_k - \mu_k)

    The policy `always_pair` (:math:`\pi_o = \pi_k = 1`) has the bias :math:`V_1 - V = -.3 (V - V_{log})`, since

    .. math:: \zeta = \frac{.3 \, \alpha (2 - \mu_o - \mu_k)}{(1 - \mu_o)(1 - \mu_k) - .3 (1 - \mu_o \mu_k)}

    for each user, day and channel. A correct method finds that offer and tone interact, and no other pair of modules.
    """
    return Scenario(
        replace(
            _ADDITIVE,
            uplift=0.8,
            parts=ContentParts(
                exponent=0.0,
                offer=tuple(PAIR_PART * (name == SYNERGY_PAIR[0]) for name in OFFERS),
                tone=tuple(PAIR_PART * (name == SYNERGY_PAIR[1]) for name in TONES),
                pair=SYNERGY_PAIR,
                synergy=_synergy(Rules()),
            ),
        )
    )


def _synergy(rules: Rules) -> float:
    """Return the contribution of the pair that gives the bias of `synergy`."""
    offer = rules.offer[list(OFFERS).index(SYNERGY_PAIR[0])] / sum(rules.offer)
    tone = rules.tone[list(TONES).index(SYNERGY_PAIR[1])] / sum(rules.tone)
    parts = PAIR_PART * (2.0 - offer - tone)
    return SYNERGY_BIAS * parts / ((1.0 - offer) * (1.0 - tone) - SYNERGY_BIAS * (1.0 - offer * tone))


def templates() -> Scenario:
    """Marketing has eight templates, each with an offer and a tone of its own; the effects are the default scenario's.

    Every offer and every tone is in some template, but only 8 of the 20 pairs are ever sent. Logged propensities are
    exact: the tone's is given the offer, and the joint one is that of the template times those of the other modules. A
    correct method finds that offer and tone were not chosen independently: products of the modules' own weights are not
    the weights of the pair, an estimator that takes them for factors is biased even if effects add up, and nothing is
    identified about the other 12 pairs.
    """
    return Scenario(
        rules=replace(
            Rules(),
            templates=(
                ("no_offer", "plain", 0.26),
                ("no_offer", "friendly", 0.10),
                ("points", "friendly", 0.12),
                ("points", "playful", 0.08),
                ("free_delivery", "playful", 0.14),
                ("percent_10", "plain", 0.08),
                ("percent_10", "urgent", 0.10),
                ("percent_20", "urgent", 0.12),
            ),
        )
    )


SCENARIOS: dict[str, Callable[[], Scenario]] = {
    build.__name__: build
    for build in (
        *(default, null, dip, fatigue, drift, refresh),
        *(direct, no_opens, confounded_opens, heavy_tails, subject_lines, machine_opens, slow),
        *(additive, synergy, templates),
    )
}
