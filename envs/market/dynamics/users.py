"""Simulated users: latent traits, and observable attributes that are correlated with them."""

from __future__ import annotations

from dataclasses import dataclass, fields
from typing import Any

import numpy as np
import numpy.typing as npt
import pandas as pd

from crosschannel.core.arrays import BoolArray, FloatArray, IntArray, UIntArray
from crosschannel.core.hashing import mix
from crosschannel.envs.market.dynamics.draws import Purpose, categorical, normal, uniform
from crosschannel.envs.market.dynamics.parameters import Dynamics
from crosschannel.envs.market.vocabulary import BLOCKS, CHANNELS, GREETINGS, IN_APP, OFFERS, SERVICES, TONES, Labels

PLATFORMS = ("android", "ios", "web")

# First counter of `Purpose.USER`, by trait.
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
    _PREFERENCE,
    _SENSITIVITY,
    _RESPONSE,
    _HABIT,
    _FIT,
    _WEEKEND,
    _MAIL_PROGRAM,
) = range(17)

# Change of traits with age (per 15 years below 40): by service, by channel except none.
_YOUNG_SERVICE = (0.60, -0.60, 0.25, -0.10)
_YOUNG_CHANNEL = (-0.70, 0.60, -0.30, 0.50)
_CITY_SERVICE = (0.10, 0.00, 0.50, -0.40)

# Preference for each label of content: mean, change with age (per 15 years below 40), standard deviation.
_PREFERENCES = {
    "discount": (0.40, 0.15, 0.15),
    "points": (0.05, -0.15, 0.15),
    "warmth": (0.05, 0.10, 0.10),
    "emoji": (0.00, 0.20, 0.10),
    "personal": (0.10, -0.05, 0.10),
}
#: Standard deviation of the part of the logarithm of a fit that labels do not explain.
_RESIDUAL_FIT_SD = 0.04

# Weights of the blocks to be a user's best one.
_BEST_BLOCK_WEIGHTS = (0.8, 1.0, 1.0, 2.0, 0.3)

MAX_TASTE = 2.5
MAX_FIT = 2.0
#: Taste of habitual users, as a share of that of others.
HABITUAL_TASTE = 0.03


@dataclass(frozen=True)
class Users:
    """N users, one row each: all their traits and attributes that do not change over time.

    Attributes:
        key: 64-bit key that determines everything about the user (N,).
        visit_rate: The user's own organic visits per day (N, services).
        block_share: Share of these visits in each block (N, blocks).
        reachable: Whether a message on the channel is delivered (N, channels); nothing is sent on `none`.
        affinity: Change of the log odds of opening by channel (N, channels).
        time_match: Change of the log odds of opening by block (N, blocks).
        weekend_match: Change of the log odds of opening at weekends (N,).
        taste: Factor on the extra visits by service of the message (N, services); 1 is average.
        offer_fit: Factor on the extra visits by offer (N, offers).
        tone_fit: Factor on the extra visits by tone (N, tones).
        greeting_fit: Factor on the extra visits by greeting (N, greetings).
        sensitivity: Factor on the hazard of unsubscribing (N,).
        mail_program: Whether the user's mail program opens every e-mail at once (N,).
        platform: Code into `PLATFORMS` (N,), observable.
        age: Age in years (N,), observable.
        tenure_days: Days since registration (N,), observable.
        city_tier: Tier of the city, from 1 (the largest) to 3 (N,), observable.
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
    mail_program: BoolArray
    platform: IntArray
    age: IntArray
    tenure_days: IntArray
    city_tier: IntArray

    def __len__(self) -> int:
        return len(self.key)

    def take(self, rows: Any) -> Users:
        """Return the users of the given rows."""
        return Users(**{f.name: getattr(self, f.name)[rows] for f in fields(self)})

    def put(self, rows: npt.NDArray[Any], other: Users) -> None:
        """Replace the users of the given rows, in place."""
        for f in fields(self):
            getattr(self, f.name)[rows] = getattr(other, f.name)

    def attributes(self) -> pd.DataFrame:
        """Return the observable attributes, which an app knows, one row per user."""
        return pd.DataFrame(
            {
                "platform": np.asarray(PLATFORMS, dtype=object)[self.platform],
                "age": self.age,
                "tenure_days": self.tenure_days,
                "city_tier": self.city_tier,
            }
        )


def user_keys(n: int, seed: int, stream: int = 0) -> UIntArray:
    """Return keys (n,) of the users of a seed; different streams of one seed have different users."""
    base = mix(np.array([seed], dtype=np.uint64)) ^ np.uint64(int(Purpose.USER_KEY) << 32 | stream)
    return mix(mix(base) ^ mix(np.arange(n, dtype=np.uint64)))


def draw_users(key: UIntArray, dynamics: Dynamics) -> Users:
    """Draw the users of the given keys (N,), each from its own key alone.

    Age and platform are drawn first; the other traits depend on them. With y = (40 - age) / 15:

    - activity a is gamma distributed with shape 2 and mean 1; interests g_s are normal around means by age and city;
      a user's own visits are `a * popularity_s * exp(g_s)`;
    - habitual users visit anyway, and messages hardly change that. A user is habitual with log odds
      `3 (a - 1) + 1.2 ln(tenure / 400) - 0.8 y`: more often if active, older and registered for longer. These are the
      users who get the most messages under business as usual;
    - taste for messages is `response * exp(0.5 g_s + 0.25 z_s)`, at most `MAX_TASTE`, so that organic visits predict
      a part of it; the response is `HABITUAL_TASTE` for habitual users and log-normal for others;
    - affinities are normal around means by age and platform, and the younger the user, the later the best block;
    - the logarithm of a fit is the sum of the user's preferences for the action's labels, which are normal around
      means by age, and a little noise; a fit is at most `MAX_FIT`;
    - push and in-app messages reach only users who have the app, push only those who allowed it.
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
    leaning = young[:, None] * np.array(_YOUNG_SERVICE) + (2 - city)[:, None] * np.array(_CITY_SERVICE)
    interest = leaning + 0.6 * z(_INTEREST, len(SERVICES))
    visit_rate = activity[:, None] * np.array(dynamics.popularity) * np.exp(np.minimum(interest, 2.0))
    odds = 3.0 * (activity - 1.0) + 1.2 * np.log(tenure / 400.0) - 0.8 * young
    habitual = u(_HABIT) < 1.0 / (1.0 + np.exp(-odds))
    response = np.where(habitual, HABITUAL_TASTE, np.exp(0.25 * z(_RESPONSE, 1)[:, 0]))
    taste = response[:, None] * np.exp(0.5 * interest + 0.25 * z(_TASTE, len(SERVICES)))
    taste = np.minimum(taste, MAX_TASTE)

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
    best = categorical(u(_BLOCK), late * np.array(_BEST_BLOCK_WEIGHTS))
    is_best = np.arange(len(BLOCKS)) == best[:, None]
    preference = z(_PREFERENCE, len(_PREFERENCES))
    for j, (mean, youth, deviation) in enumerate(_PREFERENCES.values()):
        preference[:, j] = mean + youth * young + deviation * preference[:, j]
    residual = _RESIDUAL_FIT_SD * z(_FIT, len(OFFERS) + len(TONES) + len(GREETINGS))
    offer, tone, greeting = np.split(residual, [len(OFFERS), len(OFFERS) + len(TONES)], axis=1)
    return Users(
        key=np.array(key),
        visit_rate=visit_rate,
        block_share=np.where(is_best, 0.40, 0.15),
        reachable=reachable,
        affinity=affinity,
        time_match=np.where(is_best, dynamics.time_match, -dynamics.time_match / 2),
        weekend_match=dynamics.weekend_match * z(_WEEKEND, 1)[:, 0],
        taste=taste,
        offer_fit=_fit(OFFERS, preference, offer),
        tone_fit=_fit(TONES, preference, tone),
        greeting_fit=_fit(GREETINGS, preference, greeting),
        sensitivity=np.exp(0.5 * z(_SENSITIVITY, 1)[:, 0] + 0.3 * young - 0.125),
        mail_program=u(_MAIL_PROGRAM) < dynamics.mail_programs,
        platform=platform,
        age=age,
        tenure_days=tenure,
        city_tier=city,
    )


def _fit(actions: Labels, preference: FloatArray, residual: FloatArray) -> FloatArray:
    """Return the fit of actions (A) for users (N, A), from preferences for labels (N, L) and residuals (N, A)."""
    total = residual.copy()
    for a, labels in enumerate(actions.values()):
        for name, amount in labels.items():
            total[:, a] += amount * preference[:, list(_PREFERENCES).index(name)]
    return np.minimum(np.exp(total), MAX_FIT)
