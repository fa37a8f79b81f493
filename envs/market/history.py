"""Simulation of the market's log: a valid `History`, and the truth about each of its decisions."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np

from crosschannel.core.arrays import BoolArray, FloatArray, IntArray, ObjectArray
from crosschannel.core.hashing import keys
from crosschannel.core.times import DAY, SECOND
from crosschannel.envs.market.dynamics.calendar import slot_time
from crosschannel.envs.market.dynamics.responses import Slots
from crosschannel.envs.market.dynamics.simulated_events import SimulatedEvents
from crosschannel.envs.market.dynamics.users import Users
from crosschannel.envs.market.market import Market
from crosschannel.envs.market.policies import MarketPolicy, make_policy
from crosschannel.envs.market.vocabulary import EVENTS, MODULES, START
from crosschannel.histories.history import DecisionLog, EventLog, History


@dataclass(frozen=True)
class MarketTruth:
    """Truth about the decisions of a simulated history, in the history's order.

    Attributes:
        market: The market.
        users: The history's users, one row for each.
        user: User codes (n,).
        day: Market days (n,).
        fatigue: Fatigue before each slot (n,).
        actions: Executed actions (n, M).
    """

    market: Market
    users: Users
    user: IntArray
    day: IntArray
    fatigue: FloatArray
    actions: IntArray

    def __len__(self) -> int:
        return len(self.user)

    def slots(self, rows: IntArray | BoolArray | None = None) -> Slots:
        """Return the slots of the chosen decisions, or of all."""
        chosen = np.arange(len(self)) if rows is None else rows
        return Slots(self.users.take(self.user[chosen]), self.day[chosen], self.fatigue[chosen])

    def effect(self, rows: IntArray | BoolArray | None, actions: IntArray) -> FloatArray:
        """Return expected effects (k,) of any actions (k, M) at the chosen decisions, if they were executed."""
        return self.market.true_effect(self.slots(rows), actions)

    def expected_effect(
        self,
        rows: IntArray | BoolArray | None,
        probabilities: Sequence[FloatArray],
        given: Sequence[int | None] | None = None,
    ) -> FloatArray:
        """Return expected effects (k,) of a policy at the chosen decisions; see `Market.expected_effect`."""
        return self.market.expected_effect(self.slots(rows), probabilities, given)

    def best_effect(self, rows: IntArray | BoolArray | None, mask: BoolArray) -> FloatArray:
        """Return the largest effects (k,) of the eligible actions (k, sum of actions) at the chosen decisions."""
        return self.market.best_action(self.slots(rows), mask)[0]

    @property
    def logged(self) -> FloatArray:
        """Expected effects (n,) of the logged actions."""
        return self.effect(None, self.actions)

    @property
    def organic(self) -> FloatArray:
        """Expected goal values (n,) of the slots' days if nothing is sent."""
        return self.market.organic_value(self.slots())


def market_user_ids(n: int) -> ObjectArray:
    """Return the ids of the n users of a market."""
    return np.array([f"user-{i:06d}" for i in range(n)], dtype=object)


def simulate_history(
    market: Market, policy: str | MarketPolicy = "business_as_usual", chosen: IntArray | None = None
) -> tuple[History, MarketTruth]:
    """Simulate the config's users under a policy, and log what an app would log.

    Events run from the first day of the warm-up to the end of the last slot's day. Users who unsubscribed have no
    further slots, but remain active.

    Args:
        market: The market.
        policy: A policy or its name, one of `envs.market.policies.POLICIES`.
        chosen: The numbers (k,), ascending, of the users to simulate; by default all of them. No user's draws depend on
            another one, so that they do what they do among all users.

    Returns:
        The history, and the truth about its decisions.

    Raises:
        ConfigError: If no policy has this name.
    """
    config, rules = market.config, make_policy(policy, market)
    keys_of_users, user_ids = market.keys(config.users), market_user_ids(config.users)
    if chosen is not None:
        keys_of_users, user_ids = keys_of_users[chosen], user_ids[chosen]
    state = market.reset(keys_of_users, record=True)
    user, day, fatigue, actions, propensity, eligible = [], [], [], [], [], []
    for _ in range(config.days):
        choice = rules.choose(market, state)
        rows = np.flatnonzero(state.subscribed)
        user.append(rows)
        day.append(state.day[rows])
        fatigue.append(state.fatigue[rows])
        eligible.append(market.mask(state)[rows])
        propensity.append(choice.probabilities[rows])
        actions.append(market.step(state, choice.actions).executed[rows])

    order = np.lexsort((np.concatenate(day), np.concatenate(user)))
    truth = MarketTruth(
        market=market,
        users=state.users,
        user=np.concatenate(user)[order],
        day=np.concatenate(day)[order],
        fatigue=np.concatenate(fatigue)[order],
        actions=np.concatenate(actions)[order],
    )
    decisions = _decision_log(
        truth, user_ids, np.concatenate(propensity)[order], np.concatenate(eligible)[order], rules.name
    )
    attributes = state.users.attributes()
    attributes.insert(0, "user_id", user_ids)
    history = History.from_arrays(
        decisions,
        _event_log(state.log or []),
        modules=MODULES,
        user_ids=user_ids,
        event_names=EVENTS,
        span=(START, START + config.horizon * DAY),
        users=attributes,
        name=f"market ({config.scenario}, {rules.name})",
    )
    # The decisions come in the truth's own order: one copy of what both have will do.
    return history, replace(truth, user=history.decisions.user, actions=history.decisions.actions)


def _decision_log(
    truth: MarketTruth, user_ids: ObjectArray, propensity: FloatArray, eligible: BoolArray, policy: str
) -> DecisionLog:
    days = np.array([f"-{day:03d}" for day in range(truth.market.config.horizon)], dtype=object)
    ids = user_ids[truth.user] + days[truth.day]
    policies = np.empty(len(ids), dtype=object)
    policies.fill(policy)  # one text for all: `np.full` makes a copy for each
    return DecisionLog(
        id=ids,
        key=keys(ids),
        user=truth.user,
        time=slot_time(truth.day),
        actions=truth.actions,
        propensity=propensity,
        joint=np.multiply.reduce(propensity, axis=1),
        policy=policies,
        eligible=eligible,
    )


def _event_log(log: list[SimulatedEvents]) -> EventLog:
    events = SimulatedEvents.concatenate(log)
    return EventLog(
        user=events.row,
        time=slot_time(events.day) + events.second * SECOND,
        event=events.event,
        value=events.value.astype(np.float64),
    )
