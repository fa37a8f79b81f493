"""Apply constraints to a policy: shadow prices at every decision time, and the probabilities that follow."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from functools import partial
from typing import Any

import numpy as np
import pandas as pd

from crosschannel.agents import Agent, Observations
from crosschannel.agents.constraints.budgets import action_prices, budgets_at, prices_later_modules
from crosschannel.agents.constraints.prices import Prices
from crosschannel.agents.constraints.send_price import price_of_message
from crosschannel.agents.constraints.settings import Constraints
from crosschannel.agents.votes import ChannelVotes, PriceableAgent
from crosschannel.core.arrays import BoolArray, FloatArray, IntArray
from crosschannel.core.errors import ConfigError
from crosschannel.core.times import WEEK
from crosschannel.envs.replay import ReplayLog, TransitionIndex
from crosschannel.histories.history import History
from crosschannel.pipeline.cost_counts import CostCounts
from crosschannel.pipeline.priced_votes import Voting, find_prices, use_of_votes, votes_less_messages

SLOTS_PER_CHUNK = 65_536


@dataclass(frozen=True)
class LogPace:
    """How often decisions are made in a log, and how often cost events follow them.

    Attributes:
        period: Time from one decision time to the next, microseconds: the median over the users' decisions.
        rates: Number of each cost event per user and week, from the user's first decision to churn or the end.
        message_price: What a message costs at later slots, by the policy that was learned: see `price_messages`.
        organic: Number of each cost event per user and week without a message: see `CostCounts.organic`.
        events: Number of each cost event that hazards were learned from.
    """

    period: int
    rates: Mapping[str, float]
    message_price: float = 0.0
    organic: Mapping[str, float] = field(default_factory=dict)
    events: Mapping[str, int] = field(default_factory=dict)

    @classmethod
    def measure(cls, history: History, events: tuple[str, ...], otherwise: int, window: int) -> LogPace:
        """Measure the pace of a history.

        Args:
            history: The log.
            events: The cost events.
            otherwise: The period where no user has two decisions, microseconds.
            window: Time after a message in which it causes cost events, microseconds.
        """
        d = history.decisions
        same = d.user[1:] == d.user[:-1]
        steps = np.diff(d.time)[same]
        period = int(np.median(steps)) if len(steps) else otherwise
        counts = CostCounts.of(history, events, window)
        return cls(max(period, 1), counts.rates(events), organic=counts.organic(events), events=counts.by_event(events))

    def to_dict(self) -> dict[str, Any]:
        """Return it as plain values."""
        return {
            "period": self.period,
            "rates": dict(self.rates),
            "message_price": self.message_price,
            "organic": dict(self.organic),
            "events": dict(self.events),
        }

    @classmethod
    def from_dict(cls, data: Mapping[str, Any]) -> LogPace:
        """Restore what `to_dict` returned."""
        rates, organic = _rates(data["rates"]), _rates(data["organic"])
        events = {str(name): int(number) for name, number in data["events"].items()}
        return cls(int(data["period"]), rates, float(data["message_price"]), organic, events)


def _rates(data: Mapping[str, Any]) -> dict[str, float]:
    return {str(name): float(rate) for name, rate in data.items()}


@dataclass(frozen=True)
class PricedPolicy:
    """A policy that keeps constraints.

    Attributes:
        probabilities: Its exact probabilities, one array (N, *shape(m)) per module.
        table: Each constraint at each decision time: `group`, `constraint`, `price`, `use`, `budget`, `binding`.
    """

    probabilities: list[FloatArray]
    table: pd.DataFrame


def check_priceable(agent: Agent, constraints: Constraints) -> None:
    """Refuse an agent whose policy cannot keep constraints.

    Raises:
        ConfigError: If there are constraints, and the agent does not show its votes.
    """
    if constraints.price_messages and not isinstance(agent, PriceableAgent):
        names = (*constraints.names, *(["discount"] if constraints.discount else []))
        raise ConfigError(
            f"the agent {type(agent).__name__} cannot keep constraints ({', '.join(names)}): choose "
            "ensemble_thompson, or empty `constraints` (--constraints.cost-events '[]')"
        )


def price_messages(agent: Agent, log: ReplayLog, constraints: Constraints, pace: LogPace) -> LogPace:
    """Return the pace with the price of a message, learned from a log's slots and the agent's values there.

    The values are those of the best message by the best estimate, before shadow prices.

    Args:
        agent: The agent, which has learned.
        log: The slots that it has learned from.
        constraints: The constraints, with the discount of later slots.
        pace: The pace of the log.
    """
    if not constraints.discount:
        return pace
    check_priceable(agent, constraints)
    assert isinstance(agent, PriceableAgent)
    index = TransitionIndex.from_log(log)
    value = np.full(len(log), -np.inf)
    for start in range(0, len(log), SLOTS_PER_CHUNK):
        rows = slice(start, start + SLOTS_PER_CHUNK)
        votes = agent.votes(Observations(log.context[rows], log.action_mask[rows]), explore=False)
        value[rows] = np.where(votes.mask, votes.values[0], -np.inf)[:, 1:].max(1)
    price = price_of_message(
        log.context,
        log.modules.sends(log.actions),
        value,
        index.next_row,
        index.steps_to_next,
        index.terminal,
        constraints.discount,
    )
    return replace(pace, message_price=price)


def priced_policy(
    agent: Agent,
    observations: Observations,
    group: IntArray,
    constraints: Constraints,
    pace: LogPace,
    has_slot: BoolArray | None = None,
    *,
    explore: bool = True,
) -> PricedPolicy:
    """Return an agent's policy under constraints.

    Prices are found for all users of one decision time together and frozen before anything is drawn.

    Args:
        agent: The agent.
        observations: What it sees at N slots.
        group: Decision time of each slot (N,): equal numbers are decided together.
        constraints: The constraints; without any this is the agent's own policy.
        pace: Pace of the log.
        has_slot: Which rows are users who can get a message at all (N,), and so count for a limit per user; all by
            default.
        explore: Whether the policy explores. Without exploration the best estimate votes alone, at prices that are
            found for its votes.

    Raises:
        ConfigError: If the agent cannot keep constraints.
        InfeasibleBudget: If the floor alone uses more than a budget.
    """
    if not constraints.price_messages:
        if not explore:
            raise ConfigError("without constraints the agent itself acts on its best estimate: use `act`")
        return PricedPolicy(agent.action_probabilities(observations), _table([]))
    check_priceable(agent, constraints)
    assert isinstance(agent, PriceableAgent)
    if not constraints.names:
        votes = votes_less_messages(agent, observations, pace.message_price, explore=explore)
        return PricedPolicy(votes.probabilities(), _table([]))
    out = [np.zeros((len(observations), *agent.modules.shape(m))) for m in range(len(agent.modules))]
    rows, voting = [], Voting(constraints, pace.message_price, explore)
    for time in np.unique(group):
        mine = np.flatnonzero(group == time)
        users = len(mine) if has_slot is None else int(has_slot[mine].sum())
        budgets = budgets_at(constraints, users, pace.period, pace.rates, pace.organic)
        votes_at = partial(voting.in_memory, agent, observations[mine])
        user_weeks = users * pace.period / WEEK
        found, prices = find_prices(votes_at, constraints, agent.modules, budgets, user_weeks, pace.organic)
        for whole, share in zip(out, found.probabilities(prices), strict=True):
            whole[mine] = share
        rows += _price_rows(int(time), constraints, prices, budgets)
    return PricedPolicy(out, _table(rows))


def votes_at_prices(
    agent: Agent, observations: Observations, constraints: Constraints, pace: LogPace, prices: FloatArray
) -> tuple[ChannelVotes, FloatArray]:
    """Return the exploring votes at prices that were found before (C,), and what each action costs at them (N, A).

    Raises:
        ConfigError: If the agent cannot keep constraints.
    """
    check_priceable(agent, constraints)
    assert isinstance(agent, PriceableAgent)
    if prices_later_modules(constraints, agent.modules):
        charged = np.tile(action_prices(constraints, agent.modules, prices), (len(observations), 1))
        observations = replace(observations, action_prices=charged)
    votes = votes_less_messages(agent, observations, pace.message_price, explore=True)
    use = use_of_votes(constraints, votes)
    return votes, np.tensordot(prices, use - use[:, :, :1], axes=1)


def price_table(time: int, constraints: Constraints, prices: Prices, budgets: FloatArray) -> pd.DataFrame:
    """Return the constraints at one decision time, in the columns of `PricedPolicy.table`."""
    return _table(_price_rows(time, constraints, prices, budgets))


def _price_rows(time: int, constraints: Constraints, prices: Prices, budgets: FloatArray) -> list[tuple[Any, ...]]:
    columns = zip(constraints.names, prices.prices, prices.use, budgets, prices.binding, strict=True)
    return [(time, *row) for row in columns]


def _table(rows: list[tuple[Any, ...]]) -> pd.DataFrame:
    return pd.DataFrame(rows, columns=["group", "constraint", "price", "use", "budget", "binding"])
