"""A history with everything that rewards can depend on, and every option of a reward, for the tests."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import pandas as pd

from crosschannel.core.hashing import keys
from crosschannel.core.times import DAY, HOUR
from crosschannel.histories.history import DecisionLog, EventLog, History
from crosschannel.reward import Goal, RewardSpec
from crosschannel.reward.spec import CovariateSpec, Matching
from tests.samples import MODULES

BASE = RewardSpec(
    goals=(Goal("order", 1.0, measure="value"), Goal("visit", -0.3)),
    pre="2d",
    post="1d",
    min_controls=3,
    covariates=CovariateSpec(windows=("3d",)),
    folds=3,
)
DECAYING = (
    Goal("order", 1.0, measure="value", credit="exponential", half_life="9h"),
    Goal("visit", -0.3, credit="exponential", half_life="2d", clip=2.5),
    Goal("*", 0.2),
)
WINSOR = (Goal("order", 1.0, measure="value", winsor=0.8), Goal("visit", -0.3, winsor=0.5))
OPTIONS: dict[str, dict[str, Any]] = {
    "plain": {},
    "exclude": {"overlap": "exclude"},
    "truncate": {"overlap": "truncate", "min_post": "6h"},
    "untouched": {"controls": "untouched"},
    "holdout": {"controls": "holdout", "holdout_arms": ("held out",)},
    "within": {"matching": Matching(within=("region", "age"))},
    "strata": {"matching": Matching(within=("region",), strata=3, activity="36h")},
    "seasonality": {"seasonality": "6h"},
    "decaying credit": {"goals": DECAYING},
    "winsor": {"goals": WINSOR},
    "long time bucket": {"time_bucket": "3.5d", "pre": "30h", "post": "2d"},
    "all": {
        "goals": (*DECAYING, *WINSOR),
        "overlap": "truncate",
        "min_post": "6h",
        "seasonality": "12h",
        "controls": "holdout",
        "holdout_arms": ("held out", "small"),
        "matching": Matching(within=("region",), strata=2, activity="2d", fallback=("within", "strata")),
    },
}
# Options with which windows are measured with what was learned of the whole training history.
LEARNED = {"strata", "winsor", "all"}


def spec_of(option: str) -> RewardSpec:
    return replace(BASE, **OPTIONS[option])


def rich_history(seed: int, users: int = 30, days: int = 14) -> History:
    """Slots and events at any time, values with fractions, attributes with gaps, arms, bursts of activity."""
    rng = np.random.default_rng(seed)
    n, e = users * 9, users * 60
    user = rng.integers(0, users, n)
    ids = np.array([f"d{i}" for i in range(n)], dtype=object)
    arm = np.array(["held out", "small", "large"], dtype=object)[rng.integers(0, 3, users)]
    sent = (rng.random(n) < 0.35) & (arm[user] != "held out")
    actions = np.stack([np.where(sent, rng.integers(1, 3, n), 0), rng.integers(0, 2, n)], axis=1)
    start = 20_000 * DAY
    event_user = np.minimum(rng.geometric(0.08, e), users) - 1
    event_time = rng.integers(0, 2 * days, e) * 12 * HOUR + rng.integers(0, 9 * HOUR, e)
    return History.from_arrays(
        DecisionLog(
            id=ids,
            key=keys(ids),
            user=user,
            time=start + rng.integers(0, days * DAY, n),
            actions=MODULES.canonical(actions),
            propensity=np.full((n, 2), np.nan),
            joint=np.full(n, np.nan),
            arm=arm[user],
        ),
        EventLog(
            user=event_user,
            time=start + event_time,
            event=rng.integers(0, 2, e),
            value=np.round(rng.exponential(20.0, e), 2),
        ),
        modules=MODULES,
        user_ids=np.array([f"u{i:03d}" for i in range(users)], dtype=object),
        event_names=("order", "visit"),
        span=(start, start + days * DAY),
        users=pd.DataFrame(
            {
                "user_id": [f"u{i:03d}" for i in range(users)],
                "region": rng.choice(np.array(["north", "south", None], dtype=object), users),
                "age": np.where(rng.random(users) < 0.2, np.nan, rng.integers(1, 3, users)),
            }
        ),
    )


def rebuilt(history: History, decisions: DecisionLog, events: EventLog, **changed: Any) -> History:
    """The history with other rows, sorted again."""
    same = {name: getattr(history, name) for name in ("modules", "user_ids", "event_names", "span", "users")}
    return History.from_arrays(decisions, events, **(same | changed))
