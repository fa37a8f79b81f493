"""Prices of surrogates: against least squares, in any order of windows, and with what has no price."""

from __future__ import annotations

import numpy as np
import pytest
import scipy.optimize

from crosschannel.core.errors import NotIdentified
from crosschannel.reward.funnel import SurrogateIndex

pytestmark = pytest.mark.numerics


def windows(seed: int, n: int = 600, price: tuple[float, ...] = (0.3, 0.05, 0.6)) -> tuple[np.ndarray, np.ndarray]:
    """Counts of surrogates, which come together, and the goals that they end in."""
    rng = np.random.default_rng(seed)
    common = rng.poisson(1.0, n)
    counts = np.stack([rng.poisson(rate, n) + common * (s == 1) for s, rate in enumerate((1.0, 0.5, 0.1))])
    goal = rng.binomial(counts, np.array(price)[:, None]).sum(axis=0) + rng.poisson(0.1, n)
    return goal.astype(np.float64), counts.astype(np.float64)


def fit(goal: np.ndarray, counts: np.ndarray, fold: np.ndarray | None = None, folds: int = 1) -> SurrogateIndex:
    units = np.ldexp(1.0, np.frexp(np.abs(np.vstack([counts, goal])).max(axis=1))[1])
    return SurrogateIndex.fit(goal, counts, np.zeros(len(goal), int) if fold is None else fold, folds, units)


@pytest.mark.parametrize("seed", range(3))
def test_prices_are_least_squares_with_an_intercept(seed):
    goal, counts = windows(seed)
    expected = np.linalg.lstsq(np.vstack([np.ones(len(goal)), counts]).T, goal, rcond=None)[0]
    np.testing.assert_allclose(fit(goal, counts).price[0], expected[1:], rtol=1e-9)


def test_no_price_is_negative():
    """Where least squares would give a negative price, the others are those of the fit without that surrogate."""
    goal, counts = windows(1, price=(0.4, 0.0, 0.5))
    goal = goal - 0.2 * counts[1]
    found = fit(goal, counts).price[0]
    assert found[1] == 0
    np.testing.assert_allclose(found[[0, 2]], fit(goal, counts[[0, 2]]).price[0], rtol=1e-9)
    centred = counts - counts.mean(axis=1, keepdims=True)
    np.testing.assert_allclose(found, scipy.optimize.nnls(centred.T, goal - goal.mean())[0], rtol=1e-6, atol=1e-9)


def test_each_fold_has_the_prices_of_the_others():
    goal, counts = windows(2)
    fold = np.arange(len(goal)) % 3
    found = fit(goal, counts, fold, 3)
    for k in range(3):
        np.testing.assert_allclose(found.price[k], fit(goal[fold != k], counts[:, fold != k]).price[0], rtol=1e-9)


def test_the_order_of_windows_changes_no_bit():
    goal, counts = windows(3)
    goal, fold = goal * 17.3, np.arange(len(goal)) % 4
    order = np.random.default_rng(0).permutation(len(goal))
    one, other = fit(goal, counts, fold, 4), fit(goal[order], counts[:, order], fold[order], 4)
    assert one.price.tobytes() == other.price.tobytes()
    assert one.precision.tobytes() == other.precision.tobytes()


@pytest.mark.parametrize("scale", [1e-9, 1.0, 1e9])
def test_prices_scale_with_the_goal(scale):
    goal, counts = windows(4)
    np.testing.assert_allclose(fit(goal * scale, counts).price, fit(goal, counts).price * scale, rtol=1e-6)


def test_heavy_tails_of_a_goal_are_summed_exactly():
    rng = np.random.default_rng(5)
    _, counts = windows(5)
    goal = counts[0] * rng.lognormal(0.0, 3.0, len(counts[0]))
    centred = counts - counts.mean(axis=1, keepdims=True)
    expected = scipy.optimize.nnls(centred.T, goal - goal.mean())[0]
    assert expected.max() > 1
    np.testing.assert_allclose(fit(goal, counts).price[0], expected, rtol=1e-6)


def test_what_never_varies_has_no_price():
    goal, counts = windows(6)
    constant = np.vstack([counts, np.zeros(len(goal)), np.full(len(goal), 2.0)])
    found = fit(goal, constant).price[0]
    np.testing.assert_allclose(found[:3], fit(goal, counts).price[0], rtol=1e-9)
    assert found[3:].tolist() == [0.0, 0.0]
    assert fit(goal, np.zeros_like(counts)).price.tolist() == [[0.0] * 3]
    assert fit(np.zeros_like(goal), counts).price.tolist() == [[0.0] * 3]


def test_a_surrogate_that_is_named_twice_in_other_words_shares_its_price():
    goal, counts = windows(7)
    found = fit(goal, np.vstack([counts, counts[:1]])).price[0]
    assert found[0] + found[3] == pytest.approx(fit(goal, counts).price[0][0], rel=1e-4)


def test_too_few_windows_are_refused():
    goal, counts = windows(8, n=19)
    with pytest.raises(NotIdentified, match=r"only 19 windows without a message .* and 20 are needed"):
        fit(goal, counts)
    fit(*windows(8, n=20))


def test_influences_are_derivatives_of_the_prices():
    """A user that counts a little more moves the prices by its influence."""
    goal, counts = windows(9, n=400)
    user = np.arange(400) % 50
    index = fit(goal, counts)
    influence = index.influence(goal, counts, user, 50)
    design = np.vstack([np.ones(400), counts])
    for u in (0, 17, 49):
        weight = np.ones(400) + 1e-5 * (user == u)
        moved = np.linalg.solve((design * weight) @ design.T, (design * weight) @ goal)[1:]
        np.testing.assert_allclose((moved - index.price[0]) / 1e-5, influence[u], rtol=1e-3, atol=1e-9)


@pytest.mark.slow
def test_errors_of_prices_are_right():
    """1,000 logs: the standard deviation of prices is their clustered error within 7 % (three errors of 2.2 %)."""
    found, errors = [], []
    for seed in range(1000):
        goal, counts = windows(seed)
        index = fit(goal, counts)
        found.append(index.price[0])
        errors.append(np.sqrt((index.influence(goal, counts, np.arange(600), 600) ** 2).sum(axis=0)))
    np.testing.assert_allclose(np.std(found, axis=0), np.sqrt(np.mean(np.square(errors), axis=0)), rtol=0.07)
    assert (np.abs(np.mean(found, axis=0) - (0.3, 0.05, 0.6)) < 4 * np.std(found, axis=0) / 1000**0.5).all()
