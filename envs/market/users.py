"""The market's users: latent traits, and the observable attributes that tell a little about them."""

from __future__ import annotations

from dataclasses import dataclass, fields
from typing import Any

import numpy as np
import numpy.typing as npt
import pandas as pd

from envs.market.config import BLOCKS, CHANNELS, IN_APP, SERVICES, TONES, Dynamics
from envs.market.draws import Purpose, categorical, normal, uniform
from histories.hashing import UIntArray, mix
from histories.modules import BoolArray, FloatArray, IntArray

PLATFORMS = ("android", "ios", "web")

# Which draw of a user is which: the first counter of `Purpose.USER`.
(
    _AGE,
    _PLATFORM,
    _CITY,
    _ACTIVITY,
    _TENURE,
    _REACH,
    _INTEREST,
    _TASTE,
    _AFFINITY,
    _BLOCK,
    _TONE,
    _SENSITIVITY,
    _RESPONSE,
    _HABIT,
) = range(14)

# How traits lean with age (per 15 years below 40): by service, by channel but none, by tone.
_YOUNG_SERVICE = (0.60, -0.60, 0.25, -0.10)
_YOUNG_CHANNEL = (-0.70, 0.60, -0.30, 0.50)
_YOUNG_TONE = (-0.25, 0.25, 0.05)
_CITY_SERVICE = (0.10, 0.00, 0.50, -0.40)

# How tones do on average, and how the best block leans towards the evening.
_TONE_LEVEL = (0.85, 1.15, 1.00)
_BLOCK_LEVEL = (0.8, 1.0, 1.0, 2.0, 0.3)

LARGEST_TASTE = 4.0
LARGEST_FIT = 2.5
#: Taste of users of habit, as a share of others'.
HABIT_TASTE = 0.03


@dataclass(frozen=True)
class Users:
    """N users, one row each: all that the market knows of them and that does not change over time.

    Attributes:
        key: 64-bit key from which everything about the user is drawn (N,).
        visit_rate: Organic visits a day of the user's own (N, services).
        block_share: Share of these in each block (N, blocks).
        reachable: Whether a message on the channel is delivered (N, channels); nothing is sent on `none`.
        affinity: Log odds of opening, on top of the channel's intercept (N, channels).
        time_match: Log odds of opening, on top, by block (N, blocks).
        taste: How much a message about a service draws (N, services); 1 is average.
        tone_fit: How much a tone adds to it (N, tones); 1 is average.
        sensitivity: Factor on the hazard of unsubscribing (N,).
        platform: Code into `PLATFORMS` (N,), observable.
        age: Years (N,), observable.
        tenure_days: Days since registration (N,), observable.
        city_tier: 1 for the largest cities to 3 (N,), observable.
    """

    key: UIntArray
    visit_rate: FloatArray
    block_share: FloatArray
    reachable: BoolArray
    affinity: FloatArray
    time_match: FloatArray
    taste: FloatArray
    tone_fit: FloatArray
    sensitivity: FloatArray
    platform: IntArray
    age: IntArray
    tenure_days: IntArray
    city_tier: IntArray

    def __len__(self) -> int:
        return len(self.key)

    def take(self, rows: Any) -> Users:
        """The users of the given rows."""
        return Users(**{f.name: getattr(self, f.name)[rows] for f in fields(self)})

    def put(self, rows: npt.NDArray[Any], other: Users) -> None:
        """Replaces the users of the given rows, in place."""
        for f in fields(self):
            getattr(self, f.name)[rows] = getattr(other, f.name)

    def attributes(self) -> pd.DataFrame:
        """What an app knows of its users: the observable attributes, one row a user."""
        return pd.DataFrame(
            {
                "platform": np.asarray(PLATFORMS, dtype=object)[self.platform],
                "age": self.age,
                "tenure_days": self.tenure_days,
                "city_tier": self.city_tier,
            }
        )


def user_keys(n: int, seed: int, stream: int = 0) -> UIntArray:
    """Keys (n,) of the users of a seed; different streams of one seed have different users."""
    base = mix(np.array([seed], dtype=np.uint64)) ^ np.uint64(int(Purpose.USER_KEY) << 32 | stream)
    return mix(mix(base) ^ mix(np.arange(n, dtype=np.uint64)))


def draw_users(key: UIntArray, dynamics: Dynamics) -> Users:
    """Draws the users of the given keys (N,), each from its own key alone.

    Age and platform come first; the rest leans on them. With y = (40 - age) / 15:

    - activity a is gamma distributed with shape 2 and mean 1; interests g_s are normal around leanings by age and
      city; a user's own visits are `a * popularity_s * exp(g_s)`;
    - users of habit come anyway, and messages hardly move them: the more active, the older and the longer
      registered, with log odds `3 (a - 1) + 1.2 ln(tenure / 400) - 0.8 y`. They are those whom business as usual
      messages most;
    - taste for messages is `response * exp(0.5 g_s + 0.25 z_s)`, at most `LARGEST_TASTE`, so that organic visits
      tell a part of it; the response is `HABIT_TASTE` for users of habit and log-normal for others;
    - affinities are normal around leanings by age and platform, tone fits log-normal around leanings by age, and
      the best block comes the later the younger the user;
    - push and in-app reach only those who have the app, push only those who allowed it.
    """

    def u(trait: int, index: npt.ArrayLike = 0) -> FloatArray:
        column = key if np.ndim(index) == 0 else key[:, None]
        return uniform(column, Purpose.USER, 0, trait, index)

    def z(trait: int, n: int) -> FloatArray:
        return normal(key[:, None], Purpose.USER, trait, np.arange(n))

    n = len(key)
    age = 18 + np.floor(52 * u(_AGE) ** 1.4).astype(np.int64)
    young = (40 - age) / 15.0
    web = np.clip(0.2 - 0.08 * young, 0.05, 0.5)
    ios = 0.35 * (1 - web)
    platform = categorical(u(_PLATFORM), np.stack([1 - web - ios, ios, web], axis=1))
    city = 1 + categorical(u(_CITY), np.broadcast_to([0.45, 0.35, 0.20], (n, 3)))

    activity = -(np.log(u(_ACTIVITY, 0)) + np.log(u(_ACTIVITY, 1))) / 2
    tenure = np.floor(30 - 400 * np.log(u(_TENURE)) * (0.4 + 0.6 * activity)).astype(np.int64)
    lean = young[:, None] * np.array(_YOUNG_SERVICE) + (2 - city)[:, None] * np.array(_CITY_SERVICE)
    interest = lean + 0.6 * z(_INTEREST, len(SERVICES))
    visit_rate = activity[:, None] * np.array(dynamics.popularity) * np.exp(np.minimum(interest, 2.0))
    odds = 3.0 * (activity - 1.0) + 1.2 * np.log(tenure / 400.0) - 0.8 * young
    habit = u(_HABIT) < 1.0 / (1.0 + np.exp(-odds))
    response = np.where(habit, HABIT_TASTE, np.exp(0.35 * z(_RESPONSE, 1)[:, 0]))
    taste = response[:, None] * np.exp(0.5 * interest + 0.25 * z(_TASTE, len(SERVICES)))
    taste = np.minimum(taste, LARGEST_TASTE)

    app = (platform != PLATFORMS.index("web")) | (u(_REACH, 0) < 0.3)
    allowed = np.where(platform == PLATFORMS.index("ios"), 0.55, 0.85)
    reachable = np.zeros((n, len(CHANNELS)), dtype=bool)
    reachable[:, CHANNELS.index("email")] = u(_REACH, 1) < 0.92
    reachable[:, CHANNELS.index("push")] = app & (u(_REACH, 2) < allowed)
    reachable[:, CHANNELS.index("sms")] = u(_REACH, 3) < 0.65
    reachable[:, IN_APP] = app

    affinity = np.zeros((n, len(CHANNELS)))
    affinity[:, 1:] = young[:, None] * np.array(_YOUNG_CHANNEL) + 0.4 * z(_AFFINITY, len(CHANNELS) - 1)
    affinity[:, IN_APP] += np.where(platform == PLATFORMS.index("ios"), 0.3, 0.0)

    late = np.stack([np.exp(2.0 * young * (b - 1.5)) for b in range(len(BLOCKS))], axis=1)
    best = categorical(u(_BLOCK), late * np.array(_BLOCK_LEVEL))
    is_best = np.arange(len(BLOCKS)) == best[:, None]
    lean = young[:, None] * np.array(_YOUNG_TONE)
    tone = np.array(_TONE_LEVEL) * np.exp(lean + 0.2 * z(_TONE, len(TONES)))
    return Users(
        key=np.array(key),
        visit_rate=visit_rate,
        block_share=np.where(is_best, 0.40, 0.15),
        reachable=reachable,
        affinity=affinity,
        time_match=np.where(is_best, dynamics.time_match, -dynamics.time_match / 2),
        taste=taste,
        tone_fit=np.minimum(tone, LARGEST_FIT),
        sensitivity=np.exp(0.5 * z(_SENSITIVITY, 1)[:, 0] + 0.3 * young - 0.125),
        platform=platform,
        age=age,
        tenure_days=tenure,
        city_tier=city,
    )
