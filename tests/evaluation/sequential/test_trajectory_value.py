"""Values over several slots: coverage of intervals, a whole evaluation, and what is not identified."""

from __future__ import annotations

import re
from dataclasses import replace

import numpy as np
import pytest

from crosschannel.core.errors import ConfigError, InputError
from crosschannel.evaluation import (
    FQE,
    TRAJECTORY_ESTIMATORS,
    EvaluationSettings,
    Trajectories,
    effective_sample_size,
    evaluate_trajectories,
    first_slots,
    value_trajectories,
)
from crosschannel.evaluation.sequential.value import required_ess_uncentred
from tests.evaluation.sequential.trajectory_worlds import FatigueWorld, fatigue_world

pytestmark = pytest.mark.numerics

QUICK = EvaluationSettings(bootstrap_replicates=40)


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
            settings=EvaluationSettings(bootstrap_replicates=replicates),
            estimators=[e for e in TRAJECTORY_ESTIMATORS if e.uses_weights],
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


def test_trajectories_of_one_user_belong_together():
    """Every trajectory twice under its user's name says no more than once; under another name it seems to."""
    world = fatigue_world(2)
    x = world.draw(np.random.default_rng(0), 1000).trajectories()
    twice = {n: np.concatenate([getattr(x, n)] * 2) for n in ("rewards", "ratios", "length", "user", "counts")}
    others = twice | {"user": np.arange(2000)}
    se = [
        value_trajectories(t, rng=np.random.default_rng(1), settings=EvaluationSettings(bootstrap_replicates=200))
        .get("per-decision snips")
        .value.se
        for t in (x, Trajectories(**twice), Trajectories(**others))
    ]
    assert se[1] == pytest.approx(se[0], rel=1e-9)
    assert se[2] < 0.85 * se[0]


def evaluated(horizon: int, users: int, **changes: object):
    world = fatigue_world(horizon)
    log, columns, p = world.draw(np.random.default_rng(1), users).flat()
    log = replace(log, **changes)
    index = first_slots(log.user, columns["time"], horizon, columns["churned"])
    found = evaluate_trajectories(
        log, p, columns["rewards"], index, rng=np.random.default_rng(0), context=columns["context"], settings=QUICK
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
    assert found.active[0] == 3000 > found.active[2]
    text = str(found)
    assert "mean sum of rewards over 3 slots if the policy chose at each of them" in text
    assert "3,000 trajectories of 3,000 users; rewards are held fixed" in text
    assert "`fqe` relies on the model alone" in text
    with pytest.raises(KeyError, match="no estimate 'ips'"):
        found.get("ips")


def test_a_long_horizon_is_not_identified():
    found, _ = evaluated(25, 2000)
    for e in found.estimates:
        assert e.identified == (e.estimator == "fqe")
        assert e.identified or not e.value.is_defined
    assert re.fullmatch(r"ESS \d+ < 2\d\d up to slot 1\d of 25", found.get("sequential dr").reason)


def test_the_effective_sample_size_falls_geometrically():
    """By a fifth or so a slot (100,000 trajectories), as ratios of successive slots are nearly independent."""
    x = fatigue_world(8).draw(np.random.default_rng(1), 100_000).trajectories()
    ratio = np.exp(np.diff(np.log([effective_sample_size(w) for w in x.weights.T])))
    assert ((ratio > 0.7) & (ratio < 0.9)).all(), ratio


def test_unknown_propensities_few_users_and_missing_support_have_reasons():
    users = 500
    unknown = np.full(len(fatigue_world(2).draw(np.random.default_rng(1), users).flat()[0]), np.nan)
    found, _ = evaluated(2, users, joint=unknown, propensity=unknown[:, None], propensity_source="missing")
    assert found.get("weighted dr").reason == f"the log has no propensity for {len(unknown):,} decisions"
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
    assert "the propensities do not belong to this log" in found.get("per-decision ips").reason
    with np.errstate(over="ignore", invalid="ignore"):
        found = value_trajectories(replace(x, ratios=1e200 * x.ratios), rng=rng, settings=QUICK)
    assert not any(e.identified for e in found.estimates)
    with pytest.raises(ConfigError, match="need a model"):
        value_trajectories(x, rng=rng, estimators=[FQE()])


def test_an_error_that_moves_with_the_weights_asks_for_more():
    by_ratio = [required_ess_uncentred(n, 100.0) for n in (100, 160, 300, 600)]
    assert by_ratio == pytest.approx([0, 121.5, 416.67, 1333.33], abs=0.01)
    x = fatigue_world(8).draw(np.random.default_rng(1), 4000).trajectories()
    found = value_trajectories(x, rng=np.random.default_rng(0), settings=QUICK)
    assert found.get("per-decision snips").identified
    assert "the minimum of trajectory ips for weights this skewed" in found.get("trajectory ips").reason


def test_rare_rewards_ask_for_more():
    x = fatigue_world(2).draw(np.random.default_rng(1), 2000).trajectories()
    rare = replace(x, rewards=(np.arange(4000).reshape(2000, 2) % 100 == 0).astype(float))
    found = value_trajectories(rare, rng=np.random.default_rng(0), settings=QUICK)
    assert found.slots[0].kurtosis > 40
    assert "ESS" in found.get("per-decision snips").reason


def test_a_slot_without_a_reward_is_refused_and_named():
    world = fatigue_world(2)
    log, columns, p = world.draw(np.random.default_rng(1), 100).flat()
    index = first_slots(log.user, columns["time"], 2, columns["churned"])
    rewards = np.where(np.arange(len(log)) == 3, np.nan, columns["rewards"])
    with pytest.raises(InputError, match=r"column 'rewards', row 2, .*: is not a finite number"):
        evaluate_trajectories(log, p, rewards, index, rng=np.random.default_rng(0))
