"""Whether the goal moves in the hours before a message: a clock that is off, or messages that follow their users."""

from __future__ import annotations

from dataclasses import replace

from crosschannel.core.errors import ConfigError, NotIdentified
from crosschannel.core.times import DAY, HOUR
from crosschannel.histories.history import History
from crosschannel.reward.effects.checks.check import MIN_SHARE, SIGNIFICANCE_LEVEL, Check
from crosschannel.reward.effects.estimates import Effect, TreatmentEffects
from crosschannel.reward.effects.event_study import (
    EventTimes,
    measure_base,
    measure_shifted,
    messages_between,
    seen_outcomes,
)
from crosschannel.reward.effects.inference import two_sided_p_value
from crosschannel.reward.measurement.outcomes import Outcomes
from crosschannel.reward.measurement.preprocessing import FittedPreprocessing
from crosschannel.reward.models import DidReward
from crosschannel.reward.spec import RewardSpec

NAME = "hours before"
#: The hours before a message, which are compared with the same ones a day earlier.
HOURS = 3
TIMES = EventTimes(f"{HOURS}h", 1, 1)
#: No other message may lie in all of this time before a message: it would act in the hours that are compared.
ALONE = DAY + HOURS * HOUR + 12 * HOUR
#: With fewer goal events that are not at whole hours, the log does not say what happened in hours.
SHARE_OF_FINE_TIMES = 0.5


def hours_before(fitted: TreatmentEffects, history: History) -> Check | None:
    r"""Check whether sent decisions differ from controls in the hours just before, less the same hours a day earlier.

    .. math:: \widehat{ATT}[Y(t - h, t) - Y(t - 1d - h, t - 1d)]

    by the reward's own kind; 0 where trends are parallel. Messages whose times are an hour late, such as local times
    that are read as UTC, act before their own time: much of the effect is then in the window before, which is
    subtracted. In bins of a day that is a small difference, in a few hours a clear one. A message that follows what its
    user just did looks alike, and is no less a fault. Decisions with another message in the day and a half before are
    left out on both sides: with a gap between messages, controls have more of them in these hours.
    Only `did`: covariates of other kinds hold these hours. None where goal events have whole hours or dates only.

    Args:
        fitted: The model, fitted on the history.
        history: The history.
    """
    if fitted.model.name != DidReward.name or not has_fine_times(history, fitted.model.spec):
        return None
    outcomes = outcomes_before(fitted.outcomes, history, fitted.model.spec)
    try:
        before = TreatmentEffects.fit_outcomes(fitted.model, outcomes).effect(None, NAME)
    except NotIdentified:
        return None
    return check_hours_before(before, fitted.effect())


def has_fine_times(history: History, spec: RewardSpec) -> bool:
    """Return whether most goal events have a time of day that is not a whole hour."""
    try:
        times = history.events.time[history.are_events([goal.event for goal in spec.goals])]
    except ConfigError:  # a sample of users may lack an event
        return False
    return len(times) > 0 and bool((times % HOUR != 0).mean() > SHARE_OF_FINE_TIMES)


def outcomes_before(
    outcomes: Outcomes, history: History, spec: RewardSpec, preprocessing: FittedPreprocessing | None = None
) -> Outcomes:
    """Return the decisions with the change from the hours a day before to the hours just before.

    Those with another message in the time before have none.

    Args:
        outcomes: What the reward measured.
        history: The history.
        spec: The settings of the reward.
        preprocessing: What windows of these hours are measured with; by default it is fitted here.
    """
    around = measure_base(history, spec, TIMES, preprocessing)
    yesterday = measure_shifted(history, spec, TIMES, around, -DAY)
    changed = replace(outcomes, pre=yesterday.pre, post=around.pre)
    seen = around.observed & yesterday.observed & ~messages_between(history, -ALONE, 0)
    return seen_outcomes(changed, history, spec, seen, -ALONE, 0)


def check_hours_before(before: Effect, effect: Effect) -> Check | None:
    """State what the hours before say; None where they are not identified. A difference below `MIN_SHARE` passes."""
    if not before.se > 0:
        return None
    p = two_sided_p_value(before.value / before.se, before.n_users - 1)
    text = (
        f"in the {HOURS} h before, less those of the day before, sent decisions have {before.value:+.3g}, p = {p:.2g}"
    )
    if p < SIGNIFICANCE_LEVEL and not abs(before.value) < MIN_SHARE * abs(effect.value):
        text += (
            ": the times of messages are later than they were (look at `time_zone` of each file), or messages follow "
            "what their users do"
        )
        return Check(NAME, "failed", p, text)
    return Check(NAME, "passed", p, text)
