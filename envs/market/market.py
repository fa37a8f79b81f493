"""The market: a simulated app whose users respond to messages with known effects."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np

from crosschannel.core.arrays import BoolArray, FloatArray, IntArray, UIntArray
from crosschannel.core.errors import ConfigError
from crosschannel.envs.market.config import MarketConfig, goal_weights
from crosschannel.envs.market.dynamics.calendar import Calendar
from crosschannel.envs.market.dynamics.parameters import Scenario
from crosschannel.envs.market.dynamics.responses import Slots, responses
from crosschannel.envs.market.dynamics.simulated_events import draw_day_kinds, message_events
from crosschannel.envs.market.dynamics.users import draw_users, user_keys
from crosschannel.envs.market.effects import (
    OpenValue,
    action_effects,
    best_content,
    best_message,
    check_dependencies,
    content_value,
    expected_effects,
    in_chunks,
    organic_value,
)
from crosschannel.envs.market.state import N_ORGANIC_EVENTS, NEVER, MarketState, initial_state
from crosschannel.envs.market.vocabulary import CHANNELS, DAY_SECONDS, EVENTS, MODULES, SENT, UNSUBSCRIBED


@dataclass(frozen=True)
class StepResult:
    """What happened to N users in one step; all zero for users who were not active.

    Where effects have delays (scenario `slow`), `counts` and `value` hold what comes on the slot's day, whichever
    message caused it, and `incremental` what this slot's message causes, on whichever day, also after the last.

    Attributes:
        executed: Executed actions, canonical (N, M).
        eligible: Whether the chosen action was eligible, so that it is the executed one (N,).
        counts: Daily counts of the slot's day, organic ones included (N, N_COLUMNS).
        value: Goal value of the slot's day: what an app can see (N,).
        incremental: The value that the message caused: the difference to sending nothing with the same random numbers
            (N,).
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
    """Users of a multi-service app, one decision slot per day, messages with known effects.

    A message acts within the 24 hours after its slot (in the scenario `slow`, for a week), and for `min_gap_days` after
    it no other message is sent. With the default gap of two days, a reward with windows of two days before and one day
    after the slot, over calendar cells of a day and without overlaps, compares decisions that differ in expectation by
    the message alone, since trends are parallel in levels: see `organic_rates` and `BusinessAsUsual`.

    Args:
        config: Settings of the simulation.
    """

    modules = MODULES
    event_names = EVENTS

    def __init__(self, config: MarketConfig | None = None) -> None:
        self.config = config or MarketConfig()
        self.scenario: Scenario = self.config.parameters
        self.dynamics = self.scenario.dynamics
        self.calendar = Calendar.build(self.dynamics, self.config.seed, self.config.horizon)
        self.weights = goal_weights(self.config.goals)

    def keys(self, n: int, seed: int | None = None, stream: int = 0) -> UIntArray:
        """Return keys (n,) of users to simulate: those of the history (stream 0, the config's seed), or of others."""
        return user_keys(n, self.config.seed if seed is None else seed, stream)

    def reset(self, keys: UIntArray, *, record: bool = False) -> MarketState:
        """Return users of the given keys (N,) before their first slot; with `record` the state logs every event."""
        users = draw_users(np.asarray(keys, dtype=np.uint64), self.dynamics)
        return initial_state(users, self.config, self.calendar, record=record)

    def mask(self, state: MarketState) -> BoolArray:
        """Return the eligible actions (N, sum of actions).

        These are the actions that the scenario offers at the slot, on channels that reach the user; within the gap
        after a message, and after an unsubscribe, only sending nothing.
        """
        mask = self.scenario.offered(state.day - self.config.warmup_days)
        rested = (state.last_sent == NEVER) | (state.day - state.last_sent > self.config.min_gap_days)
        mask[:, 1 : len(CHANNELS)] = state.users.reachable[:, 1:] & (rested & state.subscribed)[:, None]
        return mask

    def done(self, state: MarketState) -> BoolArray:
        """Return who has no further slot (N,): the last day is over, or the user unsubscribed."""
        return (state.day >= self.config.horizon) | ~state.subscribed

    def true_effect(self, state: MarketState | Slots, actions: IntArray) -> FloatArray:
        """Return expected effects of one action per slot, (N, M), or of J, (N, J, M), if executed: `action_effects`."""
        return action_effects(_slots(state), np.asarray(actions), self.dynamics, self.calendar, self.weights)

    def open_value(self, state: MarketState | Slots) -> OpenValue:
        """Return the parts of the value of messages at N slots that do not depend on their content."""
        return OpenValue.build(_slots(state), self.dynamics, self.calendar, self.weights)

    def content_value(self, state: MarketState | Slots) -> FloatArray:
        """Return the value of content once a message acts, one axis for each module; N is limited by memory."""
        return content_value(_slots(state), self.dynamics, self.calendar, self.weights)

    def expected_effect(
        self,
        state: MarketState | Slots,
        probabilities: Sequence[FloatArray],
        given: Sequence[int | None] | None = None,
    ) -> FloatArray:
        """Return expected effects (N,) of a policy that chooses module by module.

        Args:
            state: N slots.
            probabilities: For each module (N, A_m), given that something is sent, or (N, A_j, A_m) if it depends on
                the choice of an earlier module j.
            given: For each module that j, or None; by default no module depends on another.

        Raises:
            ConfigError: If shapes do not fit.
        """
        slots, checked = _slots(state), check_dependencies(probabilities, given)

        def expected(rows: slice) -> FloatArray:
            part = slots.take(rows)
            shares = [p[rows] for p in probabilities]
            return expected_effects(self.open_value(part), self.content_value(part), shares, checked)

        return in_chunks(expected, len(slots))

    def best_action(self, state: MarketState | Slots, mask: BoolArray) -> tuple[FloatArray, IntArray]:
        """Return the largest effect (N,) of the eligible actions (N, sum of actions), and an action that has it."""
        slots = _slots(state)
        actions = np.zeros((len(slots), len(MODULES)), dtype=np.int64)

        def best(rows: slice) -> FloatArray:
            part = slots.take(rows)
            open_value = self.open_value(part)
            content = best_content(self.content_value(part), open_value.acting, mask[rows])
            value, actions[rows] = best_message(open_value.effects(content.value), content)
            return value

        return in_chunks(best, len(slots)), actions

    def organic_value(self, state: MarketState | Slots) -> FloatArray:
        """Return the expected goal value (N,) of each slot's day if nothing is sent."""
        return organic_value(_slots(state), self.dynamics, self.calendar, self.weights)

    def goal_value(self, counts: IntArray) -> FloatArray:
        """Return the goal value (N,) of daily counts (N, N_COLUMNS), added up in a fixed order."""
        value = np.zeros(len(counts))
        for column in np.flatnonzero(self.weights):
            value += self.weights[column] * counts[:, column]
        return value

    def step(self, state: MarketState, actions: IntArray, active: BoolArray | None = None) -> StepResult:
        """Execute one action per user and advance the state by a day, in place.

        An action that is not eligible is executed as sending nothing.

        Args:
            state: N users.
            actions: Codes (N, M).
            active: Users who act (N,); by default all. The others stay as they are.

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
            raise ConfigError(f"the market ends after {self.config.horizon} days: reset it to start again")

        mask = self.mask(state)
        eligible = mask[np.arange(n), actions[:, 0]]
        for part, column in zip(MODULES.split(mask)[1:], actions.T[1:], strict=True):
            eligible &= part[np.arange(n), column] | (actions[:, 0] == 0)
        executed = np.where(eligible[:, None], actions, 0)
        act = executed[rows]
        sent = act[:, 0] != 0
        at, message = rows[sent], act[sent]
        slots = state.slots(at)
        kind = draw_day_kinds(slots.users.key, slots.day, self.dynamics)
        response = responses(slots, message, self.dynamics, self.calendar, kind)
        effect = np.zeros(len(rows))
        effect[sent] = action_effects(slots, message, self.dynamics, self.calendar, self.weights)
        events = message_events(slots.users, slots.day, message, response, self.dynamics)
        events = replace(events, row=np.flatnonzero(sent)[events.row])

        extra = events.tally(events.row, len(rows))
        incremental = self.goal_value(extra)
        if self.dynamics.last_day > 0:
            events = state.due(events, rows)
            extra = events.tally(events.row, len(rows))
        extra[sent, SENT + message[:, 0] - 1] += 1
        counts = extra + state.organic[rows, day]
        unsubscribed = extra[:, UNSUBSCRIBED] > 0

        state.total[rows, day + 1] = state.total[rows, day] + counts
        organic_last = state.organic_last[rows, day]
        stamp = np.where(organic_last == NEVER, NEVER, organic_last + (day * DAY_SECONDS)[:, None])
        state.last[rows, :N_ORGANIC_EVENTS] = np.maximum(state.last[rows, :N_ORGANIC_EVENTS], stamp)
        of_users = replace(events, row=rows[events.row])
        np.maximum.at(state.last, (of_users.row, events.event), events.day * DAY_SECONDS + events.second)
        state.count_by_time(rows, of_users, sent)
        state.fatigue[rows] = self.dynamics.fatigue_retention * (state.fatigue[rows] + sent)
        state.last_sent[rows] = np.where(sent, day, state.last_sent[rows])
        state.subscribed[rows] &= ~unsubscribed
        state.day[rows] += 1
        if state.log is not None:
            state.log.append(of_users)

        def for_all(values: np.ndarray) -> np.ndarray:
            """Return the values of the active users as those of all, 0 for the others."""
            if active is None:
                return values
            out = np.zeros((n, *values.shape[1:]), dtype=values.dtype)
            out[rows] = values
            return out

        return StepResult(
            executed=for_all(act),
            eligible=for_all(eligible[rows]),
            counts=for_all(counts),
            value=for_all(self.goal_value(counts)),
            incremental=for_all(incremental),
            true_effect=for_all(effect),
            unsubscribed=for_all(unsubscribed),
        )


def _slots(state: MarketState | Slots) -> Slots:
    return state.slots() if isinstance(state, MarketState) else state
