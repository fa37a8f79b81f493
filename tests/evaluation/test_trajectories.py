"""Trajectories: truth by enumeration, one slot is the bandit's estimators, coverage, and what is not identified."""

from __future__ import annotations

import re
from dataclasses import replace

import numpy as np
import pytest
from bandit_worlds import CHANNEL, World
from hypothesis import given, settings
from hypothesis import strategies as st
from trajectory_worlds import FatigueWorld, design_example, fatigue_world

from evaluation import (
    DR,
    FQE,
    IPS,
    SNIPS,
    TRAJECTORY_ESTIMATORS,
    EvaluationSettings,
    PerDecisionIPS,
    PerDecisionSNIPS,
    Sample,
    SequentialDR,
    Trajectories,
    TrajectoryIPS,
    WeightedDR,
    blocks,
    effective_sample_size,
    evaluate_trajectories,
    first_slots,
    fitted_q,
    importance_weights,
    value_trajectories,
)
from evaluation.sequential.value import uncentred_floor
from histories.errors import ConfigError, InputError, NotIdentified
from histories.modules import FloatArray

QUICK = EvaluationSettings(replicates=40)


def by_hand(**changes: object) -> Trajectories:
    """Two stretches of two slots; the second user is gone after the first."""
    arrays: dict[str, object] = {
        "rewards": np.array([[1.0, 2.0], [4.0, 9.0]]),
        "ratios": np.array([[0.5, 3.0], [2.0, 7.0]]),
        "length": np.array([2, 1]),
        "user": np.array([0, 1]),
        "counts": np.array([1.0, 3.0]),
        "discount": 0.5,
        "q_logged": np.array([[1.0, 1.0], [3.0, 5.0]]),
        "q_policy": np.array([[0.0, 2.0], [1.0, 5.0]]),
    }
    return Trajectories(**{**arrays, **changes})  # type: ignore[arg-type]


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


# Truth


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

    3.5 is passed by chance once in 2,150; nine estimators are held to it.
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


# Fitted Q evaluation


def test_fitted_q_finds_the_enumerated_sums():
    """The context holds the state, so that only noise is left: the largest error of any state's sum is below .05."""
    world = fatigue_world(3)
    walk = world.draw(np.random.default_rng(0), 20_000)
    log, columns, p = walk.flat()
    episodes = first_slots(log.user, columns["time"], 3, columns["gone"])
    q = fitted_q(log, columns["context"], p, columns["rewards"], episodes, discount=0.9)
    x = walk.trajectories(world.q(0.9), 0.9)
    assert (q.logged[episodes.rows < 0] == 0).all()
    assert np.abs(q.logged - x.q_logged).max() < 0.05
    assert np.abs(q.policy - x.q_policy).max() < 0.05


def test_a_users_sums_come_from_others():
    world = fatigue_world(2)
    log, columns, p = world.draw(np.random.default_rng(0), 300).flat()
    episodes = first_slots(log.user, columns["time"], 2, columns["gone"])
    fit = lambda r: fitted_q(log, columns["context"], p, r, episodes)  # noqa: E731
    before = fit(columns["rewards"])
    after = fit(columns["rewards"] + 5.0 * (log.user == 7))
    same = (before.logged == after.logged).all(1) & (before.policy == after.policy).all(1)
    assert same[7]
    # The user's fold is a third of all; everybody else's models have seen the user.
    assert 0.2 < same.mean() < 0.5


# Intervals


def coverage(world: FatigueWorld, ess: float, logs: int, replicates: int) -> dict[str, float]:
    """Share of intervals of identified values that include the truth, on logs whose last ESS is about `ess`."""
    rng = np.random.default_rng(5)
    q = world.q()[0]
    q = 0.7 * q + 0.2 * rng.normal(size=q.shape)
    half = (q, world.mixed(q))
    w = world.draw(rng, 200_000).trajectories().weights[:, -1]
    users = int(ess * (w**2).mean() / w.mean() ** 2)
    hits: dict[str, list[bool]] = {}
    for _ in range(logs):
        found = value_trajectories(
            world.draw(rng, users).trajectories(half),
            rng=rng,
            settings=EvaluationSettings(replicates=replicates),
            estimators=[e for e in TRAJECTORY_ESTIMATORS if e.weighted],
        )
        for e in found.estimates:
            if e.identified:
                hits.setdefault(e.estimator, []).append(e.value.contains(world.truth()))
                difference = world.truth() - world.logged_truth()
                hits.setdefault(f"{e.estimator} minus logged", []).append(e.difference.contains(difference))
    return {name: float(np.mean(h)) for name, h in hits.items() if len(h) > 0.8 * logs}


def test_intervals_cover_roughly():
    """At a coverage of 95 %, fewer than 50 hits in 60 happen less than once in 2,000."""
    found = coverage(fatigue_world(3), 600, 60, 60)
    assert len(found) == 10
    assert all(share >= 50 / 60 for share in found.values()), found


@pytest.mark.slow
@pytest.mark.parametrize(("horizon", "ess", "identified"), [(2, 280, 10), (8, 280, 6), (12, 280, 6), (8, 1700, 10)])
def test_intervals_cover_where_a_value_is_identified(horizon, ess, identified):
    """1,000 logs each: a coverage has a standard error of 0.7 %, so .93 to .97 leave 2.9 of them to either side.

    The two estimators whose error moves with the mean weight are identified later, and then keep the promise too.
    """
    found = coverage(fatigue_world(horizon), ess, 1000, 100)
    print(f"H {horizon}, ESS {ess}: " + ", ".join(f"{name} {share:.3f}" for name, share in found.items()))
    assert len(found) == identified, found
    assert all(0.93 <= share <= 0.97 for share in found.values()), found


def test_stretches_of_one_user_belong_together():
    """Every stretch twice under its user's name says no more than once; under another name it seems to."""
    world = fatigue_world(2)
    x = world.draw(np.random.default_rng(0), 1000).trajectories()
    twice = {n: np.concatenate([getattr(x, n)] * 2) for n in ("rewards", "ratios", "length", "user", "counts")}
    others = twice | {"user": np.arange(2000)}
    se = [
        value_trajectories(t, rng=np.random.default_rng(1), settings=EvaluationSettings(replicates=200))
        .get("per-decision snips")
        .value.se
        for t in (x, Trajectories(**twice), Trajectories(**others))
    ]
    assert se[1] == pytest.approx(se[0], rel=1e-9)
    assert se[2] < 0.85 * se[0]


# What must not matter


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
    """NaN where at some slot nobody has any weight."""
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
def test_counting_a_stretch_twice_is_having_it_twice(x):
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
        with pytest.raises(NotIdentified, match="at some slot nobody has any weight"):
            e.value(x)


@pytest.mark.parametrize("estimator", [SequentialDR(), WeightedDR(), FQE()], ids=lambda e: e.name)
def test_without_a_model_there_is_no_value(estimator):
    with pytest.raises(NotIdentified, match="no modelled sums"):
        estimator.value(by_hand(q_policy=None))


def test_unknown_propensities_leave_the_model_alone():
    x = by_hand(ratios=np.array([[1.0, np.nan], [1.0, np.nan]]))
    with pytest.raises(NotIdentified, match="no propensity of 1 decisions"):
        TrajectoryIPS().value(x)
    assert FQE().value(x) == 0.75


# Cutting


def test_first_slots_and_blocks_by_hand():
    user = np.array([5, 9, 5, 5, 9, 5, 9, 5, 2])
    order = np.array([3, 1, 1, 2, 3, 5, 2, 4, 0])
    gone = np.array([0, 0, 0, 0, 1, 0, 0, 0, 0], dtype=bool)
    # User 5 in order: rows 2, 3, 0, 7, 5; user 9: rows 1, 6, 4, then gone; user 2 has one slot.
    first = first_slots(user, order, 2, gone)
    assert first.rows.tolist() == [[2, 3], [1, 6]]
    assert (first.user.tolist(), first.left_out) == ([5, 9], 1)
    cut = blocks(user, order, 2, gone)
    assert cut.rows.tolist() == [[2, 3], [0, 7], [1, 6], [4, -1]]
    assert (cut.user.tolist(), cut.length.tolist(), cut.left_out) == ([5, 5, 9, 9], [2, 2, 2, 1], 2)
    assert cut.of(10.0 * np.arange(9)).tolist() == [[20, 30], [0, 70], [10, 60], [40, 0]]
    assert first_slots(user, order, 4, gone).rows.tolist() == [[2, 3, 0, 7], [1, 6, 4, -1]]


@pytest.mark.parametrize(
    ("changes", "error", "message"),
    [
        ({"horizon": 0}, ConfigError, "a horizon of 0 slots is below 1"),
        ({"order": np.ones(3)}, InputError, r"column 'order': the shape is \(3,\), not \(4,\)"),
        ({"order": np.array([1, 1, 2, 1])}, InputError, "column 'order', row 1: is that of another slot of the user"),
        ({"gone": np.array([True, False, True, True])}, InputError, "column 'gone', row 1: the user has later slots"),
        ({"horizon": 4}, NotIdentified, "no user's log has 4 slots"),
        (
            {"user": np.zeros(0, dtype=int), "order": np.zeros(0), "gone": np.zeros(0, dtype=bool)},
            NotIdentified,
            "no user's log has 2 slots",
        ),
    ],
)
def test_logs_that_cannot_be_cut(changes, error, message):
    good = {"user": np.array([0, 0, 0, 1]), "order": np.arange(4), "horizon": 2, "gone": np.zeros(4, dtype=bool)}
    for cut in (first_slots, blocks):
        with pytest.raises(error, match=message):
            cut(**(good | changes))


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"rewards": np.ones(2)}, r"column 'rewards': the shape is \(2,\), not \(n, H\)"),
        ({"ratios": np.ones((2, 3))}, r"column 'ratios': the shape is \(2, 3\), not \(2, 2\)"),
        ({"length": np.array([0, 3])}, r"column 'length', row 1, value 0: is not in 1 to 2 \(2 rows in all\)"),
        ({"counts": np.array([1.0, -1.0])}, r"column 'counts', row 2, value -1.0: is no count"),
        ({"ratios": np.array([[1.0, -1.0], [1.0, 1.0]])}, "column 'ratios', row 1, .*: is no ratio"),
        ({"ratios": np.array([[1.0, 1.0], [np.inf, 1.0]])}, "column 'ratios', row 2, .*: is no ratio"),
        ({"rewards": np.array([[1.0, np.nan], [1.0, 1.0]])}, "column 'rewards', row 1, .*: is not a finite number"),
        ({"q_policy": np.full((2, 2), np.inf)}, r"column 'q_policy', row 1, .*: is not a finite number \(3 rows"),
    ],
)
def test_invalid_trajectories(changes, message):
    with pytest.raises(InputError, match=message):
        by_hand(**changes)


def test_what_stands_after_a_user_was_gone_is_not_looked_at():
    nothing = np.array([[1.0, 2.0], [4.0, np.nan]])
    assert (values(by_hand(rewards=nothing)) == values(by_hand())).all()
    with pytest.raises(ConfigError, match=r"discount 1.5 is not in \[0, 1\]"):
        by_hand(discount=1.5)


# The whole


def evaluated(horizon: int, users: int, **changes: object):
    world = fatigue_world(horizon)
    log, columns, p = world.draw(np.random.default_rng(1), users).flat()
    log = replace(log, **changes)
    episodes = first_slots(log.user, columns["time"], horizon, columns["gone"])
    found = evaluate_trajectories(
        log, p, columns["rewards"], episodes, rng=np.random.default_rng(0), context=columns["context"], settings=QUICK
    )
    return found, world


def test_a_log_is_evaluated_and_printed():
    found, world = evaluated(3, 3000)
    assert [e.estimator for e in found.estimates] == [e.name for e in TRAJECTORY_ESTIMATORS]
    # Five standard errors: one log, six values.
    for e in found.estimates[:-1]:
        assert abs(e.value.point - world.truth()) < 5 * e.value.se, e
        assert e.difference.low > 0
    ess = [s.ess for s in found.slots]
    assert ess[0] > ess[1] > ess[2] > 200
    assert found.present[0] == 3000 > found.present[2]
    text = str(found)
    assert "mean sum of rewards over 3 slots if the policy chose at every one of them" in text
    assert "3,000 stretches of 3,000 users; rewards are held fixed" in text
    assert "fqe is the model's opinion" in text
    with pytest.raises(KeyError, match="no estimate 'ips'"):
        found.get("ips")


def test_a_long_horizon_is_not_identified():
    found, _ = evaluated(25, 2000)
    for e in found.estimates:
        assert e.identified == (e.estimator == "fqe")
        assert e.identified or not e.value.known
    assert re.fullmatch(r"ESS \d+ < 2\d\d up to slot 1\d of 25", found.get("sequential dr").reason)


def test_the_effective_sample_size_falls_geometrically():
    """By a fifth or so a slot (100,000 stretches), as ratios of successive slots are nearly independent."""
    x = fatigue_world(8).draw(np.random.default_rng(1), 100_000).trajectories()
    kept = np.exp(np.diff(np.log([effective_sample_size(w) for w in x.weights.T])))
    assert ((kept > 0.7) & (kept < 0.9)).all(), kept


def test_unknown_propensities_few_users_and_missing_support_have_reasons():
    users = 500
    unknown = np.full(len(fatigue_world(2).draw(np.random.default_rng(1), users).flat()[0]), np.nan)
    found, _ = evaluated(2, users, joint=unknown, propensity=unknown[:, None], propensity_source="missing")
    assert found.get("weighted dr").reason == f"the log has no propensity of {len(unknown):,} decisions"
    assert found.get("fqe").identified

    found, _ = evaluated(2, 30)
    assert {e.reason for e in found.estimates} == {"30 users < 40"}

    x = fatigue_world(2).draw(np.random.default_rng(1), 2000).trajectories()
    rng = np.random.default_rng(0)
    # A policy with a twelfth of its mass on what the log lacks has 16 % of its paths of two slots there.
    found = value_trajectories(x, rng=rng, settings=QUICK, unsupported=1 / 12)
    assert found.get("per-decision ips").reason.startswith("16% of the policy's paths up to slot 2 of 2 have")
    found = value_trajectories(replace(x, ratios=0.8 * x.ratios), rng=rng, settings=QUICK)
    assert "the log lacks support for much" in found.get("per-decision ips").reason
    found = value_trajectories(replace(x, ratios=1.3 * x.ratios), rng=rng, settings=QUICK)
    assert "the propensities are not those of this log" in found.get("per-decision ips").reason
    with np.errstate(over="ignore", invalid="ignore"):
        found = value_trajectories(replace(x, ratios=1e200 * x.ratios), rng=rng, settings=QUICK)
    assert not any(e.identified for e in found.estimates)
    with pytest.raises(ConfigError, match="needs a model"):
        value_trajectories(x, rng=rng, estimators=[FQE()])


def test_an_error_that_moves_with_the_weights_asks_for_more():
    by_ratio = [uncentred_floor(n, 100.0) for n in (100, 160, 300, 600)]
    assert by_ratio == pytest.approx([0, 121.5, 416.67, 1333.33], abs=0.01)
    x = fatigue_world(8).draw(np.random.default_rng(1), 4000).trajectories()
    found = value_trajectories(x, rng=np.random.default_rng(0), settings=QUICK)
    assert found.get("per-decision snips").identified
    assert "the floor where an error moves with weights as skewed as these" in found.get("trajectory ips").reason


def test_rare_rewards_ask_for_more():
    x = fatigue_world(2).draw(np.random.default_rng(1), 2000).trajectories()
    rare = replace(x, rewards=(np.arange(4000).reshape(2000, 2) % 100 == 0).astype(float))
    found = value_trajectories(rare, rng=np.random.default_rng(0), settings=QUICK)
    assert found.slots[0].kurtosis > 40
    assert "ESS" in found.get("per-decision snips").reason


def test_a_slot_without_a_reward_is_refused_and_named():
    world = fatigue_world(2)
    log, columns, p = world.draw(np.random.default_rng(1), 100).flat()
    episodes = first_slots(log.user, columns["time"], 2, columns["gone"])
    rewards = np.where(np.arange(len(log)) == 3, np.nan, columns["rewards"])
    with pytest.raises(InputError, match=r"column 'rewards', row 2, .*: is not a finite number"):
        evaluate_trajectories(log, p, rewards, episodes, rng=np.random.default_rng(0))
