"""Event study, placebos, groupings and the verdict: against arithmetic by hand and known truth."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pandas as pd
import pytest

from crosschannel.core.errors import ConfigError
from crosschannel.core.times import DAY
from crosschannel.reward import CovariateSpec, DidReward, Goal, Matching, RewardSpec, make_reward
from crosschannel.reward.effects import (
    Effect,
    EventStudy,
    EventTimes,
    TreatmentEffects,
    diagnose,
    effects_by,
    effects_table,
    event_study,
    explain_pre_trends,
)
from crosschannel.reward.effects.diagnostics import (
    Check,
    Diagnostics,
    facts_of,
    placebo_on_controls,
    placebo_on_holdout,
    rows_held_out,
    time_placebo,
)
from crosschannel.reward.effects.event_study import lookback, messages_between, moved_back
from crosschannel.reward.effects.inference import InfluenceProducts
from tests.reward.effects.test_influence import DERIVATIVE_TOLERANCE
from tests.reward.simulated import SPEC, simulate
from tests.samples import random_history

pytestmark = pytest.mark.numerics

SMALL = RewardSpec(goals=(Goal("order", measure="value"), Goal("visit", -0.5)), pre="2d", post="1d", min_controls=3)


def did(history, spec=SMALL) -> TreatmentEffects:
    return TreatmentEffects.fit(DidReward(spec), history)


def slow_bin(history, low: np.ndarray, high: np.ndarray, *, closed_low: bool) -> np.ndarray:
    """Goal values of each decision's user between two times, the slow way."""
    out = np.zeros(len(low))
    e = history.events
    worth = np.where(e.event == 0, e.value, -0.5)
    for i, user in enumerate(history.decisions.user):
        inside = (e.time >= low[i]) & (e.time < high[i]) if closed_low else (e.time > low[i]) & (e.time <= high[i])
        out[i] = worth[inside & (e.user == user)].sum()
    return out


@pytest.mark.parametrize("length", ["1d", "12h"])
def test_event_study_equals_a_loop_over_rows(length):
    history = random_history(2, users=25)
    fitted = did(history)
    events = event_study(fitted, history, EventTimes(length, leads=3, lags=2))
    step = {"1d": DAY, "12h": DAY // 2}[length]
    t, o = history.decisions.time, fitted.outcomes
    base = slow_bin(history, t - step, t, closed_low=True)
    for k, effect in zip(events.times.offsets.tolist(), events.effects, strict=True):
        if k == -1:
            assert (effect.value, effect.se) == (0.0, 0.0)
            continue
        low, high = t + k * step, t + (k + 1) * step
        change = slow_bin(history, low, high, closed_low=k < 0) - base
        seen = o.observed & (np.minimum(low, t - step) >= history.span[0]) & (high <= history.span[1])
        table = pd.DataFrame({"cell": o.time_bucket, "change": change})
        controls = table[o.control & seen].groupby("cell").change.agg(["mean", "size"])
        controls = controls[controls["size"] >= 3]["mean"].reindex(o.time_bucket).to_numpy()
        rows = o.treated & seen & ~np.isnan(controls)
        assert effect.n_treated == rows.sum()
        assert effect.value == pytest.approx((change - controls)[rows].mean(), abs=1e-8)


def test_the_bins_of_the_windows_add_up_to_the_effect():
    """Pre and post of two bins each: the effect is the sum of the bins after minus the sum of those before."""
    history = random_history(4, users=30)
    fitted = did(history, replace(SMALL, pre="2d", post="2d"))
    value = event_study(fitted, history, EventTimes("1d", leads=2, lags=2)).value
    assert fitted.effect().value == pytest.approx(value[2] + value[3] - value[0] - value[1], abs=1e-8)


def test_excluded_overlap_is_excluded_as_far_as_each_bin():
    history = random_history(3, users=40, send=0.15)
    fitted = did(history, replace(SMALL, pre="1d", overlap="exclude"))
    events = event_study(fitted, history, EventTimes("1d", leads=3, lags=2))
    d, sent = history.decisions, history.modules.sends(history.decisions.actions)
    for k, effect in zip(events.times.offsets.tolist(), events.effects, strict=True):
        low, high = min(k, -1) * DAY, max(k + 1, 0) * DAY
        for i in range(0, len(d), 7):
            gap = d.time[sent & (d.user == d.user[i]) & (np.arange(len(d)) != i)] - d.time[i]
            assert messages_between(history, low, high)[i] == ((gap >= low) & (gap < high)).any()
        if k != -1:
            clean = fitted.frame.identified & ~messages_between(history, low, high) & sent
            assert effect.n_treated <= clean.sum()


def test_a_reward_of_no_message_before_it_is_zero_and_a_dip_is_seen():
    calm, dip = (simulate(1, assignment).history for assignment in ("random", "dip"))
    assert diagnose(did(calm, SPEC), calm).verdict.startswith("No test fails")
    found = diagnose(did(dip, SPEC), dip)
    assert found.verdict.startswith("Pre-trends differ and controls that were as likely to get a message")
    assert found.verdict.endswith("do not read the effect as causal.")
    assert found.to_pandas().set_index("check").status["pre-trends"] == "failed"


def test_the_placebo_in_time_sees_a_trend_of_the_treated():
    """Users who get messages also grow from day to day: an effect is found where no message was."""
    history = simulate(2, "level", users=3000, effect=0.0).history
    level = np.bincount(history.events.user, minlength=history.n_users)
    rising = (level > np.quantile(level, 0.7))[history.events.user]
    day = history.events.time // DAY
    grown = replace(history.events, value=np.where(rising, 1.0 + 0.3 * day, 1.0))
    spec = replace(SPEC, goals=(Goal("order", measure="value"),))
    moved = replace(history, events=grown)
    assert abs(time_placebo(did(history, SPEC), history).value) < 3 * time_placebo(did(history, SPEC), history).se
    effect = time_placebo(did(moved, spec), moved)
    assert effect.value > 2 * effect.se
    assert "effect before the message" in diagnose(did(moved, spec), moved).verdict


def test_users_held_out_show_that_sends_follow_a_dip():
    """Users held out got nothing. The others who got nothing had no dip, so they differ."""
    dip, level = (simulate(1, assignment, users=3000, held_out=0.3).history for assignment in ("dip", "level"))
    found = placebo_on_holdout(did(dip, SPEC), dip)
    assert found is not None
    assert found.status == "failed"
    assert "differ from those of the users held out" in diagnose(did(dip, SPEC), dip).verdict
    for fitted in (did(level, SPEC), TreatmentEffects.fit(make_reward("did_dr", SPEC), dip)):
        found = placebo_on_holdout(fitted, level if fitted.model.name == "did" else dip)
        assert found is not None
        assert found.status == "passed"
    none = simulate(1, "dip").history
    assert placebo_on_holdout(did(none, SPEC), none) is None


def test_users_of_a_region_that_move_together_are_detected():
    """8 regions with shocks of their own, 3,000 users: their controls differ, until each is compared within its own."""
    history = simulate(5, "region", users=3000, regions=8).history
    found = placebo_on_controls(did(history, SPEC), history)
    assert found is not None
    assert found.status == "failed"
    whole = diagnose(did(history, SPEC), history)
    assert any("change differently by region" in fact for fact in whole.facts)
    assert whole.on_controls == found
    within = replace(SPEC, matching=Matching(within=("region",)))
    assert placebo_on_controls(did(history, within), history) is None
    calm = simulate(5, "level", users=3000).history
    users = pd.DataFrame({"user_id": calm.user_ids, "region": np.arange(3000) % 8})
    calm = replace(calm, users=users)
    found = placebo_on_controls(did(calm, SPEC), calm)
    assert found is not None
    assert found.status == "passed"


def test_the_moved_design_uses_what_was_known_then():
    """Covariates and strata of the placebo are those of decisions that were made so much earlier."""
    history = random_history(3, users=60)
    spec = replace(
        SMALL,
        pre="1d",
        covariates=CovariateSpec(windows=("2d",), clock=False),
        matching=Matching(strata=3, activity="36h"),
    )
    fitted = TreatmentEffects.fit(make_reward("did_dr", spec), history)
    assert lookback(fitted) == 2.5 * DAY
    moved = moved_back(fitted, history, 2 * DAY).outcomes
    d = history.decisions
    for i in np.flatnonzero(moved.observed)[::37]:
        at, mine = d.time[i] - 2 * DAY, history.events.user == d.user[i]
        seen = (history.events.time[mine] >= at - 2 * DAY) & (history.events.time[mine] < at)
        orders = seen & (history.events.event[mine] == 0)
        column = fitted.outcomes.preprocessing.features.names.index("count order 2d")
        features = fitted.outcomes.preprocessing.features
        expected = (np.log1p(orders.sum()) - features.mean[column]) / features.scale[column]
        assert moved.covariates[i, column] == pytest.approx(expected, abs=1e-9)
    assert (moved.stratum != fitted.outcomes.stratum)[moved.observed].mean() > 0.2
    np.testing.assert_array_equal(moved.time_bucket, fitted.outcomes.time_bucket)


def test_bins_fit_the_windows_and_notes_list_what_they_leave_out():
    history = random_history(3, users=60)
    for post, length, lags in (("3d", "1d", 3), ("28d", "7d", 4), ("14d", "7d", 2), ("7d", "7d", 1), ("36h", "36h", 1)):
        times = EventTimes.default_for(did(history, replace(SMALL, pre="1d", post=post)))
        assert (times.bin, times.lags, times.leads) == (length, lags, 4)
    fitted = TreatmentEffects.fit(
        make_reward("did_regression", replace(SMALL, covariates=CovariateSpec(windows=("4d",)))), history
    )
    events = event_study(fitted, history)
    assert (events.times.leads, events.lookback) == (7, 4 * DAY)
    assert not events.leads[events.times.offsets >= -4].any()
    assert "bins within 4 d" in events.notes[0]
    goals = (Goal("order", winsor=0.9), Goal("visit", credit="exponential", half_life="1d"))
    changed = replace(SMALL, goals=goals, overlap="truncate", min_post="12h", post="36h")
    notes = " ".join(event_study(did(history, changed), history, EventTimes("1d", 3, 2)).notes)
    for word in ("limit of order", "credit of visit decays", "end at the next message", "not a whole number of bins"):
        assert word in notes


def test_bins_have_the_limits_of_the_goals():
    """One bin after and one before, as long as the windows: the effect itself, limited as it is."""
    history = random_history(3, users=60)
    for goal in (Goal("order", clip=1.0), Goal("order", measure="value", winsor=0.7)):
        fitted = did(history, replace(SMALL, goals=(goal,), pre="1d", post="1d"))
        events = event_study(fitted, history, EventTimes("1d", leads=1, lags=1))
        assert events.value[1] == pytest.approx(fitted.effect().value, abs=1e-9)
        free = replace(SMALL, goals=(replace(goal, clip=None, winsor=None),), pre="1d", post="1d")
        assert abs(did(history, free).effect().value - fitted.effect().value) > 1e-3


def test_facts_show_how_often_cells_fell_back():
    history = random_history(3, users=60)
    history = replace(history, users=pd.DataFrame({"user_id": history.user_ids, "region": ["a"] * 55 + ["b"] * 5}))
    fitted = did(history, replace(SMALL, min_controls=10, matching=Matching(within=("region",))))
    narrow, wide = (fitted.frame.counts_by_level()[level] for level in (0, 1))
    assert f"cells, from the narrowest to the widest: {narrow:,} at level 0, {wide:,} at level 1" in facts_of(fitted)


def test_rare_levels_are_one_group_and_counted():
    history = random_history(9, users=60, effect=1.0)
    town = np.array([f"t{i % 20:02d}" if i < 50 else f"x{i}" for i in range(60)])
    history = replace(history, users=pd.DataFrame({"user_id": history.user_ids, "town": town}))
    found = did(history, replace(SMALL, min_controls=2)).by_attribute(history, "town")
    assert len(found) == 21
    assert found[-1].label == "town: 10 others"
    assert sum(e.n_treated + e.n_without for e in found) == did(history).outcomes.treated.sum()


@pytest.mark.parametrize(
    ("statuses", "begins"),
    [
        (("passed", "passed", "passed"), "No test fails, which does not prove the effect."),
        (("not tested", "passed", "passed"), "Not tested: pre-trends."),
        (
            ("failed", "not tested", "passed"),
            "Pre-trends differ: do not read the effect as causal. Not tested: placebo",
        ),
        (("failed", "failed", "passed"), "Pre-trends differ and there is an effect before the message: do not"),
    ],
)
def test_no_failure_is_hidden_in_the_verdict(statuses, begins):
    names = ("pre-trends", "placebo in time", "placebo on holdout")
    checks = tuple(Check(name, status, 0.5, "") for name, status in zip(names, statuses, strict=True))
    assert Diagnostics(checks, (), "did").verdict.startswith(begins)
    for status in ("passed", "failed"):
        found = Diagnostics(checks, (), "did", Check("placebo on controls", status, 0.5, "")).verdict
        assert found.startswith(begins)
        assert ("But controls change differently" in found) == (status == "failed" and "failed" not in statuses)


@pytest.mark.parametrize("missing", [None, np.nan])
def test_decisions_without_an_arm_are_not_held_out(missing: object):
    """Such as those before a user's arm was known: nothing was sent at them, and yet they were not held out."""
    history = random_history(5, users=60)
    sent = history.modules.sends(history.decisions.actions)
    arm = np.where(sent, "messages", "held out").astype(object)
    quiet = np.flatnonzero(~sent)
    arm[quiet[::2]] = missing
    history = replace(history, decisions=replace(history.decisions, arm=arm))
    held = rows_held_out(did(history), history)
    np.testing.assert_array_equal(np.flatnonzero(held), quiet[1::2])


def test_without_controls_there_is_no_causal_verdict():
    history = simulate(1, "random").history
    fitted = TreatmentEffects.fit(make_reward("raw", SPEC), history)
    assert "has no controls" in diagnose(fitted, history).verdict


def test_a_log_that_begins_too_late_is_not_tested():
    history = simulate(1, "random").history
    short = replace(history, span=(int(history.decisions.time.min()) - DAY, history.span[1]))
    first = short.decisions.time == short.decisions.time.min()
    rows = replace(fitted := did(short, SPEC), outcomes=fitted.outcomes.select(first))
    events = event_study(did(short, SPEC), short, EventTimes("1d", leads=1, lags=1))
    found = diagnose(did(short, SPEC), short, events)
    assert rows.outcomes.observed.all()
    assert found.checks[0].status == "not tested"
    assert "Not tested: pre-trends" in found.verdict


def test_effects_by_goal_add_up_and_each_grouping_partitions_the_decisions():
    history = random_history(9, users=60, effect=1.0)
    users = pd.DataFrame({"user_id": history.user_ids, "age": np.arange(60.0), "region": ["north", "south"] * 30})
    history = replace(history, users=users)
    by = ("all", "goal", "action", "time_bucket", "period:3d", "attribute:age", "attribute:region")
    table = effects_table(effects_by(did(history), history, by))
    whole = table[table.by == "all"].iloc[0]
    assert table[table.by == "goal"].effect.sum() == pytest.approx(whole.effect, abs=1e-8)
    for by in ("channel", "offer", "time_bucket", "period", "age", "region"):
        part = table[table.by == by]
        assert (part.n_treated + part.n_without).sum() == whole.n_treated + whole.n_without, by
    for by in ("channel", "offer", "time_bucket", "period"):
        part = table[(table.by == by) & (table.n_treated > 1)]
        assert np.average(part.effect, weights=part.n_treated) == pytest.approx(whole.effect, abs=0.2), by
    channel = table[table.by == "channel"]
    assert np.average(channel.effect, weights=channel.n_treated) == pytest.approx(whole.effect, abs=1e-8)
    assert (table.low < table.effect).sum() == (table.se > 0).sum()
    assert list(table[table.by == "region"].label) == ["region north", "region south"]
    assert (table.by == "age").sum() == 4


def test_attribute_groups_compare_with_their_own_controls():
    history = random_history(9, users=60, effect=1.0)
    region = np.array(["north", "south"] * 30)
    history = replace(history, users=pd.DataFrame({"user_id": history.user_ids, "region": region}))
    alone = history.select_users(region == "south")
    found = did(history).by_attribute(history, "region")[1]
    assert found.value == pytest.approx(did(alone).effect().value, abs=1e-9)
    assert found.se == pytest.approx(did(alone).effect().se, abs=1e-9)


@pytest.mark.parametrize("kind", ["did", "did_regression", "did_dr"])
def test_influence_after_fallback_is_the_derivative(kind):
    """Narrow cells for some decisions, wide ones for the others: each user's influence is still the derivative."""
    history = random_history(3, users=48, effect=1.0)
    region = np.array((["north"] * 5 + ["south"]) * 8)
    history = replace(history, users=pd.DataFrame({"user_id": history.user_ids, "region": region}))
    spec = replace(
        SMALL,
        min_controls=12,
        matching=Matching(within=("region",)),
        covariates=CovariateSpec(windows=("2d",), events=("visit",), attributes=(), clock=False),
        folds=1,
    )
    model = make_reward(kind, spec)
    fitted = TreatmentEffects.fit(model, history)
    o = fitted.outcomes
    rows = o.treated & fitted.frame.identified
    assert len(np.unique(fitted.frame.level[rows])) == 2
    found = fitted.influences.by_user(np.flatnonzero(rows))

    def estimate(weights: np.ndarray) -> float:
        reward = model.fit_outcomes(o, weights).transform_outcomes(o).reward
        return float(np.average(reward[rows], weights=weights[rows]))

    step = 1e-4
    for user in range(0, history.n_users, 5):
        # Never downwards: fewer than the least number of controls would make another cell fall back.
        zero, one, two = (estimate(np.where(o.user == user, 1.0 + k * step, 1.0)) for k in range(3))
        moved = (-3.0 * zero + 4.0 * one - two) / (2.0 * step)
        assert found[user] == pytest.approx(moved, abs=DERIVATIVE_TOLERANCE)


@pytest.mark.parametrize(
    ("by", "message"),
    [
        ("goals", "no grouping 'goals'. Did you mean 'goal'"),
        ("module:chanel", "no module 'chanel'. Did you mean 'channel'"),
        ("attribute:age", "no attribute 'age'"),
    ],
)
def test_unknown_groupings_are_explained(by, message):
    with pytest.raises(ConfigError, match=message):
        effects_by(did(random_history(1)), random_history(1), (by,))


def test_wrong_event_times_are_explained():
    with pytest.raises(ConfigError, match="leads 0 must be at least 1"):
        EventTimes(leads=0)


def pre_trends_of(leads, errors=0.01, kind="did"):
    """An event study of bins of a day with the given effects before the base, from many independent users."""
    rng = np.random.default_rng(0)
    value = [*leads, 0.0, 0.5]
    influence = rng.normal(size=(2000, len(value))) * errors / np.sqrt(2000)
    influence[:, len(leads)] = 0.0
    effects = [
        Effect(f"{k} d", v, 0.0 if k == -1 else errors, n_treated=2000, n_controls=2000, n_users=2000)
        for k, v in enumerate(value, start=-len(leads) - 1)
    ]
    return EventStudy(
        EventTimes("1d", len(leads) + 1, 1), kind, effects, InfluenceProducts.from_users(influence), 0, ()
    )


@pytest.mark.parametrize(
    ("leads", "pre", "expected"),
    [
        ((0.0, 0.0, 0.0), "2d", None),
        ((0.3, 0.2, 0.0), "2d", "before the pre window (2d) and not within it"),
        ((0.3, 0.2, 0.2), "2d", "within the pre window (2d"),
        ((0.3, 0.2, 0.0), "1d", "No bin within the pre window (1d) can be tested"),
        ((0.3, 0.2, 0.0), "4d", "within the pre window (4d"),
    ],
)
def test_a_failed_pre_trend_test_says_where(leads, pre, expected):
    found = explain_pre_trends(pre_trends_of(leads), pre, known_propensities=False)
    assert (expected in found) if expected else not found
    assert "did_dr" not in found


@pytest.mark.parametrize(("kind", "advised"), [("did", True), ("did_regression", True), ("did_dr", False)])
def test_a_failed_pre_trend_test_advises_propensities_where_they_help(kind, advised):
    found = explain_pre_trends(pre_trends_of((0.3, 0.2, 0.0), kind=kind), "2d", known_propensities=True)
    assert ("`reward.kind: did_dr`" in found) == advised
