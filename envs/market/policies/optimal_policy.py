"""The optimal policy on the market: dynamic programming over each user's fatigue and remaining days."""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np

from crosschannel.core.arrays import Float32Array, FloatArray, IntArray, UIntArray
from crosschannel.envs.market.dynamics.responses import CHANNEL, Every, Slots
from crosschannel.envs.market.dynamics.users import Users
from crosschannel.envs.market.effects import BestContent, OpenValue, best_content, best_message
from crosschannel.envs.market.market import Market
from crosschannel.envs.market.state import ROWS_PER_CHUNK, MarketState
from crosschannel.envs.market.vocabulary import MODULES

N_FATIGUE_LEVELS = 25


def largest_fatigue(retention: float, gap: int) -> float:
    """Return the limit of the fatigue before a slot if a message is sent at every slot that the gap allows."""
    after = retention ** (gap + 1)
    return after / (1.0 - after)


def interpolation_weights(grid: FloatArray, at: FloatArray) -> FloatArray:
    """Return weights (G, G) that turn values on an even grid (G,), from the left, into values at G points inside it."""
    place = np.clip(np.searchsorted(grid, at, side="right") - 1, 0, len(grid) - 2)
    share = np.clip((at - grid[place]) / (grid[1] - grid[0]), 0.0, 1.0)
    out = np.zeros((len(grid), len(at)))
    out[place, np.arange(len(at))] = 1.0 - share
    out[place + 1, np.arange(len(at))] += share
    return out


@dataclass(frozen=True)
class ValueFunction:
    r"""Optimal expected value of the remaining slots of each user, by day and fatigue.

    .. math::
        V_d(F) = \max \Big( V_{d+1}(\rho F), \; \max_{c,b} \tau_{c,b}(d, F)
        + (1 - p^{unsub}_c(F)) \, V_{d+g+1}\big(\rho^{g+1} (F + 1)\big) \Big), \qquad V_{D} = 0

    for a user who may get a message at day d, with the share of fatigue :math:`\rho` that is left after a day, a gap of
    g days after a message, and :math:`\tau_{c,b}` with the best content: content changes neither fatigue nor hazard, so
    that the best content for the slot is also the best for the future. Exact up to linear interpolation between
    `N_FATIGUE_LEVELS` levels of fatigue. Bellman (1957), "Dynamic Programming".

    Attributes:
        market: The market.
        key: Keys of the users (N,).
        grid: Levels of fatigue (G,).
        value: V at the days from `first_day` on (days + g + 1, N, G), in single precision.
        first_day: The market day of `value[0]`.
    """

    market: Market
    key: UIntArray
    grid: FloatArray
    value: Float32Array
    first_day: int

    @classmethod
    def build(cls, market: Market, state: MarketState) -> ValueFunction:
        """Solve the recursion for a state's users, from the market's last day back to the first slot."""
        config, retention = market.config, market.dynamics.fatigue_retention
        first, last, gap = config.warmup_days, config.horizon, config.min_gap_days
        top = max(largest_fatigue(retention, gap), float(state.fatigue.max(initial=0.0)))
        solution = cls(
            market=market,
            key=state.users.key.copy(),
            grid=np.linspace(0.0, top, N_FATIGUE_LEVELS),
            value=np.zeros((last - first + gap + 1, len(state), N_FATIGUE_LEVELS), dtype=np.float32),
            first_day=first,
        )
        after_waiting = interpolation_weights(solution.grid, retention * solution.grid)
        after_sending = interpolation_weights(solution.grid, retention ** (gap + 1) * (solution.grid + 1.0))
        for start in range(0, len(state), ROWS_PER_CHUNK):
            rows = slice(start, start + ROWS_PER_CHUNK)
            users = state.users.take(rows)
            for day in range(last - 1, first - 1, -1):
                d = day - first
                wait = solution.value[d + 1, rows] @ after_waiting
                later = solution.value[d + gap + 1, rows] @ after_sending
                solution.value[d, rows] = np.maximum(wait, solution._value_of_sending(users, day, later))
        return solution

    def applies_to(self, market: Market, state: MarketState) -> bool:
        """Return whether the values are those of this market and of these users."""
        return self.market is market and np.array_equal(self.key, state.users.key)

    def best_actions(self, state: MarketState) -> IntArray:
        """Return the optimal actions (N, M) at the users' next slots."""
        out = np.zeros((len(state), len(MODULES)), dtype=np.int64)
        mask = self.market.mask(state)
        can_send = np.flatnonzero(mask[:, 1 : MODULES.sizes[0]].any(1))
        for start in range(0, len(can_send), ROWS_PER_CHUNK):
            rows = can_send[start : start + ROWS_PER_CHUNK]
            slots = state.slots(rows)
            open_value = self.market.open_value(slots)
            content = best_content(self.market.content_value(slots), open_value.acting, mask[rows])
            retention, gap = self.market.dynamics.fatigue_retention, self.market.config.min_gap_days
            later = self._at(rows, slots.day + gap + 1, retention ** (gap + 1) * (slots.fatigue + 1.0))
            values = _values_with_future(open_value, content, later)
            waiting = self._at(rows, slots.day + 1, retention * slots.fatigue)
            values[:, 0, 0] = waiting.reshape(-1, 1, 1, 1, 1)
            out[rows] = best_message(values, content)[1]
        return out

    def _at(self, rows: IntArray, day: IntArray, fatigue: FloatArray) -> FloatArray:
        """Return V (n,) of users (n,) at days (n,) and levels of fatigue (n,)."""
        values = self.value[day - self.first_day, rows].astype(np.float64)
        step = self.grid[1] - self.grid[0]
        place = np.clip((fatigue / step).astype(np.int64), 0, N_FATIGUE_LEVELS - 2)
        share = np.clip(fatigue / step - place, 0.0, 1.0)
        each = np.arange(len(rows))
        return np.asarray((1.0 - share) * values[each, place] + share * values[each, place + 1])

    def _value_of_sending(self, users: Users, day: int, later: FloatArray) -> FloatArray:
        """Return the value (n, G) of the best message and all later slots; `later` (n, G) is V if still subscribed."""
        n = len(users)
        mask = np.repeat(self.market.scenario.offered(np.array([day - self.first_day])), n, axis=0)
        mask[:, : MODULES.sizes[0]] = users.reachable
        today = Slots(users, np.full(n, day), np.zeros(n))
        content = best_content(self.market.content_value(today), self.market.open_value(today).acting, mask)
        out = np.empty((n, N_FATIGUE_LEVELS))
        for g, fatigue in enumerate(self.grid):
            open_value = self.market.open_value(replace(today, fatigue=np.full(n, fatigue)))
            values = _values_with_future(open_value, content, later[:, g])
            values[:, 0, 0] = -np.inf
            out[:, g] = best_message(values, content)[0]
        return out


def _values_with_future(open_value: OpenValue, content: BestContent, later: FloatArray) -> FloatArray:
    """Return effects of all messages with the best content, plus the value (n,) of later slots if still subscribed."""
    stays = (1.0 - open_value.unsubscribe_probability) * later[:, None]
    return np.asarray(open_value.effects(content.value) + Every().per_action(stays, CHANNEL))
