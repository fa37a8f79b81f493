"""Each named scenario has in it what its docstring says, and a correct method finds it there."""

from __future__ import annotations

import pickle

import numpy as np
import pytest

from crosschannel.core.errors import ConfigError
from crosschannel.envs.market import (
    SCENARIOS,
    ActionDates,
    BusinessAsUsual,
    FarSighted,
    Market,
    MarketConfig,
    evaluate_policy,
    simulate_history,
)
from crosschannel.envs.market.policies.optimal_policy import ValueFunction, interpolation_weights
from crosschannel.envs.market.scenarios import REFRESH_SLOT
from crosschannel.envs.market.vocabulary import GREETINGS, MODULES, OFFERS, SERVICES, TONES
from crosschannel.histories.features import ContextSpec
from crosschannel.reward import Goal, RewardSpec, make_reward, measure
from crosschannel.reward.effects import EventTimes, TreatmentEffects, average_effect, event_study

#: The counts on which business as usual looks: the two days before the slot and the two weeks before.
TRIGGER = ContextSpec(windows=("2d", "14d"), events=("visit:*",), attributes=(), messages=False, clock=False)


def log_of(scenario, users, seed=0, **settings):
    market = Market(MarketConfig(users=users, seed=seed, scenario=scenario, **settings))
    return market, *simulate_history(market)


def spec_of(market, **settings):
    return RewardSpec(goals=market.config.goals, pre="2d", post="1d", overlap="exclude", **settings)


def distance(fitted, truth):
    """Distance of the average effect on the treated from the truth, in standard errors."""
    outcomes = fitted.outcomes
    counted = outcomes.treated & outcomes.observed & ~outcomes.overlap
    effect = fitted.effect()
    return (effect.value - truth.logged[counted].mean()) / effect.se


@pytest.mark.parametrize("name", SCENARIOS)
def test_every_scenario_says_what_to_find(name):
    assert "correct" in SCENARIOS[name].__doc__ or "finds" in SCENARIOS[name].__doc__
    assert MarketConfig(scenario=name).parameters == SCENARIOS[name]()


@pytest.mark.parametrize("name", SCENARIOS)
def test_every_scenario_gives_a_valid_log_with_known_probabilities(name):
    """Business as usual logs the probabilities it drew from: frequencies of sent actions within 4 standard errors."""
    market, usual = Market(MarketConfig(days=18, scenario=name)), BusinessAsUsual(SCENARIOS[name]().rules)
    state = market.reset(market.keys(2000, seed=8))
    seen, expected, variance = ([np.zeros(size) for size in MODULES.sizes] for _ in range(3))
    for _ in range(18):
        p, choice, mask = usual.probabilities(market, state), usual.choose(market, state), market.mask(state)
        given = [
            q if j is None else q[np.arange(2000), choice.actions[:, j]] for q, j in zip(p, usual.given, strict=True)
        ]
        assert np.array_equal(choice.probabilities, MODULES.chosen_probabilities(given, choice.actions))
        for m, (part, eligible) in enumerate(zip(p, MODULES.split(mask), strict=True)):
            if usual.given[m] is not None:  # the mean over the choices of the module that it depends on
                part = np.einsum("nj,njk->nk", p[usual.given[m]], part)
            assert part.sum(1) == pytest.approx(1.0)
            assert np.array_equal(part > 0, eligible)
            rows = slice(None) if m == 0 else choice.actions[:, 0] > 0
            seen[m] += np.bincount(choice.actions[rows, m], minlength=MODULES.sizes[m])
            expected[m] += part[rows].sum(0)
            variance[m] += (part * (1 - part))[rows].sum(0)
        assert market.step(state, choice.actions).eligible[state.subscribed].all()
    for m, name_of in enumerate(MODULES.names):
        assert (np.abs(seen[m] - expected[m]) <= 4 * np.sqrt(variance[m])).all(), name_of


@pytest.mark.parametrize("name", SCENARIOS)
def test_markets_and_their_truth_can_be_pickled(name):
    _, history, truth = log_of(name, 60, days=4)
    again = pickle.loads(pickle.dumps(truth))
    assert np.array_equal(again.logged, truth.logged)
    assert np.array_equal(pickle.loads(pickle.dumps(history)).decisions.actions, history.decisions.actions)


def test_base_rates_and_effects_are_those_of_deployments():
    """Orders of a service a day and unsubscribes a message: 0.1 to 5 %; effects of the logged messages: 2 to 20 %."""
    _, history, truth = log_of("default", 3000)
    sent = np.flatnonzero(MODULES.sends(truth.actions))
    for service in SERVICES:
        of_service = Market(MarketConfig(goals=(Goal(f"order:{service}"),)))
        assert 0.001 < of_service.organic_value(truth.slots()).mean() < 0.05
    left = history.events.event == history.event_names.index("unsubscribed")
    assert 0.001 < left.sum() / len(sent) < 0.05
    orders = Market(MarketConfig(goals=(Goal("order:*"),)))
    effect, organic = (
        orders.true_effect(truth.slots(sent), truth.actions[sent]),
        orders.organic_value(truth.slots(sent)),
    )
    assert 0.02 < effect.mean() / organic.mean() < 0.20
    for channel in range(1, 5):
        rows = truth.actions[sent, 0] == channel
        assert 0.02 < effect[rows].mean() / organic[rows].mean() < 0.20


class TestNull:
    def test_the_far_sighted_send_nothing_and_lose_nothing(self):
        market = Market(MarketConfig(scenario="null", days=8))
        for policy in ("oracle", "far_sighted"):
            value = evaluate_policy(market, policy, 200)
            assert value.sends.sum() == 0
            assert (value.effect == 0).all()


class TestDip:
    def test_did_is_biased_its_pre_trends_ring_and_did_dr_given_the_trigger_is_right(self):
        market, history, truth = log_of("dip", 2500)
        did = TreatmentEffects.fit(make_reward("did", spec_of(market)), history)
        assert distance(did, truth) > 8
        assert event_study(did, history, EventTimes("1d", leads=4, lags=1)).pre_trends().p_value < 1e-6
        adjusted = TreatmentEffects.fit(make_reward("did_dr", spec_of(market, covariates=TRIGGER)), history)
        assert abs(distance(adjusted, truth)) < 3

    @pytest.mark.slow
    def test_did_dr_is_right_over_many_markets(self):
        """20 markets of 2,000 users: the mean of z within 3 / sqrt(20) of 0; `did` beyond 5 errors in each."""
        z = {"did": [], "did_dr": []}
        for seed in range(20):
            market, history, truth = log_of("dip", 2000, seed)
            for kind, found in z.items():
                found.append(
                    distance(
                        TreatmentEffects.fit(make_reward(kind, spec_of(market, covariates=TRIGGER)), history), truth
                    )
                )
        assert abs(np.mean(z["did_dr"])) < 3 / np.sqrt(20)
        assert 0.5 < np.std(z["did_dr"]) < 1.5
        assert min(z["did"]) > 5


class TestFatigue:
    def test_a_myopic_policy_over_sends_and_a_far_sighted_one_ends_higher(self):
        market = Market(MarketConfig(scenario="fatigue"))
        myopic, far = (evaluate_policy(market, p, 1200, seed=3) for p in ("oracle", "far_sighted"))
        gain, error = far.minus(myopic)
        assert gain > 5 * error
        assert gain > 0.1 * myopic.mean
        assert far.sends.mean() < 0.8 * myopic.sends.mean()
        assert far.unsubscribed.mean() < myopic.unsubscribed.mean()

    def test_fatigue_outlasts_the_reward_window(self):
        dynamics = SCENARIOS["fatigue"]().dynamics
        assert dynamics.fatigue_retention**9 > 0.5, "half of it is left after nine days"

    def test_did_still_finds_the_effect_of_single_messages(self):
        market, history, truth = log_of("fatigue", 3000)
        assert abs(distance(TreatmentEffects.fit(make_reward("did", spec_of(market)), history), truth)) < 3


class TestFarSighted:
    @pytest.mark.parametrize("name", ["default", "fatigue", "refresh", "direct", "subject_lines", "slow"])
    def test_the_value_function_equals_the_value_of_its_actions(self, name):
        """The computed value of each user against that of the path taken, weighted by who is still subscribed.

        Only unsubscribes are random, so that the two differ by the interpolation alone: .3 % on average.
        """
        market, n = Market(MarketConfig(scenario=name, days=18)), 300
        state = market.reset(market.keys(n, seed=2))
        computed = ValueFunction.build(market, state).value[0, :, 0]
        policy, realised, stays = FarSighted(), np.zeros(n), np.ones(n)
        for _ in range(18):
            actions = policy.choose(market, state).actions
            leaves = market.open_value(state).unsubscribe_probability[np.arange(n), actions[:, 0]]
            realised += stays * market.step(state, actions).true_effect
            stays *= 1.0 - leaves
            state.subscribed[:] = True
        assert computed.mean() > 0.5
        assert realised.mean() == pytest.approx(computed.mean(), rel=0.003)
        assert realised == pytest.approx(computed, abs=0.05)

    @pytest.mark.parametrize("name", ["default", "drift"])
    def test_it_is_at_least_as_good_as_the_oracle(self, name):
        market = Market(MarketConfig(scenario=name, days=12))
        far, myopic = (evaluate_policy(market, p, 600, 5) for p in ("far_sighted", "oracle"))
        gain, error = far.minus(myopic)
        assert gain >= -2 * error

    def test_the_value_function_is_computed_again_for_other_users(self):
        market = Market(MarketConfig(scenario="fatigue", days=4))
        policy = FarSighted()
        for seed in (1, 2):
            state = market.reset(market.keys(50, seed=seed))
            assert np.array_equal(policy.choose(market, state).actions, FarSighted().choose(market, state).actions)

    def test_values_between_grid_points_are_interpolated(self):
        grid = np.linspace(0.0, 4.0, 5)
        at = np.array([0.0, 0.25, 2.0, 3.9, 4.0])
        assert (3.0 * grid + 1.0) @ interpolation_weights(grid, at) == pytest.approx(3.0 * at + 1.0)


class TestDrift:
    def weekly(self, outcomes, truth, spec, week, services):
        """Estimated and true average effects of the messages about some services in a week."""
        rows = outcomes.treated & np.isin(truth.actions[:, 2], services) & ((truth.day - 14) // 7 == week)
        effect = average_effect(outcomes, spec, rows, "week")
        return effect.value, effect.se, truth.logged[rows].mean()

    def test_effects_by_period_reverse_as_the_truth_does(self):
        """How much more messages about food and rides do than others, in the first week minus in the last.

        The truth is about four standard errors from 0, so that chance hides it below two in one market of 40.
        """
        market, history, truth = log_of("drift", 6000)
        spec = spec_of(market)
        outcomes = measure(history, spec)
        found, true, variance = 0.0, 0.0, 0.0
        for week, sign in ((0, 1), (3, -1)):
            falling, rising = (self.weekly(outcomes, truth, spec, week, pair) for pair in ((0, 2), (1, 3)))
            assert sign * (falling[2] - rising[2]) > 0.03
            found += sign * (falling[0] - rising[0])
            true += sign * (falling[2] - rising[2])
            variance += falling[1] ** 2 + rising[1] ** 2
        assert found > 2 * np.sqrt(variance)
        assert abs(found - true) < 3 * np.sqrt(variance)

    def test_what_was_best_at_first_is_wrong_at_last(self):
        _, _, truth = log_of("drift", 1500)
        worth = {}
        for day in (14, 41):
            rows = np.flatnonzero(truth.day == day)
            for service in range(4):
                actions = np.tile([1, 0, service, 0, 0, 0], (len(rows), 1))
                worth[day, service] = truth.effect(rows, actions).mean()
        assert worth[14, 0] > worth[14, 1]
        assert worth[41, 0] < worth[41, 1]
        assert worth[14, 2] > worth[14, 3]
        assert worth[41, 2] < worth[41, 3]

    @pytest.mark.slow
    def test_weekly_effects_are_right_over_many_markets(self):
        """20 markets, 4 weeks, 2 pairs of services: in each the mean of z within 3.2 / sqrt(20) of 0."""
        z = np.zeros((20, 8))
        for seed in range(20):
            market, history, truth = log_of("drift", 2000, seed)
            spec = spec_of(market)
            outcomes = measure(history, spec)
            for j, (week, pair) in enumerate((w, p) for w in range(4) for p in ((0, 2), (1, 3))):
                value, error, true = self.weekly(outcomes, truth, spec, week, pair)
                z[seed, j] = (value - true) / error
        assert np.abs(z.mean(0)).max() < 3.2 / np.sqrt(20)


class TestRefresh:
    RETIRED = (("offer", "percent_20"), ("tone", "urgent"), ("greeting", "by_name"))
    NEW = (("offer", "free_delivery"), ("tone", "playful"), ("greeting", "wave"))

    def code(self, module, action):
        return MODULES.names.index(module), MODULES[module].actions.index(action)

    def test_actions_retire_and_begin_in_mask_and_log(self):
        _, history, truth = log_of("refresh", 1500)
        late = truth.day >= 14 + REFRESH_SLOT
        sent = MODULES.sends(truth.actions)
        for module, action in (*self.RETIRED, *self.NEW):
            m, code = self.code(module, action)
            eligible = history.decisions.eligible[:, MODULES.slices[m].start + code]
            before = (module, action) in self.RETIRED
            assert np.array_equal(eligible, ~late if before else late)
            chosen = sent & (truth.actions[:, m] == code)
            assert chosen.any()
            assert eligible[chosen].all()
        kept = np.ones(MODULES.total, dtype=bool)
        for module, action in (*self.RETIRED, *self.NEW):
            m, code = self.code(module, action)
            kept[MODULES.slices[m].start + code] = False
        kept[: MODULES.sizes[0]] = False
        assert history.decisions.eligible[:, kept].all()

    def test_a_retired_action_is_executed_as_sending_nothing(self):
        market = Market(MarketConfig(users=200, days=20, scenario="refresh"))
        state = market.reset(market.keys(200))
        action = np.tile([1, 0, 0, MODULES["offer"].actions.index("percent_20"), 0, 0], (200, 1))
        first = market.step(state, action)
        assert first.eligible.sum() > 150
        for _ in range(REFRESH_SLOT):
            market.step(state, np.zeros((200, 6), dtype=np.int64))
        last = market.step(state, action)
        assert not last.eligible.any()
        assert (last.executed == 0).all()

    def test_labels_of_old_actions_foretell_the_new_ones(self):
        """Each user's likings, solved from the fits of the old actions alone, give the fits of the new: r > .85."""
        users = Market().reset(Market().keys(3000)).users
        fits = {"offer": users.offer_fit, "tone": users.tone_fit, "greeting": users.greeting_fit}
        tables = {"offer": OFFERS, "tone": TONES, "greeting": GREETINGS}
        names = sorted({label for table in tables.values() for labels in table.values() for label in labels})

        def row(module, action):
            return [tables[module][action].get(label, 0.0) for label in names]

        old = [(m, a) for m in tables for a in tables[m] if (m, a) not in self.NEW]
        known = np.stack([np.log(fits[m][:, list(tables[m]).index(a)]) for m, a in old], axis=1)
        liking = np.linalg.lstsq(np.array([row(m, a) for m, a in old]), known.T, rcond=None)[0]
        assert np.linalg.matrix_rank(np.array([row(m, a) for m, a in old])) == len(names)
        for module, action in self.NEW:
            true = np.log(fits[module][:, list(tables[module]).index(action)])
            foretold = np.array(row(module, action)) @ liking
            assert np.corrcoef(true, foretold)[0, 1] > 0.85

    def test_dates_belong_to_known_actions_that_may_go(self):
        for module, action in (("channel", "email"), ("offer", "no_offer"), ("offer", "gift"), ("gift", "email")):
            with pytest.raises(ConfigError, match="dates are given"):
                ActionDates(module, action, end=3)
