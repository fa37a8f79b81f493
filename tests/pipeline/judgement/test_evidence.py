"""What the report shows beside the estimates: shares, periods, weights and calibration, by hand-computed examples."""

from __future__ import annotations

import json
import math

import numpy as np
import pytest

from crosschannel.core import ActionSpace, ConfigError, Module
from crosschannel.core.times import DAY, WEEK
from crosschannel.evaluation import CalibrationBin, WeightBin, calibration_bins, weight_bins
from crosschannel.pipeline.judgement.evidence import action_shares, expected_of_actions, shares_by_period
from crosschannel.pipeline.judgement.records import ActionShare, EventBin, Evidence

MODULES = ActionSpace([Module("channel", ("none", "email")), Module("tone", ("plain", "warm"))])
ACTIONS = np.array([[0, 0], [1, 0], [1, 1], [1, 1]])
CHANNEL = np.array([[0.5, 0.5], [1.0, 0.0], [0.0, 1.0], [0.0, 1.0]])
TONE = np.array([[0.2, 0.8], [0.5, 0.5], [1.0, 0.0], [0.4, 0.6]])


def shares_of(rows):
    return {(row.period, row.module, row.action): (row.logged, row.policy, row.decisions) for row in rows}


def test_shares_of_later_modules_are_of_the_messages():
    found = shares_of(action_shares(MODULES, ACTIONS, [CHANNEL, TONE]))
    assert found["", "channel", "none"] == pytest.approx((0.25, 1.5 / 4, 4))
    assert found["", "channel", "email"] == pytest.approx((0.75, 2.5 / 4, 4))
    # The policy sends half a message, none, one and one: .5 x .2 + 1 x 1 + 1 x .4 of them are plain.
    assert found["", "tone", "plain"] == pytest.approx((1 / 3, 1.5 / 2.5, 4))
    assert found["", "tone", "warm"] == pytest.approx((2 / 3, 1.0 / 2.5, 4))


def test_shares_are_nan_where_nothing_is_sent():
    silent = np.array([[1.0, 0.0]] * 4)
    found = shares_of(action_shares(MODULES, np.zeros((4, 2), dtype=np.int64), [silent, TONE]))
    assert found["", "channel", "none"] == (1.0, 1.0, 4)
    assert all(math.isnan(value) for value in found["", "tone", "plain"][:2])


@pytest.mark.parametrize(
    ("length", "names"), [(DAY, ["1970-01-04", "1970-01-05"]), (WEEK, ["1970-01-04", "1970-01-18"])]
)
def test_periods_are_days_in_short_logs_and_weeks_in_long_ones(length, names):
    start = 3 * DAY + DAY // 2
    time = start + np.array([0, 0, 2 if length == WEEK else 1, 2 if length == WEEK else 1]) * length
    rows = shares_by_period(MODULES, ACTIONS, [CHANNEL, TONE], time)
    found = shares_of(rows)
    assert list(dict.fromkeys(row.period for row in rows)) == names
    assert {row.module for row in rows} == {"channel"}
    assert found[names[0], "channel", "none"] == pytest.approx((0.5, 0.75, 2))
    assert found[names[1], "channel", "email"] == pytest.approx((1.0, 1.0, 2))
    assert shares_by_period(MODULES, ACTIONS[:0], [CHANNEL[:0], TONE[:0]], time[:0]) == ()


def test_bins_of_weights_count_every_decision_once():
    weights = np.array([-1.0, 0.0, 0.5, 1.0, 1.5, 60.0])
    bins = weight_bins(weights)
    assert sum(each.decisions for each in bins) == 6
    assert sum(each.squared_share for each in bins) == pytest.approx(1.0)
    assert [each.decisions for each in bins] == [2, 1, 1, 1, 0, 0, 0, 0, 1]
    assert (bins[0].high, bins[-1].low) == (0.0, 50.0)
    assert math.isnan(bins[0].low)
    assert math.isnan(bins[-1].high)
    assert bins[-1].squared_share == pytest.approx(3600 / (1 + 0.25 + 1 + 2.25 + 3600))


def test_without_decisions_there_are_no_bins():
    assert weight_bins(np.zeros(0)) == ()


def test_calibration_by_hand():
    # Five bins of ten messages of ten users, each user with two messages per bin of equal rewards.
    n, users = 100, 10
    expected = np.repeat(np.arange(5.0), n // 5)
    user = np.tile(np.repeat(np.arange(users), 2), 5)
    rewards = expected + np.where(user % 2, 0.3, -0.3)
    bins = calibration_bins(expected, rewards, np.ones(n), user)
    assert [each.expected for each in bins] == pytest.approx([0, 1, 2, 3, 4])
    assert [each.observed for each in bins] == pytest.approx([0, 1, 2, 3, 4])
    # Each user's sum deviates by .6; the error is sqrt(10/9 x 10 x .36) / 20, with 9 degrees of freedom.
    assert [each.high - each.observed for each in bins] == pytest.approx([2.2621572 * 0.1] * 5)
    assert [each.messages for each in bins] == [20] * 5


def test_calibration_leaves_out_bins_of_few_users():
    expected = np.arange(50.0)
    user = np.concatenate([np.zeros(10, int), np.arange(40)])
    bins = calibration_bins(expected, expected, np.ones(50), user)
    assert [each.messages for each in bins] == [10] * 4
    assert calibration_bins(expected[:0], expected[:0], expected[:0], user[:0]) == ()


def test_calibration_intervals_cover_the_mean_of_independent_users():
    rng = np.random.default_rng(100)
    inside = []
    for _ in range(200):
        user = np.repeat(np.arange(100), 5)
        expected = rng.normal(size=500)
        rewards = expected + rng.normal(size=100)[user] + rng.normal(size=500)
        for each in calibration_bins(expected, rewards, np.ones(500), user):
            inside.append(each.low <= each.expected <= each.high)
    # 1,000 intervals of .95, five of a log dependent at worst: six standard errors of 200 logs.
    assert abs(np.mean(inside) - 0.95) < 6 * math.sqrt(0.95 * 0.05 / 200)


def test_parts_add_up_to_the_expected_reward_of_a_message():
    channel = np.array([[[0.0, 2.0]] * 2, [[0.0, 4.0]] * 2])  # two estimates, whose mean is 3
    tone = np.array([[[1.0, 5.0], [1.0, np.nan]]])
    p = [np.array([[0.0, 1.0]] * 2), np.array([[0.25, 0.75], [1.0, 0.0]])]
    found = expected_of_actions(MODULES, [channel, tone], p, np.array([[1, 1], [1, 0]]))
    # 3 + 5 - (.25 x 1 + .75 x 5), and 3 + 1 - 1: an action that the policy never takes has no estimate.
    assert found == pytest.approx([4.0, 3.0])


def test_parts_given_a_condition():
    modules = ActionSpace(
        [Module("channel", ("none", "email", "push")), Module("tone", ("plain", "warm"), condition_on="channel")]
    )
    channel = np.array([[[0.0, 2.0, 3.0]]])
    tone = np.array([[[[9.0, 9.0], [1.0, 5.0], [7.0, 8.0]]]])
    p = [np.array([[0.0, 0.5, 0.5]]), np.array([[[0.5, 0.5], [1.0, 0.0], [0.25, 0.75]]])]
    # Given the log's push, the policy chooses plain with probability .25.
    assert expected_of_actions(modules, [channel, tone], p, np.array([[2, 1]])) == pytest.approx([3 + 8 - 7.75])


def test_evidence_is_the_same_after_json():
    evidence = Evidence(
        (ActionShare("", "channel", "none", 0.5, math.nan, 4),),
        (WeightBin(math.nan, 0.0, 3, 0.1, 0.2), WeightBin(50.0, math.nan, 3, 0.1, 0.2)),
        (CalibrationBin(0.1, 0.2, 0.0, 0.4, 20),),
        (EventBin(-2.0, 0.1, 0.0, math.nan, True),),
        "Pre-trends passed.",
    )
    text = json.dumps(evidence.to_dict(), allow_nan=False)
    assert repr(Evidence.from_dict(json.loads(text))) == repr(evidence)
    with pytest.raises(ConfigError, match="evidence"):
        Evidence.from_dict(
            {"shares": [{"period": 3}], "weights": [], "calibration": [], "events": [], "pre_trends": ""}
        )
