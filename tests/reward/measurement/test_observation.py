"""Users who join or leave during the log: time that was not observed is missing, and not zero."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from crosschannel.core.action_space import ActionSpace, Module
from crosschannel.core.hashing import keys
from crosschannel.core.times import DAY, WEEK
from crosschannel.histories.features import ContextFeatures, ContextSpec
from crosschannel.histories.history import DecisionLog, EventLog, History
from crosschannel.histories.observation.users import starts_of_observation
from crosschannel.reward import DidReward, Goal, Reason, RewardSpec
from crosschannel.reward.effects import TreatmentEffects, aggregate, group_time_effects, panel_from_history

MODULES = ActionSpace([Module("channel", ("none", "email"))])
SPEC = RewardSpec(goals=(Goal("order"),), pre="3d", post="3d")
START, DAYS = 19_000 * DAY, 56
RATE = 0.5


def joiners(seed: int, *, users: int = 1500, leave: float = 0.0, welcome: float = 0.3, effect: float = 0.0) -> History:
    """Users who sign up on any day; from then on they order at a constant rate, whatever is sent.

    Messages come with a chance a day, and mostly in the first days after the sign-up (`welcome`). With `leave`, users
    remove the app with that chance a day, after which they do nothing and get nothing.
    """
    rng = np.random.default_rng(seed)
    joined = rng.uniform(0, DAYS - 5, users)
    life = rng.geometric(leave, users) - rng.random(users) if leave else np.full(users, np.inf)
    left = joined + life
    user, day = (a.ravel() for a in np.meshgrid(np.arange(users), np.arange(DAYS), indexing="ij"))
    slot = day + 10 / 24
    there = (slot > joined[user]) & (slot < left[user])
    user, slot = user[there], slot[there]
    sent = rng.random(len(user)) < np.where(slot - joined[user] < 3, welcome, 0.03)
    count = rng.poisson(RATE * DAYS, users)
    buyer = np.repeat(np.arange(users), count)
    bought = rng.uniform(0, DAYS, len(buyer))
    extra = np.flatnonzero(sent & (rng.random(len(user)) < effect))
    buyer, bought = np.append(buyer, user[extra]), np.append(bought, slot[extra] + rng.uniform(0.01, 2, len(extra)))
    real = (bought > joined[buyer]) & (bought < np.minimum(left[buyer], DAYS))
    gone = np.flatnonzero(left < DAYS)
    event_user = np.concatenate([np.arange(users), buyer[real], gone])
    event_day = np.concatenate([joined, bought[real], left[gone]])
    event = np.repeat([0, 1, 2], [users, real.sum(), len(gone)])
    ids = np.arange(len(user)).astype(str).astype(object)

    def micro(days: np.ndarray) -> np.ndarray:
        return START + (days * DAY).astype(np.int64)

    return History.from_arrays(
        DecisionLog(
            id=ids,
            key=keys(ids),
            user=user,
            time=micro(slot),
            actions=sent.astype(np.int64)[:, None],
            propensity=np.full((len(user), 1), np.nan),
            joint=np.full(len(user), np.nan),
        ),
        EventLog(event_user, micro(event_day), event, np.ones(len(event_user))),
        modules=MODULES,
        user_ids=np.arange(users).astype(str).astype(object),
        event_names=("signed_up", "order", "app_removed"),
        span=(START, START + DAYS * DAY - 1),
    ).with_observed_from("first_row")


def staggered(history: History) -> tuple[float, float]:
    built = panel_from_history(history, SPEC, "channel=email", "1w")
    overall, _ = aggregate(group_time_effects(built.panel), "simple")
    return overall.value, overall.se


@pytest.mark.parametrize("leave", [0.0, 0.02], ids=["nobody leaves", "users leave"])
def test_who_joins_late_is_not_newly_treated(leave):
    """With zeros before the sign-up the effect would be 1.4 orders a week, with an error of .07."""
    history = joiners(0, leave=leave)
    value, se = staggered(history)
    assert abs(value) < 4 * se < 1.4
    zeros, se = staggered(history.with_observed_from("log"))
    assert zeros > 10 * se


def test_who_left_is_not_compared_with_who_was_there_to_be_treated():
    """Zeros after leaving would be a decline of the controls: users who leave soon are never sent anything."""
    history = joiners(1, leave=0.05, welcome=0.03, users=6000)
    value, se = staggered(history)
    assert abs(value) < 4 * se < 0.7
    built = panel_from_history(history, replace(SPEC, goals=(Goal("order"), Goal("app_removed", -1.0))), None, "1w")
    assert "not part of the result, since they end a user's observation: app_removed" in built.summary()
    ends = built.starts + WEEK
    after = ends > history.churned_at[built.user][:, None]
    assert after.any()
    assert np.isnan(built.panel.outcome[after]).all()


@pytest.mark.slow
def test_no_effect_is_found_among_users_who_join_and_leave_in_many_logs():
    """200 logs: the mean error is within four standard errors of 0, and at most 10 % of intervals exclude 0."""
    found = np.array([staggered(joiners(seed, leave=0.02, users=800)) for seed in range(100, 300)])
    t = found[:, 0] / found[:, 1]
    assert abs(t.mean()) < 4 / len(t) ** 0.5
    assert (np.abs(t) > 1.96).mean() < 0.10


@pytest.mark.parametrize("effect", [0.0, 0.4])
def test_windows_before_the_sign_up_are_not_observed_zeros(effect):
    history = joiners(2, effect=effect)
    model = DidReward(SPEC)
    fitted = TreatmentEffects.fit(model, history)
    assert abs(fitted.effect().value - effect) < 4 * fitted.effect().se < 0.3
    outcomes, d = model.measure(history), history.decisions
    early = d.time - 3 * DAY < history.observed_from[d.user] - 1
    inside = outcomes.reason != Reason.OUTSIDE_OBSERVATION
    assert early[inside].any()
    assert (outcomes.reason[early & inside] == Reason.USER_NOT_OBSERVED).all()
    assert not outcomes.control[early].any()
    zeros = TreatmentEffects.fit(model, history.with_observed_from("log")).effect()
    assert zeros.value > effect + 4 * zeros.se


def test_a_declared_end_of_observation_ends_windows():
    history = joiners(3, users=50)
    until = START + 30 * DAY
    cut = replace(history, observed_until=np.full(50, until), observed_from=np.minimum(history.observed_from, until))
    outcomes = DidReward(SPEC).measure(cut)
    late = cut.decisions.time + 3 * DAY > until
    assert not outcomes.observed[late].any()
    assert outcomes.observed[~late].any()


def test_seasonality_is_learned_from_users_while_they_are_observed():
    """With a constant rate the normal level is that rate, however many users have not joined yet."""
    history = joiners(4)
    outcomes = DidReward(replace(SPEC, seasonality="1d", seasonality_weeks=1.0)).measure(history)
    late = outcomes.observed & (history.decisions.time > START + 4 * WEEK)
    assert late.sum() > 1000
    # What is left after subtracting the normal level of .5 a day: nothing, where zeros would leave .75 of 1.5.
    assert abs(outcomes.pre[late].mean()) < 0.1
    assert abs(outcomes.post[late].mean()) < 0.1


def test_contexts_say_how_much_of_a_window_was_observed():
    history = joiners(5, users=60)
    features = ContextFeatures.fit(history, ContextSpec(windows=("7d",), events=("order",), clock=False))
    assert "observed 7d" in features.names
    d = history.decisions
    share = np.clip((d.time - history.observed_from[d.user]) / (7 * DAY), 0, 1)
    column = features.covariates(history)[:, features.names.index("observed 7d")]
    assert np.corrcoef(share, column)[0, 1] > 0.99
    assert np.ptp(column[share == 1]) == 0


def test_observation_begins_just_after_a_users_first_event_within_the_span():
    history = joiners(6, users=20)
    first = np.array([history.events.time[history.events.user == u].min() for u in range(20)])
    np.testing.assert_array_equal(history.observed_from, first + 1)
    np.testing.assert_array_equal(history.with_observed_from("log").observed_from, np.full(20, history.span[0]))
    chosen = np.arange(20) % 3 == 0
    np.testing.assert_array_equal(history.select_users(chosen).observed_from, first[chosen] + 1)
    assert "20 users are observed from later than the start of the log on" in history.summary()
    assert history.with_observed_from("log").fingerprint() != history.fingerprint()


def daily(seed: int) -> History:
    """Users first seen by an order, in a log of dates; messages come mostly three days later, without any effect."""
    rng = np.random.default_rng(seed)
    users, days = 1500, 30
    buyer, date = np.nonzero(rng.random((users, days)) < 0.15)
    first = np.full(users, days)
    np.minimum.at(first, buyer, date)
    user, day = (a.ravel() for a in np.meshgrid(np.arange(users), np.arange(days), indexing="ij"))
    user, day = user[day > first[user]], day[day > first[user]]
    sent = rng.random(len(user)) < np.where(day - first[user] == 3, 0.6, 0.1)
    ids = np.arange(len(user)).astype(str).astype(object)
    return History.from_arrays(
        DecisionLog(
            id=ids,
            key=keys(ids),
            user=user,
            time=START + day * DAY,
            actions=sent.astype(np.int64)[:, None],
            propensity=np.full((len(user), 1), np.nan),
            joint=np.full(len(user), np.nan),
        ),
        EventLog(buyer, START + date * DAY, np.zeros(len(buyer), dtype=np.int64), np.ones(len(buyer))),
        modules=MODULES,
        user_ids=np.arange(users).astype(str).astype(object),
        event_names=("order",),
        span=(START, START + days * DAY - 1),
        ties="after",
    ).with_observed_from("first_row")


def test_no_window_begins_with_the_order_by_which_the_user_became_known():
    """With it, the window before has an order by construction, and the effect would be -.16 orders, error .02."""
    history = daily(0)
    effect = TreatmentEffects.fit(DidReward(SPEC), history).effect()
    assert abs(effect.value) < 4 * effect.se < 0.1
    built = panel_from_history(history, SPEC, None, "3d")
    overall, _ = aggregate(group_time_effects(built.panel), "simple")
    assert abs(overall.value) < 3 * overall.se
    declared = replace(history, observed_from=history.observed_from - 1)
    assert TreatmentEffects.fit(DidReward(SPEC), declared).effect().value < -0.1


@pytest.mark.parametrize(("again", "begins"), [(0, START), (2, START), (30, START + DAY)])
def test_a_few_users_of_a_trial_who_came_twice_do_not_change_all_others(again, begins):
    """With a rule for no user at all, one of 3,000 left no decision with a reward."""
    users = np.append(np.arange(200), np.arange(again))
    time = START + DAY * np.append(np.ones(200, dtype=np.int64), np.full(again, 9))
    nothing = np.zeros(0, dtype=np.int64)
    start = starts_of_observation(200, (START, START + 30 * DAY), (users, time), (nothing, nothing))
    assert (start == begins).all()
