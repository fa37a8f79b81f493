"""Which controls are right: `not_sent` where slots are randomised, `untouched` where messages follow a plan."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from crosschannel.core.action_space import ActionSpace, Module
from crosschannel.core.hashing import keys
from crosschannel.core.times import DAY
from crosschannel.histories.history import DecisionLog, EventLog, History
from crosschannel.reward import DidReward, Goal, RewardSpec
from crosschannel.reward.effects import TreatmentEffects

pytestmark = pytest.mark.numerics

MODULES = ActionSpace([Module("channel", ("none", "push"))])
SPEC = RewardSpec(goals=(Goal("order"),), pre="2d", post="2d", time_bucket="1d")
USERS, DAYS = 3000, 20


def daily_log(sent: np.ndarray, effect: np.ndarray, seed: int) -> History:
    """One slot a user and day (U, days); a message adds `effect` (lengths,) Poisson orders on the days that follow."""
    rng = np.random.default_rng([seed, 1])
    users, days = sent.shape
    rate = np.full((users, days), 1.0)
    for lag, size in enumerate(effect):
        rate[:, lag:] += size * sent[:, : days - lag]
    count = rng.poisson(rate)
    event_user = np.repeat(np.arange(users), count.sum(1))
    start = np.repeat(np.tile(np.arange(days) * DAY, users), count.ravel())
    ids = np.arange(users * days).astype(str).astype(object)
    return History.from_arrays(
        DecisionLog(
            id=ids,
            key=keys(ids),
            user=np.repeat(np.arange(users), days),
            time=np.tile(np.arange(days) * DAY, users),
            actions=sent.ravel()[:, None].astype(np.int64),
            propensity=np.full((users * days, 1), np.nan),
            joint=np.full(users * days, np.nan),
        ),
        EventLog(
            user=event_user,
            time=start + rng.integers(1, DAY, len(start)),
            event=np.zeros(len(start), dtype=np.int64),
            value=np.ones(len(start)),
        ),
        modules=MODULES,
        user_ids=np.arange(users).astype(str).astype(object),
        event_names=("order",),
        span=(0, days * DAY),
    )


@pytest.mark.parametrize(("controls", "right"), [("not_sent", True), ("untouched", False)])
def test_where_slots_are_randomised_controls_are_messaged_at_other_times_too(controls, right):
    """Sent with 40 % at every slot; a message is worth one order on the next day, whatever else is sent.

    Treated and `not_sent` controls got as much at other slots. Users without any message in both windows did not: the
    windows of the treated hold .8 orders of other messages before and .4 after, and .4 of the effect is lost.
    """
    sent = np.random.default_rng(0).random((USERS, DAYS)) < 0.4
    e = TreatmentEffects.fit(DidReward(replace(SPEC, controls=controls)), daily_log(sent, np.array([1.0]), 0)).effect()
    assert (abs(e.value - 1.0) < 3 * e.se) == right
    if not right:
        assert e.value == pytest.approx(0.6, abs=3 * e.se)


@pytest.mark.parametrize(("controls", "right"), [("untouched", True), ("not_sent", False)])
def test_where_messages_follow_a_plan_controls_must_be_untouched(controls, right):
    """Two waves a day apart, a third of the users each; a message adds an order a day for three days.

    At the first wave's slot the second wave was `not_sent`, but gets the message within the window; and at the second
    wave's, the first. Worth two orders in two days, of which half is lost.
    """
    sent = np.zeros((USERS, DAYS), dtype=bool)
    sent[: USERS // 3, 10] = True
    sent[USERS // 3 : 2 * USERS // 3, 11] = True
    e = TreatmentEffects.fit(DidReward(replace(SPEC, controls=controls)), daily_log(sent, np.ones(3), 0)).effect()
    assert (abs(e.value - 2.0) < 3 * e.se) == right
    if not right:
        assert e.value == pytest.approx(1.5, abs=3 * e.se)
