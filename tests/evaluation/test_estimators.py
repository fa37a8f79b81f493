"""Estimators: formulas by hand, truth by enumeration, what they must refuse."""

from __future__ import annotations

import numpy as np
import pytest

from crosschannel.core.arrays import FloatArray
from crosschannel.core.errors import InputError, NotIdentified
from crosschannel.evaluation import DM, DR, ESTIMATORS, IPS, SNIPS, BetaIPS, Sample, SwitchDR, importance_weights
from crosschannel.evaluation.estimators import optimal_baseline
from tests.evaluation.bandit_worlds import CHANNEL, World

pytestmark = pytest.mark.numerics

ONES = np.ones(3)
#: cov(w r, w) / var(w) of `by_hand`, written out; 88.5 is the sum of w r, 24.5 that of w.
BETA = ((0.5 * 0.5 + 2 * 2 * 4 + 20 * 80) - 88.5 * 24.5 / 4) / ((0.25 + 2 * 4 + 400) - 24.5**2 / 4)


def by_hand(**changes: object) -> Sample:
    arrays: dict[str, object] = {
        "rewards": np.array([1.0, 2.0, 4.0]),
        "weights": np.array([0.5, 2.0, 20.0]),
        "counts": np.array([1.0, 2.0, 1.0]),
        "q_logged": np.array([1.0, 1.0, 3.0]),
        "q_policy": np.array([0.0, 1.0, 2.0]),
    }
    return Sample(**{**arrays, **changes})  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("estimator", "expected"),
    [
        (IPS(), (0.5 * 1 + 2 * 2 * 2 + 20 * 4) / 4),
        # w r has the mean 22.125 and w the mean 6.125 over the four counted rows.
        (BetaIPS(), (88.5 - BETA * 24.5) / 4 + BETA),
        (SNIPS(), (0.5 * 1 + 2 * 2 * 2 + 20 * 4) / (0.5 + 2 * 2 + 20)),
        (DM(), (0 + 2 * 1 + 2) / 4),
        (DR(), (0 + 2 * (1 + 2 * 1) + (2 + 20 * 1)) / 4),
        (SwitchDR(threshold=10.0), (0 + 2 * (1 + 2 * 1) + 2) / 4),
        (SwitchDR(threshold=100.0), (0 + 2 * (1 + 2 * 1) + (2 + 20 * 1)) / 4),
    ],
)
def test_formulas_by_hand(estimator, expected):
    assert estimator.value(by_hand()) == pytest.approx(expected, rel=1e-12)


@pytest.mark.parametrize("estimator", ESTIMATORS, ids=lambda e: e.name)
def test_counting_a_decision_twice_is_having_it_twice(estimator):
    rng = np.random.default_rng(0)
    columns = {"rewards": rng.normal(size=50), "weights": rng.exponential(size=50)}
    columns |= {"q_logged": rng.normal(size=50), "q_policy": rng.normal(size=50)}
    counts = rng.integers(0, 4, size=50)
    repeated = {name: np.repeat(array, counts) for name, array in columns.items()}
    counted = estimator.value(Sample(counts=counts.astype(float), **columns))
    assert counted == pytest.approx(estimator.value(Sample(counts=np.ones(counts.sum()), **repeated)), rel=1e-12)


def test_snips_and_beta_ips_move_with_a_constant_and_ips_does_not():
    plain, moved = by_hand(), by_hand(rewards=np.array([1.0, 2.0, 4.0]) + 10.0)
    assert BetaIPS().value(moved) == pytest.approx(BetaIPS().value(plain) + 10.0)
    assert SNIPS().value(moved) == pytest.approx(SNIPS().value(plain) + 10.0)
    assert IPS().value(moved) != pytest.approx(IPS().value(plain) + 10.0)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"weights": np.ones(2)}, r"column 'weights': the shape is \(2,\), not \(3,\)"),
        ({"rewards": np.ones((3, 1))}, r"column 'rewards': the shape is \(3, 1\)"),
        ({"counts": np.ones((3, 3))}, r"column 'counts': the shape is \(3, 3\)"),
        ({"q_logged": np.ones(4)}, r"column 'q_logged': the shape is \(4,\)"),
        ({"rewards": np.array([1.0, np.nan, np.nan])}, r"column 'rewards', row 2, value nan: .* \(2 rows in all\)"),
        ({"weights": np.array([1.0, 1.0, np.inf])}, r"column 'weights', row 3, value inf: is not a finite number"),
        ({"weights": np.array([-0.5, 1.0, 1.0])}, r"column 'weights', row 1, value -0.5: is negative"),
        ({"counts": np.array([1.0, -1.0, 1.0])}, r"column 'counts', row 2, value -1.0: is negative"),
        ({"q_policy": np.array([np.nan, 1.0, 1.0])}, r"column 'q_policy', row 1, value nan"),
    ],
)
def test_invalid_samples(changes, message):
    with pytest.raises(InputError, match=message):
        by_hand(**changes)


def test_all_faults_are_named_at_once():
    with pytest.raises(InputError) as caught:
        by_hand(rewards=np.full(3, np.nan), weights=np.full(3, -1.0))
    assert len(caught.value.faults) == 2


@pytest.mark.parametrize("estimator", [DM(), DR(), SwitchDR()], ids=lambda e: e.name)
def test_without_a_model_there_is_no_value(estimator):
    with pytest.raises(NotIdentified, match="no outcome model"):
        estimator.value(by_hand(q_policy=None))


def test_without_weight_there_is_no_value():
    with pytest.raises(NotIdentified, match="no decision has any weight"):
        SNIPS().value(by_hand(weights=np.zeros(3)))
    for estimator in ESTIMATORS:
        with pytest.raises(NotIdentified, match="no decision has any weight"):
            estimator.value(by_hand(counts=np.zeros(3)))


def test_no_constant_baseline_has_less_variance_than_that_of_beta_ips():
    rng = np.random.default_rng(0)
    w, r = rng.exponential(size=500), rng.normal(1.0, 1.0, size=500)
    b = optimal_baseline(w, r, np.ones(500))
    variance = [np.var(w * (r - each)) for each in (b, b - 0.01, b + 0.01)]
    assert variance[0] < min(variance[1:])
    assert optimal_baseline(np.ones(500), r, np.ones(500)) == 0.0


def replications(count: int, users: int) -> tuple[dict[str, FloatArray], World]:
    """Values of many independent logs by each estimator, and by the naive means that look like estimates."""
    world = World.make(CHANNEL, seed=3)
    rng = np.random.default_rng(17)
    found: dict[str, list[float]] = {}
    wrong_q = 0.5 * world.earns + rng.normal(size=world.earns.shape)
    for _ in range(count):
        log, cell, rewards = world.draw(rng, users)
        p = world.policy(cell)
        j = log.actions[:, 0]
        weights = importance_weights(log, p, None)
        q_logged, q_policy = wrong_q[cell, j], (p[0] * wrong_q[cell]).sum(1)
        sample = Sample(rewards, weights, np.ones(len(log)), q_logged, q_policy)
        for e in (IPS(), BetaIPS(), SNIPS(), DR()):
            found.setdefault(e.name, []).append(e.value(sample))
        exact = Sample(
            rewards, np.ones(len(log)), np.ones(len(log)), world.earns[cell, j], (p[0] * world.earns[cell]).sum(1)
        )
        found.setdefault("dr, propensities ignored, right model", []).append(DR().value(exact))
        found.setdefault("dr, propensities ignored", []).append(
            DR().value(Sample(rewards, np.ones(len(log)), np.ones(len(log)), q_logged, q_policy))
        )
        drawn = (rng.random(len(log))[:, None] > np.cumsum(p[0], 1)).sum(1)
        found.setdefault("logged mean", []).append(float(rewards.mean()))
        found.setdefault("mean over matches", []).append(float(rewards[drawn == j].mean()))
    return {name: np.array(values) for name, values in found.items()}, world


RIGHT = ("ips", "beta-ips", "snips", "dr", "dr, propensities ignored, right model")
WRONG = ("logged mean", "mean over matches", "dr, propensities ignored")


def check_truth(count: int, users: int, tolerance: float) -> None:
    found, world = replications(count, users)
    z = {name: (v.mean() - world.truth(None)) / (v.std(ddof=1) / np.sqrt(count)) for name, v in found.items()}
    assert all(abs(z[name]) < tolerance for name in RIGHT), z
    assert all(abs(z[name]) > 2 * tolerance for name in WRONG), z


def test_truth_is_met_and_naive_means_miss_it():
    """Over 400 logs, a right estimator's mean error is below 3 of its standard errors (missed once in 370)."""
    check_truth(count=400, users=1500, tolerance=3.0)


@pytest.mark.slow
def test_truth_is_met_in_many_logs():
    check_truth(count=5000, users=1500, tolerance=3.0)


def test_a_model_makes_dr_less_noisy_than_ips():
    world = World.make(CHANNEL, seed=3, noise=0.3)
    rng = np.random.default_rng(5)
    errors = []
    for _ in range(40):
        log, cell, rewards = world.draw(rng, 500)
        p, j = world.policy(cell), log.actions[:, 0]
        q = world.earns[cell]
        sample = Sample(
            rewards, importance_weights(log, p, None), np.ones(len(log)), q[np.arange(len(j)), j], (p[0] * q).sum(1)
        )
        errors.append([e.value(sample) - world.truth(None) for e in (IPS(), DR())])
    ips, dr = np.std(errors, axis=0)
    assert dr < 0.8 * ips
