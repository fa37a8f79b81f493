"""A shop with known effects that is unlike the simulated market: messages act by visits, and offers act by channel.

Messages are drawn at random every day, and what they cause lasts beyond the next one. Pushes and text messages act
whether they are seen or not, e-mails when they are opened. Whoever is active on a day opens more, visits more and buys
more that day anyway, so that those who open would have bought as well. A visit becomes an order with a probability of
its own; a discount causes orders beside visits, which visits as surrogates miss. Baskets are lognormal.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import cached_property

import numpy as np
import pandas as pd

from crosschannel.core.action_space import ActionSpace
from crosschannel.core.arrays import FloatArray, IntArray
from crosschannel.histories import History, from_frames

CHANNELS, OFFERS, TONES = ("none", "push", "email", "sms"), ("discount", "bundle", "news"), ("plain", "curious")
PUSH, EMAIL, SMS = 1, 2, 3
TIERS, AGES = ("new", "loyal"), ("young", "middle", "old")
#: Chances of each action, independent of everything.
CHANCES = (np.array([0.52, 0.20, 0.20, 0.08]), np.array([0.5, 0.3, 0.2]), np.array([0.6, 0.4]))
#: Visits that a message causes, by tier, age and offer: a push, an opened e-mail, a text message.
BY_CHANNEL = 0.4 * np.array(
    [
        [[[0.50, 0.05, 0.15], [0.05, 0.35, 0.10], [0.00, 0.05, 0.00]],
         [[0.10, 0.05, 0.10], [0.05, 0.60, 0.05], [0.00, 0.25, 0.05]]],
        [[[0.20, 0.60, 0.30], [0.80, 0.30, 0.30], [1.60, 0.40, 0.80]],
         [[0.10, 0.90, 0.20], [0.50, 0.90, 0.20], [1.00, 1.20, 0.50]]],
        [[[-0.15, 0.00, -0.10], [0.30, 0.10, 0.00], [0.70, 0.30, 0.30]],
         [[-0.20, 0.10, -0.10], [0.20, 0.30, 0.00], [0.50, 0.50, 0.20]]],
    ]
)  # fmt: skip
_ALIKE = np.array(
    [[[0.30, 0.25, 0.15], [0.15, 0.30, 0.10], [0.10, 0.15, 0.05]],
     [[0.10, 0.30, 0.15], [0.05, 0.35, 0.05], [0.00, 0.25, 0.05]]]
)  # fmt: skip
#: The same where what an offer earns differs between users, and not between channels.
ALIKE = 0.4 * np.stack([_ALIKE, 3.0 * _ALIKE, _ALIKE - 0.1])
WORLDS = {"by_channel": BY_CHANNEL, "alike": ALIKE}
#: Orders for each visit by tier, and orders that a discount causes for each visit that it causes.
CONVERSION, DISCOUNT = np.array([0.10, 0.22]), 0.25
#: Standard deviation of the logarithm of a basket, whose mean is `exp(SPREAD^2 / 2)`.
SPREAD = 0.9
BASKET = float(np.exp(SPREAD**2 / 2.0))
FIRST = pd.Timestamp("2024-03-01T10:00Z")
#: Days of events before the first message.
WARMUP = 14


@dataclass(frozen=True)
class Shop:
    """A shop's users, their log, and what every message would cause.

    Attributes:
        world: Name of the effects, one of `WORLDS`.
        users: Number of users n.
        days: Number of days with decisions.
        seed: Seed of users and log.
    """

    world: str
    users: int
    days: int
    seed: int
    rng: np.random.Generator = field(init=False, repr=False)

    def __post_init__(self) -> None:
        object.__setattr__(self, "rng", np.random.default_rng([self.seed, list(WORLDS).index(self.world)]))

    @cached_property
    def traits(self) -> dict[str, np.ndarray]:
        """What users are like (n,) each: the first four are attributes, and the others are not seen."""
        rng, n = self.rng, self.users
        return {
            "tier": rng.integers(0, 2, n),
            "age": rng.integers(0, 3, n),
            "region": rng.integers(0, 5, n),
            "curiosity": rng.random(n),
            "opening": rng.uniform(0.5, 1.5, n),
            "active": rng.uniform(0.15, 0.7, n),
            "rate": rng.gamma(2.0, 0.2, n),
        }

    def opens(self, actions: IntArray, active: FloatArray) -> FloatArray:
        """Return the chance that messages (n, 3) are opened by users who are active with some chance (n,)."""
        channel, tone, t = actions[:, 0], actions[:, 2], self.traits
        by_email = np.where(tone == 1, 0.12 + 0.25 * t["curiosity"], 0.22)
        base = np.where(channel == EMAIL, by_email, np.where(channel == PUSH, 0.25, 0.0)) * t["opening"]
        return np.asarray(active * np.minimum(1.5 * base, 0.95) + (1.0 - active) * 0.6 * base)

    def visits(self, actions: IntArray, opened: FloatArray) -> FloatArray:
        """Return the visits that messages (n, 3) cause if e-mails were opened with some chance (n,)."""
        channel, t = actions[:, 0], self.traits
        caused = WORLDS[self.world][np.maximum(channel, 1) - 1, t["tier"], t["age"], actions[:, 1]]
        return np.where(channel == 0, 0.0, caused * np.where(channel == EMAIL, opened, 1.0))

    def value(self, actions: IntArray) -> FloatArray:
        """Return the orders' value that messages (n, 3) are expected to cause (n,)."""
        by_discount = np.where(actions[:, 1] == 0, 1.0 + DISCOUNT, 1.0)
        caused = self.visits(actions, self.opens(actions, self.traits["active"]))
        return np.asarray(caused * CONVERSION[self.traits["tier"]] * by_discount * BASKET)

    @cached_property
    def log(self) -> tuple[pd.DataFrame, pd.DataFrame, pd.DataFrame]:
        """Decisions, events and users of the shop's days."""
        traits = self.traits
        decisions, events = list[pd.DataFrame](), list[pd.DataFrame]()
        for day in range(-WARMUP, self.days):
            actions, happened = self._day(day)
            if day >= 0:
                decisions.append(self._decisions(day, actions))
            events += [_events(FIRST + pd.Timedelta(days=day), *one) for one in happened]
        users = pd.DataFrame(
            {
                "user_id": _ids(np.arange(self.users)),
                "tier": np.array(TIERS)[traits["tier"]],
                "age": np.array(AGES)[traits["age"]],
                "region": np.char.add("region ", traits["region"].astype(str)),
                "curiosity": traits["curiosity"],
                "observed_from": FIRST - pd.Timedelta(days=WARMUP),
            }
        )
        every = pd.concat(events, ignore_index=True)
        orders = every["event"] == "order"
        every["value"] = np.where(orders, self.rng.lognormal(0.0, SPREAD, len(every)), 1.0)
        return pd.concat(decisions, ignore_index=True), every, users

    def _day(self, day: int) -> tuple[IntArray, list[tuple[str, IntArray, FloatArray]]]:
        """Return a day's actions (n, 3), and its events: name, users, and hours after the decision."""
        rng, t, everybody = self.rng, self.traits, np.arange(self.users)
        active = rng.random(self.users) < t["active"]
        weekend = 1.25 if (FIRST + pd.Timedelta(days=day)).day_of_week >= 5 else 1.0
        usual = rng.poisson(t["rate"] * np.where(active, 2.2, 0.3) * weekend)
        who, hour = np.repeat(everybody, usual), rng.uniform(0.0, 14.0, usual.sum())
        actions, happened = np.zeros((self.users, 3), dtype=np.int64), []
        if day >= 0:
            actions = np.stack([rng.choice(len(p), self.users, p=p) for p in CHANCES], 1)
            actions[actions[:, 0] == 0] = 0
            opened = rng.random(self.users) < self.opens(actions, active.astype(float))
            delay = 0.2 + np.minimum(rng.exponential(3.0, self.users), 11.0)
            for channel, name in ((EMAIL, "opened_email"), (PUSH, "opened_push")):
                by = np.flatnonzero(opened & (actions[:, 0] == channel))
                happened.append((name, by, delay[by]))
            caused = self.visits(actions, opened.astype(float))
            start = np.where(actions[:, 0] == EMAIL, delay, 0.0)
            more = np.repeat(everybody, rng.poisson(np.maximum(caused, 0.0)))
            later = start[more] + 0.1 + np.minimum(rng.exponential(6.0, len(more)), 40.0)
            kept = rng.random(len(who)) >= np.maximum(-caused, 0.0)[who] / np.maximum(usual, 1)[who]
            who, hour = np.concatenate([who[kept], more]), np.concatenate([hour[kept], later])
            by_discount = np.maximum(caused, 0.0) * np.where(actions[:, 1] == 0, DISCOUNT, 0.0)
            buys = np.repeat(everybody, rng.poisson(by_discount * CONVERSION[t["tier"]]))
            happened.append(("order", buys, start[buys] + rng.uniform(0.1, 12.0, len(buys))))
        converts = rng.random(len(who)) < CONVERSION[t["tier"][who]]
        happened += [("visit", who, hour), ("order", who[converts], hour[converts] + 0.5)]
        return actions, happened

    def _decisions(self, day: int, actions: IntArray) -> pd.DataFrame:
        sent, ids = actions[:, 0] > 0, _ids(np.arange(self.users))
        columns = {"decision_id": [f"{day:03d} {one}" for one in ids], "user_id": ids}
        out = pd.DataFrame(columns).assign(time=FIRST + pd.Timedelta(days=day))
        for m, (name, names) in enumerate((("channel", CHANNELS), ("offer", OFFERS), ("tone", TONES))):
            chosen = np.array(names, dtype=object)[actions[:, m]]
            out[name] = chosen if m == 0 else np.where(sent, chosen, "")
            out[f"propensity_{name}"] = np.where(sent | (m == 0), CHANCES[m][actions[:, m]], 1.0)
        return out

    def history(self, modules: Sequence[dict[str, object]] | ActionSpace) -> History:
        """Return the log as a history."""
        decisions, events, users = self.log
        return from_frames(decisions, events, modules, users, name=f"{self.world} {self.seed}")


def _ids(users: IntArray) -> list[str]:
    return [f"u{user:06d}" for user in users]


def _events(day: pd.Timestamp, name: str, users: IntArray, hours: FloatArray) -> pd.DataFrame:
    time = (day + pd.to_timedelta(hours, unit="h")).round("s")
    return pd.DataFrame({"user_id": _ids(users), "time": time, "event": name})
