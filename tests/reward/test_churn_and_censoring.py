"""Slots after a user has churned, and the probability that no later message censors a reward."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from crosschannel.core.action_space import ActionSpace, Module
from crosschannel.core.hashing import keys
from crosschannel.core.times import DAY, HOUR, NEVER
from crosschannel.evaluation import EvaluationSettings, LoggedDecisions, evaluate
from crosschannel.histories.history import DecisionLog, EventLog, History
from crosschannel.reward import CovariateSpec, DidReward, Goal, Reason, RewardSpec, make_reward, measure, refit
from crosschannel.reward.effects import TreatmentEffects
from tests.samples import MODULES, random_history

pytestmark = pytest.mark.numerics

SPEC = RewardSpec(goals=(Goal("order"),), pre="1d", post="2d", overlap="exclude", min_controls=2)


def with_propensities(seed: int, users: int = 60):
    """A log in which each user has a probability of a message, the same at all slots."""
    history = random_history(seed, users=users)
    rng = np.random.default_rng(seed)
    chance = rng.uniform(0.1, 0.6, users)[history.decisions.user]
    sent = rng.random(len(chance)) < chance
    actions = MODULES.canonical(np.stack([np.where(sent, 1, 0), np.zeros(len(sent), dtype=np.int64)], axis=1))
    propensity = np.stack([np.where(sent, chance, 1 - chance), np.ones(len(sent))], axis=1)
    history = replace(history, decisions=replace(history.decisions, actions=actions))
    return history.with_propensities(propensity, propensity.prod(1), "logged"), chance


def test_slots_after_a_user_churned_have_no_reward_and_are_not_controls():
    history = replace(random_history(1), event_names=("order", "app_removed"))
    left = history.churned_at
    d = history.decisions
    for u in range(history.n_users):
        mine = history.events.time[(history.events.user == u) & (history.events.event == 1)]
        assert left[u] == (mine.min() if len(mine) else NEVER)
    late = d.time > left[d.user]
    outcomes = measure(history, replace(SPEC, overlap="shared"))
    frame = DidReward(SPEC).fit(history).transform(history)
    assert 0 < late.sum() < len(late)
    assert not outcomes.control[late].any()
    assert (frame.reason[late] == Reason.CHURNED).all()
    assert not (frame.reason[~late] == Reason.CHURNED).any()
    assert frame.counts()[Reason.CHURNED.text] == late.sum()
    nobody = measure(history.with_churn_events(()), replace(SPEC, overlap="shared"))
    assert not (nobody.reason == Reason.CHURNED).any()


@pytest.mark.parametrize("overlap", ["shared", "exclude", "truncate"])
def test_p_uncensored_equals_a_loop_over_later_slots(overlap):
    history, chance = with_propensities(3)
    spec = replace(SPEC, overlap=overlap, min_post="30h")
    p_uncensored = measure(history, spec).p_uncensored
    d = history.decisions
    length = {"shared": 0, "exclude": 2 * DAY, "truncate": 30 * HOUR}[overlap]
    for i in range(len(d)):
        rows = (d.user == d.user[i]) & (d.time > d.time[i]) & (d.time < d.time[i] + length)
        if not (d.actions[rows, 0] > 0).any():
            assert p_uncensored[i] == pytest.approx((1 - chance[rows]).prod(), abs=1e-8)


def test_p_uncensored_is_unknown_where_a_later_slot_has_no_propensity():
    history = random_history(3)
    p_uncensored = measure(history, SPEC).p_uncensored
    d = history.decisions
    last = np.append(d.user[1:] != d.user[:-1], True)
    assert np.isnan(p_uncensored[~last & ~(np.append(d.actions[1:, 0], 0) > 0)]).any()
    assert (p_uncensored[last] == 1).all()


def test_ipc_weights_restore_the_mean_over_all_decisions():
    """Users with a high chance of messages lose most rewards: unweighted, the mean chance is far too low.

    Each of 20 logs has 400 users; the tolerance is four standard errors over the logs.
    """
    plain, weighted = [], []
    for seed in range(20):
        history, chance = with_propensities(seed, users=400)
        spec = replace(SPEC, pre="1h")
        outcomes = measure(history, spec)
        uncensored = outcomes.observed & ~outcomes.overlap
        weight = uncensored / np.where(uncensored, outcomes.p_uncensored, 1.0)
        truth = chance[outcomes.observed].mean()
        plain.append(chance[uncensored].mean() - truth)
        weighted.append(float(weight @ chance) / weight.sum() - truth)
    error = np.std(weighted, ddof=1) / 20**0.5
    assert abs(np.mean(weighted)) < 4 * error
    assert np.mean(plain) < -10 * error


ONE = ActionSpace([Module("channel", ("none", "push"))])
ANSWERED = RewardSpec(
    goals=(Goal("order"),),
    pre="12h",
    post="2d",
    overlap="exclude",
    covariates=CovariateSpec(windows=("1d",), events=("order",), messages=False, clock=False),
)


def answered_log(seed: int, effect: float, users: int = 1500, days: int = 16) -> tuple[History, np.ndarray]:
    """A slot a day: on odd days a message at random, with an effect; on even ones mostly where the day had no order.

    So a message on an even day answers what that of the day before did or did not do. Gives the odd days' decisions.
    """
    rng = np.random.default_rng(seed)
    count, sent, chance = np.zeros((users, days), int), np.zeros((users, days), bool), np.zeros((users, days))
    count[:, 0] = rng.poisson(1.0, users)
    for t in range(1, days):
        chance[:, t] = 0.3 if t % 2 else np.where(count[:, t - 1] == 0, 0.8, 0.05)
        sent[:, t] = rng.random(users) < chance[:, t]
        count[:, t] = rng.poisson(1.0 + effect * sent[:, t] * (t % 2))
    slot = np.arange(1, days)
    user, time = np.repeat(np.arange(users), len(slot)), np.tile(slot * DAY + 6 * HOUR, users)
    made, p = sent[:, slot].ravel(), chance[:, slot].ravel()
    ids = np.arange(len(user))
    event_user = np.repeat(np.arange(users), count.sum(1))
    day = np.repeat(np.tile(np.arange(days), users), count.ravel())
    history = History.from_arrays(
        DecisionLog(
            id=ids,
            key=keys(ids),
            user=user,
            time=time,
            actions=made[:, None].astype(np.int64),
            propensity=np.where(made, p, 1 - p)[:, None],
            joint=np.where(made, p, 1 - p),
        ),
        EventLog(
            user=event_user,
            time=day * DAY + 6 * HOUR + rng.integers(1, DAY, len(day)),
            event=np.zeros(len(day), dtype=np.int64),
            value=np.ones(len(day)),
        ),
        modules=ONE,
        user_ids=np.arange(users),
        event_names=("order",),
        span=(6 * HOUR, days * DAY + 6 * HOUR),
    )
    return history, np.asarray((time // DAY) % 2 == 1)


@pytest.mark.parametrize("kind", ["did", "did_regression", "did_dr"])
def test_effects_are_right_where_later_messages_answer_what_this_one_did(kind):
    """Ten logs: the mean z is within 4/sqrt(10) of 0; without the weights it is below, the effect too small."""
    z, unweighted = [], []
    for seed in range(10):
        history, odd = answered_log(seed, effect=1.0)
        fitted = TreatmentEffects.fit(make_reward(kind, ANSWERED), history).restricted(odd)
        effect = fitted.effect()
        z.append((effect.value - 1.0) / effect.se)
        plain = TreatmentEffects.fit_outcomes(
            fitted.model, replace(fitted.outcomes, p_uncensored=np.ones(int(odd.sum())))
        ).effect()
        unweighted.append((plain.value - 1.0) / plain.se)
    assert abs(np.mean(z)) < 4 / 10**0.5
    assert 0.5 < np.std(z, ddof=1) < 1.7
    assert np.mean(unweighted) < -4 / 10**0.5


def test_policies_are_right_where_later_messages_answer_what_this_one_did():
    """With the reward re-fitted in every replicate: sending nothing earns 0, always sending earns the effect."""
    history, odd = answered_log(1, effect=1.0)
    model = make_reward("did", ANSWERED)
    outcomes = model.measure(history).select(odd)
    frame = model.fit_outcomes(outcomes).transform_outcomes(outcomes)
    log = LoggedDecisions.from_history(history)[odd]
    for policy, truth in (((1.0, 0.0), 0.0), ((0.0, 1.0), 1.0)):
        found = evaluate(
            log,
            [np.tile(policy, (len(log), 1))],
            refit(model, outcomes),
            rng=np.random.default_rng(0),
            settings=EvaluationSettings(bootstrap_replicates=60),
            p_uncensored=frame.p_uncensored,
        ).get("snips")
        assert abs(found.value.point - truth) < max(4 * found.value.se, 1e-9)
