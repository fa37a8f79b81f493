"""Whether messages take back after the reward's window what they did within it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import numpy as np

from crosschannel.core.errors import NotIdentified
from crosschannel.core.times import DAY, duration
from crosschannel.histories.history import History
from crosschannel.reward.effects.checks.check import SIGNIFICANCE_LEVEL, Check
from crosschannel.reward.effects.estimates import Effect, TreatmentEffects
from crosschannel.reward.effects.event_study import measure_base, measure_shifted, seen_outcomes, windows_of_days
from crosschannel.reward.effects.inference import two_sided_p_value
from crosschannel.reward.effects.influence import WITHOUT_CONTROLS
from crosschannel.reward.measurement.messages import Messages
from crosschannel.reward.measurement.outcomes import Outcomes
from crosschannel.reward.measurement.preprocessing import FittedPreprocessing
from crosschannel.reward.spec import RewardSpec

NAME, MESSAGES = "after the window", "messages after the window"
#: The time after is so many post windows long, and at most this part of the log (a quarter): as much is needed before.
POST_WINDOWS, PART_OF_LOG = 6, 4
#: Share of the effect from which on what is taken back is a failure.
MIN_SHARE_TAKEN_BACK = 0.5


def after_window(fitted: TreatmentEffects, history: History, failed: Sequence[str] = ()) -> Check | None:
    r"""Check whether messages take back, in the days after the post window, at least half of the effect.

    A discount may move an order from the next week to today, and a complaint or an unsubscription may be logged days
    late: the effect within the window is then right, and what a message is worth is less, or a loss. With Y the goal
    value in the time L after the window, and m the number of the user's other messages,

    .. math:: \hat\lambda = \widehat{ATT}[Y(t + post, t + post + L) - Y(t - L, t)]
        - \hat\theta\, \widehat{ATT}[m(t + post, t + post + L) - m(t - L, t)]

    by the reward's own kind. The second part is what other messages did, if they act alike: a frequency cap leaves a
    user with fewer messages after a message. Trends must be parallel over all of that time, so that nothing is tested
    where pre-trends differ, nor where the log is too short, nor with rewards whose windows hold no other message
    (`overlap`), since the time after holds some.

    Args:
        fitted: The model, fitted on the history.
        history: The history.
        failed: Other tests of these rewards that fail.
    """
    length = length_after(history, fitted.model.spec)
    if fitted.model.name in WITHOUT_CONTROLS or length is None:
        return None
    goals, messages = outcomes_after(fitted.outcomes, history, fitted.model.spec, length)
    try:
        later = TreatmentEffects.fit_outcomes(fitted.model, goals).effect(None, NAME)
        others = TreatmentEffects.fit_outcomes(fitted.model, messages).effect(None, MESSAGES)
    except NotIdentified:
        return None
    return check_after_window(fitted.effect(), later, others, length, failed)


def length_after(history: History, spec: RewardSpec) -> int | None:
    """Return how long the time after the window is, whole days in microseconds; None where nothing can be tested."""
    post = duration(spec.post)
    longest = min(POST_WINDOWS * post, (history.span[1] - history.span[0] - post) // PART_OF_LOG)
    return None if spec.overlap != "shared" or longest < DAY else longest // DAY * DAY


def outcomes_after(
    outcomes: Outcomes,
    history: History,
    spec: RewardSpec,
    length: int,
    preprocessing: FittedPreprocessing | None = None,
) -> tuple[Outcomes, Outcomes]:
    """Return the decisions with the change of goals from before to after the window, and with that of other messages.

    Args:
        outcomes: What the reward measured.
        history: The history.
        spec: The settings of the reward.
        length: Of the time after, microseconds.
        preprocessing: What windows of this length are measured with; by default it is fitted here.
    """
    times, post = windows_of_days(length // DAY), duration(spec.post)
    around = measure_base(history, spec, times, preprocessing)
    moved = measure_shifted(history, spec, times, around, post)
    seen = moved.observed & around.observed
    goals = seen_outcomes(
        replace(outcomes, pre=around.pre, post=moved.post), history, spec, seen, -length, post + length
    )
    messages = Messages.from_history(history)
    before, after = (messages.count_others(history, *ends) for ends in ((-length, 0), (post, post + length)))
    return goals, replace(goals, pre=before.astype(np.float64), post=after.astype(np.float64))


def check_after_window(
    effect: Effect, later: Effect, messages: Effect, length: int, failed: Sequence[str] = ()
) -> Check | None:
    """State what messages do after the window; None where it is not identified.

    Args:
        effect: The effect within the window.
        later: The effect on goals in the time after.
        messages: The effect on the number of other messages there.
        length: Of the time after, microseconds.
        failed: Other tests of these rewards that fail: users who differ may then be the cause, and not messages.
    """
    if not later.se > 0:
        return None
    alike = effect.value * messages.value if np.isfinite(messages.value) else 0.0
    value = later.value - alike
    # The error of a product of two estimates, by the delta method.
    errors = (later.se, effect.value * messages.se, effect.se * messages.value)
    error = float(np.sqrt(sum(one**2 for one in errors if np.isfinite(one))))
    p = two_sided_p_value(value / error, later.n_users - 1)
    text = f"in the {length // DAY:g} d after the window sent decisions gain {value:+.3g} over controls, p = {p:.2g}"
    if p < SIGNIFICANCE_LEVEL and value * effect.value < 0 and abs(value) >= MIN_SHARE_TAKEN_BACK * abs(effect.value):
        cause = "what a message does is far from over when the window ends"
        if failed:
            cause = f"this need not be what messages do, since controls differ by other tests ({', '.join(failed)})"
        text += f", and within it {effect.value:+.3g}: {cause}"
        return Check(NAME, "failed", p, text)
    return Check(NAME, "passed", p, text)
