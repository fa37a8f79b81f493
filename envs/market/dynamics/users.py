"""The market's users: latent traits, and the observable attributes that tell a little about them."""

from __future__ import annotations

from dataclasses import dataclass, fields
from typing import Any

import numpy as np
import numpy.typing as npt
import pandas as pd

from crosschannel.core.arrays import BoolArray, FloatArray, IntArray, UIntArray
from crosschannel.core.hashing import mix
from crosschannel.envs.market.dynamics.draws import Purpose, categorical, normal, uniform
from crosschannel.envs.market.scenarios import Dynamics
from crosschannel.envs.market.vocabulary import BLOCKS, CHANNELS, GREETINGS, IN_APP, OFFERS, SERVICES, TONES, Labels

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
    _LIKING,
    _SENSITIVITY,
    _RESPONSE,
    _HABIT,
    _FIT,
    _WEEKEND,
) = range(16)

# How traits lean with age (per 15 years below 40): by service, by channel but none.
_YOUNG_SERVICE = (0.60, -0.60, 0.25, -0.10)
_YOUNG_CHANNEL = (-0.70, 0.60, -0.30, 0.50)
_CITY_SERVICE = (0.10, 0.00, 0.50, -0.40)

# How users like what content says: mean, change with youth, and standard deviation of the liking for each label.
_LIKINGS = {
    "discount": (0.40, 0.15, 0.15),
    "points": (0.05, -0.15, 0.15),
    "warmth": (0.05, 0.10, 0.10),
    "emoji": (0.00, 0.20, 0.10),
    "personal": (0.10, -0.05, 0.10),
}
#: Standard deviation of the logarithm of a fit that no label explains.
_OWN_FIT = 0.04

# How the best block leans towards the evening.
_BLOCK_LEVEL = (0.8, 1.0, 1.0, 2.0, 0.3)

LARGEST_TASTE = 2.5
LARGEST_FIT = 2.0
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
        weekend_match: Log odds of opening, on top, at weekends (N,).
        taste: How much a message about a service draws (N, services); 1 is average.
        offer_fit: Factor on it by offer (N, offers).
        tone_fit: Factor on it by tone (N, tones).
        greeting_fit: Factor on it by greeting (N, greetings).
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
    weekend_match: FloatArray
    taste: FloatArray
    offer_fit: FloatArray
    tone_fit: FloatArray
    greeting_fit: FloatArray
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
    - affinities are normal around leanings by age and platform, and the best block comes the later the younger the
      user;
    - the logarithm of a fit is the sum of the user's likings for the action's labels, which are normal around
      leanings by age, and a little noise; a fit is at most `LARGEST_FIT`;
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
    response = np.where(habit, HABIT_TASTE, np.exp(0.25 * z(_RESPONSE, 1)[:, 0]))
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
    liking = z(_LIKING, len(_LIKINGS))
    for j, (mean, youth, deviation) in enumerate(_LIKINGS.values()):
        liking[:, j] = mean + youth * young + deviation * liking[:, j]
    own = _OWN_FIT * z(_FIT, len(OFFERS) + len(TONES) + len(GREETINGS))
    offer, tone, greeting = np.split(own, [len(OFFERS), len(OFFERS) + len(TONES)], axis=1)
    return Users(
        key=np.array(key),
        visit_rate=visit_rate,
        block_share=np.where(is_best, 0.40, 0.15),
        reachable=reachable,
        affinity=affinity,
        time_match=np.where(is_best, dynamics.time_match, -dynamics.time_match / 2),
        weekend_match=dynamics.weekend_match * z(_WEEKEND, 1)[:, 0],
        taste=taste,
        offer_fit=_fit(OFFERS, liking, offer),
        tone_fit=_fit(TONES, liking, tone),
        greeting_fit=_fit(GREETINGS, liking, greeting),
        sensitivity=np.exp(0.5 * z(_SENSITIVITY, 1)[:, 0] + 0.3 * young - 0.125),
        platform=platform,
        age=age,
        tenure_days=tenure,
        city_tier=city,
    )


def _fit(actions: Labels, liking: FloatArray, own: FloatArray) -> FloatArray:
    """How actions (A) fit users (N, A), by their labels, the likings (N, L) and the noise of their own (N, A)."""
    total = own.copy()
    for a, labels in enumerate(actions.values()):
        for name, amount in labels.items():
            total[:, a] += amount * liking[:, list(_LIKINGS).index(name)]
    return np.minimum(np.exp(total), LARGEST_FIT)
