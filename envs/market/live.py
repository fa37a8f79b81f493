"""The market as an app in daily use: users join and leave, and each day's log is what the app would write."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import pandas as pd

from crosschannel.core.arrays import BoolArray, FloatArray, IntArray, ObjectArray
from crosschannel.core.errors import ConfigError
from crosschannel.core.hashing import keys, uniforms
from crosschannel.core.times import DAY, SECOND, timestamps
from crosschannel.envs.market.dynamics.calendar import slot_time
from crosschannel.envs.market.dynamics.responses import Slots
from crosschannel.envs.market.dynamics.simulated_events import SimulatedEvents
from crosschannel.envs.market.market import Market, StepResult
from crosschannel.envs.market.state import NEVER, MarketState
from crosschannel.envs.market.vocabulary import EVENTS, START

_JOINING, _LEAVING = 0x6A6F696E, 0x6C656176


@dataclass(frozen=True)
class Population:
    """Who uses the app when.

    Attributes:
        late: Share of the users who join after the first day, evenly over the days.
        leaving: Probability that a user leaves on a day: nothing is seen of the user from then on.
    """

    late: float = 0.1
    leaving: float = 0.001

    def __post_init__(self) -> None:
        for name in ("late", "leaving"):
            if not 0.0 <= getattr(self, name) < 1.0:
                raise ConfigError(f"population.{name} is {getattr(self, name)}: it lies from 0 to below 1")


@dataclass
class LiveMarket:
    """Users of a market from day to day.

    Attributes:
        market: The market.
        state: Its users; those who have not joined yet or have left do nothing.
        user_ids: Their ids (N,).
        joins: Market day on which each is first seen (N,), 0 for those who are there from the start.
        leaves: Market day from which on each has left (N,); the horizon or later for those who stay.
    """

    market: Market
    state: MarketState
    user_ids: ObjectArray
    joins: IntArray
    leaves: IntArray

    @classmethod
    def start(cls, market: Market, population: Population) -> LiveMarket:
        """Return the config's users before their first slot, after the days of the warm-up."""
        config, n = market.config, market.config.users
        state = market.reset(market.keys(n), record=True)
        user_ids = np.array([f"user-{i:06d}" for i in range(n)], dtype=object)
        key = keys(user_ids)
        u = uniforms(key, config.seed ^ _JOINING)
        late = u < population.late
        first = config.warmup_days + np.floor(u / max(population.late, 1e-12) * config.days).astype(np.int64)
        joins = np.where(late, np.minimum(first, config.horizon - 1), 0)
        stays = np.full(n, config.horizon, dtype=np.float64)
        if population.leaving:
            waits = np.log(uniforms(key, config.seed ^ _LEAVING)) / np.log1p(-population.leaving)
            stays = np.maximum(joins, config.warmup_days) + 1 + np.floor(np.minimum(waits, config.horizon))
        leaves = stays.astype(np.int64)
        days = np.arange(config.horizon)
        here = (days >= joins[:, None]) & (days < leaves[:, None])
        _remove_absent(state, here, config.warmup_days)
        out = cls(market=market, state=state, user_ids=user_ids, joins=joins, leaves=leaves)
        state.subscribed[:] = out.present
        return out

    @property
    def day(self) -> int:
        """Market day of the next slot, the warm-up included."""
        return int(self.state.day[0])

    @property
    def time(self) -> int:
        """Time of the next slot, microseconds since 1970 UTC."""
        return START + self.day * DAY

    @property
    def present(self) -> BoolArray:
        """Who uses the app at the next slot (N,)."""
        return np.asarray((self.joins <= self.day) & (self.day < self.leaves))

    def step(self, actions: IntArray) -> StepResult:
        """Execute one action per user, let the day pass, and let users join and leave."""
        result = self.market.step(self.state, actions)
        self.state.subscribed &= self.day < self.leaves
        joined = self.joins == self.day
        self.state.subscribed |= joined
        return result

    def users_frame(self) -> pd.DataFrame:
        """Return the table of all users who were there by now: id, observation, attributes."""
        known = np.flatnonzero(self.joins <= self.day)
        frame = self.state.users.take(known).attributes()
        left = self.leaves[known] <= self.day
        frame.insert(0, "user_id", self.user_ids[known])
        frame.insert(1, "observed_from", timestamps(START + self.joins[known] * DAY))
        frame.insert(2, "observed_until", timestamps(START + self.leaves[known] * DAY))
        frame.loc[~left, "observed_until"] = pd.NaT
        return frame

    def events_frame(self, day: int) -> pd.DataFrame:
        """Return the events of a market day that has passed, in the native columns."""
        log = SimulatedEvents.concatenate(self.state.log or [])
        rows = np.flatnonzero(log.day == day)
        rows = rows[np.lexsort((log.event[rows], log.second[rows], log.row[rows]))]
        found = log.take(rows)
        names = np.asarray(EVENTS, dtype=object)
        return pd.DataFrame(
            {
                "user_id": self.user_ids[found.row],
                "time": timestamps(slot_time(found.day) + found.second * SECOND),
                "event": names[found.event],
                "value": found.value.astype(np.float64),
            }
        )

    def organic_value(self) -> FloatArray:
        """Return the expected goal value (N,) of the next slot's day if nothing is sent; 0 for who is not there."""
        state = self.state
        return np.where(self.present, self.market.organic_value(Slots(state.users, state.day, state.fatigue)), 0.0)


def _remove_absent(state: MarketState, here: BoolArray, warmup: int) -> None:
    """Take the organic behaviour of users out of the days on which they are not there, in place.

    Args:
        state: The users after the warm-up.
        here: Who is there on which day (N, days).
        warmup: Number of days of the warm-up.
    """
    state.organic[~here] = 0
    state.organic_last[~here] = NEVER
    state.organic_cells[~here] = 0
    if state.log is not None:
        state.log[:] = [part.take(here[part.row, part.day]) for part in state.log]
    late = ~here[:, 0]
    state.total[late, : warmup + 1] = 0
    state.last[late] = NEVER
    state.by_cell[late] = 0
    state.by_weekday[late] = 0
