"""A run that has learned from a small log, whose policy explores much."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from crosschannel.core.times import DAY
from crosschannel.histories import Arms, History, assign_arms, write_history
from crosschannel.histories.logs import take_rows
from crosschannel.programs import train
from tests.programs.samples import SMALL
from tests.samples import random_history

START = 20_000 * DAY
ARMS = ("--arms.holdout", "0.2", "--arms.business-as-usual", "0.2")
#: The first day that a run from `train_until_the_tenth_day` has not learned from.
FIRST = pd.Timestamp(START + 10 * DAY, unit="us")
FLAGS = (
    *("--config", SMALL[1], "--agent.name=best_fixed", "--agent.settings.floor=0.9", "--train.offline-updates=0"),
    *("--name=run", "--reward.time-bucket=1d", "--context.events", "visit", "order", "--reward.min-controls=2"),
    *("--reward.goals", "[{event: order, weight: 1.0}]", "--reward.overlap=shared"),
    *("--reward.pre=1d", "--reward.post=1d", "--evaluation.market-users=100"),
)


def daily_log(users: int = 120, days: int = 12, seed: int = 0) -> History:
    """A log of 2024 with a slot a day at 06:00, its propensities, and each user's household."""
    history = random_history(seed, users=users, days=days)
    d, e = history.decisions, history.events
    sent = history.modules.sends(d.actions)
    p = np.stack([np.where(sent, 0.15, 0.7), np.where(sent, 0.5, 1.0)], axis=1)
    moved: dict[str, Any] = {"decisions": replace(d, time=d.time + START), "events": replace(e, time=e.time + START)}
    moved |= {"observed_from": history.observed_from + START, "observed_until": history.observed_until + START}
    history = replace(history, **moved, span=(START, START + days * DAY))
    history = history.with_propensities(p, p.prod(1), "logged")
    return replace(history, users=pd.DataFrame({"user_id": history.user_ids, "household": np.arange(users) // 3}))


def with_a_holdout(history: History, share: float = 0.2) -> History:
    """Hold a share of a log's users out from the start: with propensity 1 for nothing, which alone was eligible."""
    arm = assign_arms(history.user_ids, Arms(share))
    d = history.decisions
    held = arm[d.user] == "holdout"
    mask = np.ones((len(d), history.modules.total), dtype=bool)
    mask[held, 1:] = False
    p = np.where(held[:, None], 1.0, d.propensity)
    actions = np.where(held[:, None], 0, d.actions)
    d = replace(d, actions=actions, propensity=p, joint=p.prod(1), eligible=mask, arm=arm[d.user])
    return replace(history, decisions=d)


def train_on(history: History, folder: Path, *flags: str) -> Path:
    """Write a log into a folder and train a run on it; return the run's folder."""
    write_history(history, folder / "log")
    train.main([*FLAGS, "--history.source=folder", f"--history.path={folder / 'log'}", f"--run-dir={folder}", *flags])
    return folder / "run"


def train_until_the_tenth_day(folder: Path) -> Path:
    """Train a run on the first ten days of the log of 90 users; return the run's folder, beside which the log is."""
    history = daily_log(90)
    d = history.decisions
    return train_on(replace(history, decisions=take_rows(d, d.time < START + 10 * DAY)), folder)
