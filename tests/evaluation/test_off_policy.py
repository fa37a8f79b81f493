"""Off-policy evaluation: estimands against enumeration, and every way in which a log does not identify a value."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from crosschannel.core.errors import ConfigError, InputError, NotIdentified
from crosschannel.evaluation import (
    DM,
    DR,
    IPS,
    SNIPS,
    Estimate,
    Evaluation,
    EvaluationSettings,
    LoggedDecisions,
    OutcomeModel,
    QValues,
    Sample,
    SwitchDR,
    effective_sample_size,
    evaluate,
    findings,
    importance_weights,
    unsupported_mass,
)
from tests.evaluation.bandit_worlds import CHANNEL, OFFERS, World

QUICK = EvaluationSettings(replicates=100)


def rng() -> np.random.Generator:
    return np.random.default_rng(11)


def offers(users: int = 1500, rows: int = 2, seed: int = 0):
    world = World.make(OFFERS, seed=1)
    log, cell, rewards = world.draw(np.random.default_rng(seed), users, rows)
    return world, log, cell, rewards


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
        assert e.support.unsupported == pytest.approx(0.0, abs=1e-12)


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


def reasons(result: Evaluation) -> dict[tuple[str | None, str], str]:
    return {(e.module, e.estimator): e.reason for e in result.estimates}


def check_not_identified(e: Estimate, reason: str) -> None:
    assert not e.identified
    assert reason in e.reason
    assert np.isnan([e.value.point, e.value.low, e.value.high, e.value.se]).all()
    assert np.isnan([e.difference.point, e.difference.low, e.difference.high]).all()
    assert "not identified (" in str(e)


def test_below_the_ess_floor_nothing_is_identified():
    world, log, cell, rewards = offers(users=100, rows=1)
    settings = replace(QUICK, ess_floor=1000.0)
    result = evaluate(log, world.policy(cell), rewards, rng=rng(), settings=settings)
    for e in result.estimates:
        check_not_identified(e, f"ESS {e.support.ess:.0f} < 1000")
    identified = evaluate(
        log, world.policy(cell), rewards, rng=rng(), settings=replace(QUICK, ess_floor=2.0, users_floor=2.0)
    )
    assert all(e.identified for e in identified.estimates)


def test_few_users_with_many_decisions_identify_nothing():
    world, log, cell, rewards = offers(users=20, rows=200)
    result = evaluate(log, world.policy(cell), rewards, rng=rng(), settings=QUICK)
    for e in result.estimates:
        check_not_identified(e, "20 users < 40")


def test_one_user_with_nearly_all_of_the_weight_identifies_nothing():
    world, log, cell, rewards = offers(users=1000, rows=1)
    user = np.where(np.arange(1000) < 900, 0, np.arange(1000))
    result = evaluate(replace(log, user=user), world.policy(cell), rewards, rng=rng(), settings=QUICK)
    check_not_identified(result.get("snips"), "ESS of users 1 < 40")


def test_without_propensities_only_the_model_answers():
    world, log, cell, rewards = offers(users=300)
    blind = replace(
        log,
        propensity=np.full_like(log.propensity, np.nan),
        joint=np.full(len(log), np.nan),
        propensity_source="missing",
    )
    p = world.policy(cell)
    q = [QValues(np.zeros(len(log)), np.ones(len(log)))] * 4
    result = evaluate(blind, p, rewards, rng=rng(), q_values=q, settings=QUICK)
    for e in result.estimates:
        if e.estimator == "dm":
            assert e.value.point == 1.0
        elif e.module in (None, "type"):
            check_not_identified(e, "the log has no propensity of 600 decisions")
        else:
            check_not_identified(e, f"the log has no propensity of {int((log.actions[:, 0] != 0).sum())} decisions")


def test_switch_dr_that_leaves_much_to_the_model_is_not_identified():
    """Below most weights it would be the model's value, with an interval that hides the model's error."""
    world, log, cell, rewards = offers()
    q = [QValues(np.zeros(len(log)), np.full(len(log), 100.0))] * 4
    for threshold, identified in ((0.5, False), (1e6, True)):
        result = evaluate(
            log,
            world.policy(cell),
            rewards,
            rng=rng(),
            q_values=q,
            settings=QUICK,
            estimators=(SwitchDR(threshold),),
        )
        joint = result.get("switch-dr")
        assert joint.identified == identified
        if not identified:
            check_not_identified(joint, "of the weight is above 0.5: the value would be the outcome model's")


def test_a_joint_propensity_alone_identifies_the_whole_action_alone():
    world, log, cell, rewards = offers(users=300)
    only_joint = replace(log, propensity=np.full_like(log.propensity, np.nan))
    result = evaluate(only_joint, world.policy(cell), rewards, rng=rng(), settings=QUICK)
    assert result.get("ips").identified
    assert not result.get("ips", "type").identified
    only_modules = replace(log, joint=np.full(len(log), np.nan))
    other = evaluate(only_modules, world.policy(cell), rewards, rng=rng(), settings=QUICK)
    assert other.get("ips").value.point == pytest.approx(result.get("ips").value.point, rel=1e-9)


def test_mass_on_actions_that_the_log_never_takes():
    world, log, cell, rewards = offers(users=600)
    never = (log.actions != [2, 3, 1]).any(1)
    part, p = log[never], world.policy(cell[never])
    joint = OFFERS.all_joint_probabilities(p)
    lost = joint[:, OFFERS.joint_index(np.array([[2, 3, 1]]))[0]].mean()
    assert unsupported_mass(part, p, None) == pytest.approx(lost)
    # Each single choice still occurs, so that the modules, one by one, are supported.
    assert unsupported_mass(part, p, 1) == pytest.approx(0.0, abs=1e-12)
    strict = evaluate(part, p, rewards[never], rng=rng(), settings=replace(QUICK, unsupported_limit=lost / 2))
    check_not_identified(strict.get("ips"), "of the policy's mass is on actions that the log never takes")


def test_mass_on_ineligible_actions():
    _, log, _, _ = offers(users=100)
    eligible = np.ones((len(log), OFFERS.total), dtype=bool)
    eligible[:, 2] = False
    p = [np.full((len(log), 3), [0.5, 0.2, 0.3]), np.full((len(log), 4), 0.5), np.full((len(log), 2), 0.5)]
    masked = replace(log, eligible=eligible)
    assert unsupported_mass(masked, p, None) == pytest.approx(0.3)
    assert unsupported_mass(masked, p, 0) == pytest.approx(0.3)


def test_mass_in_contexts_where_the_log_does_not_act_so():
    """Both actions occur in the log, each in its own context: only the mean weight shows the lack of support."""
    n = 2000
    context = np.arange(n) % 2
    actions = context[:, None].astype(np.int64)
    log = LoggedDecisions(CHANNEL, actions, np.ones((n, 1)), np.ones(n), np.arange(n))
    p = [np.tile([0.5, 0.5, 0.0], (n, 1))]
    result = evaluate(log, p, rng().normal(size=n), rng=rng(), settings=QUICK)
    assert result.get("ips").support.unsupported == 0.0
    check_not_identified(result.get("ips"), "mean weight 0.50: the log lacks support for about 50% of the policy")


def test_propensities_of_another_log_are_noticed():
    world, log, cell, rewards = offers()
    wrong = replace(log, propensity=log.propensity * 0.7, joint=log.joint * 0.5)
    result = evaluate(wrong, world.policy(cell), rewards, rng=rng(), settings=QUICK)
    check_not_identified(result.get("ips"), "instead of 1: the propensities are not those of this log")


def test_a_module_that_never_chose():
    n = 400
    log = LoggedDecisions(OFFERS, np.zeros((n, 3), dtype=np.int64), np.ones((n, 3)), np.ones(n), np.arange(n))
    p = [np.tile([1.0, 0.0, 0.0], (n, 1)), np.full((n, 4), 0.5), np.full((n, 2), 0.5)]
    result = evaluate(log, p, rng().normal(size=n), rng=rng(), settings=QUICK)
    assert result.get("ips", "type").identified
    check_not_identified(result.get("ips", "hour"), "the log never makes this choice")


def test_decisions_without_a_reward_are_left_out_and_counted():
    world, log, cell, rewards = offers(users=400)
    gone = np.arange(len(log)) % 5 == 0
    p = world.policy(cell)
    result = evaluate(log, p, np.where(gone, np.nan, rewards), rng=rng(), settings=QUICK)
    part = evaluate(log[~gone], [a[~gone] for a in p], rewards[~gone], rng=rng(), settings=QUICK)
    assert result.get("snips").value.point == pytest.approx(part.get("snips").value.point, rel=1e-12)
    assert result.decisions == (~gone).sum()
    assert result.reward_counts == {"identified": int((~gone).sum()), "not identified": int(gone.sum())}
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
    settings = EvaluationSettings(replicates=400)
    moving = evaluate(log, p, refit, rng=rng(), settings=settings).get("snips").value
    fixed = evaluate(log, p, refit(np.ones(n)), rng=rng(), settings=settings).get("snips").value
    assert moving.point == fixed.point
    # The mean of the sent minus the mean of the controls: the variances of both means add up.
    expected = np.sqrt(outcome[sent == 1].var() / sent.sum() + outcome[sent == 0].var() / (n - sent.sum()))
    assert moving.se == pytest.approx(expected, rel=0.15)
    assert fixed.se < 0.4 * moving.se


def test_rewards_that_replicates_lose_are_reported():
    world, log, cell, rewards = offers(users=300)
    cells = np.arange(len(log)) % 12
    least = np.bincount(cells, log.actions[:, 0] == 0).min()
    refit = control_means(log, rewards, cells, least)
    result = evaluate(log, world.policy(cell), refit, rng=rng(), settings=QUICK)
    assert result.refitted
    assert 0.0 < result.lost < 0.5
    assert result.get("snips").identified


def test_a_value_that_some_replicate_does_not_define_is_not_identified():
    world, log, cell, rewards = offers(users=300)
    refit = control_means(log, rewards, np.zeros(len(log), dtype=np.int64), (log.actions[:, 0] == 0).sum())
    result = evaluate(log, world.policy(cell), refit, rng=rng(), settings=QUICK)
    check_not_identified(result.get("snips"), "of 100 replicates")
    assert not result.logged.known


def bad(log: LoggedDecisions, name: str, row: int, value: float) -> dict[str, np.ndarray]:
    array = getattr(log, name).copy()
    array[row] = value
    return {name: array}


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda g: bad(g, "joint", 4, 0.0), r"column 'propensity', row 5, value 0.0: is not in \(0, 1\]"),
        (lambda g: bad(g, "joint", 4, 1.2), r"column 'propensity', row 5, value 1.2: is not in \(0, 1\]"),
        (lambda g: bad(g, "propensity", 2, -0.1), r"column 'propensity_type', row 3, value -0.1"),
        (lambda g: bad(g, "actions", 0, 9), r"column 'actions', row 1, .* is not an action of the modules"),
        (lambda g: {"joint": g.joint[:-1]}, r"column 'joint': the shape is \(59,\), not \(60,\)"),
        (lambda g: {"propensity": g.propensity[:, :2]}, r"column 'propensity': the shape is \(60, 2\), not \(60, 3\)"),
        (lambda g: {"user": g.user[:5]}, r"column 'user': the shape is \(5,\)"),
        (
            lambda g: {"eligible": np.ones((60, 3), dtype=bool)},
            r"column 'eligible': the shape is \(60, 3\), not \(60, 9\)",
        ),
        (lambda _: {"propensity_source": "guessed"}, r"value 'guessed': is unknown. Use one of logged, by design"),
        (
            lambda g: {n: getattr(g, n)[:0] for n in ("actions", "propensity", "joint", "user")},
            "there are no decisions",
        ),
    ],
)
def test_invalid_logs(change, message):
    _, log, _, _ = offers(users=30)
    with pytest.raises(InputError, match=message):
        replace(log, **change(log))


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"probabilities": lambda p: p[:2]}, "probabilities of 2 modules, not of 3"),
        ({"probabilities": lambda p: [p[0][:-1], *p[1:]]}, r"column 'type': the shape is \(59, 3\), not \(60, 3\)"),
        ({"probabilities": lambda p: [p[0] * 9, *p[1:]]}, r"column 'type', row 1, .* not a row of prob"),
        ({"probabilities": lambda p: [p[0] * 0.5, *p[1:]]}, r"column 'type', row 1, value 0.5.*: is not a sum of 1"),
        ({"probabilities": lambda p: [p[0], -p[1], p[2]]}, r"column 'variant', row 1, .* not a row of probabilities"),
        ({"probabilities": lambda p: [p[0], p[1] * np.nan, p[2]]}, r"column 'variant', row 1"),
        ({"rewards": lambda r: r[:-1]}, r"column 'rewards': the shape is \(59,\), not \(60,\)"),
        ({"rewards": lambda r: np.where(r > r.min(), r, np.inf)}, r"column 'rewards', row \d+, value inf: is infinite"),
        ({"q_values": lambda q: q[:3]}, "column 'q_values': there are 3 entries, not 4"),
        ({"q_values": lambda q: [QValues(q[0].logged[:5], q[0].policy), *q[1:]]}, r"an array of shape \(5,\) is not"),
        ({"q_values": lambda q: [QValues(q[0].logged * np.nan, q[0].policy), *q[1:]]}, "and finite"),
    ],
)
def test_invalid_inputs(change, message):
    world, log, cell, rewards = offers(users=30)
    given = {
        "probabilities": world.policy(cell),
        "rewards": rewards,
        "q_values": [QValues(np.zeros(60), np.zeros(60))] * 4,
    }
    ((name, function),) = change.items()
    with pytest.raises(InputError, match=message):
        evaluate(log, **{**given, name: function(given[name])}, rng=rng(), settings=QUICK)


def test_estimators_that_need_a_model_need_one():
    world, log, cell, rewards = offers(users=30)
    with pytest.raises(ConfigError, match="needs an outcome model"):
        evaluate(log, world.policy(cell), rewards, rng=rng(), estimators=[DR(), DM()])


@pytest.mark.parametrize("change", [{"ess_floor": 0.0}, {"users_floor": 1.0}, {"unsupported_limit": 1.5}])
def test_invalid_settings(change):
    with pytest.raises(ConfigError, match=next(iter(change))):
        EvaluationSettings(**change)


def losing(seed: int, users: int):
    """A log that loses rewards to later messages, in half of the contexts far more often, and the chance to keep."""
    world = World.make(OFFERS, seed=1)
    generator = np.random.default_rng(seed)
    log, cell, rewards = world.draw(generator, users)
    kept = np.where(cell < 2, 0.2, 0.95)
    return world, log, cell, np.where(generator.random(len(kept)) < kept, rewards, np.nan), kept


def test_values_are_about_the_decisions_that_lost_their_reward_too():
    """Over 40 logs of 3,000 users the weighted estimates are within 4 standard errors of the truth; unweighted not."""
    settings = EvaluationSettings(replicates=40)
    found: dict[tuple[bool, str], list[float]] = {}
    for seed in range(40):
        world, log, cell, rewards, kept = losing(seed, 3000)
        for weigh in (True, False):
            result = evaluate(
                log,
                world.policy(cell),
                rewards,
                rng=rng(),
                settings=settings,
                estimators=(IPS(), SNIPS()),
                kept=kept if weigh else None,
            )
            for e in result.estimates:
                if e.module is None:
                    found.setdefault((weigh, e.estimator), []).append(e.value.point)
            found.setdefault((weigh, "logged"), []).append(result.logged.point)
            support = result.get("snips").support
            if weigh:
                assert abs(support.mean_weight - 1) < 4 * support.mean_weight_se
                assert result.least_kept == pytest.approx(0.2)
                assert any("inverse of their chance" in text for text in findings(result))
    for (weigh, name), values in found.items():
        truth = world.logged_truth() if name == "logged" else world.truth(None)
        error = np.std(values, ddof=1) / len(values) ** 0.5
        assert (abs(np.mean(values) - truth) < 4 * error) == weigh, (weigh, name)


def test_an_unknown_chance_to_keep_the_reward_identifies_nothing():
    world, log, cell, rewards, kept = losing(0, 500)
    kept = np.where(np.arange(len(kept)) == np.flatnonzero(~np.isnan(rewards))[0], np.nan, kept)
    result = evaluate(log, world.policy(cell), rewards, rng=rng(), settings=QUICK, kept=kept)
    assert not any(e.identified for e in result.estimates)
    assert "no propensity of the slots after 1 decisions" in result.get("snips").reason
    for wrong in (np.zeros(len(log)), np.full(len(log), 1.5), np.ones(3)):
        with pytest.raises(InputError, match="chance to keep"):
            evaluate(log, world.policy(cell), rewards, rng=rng(), settings=QUICK, kept=wrong)


@pytest.mark.parametrize("name", ["ess_floor", "users_floor"])
@pytest.mark.parametrize("value", [float("nan"), float("inf"), 0.0])
def test_floors_cannot_be_switched_off(name, value):
    with pytest.raises(ConfigError, match=name):
        EvaluationSettings(**{name: value})
