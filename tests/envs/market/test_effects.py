"""The market's truth: closed forms against simulation, and what a method must and must not find in its log."""

from __future__ import annotations

import math
from dataclasses import dataclass, field, replace

import numpy as np
import pytest

from crosschannel.core.errors import ConfigError
from crosschannel.envs.market import (
    SCENARIOS,
    BusinessAsUsual,
    ContentParts,
    DayKind,
    Dynamics,
    Market,
    MarketConfig,
    NoSend,
    Scenario,
    evaluate_policy,
    simulate_history,
)
from crosschannel.envs.market.dynamics.users import draw_users, user_keys
from crosschannel.envs.market.state import initial_state
from crosschannel.envs.market.vocabulary import (
    BASKET,
    CHANNELS,
    CLICKED,
    DELIVERED,
    OFFERS,
    OPENED,
    ORDER,
    TONES,
    UNSUBSCRIBED,
    VISIT,
)
from crosschannel.histories.goals import Goal
from crosschannel.reward import Outcomes, RewardSpec, measure
from crosschannel.reward.effects import average_effect

EVERYTHING = (
    Goal("order:*", 1.0),
    Goal("order:*", 0.02, measure="value"),
    Goal("visit:*", 0.1),
    Goal("delivered", -0.05),
    Goal("opened:*", 0.03),
    Goal("opened:push", 0.02),
    Goal("clicked", 0.2),
    Goal("unsubscribed", -3.0),
)


def did_spec(config):
    return RewardSpec(goals=config.goals, pre="2d", post="1d", time_bucket="1d", controls="untouched")


@pytest.fixture(scope="module")
def log():
    market = Market(MarketConfig(users=9000, days=21, seed=5))
    return market, *simulate_history(market)


#: Each scenario (`dip` and `templates` differ by their policy alone) with goals of every kind, and the default one with
#: its own goals.
WORLDS = [
    ("default", MarketConfig().goals),
    *((name, EVERYTHING) for name in SCENARIOS if name not in ("dip", "templates")),
]
each_world = pytest.mark.parametrize(
    ("scenario", "goals"), WORLDS, ids=["default goals", *(f"{name}, everything" for name, _ in WORLDS[1:])]
)


@pytest.mark.parametrize("copies", [1000, pytest.param(2500, marks=pytest.mark.slow)])
@each_world
def test_closed_forms_equal_simulation(scenario, goals, copies):
    """For many users, days, fatigues and actions: means of realised values within 4.5 standard errors.

    Of about 70 means in each of 15 worlds, one is beyond 4.5 standard errors by chance in 1 % of all seeds.
    """
    config = MarketConfig(days=2, warmup_days=2, goals=goals, scenario=scenario)
    market = Market(config)
    rng = np.random.default_rng(0)
    cases = 40
    users = draw_users(user_keys(cases, 11), market.dynamics)
    actions = market.modules.joint_actions[rng.integers(1, len(market.modules.joint_actions), cases)]
    fatigue = rng.uniform(0, 3, cases)
    case = np.repeat(np.arange(cases), copies)
    alike = replace(users.take(case), key=user_keys(len(case), 12))
    state = initial_state(alike, config, market.calendar, record=False)
    state.fatigue[:] = fatigue[case]
    chosen = market.step(state.copy(), actions[case]).executed
    expected, organic = market.true_effect(state, chosen), market.organic_value(state)
    assert np.array_equal(expected, expected[::copies][case]), "equal users, equal effects"

    without = market.goal_value(state.organic[:, 2])
    outcome = market.step(state, chosen)
    assert np.array_equal(outcome.executed, chosen)
    assert np.array_equal(outcome.true_effect, expected)
    reached = 0
    for realised, truth in ((outcome.incremental, expected), (without, organic)):
        for c in range(cases):
            values, mean = realised[case == c], truth[c * copies]
            if values.std() == 0:
                assert mean == pytest.approx(values[0], abs=1e-12)
                continue
            reached += 1
            assert abs(values.mean() - mean) < 4.5 * values.std() / np.sqrt(copies), (c, values.mean(), mean)
    assert reached > 1.25 * cases
    unsubscribed = outcome.unsubscribed.reshape(cases, copies).mean(1)
    assert (unsubscribed[outcome.executed[::copies, 0] == 0] == 0).all()


@pytest.mark.parametrize("scenario", ["default", "confounded_opens", "heavy_tails", "slow"])
def test_organic_values_equal_simulation_on_every_day(scenario):
    """From the market's first day on, when no visits lie behind it: means of 20,000 users within 4 standard errors."""
    market = Market(MarketConfig(days=2, warmup_days=6, goals=EVERYTHING, scenario=scenario))
    state = market.reset(market.keys(20_000, seed=2))
    for day in range(market.config.horizon):
        realised = market.goal_value(state.organic[:, day])
        expected = market.organic_value(replace(state.slots(), day=np.full(len(state), day)))
        difference = realised - expected
        assert abs(difference.mean()) < 4 * difference.std() / np.sqrt(len(state))


def documented_effect(market, state, i, action):
    """The effect of one action for one user, in scalars, written down a second time from the docstrings."""
    p, w, users, day = market.dynamics, market.weights, state.users, state.day[i]
    c, b, s, o, k, g = action
    if c == 0 or not users.reachable[i, c]:
        return 0.0
    rates = [users.visit_rate[i, v] * users.block_share[i, b] + market.calendar.common[day, v, b] for v in range(4)]
    odds = p.open_intercept[c - 1] + users.affinity[i, c] + users.time_match[i, b]
    odds += users.weekend_match[i] * (1.0 if day % 7 in (5, 6) else -0.4)
    extra = p.uplift * math.exp(p.drift * math.cos(math.pi * (day - 14) / 28) * (1 if s in (0, 2) else -1))
    if p.parts:
        extra *= users.taste[i, s] / 5 * p.channel_gain[c - 1]
        one_part = p.uplift / 5 * users.taste[i].mean() * p.channel_gain[c - 1]
        extra += one_part * 5 * users.block_share[i, b]
        extra += one_part * (users.offer_fit[i, o] ** p.parts.exponent + p.parts.offer[o])
        extra += one_part * (users.tone_fit[i, k] ** p.parts.exponent + p.parts.tone[k])
        extra += one_part * users.greeting_fit[i, g] ** p.parts.exponent
        if (list(OFFERS)[o], list(TONES)[k]) == p.parts.pair:
            extra += one_part * p.parts.synergy
        rates = [r + users.visit_rate[i, v] * (1 - users.block_share[i, b]) for v, r in enumerate(rates)]
        rates = [
            r + market.calendar.common[day, v].sum() - market.calendar.common[day, v, b] for v, r in enumerate(rates)
        ]
    else:
        extra *= users.taste[i, s] * p.channel_gain[c - 1]
    subject_line, conversion = users.tone_fit[i, k] * users.greeting_fit[i, g], p.conversion[s]
    if p.opening_fit:
        odds += p.opening_fit * math.log(subject_line)
    elif not p.parts:
        extra *= subject_line
    if p.conversion_fit:
        conversion = min(1.0, conversion * users.offer_fit[i, o] ** p.conversion_fit)
    elif not p.parts:
        extra *= users.offer_fit[i, o]
    opened = 0.0
    for kind in p.day_kinds:
        probability = 1 / (1 + math.exp(p.fatigue_open * state.fatigue[i] - odds - kind.opening))
        in_app = 1 - math.exp(-kind.activity * sum(rates))
        opened += kind.share * probability * (in_app if CHANNELS[c] == "in_app" else 1.0)
    logged = 1.0 if CHANNELS[c] == "email" and users.mail_program[i] else opened
    logged *= p.open_logged[c - 1]
    acts = 1.0 if p.unseen[c - 1] else opened
    order = conversion * (w[ORDER + s] + sum(p.basket[s]) / 2 * w[BASKET + s])
    click = 0.0 if p.unseen[c - 1] else p.visit_delay[0] * (1 - p.offline) * (1 - math.exp(-extra))
    gain = extra * ((1 - p.offline) * w[VISIT + s] + order) + click * w[CLICKED]
    hazard = p.hazard[c - 1] * users.sensitivity[i] * math.exp(p.fatigue_unsubscribe * state.fatigue[i])
    return w[DELIVERED] + logged * w[OPENED + c - 1] + acts * gain + min(hazard, 1) * w[UNSUBSCRIBED]


@pytest.mark.parametrize("scenario", SCENARIOS)
def test_effects_follow_the_documented_formulas(scenario):
    market = Market(MarketConfig(days=8, goals=EVERYTHING, scenario=scenario))
    p, w = market.dynamics, market.weights
    state = market.reset(market.keys(60, seed=4))
    rng = np.random.default_rng(1)
    for _ in range(6):
        actions = market.modules.joint_actions[rng.integers(0, 4801, 60)]
        effect, organic, users = market.true_effect(state, actions), market.organic_value(state), state.users
        for i, action in enumerate(actions.tolist()):
            own = [users.visit_rate[i, v] * users.block_share[i] for v in range(4)]
            expected = 0.0
            for v in range(4):
                expected += w[VISIT + v] * (own[v] + market.calendar.common[state.day[i], v]).sum()
                order = p.conversion[v] * (w[ORDER + v] + sum(p.basket[v]) / 2 * w[BASKET + v])
                for delay, share in enumerate(p.order_delay):
                    expected += share * order * (own[v] + market.calendar.common[state.day[i] - delay, v]).sum()
            assert organic[i] == pytest.approx(expected)
            assert effect[i] == pytest.approx(documented_effect(market, state, i, action), abs=1e-12)
        before = state.fatigue.copy()
        executed = market.step(state, actions).executed
        assert state.fatigue == pytest.approx(p.fatigue_retention * (before + (executed[:, 0] > 0)))


def random_policy(rng, modules, n, given):
    """Random probabilities, depending on earlier modules as `given` says, some of them 0."""
    found = []
    for m, j in enumerate(given):
        shape = (n, modules.sizes[m]) if j is None else (n, modules.sizes[j], modules.sizes[m])
        p = rng.exponential(size=shape) * (rng.random(shape) < 0.7)
        p[..., 0] += 0.01
        found.append(p / p.sum(-1, keepdims=True))
    return found


@pytest.mark.parametrize(
    "given",
    [(None,) * 6, (None, 0, None, None, None, None), (None, 0, 0, 1, 2, 4), (None, None, 1, 2, 0, 3)],
    ids=["independent", "time by channel", "a chain", "across"],
)
@each_world
def test_expected_effects_equal_the_sum_over_all_joint_actions(scenario, goals, given):
    market = Market(MarketConfig(users=300, days=9, goals=goals, scenario=scenario))
    _, truth = simulate_history(market)
    rows, modules = np.arange(0, len(truth), 199), market.modules
    p = random_policy(np.random.default_rng(3), modules, len(rows), given)
    table = market.true_effect(truth.slots(rows), modules.joint_actions[None])
    joint = np.ones(table.shape)
    for m, j in enumerate(given):
        own = modules.joint_actions[:, m]
        factor = p[m][:, own] if j is None else p[m][:, modules.joint_actions[:, j], own]
        joint *= factor if m == 0 else np.where(modules.joint_actions[:, 0] == 0, 1.0, factor)
    assert joint.sum(1) == pytest.approx(1.0)
    assert truth.expected_effect(rows, p, given) == pytest.approx((joint * table).sum(1), abs=1e-12)


def test_expected_effects_refuse_probabilities_of_other_shapes():
    market = Market(MarketConfig(users=20, days=3))
    state = market.reset(market.keys(20))
    p = random_policy(np.random.default_rng(0), market.modules, 20, (None,) * 6)
    with pytest.raises(ConfigError, match="one array for each of the modules"):
        market.expected_effect(state, p[:5])
    with pytest.raises(ConfigError, match="earlier module"):
        market.expected_effect(state, p, (None, 0, None, None, None, None))
    with pytest.raises(ConfigError, match="earlier module"):
        market.expected_effect(state, [p[0], np.repeat(p[1][:, None], 4, 1), *p[2:]], (None, 2, None, None, None, None))


@each_world
def test_the_best_action_is_the_best_of_all_joint_actions(scenario, goals):
    """With many of the actions not eligible, at slots of the log."""
    market = Market(MarketConfig(users=1000, days=18, seed=5, goals=goals, scenario=scenario))
    truth = simulate_history(market)[1]
    rows = np.arange(0, len(truth), 201)
    composites, rng = market.modules.joint_actions, np.random.default_rng(0)
    mask = rng.random((len(rows), market.modules.total)) < 0.6
    for part in market.modules.slices:
        mask[:, part.start] = True
    table = truth.market.true_effect(truth.slots(rows), composites[None])
    best = np.where(market.modules.joint_mask(mask), table, -np.inf).max(1)
    assert (best[1:] == 0).sum() > 3
    assert (best > 0).sum() > (3 if scenario != "null" else -1)
    value, action = market.best_action(truth.slots(rows), mask)
    assert value == pytest.approx(best, abs=1e-12)
    assert truth.best_effect(rows, mask) == pytest.approx(best, abs=1e-12)
    assert truth.effect(rows, action) == pytest.approx(best, abs=1e-12)
    assert mask[np.arange(len(rows)), action[:, 0]].all()
    unreachable = ~truth.users.reachable[truth.user[rows]][:, composites[:, 0]]
    unreachable[:, 0] = False
    assert unreachable.any()
    assert (table[unreachable] == 0).all()
    assert (table[:, 0] == 0).all()


def test_closed_forms_hold_where_all_worlds_meet(monkeypatch):
    """Unseen, unlogged and mechanical opens, kinds of days, subject lines, delays and offline visits in one market."""
    dynamics = Dynamics(
        drift=0.5,
        unseen=(False, True, False, True),
        open_logged=(True, False, True, True),
        mail_programs=0.4,
        day_kinds=(DayKind(0.6, 0.5, -0.4), DayKind(0.3, 1.0, 0.2), DayKind(0.1, 4.0, 1.5)),
        opening_fit=3.0,
        conversion_fit=1.5,
        channel_gain=(1.5, 0.8, 1.1, 0.7),
        visit_delay=(0.5, 0.0, 0.5),
        order_delay=(0.2, 0.8),
        offline=0.25,
    )
    check_everything(monkeypatch, dynamics)
    # Content that adds up, with drift and channels that differ, in place of subject lines.
    parts = ContentParts(exponent=2.0, offer=(0.0, 0.5, 1.0, 0.2, 0.1), pair=("points", "urgent"), synergy=2.0)
    check_everything(monkeypatch, replace(dynamics, opening_fit=0.0, conversion_fit=0.0, parts=parts))


def check_everything(monkeypatch, dynamics):
    monkeypatch.setitem(SCENARIOS, "all", lambda: Scenario(dynamics))
    test_closed_forms_equal_simulation("all", EVERYTHING, copies=2500)
    test_organic_values_equal_simulation_on_every_day("all")
    test_effects_follow_the_documented_formulas("all")
    test_expected_effects_equal_the_sum_over_all_joint_actions("all", EVERYTHING, (None, 0, 0, 1, 2, 4))
    test_the_best_action_is_the_best_of_all_joint_actions("all", EVERYTHING)


@pytest.mark.parametrize("scenario", SCENARIOS)
def test_the_best_actions_of_many_users_have_the_values_they_are_said_to_have(scenario):
    market = Market(MarketConfig(scenario=scenario))
    state = market.reset(market.keys(5000, seed=6))
    value, action = market.best_action(state, market.mask(state))
    assert market.true_effect(state, action) == pytest.approx(value, abs=1e-12)
    assert (value >= 0).all()


def test_nothing_is_the_best_action_in_a_fair_share_of_slots(log):
    _, history, truth = log
    eligible = history.decisions.eligible
    rows = np.flatnonzero(eligible[:, 1 : len(CHANNELS)].any(1))[::50]
    best = truth.best_effect(rows, eligible[rows])
    assert 0.2 < (best <= 0).mean() < 0.5


@dataclass
class WouldBe:
    """Sends nothing, and notes who would have got a message under business as usual."""

    sent: list = field(default_factory=list)
    name: str = "no_send"

    def choose(self, market, state):
        self.sent.append(BusinessAsUsual().choose(market, state).actions[:, 0] > 0)
        return NoSend().choose(market, state)


def after_only(outcomes: Outcomes) -> Outcomes:
    """Outcomes of which the post window alone counts: a DiD of these is the difference in means within cells."""
    return replace(outcomes, pre=np.zeros(len(outcomes)))


def test_trends_are_parallel_where_nothing_is_sent_and_levels_are_not():
    market = Market(MarketConfig(users=6000, days=21, seed=2))
    policy = WouldBe()
    history, _ = simulate_history(market, policy)
    treated = np.array(policy.sent).T.reshape(-1)
    spec = did_spec(market.config)
    outcomes = measure(history, spec)
    assert len(outcomes) == len(treated)
    placebo = replace(outcomes, treated=treated, control=~treated)
    change = average_effect(placebo, spec, treated, "placebo")
    level = average_effect(after_only(placebo), spec, treated, "placebo")
    assert change.n_treated > 15_000
    assert abs(change.value) < 3 * change.se
    assert level.value > 10 * level.se


def test_did_finds_the_truth_and_raw_comparison_does_not(log):
    market, history, truth = log
    spec = did_spec(market.config)
    outcomes = measure(history, spec)
    att = truth.logged[outcomes.treated].mean()
    did = average_effect(outcomes, spec, outcomes.treated, "did")
    naive = average_effect(after_only(outcomes), spec, outcomes.treated, "naive")
    assert abs(did.value - att) < 2 * did.se
    assert did.value > 3 * did.se
    assert naive.value - att > 10 * naive.se


def test_slots_where_a_message_may_be_sent_have_untouched_windows(log):
    market, history, _ = log
    outcomes = measure(history, did_spec(market.config))
    eligible = history.decisions.eligible[:, 1 : len(CHANNELS)].any(1)
    assert not outcomes.overlap[eligible].any()
    assert outcomes.observed.all()


def test_the_oracle_is_best_and_no_send_is_nothing():
    market = Market(MarketConfig())
    values = {
        p: evaluate_policy(market, p, 1500, seed=3) for p in ("oracle", "business_as_usual", "uniform", "no_send")
    }
    assert (values["no_send"].effect == 0).all()
    assert (values["no_send"].realised == 0).all()
    for other in ("business_as_usual", "uniform", "no_send"):
        difference, se = values["oracle"].minus(values[other])
        assert difference > 5 * se
    assert 0.05 < values["oracle"].lift < 0.4
    for value in values.values():
        gap = value.realised - value.effect
        assert abs(gap.mean()) <= 4 * gap.std() / np.sqrt(len(gap)) + 1e-12
    assert values["oracle"].sends.max() <= 10, "at most every third day"


def test_nothing_has_an_effect_in_the_null_scenario():
    market = Market(MarketConfig(users=400, days=10, scenario="null"))
    history, truth = simulate_history(market)
    assert history.modules.sends(truth.actions).sum() > 200
    rows = np.arange(0, len(truth), 50)
    assert (truth.market.true_effect(truth.slots(rows), history.modules.joint_actions[None]) == 0).all()
    assert (truth.logged == 0).all()
    value = evaluate_policy(market, "uniform", 300)
    assert (value.effect == 0).all()
    assert (value.realised == 0).all()
    assert value.unsubscribed.sum() == 0
    assert value.sends.mean() > 1


def test_organic_behaviour_does_not_depend_on_the_policy():
    market = Market(MarketConfig(users=300, days=10, scenario="null"))
    organic = []
    for policy in ("no_send", "uniform"):
        history, _ = simulate_history(market, policy)
        rows = history.events.event < 8
        organic.append((history.events.user[rows], history.events.time[rows], history.events.value[rows]))
    for left, right in zip(*organic, strict=True):
        assert np.array_equal(left, right)


def test_policy_values_need_two_users_for_an_error():
    value = evaluate_policy(Market(MarketConfig(days=2)), "uniform", 1)
    assert np.isnan(value.se)
    with pytest.raises(ConfigError, match="no policy"):
        evaluate_policy(Market(MarketConfig(days=2)), "orakel", 1)
