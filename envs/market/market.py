"""The market: a simulated app whose users' responses to messages are known exactly."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np

from crosschannel.core.arrays import BoolArray, FloatArray, IntArray, UIntArray
from crosschannel.core.errors import ConfigError, nearest
from crosschannel.envs.market.config import MarketConfig, goal_weights
from crosschannel.envs.market.dynamics.calendar import Calendar
from crosschannel.envs.market.dynamics.responses import Slots, responses
from crosschannel.envs.market.dynamics.simulated_events import caused
from crosschannel.envs.market.dynamics.users import draw_users, user_keys
from crosschannel.envs.market.effects import (
    Opening,
    action_effects,
    best_content,
    best_message,
    content_worth,
    dependencies,
    expected_effects,
    in_chunks,
    organic_value,
)
from crosschannel.envs.market.history import MarketTruth, simulate_history
from crosschannel.envs.market.policies.policies import POLICIES, MarketPolicy, Oracle
from crosschannel.envs.market.scenarios import Scenario
from crosschannel.envs.market.state import N_ORGANIC, NEVER, MarketState, begin
from crosschannel.envs.market.vocabulary import CHANNELS, DAY_SECONDS, EVENTS, MODULES, SENT, UNSUBSCRIBED
from crosschannel.histories.history import History


@dataclass(frozen=True)
class Outcome:
    """What a step brought, N rows; all zero where a row was not active.

    Attributes:
        executed: Executed actions, canonical (N, M).
        eligible: Whether the chosen action was eligible, so that it is the executed one (N,).
        counts: Daily counts of the slot's day, organic ones included (N, N_COLUMNS).
        value: Goal value of the slot's day: what an app can see (N,).
        incremental: The part of it that the message caused: the value minus what it would have been with nothing
            sent and the same random numbers (N,).
        true_effect: Expected incremental value of the executed action at this slot (N,).
        unsubscribed: Whether the user unsubscribed (N,).
    """

    executed: IntArray
    eligible: BoolArray
    counts: IntArray
    value: FloatArray
    incremental: FloatArray
    true_effect: FloatArray
    unsubscribed: BoolArray


class Market:
    """Users of a multi-service app, one decision slot a day, messages with known effects.

    A message acts within the 24 hours after its slot, and after one nothing is sent for `min_gap_days`. With the
    default gap of two days, a reward with windows of two days before and one day after the slot, over calendar cells
    of a day and without overlaps, compares decisions of which nothing but the message differs in expectation, as
    trends are parallel in levels: see `organic_rates` and `BusinessAsUsual`.

    Args:
        config: What is simulated.
    """

    modules = MODULES
    event_names = EVENTS

    def __init__(self, config: MarketConfig | None = None) -> None:
        self.config = config or MarketConfig()
        self.scenario: Scenario = self.config.parameters
        self.dynamics = self.scenario.dynamics
        self.calendar = Calendar.of(self.dynamics, self.config.seed, self.config.horizon)
        self.weights = goal_weights(self.config.goals)

    def keys(self, n: int, seed: int | None = None, stream: int = 0) -> UIntArray:
        """Keys (n,) of users to simulate: those of the history (stream 0, the config's seed), or fresh ones."""
        return user_keys(n, self.config.seed if seed is None else seed, stream)

    def reset(self, keys: UIntArray, *, record: bool = False) -> MarketState:
        """Users of the given keys (N,) before their first slot; with `record` the state logs every event."""
        users = draw_users(np.asarray(keys, dtype=np.uint64), self.dynamics)
        return begin(users, self.config, self.calendar, record=record)

    def mask(self, state: MarketState) -> BoolArray:
        """Eligible actions (N, sum of actions).

        Those that the scenario offers at the slot; channels that reach the user, none within the gap after a message.
        """
        mask = self.scenario.offered(state.day - self.config.warmup_days)
        rested = (state.last_sent == NEVER) | (state.day - state.last_sent > self.config.min_gap_days)
        mask[:, 1 : len(CHANNELS)] = state.users.reachable[:, 1:] & (rested & state.subscribed)[:, None]
        return mask

    def done(self, state: MarketState) -> BoolArray:
        """Who has no further slot: the last day is over, or the user unsubscribed (N,)."""
        return (state.day >= self.config.horizon) | ~state.subscribed

    def true_effect(self, state: MarketState | Slots, actions: IntArray) -> FloatArray:
        """Expected effects of one action a slot, (N, M), or of J, (N, J, M), were they executed: `action_effects`."""
        return action_effects(_slots(state), np.asarray(actions), self.dynamics, self.calendar, self.weights)

    def opening(self, state: MarketState | Slots) -> Opening:
        """What messages are worth at N slots, but for their content."""
        return Opening.of(_slots(state), self.dynamics, self.calendar, self.weights)

    def content(self, state: MarketState | Slots) -> FloatArray:
        """What content is worth once opened (N, services, offers, tones, greetings), for as many slots as fit."""
        return content_worth(_slots(state), self.dynamics, self.calendar, self.weights)

    def expected_effect(
        self,
        state: MarketState | Slots,
        probabilities: Sequence[FloatArray],
        given: Sequence[int | None] | None = None,
    ) -> FloatArray:
        """Expected effects (N,) of a policy that chooses module by module.

        Args:
            state: N slots.
            probabilities: For each module (N, A_m), given that something is sent, or (N, A_j, A_m) where it depends
                on the choice of an earlier module j.
            given: For each module that j, or None; by default none depends on another.

        Raises:
            ConfigError: If shapes do not fit.
        """
        slots, found = _slots(state), dependencies(probabilities, given)

        def expected(rows: slice) -> FloatArray:
            part = slots.take(rows)
            return expected_effects(self.opening(part), self.content(part), [p[rows] for p in probabilities], found)

        return in_chunks(expected, len(slots))

    def best_action(self, state: MarketState | Slots, mask: BoolArray) -> tuple[FloatArray, IntArray]:
        """The largest effect (N,) among eligible actions (N, sum of actions), and an action that has it (N, M)."""
        slots = _slots(state)
        actions = np.zeros((len(slots), len(MODULES)), dtype=np.int64)

        def best(rows: slice) -> FloatArray:
            part = slots.take(rows)
            worth, choices = best_content(self.content(part), mask[rows])
            value, actions[rows] = best_message(self.opening(part).effects(worth), mask[rows], choices)
            return value

        return in_chunks(best, len(slots)), actions

    def organic_value(self, state: MarketState | Slots) -> FloatArray:
        """Expected goal value (N,) of each slot's day if nothing is sent."""
        return organic_value(_slots(state), self.dynamics, self.calendar, self.weights)

    def worth(self, counts: IntArray) -> FloatArray:
        """Goal value (N,) of daily counts (N, N_COLUMNS), added up in a fixed order."""
        value = np.zeros(len(counts))
        for column in np.flatnonzero(self.weights):
            value += self.weights[column] * counts[:, column]
        return value

    def step(self, state: MarketState, actions: IntArray, active: BoolArray | None = None) -> Outcome:
        """Executes one action a user and moves the state on by a day, in place.

        An action that is not eligible is executed as sending nothing.

        Args:
            state: N users.
            actions: Codes (N, M).
            active: Whom to move on (N,); by default all. The others stay as they are.

        Raises:
            ConfigError: If an action's code is out of range, or an active user's last day is over.
        """
        actions = MODULES.canonical(actions)
        if actions.shape != (len(state), len(MODULES)) or not MODULES.valid(actions).all():
            raise ConfigError(f"actions must be ({len(state)}, {len(MODULES)}) codes below {MODULES.sizes}")
        n = len(state)
        rows = np.arange(n) if active is None else np.flatnonzero(active)
        day = state.day[rows]
        if (day >= self.config.horizon).any():
            raise ConfigError(f"the market ends after {self.config.horizon} days: reset it to go on")

        mask = self.mask(state)
        eligible = mask[np.arange(n), actions[:, 0]]
        for part, column in zip(MODULES.split(mask)[1:], actions.T[1:], strict=True):
            eligible &= part[np.arange(n), column] | (actions[:, 0] == 0)
        executed = np.where(eligible[:, None], actions, 0)
        act = executed[rows]
        sent = act[:, 0] != 0
        at, message = rows[sent], act[sent]
        slots = state.slots(at)
        response = responses(slots, message, self.dynamics, self.calendar)
        effect = np.zeros(len(rows))
        effect[sent] = action_effects(slots, message, self.dynamics, self.calendar, self.weights)
        events = caused(slots.users.key, slots.day, message, response, self.dynamics)
        events = replace(events, row=np.flatnonzero(sent)[events.row])

        extra = events.tally(events.row, len(rows))
        extra[sent, SENT + message[:, 0] - 1] += 1
        counts = extra + state.organic[rows, day]
        gone = extra[:, UNSUBSCRIBED] > 0

        state.total[rows, day + 1] = state.total[rows, day] + counts
        organic_last = state.organic_last[rows, day]
        stamp = np.where(organic_last == NEVER, NEVER, organic_last + (day * DAY_SECONDS)[:, None])
        state.last[rows, :N_ORGANIC] = np.maximum(state.last[rows, :N_ORGANIC], stamp)
        np.maximum.at(state.last, (rows[events.row], events.event), events.day * DAY_SECONDS + events.second)
        state.fatigue[rows] = self.dynamics.fatigue_kept * (state.fatigue[rows] + sent)
        state.last_sent[rows] = np.where(sent, day, state.last_sent[rows])
        state.subscribed[rows] &= ~gone
        state.day[rows] += 1
        if state.log is not None:
            state.log.append(replace(events, row=rows[events.row]))

        def spread(values: np.ndarray) -> np.ndarray:
            if active is None:
                return values
            out = np.zeros((n, *values.shape[1:]), dtype=values.dtype)
            out[rows] = values
            return out

        return Outcome(
            executed=spread(act),
            eligible=spread(eligible[rows]),
            counts=spread(counts),
            value=spread(self.worth(counts)),
            incremental=spread(self.worth(extra)),
            true_effect=spread(effect),
            unsubscribed=spread(gone),
        )

    def history(self, policy: str | MarketPolicy = "business_as_usual") -> tuple[History, MarketTruth]:
        """A log of the config's users under a policy, and what is true of it."""
        return simulate_history(self, policy)

    def policy(self, policy: str | MarketPolicy) -> MarketPolicy:
        """A policy by its name, one of `POLICIES`, or itself.

        Raises:
            ConfigError: If there is no such name.
        """
        if not isinstance(policy, str):
            return policy
        if policy not in POLICIES:
            raise ConfigError(f"the market has no policy {policy!r}. {nearest(policy, POLICIES)}")
        return POLICIES[policy](self)

    def oracle(self) -> Oracle:
        """The policy that takes the action of the largest true effect at every slot."""
        return Oracle()


def _slots(state: MarketState | Slots) -> Slots:
    return state.slots() if isinstance(state, MarketState) else state
