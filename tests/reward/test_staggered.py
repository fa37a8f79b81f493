"""Group-time effects on the published data, and on panels with a known truth."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from histories.errors import ConfigError, NotIdentified
from reward.inference import chi_square_tail
from reward.staggered import NEVER, Panel, aggregate, group_time_effects

MPDTA = Path(__file__).resolve().parents[2] / ".." / "shared" / "data" / "did" / "mpdta.csv.gz"
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
    if how == "simple":
        assert overall.se == pytest.approx(0.0120, rel=0.15)


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


def test_pre_trend_test_tells_a_trend_from_none():
    _, freedom, p = group_time_effects(simulated(1)).pre_trends()
    assert freedom == 4  # periods 2 for group 3; 2, 3 and 4 for group 5
    assert p > 0.01
    assert group_time_effects(simulated(1, trend=0.5)).pre_trends()[2] < 1e-6


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


def test_chi_square_tail_equals_scipy():
    stats = pytest.importorskip("scipy.stats")
    for freedom in (1, 2, 3, 6, 7, 15):
        for value in (0.1, 1.0, 5.0, 20.0, 60.0):
            assert chi_square_tail(value, freedom) == pytest.approx(stats.chi2.sf(value, freedom), rel=1e-9)


def test_wrong_panels_are_explained():
    table = pd.DataFrame({"u": [1, 1, 2], "t": [1, 2, 1], "y": [0.0, 1.0, 0.0], "g": [2, 2, 0]})
    with pytest.raises(ConfigError, match="not balanced"):
        Panel.from_long(table, "u", "t", "y", "g")
    table = pd.DataFrame({"u": [1, 1, 2, 2], "t": [1, 2, 1, 2], "y": [0.0, 1.0, 0.0, 1.0], "g": [2, 1, 0, 0]})
    with pytest.raises(ConfigError, match="more than one value"):
        Panel.from_long(table, "u", "t", "y", "g")
    with pytest.raises(NotIdentified):
        group_time_effects(Panel(np.zeros((4, 3)), np.arange(3), np.full(4, NEVER)))
