"""Shares of a level, and detectable effects against simulation."""

from __future__ import annotations

import numpy as np
import pytest
import scipy.stats

from crosschannel.reward.effects import Effect
from crosschannel.reward.funnel.effects import Share, share_of
from crosschannel.reward.funnel.inference import detectable_effect, is_testable, p_value, shares_of_level

pytestmark = pytest.mark.numerics


def effect(value: float, se: float, users: int = 400) -> Effect:
    return Effect("all", value, se, n_treated=1000, n_controls=1000, n_users=users)


def test_p_values_are_those_of_student():
    assert p_value(effect(0.2, 0.1, 31)) == pytest.approx(2 * scipy.stats.t.sf(2.0, 30))
    for wrong in (effect(np.nan, np.nan), effect(0.1, 0.0), effect(0.1, np.inf), effect(0.1, 0.1, 19)):
        assert np.isnan(p_value(wrong))
        assert np.isnan(detectable_effect(wrong))
        assert not is_testable(wrong)


def test_weights_divide_the_level_among_what_was_tested():
    p = np.array([0.03, 0.2, np.nan, 0.004])
    np.testing.assert_allclose(shares_of_level(p, np.array([2.0, 1.0, 5.0, 1.0])), [0.5, 0.25, np.nan, 0.25])


@pytest.mark.parametrize("share", [1.0, 1 / 6])
def test_detectable_effects_are_found_in_80_percent(share):
    """Exactly, by the distribution of the estimate: less the vanishing chance of rejecting on the other side."""
    least = detectable_effect(effect(0.0, 0.1, 100_000), share)
    limit = scipy.stats.norm.isf(0.05 * share / 2) * 0.1
    assert scipy.stats.norm.sf((limit - least) / 0.1) == pytest.approx(0.8, abs=1e-4)


def test_shares_equal_wilson_where_messages_are_independent():
    proportion = pytest.importorskip("statsmodels.stats.proportion")
    rng = np.random.default_rng(1)
    for rate in (0.003, 0.02, 0.5):
        values = (rng.random(5000) < rate).astype(float)
        share = share_of(values, np.arange(5000), np.ones(5000, bool), "all")
        low, high = proportion.proportion_confint(values.sum(), 5000, method="wilson")
        assert (share.low, share.high) == pytest.approx((low, high), rel=2e-3)
        assert share.se == pytest.approx(np.sqrt(values.var() / 5000), rel=1e-3)


def test_shares_of_none_and_all_have_an_interval():
    for value in (0.0, 1.0):
        share = share_of(np.full(200, value), np.arange(200), np.ones(200, bool), "all")
        assert share.low <= value <= share.high
        assert share.high - share.low == pytest.approx(0.019, abs=0.001)  # 3.84 / 200
    nothing = share_of(np.full(5, np.nan), np.arange(5), np.ones(5, bool), "all")
    assert isinstance(nothing, Share)
    assert np.isnan([nothing.value, nothing.low, nothing.high]).all()
    assert nothing.n_without == 5


def test_a_log_without_the_event_counts_each_user_once():
    """Whoever complains does so after each message, with a probability of 1 %: 37 % of these logs have no complaint."""
    user, inside = np.repeat(np.arange(100), 20), []
    for seed in range(300):
        own = np.random.default_rng(seed).random(100) < 0.01
        share = share_of(own[user].astype(float), user, np.ones(2000, bool), "all")
        inside.append(share.low <= 0.01 <= share.high)
    assert np.mean(inside) > 0.88  # Wilson's interval for 100 users covers in .921


def test_users_who_repeat_themselves_widen_the_interval():
    rng = np.random.default_rng(2)
    own = (rng.random(300) < 0.2).astype(float)
    once = share_of(own, np.arange(300), np.ones(300, bool), "all")
    often = share_of(np.repeat(own, 10), np.repeat(np.arange(300), 10), np.ones(3000, bool), "all")
    assert (often.low, often.high) == pytest.approx((once.low, once.high), rel=1e-2)


@pytest.mark.slow
@pytest.mark.parametrize("rate", [0.01, 0.05, 0.3])
def test_intervals_of_shares_cover_for_rare_and_repeated_events(rate):
    """1,000 logs of 300 users with 1 to 4 messages; a user's messages have a common rate. Wilson's are .93 to .98."""
    inside = []
    for seed in range(1000):
        rng = np.random.default_rng(seed)
        user = np.repeat(np.arange(300), rng.integers(1, 5, 300))
        own = rng.beta(rate * 5, (1 - rate) * 5, 300)
        share = share_of((rng.random(len(user)) < own[user]).astype(float), user, np.ones(len(user), bool), "all")
        inside.append(share.low <= rate <= share.high)
    assert 0.93 <= np.mean(inside) <= 0.98
