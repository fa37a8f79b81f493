"""Trajectory estimators: formulas by hand, truth by enumeration, one slot is the bandit's estimators."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from crosschannel.core.arrays import FloatArray
from crosschannel.core.errors import NotIdentified
from crosschannel.evaluation import (
    DR,
    FQE,
    IPS,
    SNIPS,
    TRAJECTORY_ESTIMATORS,
    PerDecisionIPS,
    PerDecisionSNIPS,
    Sample,
    SequentialDR,
    Trajectories,
    TrajectoryIPS,
    WeightedDR,
    importance_weights,
)
from tests.evaluation.bandit_worlds import CHANNEL, World
from tests.evaluation.sequential.trajectory_worlds import FatigueWorld, by_hand, design_example, fatigue_world

pytestmark = pytest.mark.numerics


@pytest.mark.parametrize(
    ("estimator", "expected"),
    [
        (TrajectoryIPS(), (1.5 * (1 + 0.5 * 2) + 3 * 2 * 4) / 4),
        (PerDecisionIPS(), (0.5 * 1 + 0.5 * 1.5 * 2 + 3 * 2 * 4) / 4),
        (PerDecisionSNIPS(), (0.5 * 1 + 3 * 2 * 4) / (0.5 + 6) + 0.5 * 1.5 * 2 / (1.5 + 6)),
        (SequentialDR(), (0 + 0.5 * 0 + 0.5 * (0.5 * 2 + 1.5 * 1) + 3 * (1 + 2 * 1)) / 4),
        (
            WeightedDR(),
            (0 + 3 * 1) / 4 + (0.5 * 0 + 3 * 2 * 1) / 6.5 + 0.5 * (0.5 * 2 / (0.5 + 6) + 1.5 * 1 / (1.5 + 6)),
        ),
        (FQE(), (0 + 3 * 1) / 4),
    ],
    ids=lambda e: getattr(e, "name", ""),
)
def test_formulas_by_hand(estimator, expected):
    assert estimator.value(by_hand()) == pytest.approx(expected, rel=1e-12)


def test_one_slot_is_the_bandits_estimators():
    world = World.make(CHANNEL, seed=3)
    rng = np.random.default_rng(0)
    log, cell, rewards = world.draw(rng, 500)
    p, j = world.policy(cell), log.actions[:, 0]
    q = world.earns + rng.normal(size=world.earns.shape)
    sample = Sample(
        rewards,
        importance_weights(log, p, None),
        rng.integers(0, 3, size=500).astype(float),
        q[cell, j],
        (p[0] * q[cell]).sum(1),
    )
    one = Trajectories(
        rewards[:, None],
        sample.weights[:, None],
        np.ones(500, dtype=np.int64),
        log.user,
        sample.counts,
        0.9,
        sample.q_logged[:, None],
        sample.q_policy[:, None],
    )
    for sequential, single in (
        (TrajectoryIPS(), IPS()),
        (PerDecisionIPS(), IPS()),
        (PerDecisionSNIPS(), SNIPS()),
        (SequentialDR(), DR()),
    ):
        assert sequential.value(one) == pytest.approx(single.value(sample), abs=1e-12, rel=1e-12), sequential.name


def wrong_model(world: FatigueWorld) -> tuple[FloatArray, FloatArray]:
    q = world.q()[0]
    q = 0.5 * q + 0.5 * np.random.default_rng(8).normal(size=q.shape)
    return q, world.mixed(q)


def errors_of(world: FatigueWorld, logs: int, users: int) -> dict[str, FloatArray]:
    """Errors of many independent logs, by estimator and by what it is given."""
    rng = np.random.default_rng(17)
    right, wrong, believed = world.q(), wrong_model(world), np.full_like(world.log, 0.5)
    found: dict[str, list[float]] = {}
    for _ in range(logs):
        walk = world.draw(rng, users)
        x, y, z = walk.trajectories(right), walk.trajectories(wrong), walk.trajectories(right, log=believed)
        for e in (TrajectoryIPS(), PerDecisionIPS(), PerDecisionSNIPS(), SequentialDR(), WeightedDR()):
            found.setdefault(e.name, []).append(e.value(x))
        for e in (SequentialDR(), WeightedDR()):
            found.setdefault(f"{e.name}, wrong model", []).append(e.value(y))
            found.setdefault(f"{e.name}, wrong propensities", []).append(e.value(z))
        found.setdefault("as if slots were independent", []).append(float((x.ratios * x.rewards).sum(1).mean()))
        found.setdefault("per-decision ips, wrong propensities", []).append(PerDecisionIPS().value(z))
        found.setdefault("sequential dr, both wrong", []).append(
            SequentialDR().value(replace(z, q_logged=y.q_logged, q_policy=y.q_policy))
        )
        found.setdefault("fqe, wrong model", []).append(FQE().value(y))
    return {name: np.array(values) - world.truth() for name, values in found.items()}


WRONG = (
    "as if slots were independent",
    "per-decision ips, wrong propensities",
    "sequential dr, both wrong",
    "fqe, wrong model",
)


def check_truth(world: FatigueWorld, logs: int, users: int) -> None:
    """Over all logs a right estimator's mean error is below 3.5 of its standard errors, a wrong one's above 7.

    3.5 is passed by chance once in 2,150; nine estimators are tested.
    """
    errors = errors_of(world, logs, users)
    z = {name: e.mean() / (e.std(ddof=1) / np.sqrt(logs)) for name, e in errors.items()}
    for name, score in z.items():
        assert (abs(score) > 7) if name in WRONG else (abs(score) < 3.5), (name, z)


def test_the_designs_example_is_met_and_slots_taken_alone_miss_it():
    """One log of 40,000 users: .370 within 3 standard errors (sd over 200 logs of 4,000 users: .017 to .022)."""
    world = design_example()
    assert world.truth() == pytest.approx(0.370)
    x = world.draw(np.random.default_rng(0), 40_000).trajectories(world.q())
    for e in TRAJECTORY_ESTIMATORS:
        assert e.value(x) == pytest.approx(0.370, abs=3 * 0.022 / np.sqrt(10)), e.name
    assert (x.ratios * x.rewards).sum(1).mean() == pytest.approx(0.248, abs=0.012)


def test_truth_is_met_by_what_is_right_and_missed_by_what_is_not():
    check_truth(fatigue_world(2), logs=300, users=800)


@pytest.mark.slow
@pytest.mark.parametrize("horizon", [2, 3, 6])
def test_truth_is_met_in_many_logs(horizon):
    check_truth(fatigue_world(horizon), logs=4000, users=2000)


def test_discounted_sums_have_their_own_truth():
    world = fatigue_world(4)
    rng = np.random.default_rng(3)
    values = [
        [e.value(world.draw(rng, 1000).trajectories(world.q(0.8), 0.8)) for e in (PerDecisionIPS(), SequentialDR())]
        for _ in range(100)
    ]
    error = np.mean(values, axis=0) - world.truth(0.8)
    assert (np.abs(error) < 3.5 * np.std(values, axis=0) / 10).all()
    assert abs(world.truth(0.8) - world.truth()) > 0.2


def test_each_step_towards_a_model_is_less_noisy():
    """Over 150 logs a ratio of standard deviations is known to 8 %."""
    errors = errors_of(fatigue_world(4), 150, 800)
    sd = {name: e.std() for name, e in errors.items()}
    assert sd["per-decision ips"] < 0.8 * sd["trajectory ips"]
    assert sd["sequential dr"] < 0.8 * sd["per-decision ips"]


@st.composite
def some_trajectories(draw: st.DrawFn) -> Trajectories:
    rng = np.random.default_rng(draw(st.integers(0, 2**32)))
    n, horizon = draw(st.integers(1, 20)), draw(st.integers(1, 5))
    shape = (n, horizon)
    ratios = rng.exponential(size=shape) * (rng.random(shape) < draw(st.sampled_from([0.6, 1.0])))
    return Trajectories(
        rng.normal(size=shape),
        ratios,
        rng.integers(1, horizon + 1, size=n),
        rng.integers(0, 8, size=n),
        rng.integers(1, 4, size=n).astype(float),
        draw(st.sampled_from([0.0, 0.7, 1.0])),
        rng.normal(size=shape),
        rng.normal(size=shape),
    )


def values(x: Trajectories) -> FloatArray:
    """All values of a sample; NaN where at some slot no user has any weight."""
    return np.array([e.terms(x).value(x.counts) for e in TRAJECTORY_ESTIMATORS])


PER_SLOT = ("rewards", "ratios", "q_logged", "q_policy")


@settings(max_examples=60, deadline=None)
@given(some_trajectories(), st.integers(1, 3), st.integers(0, 2**32))
def test_padding_and_order_change_nothing(x, more, seed):
    rng = np.random.default_rng(seed)
    padded = replace(
        x,
        **{n: np.concatenate([getattr(x, n), rng.exponential(size=(len(x.user), more))], 1) for n in PER_SLOT},
    )
    np.testing.assert_allclose(values(padded), values(x), rtol=1e-9, atol=1e-9)
    order = rng.permutation(len(x.user))
    shuffled = replace(x, **{n: getattr(x, n)[order] for n in (*PER_SLOT, "length", "user", "counts")})
    np.testing.assert_allclose(values(shuffled), values(x), rtol=1e-9, atol=1e-9)


@settings(max_examples=60, deadline=None)
@given(some_trajectories())
def test_counting_a_trajectory_twice_is_having_it_twice(x):
    repeats = x.counts.astype(int)
    repeated = replace(
        x,
        **{n: np.repeat(getattr(x, n), repeats, axis=0) for n in (*PER_SLOT, "length", "user")},
        counts=np.ones(repeats.sum()),
    )
    np.testing.assert_allclose(values(repeated), values(x), rtol=1e-9, atol=1e-9)


@settings(max_examples=60, deadline=None)
@given(some_trajectories())
def test_after_a_ratio_of_zero_nothing_counts(x):
    """Whatever a weighted estimator makes of later slots' rewards, it makes of any others."""
    dead = (x.ratios == 0).cumsum(1) > 0
    other = replace(x, rewards=np.where(dead, 1e3, x.rewards))
    for e in (PerDecisionIPS(), PerDecisionSNIPS(), SequentialDR(), WeightedDR()):
        np.testing.assert_allclose(e.terms(other).value(x.counts), e.terms(x).value(x.counts), atol=1e-9)


def test_without_weight_there_is_no_value():
    x = by_hand(ratios=np.zeros((2, 2)))
    assert PerDecisionIPS().value(x) == 0.0
    for e in (PerDecisionSNIPS(), WeightedDR()):
        with pytest.raises(NotIdentified, match="at some slot no user has any weight"):
            e.value(x)


@pytest.mark.parametrize("estimator", [SequentialDR(), WeightedDR(), FQE()], ids=lambda e: e.name)
def test_without_a_model_there_is_no_value(estimator):
    with pytest.raises(NotIdentified, match="no modelled sums"):
        estimator.value(by_hand(q_policy=None))


def test_unknown_propensities_leave_the_model_alone():
    x = by_hand(ratios=np.array([[1.0, np.nan], [1.0, np.nan]]))
    with pytest.raises(NotIdentified, match="no propensity for 1 decisions"):
        TrajectoryIPS().value(x)
    assert FQE().value(x) == 0.75
