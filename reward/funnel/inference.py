"""What the tests of a funnel share: p-values of effects, and the smallest effect that is detected."""

from __future__ import annotations

import math

import numpy as np
import scipy  # it imports scipy.stats on first use, so that a program's help does not wait for it

from crosschannel.core.arrays import FloatArray
from crosschannel.reward.effects.estimates import Effect
from crosschannel.reward.effects.inference import two_sided_p_value

#: A test rejects below this p-value, adjusted for the number of tests.
SIGNIFICANCE_LEVEL = 0.05
#: Probability with which `detectable_effect` is detected.
POWER = 0.8
#: With fewer users on the smaller side an effect is not tested: its error is not known well enough.
MIN_USERS = 20


def is_testable(effect: Effect) -> bool:
    """Return whether an effect has an error that rests on enough users."""
    return math.isfinite(effect.value) and math.isfinite(effect.se) and effect.se > 0 and effect.n_users >= MIN_USERS


def p_value(effect: Effect) -> float:
    """Return the p-value of the test that an effect is 0; NaN where it cannot be tested."""
    return two_sided_p_value(effect.value / effect.se, effect.n_users - 1) if is_testable(effect) else math.nan


def shares_of_level(p_values: FloatArray, weights: FloatArray) -> FloatArray:
    """Return the share of the level that each test of `holm_adjusted` has at first (k,); NaN where not tested."""
    tested = ~np.isnan(p_values)
    return np.where(tested, weights / max(float(weights[tested].sum()), np.finfo(float).tiny), np.nan)


def detectable_effect(effect: Effect, share: float = 1.0) -> float:
    r"""Return how far from 0 an effect must be for a test with its error to find it in 80 % of logs.

    .. math:: (t_{1 - \alpha s / 2} + t_{0.8}) \, se

    with the share s of the level (the first step of `holm_adjusted`). NaN where it cannot be tested.
    """
    if not is_testable(effect):
        return math.nan
    freedom = effect.n_users - 1
    tail = SIGNIFICANCE_LEVEL * share / 2
    return float((scipy.stats.t.isf(tail, freedom) + scipy.stats.t.ppf(POWER, freedom)) * effect.se)
