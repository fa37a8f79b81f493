"""Small histories to replay: propensities, eligibility, and users who leave at different times."""

from __future__ import annotations

from dataclasses import replace

import numpy as np

from crosschannel.core.times import DAY
from crosschannel.envs.replay.log import ReplayLog
from crosschannel.histories.features import ContextFeatures
from crosschannel.histories.history import EventLog, History
from crosschannel.reward import DidReward, Goal, RewardFrame, RewardSpec
from tests.samples import MODULES, random_history

SPEC = RewardSpec(goals=(Goal("order", measure="value"),), pre="3d", post="1d", min_controls=2)


def sample_history(seed: int = 0, users: int = 40, days: int = 14, leaving: float = 0.3, known: float = 1.0) -> History:
    """A history with propensities for a share `known` of its decisions, of which a share of users unsubscribe."""
    history = random_history(seed, users=users, days=days)
    rng = np.random.default_rng(1000 + seed)
    left = np.flatnonzero(rng.random(users) < leaving)
    events = history.events
    n, m = history.decisions.actions.shape
    propensity = rng.uniform(0.1, 0.9, (n, m))
    propensity[rng.random(n) >= known] = np.nan
    eligible = rng.random((n, MODULES.total)) < 0.9
    eligible[np.arange(n), history.decisions.actions[:, 0]] = True
    eligible[np.arange(n), MODULES.sizes[0] + history.decisions.actions[:, 1]] = True
    return History.from_arrays(
        replace(history.decisions, propensity=propensity, joint=propensity.prod(1), eligible=eligible),
        EventLog(
            user=np.concatenate([events.user, left]),
            time=np.concatenate([events.time, rng.integers(4 * DAY, days * DAY, len(left))]),
            event=np.concatenate([events.event, np.full(len(left), 2)]),
            value=np.concatenate([events.value, np.ones(len(left))]),
        ),
        modules=MODULES,
        user_ids=history.user_ids,
        event_names=(*history.event_names, "unsubscribed"),
        span=history.span,
    )


def rewards_of(history: History) -> RewardFrame:
    return DidReward(SPEC).fit_transform(history)


def steps_of(log: ReplayLog, user: int) -> list[int]:
    """The rows of one user's steps, found without `following`."""
    return np.flatnonzero(log.user == user).tolist()


def sample_log(seed: int = 0, users: int = 40, days: int = 14, leaving: float = 0.3, known: float = 1.0) -> ReplayLog:
    history = sample_history(seed, users, days, leaving, known)
    return ReplayLog.build(history, rewards_of(history), ContextFeatures.fit(history))
