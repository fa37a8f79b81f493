"""The far-sighted optimum of the market: dynamic programming over each user's fatigue and remaining days."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt

from crosschannel.core.arrays import FloatArray, IntArray, UIntArray
from crosschannel.envs.market.dynamics.responses import Slots
from crosschannel.envs.market.dynamics.users import Users
from crosschannel.envs.market.effects import Opening, best_content, best_message
from crosschannel.envs.market.state import CHUNK, MarketState
from crosschannel.envs.market.vocabulary import MODULES

if TYPE_CHECKING:
    from crosschannel.envs.market.market import Market

GRID = 25


def largest_fatigue(kept: float, gap: int) -> float:
    """The fatigue before a slot that sending at every slot that the gap allows comes to."""
    after = kept ** (gap + 1)
    return after / (1.0 - after)


def interpolation(grid: FloatArray, at: FloatArray) -> FloatArray:
    """Weights (G, G) that turn values on an even grid (G,), from the left, into values at G points inside it."""
    place = np.clip(np.searchsorted(grid, at, side="right") - 1, 0, len(grid) - 2)
    share = np.clip((at - grid[place]) / (grid[1] - grid[0]), 0.0, 1.0)
    out = np.zeros((len(grid), len(at)))
    out[place, np.arange(len(at))] = 1.0 - share
    out[place + 1, np.arange(len(at))] += share
    return out


@dataclass(frozen=True)
class Plan:
    r"""What the coming slots are worth to each user, by day and fatigue, under the best policy.

    .. math::
        V_d(F) = \max \Big( V_{d+1}(\rho F), \; \max_{c,b} \tau_{c,b}(d, F)
        + (1 - p^{unsub}_c(F)) \, V_{d+g+1}\big(\rho^{g+1} (F + 1)\big) \Big), \qquad V_{D} = 0

    for a user who may be sent something at day d, with the share of fatigue kept :math:`\rho`, a gap of g days after a
    message, and :math:`\tau_{c,b}` with the best content: content changes neither fatigue nor hazard, so that the best
    one is best for the future too. Exact but for linear interpolation between `GRID` points of fatigue. Bellman (1957),
    "Dynamic Programming".

    Attributes:
        market: The market.
        key: Keys of the users (N,).
        grid: Levels of fatigue (G,).
        value: V at the days from `first` on (days + g + 1, N, G), in single precision.
        first: The market day of `value[0]`.
    """

    market: Market
    key: UIntArray
    grid: FloatArray
    value: npt.NDArray[np.float32]
    first: int

    @classmethod
    def of(cls, market: Market, state: MarketState) -> Plan:
        """Makes the plan for a state's users, from their first day to the market's last."""
        config, kept = market.config, market.dynamics.fatigue_kept
        first, last, gap = config.warmup_days, config.horizon, config.min_gap_days
        top = max(largest_fatigue(kept, gap), float(state.fatigue.max(initial=0.0)))
        plan = cls(
            market=market,
            key=state.users.key.copy(),
            grid=np.linspace(0.0, top, GRID),
            value=np.zeros((last - first + gap + 1, len(state), GRID), dtype=np.float32),
            first=first,
        )
        idle = interpolation(plan.grid, kept * plan.grid)
        after = interpolation(plan.grid, kept ** (gap + 1) * (plan.grid + 1.0))
        for start in range(0, len(state), CHUNK):
            rows = slice(start, start + CHUNK)
            users = state.users.take(rows)
            for day in range(last - 1, first - 1, -1):
                d = day - first
                wait = plan.value[d + 1, rows] @ idle
                later = plan.value[d + gap + 1, rows] @ after
                plan.value[d, rows] = np.maximum(wait, plan._sending(users, day, later))
        return plan

    def fits(self, market: Market, state: MarketState) -> bool:
        """Whether the plan is for this market and these users."""
        return self.market is market and np.array_equal(self.key, state.users.key)

    def actions(self, state: MarketState) -> IntArray:
        """The best actions (N, M) at the users' next slots."""
        out = np.zeros((len(state), len(MODULES)), dtype=np.int64)
        mask = self.market.mask(state)
        free = np.flatnonzero(mask[:, 1 : MODULES.sizes[0]].any(1))
        for start in range(0, len(free), CHUNK):
            rows = free[start : start + CHUNK]
            slots = state.slots(rows)
            worth, choices = best_content(self.market.content(slots), mask[rows])
            opening = self.market.opening(slots)
            kept, gap = self.market.dynamics.fatigue_kept, self.market.config.min_gap_days
            later = self._at(rows, slots.day + gap + 1, kept ** (gap + 1) * (slots.fatigue + 1.0))
            values = _with_future(opening, worth, later)
            values[:, 0, 0] = self._at(rows, slots.day + 1, kept * slots.fatigue)
            out[rows] = best_message(values, mask[rows], choices)[1]
        return out

    def _at(self, rows: IntArray, day: IntArray, fatigue: FloatArray) -> FloatArray:
        """V (n,) of users (n,) at days (n,) and levels of fatigue (n,)."""
        values = self.value[day - self.first, rows].astype(np.float64)
        step = self.grid[1] - self.grid[0]
        place = np.clip((fatigue / step).astype(np.int64), 0, GRID - 2)
        share = np.clip(fatigue / step - place, 0.0, 1.0)
        each = np.arange(len(rows))
        return np.asarray((1.0 - share) * values[each, place] + share * values[each, place + 1])

    def _sending(self, users: Users, day: int, later: FloatArray) -> FloatArray:
        """What the best message is worth, with all that follows it (n, G), for `later` (n, G) if still subscribed."""
        n = len(users)
        mask = np.repeat(self.market.scenario.offered(np.array([day - self.first])), n, axis=0)
        mask[:, : MODULES.sizes[0]] = users.reachable
        today = Slots(users, np.full(n, day), np.zeros(n))
        worth, choices = best_content(self.market.content(today), mask)
        out = np.empty((n, GRID))
        for g, fatigue in enumerate(self.grid):
            opening = self.market.opening(replace(today, fatigue=np.full(n, fatigue)))
            values = _with_future(opening, worth, later[:, g])
            values[:, 0, 0] = -np.inf
            out[:, g] = best_message(values, mask, choices)[0]
        return out


def _with_future(opening: Opening, content: FloatArray, later: FloatArray) -> FloatArray:
    """Effects (n, channels, blocks) of messages, with the worth (n,) of what follows for those still subscribed."""
    return np.asarray(opening.effects(content) + ((1.0 - opening.unsubscribed) * later[:, None])[:, :, None])
