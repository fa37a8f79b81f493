"""The worlds in which content adds up, in which one pair interacts, and in which the log chooses templates."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from crosschannel.core.errors import ConfigError
from crosschannel.envs.market import (
    SCENARIOS,
    BusinessAsUsual,
    ContentParts,
    Dynamics,
    Market,
    MarketConfig,
    Rules,
    evaluate_policy,
    make_policy,
    simulate_history,
)
from crosschannel.envs.market.scenarios import SYNERGY_BIAS, SYNERGY_PAIR
from crosschannel.envs.market.vocabulary import MODULES, OFFERS, TONES
from crosschannel.histories.propensities.checks import check_propensities

OFFER, TONE = MODULES.names.index("offer"), MODULES.names.index("tone")
PAIR = (list(OFFERS).index(SYNERGY_PAIR[0]), list(TONES).index(SYNERGY_PAIR[1]))


def tables(scenario, users=60):
    """True effects of all messages of each channel at slots on several days: (N, channels - 1, b, s, o, k, g)."""
    market = Market(MarketConfig(days=9, scenario=scenario))
    state = market.reset(market.keys(users, seed=3))
    state.users.reachable[:, 1:] = True
    rng = np.random.default_rng(0)
    for _ in range(5):
        market.step(state, MODULES.joint_actions[rng.integers(0, 4801, users)])
    effects = market.true_effect(state, MODULES.joint_actions[None, 1:])
    return market, state, effects.reshape(users, *(MODULES.sizes[0] - 1, *MODULES.sizes[1:]))


def interaction(table, kept):
    """The interactions of the modules with the given axes, averaged over the others: what no sum of parts explains."""
    others = tuple(axis for axis in range(2, 7) if axis not in kept)
    part = table.mean(axis=others)
    return part - part.mean(2, keepdims=True) - part.mean(3, keepdims=True) + part.mean((2, 3), keepdims=True)


def sum_of_parts(table):
    """The best sum of one function for each module of content: the mean, and each module's deviations from it."""
    mean = table.mean(axis=(2, 3, 4, 5, 6), keepdims=True)
    axes = range(2, 7)
    return mean + sum(
        table.mean(axis=tuple(other for other in axes if other != axis), keepdims=True) - mean for axis in axes
    )


class TestAdditive:
    def test_effects_add_up_for_each_user_day_and_channel(self):
        _, _, table = tables("additive")
        assert sum_of_parts(table) == pytest.approx(table, abs=1e-12)
        assert np.ptp(table.mean(1), axis=(1, 2, 3, 4, 5)).min() > 1e-3, "content matters to everybody"
        for axis in range(2, 7):
            others = tuple(other for other in range(1, 7) if other != axis)
            assert np.ptp(table.mean(axis=others), axis=1).mean() > 1e-3, "each module matters"

    def test_effects_do_not_add_up_in_the_default_world(self):
        _, _, table = tables("default")
        assert np.abs(sum_of_parts(table) - table).max() > 0.01

    def test_channels_interact_with_content(self):
        _, _, table = tables("additive")
        spread = np.ptp(table, axis=(2, 3, 4, 5, 6))
        assert (spread.max(1) > 1.5 * spread.min(1)).mean() > 0.9

    def test_order_one_is_unbiased_for_any_policy(self):
        """The exact mean over the log's actions of (1 + sum of delta) times the effect equals the policy's value."""
        market, state, table = tables("additive")
        logged = [p[0] for p in BusinessAsUsual().probabilities(market, state)[1:]]
        rng = np.random.default_rng(1)
        chosen = [rng.dirichlet(np.full(len(p), 0.3)) for p in logged]
        assert order_one(table, logged, chosen) == pytest.approx(weighted_mean(table, chosen), abs=1e-12)

    def test_no_send_and_the_oracle_are_what_they_should_be(self):
        market = Market(MarketConfig(scenario="additive", days=10))
        values = {
            name: evaluate_policy(market, name, 600, seed=3) for name in ("oracle", "business_as_usual", "no_send")
        }
        assert (values["no_send"].effect == 0).all()
        gain, error = values["oracle"].minus(values["business_as_usual"])
        assert gain > 5 * error


def weighted_mean(table, probabilities):
    """The mean of effects (N, c, b, s, o, k, g) over content with independent probabilities (N or all users, A)."""
    return np.einsum("ncbsokg,b,s,o,k,g->nc", table, *probabilities)


def order_one(table, logged, chosen):
    """The mean of the order-1 estimator over content with the logged probabilities, all exact."""
    total = weighted_mean(table, logged)
    base = total.copy()
    for m in range(5):
        total = total + weighted_mean(table, [*logged[:m], chosen[m], *logged[m + 1 :]]) - base
    return total


class TestSynergy:
    def probabilities(self, market, state):
        usual = BusinessAsUsual(market.scenario.rules)
        logged = [p.mean(0) for p in usual.probabilities(market, state)[1:]]
        return logged, [np.eye(len(p))[PAIR[m == 3]] if m in (2, 3) else p for m, p in enumerate(logged)]

    def test_only_the_pair_interacts(self):
        _, _, table = tables("synergy")
        for one in range(2, 7):
            for two in range(one + 1, 7):
                size = np.abs(interaction(table, (one, two))).max()
                assert size > 0.01 if (one, two) == (4, 5) else size < 1e-12, (one, two)

    def test_the_bias_of_order_one_is_30_percent_of_the_lift_for_each_user_and_channel(self):
        market, state, table = tables("synergy")
        logged, pair = self.probabilities(market, state)
        truth = weighted_mean(table, pair)
        lift = truth - weighted_mean(table, logged)
        assert lift.min() > 0
        assert order_one(table, logged, pair) - truth == pytest.approx(-SYNERGY_BIAS * lift, rel=1e-9)

    def test_the_closed_forms_of_lift_and_bias(self):
        """The docstring's formulas for any probabilities of the offer and the tone."""
        market, state, table = tables("synergy")
        logged, _ = self.probabilities(market, state)
        parts, chosen = market.dynamics.parts, [p.copy() for p in logged]
        of_offer, of_tone = 0.7, 0.4
        for m, code, share in ((2, PAIR[0], of_offer), (3, PAIR[1], of_tone)):
            chosen[m] = logged[m] * (1 - share) / (1 - logged[m][code])
            chosen[m][code] = share
        mu_o, mu_k = logged[2][PAIR[0]], logged[3][PAIR[1]]
        alpha, zeta = max(parts.offer), parts.synergy
        unit = (table[:, :, 0, 0, PAIR[0], 0, 0] - table[:, :, 0, 0, 0, 0, 0]) / alpha  # what the offer adds, by alpha
        lift = alpha * (of_offer - mu_o) + alpha * (of_tone - mu_k) + zeta * (of_offer * of_tone - mu_o * mu_k)
        truth = weighted_mean(table, chosen)
        assert truth - weighted_mean(table, logged) == pytest.approx(lift * unit, rel=1e-9)
        bias = -zeta * (of_offer - mu_o) * (of_tone - mu_k)
        assert order_one(table, logged, chosen) - truth == pytest.approx(bias * unit, rel=1e-9)

    def test_the_bias_is_found_in_a_simulated_log(self):
        """20,000 users: the lift by order 1 from simulated events is .7 of the true one, within 4 standard errors.

        The weights are those of the logged propensities, and rewards are the incremental values of simulated events,
        whose mean is the true effect: nothing here comes from the closed forms.
        """
        market = Market(MarketConfig(users=20_000, days=12, scenario="synergy"))
        usual = make_policy("business_as_usual", market)
        state = market.reset(market.keys(20_000))
        order_one_lift, true_lift = np.zeros(20_000), np.zeros(20_000)
        for _ in range(12):
            before = state.copy()
            choice = usual.choose(market, state)
            result = market.step(state, choice.actions)
            sent = choice.actions[:, 0] > 0
            delta = [
                np.where(sent, (choice.actions[:, m] == code) / choice.probabilities[:, m], 1.0) - 1.0
                for m, code in ((OFFER, PAIR[0]), (TONE, PAIR[1]))
            ]
            paired = choice.actions.copy()
            paired[sent, OFFER], paired[sent, TONE] = PAIR
            order_one_lift += (delta[0] + delta[1]) * result.incremental
            true_lift += market.step(before, paired).incremental - result.incremental
        difference = order_one_lift - (1 - SYNERGY_BIAS) * true_lift
        error = difference.std() / np.sqrt(20_000)
        assert abs(difference.mean()) < 4 * error
        assert SYNERGY_BIAS * true_lift.mean() > 4 * error, "so that no bias would have been seen as such"

    def test_the_policy_always_sends_the_pair(self):
        market = Market(MarketConfig(users=300, days=6, scenario="synergy"))
        _, truth = simulate_history(market, "always_pair")
        sent = MODULES.sends(truth.actions)
        assert sent.any()
        assert (truth.actions[sent][:, [OFFER, TONE]] == PAIR).all()
        lift, error = evaluate_policy(market, "always_pair", 600).minus(
            evaluate_policy(market, "business_as_usual", 600)
        )
        assert lift > 5 * error


class TestTemplates:
    def test_only_templates_are_logged_and_their_propensities_are_exact(self):
        """Shares of the eight pairs among 20,000 messages within 4 standard errors; all other pairs never."""
        market = Market(MarketConfig(users=5000, days=20, scenario="templates"))
        history, truth = simulate_history(market)
        sent = MODULES.sends(truth.actions)
        pairs = market.scenario.rules.template_preferences
        expected = pairs / pairs.sum()
        seen = np.zeros(expected.shape)
        np.add.at(seen, (truth.actions[sent, OFFER], truth.actions[sent, TONE]), 1)
        n = sent.sum()
        assert n > 15_000
        assert (expected > 0).sum() == 8
        assert (expected.sum(0) > 0).all()
        assert (expected.sum(1) > 0).all()
        assert (np.abs(seen / n - expected) <= 4 * np.sqrt(expected * (1 - expected) / n)).all()
        d = history.decisions
        of_pair = d.propensity[sent, OFFER] * d.propensity[sent, TONE]
        assert of_pair == pytest.approx(expected[truth.actions[sent, OFFER], truth.actions[sent, TONE]], abs=1e-12)
        assert d.joint == pytest.approx(d.propensity.prod(1), rel=1e-12)

    def test_effects_are_those_of_the_default_world(self):
        assert SCENARIOS["templates"]().dynamics == SCENARIOS["default"]().dynamics

    def test_joint_weights_are_right_and_products_of_the_modules_own_are_not(self):
        """The policy that sends this pair alone: its value by joint weights, and by products of marginal weights.

        The pair (percent_10, urgent) has the weight 1 / .10, not 1 / (.18 * .22). Rewards are the true effects of the
        logged actions, so that the only noise is that of the draws: joint weights within 4 standard errors.
        """
        market = Market(MarketConfig(users=4000, days=20, scenario="templates"))
        history, truth = simulate_history(market)
        sent = np.flatnonzero(MODULES.sends(truth.actions))
        pair = (list(OFFERS).index("percent_10"), list(TONES).index("urgent"))
        chosen = truth.actions[sent].copy()
        chosen[:, OFFER], chosen[:, TONE] = pair
        target = truth.effect(sent, chosen)
        matches = (truth.actions[sent][:, [OFFER, TONE]] == pair).all(1)
        preferences = market.scenario.rules.template_preferences
        marginal = preferences.sum(1)[pair[0]] * preferences.sum(0)[pair[1]]
        joint = history.decisions.propensity[sent, OFFER] * history.decisions.propensity[sent, TONE]
        effect = truth.logged[sent]
        right, wrong = matches / joint * effect - target, matches / marginal * effect - target
        error = right.std() / np.sqrt(len(sent))
        assert abs(right.mean()) < 4 * error
        assert abs(matches.mean() / marginal - 1) > 0.5
        assert wrong.mean() != pytest.approx(right.mean(), abs=error)

    def test_no_check_of_propensities_refuses_the_log(self):
        history, _ = simulate_history(Market(MarketConfig(users=1500, days=10, scenario="templates")))
        check = check_propensities(history)
        check.refuse_contradictions()
        assert not check.no_overlap

    def test_a_template_that_cannot_be_sent_leaves_its_share_to_the_others(self):
        market = Market(MarketConfig(users=200, days=4, scenario="templates"))
        state = market.reset(market.keys(200))
        mask = market.mask(state)
        mask[:, MODULES.slices[OFFER].start] = False  # no_offer has ended

        class Ended:
            def mask(self, _):
                return mask

        usual = make_policy("business_as_usual", market)
        p = usual.probabilities(Ended(), state)
        assert (p[OFFER][:, 0] == 0).all()
        assert p[OFFER].sum(1) == pytest.approx(1.0)
        pairs = market.scenario.rules.template_preferences[1:]
        assert (p[OFFER][:, 1:, None] * p[TONE][:, 1:])[0] == pytest.approx(pairs / pairs.sum(), abs=1e-12)

    def test_templates_are_pairs_of_known_actions(self):
        with pytest.raises(ConfigError, match="template"):
            Rules(templates=(("gift", "plain", 1.0),))


def test_parts_are_those_of_known_actions():
    with pytest.raises(ConfigError, match="give 5"):
        ContentParts(offer=(1.0,))
    with pytest.raises(ConfigError, match="pair"):
        ContentParts(pair=("plain", "no_offer"))
    with pytest.raises(ConfigError, match="one of them"):
        replace(Dynamics(), opening_fit=1.0, parts=ContentParts())
