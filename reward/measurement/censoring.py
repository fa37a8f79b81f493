"""Censoring: how probable it is that no later message takes a decision's reward away, and weights against it."""

from __future__ import annotations

import numpy as np

from crosschannel.core.arrays import FloatArray
from crosschannel.core.times import duration
from crosschannel.histories.fixed_point import from_fixed, to_fixed
from crosschannel.histories.history import History
from crosschannel.histories.windows import Timeline, running_totals
from crosschannel.reward.spec import RewardSpec


def inverse_probability(p_uncensored: FloatArray) -> FloatArray:
    """Return weights (n,) by inverse probability of censoring: 1/p, or 1 where p is not known."""
    return np.asarray(1.0 / np.where(np.isnan(p_uncensored), 1.0, p_uncensored))


def censoring_time(spec: RewardSpec) -> int:
    """Return how long after a decision a message takes its reward away, microseconds."""
    return {"shared": 0, "exclude": duration(spec.post), "truncate": duration(spec.min_post)}[spec.overlap]


def p_uncensored(history: History, length: int) -> FloatArray:
    """Return the probability (n,) that nothing is sent at the user's slots in `(t, t + length)`, if nothing was.

    Where something was sent there, the decision has no reward, and its entry has no meaning.
    """
    d = history.decisions
    if length == 0:
        return np.ones(len(d))
    nothing = np.where(np.isnan(d.propensity[:, 0]), d.joint, d.propensity[:, 0])
    nothing = np.where(history.modules.sends(d.actions), 1.0, nothing)
    unknown = running_totals(np.isnan(nothing).astype(np.int64))
    # Sums in fixed point, so that no entry depends on other users.
    total = running_totals(to_fixed(np.log(np.where(np.isnan(nothing), 1.0, nothing))))
    slots = Timeline(d.time, history.decision_offsets)
    first, last = slots.before(d.user, d.time, inclusive=True), slots.before(d.user, d.time + length)
    return np.where(unknown[last] > unknown[first], np.nan, np.exp(from_fixed(total[last] - total[first])))


def least_uncensored(history: History, spec: RewardSpec) -> float:
    """Return a lower bound of the known probabilities to be uncensored: see `Outcomes.p_uncensored`; 1 without one."""
    return float(np.nanmin(p_uncensored(history, censoring_time(spec)), initial=1.0))
