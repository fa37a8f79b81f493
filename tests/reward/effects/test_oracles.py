"""Rewards and effects against other people's implementations: diff-diff and statsmodels."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest

from crosschannel.core.action_space import ActionSpace, Module
from crosschannel.core.hashing import keys
from crosschannel.core.times import DAY
from crosschannel.histories.history import DecisionLog, EventLog, History
from crosschannel.reward import CovariateSpec, DidReward, Goal, RewardSpec, make_reward, measure
from crosschannel.reward.effects import average_effect
from crosschannel.reward.effects.staggered import NEVER, Panel, group_time_effects

pytestmark = pytest.mark.numerics

# Two implementations agree to these, whatever the processor: amounts are read in steps of 2^-32, or 2e-10, the ridge of
# the logistic regression is 1e-10 a row, and each of the two moves an effect by about as much. All else is rounding of
# 1e-16 times the condition of the regressions (below 100), and squares and roots of it for errors.
VALUE_TOLERANCE, ERROR_TOLERANCE = 1e-8, 1e-6

MODULES = ActionSpace([Module("channel", ("none", "push"))])
SPEC = RewardSpec(
    goals=(Goal("spend", measure="value"),),
    pre="1d",
    post="1d",
    min_controls=2,
    covariates=CovariateSpec(events=(), messages=False, clock=False),
    folds=1,
)


def two_periods(seed: int, users: int = 400) -> tuple[History, pd.DataFrame]:
    """One decision a user, one amount before and one after; treatment and trend both depend on two attributes."""
    rng = np.random.default_rng(seed)
    x = rng.standard_normal((users, 2))
    treated = rng.random(users) < 1 / (1 + np.exp(-0.7 * x[:, 0] + 0.3 * x[:, 1]))
    before = 10 + x @ [1.0, 2.0] + rng.standard_normal(users)
    after = before + 1 + x @ [1.5, -1.0] + 2.0 * treated + rng.standard_normal(users)
    before, after = np.round(before, 6), np.round(after, 6)
    ids = np.array([f"d{i}" for i in range(users)], dtype=object)
    user = np.arange(users)
    history = History.from_arrays(
        DecisionLog(
            id=ids,
            key=keys(ids),
            user=user,
            time=np.full(users, 5 * DAY),
            actions=treated[:, None].astype(np.int64),
            propensity=np.full((users, 1), np.nan),
            joint=np.full(users, np.nan),
        ),
        EventLog(
            user=np.concatenate([user, user]),
            time=np.repeat([5 * DAY - 1000, 5 * DAY + 1000], users),
            event=np.zeros(2 * users, dtype=np.int64),
            value=np.concatenate([before, after]),
        ),
        modules=MODULES,
        user_ids=user.astype(str).astype(object),
        event_names=("spend",),
        span=(0, 10 * DAY),
        users=pd.DataFrame({"user_id": user.astype(str), "x1": x[:, 0], "x2": x[:, 1]}),
    )
    table = pd.DataFrame(
        {
            "unit": np.tile(user, 2),
            "period": np.repeat([1, 2], users),
            "y": np.concatenate([before, after]),
            "treated": np.tile(treated.astype(int), 2),
            "post": np.repeat([0, 1], users),
            "first": np.tile(np.where(treated, 2, 0), 2),
            "x1": np.tile(x[:, 0], 2),
            "x2": np.tile(x[:, 1], 2),
        }
    )
    return history, table


@pytest.mark.parametrize("seed", range(3))
def test_two_by_two_equals_diff_diff_and_statsmodels(seed):
    diff_diff = pytest.importorskip("diff_diff")
    formula = pytest.importorskip("statsmodels.formula.api")
    history, table = two_periods(seed)
    outcomes = measure(history, SPEC)
    mine = average_effect(outcomes, SPEC, outcomes.treated, "all")
    frame = DidReward(SPEC).fit(history).transform(history)
    assert frame.reward[outcomes.treated].mean() == pytest.approx(mine.value, abs=1e-12)
    theirs = diff_diff.DifferenceInDifferences().fit(table, outcome="y", treatment="treated", post="post")
    assert mine.value == pytest.approx(theirs.att, abs=VALUE_TOLERANCE)
    fit = formula.ols("y ~ treated * post", table).fit(
        cov_type="cluster", cov_kwds={"groups": table.unit, "use_correction": False}
    )
    assert mine.value == pytest.approx(fit.params["treated:post"], abs=VALUE_TOLERANCE)
    # Theirs without, ours with the factor G / (G - 1) for the number of users.
    users = history.n_users
    assert mine.se == pytest.approx(fit.bse["treated:post"] * np.sqrt(users / (users - 1)), abs=ERROR_TOLERANCE)


@pytest.mark.parametrize("seed", range(3))
def test_covariate_adjusted_equals_diff_diff(seed):
    diff_diff = pytest.importorskip("diff_diff")
    discrete = pytest.importorskip("statsmodels.api")
    history, table = two_periods(seed)
    treated = history.decisions.actions[:, 0] == 1

    def att(kind: str) -> float:
        return float(make_reward(kind, SPEC).fit(history).transform(history).reward[treated].mean())

    def theirs(method: str) -> float:
        model = diff_diff.CallawaySantAnna(estimation_method=method, pscore_trim=0.005)
        columns = {"outcome": "y", "unit": "unit", "time": "period", "first_treat": "first"}
        return float(model.fit(table, **columns, covariates=["x1", "x2"]).overall_att)

    regression, robust = att("did_regression"), att("did_dr")
    assert regression == pytest.approx(theirs("reg"), abs=VALUE_TOLERANCE)
    # Ours divides the controls' weighted residuals by the sum of their weights, as Sant'Anna & Zhao (2020) do; theirs
    # by the number of treated. Undo that one difference; the propensities for it come from a third implementation.
    x = discrete.add_constant(table[table.period == 1][["x1", "x2"]].to_numpy())
    p = discrete.Logit(treated.astype(float), x).fit(disp=0, tol=1e-14).predict(x)
    ratio = (p / (1 - p))[~treated].sum() / treated.sum()
    assert regression - (regression - robust) * ratio == pytest.approx(theirs("dr"), abs=VALUE_TOLERANCE)
    # Both are right, which the unadjusted one is not.
    assert abs(regression - 2.0) < 0.5
    assert abs(robust - 2.0) < 0.5
    assert abs(att("did") - 2.0) > 0.5


@pytest.mark.parametrize("seed", range(3))
def test_errors_clustered_above_the_unit_equal_statsmodels(seed):
    """Units in clusters of ten that share a shock: a panel of two periods is a regression of changes on treatment."""
    formula = pytest.importorskip("statsmodels.formula.api")
    rng = np.random.default_rng(seed)
    cluster = np.repeat(np.arange(40), 10)
    treated = rng.random(40)[cluster] < 0.5
    outcome = rng.standard_normal((400, 2)) + rng.standard_normal((40, 2))[cluster] + np.outer(treated, [0.0, 1.0])
    effects = group_time_effects(Panel(outcome, np.array([1, 2]), np.where(treated, 2, NEVER), cluster))
    table = pd.DataFrame({"change": outcome[:, 1] - outcome[:, 0], "treated": treated.astype(float)})
    fit = formula.ols("change ~ treated", table).fit(
        cov_type="cluster", cov_kwds={"groups": cluster, "use_correction": False}
    )
    assert effects.att[0] == pytest.approx(fit.params["treated"], abs=VALUE_TOLERANCE)
    assert effects.se[0] == pytest.approx(fit.bse["treated"], abs=ERROR_TOLERANCE)
