"""Settings of the market, and the value of its goal events."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from crosschannel.core.arrays import FloatArray
from crosschannel.core.errors import ConfigError, nearest
from crosschannel.core.hashing import MAX_SEED
from crosschannel.envs.market.dynamics.parameters import Dynamics, Scenario
from crosschannel.envs.market.scenarios import SCENARIOS
from crosschannel.envs.market.vocabulary import BASKET, EVENTS, N_COLUMNS, ORDER, SERVICES
from crosschannel.histories.goals import Goal

DEFAULT_GOALS = (Goal("order:*", 1.0), Goal("visit:*", 0.1), Goal("unsubscribed", -3.0))


@dataclass(frozen=True)
class MarketConfig:
    """Settings of a simulation.

    Attributes:
        users: Number of users in the market's history.
        days: Number of days with a decision slot, at least 2.
        warmup_days: Number of days of organic behaviour before the first slot, at least 2.
        seed: Seed of the calendar and of the history's users.
        scenario: Name of a set of parameters, one of `SCENARIOS`.
        min_gap_days: Number of days after a message on which no other message may be sent.
        goals: Events that count, each with a weight.
    """

    users: int = 20_000
    days: int = 28
    warmup_days: int = 14
    seed: int = 0
    scenario: str = "default"
    min_gap_days: int = 2
    goals: tuple[Goal, ...] = DEFAULT_GOALS

    def __post_init__(self) -> None:
        for name, least in (("users", 1), ("days", 2), ("warmup_days", 2), ("min_gap_days", 0), ("seed", 0)):
            if getattr(self, name) < least:
                raise ConfigError(f"market {name} {getattr(self, name)} is below {least}: give at least {least}")
        if self.seed > MAX_SEED:
            raise ConfigError(f"the market's seed is above {MAX_SEED}: give at most that")
        if self.scenario not in SCENARIOS:
            hint = nearest(self.scenario, SCENARIOS)
            raise ConfigError(f"there is no market scenario {self.scenario!r}. {hint}")
        goal_weights(self.goals)

    @property
    def horizon(self) -> int:
        """Number of simulated days, warm-up included."""
        return self.warmup_days + self.days

    @property
    def parameters(self) -> Scenario:
        """Parameters of the scenario."""
        return SCENARIOS[self.scenario]()

    @property
    def dynamics(self) -> Dynamics:
        """Behaviour and responses of the scenario's users."""
        return self.parameters.dynamics


def goal_weights(goals: tuple[Goal, ...]) -> FloatArray:
    """Return the value of one unit of each daily count, (N_COLUMNS,), in reward units.

    Raises:
        ConfigError: If a goal's event does not exist on the market, or a goal is clipped or has fading credit: such a
            sum has no closed-form mean.
    """
    weights = np.zeros(N_COLUMNS)
    for goal in goals:
        prefix = goal.event[:-1] if goal.event.endswith("*") else None
        matching = [i for i, name in enumerate(EVENTS) if name == goal.event or (prefix and name.startswith(prefix))]
        if not matching:
            raise ConfigError(f"the market has no event {goal.event!r}. {nearest(goal.event, EVENTS)}")
        if goal.clip is not None or goal.winsor is not None or goal.credit != "uniform":
            raise ConfigError(
                f"goal {goal.event!r} has a clip, a winsor quantile or fading credit: "
                "the market's true effects are only known without them"
            )
        for event in matching:
            valued = goal.measure == "value" and ORDER <= event < ORDER + len(SERVICES)
            weights[event - ORDER + BASKET if valued else event] += goal.weight
    return weights
