"""Goals: which events count, with which weight."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from histories.errors import ConfigError
from histories.history import History
from histories.modules import FloatArray, IntArray
from histories.windows import LARGEST_SUM, from_fixed, running, to_fixed


@dataclass(frozen=True)
class Goal:
    """One kind of event that the messages are meant to raise (or, with a negative weight, not to raise).

    Attributes:
        event: The event's name; `name*` stands for every event that begins so.
        weight: What one unit is worth, in reward units; negative for harm.
        measure: `count` adds 1 for each event, `value` adds the event's value.
        clip: The largest amount that one user's window may have, in the measure's units, before the weight;
            None for no limit. Clipping bounds the influence of rare, very large orders.
    """

    event: str
    weight: float = 1.0
    measure: str = "count"
    clip: float | None = None

    def __post_init__(self) -> None:
        if self.measure not in ("count", "value"):
            raise ConfigError(f"goal {self.event!r}: measure {self.measure!r} is neither 'count' nor 'value'")
        if not np.isfinite(self.weight) or self.weight == 0:
            raise ConfigError(f"goal {self.event!r}: weight {self.weight} is not a finite number other than 0")
        if self.clip is not None and not 0 < self.clip < LARGEST_SUM:
            raise ConfigError(f"goal {self.event!r}: clip {self.clip} is not between 0 and {LARGEST_SUM:g}")


@dataclass(frozen=True)
class GoalTotals:
    """Running totals of one goal over a history's events, (e + 1,) in fixed point."""

    goal: Goal
    total: IntArray

    @classmethod
    def of(cls, goal: Goal, history: History) -> GoalTotals:
        """Adds up a goal's events in the history's order."""
        chosen = np.isin(history.events.event, history.event_codes([goal.event]))
        amount = history.events.value if goal.measure == "value" else np.ones(len(history.events))
        return cls(goal, running(to_fixed(np.where(chosen, amount, 0.0))))

    def window(self, first: IntArray, last: IntArray) -> FloatArray:
        """Weighted and clipped amount in the rows from `first` up to, not including, `last`."""
        amount = from_fixed(self.total[last] - self.total[first])
        if self.goal.clip is not None:
            amount = np.minimum(amount, self.goal.clip)
        return self.goal.weight * amount
