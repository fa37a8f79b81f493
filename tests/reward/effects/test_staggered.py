"""Group-time effects on the published data, and on panels with a known truth."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest

from crosschannel.core.errors import ConfigError, NotIdentified
from crosschannel.reward.effects.staggered import NEVER, Panel, aggregate, group_time_effects
from tests import SHARED_DATA

pytestmark = pytest.mark.numerics

MPDTA = SHARED_DATA / "did" / "mpdta.csv.gz"
PUBLISHED = {
    (2004, 2004): -0.0105,
    (2004, 2005): -0.0704,
    (2004, 2006): -0.1373,
    (2004, 2007): -0.1008,
    (2006, 2004): 0.0065,
    (2006, 2005): -0.0028,
    (2006, 2006): -0.0046,
    (2006, 2007): -0.0412,
    (2007, 2004): 0.0305,
    (2007, 2005): -0.0027,
    (2007, 2006): -0.0311,
    (2007, 2007): -0.0261,
}
OVERALL = {"simple": -0.0400, "dynamic": -0.0772, "group": -0.0310, "calendar": -0.0417}


def mpdta() -> Panel:
    if not MPDTA.is_file():
        pytest.skip("the county data are not beside the checkout")
    table = pd.read_csv(MPDTA)
    return Panel.from_long(table, unit="countyreal", period="year", outcome="lemp", first="first.treat")


def test_all_published_group_time_effects():
    effects = group_time_effects(mpdta())
    found = dict(zip(zip(effects.group.tolist(), effects.period.tolist(), strict=True), effects.att, strict=True))
    assert set(found) == set(PUBLISHED)
    for key, value in PUBLISHED.items():
        assert round(found[key], 4) == value, key


@pytest.mark.parametrize("how", list(OVERALL))
def test_all_published_aggregations(how):
    overall, _ = aggregate(group_time_effects(mpdta()), how)
    assert round(overall.value, 4) == OVERALL[how]
    # The one error that is published with them; all others are held to another implementation below.
    if how == "simple":
        assert overall.se == pytest.approx(0.0120, rel=0.15)


@pytest.mark.parametrize(("control", "theirs"), [("never", "never_treated"), ("not_yet", "not_yet_treated")])
@pytest.mark.parametrize("data", ["counties", "simulated"])
def test_effects_and_errors_equal_diff_diff(control, theirs, data):
    """All group-time effects, the simple aggregation, every event time and every group, with their errors."""
    diff_diff = pytest.importorskip("diff_diff")
    panel = mpdta() if data == "counties" else simulated(3, units=200)
    units, periods = panel.outcome.shape
    table = pd.DataFrame(
        {
            "unit": np.repeat(np.arange(units), periods),
            "time": np.tile(panel.period, units),
            "first": np.repeat(np.where(panel.first == NEVER, 0, panel.first), periods),
            "y": panel.outcome.reshape(-1),
        }
    )
    fit = diff_diff.CallawaySantAnna(control_group=theirs).fit(table, "y", "unit", "time", "first")
    effects = group_time_effects(panel, control)
    expected = {(int(g), int(t)): (e["effect"], e["se"]) for (g, t), e in fit.group_time_effects.items()}
    pairs = zip(effects.group.tolist(), effects.period.tolist(), strict=True)
    found = dict(zip(pairs, zip(effects.att, effects.se, strict=True), strict=True))
    assert set(found) == set(expected)
    for key, value in expected.items():
        assert found[key] == pytest.approx(value, abs=1e-10), key
    for how, name in (("simple", "simple"), ("dynamic", "event_study"), ("group", "group")):
        overall, entries = aggregate(effects, how)
        other = fit.aggregate(name)
        mine = [overall] if how == "simple" else entries
        assert [e.value for e in mine] == pytest.approx(other.att.tolist(), abs=1e-10)
        assert [e.se for e in mine] == pytest.approx(other.se.tolist(), abs=1e-10)


@pytest.mark.parametrize("how", ["simple", "dynamic", "group", "calendar"])
def test_errors_of_aggregations_equal_the_spread_of_a_bootstrap(how):
    """No other implementation at hand states the errors of all four: 1,000 draws of units; its own error is 2.2 %."""
    panel, rng = simulated(4, units=200), np.random.default_rng(0)
    overall, _ = aggregate(group_time_effects(panel), how)
    drawn = []
    for _ in range(1000):
        rows = rng.integers(0, 200, 200)
        drawn.append(aggregate(group_time_effects(Panel(panel.outcome[rows], panel.period, panel.first[rows])), how)[0])
    assert overall.se == pytest.approx(np.std([one.value for one in drawn]), rel=0.08)


def test_units_with_missing_outcomes_are_left_out():
    """Missing outcomes give what the panel without those units gives, entry by entry."""
    panel = simulated(2)
    missing = np.random.default_rng(0).random(len(panel.first)) < 0.3
    outcome = panel.outcome.copy()
    outcome[missing, 4:] = np.nan
    with_gaps = group_time_effects(Panel(outcome, panel.period, panel.first))
    whole, rest = (
        group_time_effects(Panel(panel.outcome[rows], panel.period, panel.first[rows]))
        for rows in (np.ones_like(missing), ~missing)
    )
    late = with_gaps.period > 4
    np.testing.assert_allclose(with_gaps.att[late], rest.att[late])
    np.testing.assert_allclose(with_gaps.se[late], rest.se[late])
    np.testing.assert_allclose(with_gaps.att[~late], whole.att[~late])


def test_groups_too_small_for_a_variance_are_left_out_and_counted():
    panel = simulated(5)
    first = panel.first.copy()
    third = np.flatnonzero(first == 3)
    first[third[4:]] = NEVER
    effects = group_time_effects(Panel(panel.outcome, panel.period, first))
    assert effects.n_small == 6
    assert set(effects.group.tolist()) == {5}


def simulated(seed: int, units: int = 600, effect: float = 1.0, trend: float = 0.0) -> Panel:
    """Groups treated from periods 3 and 5 or never; the effect grows by `effect` with each treated period."""
    rng = np.random.default_rng(seed)
    first = rng.choice([3, 5, NEVER], units)
    period = np.arange(1, 8)
    since = np.where(first[:, None] == NEVER, -1, period[None, :] - np.where(first == NEVER, 0, first)[:, None])
    level = rng.standard_normal(units)[:, None] + np.where(first == 3, 1.0, 0.0)[:, None]
    drift = trend * (first[:, None] == 3) * period[None, :]
    outcome = level + 0.3 * period + drift + effect * np.maximum(since + 1, 0) + rng.standard_normal((units, 7)) * 0.5
    return Panel(outcome, period, first)


@pytest.mark.parametrize("control", ["never", "not_yet"])
def test_dynamic_effects_are_the_truth(control):
    overall, entries = aggregate(group_time_effects(simulated(0), control), "dynamic")
    for entry in entries:
        truth = max(int(entry.label) + 1, 0)
        assert abs(entry.value - truth) < 3.5 * entry.se, entry.label
    assert abs(overall.value - 3.0) < 3 * overall.se  # event times 0 to 4: the mean of 1 to 5


def test_pre_trend_test_distinguishes_a_trend_from_none():
    test = group_time_effects(simulated(1)).pre_trends()
    assert test.freedom == 4  # periods 2 for group 3; 2, 3 and 4 for group 5
    assert test.p_value > 0.01
    assert group_time_effects(simulated(1, trend=0.5)).pre_trends().p_value < 1e-6


@pytest.mark.slow
def test_intervals_cover():
    """500 panels, 95 % intervals: binomial error 1 %, so 93 to 97 % is two errors."""
    # Simple aggregation of the true effects, at equal shares of the two groups: 1 to 5 and 1 to 3 periods.
    truth = (sum(range(1, 6)) + sum(range(1, 4))) / 8
    hits = []
    for seed in range(500):
        overall, _ = aggregate(group_time_effects(simulated(seed, units=300)), "simple")
        hits.append(overall.low <= truth <= overall.high)
    assert 0.93 <= np.mean(hits) <= 0.97


@pytest.mark.parametrize("treated", [5, 10])
def test_intervals_cover_with_few_treated_users(treated):
    """400 panels without any effect, binomial error 1.1 %. A normal quantile covers .86 with 5 users, .90 with 10."""
    rng, first = np.random.default_rng(0), np.r_[np.full(treated, 2), np.full(100, NEVER)]
    alone, together = [], []
    for _ in range(400):
        effects = group_time_effects(Panel(rng.normal(size=(len(first), 3)), np.arange(1, 4), first))
        alone.append(abs(effects.att[0]) <= effects.margin[0])
        overall, _ = aggregate(effects, "simple")
        together.append(overall.low <= 0 <= overall.high)
    assert min(np.mean(alone), np.mean(together)) > 0.915


def test_wrong_panels_are_explained():
    table = pd.DataFrame({"u": [1, 1, 2], "t": [1, 2, 1], "y": [0.0, 1.0, 0.0], "g": [2, 2, 0]})
    with pytest.raises(ConfigError, match="not balanced"):
        Panel.from_long(table, "u", "t", "y", "g")
    table = pd.DataFrame({"u": [1, 1, 2, 2], "t": [1, 2, 1, 2], "y": [0.0, 1.0, 0.0, 1.0], "g": [2, 1, 0, 0]})
    with pytest.raises(ConfigError, match="more than one value"):
        Panel.from_long(table, "u", "t", "y", "g")
    with pytest.raises(NotIdentified):
        group_time_effects(Panel(np.zeros((4, 3)), np.arange(3), np.full(4, NEVER)))
