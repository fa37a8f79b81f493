"""The rewards of what a log remembers at a time, and the pace of its cost events, from sums over its parts."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from functools import partial, reduce
from operator import add
from typing import TypeVar

import numpy as np

from crosschannel.agents.constraints.budgets import check_constraints
from crosschannel.core.arrays import FloatArray
from crosschannel.core.times import duration
from crosschannel.histories.history import History
from crosschannel.histories.observation.slicing import since, until
from crosschannel.pipeline.configuration import Config
from crosschannel.pipeline.cost_counts import CostCounts, arms_began
from crosschannel.pipeline.loop.parts.log import LogParts
from crosschannel.pipeline.pricing import LogPace
from crosschannel.reward import DidReward, RewardFrame, make_reward
from crosschannel.reward.buckets import passes
from crosschannel.reward.buckets.passes import FittedRewards, goals_to_measure
from crosschannel.reward.measurement.amounts import largest_amounts

Result = TypeVar("Result")


class RowsAreMissing(Exception):
    """Learning needs rows of the time for which the history has totals only."""


@dataclass(frozen=True)
class Memory:
    """What of a log counts at a time.

    Attributes:
        start: From when on rows are remembered, microseconds.
        time: Up to when the log counts, microseconds.
    """

    start: int
    time: int

    @classmethod
    def at(cls, config: Config, history: History, time: int) -> Memory:
        """Return what of a history counts at a time, microseconds since 1970 UTC."""
        update, reward = config.update, config.reward
        return cls(max(history.span[0], time - duration(update.memory) - duration(reward.pre)), time)

    def past(self, history: History) -> History:
        """Return all that a history held by the time."""
        return until(history, self.time)

    def recent(self, past: History) -> History:
        """Return what is remembered of the past.

        Raises:
            RowsAreMissing: If the past has totals only for some of it.
        """
        if past.earlier is not None and self.start < past.earlier.time:
            raise RowsAreMissing
        return since(past, self.start)


@dataclass(frozen=True)
class OwnRewards:
    """Rewards of a kind that needs all users at once: they are those of a log in one part, fitted on itself.

    Attributes:
        config: The configuration.
    """

    config: Config

    def transform(self, history: History) -> RewardFrame:
        """Return the rewards of every decision of the history."""
        return make_reward(self.config.reward.kind, self.config.reward).fit_transform(history)


Rewards = FittedRewards | OwnRewards


@dataclass(frozen=True)
class Counts:
    """What the first pass finds in what a part remembers; `+` adds other users.

    Attributes:
        largest: The largest amounts of all goals that are measured (G,).
        everybody: Cost events of all users.
        usual: Those under business as usual: of its arm, once there is one; None without it.
        began: When the first decision with an arm was made, microseconds; `NEVER` without any.
    """

    largest: FloatArray
    everybody: CostCounts
    usual: CostCounts | None
    began: int

    def __add__(self, other: Counts) -> Counts:
        usual = [each.usual for each in (self, other) if each.usual is not None]
        return Counts(
            largest=np.maximum(self.largest, other.largest),
            everybody=self.everybody + other.everybody,
            usual=reduce(add, usual) if usual else None,
            began=min(self.began, other.began),
        )


def count(config: Config, log: LogParts, memory: Memory) -> Counts:
    """Make the first pass over what the parts of a log remember; where there are arms, one for the time before them."""
    found = reduce(add, _over_recent(log, memory, partial(_count, config=config), "largest amounts"))
    if found.usual is None:
        return found
    before = partial(_count_before, config=config, began=found.began)
    usual = reduce(add, _over_recent(log, memory, before, "cost events before there were arms"))
    return replace(found, usual=usual + found.usual)


def _over_recent(log: LogParts, memory: Memory, function: Callable[[History], Result], what: str) -> Iterator[Result]:
    """Return what a function finds in what each part of a log remembers."""
    return log.run(partial(_on_recent, memory=memory, function=function), what)


def _on_recent(part: History, memory: Memory, function: Callable[[History], Result]) -> Result:
    return function(memory.recent(memory.past(part)))


def _count(recent: History, config: Config) -> Counts:
    events, window = _cost_events(config), duration(config.reward.post)
    return Counts(
        largest=largest_amounts(goals_to_measure(config.reward), recent),
        everybody=CostCounts.of(recent, events, window),
        usual=CostCounts.in_arm(recent, events, window),
        began=arms_began(recent),
    )


def _count_before(recent: History, config: Config, began: int) -> CostCounts:
    return CostCounts.before(recent, _cost_events(config), duration(config.reward.post), began)


def fit_rewards(config: Config, log: LogParts, memory: Memory, sample: History, largest: FloatArray) -> Rewards:
    """Fit rewards to what a log remembers, in two passes over its parts.

    Args:
        config: The configuration.
        log: The log.
        memory: What of it counts.
        sample: What is remembered of the sample, on which limits, strata, attribute values and seasonality are fitted.
        largest: The largest amounts of all goals that are measured (G,).

    Raises:
        NotIdentified: If the log does not tell yet what surrogates are worth.
    """
    if config.reward.kind != DidReward.name:
        assert len(log.parts) == 1  # other kinds are not for buckets
        return OwnRewards(config)
    return passes.fit_rewards(sample, config.reward, largest, partial(_over_recent, log, memory))


def pace_of(config: Config, counts: Counts, sample: History) -> LogPace:
    """Return the pace; where there is such an arm, with the rates of cost events under business as usual.

    The time from slot to slot is that of the sample.

    Args:
        config: The configuration.
        counts: Cost events of what is remembered.
        sample: What is remembered of the sample.
    """
    events = _cost_events(config)
    check_constraints(config.constraints, sample.modules, events)
    pace = LogPace.measure(sample, events, duration(config.update.every), duration(config.reward.post))
    rates = (counts.usual or counts.everybody).rates(events)
    everybody = counts.everybody
    return replace(pace, rates=rates, organic=everybody.organic(events), events=everybody.by_event(events))


def _cost_events(config: Config) -> tuple[str, ...]:
    return () if config.reward.funnel is None else config.reward.funnel.costs
