"""Histories with a known average effect on the treated, for the statistics of estimators and diagnostics."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import numpy as np
import pandas as pd

from crosschannel.core.action_space import ActionSpace, Module
from crosschannel.core.hashing import keys
from crosschannel.core.times import DAY, HOUR
from crosschannel.histories.history import DecisionLog, EventLog, History
from crosschannel.reward import CovariateSpec, Goal, RewardSpec

MODULES = ActionSpace([Module("channel", ("none", "push"))])
Assignment = Literal["random", "level", "dip", "quiet", "region"]

# Windows of a day around slots that are five days apart: no window ever holds another message.
SPEC = RewardSpec(
    goals=(Goal("order"),),
    pre="1d",
    post="1d",
    covariates=CovariateSpec(windows=("1d",), events=("order",), messages=False, clock=False),
    folds=2,
)
LEVELS = np.array([1.0, 2.0, 4.0])
SHARES = np.array([0.5, 0.3, 0.2])
SLOTS = np.arange(5, 25, 5)
DAYS = 27


@dataclass(frozen=True)
class Simulated:
    """A history and its truth.

    Attributes:
        history: One slot each five days at 06:00, orders by day.
        att: Expected effect on the treated, in orders per sent decision.
    """

    history: History
    att: float


def simulate(
    seed: int,
    assignment: Assignment,
    users: int = 300,
    effect: float = 1.0,
    *,
    held_out: float = 0.0,
    regions: int = 0,
) -> Simulated:
    """Draw a history.

    Orders of a day are Poisson: the user's level, plus the day's shock, which is the same for all (so trends are
    parallel). A message adds Poisson orders to the following day, `effect` times a quarter of the user's level: effects
    differ between users, and where messages go by level, the treated gain more than all would.

    Messages are sent with probability 0.4 (`random`), by the user's level (`level`), mostly after a day with at most
    one order (`dip`): a transient, which ends by itself; the more often the fewer orders the day before had (`quiet`):
    the same, with odds that a logistic regression on that number can represent; or mostly in every other region
    (`region`). The probability is logged.

    A share of users is held out, if asked for: an arm of their own, to which nothing is sent. With regions, users have
    one as an attribute, and each has shocks of its own, so that users of a region are not independent.
    """
    rng = np.random.default_rng(seed)
    kind = rng.choice(len(LEVELS), users, p=SHARES)
    level = LEVELS[kind]
    rate = level[:, None] + rng.uniform(0.0, 1.0, DAYS)[None, :]
    region = np.arange(users) % max(regions, 1)
    if regions:
        rate = rate + rng.uniform(0.0, 2.0, (regions, DAYS))[region]
    count = rng.poisson(rate)
    if assignment == "random":
        chance = np.full((users, len(SLOTS)), 0.4)
    elif assignment == "level":
        chance = np.repeat(np.array([0.2, 0.4, 0.7])[kind][:, None], len(SLOTS), axis=1)
    elif assignment == "region":
        chance = np.repeat(np.where(region % 2 == 0, 0.2, 0.6)[:, None], len(SLOTS), axis=1)
    else:
        chance = after_orders(assignment, count[:, SLOTS - 1])
    sent = rng.random(chance.shape) < chance
    held = rng.random(users) < held_out if held_out else np.zeros(users, dtype=bool)
    chance, sent = np.where(held[:, None], 0.0, chance), sent & ~held[:, None]
    gain = effect * level / 4.0
    count[:, SLOTS] += rng.poisson(gain[:, None] * sent)

    # Days begin at the slots' hour.
    n = count.ravel()
    event_user = np.repeat(np.arange(users), count.sum(1))
    start = np.tile(np.arange(DAYS) * DAY + 6 * HOUR, users)
    event_time = np.repeat(start, n) + rng.integers(1, DAY, n.sum())
    user = np.repeat(np.arange(users), len(SLOTS))
    ids = np.array([f"{u}-{k}" for u in range(users) for k in range(len(SLOTS))], dtype=object)
    names = np.array([f"u{i}" for i in range(users)], dtype=object)
    propensity = np.where(sent, chance, 1.0 - chance).ravel()
    history = History.from_arrays(
        DecisionLog(
            id=ids,
            key=keys(ids),
            user=user,
            time=np.tile(SLOTS * DAY + 6 * HOUR, users),
            actions=sent.ravel()[:, None].astype(np.int64),
            propensity=propensity[:, None],
            joint=propensity,
            arm=np.where(held, "held out", "messages").astype(object)[user] if held_out else None,
        ),
        EventLog(
            user=event_user,
            time=event_time,
            event=np.zeros(len(event_user), dtype=np.int64),
            value=np.ones(len(event_user)),
        ),
        modules=MODULES,
        user_ids=names,
        event_names=("order",),
        span=(6 * HOUR, DAYS * DAY + 6 * HOUR),
        users=pd.DataFrame({"user_id": names, "region": [f"r{r}" for r in region]}) if regions else None,
    )
    return Simulated(history, effect * treated_level(assignment) / 4.0)


def after_orders(assignment: Assignment, number: np.ndarray) -> np.ndarray:
    """Probability of a message after a day with so many orders."""
    if assignment == "dip":
        return np.where(number <= 1, 0.7, 0.15)
    return 1.0 / (1.0 + np.exp(2.0 * np.log1p(number) - 1.5))


def treated_level(assignment: Assignment) -> float:
    """Expected level of a treated decision's user: levels weighted by their share and probability of a message."""
    if assignment in ("random", "region"):
        chance = np.full(len(LEVELS), 0.4)
    elif assignment == "level":
        chance = np.array([0.2, 0.4, 0.7])
    else:
        # Mean over the shock, uniform on (0, 1), and over the number of orders, Poisson.
        rate = LEVELS[:, None] + (np.arange(2000) + 0.5)[None, :] / 2000
        chance, weight = np.zeros(len(LEVELS)), np.exp(-rate)
        for number in range(60):
            chance += weight.mean(1) * after_orders(assignment, np.array(number))
            weight = weight * rate / (number + 1)
    return float((LEVELS * SHARES * chance).sum() / (SHARES * chance).sum())


def without_propensities(history: History) -> History:
    """The same log, which does not say how likely each choice was."""
    d = history.decisions
    return history.with_propensities(np.full_like(d.propensity, np.nan), np.full_like(d.joint, np.nan), "missing")
