"""The market: a simulated app whose users' responses to messages are known exactly."""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np

from envs.market.calendar import Calendar
from envs.market.config import (
    CHANNELS,
    DAY_SECONDS,
    EVENTS,
    MODULES,
    SENT,
    UNSUBSCRIBED,
    MarketConfig,
    goal_weights,
)
from envs.market.dynamics import Slots, expected_effects, organic_value, responses
from envs.market.happenings import caused
from envs.market.history import MarketTruth, simulate_history
from envs.market.policies import MarketPolicy, Oracle
from envs.market.state import CHUNK, N_ORGANIC, NEVER, MarketState, begin
from envs.market.users import draw_users, user_keys
from histories.errors import ConfigError
from histories.hashing import UIntArray
from histories.history import History
from histories.modules import BoolArray, FloatArray, IntArray


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
        self.dynamics = self.config.dynamics
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
        """Eligible actions (N, sum of actions): channels that reach the user, none within the gap after a message."""
        mask = np.ones((len(state), MODULES.total), dtype=bool)
        rested = (state.last_sent == NEVER) | (state.day - state.last_sent > self.config.min_gap_days)
        mask[:, 1 : len(CHANNELS)] = state.users.reachable[:, 1:] & (rested & state.subscribed)[:, None]
        return mask

    def done(self, state: MarketState) -> BoolArray:
        """Who has no further slot: the last day is over, or the user unsubscribed (N,)."""
        return (state.day >= self.config.horizon) | ~state.subscribed

    def true_effect(self, state: MarketState | Slots, actions: IntArray) -> FloatArray:
        """Expected effect (N,) of one action a slot, (N, M), were it executed; see `expected_effects`."""
        slots = state.slots() if isinstance(state, MarketState) else state
        return expected_effects(slots, np.asarray(actions), self.dynamics, self.calendar, self.weights)

    def true_effects(self, state: MarketState | Slots) -> FloatArray:
        """Expected effects (N, J) of every action of `modules.composites`."""
        slots = state.slots() if isinstance(state, MarketState) else state
        out = np.empty((len(slots), len(MODULES.composites)))
        for start in range(0, len(slots), CHUNK):
            rows = slice(start, start + CHUNK)
            part = Slots(slots.users.take(rows), slots.day[rows], slots.fatigue[rows])
            out[rows] = expected_effects(part, MODULES.composites[None], self.dynamics, self.calendar, self.weights)
        return out

    def organic_value(self, state: MarketState | Slots) -> FloatArray:
        """Expected goal value (N,) of each slot's day if nothing is sent."""
        slots = state.slots() if isinstance(state, MarketState) else state
        return organic_value(slots, self.dynamics, self.calendar, self.weights)

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

        channel = actions[:, 0]
        eligible = self.mask(state)[np.arange(n), channel]
        executed = np.where(eligible[:, None], actions, 0)
        slots, act = state.slots(rows), executed[rows]
        effect = expected_effects(slots, act, self.dynamics, self.calendar, self.weights)
        events = caused(slots.users, day, act, responses(slots, self.dynamics, self.calendar), self.dynamics)

        sent = act[:, 0] != 0
        extra = events.tally(events.row, len(rows))
        extra[sent, SENT + act[sent, 0] - 1] += 1
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

    def oracle(self) -> Oracle:
        """The policy that takes the action of the largest true effect at every slot."""
        return Oracle()
