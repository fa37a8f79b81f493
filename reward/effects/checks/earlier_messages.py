"""Whether sent decisions and their controls had equally many messages in the window before."""

from __future__ import annotations

from dataclasses import replace

import numpy as np

from crosschannel.core.errors import NotIdentified
from crosschannel.core.times import duration
from crosschannel.histories.history import History
from crosschannel.reward.effects.checks.check import MIN_SHARE, SIGNIFICANCE_LEVEL, Check
from crosschannel.reward.effects.estimates import Effect, TreatmentEffects
from crosschannel.reward.effects.inference import two_sided_p_value
from crosschannel.reward.effects.influence import WITHOUT_CONTROLS
from crosschannel.reward.measurement.messages import Messages
from crosschannel.reward.measurement.outcomes import Outcomes
from crosschannel.reward.spec import RewardSpec

NAME = "earlier messages"


def earlier_messages(fitted: TreatmentEffects, history: History) -> Check | None:
    r"""Check whether the window before holds as many messages on both sides; None where it holds none.

    A reward takes what happened in the window before from what happened after. What earlier messages did there is part
    of it, and cancels only if sent decisions and controls had equally many. If each message acts alike and within one
    post window, the estimate is

    .. math:: \theta (1 - \Delta), \qquad \Delta = (\bar m_1 - \bar m_0) \cdot \text{post} / \text{pre}

    with m the number of the user's messages in the window before, compared as the rewards are: a log in which some
    users get a message every day and others never has an estimate of 0, whatever messages do. `raw` and `change` have
    no controls, and are not checked.

    Args:
        fitted: The model, fitted on the history.
        history: The history.
    """
    if fitted.model.name in WITHOUT_CONTROLS:
        return None
    outcomes = earlier_outcomes(fitted.outcomes, history, fitted.model.spec)
    if not outcomes.post[(outcomes.treated | outcomes.control) & outcomes.observed].any():
        return None
    try:
        effect = TreatmentEffects.fit_outcomes(fitted.model, outcomes).effect(None, NAME)
    except NotIdentified:
        effect = Effect.not_identified(NAME)
    return check_earlier_messages(effect)


def earlier_outcomes(outcomes: Outcomes, history: History, spec: RewardSpec) -> Outcomes:
    """Return decisions whose change is the number of messages in the window before, per length of the window after."""
    count = Messages.from_history(history).count_others(history, -duration(spec.pre), 0)
    share = count.astype(np.float64) * (duration(spec.post) / duration(spec.pre))
    return replace(outcomes, pre=np.zeros(len(outcomes)), post=share)


def check_earlier_messages(effect: Effect) -> Check | None:
    """State what a difference in earlier messages does to the effect; None where nothing has a reward.

    The text has no size of the bias: the formula holds where nothing but earlier messages differs, while a log that
    sends by past activity has a bias that may be many times as large.
    """
    if not np.isfinite([effect.value, effect.se]).all() or effect.value == effect.se == 0.0:
        return None
    p = two_sided_p_value(effect.value / effect.se, effect.n_users - 1) if effect.se > 0 else 0.0
    share = abs(effect.value)
    side, bias = ("more", "small") if effect.value > 0 else ("fewer", "large")
    numbers = f"{share:.2g} {side} messages per post window than controls, p = {p:.2g}"
    if p < SIGNIFICANCE_LEVEL and share >= MIN_SHARE:
        text = (
            f"in the window before, sent decisions had {numbers}: what these did there is part of the rewards, which "
            f"makes the effect too {bias}. This test does not tell by how much: what made the log send so may be "
            "part of the rewards as well"
        )
        return Check(NAME, "failed", p, text)
    return Check(NAME, "passed", p, f"in the window before, sent decisions had {numbers}")
