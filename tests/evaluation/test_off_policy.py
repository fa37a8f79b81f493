"""Off-policy evaluation: estimands against enumeration, intervals, and decisions without a reward."""

from __future__ import annotations

import numpy as np
import pytest

from crosschannel.core.errors import InputError, NotIdentified
from crosschannel.evaluation import (
    DM,
    DR,
    IPS,
    SNIPS,
    EvaluationSettings,
    LoggedDecisions,
    OutcomeModel,
    Sample,
    caveats,
    effective_sample_size,
    evaluate,
    importance_weights,
)
from tests.evaluation.bandit_worlds import CHANNEL, OFFERS, World, check_not_identified, offers

pytestmark = pytest.mark.numerics

QUICK = EvaluationSettings(bootstrap_replicates=100)


def rng() -> np.random.Generator:
    return np.random.default_rng(11)


def check_modules(count: int, users: int) -> None:
    """Mean errors of every estimand over many logs are below 3 standard errors, and the estimands differ."""
    world = World.make(OFFERS, seed=1)
    generator = np.random.default_rng(9)
    train, train_cell, train_rewards = world.draw(generator, 400)
    model = OutcomeModel.fit(OFFERS, world.one_hot(train_cell), train.actions, train_rewards, train.user)
    found: dict[tuple[int | None, str], list[float]] = {}
    for _ in range(count):
        log, cell, rewards = world.draw(generator, users)
        p = world.policy(cell)
        q = model.q_values(world.one_hot(cell), log.actions, p)
        for k, m in enumerate((None, 0, 1, 2)):
            weights = importance_weights(log, p, m)
            sample = Sample(rewards, weights, np.ones(len(log)), q[k].logged, q[k].policy)
            for e in (IPS(), SNIPS(), DR()):
                found.setdefault((m, e.name), []).append(e.value(sample))
    z = {key: (np.mean(v) - world.truth(key[0])) / (np.std(v, ddof=1) / np.sqrt(count)) for key, v in found.items()}
    assert all(abs(value) < 3.0 for value in z.values()), z
    truths = [world.truth(m) for m in (None, 0, 1, 2)] + [world.logged_truth()]
    assert min(abs(a - b) for i, a in enumerate(truths) for b in truths[:i]) > 0.01


def test_joint_and_module_values_meet_the_enumerated_truth():
    check_modules(count=300, users=1500)


@pytest.mark.slow
def test_joint_and_module_values_meet_the_enumerated_truth_in_many_logs():
    check_modules(count=4000, users=1500)


def test_the_logging_policy_is_worth_what_the_log_earned():
    world, log, cell, rewards = offers(users=300)
    result = evaluate(log, [p[cell] for p in world.mu], rewards, rng=rng(), settings=QUICK)
    for e in result.estimates:
        assert e.value.point == pytest.approx(rewards.mean(), abs=1e-12)
        assert e.difference.se == pytest.approx(0.0, abs=1e-12)
        assert e.support.mean_weight == pytest.approx(1.0)
        assert e.support.unsupported_mass == pytest.approx(0.0, abs=1e-12)


def test_differences_are_paired_within_replicates():
    """A policy close to the log differs from it with far less error than each of the two values has."""
    world, log, cell, rewards = offers(users=500)
    close = [0.9 * a[cell] + 0.1 * b[cell] for a, b in zip(world.mu, world.pi, strict=True)]
    e = evaluate(log, close, rewards, rng=rng(), settings=QUICK).get("snips")
    assert e.difference.se < 0.5 * e.value.se


def test_values_of_evaluate_are_those_of_the_estimators():
    world, log, cell, rewards = offers(users=400)
    p = world.policy(cell)
    model = OutcomeModel.fit(OFFERS, world.one_hot(cell), log.actions, rewards, log.user)
    q = model.q_values(world.one_hot(cell), log.actions, p)
    result = evaluate(log, p, rewards, rng=rng(), q_values=q, settings=QUICK)
    for k, m in enumerate((None, 0, 1, 2)):
        sample = Sample(rewards, importance_weights(log, p, m), np.ones(len(log)), q[k].logged, q[k].policy)
        for e in (IPS(), SNIPS(), DR(), DM()):
            estimate = result.get(e.name, None if m is None else OFFERS.names[m])
            assert estimate.value.point == pytest.approx(e.value(sample), rel=1e-10)
            assert estimate.value.low < estimate.value.point < estimate.value.high


def test_the_same_generator_gives_the_same_evaluation():
    world, log, cell, rewards = offers(users=200)
    first, second = (evaluate(log, world.policy(cell), rewards, rng=rng(), settings=QUICK) for _ in range(2))
    assert first == second


def test_effective_sample_size():
    assert effective_sample_size(np.ones(7)) == pytest.approx(7.0)
    assert effective_sample_size(np.array([1.0, 0.0, 0.0])) == pytest.approx(1.0)
    assert effective_sample_size(np.array([3.0, 1.0])) == pytest.approx(16 / 10)
    assert effective_sample_size(np.zeros(4)) == 0.0


def test_support_of_a_module_is_that_of_the_decisions_at_which_it_chose():
    world, log, cell, rewards = offers()
    result = evaluate(log, world.policy(cell), rewards, rng=rng(), settings=QUICK)
    sent = log.actions[:, 0] != 0
    weights = importance_weights(log, world.policy(cell), 1)
    assert (weights[~sent] == 1.0).all()
    support = result.get("ips", "variant").support
    assert support.decisions == sent.sum()
    assert support.ess == pytest.approx(effective_sample_size(weights[sent]))
    assert support.largest_weight == weights[sent].max()
    assert support.mean_weight == pytest.approx(weights[sent].mean())
    assert abs(support.mean_weight - 1) < 3 * support.mean_weight_se
    assert result.get("ips").support.decisions == len(log)


def test_decisions_without_a_reward_are_left_out_and_counted():
    world, log, cell, rewards = offers(users=400)
    missing = np.arange(len(log)) % 5 == 0
    p = world.policy(cell)
    result = evaluate(log, p, np.where(missing, np.nan, rewards), rng=rng(), settings=QUICK)
    part = evaluate(log[~missing], [a[~missing] for a in p], rewards[~missing], rng=rng(), settings=QUICK)
    assert result.get("snips").value.point == pytest.approx(part.get("snips").value.point, rel=1e-12)
    assert result.decisions == (~missing).sum()
    assert result.reward_counts == {"identified": int((~missing).sum()), "not identified": int(missing.sum())}
    with pytest.raises(NotIdentified, match="no evaluated decision has a reward"):
        evaluate(log, p, np.full(len(log), np.nan), rng=rng(), settings=QUICK)


def control_means(log: LoggedDecisions, outcome: np.ndarray, cells: np.ndarray, least: float):
    """Rewards as outcomes minus their calendar cell's mean over slots at which nothing was sent."""
    control = (log.actions[:, 0] == 0).astype(float)

    def refit(times: np.ndarray) -> np.ndarray:
        n = np.bincount(cells, times * control)
        mean = np.bincount(cells, times * control * outcome) / np.where(n > 0, n, np.nan)
        return outcome - np.where(n < least, np.nan, mean)[cells]

    return refit


def test_refitting_rewards_widens_intervals_where_control_means_are_noisy():
    """With few controls a cell, what they add to the error of the mean reward is in the interval, in the right size."""
    generator = np.random.default_rng(3)
    n, few = 3000, 0.05
    sent = (generator.random(n) > few).astype(np.int64)
    log = LoggedDecisions(
        CHANNEL, sent[:, None], np.where(sent, 1 - few, few)[:, None], np.where(sent, 1 - few, few), np.arange(n)
    )
    outcome = generator.normal(size=n)
    refit = control_means(log, outcome, np.zeros(n, dtype=np.int64), least=2)
    p = [np.tile([0.0, 1.0, 0.0], (n, 1))]
    settings = EvaluationSettings(bootstrap_replicates=400)
    moving = evaluate(log, p, refit, rng=rng(), settings=settings).get("snips").value
    fixed = evaluate(log, p, refit(np.ones(n)), rng=rng(), settings=settings).get("snips").value
    assert moving.point == fixed.point
    # The mean of the sent minus the mean of the controls: the variances of both means add up.
    expected = np.sqrt(outcome[sent == 1].var() / sent.sum() + outcome[sent == 0].var() / (n - sent.sum()))
    assert moving.se == pytest.approx(expected, rel=0.15)
    assert fixed.se < 0.4 * moving.se


def test_rewards_that_replicates_drop_are_reported():
    world, log, cell, rewards = offers(users=300)
    cells = np.arange(len(log)) % 12
    least = np.bincount(cells, log.actions[:, 0] == 0).min()
    refit = control_means(log, rewards, cells, least)
    result = evaluate(log, world.policy(cell), refit, rng=rng(), settings=QUICK)
    assert result.refitted
    assert 0.0 < result.dropped_share < 0.5
    assert result.get("snips").identified


def test_a_value_that_some_replicate_does_not_define_is_not_identified():
    world, log, cell, rewards = offers(users=300)
    refit = control_means(log, rewards, np.zeros(len(log), dtype=np.int64), (log.actions[:, 0] == 0).sum())
    result = evaluate(log, world.policy(cell), refit, rng=rng(), settings=QUICK)
    check_not_identified(result.get("snips"), "of 100 replicates")
    assert not result.logged.is_defined


def censored(seed: int, users: int):
    """A log with rewards that later messages censor, in half of the contexts far more often, and `p_uncensored`."""
    world = World.make(OFFERS, seed=1)
    generator = np.random.default_rng(seed)
    log, cell, rewards = world.draw(generator, users)
    p = np.where(cell < 2, 0.2, 0.95)
    return world, log, cell, np.where(generator.random(len(p)) < p, rewards, np.nan), p


def test_values_are_about_the_decisions_whose_reward_is_censored_too():
    """Over 40 logs of 3,000 users the weighted estimates are within 4 standard errors of the truth; unweighted not."""
    settings = EvaluationSettings(bootstrap_replicates=40)
    found: dict[tuple[bool, str], list[float]] = {}
    for seed in range(40):
        world, log, cell, rewards, p_uncensored = censored(seed, 3000)
        for weigh in (True, False):
            result = evaluate(
                log,
                world.policy(cell),
                rewards,
                rng=rng(),
                settings=settings,
                estimators=(IPS(), SNIPS()),
                p_uncensored=p_uncensored if weigh else None,
            )
            for e in result.estimates:
                if e.module is None:
                    found.setdefault((weigh, e.estimator), []).append(e.value.point)
            found.setdefault((weigh, "logged"), []).append(result.logged.point)
            support = result.get("snips").support
            if weigh:
                assert abs(support.mean_weight - 1) < 4 * support.mean_weight_se
                assert result.min_p_uncensored == pytest.approx(0.2)
                assert any("inverse of their probability" in text for text in caveats(result))
    for (weigh, name), values in found.items():
        truth = world.logged_truth() if name == "logged" else world.truth(None)
        error = np.std(values, ddof=1) / len(values) ** 0.5
        assert (abs(np.mean(values) - truth) < 4 * error) == weigh, (weigh, name)


def test_an_unknown_probability_of_censoring_identifies_nothing():
    world, log, cell, rewards, p = censored(0, 500)
    p = np.where(np.arange(len(p)) == np.flatnonzero(~np.isnan(rewards))[0], np.nan, p)
    result = evaluate(log, world.policy(cell), rewards, rng=rng(), settings=QUICK, p_uncensored=p)
    assert not any(e.identified for e in result.estimates)
    assert "p_uncensored is unknown for 1 decisions" in result.get("snips").reason
    for wrong in (np.zeros(len(log)), np.full(len(log), 1.5), np.ones(3)):
        with pytest.raises(InputError, match="column 'p_uncensored'"):
            evaluate(log, world.policy(cell), rewards, rng=rng(), settings=QUICK, p_uncensored=wrong)
