"""Small random histories for the tests."""

from __future__ import annotations

import numpy as np

from crosschannel.core.action_space import ActionSpace, Module
from crosschannel.core.hashing import keys
from crosschannel.core.times import DAY, HOUR
from crosschannel.histories.history import DecisionLog, EventLog, History

MODULES = ActionSpace([Module("channel", ("none", "email", "push")), Module("offer", ("small", "large"))])


def random_history(
    seed: int, users: int = 40, days: int = 12, rate: float = 3.0, send: float = 0.3, effect: float = 0.0
) -> History:
    """One slot a user and day at 06:00, Poisson events with integer values, an effect of sending on the count."""
    rng = np.random.default_rng(seed)
    user, day = (a.ravel() for a in np.meshgrid(np.arange(users), np.arange(2, days - 2), indexing="ij"))
    sent = rng.random(len(user)) < send
    actions = np.stack([np.where(sent, rng.integers(1, 3, len(user)), 0), rng.integers(0, 2, len(user))], axis=1)
    ids = np.array([f"d{i}" for i in range(len(user))], dtype=object)
    count = rng.poisson(rate * days, users)
    event_user = np.repeat(np.arange(users), count)
    event_time = rng.integers(0, days * DAY, len(event_user))
    extra = rng.poisson(effect, len(user)) * sent
    event_user = np.concatenate([event_user, np.repeat(user, extra)])
    event_time = np.concatenate(
        [event_time, np.repeat(day * DAY + 6 * HOUR, extra) + rng.integers(1, DAY, int(extra.sum()))]
    )
    n = len(event_user)
    return History.from_arrays(
        DecisionLog(
            id=ids,
            key=keys(ids),
            user=user,
            time=day * DAY + 6 * HOUR,
            actions=MODULES.canonical(actions),
            propensity=np.full((len(user), 2), np.nan),
            joint=np.full(len(user), np.nan),
        ),
        EventLog(
            user=event_user,
            time=event_time,
            event=rng.integers(0, 2, n),
            value=rng.integers(1, 50, n).astype(float),
        ),
        modules=MODULES,
        user_ids=np.array([f"u{i:03d}" for i in range(users)], dtype=object),
        event_names=("order", "visit"),
        span=(0, days * DAY),
    )
