"""Small simulated trials with arms, heavy users, households and users who join."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pandas as pd

from crosschannel.core.hashing import keys
from crosschannel.core.times import DAY, HOUR
from crosschannel.evaluation.trials import Contrast, arm_means, contrast
from crosschannel.evaluation.trials.looks import Course
from crosschannel.histories import Goal, History
from crosschannel.histories.history import DecisionLog, EventLog
from tests.samples import MODULES

#: 2024-01-01, when logs begin, and when trials do.
BEGIN = 1_704_067_200_000_000
PRE_DAYS, DAYS = 14, 28
START = BEGIN + PRE_DAYS * DAY
EVENTS = ("order:food", "order:rides", "unsubscribed", "visit:food")
GOALS = (Goal("order:*"), Goal("visit:food", weight=0.1), Goal("unsubscribed", weight=-3.0))


def trial_history(
    seed: int | tuple[int, ...] = 0,
    users: int = 600,
    lift: float = 0.0,
    shares: tuple[float, float, float] = (0.5, 0.4, 0.1),
    joined: float = 0.0,
    arms_in: str = "users",
    days: int = DAYS,
) -> History:
    """A log of users with gamma-distributed rates of events, whose orders of food rise by `lift` in the arm `agent`.

    A slot a day at 06:00 for users of `agent` and `holdout`, as `decide` writes them; those of `business_as_usual` have
    none. A share of `joined` users is observed from a random time in the trial on. `arms_in` says where arms stand:
    `users` (a column), `decisions`, or `nowhere`.
    """
    rng = np.random.default_rng(seed)
    names = np.array(["agent", "business_as_usual", "holdout"], dtype=object)
    arm = rng.choice(3, size=users, p=shares)
    span = (BEGIN, BEGIN + (PRE_DAYS + days) * DAY)
    since = np.where(rng.random(users) < joined, START + rng.integers(0, days * DAY, users), BEGIN)
    rate = rng.gamma(1.0, 1.0, users)[:, None] * np.array([0.15, 0.1, 0.002, 0.5])
    user, time, event = [], [], []
    for code in range(4):
        for begin, end, factor in ((BEGIN, START, 0.0), (START, span[1], lift)):
            length = np.maximum(end - np.maximum(begin, since), 0)
            change = 1 + factor * (arm == 0) * (code == 0)
            count = rng.poisson(rate[:, code] * change * length / DAY)
            who = np.repeat(np.arange(users), count)
            user.append(who)
            time.append(np.maximum(begin, since[who]) + (rng.random(len(who)) * length[who]).astype(np.int64))
            event.append(np.full(len(who), code))
    slots = [START + d * DAY + 6 * HOUR for d in range(days)]
    who, when = (a.ravel() for a in np.meshgrid(np.flatnonzero(arm != 1), slots, indexing="ij"))
    kept = when >= since[who]
    who, when = who[kept], when[kept]
    sent = (arm[who] == 0) & (rng.random(len(who)) < 0.3)
    actions = np.stack([np.where(sent, 1, 0), np.zeros(len(who), dtype=np.int64)], axis=1)
    ids = np.array([f"d{k}" for k in range(len(who))], dtype=object)
    attributes = {"household": np.arange(users) // 2, "city": rng.choice(["north", "south"], users)}
    if arms_in == "users":
        attributes["arm"] = names[arm]
    return History.from_arrays(
        DecisionLog(
            id=ids,
            key=keys(ids),
            user=who,
            time=when,
            actions=MODULES.canonical(actions),
            propensity=np.full((len(who), 2), np.nan),
            joint=np.full(len(who), np.nan),
            arm=names[arm[who]] if arms_in == "decisions" else None,
        ),
        EventLog(
            user=np.concatenate(user),
            time=np.concatenate(time),
            event=np.concatenate(event),
            value=np.concatenate(event) + 1.0,
        ),
        modules=MODULES,
        user_ids=np.array([f"u{k:05d}" for k in range(users)], dtype=object),
        event_names=EVENTS,
        span=span,
        observed_from=since,
        users=pd.DataFrame(attributes),
        name="world",
    )


def daily_amounts(rng: np.random.Generator, users: int, days: int = DAYS, skew: float = 1.0, joined: float = 0.0):
    """Cumulative amounts of users at the end of each day (users, days), log-normal rates; and when each one enters."""
    rate = 0.2 * np.exp(skew * rng.standard_normal(users) - skew**2 / 2)
    enters = np.where(rng.random(users) < joined, rng.integers(0, days, users), 0)
    counts = rng.poisson(rate[:, None], (users, days)) * (np.arange(days) >= enters[:, None])
    return np.cumsum(counts, axis=1).astype(float), rng.poisson(rate * days).astype(float), enters


def course_of(amounts, arm, covariate=None, enters=None) -> Course:
    """The course of a trial of two arms with one look after each column of amounts (users, looks)."""
    contrasts: list[Contrast] = []
    influences = []
    for k in range(amounts.shape[1]):
        inside = np.ones(len(arm), dtype=bool) if enters is None else enters <= k
        means = arm_means(amounts[inside, k], arm[inside], 2, None if covariate is None else covariate[inside])
        full = np.zeros((len(arm), 2))
        full[inside] = means.influence
        one, influence = contrast(replace(means, influence=full), 1, 0)
        contrasts.append(one)
        influences.append(influence)
    influence, z = np.stack(influences), np.array([one.z for one in contrasts])
    return Course(tuple(contrasts), influence @ influence.T, z)
