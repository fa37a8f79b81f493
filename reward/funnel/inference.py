"""What the tests of a funnel share: p-values of effects, Holm's adjustment and the smallest effect that is detected."""

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


def holm(p_values: FloatArray) -> FloatArray:
    r"""Return p-values (k,) adjusted so that all of a family's tests together reject too often in 5 % of logs at most.

    .. math:: \tilde p_{(j)} = \max_{i \le j} \min(1, (k - i + 1) p_{(i)})

    NaN stays NaN and does not count. Holm (1979), "A simple sequentially rejective multiple test procedure",
    Scandinavian Journal of Statistics.
    """
    p = np.asarray(p_values, dtype=np.float64)
    tested = np.flatnonzero(~np.isnan(p))
    order = tested[np.argsort(p[tested], kind="stable")]
    out = np.full(len(p), np.nan)
    scaled = p[order] * np.arange(len(order), 0, -1)
    out[order] = np.minimum(np.maximum.accumulate(scaled), 1.0) if len(order) else scaled
    return out


def detectable_effect(effect: Effect, tests: int = 1) -> float:
    r"""Return how far from 0 an effect must be for a test with its error to find it in 80 % of logs.

    .. math:: (t_{1 - \alpha / 2k} + t_{0.8}) \, se

    with k tests that share the level (the first step of Holm's adjustment). NaN where it cannot be tested.
    """
    if not is_testable(effect):
        return math.nan
    freedom = effect.n_users - 1
    tail = SIGNIFICANCE_LEVEL / (2 * max(tests, 1))
    return float((scipy.stats.t.isf(tail, freedom) + scipy.stats.t.ppf(POWER, freedom)) * effect.se)
