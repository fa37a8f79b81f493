"""Calibration of predictions: against statsmodels, with known truth, and where it cannot be told."""

from __future__ import annotations

import numpy as np
import pytest

from crosschannel.core.errors import ConfigError
from crosschannel.reward.funnel import calibration

pytestmark = pytest.mark.numerics


def draw(seed: int, slope: float = 1.0, intercept: float = 0.0, users: int = 150) -> tuple[np.ndarray, ...]:
    """Predictions, rewards whose noise users share, and weights that do not depend on them."""
    rng = np.random.default_rng(seed)
    user = np.sort(rng.integers(0, users, users * 6))
    taste = rng.normal(0.0, 0.1, users)
    predicted = 0.1 + taste[user] + rng.normal(0.0, 0.1, len(user))
    noise = rng.normal(0.0, 0.5, users)[user] + rng.standard_t(5, len(user))
    return (
        intercept + slope * predicted + noise,
        predicted,
        user,
        rng.integers(0, 3, len(user)),
        rng.uniform(0.5, 2, len(user)),
    )


@pytest.mark.parametrize("weighted", [False, True])
def test_it_equals_clustered_least_squares_of_statsmodels(weighted):
    api = pytest.importorskip("statsmodels.api")
    reward, predicted, user, _, weight = draw(0)
    weights = weight if weighted else None
    line = calibration(reward, predicted, user, weights=weights).overall
    model = api.WLS(reward, api.add_constant(predicted), weight if weighted else np.ones(len(reward)))
    n = len(reward)
    fitted = model.fit(cov_type="cluster", cov_kwds={"groups": user, "use_correction": True})
    np.testing.assert_allclose((line.intercept, line.slope), fitted.params, rtol=1e-9)
    # Its correction has another factor, (n - 1) / (n - 2), for the two coefficients.
    errors = np.array([line.intercept_error, line.slope_error]) * np.sqrt((n - 1) / (n - 2))
    np.testing.assert_allclose(errors, fitted.bse, rtol=1e-9)


def test_it_recovers_slope_and_intercept_by_group():
    rng = np.random.default_rng(1)
    reward, predicted, user, group, _ = draw(1, users=4000)
    reward = reward + np.where(group == 2, 0.3 - predicted, 0.0)  # group 2 has slope 0 and intercept .3
    found = calibration(reward, predicted, user, group, names=("email", "push", "sms"))
    assert [line.label for line in found.groups] == ["email", "push", "sms"]
    for line, slope, intercept in zip(found.groups, (1.0, 1.0, 0.0), (0.0, 0.0, 0.3), strict=True):
        assert line.slope == pytest.approx(slope, abs=4 * line.slope_error)
        assert line.intercept == pytest.approx(intercept, abs=4 * line.intercept_error)
        assert line.slope_error < 0.2
    assert sum(line.n for line in found.groups) == found.overall.n == len(reward)
    del rng


def test_deciles_go_from_low_to_high_and_hold_all_decisions():
    reward, predicted, user, *_ = draw(2)
    found = calibration(reward, predicted, user)
    assert len(found.deciles) == 10
    assert sum(line.n for line in found.deciles) == len(reward)
    assert max(line.n for line in found.deciles) - min(line.n for line in found.deciles) <= 1
    means = [line.mean_predicted for line in found.deciles]
    assert means == sorted(means)
    first = predicted <= np.sort(predicted)[len(predicted) // 10 - 1]
    assert found.deciles[0].mean_reward == pytest.approx(reward[first].mean(), rel=1e-9)


def test_ties_of_predictions_are_not_divided():
    reward, _, user, *_ = draw(3)
    predicted = np.repeat([0.0, 1.0], len(reward) // 2)
    found = calibration(reward, predicted, user)
    assert [line.mean_predicted for line in found.deciles] == [0.0, 1.0]


def test_missing_numbers_are_left_out_and_counted():
    reward, predicted, user, group, weight = draw(4)
    holes = reward.copy()
    holes[::5], gaps = np.nan, predicted.copy()
    gaps[1::5] = np.nan
    found = calibration(holes, gaps, user, group, weights=weight)
    kept = np.isfinite(holes) & np.isfinite(gaps)
    assert found.left_out == (~kept).sum()
    alone = calibration(reward[kept], predicted[kept], user[kept], group[kept], weights=weight[kept])
    assert found.overall == alone.overall
    assert found.groups == alone.groups


def test_a_prediction_that_is_the_same_for_all_has_no_slope():
    reward, predicted, user, *_ = draw(5)
    found = calibration(reward, np.full_like(predicted, 0.3), user)
    assert np.isnan(found.overall.slope)
    assert found.overall.mean_reward - found.overall.mean_predicted == pytest.approx(reward.mean() - 0.3)
    assert found.overall.mean_error > 0
    assert "not identified" in found.sentence


@pytest.mark.parametrize("n", [0, 1, 2, 12])
def test_few_users_have_no_slope(n):
    found = calibration(np.arange(n, dtype=float), np.arange(n, dtype=float), np.arange(n) % 2)
    assert np.isnan(found.overall.slope)
    assert found.overall.n == n
    assert "-" in found.text()


def test_sentences_say_in_which_direction_predictions_are_wrong():
    for slope, words in ((1.0, "nothing contradicts the predictions"), (0.0, "are too large"), (4.0, "are too small")):
        reward, predicted, user, *_ = draw(6, slope, users=3000)
        assert words in calibration(reward, predicted, user).sentence


def test_units_do_not_matter():
    reward, predicted, user, *_ = draw(7)
    plain, large = (calibration(reward * unit, predicted * unit, user).overall for unit in (1.0, 1e12))
    assert plain.slope == pytest.approx(large.slope, rel=1e-9)
    assert plain.slope_error == pytest.approx(large.slope_error, rel=1e-9)


@pytest.mark.parametrize(
    ("changed", "message"),
    [
        ({"predicted": np.zeros(3)}, "predicted has 3 entries for 900"),
        ({"user": np.zeros(3, int)}, "user has 3"),
        ({"groups": np.zeros(3, int)}, "groups has 3"),
        ({"weights": np.full(900, -1.0)}, "weights must be finite"),
        ({"weights": np.full(900, np.nan)}, "weights must be finite"),
    ],
)
def test_arrays_that_do_not_fit_are_refused(changed, message):
    reward, predicted, user, group, weight = draw(8)
    arguments = {"predicted": predicted, "user": user, "groups": group, "weights": weight} | changed
    with pytest.raises(ConfigError, match=message):
        calibration(reward, **arguments)


def coverage(seeds: int) -> dict[str, float]:
    inside: dict[str, list[bool]] = {"slope": [], "intercept": [], "bias": []}
    for seed in range(seeds):
        line = calibration(*draw(seed, 0.7, 0.03)[:3]).overall
        inside["slope"].append(line.slope_interval[0] <= 0.7 <= line.slope_interval[1])
        inside["intercept"].append(line.intercept_interval[0] <= 0.03 <= line.intercept_interval[1])
        inside["bias"].append(line.bias_interval[0] <= 0.0 <= line.bias_interval[1])
    return {name: float(np.mean(flags)) for name, flags in inside.items()}


def test_intervals_cover_quickly():
    """100 draws: binomial error 2.2 %, so at least 88 % is three errors."""
    assert min(list(coverage(100).values())[:2]) >= 0.88


@pytest.mark.slow
def test_intervals_cover():
    """1,000 draws: binomial error .7 %."""
    found = coverage(1000)
    assert 0.93 <= found["slope"] <= 0.97
    assert 0.93 <= found["intercept"] <= 0.97
