"""Logs of a slot a day, in which messages reach users by different rules, with a known effect."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from crosschannel.core.action_space import ActionSpace, Module
from crosschannel.core.hashing import keys
from crosschannel.core.times import DAY, HOUR
from crosschannel.histories.history import DecisionLog, EventLog, History
from crosschannel.reward import DidReward, Goal, RewardSpec
from crosschannel.reward.effects import TreatmentEffects

MODULES = ActionSpace([Module("channel", ("none", "email"))])
#: The first slot, on a Monday.
START = 19_786 * DAY + 6 * HOUR
SPEC = RewardSpec(goals=(Goal("order"),), pre="1d", post="1d")
#: Probability of a message, from the day, the messages (days, users) and orders (days, users) so far, and levels.
Rule = Callable[[int, np.ndarray, np.ndarray, np.ndarray], np.ndarray]


def at_random(day: int, sent: np.ndarray, orders: np.ndarray, level: np.ndarray) -> np.ndarray:
    return np.full(len(level), 0.3)


def all_but_a_few(day: int, sent: np.ndarray, orders: np.ndarray, level: np.ndarray) -> np.ndarray:
    """The same forty users get nothing, on any day, and all others one message a day."""
    return np.where(np.arange(len(level)) < 40, 0.0, 1.0)


def never_twice(day: int, sent: np.ndarray, orders: np.ndarray, level: np.ndarray) -> np.ndarray:
    """A frequency cap: nobody gets messages on two days in a row."""
    return np.where(sent[day - 1] if day else False, 0.0, 0.5)


def by_level(day: int, sent: np.ndarray, orders: np.ndarray, level: np.ndarray) -> np.ndarray:
    return np.where(level > np.median(level), 0.6, 0.15)


def after_a_quiet_day(day: int, sent: np.ndarray, orders: np.ndarray, level: np.ndarray) -> np.ndarray:
    return np.where(orders[day - 1] > 0 if day else False, 0.15, 0.6)


def saturdays_to_the_active(day: int, sent: np.ndarray, orders: np.ndarray, level: np.ndarray) -> np.ndarray:
    return by_level(day, sent, orders, level) if day % 7 == 5 else np.zeros(len(level))


def daily_log(
    seed: int,
    rule: Rule,
    *,
    users: int = 300,
    days: int = 21,
    effect: float = 0.3,
    late: float | None = None,
    saturday: float = 1.0,
    logged: bool = True,
) -> History:
    """Draw a log of a slot a day at 06:00: Poisson orders until the next slot, `effect` more of them with a message.

    Args:
        seed: Seed.
        rule: Who gets messages.
        users: Number of users.
        days: Number of days.
        effect: Orders that a message adds, or takes away, on its day.
        late: The same in the second half of the days; by default as before.
        saturday: How many times as many orders there are on each sixth day of seven.
        logged: Whether the log has propensities.
    """
    rng = np.random.default_rng(seed)
    level = 0.2 + rng.gamma(2.0, 0.25, users)
    sent, chance = np.zeros((days, users), dtype=bool), np.zeros((days, users))
    orders = np.zeros((days, users), dtype=np.int64)
    for day in range(days):
        chance[day] = rule(day, sent, orders, level)
        sent[day] = rng.random(users) < chance[day]
        rate = (
            level * (saturday if day % 7 == 5 else 1.0)
            + (effect if late is None or 2 * day < days else late) * sent[day]
        )
        orders[day] = rng.poisson(np.maximum(rate, 0.0))
    day, user = (part.ravel() for part in np.meshgrid(np.arange(days), np.arange(users), indexing="ij"))
    propensity = np.where(sent, chance, 1.0 - chance).ravel() if logged else np.full(len(user), np.nan)
    ids = np.array([f"{u}-{k}" for u, k in zip(user.tolist(), day.tolist(), strict=True)], dtype=object)
    row = np.repeat(np.arange(len(user)), orders.ravel())
    return History.from_arrays(
        DecisionLog(
            id=ids,
            key=keys(ids),
            user=user,
            time=START + day * DAY,
            actions=sent.ravel()[:, None].astype(np.int64),
            propensity=propensity[:, None],
            joint=propensity,
        ),
        EventLog(
            user=user[row],
            time=START + day[row] * DAY + rng.integers(1, DAY, len(row)),
            event=np.zeros(len(row), dtype=np.int64),
            value=np.ones(len(row)),
        ),
        modules=MODULES,
        user_ids=np.array([f"u{i:04d}" for i in range(users)], dtype=object),
        event_names=("order",),
        span=(START, START + days * DAY),
    )


def did(history: History, spec: RewardSpec = SPEC) -> TreatmentEffects:
    return TreatmentEffects.fit(DidReward(spec), history)
