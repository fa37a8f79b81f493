"""Matching of controls: attributes, strata of past activity, holdout arms, and the fallback to wider cells."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pandas as pd
import pytest

from crosschannel.core.errors import ConfigError, NotIdentified
from crosschannel.core.serialization import from_dict, to_dict
from crosschannel.core.times import DAY, duration
from crosschannel.envs.market import Market, MarketConfig, simulate_history
from crosschannel.histories.logs import take_rows
from crosschannel.pipeline.configuration import RewardConfig
from crosschannel.reward import (
    REWARDS,
    DidReward,
    Goal,
    Matching,
    Reason,
    RewardSpec,
    make_reward,
    measure,
    measure_with,
)
from crosschannel.reward.controls import CellMeans, ExpectedChange, narrowest_sufficient
from crosschannel.reward.exact_sums import ExactSums
from tests.reward.samples import BASE, OPTIONS, rebuilt, rich_history, spec_of
from tests.samples import random_history

pytestmark = pytest.mark.numerics

BOTH = Matching(within=("region", "age"), strata=3, activity="36h")


def plain_cells(history, spec, level):
    """Cells as tuples of what they stand for, by pandas."""
    d = history.decisions
    columns = {"cell": d.time // duration(spec.time_bucket)}
    users = history.users.iloc[d.user].reset_index(drop=True)
    if "within" in level:
        for name in spec.matching.within:
            columns[name] = users[name].astype(str)
    if "strata" in level:
        columns["stratum"] = measure(history, spec).stratum
    return pd.MultiIndex.from_frame(pd.DataFrame(columns)).to_flat_index()


def test_fallback_takes_the_narrowest_cell_with_enough_controls():
    history = rich_history(3, users=80)
    spec = replace(BASE, matching=BOTH, time_bucket="2d", min_controls=4)
    outcomes = measure(history, spec)
    frame = DidReward(spec).fit(history).transform(history)
    assert spec.matching.levels == (("within", "strata"), ("within",), ())
    change, control = outcomes.change, outcomes.control
    expected = np.full(len(outcomes), np.nan)
    level = np.full(len(outcomes), -1)
    for code in reversed(range(3)):
        cells = pd.Series(plain_cells(history, spec, spec.matching.levels[code]))
        known = (outcomes.stratum >= 0) if code == 0 else np.ones(len(cells), dtype=bool)
        groups = pd.Series(change[control & known]).groupby(cells[control & known].to_numpy())
        n = groups.size().reindex(cells).fillna(0).to_numpy()
        mean = groups.mean().reindex(cells).to_numpy()
        enough = known & (n >= 4) & outcomes.observed
        expected[enough], level[enough] = mean[enough], code
    np.testing.assert_allclose(frame.counterfactual, expected, rtol=1e-9)
    np.testing.assert_array_equal(frame.level, level)
    assert set(frame.counts_by_level()) == {0, 1, 2}
    assert frame.counts_by_level() == {code: int((level == code).sum()) for code in range(3)}


def test_without_a_rule_a_cell_with_few_controls_is_counted():
    history = rich_history(3, users=80)
    strict = replace(BASE, matching=replace(BOTH, fallback=()), min_controls=4)
    frame = DidReward(strict).fit(history).transform(history)
    widened = DidReward(replace(strict, matching=BOTH)).fit(history).transform(history)
    assert set(frame.counts_by_level()) == {0}
    lost = widened.level > 0
    assert lost.any()
    assert (frame.reason[lost] == Reason.FEW_CONTROLS).all()
    np.testing.assert_array_equal(frame.reward[~lost], widened.reward[~lost])


def test_the_order_of_fallback_is_the_declared_one():
    both = replace(BOTH, fallback=("within", "strata"))
    assert both.levels == (("within", "strata"), ("strata",), ())
    assert replace(BOTH, fallback=("within",)).levels == (("within", "strata"), ("strata",))
    assert Matching().levels == ((),)
    assert Matching(strata=4, fallback=("within", "strata")).levels == (("strata",), ())


def test_strata_are_quantiles_of_goal_value_before_the_pre_window():
    history = rich_history(4)
    spec = replace(BASE, goals=(Goal("order", 1.0, measure="value"), Goal("visit", -0.3)), matching=BOTH)
    outcomes = measure(history, spec)
    d, e = history.decisions, history.events
    worth = np.where(e.event == 0, e.value, -0.3)
    activity = np.full(len(d), np.nan)
    for i in range(len(d)):
        end = d.time[i] - duration("2d")
        if end - duration("36h") >= history.span[0]:
            inside = (e.user == d.user[i]) & (e.time >= end - duration("36h")) & (e.time < end)
            activity[i] = worth[inside].sum()
    np.testing.assert_array_equal(outcomes.stratum == -1, np.isnan(activity))
    for s in (0, 1):
        upper, lower = activity[outcomes.stratum == s + 1], activity[outcomes.stratum == s]
        assert lower.max() < upper.min()
    sizes = np.bincount(outcomes.stratum[outcomes.observed & (outcomes.stratum >= 0)])
    assert np.ptp(sizes) <= 3  # thirds, but for ties
    later = measure_with(rich_history(5), spec, outcomes.preprocessing)
    assert later.preprocessing is outcomes.preprocessing  # not fitted again


def test_values_unknown_to_the_fit_fall_back_to_wider_cells():
    history = rich_history(6, users=80)
    spec = replace(BASE, matching=Matching(within=("region",)))
    fitted = DidReward(spec).fit(history)
    assert history.users is not None
    abroad = replace(history, users=history.users.assign(region="west"))
    frame = fitted.transform(abroad)
    assert set(frame.counts_by_level()) == {1}
    plain = DidReward(BASE).fit(history).transform(history)
    np.testing.assert_array_equal(frame.reward, plain.reward)


def test_codes_of_attributes_do_not_depend_on_how_a_number_is_stored():
    history = rich_history(6, users=80)
    spec = replace(BASE, matching=Matching(within=("age",)))
    fitted = DidReward(spec).fit(history)
    whole = fitted.transform(history)
    assert history.users is not None
    aged = history.users["age"].notna().to_numpy()
    part = history.select_users(aged)
    assert part.users is not None
    part = replace(part, users=part.users.astype({"age": "int64"}))
    rows = aged[history.decisions.user]
    np.testing.assert_array_equal(fitted.transform(part).reward, whole.reward[rows])


def test_holdout_arms_are_the_only_controls():
    history = rich_history(7, users=80)
    spec = replace(BASE, controls="holdout", holdout_arms=("held out",))
    outcomes = measure(history, spec)
    held = history.decisions.arm == "held out"
    np.testing.assert_array_equal(outcomes.control, held & outcomes.observed & ~outcomes.treated)
    frame = DidReward(spec).fit(history).transform(history)
    cells = pd.Series(outcomes.change[outcomes.control]).groupby(outcomes.time_bucket[outcomes.control])
    expected = cells.mean().reindex(outcomes.time_bucket).to_numpy()
    np.testing.assert_allclose(frame.counterfactual[frame.identified], expected[frame.identified], rtol=1e-9)
    assert frame.identified[outcomes.treated].any()


@pytest.mark.parametrize(
    ("history", "changed", "message"),
    [
        (rich_history(0), {"controls": "holdout", "holdout_arms": ("nobody",)}, r"no arms \['nobody'\].*'held out'"),
        (rich_history(0), {"matching": Matching(within=("regoin",))}, r"no attributes \['regoin'\].*region"),
        (random_history(0), {"matching": Matching(within=("region",))}, r"no attributes \['region'\]; they have \[\]"),
    ],
)
def test_what_the_history_lacks_is_explained(history, changed, message):
    with pytest.raises(ConfigError, match=message):
        measure(history, replace(BASE, **changed))


def test_a_log_in_which_nobody_is_held_out_has_no_such_controls():
    """The first day on which arms are drawn changes that: it is no fault of the settings."""
    history, spec = random_history(0), replace(BASE, controls="holdout", holdout_arms=("a",))
    nobody = np.full(len(history.decisions), None, dtype=object)
    for log in (history, replace(history, decisions=replace(history.decisions, arm=nobody))):
        with pytest.raises(NotIdentified, match=r"no decision of .* has an arm .*compares with those of a"):
            measure(log, spec)


@pytest.mark.parametrize("kind", ["did", "did_regression", "did_dr"])
def test_matching_removes_a_shock_that_hits_one_region(kind):
    """A shock on one day raises one region's orders, and that region gets most messages: only matching sees it."""
    history = random_history(0, users=2000, days=8, rate=8.0, send=0.0)
    rng = np.random.default_rng(0)
    south = np.arange(2000) < 1000
    d = history.decisions
    sent = rng.random(len(d)) < np.where(south[d.user], 0.5, 0.1)
    actions = np.stack([sent.astype(np.int64), np.zeros(len(d), dtype=np.int64)], axis=1)
    day = d.time // DAY
    shocked = day[len(day) // 2] == history.events.time // DAY
    value = np.where(shocked & south[history.events.user], 40.0, 1.0)
    users = pd.DataFrame({"user_id": history.user_ids, "region": np.where(south, "south", "north")})
    history = replace(
        history,
        decisions=replace(d, actions=actions),
        events=replace(history.events, value=value),
        users=users,
    )
    spec = replace(
        BASE,
        goals=(Goal("order", measure="value"),),
        pre="1d",
        covariates=replace(BASE.covariates, attributes=(), events=()),
    )

    def effect(matching: Matching) -> float:
        frame = make_reward(kind, replace(spec, matching=matching)).fit(history).transform(history)
        hit = sent & frame.identified & (day == day[len(day) // 2])
        return abs(float(frame.reward[hit].mean()))

    # A change of a southern user varies by about 80, so an effect over 500 sends and 500 controls by 5.
    assert effect(Matching()) > 20.0
    assert effect(Matching(within=("region",))) < 10.0


def test_narrowest_sufficient_and_when_its_controls_close():
    def found(n, mean, closes_at):
        return ExpectedChange(
            n=np.array(n),
            mean=np.array(mean),
            se=np.ones(3),
            closes_at=np.array(closes_at),
            level=np.zeros(3, dtype=np.int64),
        )

    narrow = found([5.0, 1.0, 5.0], [1.0, 2.0, np.nan], [10, 10, 10])
    wide = found([9.0, 9.0, 2.0], [3.0, 4.0, 5.0], [20, 30, 40])
    chosen = narrowest_sufficient([narrow, wide], 4)
    np.testing.assert_array_equal(chosen.level, [0, 1, -1])
    np.testing.assert_array_equal(chosen.mean, [1.0, 4.0, 5.0])
    np.testing.assert_array_equal(chosen.closes_at, [10, 30, 40])
    means = CellMeans.fit(np.arange(4.0), np.array([1, 1, 2, 2]), None, np.array([7, 5, 3, 9]))
    np.testing.assert_array_equal(means.expected(np.array([2, 1, 3])).closes_at, [9, 7, 0])


@pytest.mark.parametrize("weight", [1.0, 1.0 / 0.7, 1.0 / 0.3])
def test_as_many_controls_as_are_needed_are_enough_whatever_their_equal_weights(weight):
    cell = np.repeat([0, 1], [5, 4])
    means = CellMeans.fit(np.arange(9.0), cell, None, weights=np.full(9, weight))
    chosen = narrowest_sufficient([means.expected(np.array([0, 1]))], 5)
    np.testing.assert_array_equal(chosen.level, [0, -1])


def test_a_reward_is_available_when_its_last_control_is():
    history = rich_history(2)
    outcomes = measure(history, BASE)
    frame = DidReward(BASE).fit(history).transform(history)
    for i in np.flatnonzero(frame.identified):
        controls = outcomes.control & (outcomes.time_bucket == outcomes.time_bucket[i])
        assert frame.available_at[i] == max(outcomes.available_at[i], outcomes.available_at[controls].max())
    raw = make_reward("raw", BASE).fit(history).transform(history)
    np.testing.assert_array_equal(raw.available_at, outcomes.available_at)


def test_sums_that_are_too_large_are_refused_and_squares_are_not():
    with pytest.raises(ConfigError, match="too large for exact sums"):
        ExactSums.from_values(np.full(10, 1e13), np.zeros(10, dtype=np.int64), 1)
    values = np.random.default_rng(0).standard_normal(1000) * 1e6
    means = CellMeans.fit(values, np.zeros(1000, dtype=np.int64), None)
    assert means.sd[0] == pytest.approx(values.std(ddof=1), rel=1e-10)


def test_settings_come_from_yaml():
    data = {
        "kind": "did_dr",
        "goals": [{"event": "order", "credit": "exponential", "half_life": "1d", "winsor": 0.99}],
        "overlap": "truncate",
        "controls": "holdout",
        "holdout_arms": ["control"],
        "matching": {"within": ["region"], "strata": 4, "fallback": ["strata"]},
        "seasonality": "6h",
    }
    config = from_dict(RewardConfig, data)
    assert config.matching == Matching(within=("region",), strata=4, fallback=("strata",))
    assert config.goals[0].decay == DAY
    assert from_dict(RewardConfig, to_dict(config)) == config


@pytest.mark.parametrize("kind", ["raw", "did", "did_regression"])
@pytest.mark.parametrize("option", OPTIONS)
def test_a_history_of_one_user_without_controls_has_no_did_reward(kind, option):
    """And nothing breaks: not with one user, nor with one who has no decision at all."""
    history = rich_history(0)
    one = history.select_users(np.arange(history.n_users) == 3)
    rows = np.flatnonzero(one.decisions.actions[:, 0] >= 0)[:1]
    single = rebuilt(one, take_rows(one.decisions, rows), one.events)
    nobody = rebuilt(one, take_rows(one.decisions, rows[:0]), take_rows(one.events, rows[:0]))
    spec = spec_of(option)
    if spec.holdout_arms:
        spec = replace(spec, holdout_arms=(str(single.decisions.arm[0]),))
    frame = make_reward(kind, spec).fit(single).transform(single)
    if kind != "raw":
        assert not frame.identified.any()
    fitted = make_reward(kind, spec_of(option)).fit(history)
    assert len(fitted.transform(nobody)) == 0
    np.testing.assert_array_equal(
        fitted.transform(single).reward, fitted.transform(history).reward[history.decisions.id == single.decisions.id]
    )


def test_cells_of_too_few_controls_are_pooled_over_days_by_the_declared_rule() -> None:
    """Ten controls a day, twenty are needed: cells of a week have them, and the first level is that of the day."""
    history = simulate_history(Market(MarketConfig(users=60, days=14, warmup_days=4)))[0]
    narrow = RewardSpec(pre="1d", post="1d", min_controls=45)
    wide = replace(narrow, matching=Matching(fallback=("time",), wide=7))
    assert wide.matching.levels == ((), ("pooled:7",))
    few, pooled = (DidReward(spec).fit_transform(history) for spec in (narrow, wide))
    assert pooled.identified.sum() > few.identified.sum()
    assert (pooled.level[few.identified] == 0).all()
    assert np.array_equal(pooled.reward[few.identified], few.reward[few.identified])
    widened = pooled.level == 1
    assert widened.any()
    # The pooled mean is that of all controls of the calendar block of seven days.
    outcomes = DidReward(wide).measure(history)
    block = history.decisions.time // DAY // 7
    row = int(np.flatnonzero(widened)[0])
    mates = outcomes.control & (block == block[row])
    assert pooled.n_controls[row] == mates.sum()
    assert pooled.counterfactual[row] == pytest.approx(outcomes.change[mates].mean(), rel=1e-9)


def test_rewards_do_not_wait_for_less_than_all_of_their_pooled_controls() -> None:
    history = simulate_history(Market(MarketConfig(users=60, days=14, warmup_days=4)))[0]
    spec = RewardSpec(pre="1d", post="1d", min_controls=45, matching=Matching(fallback=("time",), wide=7))
    frame = DidReward(spec).fit_transform(history)
    outcomes = DidReward(spec).measure(history)
    block = history.decisions.time // DAY // 7
    for code in np.unique(block[frame.level == 1]):
        closes = outcomes.available_at[outcomes.control & (block == code)].max()
        assert (frame.available_at[(block == code) & (frame.level == 1)] >= closes).all()


@pytest.mark.parametrize(
    ("matching", "levels"),
    [
        (Matching(within=("a",), fallback=("within", "time")), (("within",), (), ("pooled:7",))),
        (Matching(within=("a",), fallback=("time", "within")), (("within",), ("within", "pooled:7"), ("pooled:7",))),
        (Matching(buckets=2, fallback=("time",), wide=4), (("pooled:2",), ("pooled:4",))),
    ],
)
def test_what_cells_share_at_each_level(matching: Matching, levels: tuple[tuple[str, ...], ...]) -> None:
    assert matching.levels == levels


@pytest.mark.parametrize("kind", ["did", "did_regression"])
def test_every_level_alone_gives_the_rewards_of_its_cells(kind: str) -> None:
    history = simulate_history(Market(MarketConfig(users=80, days=14, warmup_days=4)))[0]
    spec = RewardSpec(pre="1d", post="1d", min_controls=68, folds=1, matching=Matching(fallback=("time",), wide=7))
    fitted = REWARDS[kind](spec).fit(history)
    frame = fitted.transform(history)
    alone = [each.transform(history) for each in fitted.at_each_level()]
    for level in (0, 1):
        rows = frame.level == level
        assert rows.any()
        np.testing.assert_allclose(alone[level].reward[rows], frame.reward[rows], rtol=1e-9)
