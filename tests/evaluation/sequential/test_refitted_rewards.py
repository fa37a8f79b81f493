"""Values over several slots whose rewards are fitted again in every replicate of the bootstrap."""

from __future__ import annotations

import numpy as np
import pytest

from crosschannel.core.errors import ConfigError, NotIdentified
from crosschannel.evaluation import (
    EvaluationSettings,
    LoggedDecisions,
    TrajectorySettings,
    evaluate_trajectories,
    first_slots,
)
from tests.evaluation.sequential.trajectory_worlds import PUSH, fatigue_world

pytestmark = pytest.mark.numerics

SLOTS, LOGGED, POLICY, EFFECT = 2, 0.8, 0.9, 0.3
TRUTH = SLOTS * POLICY * EFFECT


def drawn(rng: np.random.Generator, users: int):
    """A log in which messages add `EFFECT` to what a slot would bring, and rewards subtract the mean of the others."""
    user, slot = np.repeat(np.arange(users), SLOTS), np.tile(np.arange(SLOTS), users)
    sent = rng.random(len(user)) < LOGGED
    amount = rng.normal(size=len(user)) + slot + EFFECT * sent
    propensity = np.where(sent, LOGGED, 1 - LOGGED)
    log = LoggedDecisions(PUSH, sent[:, None].astype(int), propensity[:, None], propensity, user)

    def rewards(counts):
        """Zero where nothing was sent; NaN in slots without a control in this replicate."""
        controls = np.where(sent, 0.0, counts)
        total = np.bincount(slot, weights=controls)
        mean = np.bincount(slot, weights=controls * amount) / np.where(total > 0, total, np.nan)
        return np.where(sent, amount - mean[slot], 0.0)

    p = np.tile([1 - POLICY, POLICY], (len(user), 1))
    return log, [p], rewards, first_slots(user, slot, SLOTS)


def test_a_function_that_ignores_the_replicate_gives_what_fixed_rewards_give():
    world = fatigue_world(3)
    log, columns, p = world.draw(np.random.default_rng(1), 1500).flat()
    index = first_slots(log.user, columns["time"], 3, columns["churned"])
    settings = EvaluationSettings(bootstrap_replicates=40)
    fixed, refitted = (
        evaluate_trajectories(
            log,
            p,
            rewards,
            index,
            rng=np.random.default_rng(0),
            context=columns["context"],
            settings=settings,
            discount=0.9,
        )
        for rewards in (columns["rewards"], lambda _: columns["rewards"])
    )
    assert (fixed.refitted, refitted.refitted) == (False, True)
    for a, b in zip(fixed.estimates, refitted.estimates, strict=True):
        assert (a.value.point, a.difference.point) == (b.value.point, b.difference.point)
        for mine, others in ((a.value, b.value), (a.difference, b.difference)):
            assert [mine.low, mine.high, mine.se] == pytest.approx([others.low, others.high, others.se], rel=1e-9)
    assert "fitted again in every replicate" in str(refitted)


def coverage(logs: int, users: int, refitted: bool) -> dict[str, float]:
    rng, hits = np.random.default_rng(11), {}
    for _ in range(logs):
        log, p, rewards, index = drawn(rng, users)
        given = rewards if refitted else rewards(np.ones(len(log)))
        settings = EvaluationSettings(bootstrap_replicates=60)
        for e in evaluate_trajectories(log, p, given, index, rng=rng, settings=settings).estimates:
            hits.setdefault(e.estimator, []).append(e.value.contains(TRUTH))
    return {name: float(np.mean(found)) for name, found in hits.items()}


def test_refitted_intervals_cover_and_fixed_ones_miss_the_error_of_the_controls():
    """60 logs of 500 users. At .95 fewer than 50 hits happen less than once in 2,000; fixed ones cover about .6.

    The mean of the controls has a standard error of 1 / sqrt(100) per slot, and a message's mean one of 1 / sqrt(400).
    At a coverage of .65, more than 49 hits happen less than once in 500.
    """
    refitted, fixed = coverage(60, 500, refitted=True), coverage(60, 500, refitted=False)
    assert set(refitted) == {"per-decision snips", "per-decision ips", "trajectory ips"}
    assert all(share >= 50 / 60 for share in refitted.values()), refitted
    assert all(share <= 49 / 60 for share in fixed.values()), fixed


@pytest.mark.slow
def test_refitted_intervals_cover_in_many_logs():
    """1,000 logs: a coverage has a standard error of .7 %, so .925 to .975 leave 3.6 of them to either side."""
    found = coverage(1000, 500, refitted=True)
    print(found)
    assert all(0.925 <= share <= 0.975 for share in found.values()), found


def test_trajectories_without_a_reward_in_a_replicate_do_not_count_there():
    """The second slot has two controls: in about exp(-2) of the replicates neither is drawn."""
    log, p, _, index = drawn(np.random.default_rng(3), 500)
    few = np.isin(np.arange(len(log)), [1, 3])

    def rewards(counts):
        r = np.where(np.arange(len(log)) % 4 == 1, 1.0, 0.5)
        return np.where((np.arange(len(log)) % 4 == 1) & (counts[few].sum() == 0), np.nan, r)

    found = evaluate_trajectories(
        log, p, rewards, index, rng=np.random.default_rng(0), settings=EvaluationSettings(bootstrap_replicates=400)
    )
    # Half of the trajectories have such a slot; 400 replicates give exp(-2) with a standard error of .017.
    assert found.dropped_share == pytest.approx(0.5 * np.exp(-2), abs=4 * 0.5 * 0.017)
    assert "of the trajectories lack a reward" in str(found)
    assert found.headline.identified


def test_users_without_a_trajectory_still_serve_as_controls():
    """Half of the users have one slot only: they are in no trajectory, and their controls narrow the interval."""
    log, p, rewards, index = drawn(np.random.default_rng(5), 1000)
    half = index.rows[index.user < 500]
    part = type(index)(rows=half, user=index.user[index.user < 500])

    def own(counts):
        return rewards(np.where(log.user < 500, counts, 0.0))

    settings = EvaluationSettings(bootstrap_replicates=200)
    widths = [
        evaluate_trajectories(log, p, given, part, rng=np.random.default_rng(0), settings=settings).headline.value.se
        for given in (rewards, own)
    ]
    assert widths[0] < 0.9 * widths[1]


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"slots": 0}, "slots 0 is below 1"),
        ({"slots": 2, "starts": "anywhere"}, "starts 'anywhere' is neither"),
        ({"slots": 2, "discount": float("nan")}, "discount nan is not in"),
    ],
)
def test_settings_are_checked(values, message):
    with pytest.raises(ConfigError, match=message):
        TrajectorySettings(**values)


def test_settings_cut_as_they_say():
    user, time = np.repeat([0, 1], [4, 3]), np.array([0, 1, 2, 3, 0, 1, 2])
    assert TrajectorySettings(slots=2).cut(user, time).rows.tolist() == [[0, 1], [4, 5]]
    assert TrajectorySettings(slots=2, starts="blocks").cut(user, time).rows.tolist() == [[0, 1], [2, 3], [4, 5]]
    with pytest.raises(ConfigError, match="set `slots`"):
        TrajectorySettings().cut(user, time)
    with pytest.raises(NotIdentified, match="no user's log has 5 slots"):
        TrajectorySettings(slots=5).cut(user, time)
