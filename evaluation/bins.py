"""How an evaluation's weights are spread, and how an agent's expectations agree with rewards, in bins for pictures."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
from scipy.special import stdtrit

from crosschannel.core.arrays import FloatArray, IntArray

#: Upper bounds of the bins of weights; the first holds weights of at most 0, the last has no bound.
WEIGHT_BOUNDS = (0.0, 0.5, 1.0, 2.0, 5.0, 10.0, 20.0, 50.0, math.inf)
#: Bins of the expected rewards, and the least users of a bin.
CALIBRATION_BINS, MIN_USERS = 5, 5


@dataclass(frozen=True)
class WeightBin:
    """How many decisions have a weight within some bounds, and how much of the error they cause.

    Attributes:
        low: The bound that the weights are above; minus infinity as NaN.
        high: The bound that they do not exceed; infinity as NaN.
        decisions: Number of decisions.
        share: Their share of all.
        squared_share: Their share of the sum of the squared weights, which is their share of the variance where all
            rewards vary alike.
    """

    low: float
    high: float
    decisions: int
    share: float
    squared_share: float


@dataclass(frozen=True)
class CalibrationBin:
    """What the agent expects of some logged messages of users that it has not learned from, and what they earned.

    Attributes:
        expected: Mean expected reward.
        observed: Mean reward.
        low: Lower bound of its 95 % interval, with users as clusters.
        high: Upper bound.
        messages: Number of messages.
    """

    expected: float
    observed: float
    low: float
    high: float
    messages: int


def weight_bins(weights: FloatArray) -> tuple[WeightBin, ...]:
    """Return how many decisions have which weights (n,), from bounds of `WEIGHT_BOUNDS`; bins without any are kept.

    Without decisions there are no bins.
    """
    if not len(weights):
        return ()
    code = np.searchsorted(WEIGHT_BOUNDS, weights, side="left")
    number = np.bincount(code, minlength=len(WEIGHT_BOUNDS))
    square = np.bincount(code, weights=weights**2, minlength=len(WEIGHT_BOUNDS))
    lows = (math.nan, *WEIGHT_BOUNDS[:-1])
    return tuple(
        WeightBin(
            low=low,
            high=high if math.isfinite(high) else math.nan,
            decisions=int(n),
            share=float(n / len(weights)),
            squared_share=float(s / square.sum()) if square.sum() > 0 else math.nan,
        )
        for low, high, n, s in zip(lows, WEIGHT_BOUNDS, number, square, strict=True)
    )


def calibration_bins(
    expected: FloatArray, rewards: FloatArray, counts: FloatArray, user: IntArray
) -> tuple[CalibrationBin, ...]:
    r"""Return the mean reward of messages by their expected reward, in bins of equally many messages.

    The interval is :math:`\bar r \pm t_{U-1} s`, with the variance of a ratio over the users' sums (Cochran, 1977,
    "Sampling techniques", section 6.3): the users of a bin are independent, their messages are not. A bin of fewer than
    `MIN_USERS` users has no interval and is left out.

    Args:
        expected: Expected reward of each message (n,).
        rewards: Its reward (n,).
        counts: How often it counts (n,).
        user: Integer code of its user (n,).
    """
    if not len(expected):
        return ()
    bounds = np.quantile(expected, np.linspace(0, 1, CALIBRATION_BINS + 1)[1:-1])
    code, rows = np.searchsorted(bounds, expected, side="left"), []
    for k in range(CALIBRATION_BINS):
        here = code == k
        users, place = np.unique(user[here], return_inverse=True)
        if len(users) < MIN_USERS:
            continue
        weight, total = counts[here], counts[here].sum()
        mean = float(weight @ rewards[here] / total)
        by_user = np.bincount(place, weights=weight * (rewards[here] - mean))
        error = math.sqrt(len(users) / (len(users) - 1) * float(by_user @ by_user)) / total
        margin = float(stdtrit(len(users) - 1, 0.975)) * error
        rows.append(
            CalibrationBin(
                expected=float(weight @ expected[here] / total),
                observed=mean,
                low=mean - margin,
                high=mean + margin,
                messages=int(here.sum()),
            )
        )
    return tuple(rows)
