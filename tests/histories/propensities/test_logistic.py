"""Logistic regression and Newton's method: convergence by the score, against statsmodels and closed forms."""

from __future__ import annotations

import numpy as np
import pytest
from scipy.optimize import brentq
from scipy.special import expit

from crosschannel.core.arrays import BoolArray, FloatArray
from crosschannel.core.errors import NotIdentified
from crosschannel.histories.propensities.calibration import PlattScaling, softmax
from crosschannel.histories.propensities.logistic import Logistic
from crosschannel.histories.propensities.newton import MAX_STEPS, TOLERANCE, maximise

pytestmark = pytest.mark.numerics

RIDGE = 1e-10


def sample(seed: int, n: int = 500) -> tuple[FloatArray, BoolArray, FloatArray]:
    """Columns, outcomes and weights of a model that holds."""
    rng = np.random.default_rng(seed)
    x = rng.standard_normal((n, 3))
    return x, rng.random(n) < expit(x @ [1.0, -0.5, 0.0] - 1.0), rng.uniform(0.5, 2.0, n)


def standard_errors_from_maximum(model: Logistic, x: FloatArray, y: BoolArray, w: FloatArray, ridge: float) -> float:
    """The score in its own scale."""
    design = np.concatenate([np.ones((len(x), 1)), x], axis=1)
    penalty = ridge * w.sum() * np.r_[0.0, np.ones(x.shape[1])]
    log_odds = model.logit(x)
    # 1 - p would lose the digits of a p near 1.
    missed = np.where(y, expit(-log_odds), -expit(log_odds))
    score = design.T @ (w * missed) - penalty * model.coefficients
    information = (design * (w * expit(log_odds) * expit(-log_odds))[:, None]).T @ design + np.diag(penalty)
    return float(np.sqrt(score @ np.linalg.solve(information, score)))


@pytest.mark.parametrize("seed", range(3))
def test_coefficients_equal_statsmodels(seed: int) -> None:
    """The ridge moves coefficients by about 1e-10 divided by the information of a row, at least .05 here."""
    api = pytest.importorskip("statsmodels.api")
    x, y, w = sample(seed)
    theirs = api.GLM(y.astype(float), api.add_constant(x), family=api.families.Binomial(), freq_weights=w)
    expected = theirs.fit(tol=1e-14).params
    np.testing.assert_allclose(Logistic.fit(x, y, w).coefficients, expected, atol=1e-8)


@pytest.mark.parametrize("ridge", [RIDGE, 1e-3])
@pytest.mark.parametrize("case", ["plain", "other units", "collinear", "constant", "separated", "nearly separated"])
def test_the_score_vanishes_at_the_fit(case: str, ridge: float) -> None:
    """A score within rounding of 0: at most 1e-8 standard errors, as the last step begins below 1e-7.

    Where ridge alone determines a direction, its information is 1e-10 of the others', and rounding of the score of
    1e-16 in a row counts as 1e-16 / 1e-5 standard errors of it, times the root of the rows.
    """
    x, y, w = sample(4)
    if case == "other units":
        x = x * [1e3, 1e-3, 1.0]
    elif case == "collinear":
        x = np.c_[x, x[:, 0] - x[:, 1]]
    elif case == "constant":
        x = np.c_[x, np.ones(len(x))]
    elif case == "separated":
        y = x[:, 0] > 0.3
    elif case == "nearly separated":
        x = np.c_[x, y & (x[:, 0] > 0.5)]
    model = Logistic.fit(x, y, w, ridge=ridge)
    assert standard_errors_from_maximum(model, x, y, w, ridge) < 1e-8


def test_separated_outcomes_have_the_coefficient_that_the_ridge_allows() -> None:
    r"""Outcomes 1 at x = 1 and 0 at x = -1: the maximum is where :math:`1 / (1 + e^\beta)` equals ridge times beta."""
    x, y = np.repeat([[1.0], [-1.0]], 20, axis=0), np.repeat([True, False], 20)
    for ridge in (RIDGE, 1e-3):
        expected = brentq(lambda b, r=ridge: np.log(expit(-b)) - np.log(r * b), 1e-3, 50.0, xtol=1e-12)
        intercept, slope = Logistic.fit(x, y, ridge=ridge).coefficients
        assert slope == pytest.approx(expected, rel=1e-6)  # 1e-16, the rounding of the score, divided by the ridge
        assert intercept == pytest.approx(0.0, abs=1e-6)


def test_the_order_of_rows_changes_no_probability_beyond_rounding() -> None:
    """Sums of 500 terms in another order differ by about 1e-15, times the condition of the fit: below 100 here."""
    x, y, w = sample(5)
    order = np.random.default_rng(0).permutation(len(y))
    again = Logistic.fit(x[order], y[order], w[order]).predict(x)
    np.testing.assert_allclose(again, Logistic.fit(x, y, w).predict(x), atol=1e-12)


@pytest.mark.parametrize("weight", [0.0, 1.0])
def test_a_single_outcome_is_not_identified(weight: float) -> None:
    with pytest.raises(NotIdentified, match="every decision made the same choice"):
        Logistic.fit(np.zeros((3, 1)), np.array([True, True, True]), np.full(3, weight))


def test_steps_that_go_too_far_are_halved() -> None:
    """From 2 a whole step of Newton's method on -log cosh leads to -11.6, and from there on to infinity."""

    def derivatives(t: FloatArray) -> tuple[FloatArray, FloatArray]:
        return -np.tanh(t), np.diag(1.0 / np.cosh(t) ** 2)

    found = maximise(lambda t: -float(np.log(np.cosh(t[0]))), derivatives, np.array([2.0]))
    assert abs(found[0]) < TOLERANCE**2


def test_a_function_without_maximum_raises() -> None:
    with pytest.raises(NotIdentified, match=f"after {MAX_STEPS} steps .* still 1 standard errors"):
        maximise(lambda t: float(t[0]), lambda t: (np.ones(1), np.eye(1)), np.zeros(1))


def test_platt_scaling_is_at_its_maximum() -> None:
    """The gradient of its density by differences; their error is 1e-6 squared and rounding divided by 1e-6."""
    rng = np.random.default_rng(6)
    score, eligible = rng.standard_normal((300, 3)), rng.random((300, 3)) < 0.8
    eligible[:, 0] = True
    p = softmax(score, eligible)
    taken = np.minimum((p.cumsum(1) < rng.random(300)[:, None]).sum(1), 2)
    taken = np.where(eligible[np.arange(300), taken], taken, 0)
    before = np.array([0.0, 0.5, -0.5])
    fitted = PlattScaling.fit(before, 2.0 * score, eligible, taken)

    def density(slope: float, offset: FloatArray) -> float:
        chance = PlattScaling(slope, offset).predict(2.0 * score, eligible)[np.arange(300), taken]
        return float(np.log(chance).sum() - 0.5 * ((slope - 1.0) ** 2 + ((offset - before) ** 2).sum()))

    h = 1e-6
    for k, unit in enumerate(np.eye(4)):
        up, down = (density(fitted.slope + s * unit[0], fitted.offset + s * unit[1:]) for s in (h, -h))
        assert (up - down) / (2 * h) == pytest.approx(0.0, abs=1e-6), k
