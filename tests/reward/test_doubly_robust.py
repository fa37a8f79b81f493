"""`did_dr`: which propensities it uses, how it normalises, how it weights one action, and its effective controls."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from crosschannel.core.action_space import ActionSpace, Module
from crosschannel.histories.history import History
from crosschannel.reward import make_reward, measure
from crosschannel.reward.controls import CellMeans
from crosschannel.reward.effects import TreatmentEffects
from crosschannel.reward.effects.diagnostics import facts_of
from crosschannel.reward.odds import ESTIMATED, LOGGED, Odds
from tests.reward.effects.test_influence import DERIVATIVE_TOLERANCE, MANY, with_propensities
from tests.reward.effects.test_oracles import ERROR_TOLERANCE, SPEC, VALUE_TOLERANCE, two_periods
from tests.reward.simulated import SPEC as WORLD
from tests.reward.simulated import simulate, without_propensities
from tests.samples import random_history

pytestmark = pytest.mark.numerics

ROBUST = make_reward("did_dr", MANY)


def test_estimated_propensities_are_not_used_as_logged_ones():
    """Filling estimates into a history changes no reward: `did_dr` fits its own, with their error, and reports it."""
    history = random_history(3, users=60)
    blank = TreatmentEffects.fit(ROBUST, history)
    p = np.full((len(history.decisions), 2), 0.5)
    for source, label in (("estimated", ESTIMATED), ("logged", LOGGED), ("by design", LOGGED)):
        filled = TreatmentEffects.fit(ROBUST, history.with_propensities(p, p.prod(1), source))
        assert f"propensities: {label}" in facts_of(filled)
        assert (filled.effect() == blank.effect()) == (label == ESTIMATED)
        same = np.array_equal(filled.frame.reward, blank.frame.reward, equal_nan=True)
        assert same == (label == ESTIMATED)


@pytest.mark.parametrize("seed", range(3))
def test_effect_and_error_equal_the_published_formulas(seed):
    """Sant'Anna & Zhao (2020), section 3.1 and theorem A.1, written out, with regressions by statsmodels."""
    api = pytest.importorskip("statsmodels.api")
    history, table = two_periods(seed)
    mine = TreatmentEffects.fit(make_reward("did_dr", SPEC), history).effect()
    n, treated = history.n_users, table[table.period == 1].treated.to_numpy().astype(float)
    change = table[table.period == 2].y.to_numpy() - table[table.period == 1].y.to_numpy()
    x = api.add_constant(table[table.period == 1][["x1", "x2"]].to_numpy())
    logit = api.Logit(treated, x).fit(disp=0, tol=1e-14)
    p, m = logit.predict(x), api.OLS(change[treated == 0], x[treated == 0]).fit().predict(x)
    one, zero, left = treated, (1 - treated) * p / (1 - p), change - m
    means = [(w * left).mean() / w.mean() for w in (one, zero)]
    assert mine.value == pytest.approx(means[0] - means[1], abs=VALUE_TOLERANCE)
    bread = np.linalg.inv(((1 - treated)[:, None] * x).T @ x / n)
    slopes = ((1 - treated) * left)[:, None] * x @ bread
    chance = (treated - p)[:, None] * x @ (logit.cov_params() * n)
    first = (one * (left - means[0]) - slopes @ (one[:, None] * x).mean(0)) / one.mean()
    weighted = (zero * (left - means[1]))[:, None] * x
    second = zero * (left - means[1]) + chance @ weighted.mean(0) - slopes @ (zero[:, None] * x).mean(0)
    influence = first - second / zero.mean()
    assert mine.se == pytest.approx(np.sqrt((influence**2).sum() / (n * (n - 1))), rel=ERROR_TOLERANCE)


@pytest.mark.parametrize("seed", range(3))
def test_effect_equals_the_weighting_of_diff_diff(seed):
    """What the regression leaves, weighted by diff-diff: its weighting (not its `dr`) divides by their sum."""
    diff_diff = pytest.importorskip("diff_diff")
    api = pytest.importorskip("statsmodels.api")
    history, table = two_periods(seed)
    first = table.period == 1
    x = api.add_constant(table[first][["x1", "x2"]].to_numpy())
    change, treated = table[~first].y.to_numpy() - table[first].y.to_numpy(), table[first].treated.to_numpy() == 1
    predicted = api.OLS(change[~treated], x[~treated]).fit().predict(x)
    table.loc[~first, "y"] -= predicted
    columns = {"outcome": "y", "unit": "unit", "time": "period", "first_treat": "first"}
    model = diff_diff.CallawaySantAnna(estimation_method="ipw", pscore_trim=0.005)
    theirs = model.fit(table, **columns, covariates=["x1", "x2"]).overall_att
    found = TreatmentEffects.fit(make_reward("did_dr", SPEC), history).effect().value
    assert found == pytest.approx(theirs, abs=VALUE_TOLERANCE)


def test_odds_need_to_be_right_up_to_a_factor_only():
    """The reason to divide by the sum of the weights: by the number treated, the correction would be halved here."""
    history = simulate(1, "level").history
    fitted = TreatmentEffects.fit(make_reward("did_dr", WORLD), history)
    o = fitted.outcomes
    p = o.p_nothing
    halved = replace(o, p_nothing=2 * p / (1 + p))  # odds of (1 - p) / p, halved
    again = TreatmentEffects.fit_outcomes(fitted.model, halved)
    assert again.effect().value == pytest.approx(fitted.effect().value, abs=1e-9)
    assert again.effect().se == pytest.approx(fitted.effect().se, rel=1e-9)


def two_actions(seed: int, users: int = 1500) -> History:
    """Messages without effect, mostly after a quiet day; the quieter, the more often by push, else by e-mail."""
    history = simulate(seed, "dip", users=users, effect=0.0).history
    before = measure(history, WORLD).pre
    push = np.random.default_rng([seed, 1]).random(len(before)) < 1 / (1 + np.exp(2.0 * np.log1p(before) - 2.0))
    d = history.decisions
    actions = d.actions * np.where(push, 1, 2)[:, None]
    modules = ActionSpace([Module("channel", ("none", "push", "email"))])
    return replace(history, modules=modules, decisions=replace(d, actions=actions))


def test_each_action_is_doubly_robust_on_its_own():
    """10 histories. The odds of any message weigh the controls like all that was sent, and not like one action's
    decisions, of which the regression alone, which is not linear here, says something false."""
    alone, grouped = [], []
    for seed in range(10):
        history = two_actions(seed)
        fitted = TreatmentEffects.fit(make_reward("did_dr", WORLD), history)
        alone.append([e.value for e in fitted.by_action(history, "channel")])
        grouped.append([fitted.effect(history.decisions.actions[:, 0] == code).value for code in (1, 2)])
    for found, right in ((np.array(alone), True), (np.array(grouped), False)):
        z = found.mean(0) / (found.std(0, ddof=1) / np.sqrt(len(found)))
        assert (abs(z) < 4).all() if right else (abs(z) > 4).all()


@pytest.mark.slow
def test_intervals_of_one_action_cover():
    """400 histories of 300 users: the choice of action is estimated, and its error is in the interval."""
    hits = []
    for seed in range(400):
        history = two_actions(seed, users=300)
        effects = TreatmentEffects.fit(make_reward("did_dr", WORLD), history).by_action(history, "channel")
        hits.append([e.low <= 0 <= e.high for e in effects])
    assert (np.mean(hits, axis=0) >= 0.93).all()
    assert (np.mean(hits, axis=0) <= 0.98).all()


@pytest.mark.parametrize("logged", [False, True])
def test_influence_on_one_action_is_the_derivative(logged):
    history = random_history(3, users=40, effect=1.0)
    history = with_propensities(history, 3) if logged else history
    fitted = TreatmentEffects.fit(ROBUST, history)
    o = fitted.outcomes
    one = TreatmentEffects.fit_outcomes(ROBUST, replace(o, treated=o.treated & (o.actions[:, 0] == 1)))
    rows = one.outcomes.treated & one.frame.identified
    found = one.influences.by_user(np.flatnonzero(rows))

    def estimate(weights: np.ndarray) -> float:
        reward = ROBUST.fit_outcomes(one.outcomes, weights).transform_outcomes(one.outcomes).reward
        return float(np.average(reward[rows], weights=weights[rows]))

    for user in range(0, history.n_users, 4):
        moved = [estimate(np.where(o.user == user, 1.0 + step, 1.0)) for step in (1e-4, -1e-4)]
        assert found[user] == pytest.approx((moved[0] - moved[1]) / 2e-4, abs=DERIVATIVE_TOLERANCE)


def test_users_held_out_are_weighted_like_those_who_got_messages():
    """10 histories. Messages follow quiet days, and the holdout logs that nothing could be sent: odds of 0.

    Compared as they are, the whole holdout recovers less than who was quiet, and `did` counts that as an effect.
    """
    spec = replace(WORLD, controls="holdout", holdout_arms=("held out",))
    found = {"did_dr": [], "did": []}
    for seed in range(10):
        world = simulate(seed, "quiet", users=1000, held_out=0.3)
        for kind, values in found.items():
            fitted = TreatmentEffects.fit(make_reward(kind, spec), world.history)
            assert fitted.frame.identified[fitted.outcomes.treated].all()
            values.append(fitted.effect().value - world.att)
    assert f"propensities: {ESTIMATED}" in facts_of(TreatmentEffects.fit(make_reward("did_dr", spec), world.history))
    z = {kind: np.mean(each) / (np.std(each, ddof=1) / np.sqrt(len(each))) for kind, each in found.items()}
    assert abs(z["did_dr"]) < 4
    assert z["did"] > 4


def test_values_share_what_rewards_make_of_sending_nothing():
    """10 histories. No line in yesterday's orders describes a dip: rewards are corrected for who got messages.

    Over all decisions, weighted by 1/p, sending nothing seems to change something. The log's value contains as much,
    and the difference of both is what its messages earned.
    """
    nothing, earned = [], []
    for seed in range(10):
        world = simulate(seed, "dip", users=600)
        fitted = TreatmentEffects.fit(make_reward("did_dr", WORLD), world.history)
        o, reward = fitted.outcomes, fitted.frame.reward
        nothing.append(np.average(reward[~o.treated], weights=1.0 / o.p_nothing[~o.treated]))
        earned.append(reward.mean() - nothing[-1] - world.att * o.treated.mean())
    z = [np.mean(each) / (np.std(each, ddof=1) / np.sqrt(len(each))) for each in (nothing, earned)]
    assert abs(z[0]) > 4
    assert abs(z[1]) < 4


def test_an_action_that_is_too_rare_is_not_identified():
    history = two_actions(0, users=100)
    d = history.decisions
    once = np.flatnonzero(d.actions[:, 0] == 2)
    actions = d.actions.copy()
    actions[once[1:]] = 1
    history = without_propensities(replace(history, decisions=replace(d, actions=actions)))
    push, email = TreatmentEffects.fit(make_reward("did_dr", WORLD), history).by_action(history, "channel")
    assert push.se > 0
    assert np.isnan(email.value)
    assert email.n_without == 1


def test_weighted_controls_count_by_their_effective_number():
    """One control with nearly all the weight is one control: no reward rests on it."""
    values, cell = np.arange(20.0), np.zeros(20, dtype=np.int64)
    equal = CellMeans.fit(values, cell, None)
    np.testing.assert_allclose(CellMeans.fit(values, cell, None, weights=np.full(20, 0.37)).sd, equal.sd, rtol=1e-12)
    odds = np.r_[1.0, np.full(19, 1e-4)]
    one = CellMeans.fit(values, cell, None, weights=odds)
    assert one.n[0] == pytest.approx(odds.sum() ** 2 / (odds**2).sum(), rel=1e-9)
    assert one.n[0] < 1.01
    history = with_propensities(random_history(3, users=60), 3)
    o = measure(history, MANY, adjust=True)
    frame = ROBUST.fit_outcomes(o).transform_outcomes(o)
    odds = Odds.fit(o, MANY, np.ones(len(o))).value
    for i in np.flatnonzero(frame.identified)[::40]:
        mine = odds[o.control & (o.time_bucket == o.time_bucket[i])]
        assert frame.n_controls[i] == int(mine.sum() ** 2 / (mine**2).sum() + 1e-9)
        assert frame.n_controls[i] < len(mine)
