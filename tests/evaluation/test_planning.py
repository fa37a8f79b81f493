"""Plans: sizes of trials against other implementations and simulation, and data needs against logs of that size."""

from __future__ import annotations

import json
import math
from dataclasses import replace

import numpy as np
import pytest
from scipy.stats import norm

from crosschannel.core.action_space import ActionSpace, Module
from crosschannel.core.errors import ConfigError
from crosschannel.evaluation import (
    SNIPS,
    ChosenWeights,
    DataNeed,
    EvaluationSettings,
    Interval,
    LoggedDecisions,
    LogSize,
    advice,
    data_needs,
    evaluate,
    headline,
    users_per_arm_of_means,
    users_per_arm_of_rates,
)
from crosschannel.evaluation.planning.needs import JOINT, ORDER_1

QUICK = EvaluationSettings(bootstrap_replicates=40)
RATES = [(0.05, 0.1, 0.8, 0.95), (0.001, 0.5, 0.9, 0.99), (0.4, -0.25, 0.95, 0.9), (0.5, 0.02, 0.8, 0.95)]


@pytest.mark.parametrize(("base", "lift", "power", "level"), RATES)
def test_users_of_two_rates_equal_those_of_statsmodels(base, lift, power, level):
    proportion = pytest.importorskip("statsmodels.stats.proportion")
    expected = proportion.samplesize_proportions_2indep_onetail(
        base * lift, base, power, ratio=1, alpha=(1 - level) / 2, alternative="larger" if lift > 0 else "smaller"
    )
    assert users_per_arm_of_rates(base, lift, power, level) == pytest.approx(expected, rel=1e-6)


def test_users_of_two_rates_have_the_power_they_are_said_to_have():
    """40,000 trials of that size: the share of them that reject is .8 within 4 standard errors and .01 for counts."""
    n = math.ceil(users_per_arm_of_rates(0.1, 0.3, 0.8))
    rng = np.random.default_rng(0)
    one, two = rng.binomial(n, 0.1, 40_000) / n, rng.binomial(n, 0.13, 40_000) / n
    mean = (one + two) / 2
    z = (two - one) / np.sqrt(2 * mean * (1 - mean) / n)
    assert (np.abs(z) > norm.ppf(0.975)).mean() == pytest.approx(0.8, abs=4 * math.sqrt(0.16 / 40_000) + 0.01)


@pytest.mark.parametrize(
    ("difference", "sd", "power", "level"),
    [
        (0.5, 12.0, 0.8, 0.95),
        (1.0, 1.0, 0.9, 0.99),
        (-0.3, 1.0, 0.5, 0.9),
        (3.0, 1.0, 0.95, 0.95),
        (0.02, 5, 0.8, 0.95),
    ],
)
def test_users_of_two_means_equal_those_of_statsmodels(difference, sd, power, level):
    solver = pytest.importorskip("statsmodels.stats.power").TTestIndPower()
    expected = solver.power(
        abs(difference) / sd, users_per_arm_of_means(difference, sd, power, level), 1 - level, alternative="two-sided"
    )
    assert expected == pytest.approx(power, abs=1e-6)


@pytest.mark.parametrize(
    "wrong",
    [
        lambda: users_per_arm_of_rates(0.0, 0.1),
        lambda: users_per_arm_of_rates(0.6, 0.7),
        lambda: users_per_arm_of_rates(0.1, 0.0),
        lambda: users_per_arm_of_rates(0.1, 0.1, power=1.0),
        lambda: users_per_arm_of_rates(0.1, math.nan),
        lambda: users_per_arm_of_means(0.0, 1.0),
        lambda: users_per_arm_of_means(1.0, 0.0),
        lambda: users_per_arm_of_means(1.0, 1.0, level=0.0),
        lambda: users_per_arm_of_means(1e-9, 1.0),
    ],
)
def test_impossible_trials_are_refused(wrong):
    with pytest.raises(ConfigError):
        wrong()


MODULES = ActionSpace(
    [Module("channel", ("none", "email", "push")), Module("offer", ("a", "b", "c", "d")), Module("tone", ("x", "y"))]
)
MU = (np.array([0.6, 0.3, 0.1]), np.array([0.7, 0.1, 0.1, 0.1]), np.array([0.8, 0.2]))
PI = (np.array([0.2, 0.3, 0.5]), np.array([0.1, 0.1, 0.7, 0.1]), np.array([0.1, 0.9]))


def draw(n, rng, exploration=0.0, decisions_per_user=5):
    """A log of independent modules, mixed with uniform choices, and rewards of variance 1."""
    mixed = [(1 - exploration) * p + exploration / len(p) for p in MU]
    actions = MODULES.canonical(np.stack([rng.choice(len(p), n, p=p) for p in mixed], 1))
    propensity = MODULES.chosen_probabilities([np.tile(p, (n, 1)) for p in mixed], actions)
    log = LoggedDecisions(
        modules=MODULES,
        actions=actions,
        propensity=propensity,
        joint=propensity.prod(1),
        user=np.arange(n) // decisions_per_user,
    )
    return log, [np.tile(p, (n, 1)) for p in PI], rng.normal(size=n)


def exact_moment(way, exploration):
    """The second moment of the weights by enumeration of all actions."""
    mixed = [(1 - exploration) * p + exploration / len(p) for p in MU]
    total = PI[0][0] ** 2 / mixed[0][0]
    for c in (1, 2):
        for o in range(4):
            for k in range(2):
                weights = [PI[m][a] / mixed[m][a] for m, a in enumerate((c, o, k))]
                chance = math.prod(mixed[m][a] for m, a in enumerate((c, o, k)))
                weight = math.prod(weights) if way == JOINT else weights[0] * (1 + sum(w - 1 for w in weights[1:]))
                total += chance * weight**2
    return total


@pytest.mark.parametrize("way", [JOINT, ORDER_1])
@pytest.mark.parametrize("exploration", [0.0, 0.2, 1.0])
def test_moments_under_more_exploration_equal_enumeration(way, exploration):
    """400,000 decisions: the largest weight is 39, so that the moments' relative errors are below 1.5 %."""
    log, policy, _ = draw(400_000, np.random.default_rng(1))
    found = ChosenWeights.from_log(log, policy).moments(exploration).of(way)
    assert found == pytest.approx(exact_moment(way, exploration), rel=0.05)


def test_the_log_itself_has_the_moment_of_its_own_weights():
    log, policy, _ = draw(50_000, np.random.default_rng(2), exploration=0.3)
    weights = MODULES.chosen_probabilities(policy, log.actions).prod(1) / log.joint
    assert ChosenWeights.from_log(log, policy).moments().joint == pytest.approx((weights**2).mean(), rel=0.03)


def test_a_module_that_explores_alone_changes_its_own_moment_alone():
    log, policy, _ = draw(20_000, np.random.default_rng(3))
    weights = ChosenWeights.from_log(log, policy)
    before, after = weights.moments(), weights.moments(np.array([0.0, 0.5, 0.0]))
    assert after.factors["offer"] < 0.7 * before.factors["offer"]
    assert after.factors["tone"] == before.factors["tone"]
    assert (after.nothing, after.sent) == (before.nothing, before.sent)


def test_constant_actions_have_the_mean_moment_of_all_policies_that_choose_one():
    log, _, _ = draw(300_000, np.random.default_rng(16))
    moments = ChosenWeights.of_constant_actions(log).moments(0.1)
    mixed = [0.9 * p + 0.1 / len(p) for p in MU]
    assert moments.nothing + moments.sent == pytest.approx((1 / mixed[0]).mean(), rel=0.02)
    assert moments.factors["offer"] == pytest.approx((1 / mixed[1]).mean(), rel=0.02)
    assert moments.factors["tone"] == pytest.approx((1 / mixed[2]).mean(), rel=0.02)


def draw_together(n, rng):
    """A log whose tone is mostly the offer's own, the policy of `PI`, and rewards of variance 1."""
    chances = np.array([[0.9, 0.1], [0.1, 0.9], [0.1, 0.9], [0.9, 0.1]])
    actions = np.stack([rng.choice(len(p), n, p=p) for p in MU], 1)
    actions[:, 2] = rng.random(n) < chances[actions[:, 1], 1]
    sent = actions[:, 0] > 0
    tone = chances[actions[:, 1], actions[:, 2]]
    propensity = np.stack(
        [MU[0][actions[:, 0]], np.where(sent, MU[1][actions[:, 1]], 1.0), np.where(sent, tone, 1.0)], axis=1
    )
    log = LoggedDecisions(
        modules=MODULES,
        actions=MODULES.canonical(actions),
        propensity=propensity,
        joint=propensity.prod(1),
        user=np.arange(n) // 5,
    )
    return log, [np.tile(p, (n, 1)) for p in PI], rng.normal(size=n)


def test_modules_that_were_drawn_together_are_one_factor_of_the_plan():
    """Order 1 is then the weight of the whole action, and its moment that of the ladder's own weights."""
    log, policy, rewards = draw_together(20_000, np.random.default_rng(17))
    weights = MODULES.chosen_probabilities(policy, log.actions).prod(1) / log.joint
    found = ChosenWeights.from_log(log, policy)
    assert found.factors.names == ("offer+tone",)
    assert found.moments().order_1 == found.moments().joint == pytest.approx((weights**2).mean())
    order_1, joint = data_needs(found, size_of(log, rewards), 0.05)
    assert order_1.factor == joint.factor
    evaluated = evaluate(
        log, policy, rewards, rng=np.random.default_rng(0), settings=EvaluationSettings(bootstrap_replicates=40)
    )
    assert order_1.ess == pytest.approx(evaluated.ladder.orders[1].support.ess, rel=0.05)
    declared = ChosenWeights.from_log(log, policy, "independent")
    assert set(declared.moments().factors) == {"offer", "tone"}


def test_a_logged_probability_that_is_not_the_product_is_that_of_the_plan():
    log, policy, _ = draw_together(20_000, np.random.default_rng(18))
    alone = log.propensity.copy()
    share = np.array([0.74, 0.26])[log.actions[:, 2]]  # Of the tones over all offers: .7 * .9 + .1 * (.1 + .1 + .9).
    alone[MODULES.sends(log.actions), 2] = share[MODULES.sends(log.actions)]
    weights = MODULES.chosen_probabilities(policy, log.actions).prod(1) / log.joint
    found = ChosenWeights.from_log(replace(log, propensity=alone), policy).moments()
    assert found.order_1 == found.joint == pytest.approx((weights**2).mean())


def size_of(log, rewards):
    half = 1.96 * rewards.std() / math.sqrt(len(log))
    mean = float(rewards.mean())
    return LogSize(len(np.unique(log.user)), len(log), 4.0, Interval(mean, mean - half, mean + half, half / 1.96))


class TestNeeds:
    def test_a_log_of_the_planned_size_has_the_error_that_was_asked_for(self):
        """The error of IPS over 300 logs of the planned users: that which was asked for, within 15 %.

        A standard deviation of 300 values has a relative error of 4 %; the plan's moment one of 5 %.
        """
        rng = np.random.default_rng(4)
        log, policy, rewards = draw(20_000, rng)
        need = data_needs(ChosenWeights.from_log(log, policy), size_of(log, rewards), 0.25, 1.0, (JOINT,))[0]
        n = 5 * math.ceil(need.users)
        estimates = []
        for _ in range(300):
            again, chosen, values = draw(n, rng)
            weights = MODULES.chosen_probabilities(chosen, again.actions).prod(1) / again.joint
            estimates.append((weights * values).mean())
        assert 1.96 * np.std(estimates) == pytest.approx(0.25, rel=0.15)

    def test_a_log_with_the_planned_exploration_has_the_error_that_was_asked_for(self):
        rng = np.random.default_rng(5)
        log, policy, rewards = draw(10_000, rng)
        asked = 0.04
        need = data_needs(ChosenWeights.from_log(log, policy), size_of(log, rewards), asked, ways=(JOINT,))[0]
        assert need.factor > 2
        assert 0 < need.exploration < 1
        assert 1.96 * math.sqrt(exact_moment(JOINT, need.exploration) / 10_000) == pytest.approx(asked, rel=0.05)

    def test_adding_up_modules_needs_less_than_joint_weights(self):
        log, policy, rewards = draw(10_000, np.random.default_rng(6))
        order_1, joint = data_needs(ChosenWeights.from_log(log, policy), size_of(log, rewards), 0.05)
        assert (order_1.way, joint.way) == (ORDER_1, JOINT)
        assert order_1.users < joint.users
        assert order_1.ess > joint.ess

    def test_the_effective_sample_size_is_required_whatever_the_error(self):
        log, policy, rewards = draw(1000, np.random.default_rng(7))
        need = data_needs(ChosenWeights.from_log(log, policy), size_of(log, rewards), 1e6, min_ess=5000, ways=(JOINT,))[
            0
        ]
        assert need.ess * need.factor == pytest.approx(5000)
        assert need.users == pytest.approx(need.factor * 200)
        assert need.weeks == pytest.approx(need.factor * 4)

    def test_no_exploration_helps_where_even_uniform_choices_are_too_few(self):
        log, policy, rewards = draw(1000, np.random.default_rng(8))
        need = data_needs(ChosenWeights.from_log(log, policy), size_of(log, rewards), 1e-3)[0]
        assert need.exploration is None
        assert "no share of uniform choices" in str(need)
        json.dumps(need.to_dict(), allow_nan=False)

    def test_a_log_that_suffices_is_said_to(self):
        log, policy, rewards = draw(10_000, np.random.default_rng(9))
        need = data_needs(ChosenWeights.from_log(log, policy), size_of(log, rewards), 10.0, min_ess=1.0)[0]
        assert need.factor < 1
        assert need.exploration == 0
        assert "is enough" in str(need)

    def test_missing_propensities_and_errors_of_nothing_are_refused(self):
        log, policy, rewards = draw(100, np.random.default_rng(10))
        weights = ChosenWeights.from_log(log, policy)
        with pytest.raises(ConfigError, match="the error is 0"):
            data_needs(weights, size_of(log, rewards), 0.0)
        with pytest.raises(ConfigError, match="exploration"):
            weights.moments(1.5)
        missing = log.propensity.copy()
        missing[MODULES.sends(log.actions), 1] = np.nan
        with pytest.raises(ConfigError, match="no propensity of offer"):
            ChosenWeights.from_log(replace(log, propensity=missing), policy)
        with pytest.raises(ConfigError, match="a plan needs"):
            LogSize(0, 0, 1.0, Interval(0.0, 0.0, 0.0, 0.0))

    def test_a_policy_that_sends_nothing_needs_no_content(self):
        log, policy, _ = draw(1000, np.random.default_rng(11))
        policy[0] = np.tile([1.0, 0.0, 0.0], (1000, 1))
        moments = ChosenWeights.from_log(log, policy).moments()
        assert moments.sent == 0
        assert moments.joint == moments.order_1 == pytest.approx(1 / 0.6, rel=0.05)


class TestAdvice:
    def evaluated(self, n=1500, **settings):
        rng = np.random.default_rng(12)
        log, policy, rewards = draw(n, rng)
        return evaluate(
            log,
            policy,
            rewards,
            rng=rng,
            settings=EvaluationSettings(bootstrap_replicates=40, **settings),
            estimators=(SNIPS(),),
        )

    def test_there_is_none_where_the_value_is_identified(self):
        assert advice(self.evaluated(n=20_000)) == []

    def test_the_users_that_it_names_are_enough(self):
        """ESS grows with the users: the number that is advised passes the minimum, and half of it does not."""
        lacking = self.evaluated(min_ess=1000)
        (sentence,) = advice(lacking, weeks=2.0)
        users = int(sentence.split("at least ")[1].split(" evaluated users")[0].replace(",", ""))
        assert f"instead of {lacking.users:,} (or " in sentence
        assert not advice(self.evaluated(n=5 * int(users * 1.3), min_ess=1000))
        assert advice(self.evaluated(n=5 * int(users * 0.5), min_ess=1000))

    def test_needs_follow(self):
        log, policy, rewards = draw(1500, np.random.default_rng(13))
        needs = data_needs(ChosenWeights.from_log(log, policy), size_of(log, rewards), 0.01)
        assert advice(self.evaluated(min_ess=1000), needs)[1:] == [str(need) for need in needs]
        assert isinstance(needs[0], DataNeed)

    def test_no_number_of_users_replaces_actions_that_are_never_logged(self):
        log, policy, rewards = draw(3000, np.random.default_rng(14))
        kept = log.actions[:, 1] != 2
        evaluated = evaluate(
            log[kept],
            [p[kept] for p in policy],
            rewards[kept],
            rng=np.random.default_rng(0),
            settings=EvaluationSettings(bootstrap_replicates=40),
            estimators=(SNIPS(),),
        )
        (sentence,) = advice(evaluated)
        assert "no number of users" in sentence

    def half_supported(self, n=20_000):
        """A log that never makes offer b in one half of the slots, which its shares over all slots do not show."""
        log, _, rewards = draw(n, np.random.default_rng(15), exploration=1.0)
        kept = (np.arange(n) % 2 == 0) | (log.actions[:, 1] != 1) | ~MODULES.sends(log.actions)
        always = [np.tile(np.eye(k)[1], (n, 1))[kept] for k in (3, 4, 2)]
        evaluated = evaluate(
            log[kept], always, rewards[kept], rng=np.random.default_rng(0), settings=QUICK, estimators=(SNIPS(),)
        )
        return log[kept], always, rewards[kept], evaluated

    def test_more_data_does_not_help_where_a_size_is_not_the_reason(self):
        log, policy, rewards, evaluated = self.half_supported()
        needs = data_needs(ChosenWeights.from_log(log, policy), size_of(log, rewards), 1.0)
        assert all(need.factor <= 1 for need in needs)
        (sentence,) = advice(evaluated, needs)
        assert sentence.startswith("More data of this kind does not help: mean weight 0.")

    @pytest.mark.parametrize(
        ("reason", "expected"),
        [
            ("the overlap is too small", "More data of this kind does not help: the overlap is too small."),
            (
                "undefined in 3 of 40 replicates",
                "How much more data would help is not known: the value is undefined in",
            ),
        ],
    )
    def test_other_reasons_are_not_sizes_either(self, reason, expected):
        log, policy, rewards = draw(20_000, np.random.default_rng(12), exploration=0.5)
        blocked = {"no_overlap": reason} if "overlap" in reason else {}
        evaluated = evaluate(log, policy, rewards, rng=np.random.default_rng(0), settings=QUICK, **blocked)
        if not blocked:
            orders = tuple(replace(e, reason=reason) for e in evaluated.ladder.orders)
            evaluated = replace(evaluated, ladder=replace(evaluated.ladder, orders=orders))
        (sentence,) = advice(evaluated, data_needs(ChosenWeights.from_log(log, policy), size_of(log, rewards), 10.0))
        assert sentence.startswith(expected)

    def test_propensities_of_later_slots_that_are_unknown_are_the_reason(self):
        log, policy, rewards = draw(20_000, np.random.default_rng(12), exploration=0.5)
        p_uncensored = np.where(np.arange(len(log)) < 7, np.nan, 1.0)
        evaluated = evaluate(
            log, policy, rewards, rng=np.random.default_rng(0), settings=QUICK, p_uncensored=p_uncensored
        )
        (sentence,) = advice(evaluated)
        assert sentence.startswith("More data of this kind does not help: p_uncensored is unknown for 7 decisions")

    def test_a_narrow_interval_is_not_called_enough_while_a_size_is_lacking(self):
        log, policy, rewards = draw(1500, np.random.default_rng(13))
        evaluated = self.evaluated(min_ess=1000)
        first, *sentences = advice(
            evaluated, data_needs(ChosenWeights.from_log(log, policy), size_of(log, rewards), 10.0, min_ess=1.0)
        )
        assert f"evaluated users like these, instead of {evaluated.users:,}." in first
        assert len(sentences) == 2
        assert all(
            f"is narrow enough for +- 10, but the value is not identified: {headline(evaluated).reason}." in sentence
            for sentence in sentences
        )
