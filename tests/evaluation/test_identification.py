"""Every way in which a log does not identify a value, with the reason."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from crosschannel.evaluation import EvaluationSettings, LoggedDecisions, QValues, SwitchDR, evaluate, unsupported_mass
from tests.evaluation.bandit_worlds import CHANNEL, OFFERS, check_not_identified, offers

pytestmark = pytest.mark.numerics

QUICK = EvaluationSettings(bootstrap_replicates=100)


def rng() -> np.random.Generator:
    return np.random.default_rng(11)


def test_below_the_minimum_ess_nothing_is_identified():
    world, log, cell, rewards = offers(users=100, rows=1)
    settings = replace(QUICK, min_ess=1000.0)
    result = evaluate(log, world.policy(cell), rewards, rng=rng(), settings=settings)
    for e in result.estimates:
        check_not_identified(e, f"ESS {e.support.ess:.0f} < 1,000")
    identified = evaluate(
        log, world.policy(cell), rewards, rng=rng(), settings=replace(QUICK, min_ess=2.0, min_users=2.0)
    )
    assert all(e.identified for e in identified.estimates)


def test_the_reason_names_the_minimum_that_applies():
    """Where one reward in 50 is 1, ten times the setting and more is required, and the setting alone would mislead."""
    world, log, cell, _ = offers(users=100, rows=1)
    rewards = (np.arange(len(log)) % 50 == 0).astype(np.float64)
    result = evaluate(log, world.policy(cell), rewards, rng=rng(), settings=replace(QUICK, min_ess=1000.0))
    e = result.get("snips")
    required = 1000.0 * e.support.kurtosis / 3
    assert required > 10_000.0
    assert e.reason == f"ESS {e.support.ess:,.0f} < {required:,.0f}, the minimum for rewards this rare or uneven"


@pytest.mark.parametrize(
    ("min_ess", "min_users", "reason"), [(200.0, 90.0, "ESS 37 < 200"), (40.0, 90.0, "ESS of users 37 < 90")]
)
def test_of_two_minimums_the_reason_names_the_one_that_is_missed_by_more(min_ess, min_users, reason):
    """One decision a user: both effective sample sizes are 37, below both minimums."""
    world, log, cell, rewards = offers(users=100, rows=1)
    settings = replace(QUICK, min_ess=min_ess, min_users=min_users)
    assert evaluate(log, world.policy(cell), rewards, rng=rng(), settings=settings).get("snips").reason == reason


def test_few_users_with_many_decisions_identify_nothing():
    world, log, cell, rewards = offers(users=20, rows=200)
    result = evaluate(log, world.policy(cell), rewards, rng=rng(), settings=QUICK)
    for e in result.estimates:
        check_not_identified(e, "20 users < 40")


def test_one_user_with_nearly_all_of_the_weight_identifies_nothing():
    world, log, cell, rewards = offers(users=1000, rows=1)
    user = np.where(np.arange(1000) < 900, 0, np.arange(1000))
    result = evaluate(replace(log, user=user), world.policy(cell), rewards, rng=rng(), settings=QUICK)
    e = result.get("snips")
    required = 40.0 * e.support.kurtosis_users / 3  # nearly all of the kurtosis is that user's as well
    check_not_identified(e, f"ESS of users 1 < {required:,.0f}, the minimum for rewards this rare or uneven")


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
            check_not_identified(e, "the log has no propensity for 600 decisions")
        else:
            check_not_identified(e, f"the log has no propensity for {int((log.actions[:, 0] != 0).sum())} decisions")


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
    strict = evaluate(part, p, rewards[never], rng=rng(), settings=replace(QUICK, max_unsupported_mass=lost / 2))
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
    assert result.get("ips").support.unsupported_mass == 0.0
    check_not_identified(result.get("ips"), "mean weight 0.50: the log lacks support for about 50% of the policy")


def test_propensities_of_another_log_are_noticed():
    world, log, cell, rewards = offers()
    wrong = replace(log, propensity=log.propensity * 0.7, joint=log.joint * 0.5)
    result = evaluate(wrong, world.policy(cell), rewards, rng=rng(), settings=QUICK)
    check_not_identified(result.get("ips"), "instead of 1: the propensities do not belong to this log")


def test_a_module_that_never_chose():
    n = 400
    log = LoggedDecisions(OFFERS, np.zeros((n, 3), dtype=np.int64), np.ones((n, 3)), np.ones(n), np.arange(n))
    p = [np.tile([1.0, 0.0, 0.0], (n, 1)), np.full((n, 4), 0.5), np.full((n, 2), 0.5)]
    result = evaluate(log, p, rng().normal(size=n), rng=rng(), settings=QUICK)
    assert result.get("ips", "type").identified
    check_not_identified(result.get("ips", "hour"), "the logging policy never makes this choice")
