"""Simulated logs along a funnel, small and fast, whose average components are known."""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np

from crosschannel.core.action_space import ActionSpace, Module
from crosschannel.core.hashing import keys
from crosschannel.core.times import DAY, HOUR
from crosschannel.histories.history import DecisionLog, EventLog, History
from crosschannel.histories.logs import NO_MESSAGE
from crosschannel.reward import FunnelSpec, Goal, RewardSpec

CHANNELS = ("none", "email", "push", "in_app")
MODULES = ActionSpace([Module("channel", CHANNELS), Module("offer", ("small", "large"))])
EVENTS = ("visit", "order", "opened:email", "opened:push", "complaint")
VISIT, ORDER, OPENED, COMPLAINT = 0, 1, 2, 4
FUNNEL = FunnelSpec(
    engagement={"email": "opened:email", "push": "opened:push"}, costs=("complaint",), surrogates={"order": ("visit",)}
)
# Windows of a day around slots that are five days apart: no window ever holds another message.
SPEC = RewardSpec(
    goals=(Goal("order"), Goal("visit", 0.1), Goal("complaint", -3.0)), pre="1d", post="1d", folds=2, funnel=FUNNEL
)
LEVELS, SHARES = np.array([0.5, 1.0, 2.0]), np.array([0.4, 0.4, 0.2])
CONVERSION = 0.3
SLOTS = np.arange(5, 25, 5)
DAYS = 27
START = 20_000 * DAY + 6 * HOUR


@dataclass(frozen=True)
class World:
    """How users respond to messages. Entries by channel are those of e-mail, push and in-app.

    Attributes:
        opens: Probability of opening.
        gain: Extra visits of an opened message, times the user's level.
        direct: Extra visits of one that was not opened, the same.
        orders_alone: Extra orders of an opened message that come without a visit, times the level.
        complaints: Probability of a complaint.
        confounded: Whether those open who are active on that day in any case.
    """

    opens: tuple[float, ...] = (0.3, 0.5, 0.4)
    gain: float = 0.8
    direct: tuple[float, ...] = (0.0, 0.0, 0.0)
    orders_alone: float = 0.0
    complaints: tuple[float, ...] = (0.02, 0.04, 0.03)
    confounded: bool = False
    mean_level: float = field(default=float(LEVELS @ SHARES), init=False)

    def truth(self, channel: int, price: float = CONVERSION) -> dict[str, float]:
        """The expected components of a channel's messages (1 to 3), with the price of a visit in orders."""
        worth = (0.1 + price) * self.mean_level
        p = self.opens[channel - 1]
        gain = worth * self.gain
        direct = worth * self.direct[channel - 1]
        return {
            "engagement": p,
            "gain": gain,
            "direct": direct,
            "value": p * gain + (1 - p) * direct,
            "hazard of complaint": self.complaints[channel - 1],
        }


NULL = World(gain=0.0)
EXCLUSION = World()
DIRECT = World(direct=(0.0, 0.6, 0.4))
CONFOUNDED = World(confounded=True)
INCOMPLETE = World(orders_alone=0.12)


def simulate(world: World, seed: int, users: int = 400, *, named: bool = False) -> History:
    """Draw a log: slots each five days at 06:00, at half of which a message is sent, on a channel at random.

    Visits of a day are Poisson with the user's level times the day's own activity (mean 1), plus what the day has for
    all; each ends in an order with probability `CONVERSION`. With `named` events name the decision they are about.
    """
    rng = np.random.default_rng(seed)
    level = rng.choice(LEVELS, users, p=SHARES)
    activity = rng.gamma(2.0, 0.5, (users, DAYS))
    visits = rng.poisson(level[:, None] * activity + rng.uniform(0.0, 0.5, DAYS)[None, :])
    sent = rng.random((users, len(SLOTS))) < 0.5
    channel = np.where(sent, rng.integers(1, len(CHANNELS), sent.shape), 0)

    def by_channel(values: tuple[float, ...]) -> np.ndarray:
        return np.array([0.0, *values])[channel]

    chance = by_channel(world.opens)
    if world.confounded:
        chance = chance * np.minimum(activity[:, SLOTS], 1.0 / np.maximum(chance, 1e-9)) / 0.94
    opened = rng.random(sent.shape) < chance
    extra = np.where(opened, world.gain * sent, by_channel(world.direct)) * level[:, None]
    visits[:, SLOTS] += rng.poisson(extra)
    orders = rng.binomial(visits, CONVERSION)
    orders[:, SLOTS] += rng.poisson(world.orders_alone * opened * level[:, None])
    complaint = rng.random(sent.shape) < by_channel(world.complaints)

    at, codes, who, about = [], [], [], []
    day = np.tile(np.arange(DAYS), users)
    for code, count in ((VISIT, visits), (ORDER, orders)):
        who.append(np.repeat(np.repeat(np.arange(users), DAYS), count.ravel()))
        at.append(np.repeat(day, count.ravel()) * DAY + rng.integers(1, DAY, count.sum()))
        codes.append(np.full(count.sum(), code))
        about.append(np.full(count.sum(), NO_MESSAGE))
    logged = opened & (channel < 3)
    for what, code in ((logged, OPENED + channel - 1), (complaint, np.full(sent.shape, COMPLAINT))):
        user, slot = np.nonzero(what)
        who.append(user)
        at.append(SLOTS[slot] * DAY + rng.integers(1, 12 * HOUR, len(user)))
        codes.append(code[what])
        about.append(user * len(SLOTS) + slot)
    user = np.repeat(np.arange(users), len(SLOTS))
    ids = np.array([f"{u:05d}-{k}" for u in range(users) for k in range(len(SLOTS))], dtype=object)
    offer = np.where(sent, rng.integers(0, 2, sent.shape), 0)
    p_channel = np.where(sent, 0.5 / (len(CHANNELS) - 1), 0.5).ravel()
    propensity = np.stack([p_channel, np.where(sent.ravel(), 0.5, 1.0)], axis=1)
    return History.from_arrays(
        DecisionLog(
            id=ids,
            key=keys(ids),
            user=user,
            time=START + np.tile(SLOTS * DAY, users),
            actions=np.stack([channel.ravel(), offer.ravel()], axis=1),
            propensity=propensity,
            joint=propensity.prod(axis=1),
        ),
        EventLog(
            user=np.concatenate(who),
            time=START + np.concatenate(at),
            event=np.concatenate(codes),
            value=np.ones(sum(map(len, who))),
            message=np.concatenate(about) if named else None,
        ),
        modules=MODULES,
        user_ids=np.array([f"u{i:05d}" for i in range(users)], dtype=object),
        event_names=EVENTS,
        span=(START, START + DAYS * DAY),
        churn_events=(),
    )
