"""DiD rewards over buckets are those of the whole history to the last bit, however divided and on every engine."""

from __future__ import annotations

from dataclasses import fields, replace
from functools import partial

import numpy as np
import pytest

from crosschannel.core.errors import ConfigError
from crosschannel.engines import make_engine, run_locally
from crosschannel.envs.market import Market, MarketConfig, simulate_history
from crosschannel.histories.buckets import open_buckets, write_buckets
from crosschannel.histories.history import History
from crosschannel.histories.logs import take_rows
from crosschannel.histories.readers.folder import read_history
from crosschannel.reward import DidReward, Goal, Matching, RewardFrame, RewardSpec, measure
from crosschannel.reward.buckets import ControlSums, bucket_rewards, fit_did
from crosschannel.reward.buckets.did import MeasuredControls
from crosschannel.reward.exact_sums import ExactSums

pytestmark = pytest.mark.numerics

MARKET = MarketConfig(users=400, days=10)
HISTORY, _ = simulate_history(Market(MARKET))
SPEC = RewardSpec(goals=MARKET.goals, pre="2d", post="1d", overlap="exclude", min_controls=5)

COLUMNS = [f.name for f in fields(RewardFrame) if f.name != "components"]


@pytest.fixture(scope="module")
def folders(tmp_path_factory):
    paths = {n: tmp_path_factory.mktemp(f"buckets-{n}") for n in (1, 4, 16)}
    for n, path in paths.items():
        write_buckets(HISTORY, path, n)
    return {n: open_buckets(path).paths for n, path in paths.items()}


def by_decision(history: History, frame: RewardFrame) -> dict[str, np.ndarray]:
    """A reward's columns in the order of the decisions' keys."""
    order = np.argsort(history.decisions.key)
    return {name: getattr(frame, name)[order] for name in COLUMNS}


def over_buckets(paths, spec: RewardSpec, run, preprocessing=None) -> dict[str, np.ndarray]:
    fitted = fit_did(paths, spec, run, preprocessing)
    frames = list(run(partial(bucket_rewards, fitted=fitted), paths))
    key = np.concatenate([read_history(path).decisions.key for path in paths])
    order = np.argsort(key)
    return {name: np.concatenate([getattr(frame, name) for frame in frames])[order] for name in COLUMNS}


def assert_same_bits(left: dict[str, np.ndarray], right: dict[str, np.ndarray]) -> None:
    for name, column in left.items():
        assert column.dtype == right[name].dtype, name
        assert column.tobytes() == right[name].tobytes(), name


@pytest.mark.parametrize("n", [1, 4, pytest.param(16, marks=pytest.mark.slow)])
def test_rewards_are_those_of_the_whole_history(folders, n):
    whole = by_decision(HISTORY, DidReward(SPEC).fit(HISTORY).transform(HISTORY))
    assert np.isfinite(whole["reward"]).sum() > 500
    assert_same_bits(over_buckets(folders[n], SPEC, run_locally), whole)


def test_controls_count_by_their_probability_to_be_uncensored(tmp_path):
    """Windows that reach beyond the next slot: controls have weights, and rewards the bits of the whole history."""
    spec = replace(SPEC, post="3d")
    outcomes = measure(HISTORY, spec)
    assert outcomes.ipc_weight[outcomes.control].max() > 3.0
    write_buckets(HISTORY, tmp_path, 4)
    whole = by_decision(HISTORY, DidReward(spec).fit(HISTORY).transform(HISTORY))
    assert np.isfinite(whole["reward"]).sum() > 300
    assert_same_bits(over_buckets(open_buckets(tmp_path).paths, spec, run_locally), whole)


@pytest.mark.slow
def test_a_pool_gives_the_same_bits(folders):
    here, pool = (over_buckets(folders[4], SPEC, run) for run in (run_locally, make_engine("processes", 2)))
    assert_same_bits(pool, here)


@pytest.mark.slow
def test_ray_gives_the_same_bits(folders, monkeypatch):
    monkeypatch.setenv("RAY_USAGE_STATS_ENABLED", "0")
    pytest.importorskip("ray.data", reason="Ray is not installed")
    here = over_buckets(folders[4], SPEC, run_locally)
    assert_same_bits(over_buckets(folders[4], SPEC, make_engine("ray", 2)), here)


def test_preprocessing_is_passed_in_where_it_has_to_be_fitted(folders):
    """Limits, strata and fallback: with the whole history's preprocessing, rewards are the whole history's again."""
    goals = (replace(MARKET.goals[0], winsor=0.9), *MARKET.goals[1:])
    spec = replace(SPEC, goals=goals, matching=Matching(strata=3, activity="5d"), min_controls=60)
    with pytest.raises(ConfigError, match=r"winsor quantile of 'order:\*', strata from all users at once"):
        fit_did(folders[4], spec, run_locally)
    model = DidReward(spec).fit(HISTORY)
    whole = by_decision(HISTORY, model.transform(HISTORY))
    assert (
        len(np.unique(whole["level"])) == 3
    )  # some cells fell back to wider ones, some had too few controls at any level
    assert_same_bits(over_buckets(folders[4], spec, run_locally, measure(HISTORY, spec).preprocessing), whole)


@pytest.mark.parametrize("seed", range(5))
def test_sums_add_up_to_those_of_all_users(seed):
    """Random changes of very different sizes, in cells that some buckets lack; equal changes, single controls."""
    rng = np.random.default_rng(seed)
    n = 300
    change = np.round(rng.normal(0, 1, n), 2) * 10.0 ** rng.integers(-5, 5, n)
    cell = rng.integers(0, 40, n)
    change[cell == 7] = 0.125
    closes = rng.integers(0, 10**9, n)
    parts = rng.integers(0, 6, n)
    weight = rng.choice([1.0, 1.0 / 0.7, 1.0 / 0.03], n)
    whole = ControlSums.from_controls(MeasuredControls(change, cell, closes, weight))
    added = None
    for part in rng.permutation(6):
        mine = ControlSums.from_controls(
            MeasuredControls(*(column[parts == part] for column in (change, cell, closes, weight)))
        )
        added = mine if added is None else added + mine
    for name in ("cell", "n", "smallest", "largest", "closes_at", "mean", "unit"):
        assert getattr(added, name).tobytes() == getattr(whole, name).tobytes(), name
    for code, mean in zip(whole.cell, whole.mean, strict=True):
        expected = np.average(change[cell == code], weights=weight[cell == code])
        assert mean == pytest.approx(expected, rel=1e-9, abs=1e-9)


def test_nothing_to_fit_on_and_too_large_sums_are_refused():
    with pytest.raises(ConfigError, match="no buckets"):
        fit_did([], SPEC, run_locally)
    large = ExactSums(np.array([2**61]), np.array([0]))
    with pytest.raises(ConfigError, match="too large"):
        ExactSums.combine([large, large], np.array([0, 0]), 1)


def test_a_goal_may_be_absent_from_a_bucket(tmp_path):
    """An event that only one user has is measured as 0 in the other buckets, not refused."""
    rare = np.flatnonzero(HISTORY.events.event == HISTORY.event_names.index("order:food"))
    keep = np.ones(len(HISTORY.events), dtype=bool)
    keep[rare[HISTORY.events.user[rare] != HISTORY.events.user[rare[0]]]] = False
    history = replace(HISTORY, events=take_rows(HISTORY.events, keep))
    spec = replace(SPEC, goals=(Goal("order:food"), Goal("visit:*", 0.1)))
    write_buckets(history, tmp_path, 4)
    whole = by_decision(history, DidReward(spec).fit(history).transform(history))
    assert_same_bits(over_buckets(open_buckets(tmp_path).paths, spec, run_locally), whole)
