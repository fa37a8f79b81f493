"""Small deployments as logs: a policy's decisions with exact propensities, arms, deliveries and unsubscribes."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from crosschannel.core.action_space import ActionSpace, Module
from crosschannel.core.hashing import keys
from crosschannel.core.times import DAY, HOUR
from crosschannel.histories.history import DecisionLog, EventLog, History

START = 20_000 * DAY
SLOT = 6 * HOUR
EVENTS = ("order", "visit", "unsubscribed", "delivered", "bounced")
MODULES = ActionSpace([Module("channel", ("none", "email", "push")), Module("tone", ("plain", "funny"))])
ARMS = ("agent", "business_as_usual", "holdout")
#: Settings with which alerts are given on such a log.
SETTINGS: dict[str, object] = {
    "history.source": "folder",
    "reward.goals": [{"event": "order", "weight": 1.0}],
    "reward.pre": "1d",
    "reward.post": "1d",
    "reward.funnel": None,
    "constraints.cost_events": (),
    "trial.pre": "6d",
    "alerts.delivered": ("delivered",),
    "alerts.failed": ("bounced",),
}


@dataclass(frozen=True)
class World:
    """What a deployment is like; the defaults are one in which nothing is wrong.

    Attributes:
        users: Number of users.
        days: Number of days on which the policy decides.
        before: Number of days before them.
        channel: Probabilities of the channels, by day (days, 3) or for all days (3,).
        logged: Probabilities of the channels that are logged, in place of the true ones.
        tone: Probability of the second tone.
        keep: Share of the agent's decisions that are there, by day (days,).
        orders: Orders a user and day.
        order_factor: Factor on the orders of the agent's users before the start.
        unsubscribes: Probability of an unsubscribe a day, by arm (3,).
        delivered: Probability that a message is delivered.
    """

    users: int = 600
    days: int = 8
    before: int = 8
    channel: tuple[float, ...] = (0.5, 0.3, 0.2)
    last_channel: tuple[float, ...] | None = None
    logged: tuple[float, ...] | None = None
    tone: float = 0.5
    keep: tuple[float, ...] = ()
    orders: float = 0.5
    order_factor: float = 1.0
    unsubscribes: tuple[float, float, float] = (0.002, 0.002, 0.002)
    delivered: float = 0.97


def deployment(world: World = World(), seed: int = 0, shares: tuple[float, ...] = (0.5, 0.3, 0.2)) -> History:
    """A log of a deployment; its users are in arms, and business as usual sends by a rule of its own."""
    rng = np.random.default_rng(seed)
    n, first = world.users, START + world.before * DAY + SLOT
    arm = rng.choice(3, n, p=shares)
    user, day = (a.ravel() for a in np.meshgrid(np.arange(n), np.arange(world.days), indexing="ij"))
    keep = np.asarray(world.keep or np.ones(world.days))
    there = (arm[user] != 0) | (rng.random(len(user)) < keep[day])
    user, day = user[there], day[there]
    of = arm[user]
    p = np.tile(np.asarray(world.channel), (world.days, 1))
    if world.last_channel is not None:
        p[-1] = world.last_channel
    p = p[day]
    channel = (rng.random(len(user))[:, None] > p.cumsum(axis=1)).sum(axis=1).clip(0, 2)
    channel[of == 2] = 0
    tone = (rng.random(len(user)) < world.tone).astype(int)
    actions = MODULES.canonical(np.stack([channel, tone], axis=1))
    logged = p if world.logged is None else np.tile(np.asarray(world.logged), (len(user), 1))
    propensity = np.stack(
        [
            np.where(of == 2, 1.0, logged[np.arange(len(user)), channel]),
            np.where(channel == 0, 1.0, np.where(tone == 1, world.tone, 1 - world.tone)),
        ],
        axis=1,
    )
    eligible = np.ones((len(user), MODULES.total), dtype=bool)
    eligible[of == 2, 1:] = False
    version = np.array([f"{k:012x}" for k in range(world.days)], dtype=object)
    ids = np.array([f"{u}-{k}" for u, k in zip(user, day, strict=True)], dtype=object)
    time = first + day * DAY
    decisions = DecisionLog(
        id=ids,
        key=keys(ids),
        user=user,
        time=time,
        actions=actions,
        propensity=propensity,
        joint=propensity.prod(axis=1),
        policy=np.where(of == 1, "campaign", version[day]),
        arm=np.asarray(ARMS, dtype=object)[of],
        eligible=eligible,
    )
    span = START, first + world.days * DAY
    return History.from_arrays(
        decisions,
        _events(world, rng, arm, (user, time, channel), span),
        modules=MODULES,
        user_ids=np.array([f"u{i:05d}" for i in range(n)], dtype=object),
        event_names=EVENTS,
        span=span,
    )


def _events(
    world: World,
    rng: np.random.Generator,
    arm: np.ndarray,
    sends: tuple[np.ndarray, np.ndarray, np.ndarray],
    span: tuple[int, int],
) -> EventLog:
    n, days = world.users, (span[1] - span[0]) / DAY
    first = START + world.before * DAY
    user = np.repeat(np.arange(n), rng.poisson(world.orders * days, n))
    time = rng.integers(span[0], span[1], len(user))
    kept = (arm[user] != 0) | (time >= first) | (rng.random(len(user)) < world.order_factor)
    parts = [(user[kept], time[kept], 0)]
    visit = np.repeat(np.arange(n), rng.poisson(days, n))
    parts.append((visit, rng.integers(span[0], span[1], len(visit)), 1))
    gone = first + rng.geometric(np.asarray(world.unsubscribes)[arm]) * DAY - rng.integers(1, DAY, n)
    rows = np.flatnonzero(gone < span[1])
    parts.append((rows, gone[rows], 2))
    of, at, channel = sends
    sent = np.flatnonzero(channel > 0)
    arrived = rng.random(len(sent)) < world.delivered
    parts += [(of[sent[arrived]], at[sent[arrived]] + HOUR, 3), (of[sent[~arrived]], at[sent[~arrived]] + HOUR, 4)]
    return EventLog(
        user=np.concatenate([one[0] for one in parts]),
        time=np.concatenate([one[1] for one in parts]),
        event=np.concatenate([np.full(len(one[0]), one[2]) for one in parts]),
        value=np.ones(sum(len(one[0]) for one in parts)),
    )
