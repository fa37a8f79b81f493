"""Weight controls like the sent decisions in passes over buckets: sums of odds, then the influence of users."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from functools import reduce
from typing import TypeVar

from crosschannel.histories.history import History
from crosschannel.reward.effects.buckets.designs import Plan
from crosschannel.reward.effects.buckets.passes import Run
from crosschannel.reward.effects.checks.alike_controls import (
    Likeness,
    Moments,
    OddsSums,
    check_alike_controls,
    likeness_by_activity,
    likeness_by_propensity,
)
from crosschannel.reward.effects.checks.check import Check
from crosschannel.reward.frame import RewardFrame
from crosschannel.reward.measurement.outcomes import Outcomes
from crosschannel.reward.models import FittedDid

T = TypeVar("T", OddsSums, Moments)


@dataclass(frozen=True)
class _Measured:
    """How a bucket is measured: the plan, and the reward that was fitted to all buckets."""

    plan: Plan
    fitted: FittedDid

    def __call__(self, history: History) -> Iterator[tuple[Likeness, Outcomes, RewardFrame]]:
        """Yield what makes controls like the sent decisions, with the outcomes and rewards of a bucket."""
        o, spec = self.plan.measure(history), self.plan.spec
        frame = self.fitted.transform_outcomes(o)
        yield likeness_by_propensity(o, frame, history, spec), o, frame
        yield likeness_by_activity(o, frame, history, spec, self.plan.activity), o, frame


@dataclass(frozen=True)
class _SumOdds:
    """The first pass over a bucket."""

    measured: _Measured

    def __call__(self, history: History) -> dict[str, OddsSums]:
        return {like.name: OddsSums.from_outcomes(like, o, frame) for like, o, frame in self.measured(history)}


@dataclass(frozen=True)
class _SumUsers:
    """The second pass over a bucket, given the sums of all buckets."""

    measured: _Measured
    sums: dict[str, OddsSums]

    def __call__(self, history: History) -> dict[str, Moments]:
        found = self.measured(history)
        return {like.name: Moments.from_outcomes(like, o, frame, self.sums[like.name]) for like, o, frame in found}


def controls_alike(run: Run, plan: Plan, fitted: FittedDid, effect: float) -> list[Check]:
    """Return the checks by propensity and by past activity over all buckets, those that can be made.

    Args:
        run: Runs a function over the histories of all buckets.
        plan: What is estimated.
        fitted: The reward that was fitted to all buckets.
        effect: The average effect.
    """
    measured = _Measured(plan, fitted)
    sums = reduce(_add, run(_SumOdds(measured), "controls like sent decisions, pass 1"))
    moments = reduce(_add, run(_SumUsers(measured, sums), "controls like sent decisions, pass 2"))
    found = (check_alike_controls(name, one, moments[name], effect) for name, one in sums.items())
    return [check for check in found if check is not None]


def _add(one: dict[str, T], other: dict[str, T]) -> dict[str, T]:
    return {name: one[name] + other[name] for name in one}
