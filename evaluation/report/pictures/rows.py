"""Rows that the report's pictures and Matplotlib's plots share: weights, calibration, and cost events."""

from __future__ import annotations

import math
from collections.abc import Sequence

from crosschannel.evaluation.bins import CalibrationBin, WeightBin
from crosschannel.evaluation.bootstrap import Interval
from crosschannel.evaluation.gate import CostEvent
from crosschannel.evaluation.report.formatting import why_not
from crosschannel.evaluation.report.pictures.charts import Row
from crosschannel.evaluation.report.pictures.pairs import Pair

#: Width of a normal variable's 95 % interval, in standard errors.
INTERVAL_WIDTH = 2 * 1.96


def interval_of_bounds(value: float, low: float, high: float) -> Interval:
    """Return a value with its 95 % interval, the standard error by the interval's width."""
    return Interval(value, low, high, (high - low) / INTERVAL_WIDTH)


def weight_rows(bins: Sequence[WeightBin]) -> list[Pair]:
    """Return the shares of the decisions and of the squared weights by bin; bins without decisions are left out."""
    return [Pair(bin_name(each), each.share, each.squared_share) for each in bins if each.decisions]


def bin_name(each: WeightBin) -> str:
    """Return the bounds of a bin of weights in words."""
    if math.isnan(each.low):
        return f"of {each.high:g} or less"
    return f"above {each.low:g}" if math.isnan(each.high) else f"above {each.low:g} to {each.high:g}"


def calibration_rows(bins: Sequence[CalibrationBin]) -> list[Row]:
    """Return the mean reward of each bin of messages, with what was expected as its marker."""
    return [
        Row(
            label=f"{each.messages:,} messages, expected {each.expected:+.3g}",
            interval=interval_of_bounds(each.observed, each.low, each.high),
            marker=each.expected,
        )
        for each in bins
    ]


def cost_rows(costs: Sequence[CostEvent]) -> list[Row]:
    """Return the rate of each cost event under the policy, with the log's as its marker."""
    return [
        Row(
            label=cost.event,
            interval=cost.policy,
            note=why_not(cost.reason),
            marker=cost.logged,
        )
        for cost in costs
    ]
