"""Named scenarios of the market: their parameters, and what a correct method must find in each."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

from crosschannel.envs.market.dynamics.parameters import ActionDates, Dynamics, Rules, Scenario
from crosschannel.envs.market.vocabulary import CHANNELS

#: First slot of the scenario `refresh` with the new actions, counted from 0.
REFRESH_SLOT = 14


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


SCENARIOS: dict[str, Callable[[], Scenario]] = {
    build.__name__: build for build in (default, null, dip, fatigue, drift, refresh)
}
