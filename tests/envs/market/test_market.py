"""The simulator: settings, determinism, a valid log, and the context that an app would know."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass, field, fields, replace

import numpy as np
import pytest

from crosschannel.core.errors import ConfigError
from crosschannel.core.times import DAY, HOUR
from crosschannel.envs.market import (
    SCENARIOS,
    BusinessAsUsual,
    ContextPolicy,
    FreshUsers,
    Market,
    MarketConfig,
    NoSend,
    PolicyChoice,
    StepResult,
    evaluate_policy,
    make_policy,
    simulate_history,
)
from crosschannel.envs.market.dynamics.calendar import slot_time
from crosschannel.envs.market.dynamics.draws import Purpose, categorical, poisson, uniform
from crosschannel.envs.market.observables import (
    attribute_features,
    build_context,
    check_context,
    observable_features,
)
from crosschannel.envs.market.vocabulary import BLOCK_BOUNDS, DELIVERED, EVENTS, START, UNSUBSCRIBED
from crosschannel.histories.context.activity import Activity, BlockHabits, WeekendHabits
from crosschannel.histories.context.columns import raw_columns
from crosschannel.histories.features import ContextFeatures, ContextSpec, Layout
from crosschannel.histories.goals import Goal
from crosschannel.histories.history import History

SMALL = MarketConfig(users=250, days=12)


@pytest.fixture(scope="module")
def small():
    return simulate_history(Market(SMALL))


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"days": 1}, "days 1 is below 2"),
        ({"users": 0}, "users 0 is below 1"),
        ({"warmup_days": 1}, "warmup_days 1 is below 2"),
        ({"min_gap_days": -1}, "min_gap_days -1 is below 0"),
        ({"seed": -1}, "seed -1 is below 0"),
        ({"scenario": "defualt"}, "Did you mean 'default'"),
        ({"goals": (Goal("orders"),)}, "no event 'orders'"),
        ({"goals": (Goal("order:*", clip=3.0),)}, "has a clip"),
    ],
)
def test_wrong_settings_say_what_is_wrong(settings, message):
    with pytest.raises(ConfigError, match=message):
        MarketConfig(**settings)


def test_uniforms_are_uniform_and_independent_of_their_neighbours():
    key = np.arange(20_000, dtype=np.uint64)
    first = uniform(key, Purpose.OPENED, 3)
    others = [
        uniform(key, Purpose.OPENED, 4),
        uniform(key, Purpose.UNSUBSCRIBED, 3),
        uniform(key, Purpose.OPENED, 3, 1),
        uniform(key, Purpose.OPENED, 3, 0, 1),
        uniform(key, Purpose.OPENED, 3, 0, 0, 1),
        uniform(key + np.uint64(1), Purpose.OPENED, 3),
    ]
    assert abs(np.histogram(first, 20, (0, 1))[0] - 1000).max() < 5 * np.sqrt(1000)
    for other in others:
        assert abs(np.corrcoef(first, other)[0, 1]) < 4 / np.sqrt(len(key))


def test_poisson_inverts_the_distribution_function():
    rate = 1.7
    probabilities = np.exp(-rate) * np.cumprod([1.0, *(rate / k for k in range(1, 12))])
    edges = np.cumsum(probabilities)
    assert poisson(edges - 1e-9, np.full(12, rate)).tolist() == list(range(12))
    assert poisson(edges[:-1] + 1e-9, np.full(11, rate)).tolist() == list(range(1, 12))
    assert poisson(np.array([1 - 2.0**-54]), 0.0).tolist() == [0]


def test_categorical_never_draws_what_has_no_probability():
    p = np.array([[0.0, 0.3, 0.0, 0.7, 0.0]])
    u = np.concatenate([[2.0**-54, 1 - 2.0**-53], np.linspace(0.001, 0.999, 999)])
    drawn = categorical(u, np.repeat(p, len(u), 0))
    assert set(drawn.tolist()) == {1, 3}
    assert abs((drawn == 1).mean() - 0.3) < 0.01


def test_same_seed_same_history_other_seed_another(small):
    history, truth = small
    again, truth_again = simulate_history(Market(SMALL))
    for table in ("decisions", "events"):
        for f in fields(getattr(history, table)):
            left, right = getattr(getattr(history, table), f.name), getattr(getattr(again, table), f.name)
            assert (left is None and right is None) or np.array_equal(left, right)
    assert np.array_equal(truth.logged, truth_again.logged)
    other, _ = simulate_history(Market(MarketConfig(users=250, days=12, seed=1)))
    assert len(other.events) != len(history.events) or not np.array_equal(other.events.time, history.events.time)


@pytest.mark.parametrize(("seed", "expected"), [(0, "eada31f35dafb2b4"), (1, "dcfc12039c5587d2")])
def test_the_default_log_stays_as_it_is(seed, expected):
    """All published values rest on it. Whole numbers only, so that it is the same on every processor."""
    history, _ = simulate_history(Market(MarketConfig(users=400, days=10, seed=seed)))
    d, e = history.decisions, history.events
    propensity = np.rint(d.propensity * 1e9)
    digest = hashlib.sha256()
    for column in (d.user, d.time, d.actions, d.eligible, propensity, e.user, e.time, e.event, e.value):
        dtype = bool if column.dtype == bool else np.int64
        digest.update(np.ascontiguousarray(column, dtype=dtype).tobytes())
    assert digest.hexdigest()[:16] == expected


@pytest.mark.parametrize("scenario", SCENARIOS)
def test_the_history_passes_validation(scenario):
    history, _ = simulate_history(Market(MarketConfig(users=250, days=12, scenario=scenario)))
    read = History.from_tables(
        history.decisions_frame(), history.events_frame(), history.modules, history.users, span=history.span
    )
    assert np.array_equal(read.decisions.actions, history.decisions.actions)
    assert np.array_equal(read.decisions.eligible, history.decisions.eligible)
    assert len(read.events) == len(history.events)
    assert read.decisions.joint == pytest.approx(history.decisions.joint)


def test_slots_and_events_lie_where_the_market_says(small):
    history, _ = small
    d, e = history.decisions, history.events
    assert history.span == (START, START + SMALL.horizon * DAY)
    assert (np.datetime64("2024-01-01T06:00", "us").astype(np.int64)) == START
    assert (START // DAY + 3) % 7 == 0, "market day 0 is a Monday"
    assert ((d.time - START) % DAY == 0).all()
    assert d.time.min() == START + SMALL.warmup_days * DAY
    assert ((e.time - START) % DAY != 0).all(), "no event falls on a slot"
    assert e.time.min() > history.span[0]
    assert e.time.max() < history.span[1]
    assert e.event[e.time < d.time.min()].max() < DELIVERED, "the warm-up is organic"
    assert set(np.unique(e.value[e.event == EVENTS.index("visit:food")])) == {1.0}
    assert (e.value == np.rint(e.value)).all()
    assert BLOCK_BOUNDS[-1] * 10**6 == DAY
    assert BLOCK_BOUNDS[-2] * 10**6 == 16 * HOUR


def test_guardrails_hold_in_the_log(small):
    history, truth = small
    d = history.decisions
    sent = history.modules.sends(d.actions)
    assert d.eligible[np.arange(len(d)), d.actions[:, 0]].all()
    assert truth.users.reachable[d.user, d.actions[:, 0]][sent].all()
    same = d.user[sent][1:] == d.user[sent][:-1]
    assert np.diff(d.time[sent])[same].min() >= 3 * DAY
    rested = np.ones(len(d), dtype=bool)
    for lag in (1, 2):
        rested[lag:] &= ~(sent[:-lag] & (d.user[lag:] == d.user[:-lag]))
    reachable = truth.users.reachable[d.user][:, 1:]
    assert np.array_equal(d.eligible[:, 1:5], reachable & rested[:, None])


def test_unsubscribed_users_get_no_slot_but_stay_active():
    history, _ = simulate_history(Market(MarketConfig(users=1500, days=12)), "uniform")
    e, d = history.events, history.decisions
    gone = np.flatnonzero(e.event == UNSUBSCRIBED)
    assert len(gone) > 20
    last_slot = np.zeros(history.n_users, dtype=np.int64)
    np.maximum.at(last_slot, d.user, d.time)
    assert len(np.unique(e.user[gone])) == len(gone)
    assert (last_slot[e.user[gone]] < e.time[gone]).all()
    assert (e.time[gone] < last_slot[e.user[gone]] + DAY).all()
    when = np.full(history.n_users, np.iinfo(np.int64).max)
    when[e.user[gone]] = e.time[gone]
    assert (e.time > when[e.user] + DAY).sum() > 50


@dataclass
class Recorder:
    """Decides as another policy does, and notes the context at each slot."""

    features: ContextFeatures
    inner: BusinessAsUsual = field(default_factory=BusinessAsUsual)
    contexts: list = field(default_factory=list)
    rows: list = field(default_factory=list)
    name: str = "business_as_usual"

    def choose(self, market, state):
        self.contexts.append(build_context(self.features, state, attribute_features(self.features, state.users)))
        self.rows.append(np.flatnonzero(state.subscribed))
        return self.inner.choose(market, state)


@pytest.mark.parametrize(
    "spec",
    [
        ContextSpec(),
        ContextSpec(windows=("1d", "7d", "30d"), events=("visit:*", "order:*", "opened:*", "clicked"), clock=False),
        ContextSpec(windows=("2d",), events=("order:food", "delivered"), attributes=("age", "platform")),
        ContextSpec(windows=("2d",), activity=("visit:*",), blocks=(0, 6, 14, 22)),
    ],
)
@pytest.mark.parametrize("scenario", ["default", "machine_opens", "slow"])
def test_context_equals_the_history_s_to_the_bit(scenario, spec):
    market = Market(replace(SMALL, scenario=scenario))
    history, _ = simulate_history(market)
    features = ContextFeatures.fit(history, spec)
    recorder = Recorder(features, BusinessAsUsual(market.scenario.rules))
    simulate_history(market, recorder)
    seen = np.concatenate([context[rows] for context, rows in zip(recorder.contexts, recorder.rows, strict=True)])
    day = np.concatenate([np.full(len(rows), i) for i, rows in enumerate(recorder.rows)])
    order = np.lexsort((day, np.concatenate(recorder.rows)))
    assert seen.shape[1] > 5
    if spec.events is None or "visit:*" in spec.events:
        assert any(name.startswith("share 22-") for name in features.names)
    assert np.array_equal(seen[order], features.transform(history))


def assert_columns_equal_the_history_s(config, history, activity):
    layout = replace(Layout.build(ContextSpec(windows=("1d",)), history), activity=activity)
    logged = dict(raw_columns(layout, history, history.decisions.user, history.decisions.time))
    market = Market(config)
    usual, state = make_policy("business_as_usual", market), market.reset(market.keys(config.users))
    for i in range(config.days):
        rows = np.flatnonzero(state.subscribed)
        at = history.decisions.time == slot_time(config.warmup_days + i)
        assert np.array_equal(history.decisions.user[at], rows)
        for name, column in observable_features(state, layout):
            assert np.array_equal(column[rows], logged[name][at], equal_nan=True), name
        market.step(state, usual.choose(market, state).actions)
    shares = [name for name in logged if name.startswith("share ")]
    assert len(shares) == len(activity.blocks.hours) + 1
    assert all(logged[name].std() > 0 for name in shares)


@pytest.mark.parametrize(
    ("events", "hours", "days"),
    [
        (("visit:food", "visit:rides"), (6, 10, 14, 18, 22), (5, 6)),
        (("order:food", "opened:sms", "clicked"), (0, 6, 14, 22), (0,)),
        (("order:food", "unsubscribed", "clicked"), (10, 18), (1, 4, 6)),
        (("order:food",), (0, 22), (6,)),
    ],
)
def test_activity_equals_the_history_s_to_the_bit(small, events, hours, days):
    blocks = BlockHabits(hours, tuple(np.arange(1, len(hours) + 1) / 20), 3.7)
    activity = Activity(events, "UTC", blocks, WeekendHabits(days, 1.3, 4.1))
    assert_columns_equal_the_history_s(SMALL, small[0], activity)


@pytest.mark.parametrize("scenario", SCENARIOS)
def test_contexts_equal_the_history_s_in_every_scenario(scenario):
    config = MarketConfig(users=120, days=12, scenario=scenario)
    history, _ = simulate_history(Market(config))
    blocks = BlockHabits((6, 10, 14, 18, 22), (0.2,) * 5, 3.7)
    activity = Activity(("visit:food", "order:food", "clicked"), "UTC", blocks, WeekendHabits((5, 6), 1.3, 4.1))
    assert_columns_equal_the_history_s(config, history, activity)


def test_context_refuses_what_the_market_does_not_count():
    history, _ = simulate_history(Market(replace(SMALL, users=1000)))
    state = Market(SMALL).reset(Market(SMALL).keys(5))
    with pytest.raises(ConfigError, match="whole number of days"):
        list(observable_features(state, Layout.build(ContextSpec(windows=("36h",)), history)))
    for settings, message in (
        ({"blocks": (8, 20)}, r"begin at hours \[8, 20\]"),
        ({"time_zone": "Asia/Tokyo"}, "is not UTC"),
    ):
        spec = ContextSpec(windows=("1d",), activity=("visit:*",), **settings)
        assert Layout.build(spec, history).activity is not None
        with pytest.raises(ConfigError, match=message):
            list(observable_features(state, Layout.build(spec, history)))
        with pytest.raises(ConfigError, match=message):
            check_context(spec)
    check_context(ContextSpec(blocks=(), weekend=(), time_zone="Asia/Tokyo"))
    layout = Layout.build(ContextSpec(), history)
    with pytest.raises(ConfigError, match="not fitted on a history of the market"):
        list(observable_features(state, Layout(**{**layout.__dict__, "sendable": (("fax", 1),)})))


@pytest.mark.parametrize("scenario", SCENARIOS)
def test_users_do_not_depend_on_who_else_is_simulated(scenario):
    market, bau = Market(replace(SMALL, scenario=scenario)), BusinessAsUsual()
    keys = market.keys(90)
    some = np.arange(2, 90, 7)
    everyone, few = market.reset(keys), market.reset(keys[some])
    sent = 0
    for _ in range(SMALL.days):
        left = market.step(everyone, bau.choose(market, everyone).actions)
        right = market.step(few, bau.choose(market, few).actions)
        sent += int((right.executed[:, 0] > 0).sum())
        for f in fields(StepResult):
            assert np.array_equal(getattr(left, f.name)[some], getattr(right, f.name)), f.name
    assert sent > 10
    assert np.array_equal(everyone.total[some], few.total)
    assert np.array_equal(everyone.last[some], few.last)
    assert np.array_equal(everyone.by_cell[some], few.by_cell)
    assert np.array_equal(everyone.by_weekday[some], few.by_weekday)


def test_events_are_counted_once_by_cell_and_weekday():
    """Both have as many events as the days without a message, also where users stand on different days."""
    market, bau = Market(SMALL), BusinessAsUsual()
    state = market.reset(market.keys(60))
    rng = np.random.default_rng(0)
    free = state.total[np.arange(60), state.day, : len(EVENTS)].astype(np.int64)
    for _ in range(SMALL.days):
        result = market.step(state, bau.choose(market, state).actions, rng.random(60) < 0.7)
        free += result.counts[:, : len(EVENTS)] * (result.executed[:, :1] == 0)
    assert len(np.unique(state.day)) > 2
    assert (free < state.total[np.arange(60), state.day, : len(EVENTS)]).any()
    assert np.array_equal(state.by_cell.sum(1), free)
    assert np.array_equal(state.by_weekday.sum(1), free)
    copy = state.copy()
    market.step(copy, np.zeros((60, 6), dtype=np.int64), state.day < market.config.horizon)
    assert np.array_equal(state.by_cell.sum(1), free)
    assert copy.by_cell.sum() > state.by_cell.sum()
    state.put(np.arange(5), market.reset(market.keys(5)))
    assert np.array_equal(state.by_weekday.sum(1)[:5], state.total[np.arange(5), state.day[:5], : len(EVENTS)])


@pytest.mark.parametrize("scenario", ["default", "slow"])
def test_only_active_users_move_on(scenario):
    """In `slow` those who stay behind get the later events of their messages later."""
    market, n = Market(replace(SMALL, scenario=scenario)), 200
    state, reference = market.reset(market.keys(n)), market.reset(market.keys(n))
    active = np.arange(n) % 2 == 0
    actions = np.tile([1, 3, 0, 1, 1, 1], (n, 1))
    for step in range(4):
        outcome = market.step(state, actions, active)
        whole = market.step(reference, actions)
        assert (state.day - SMALL.warmup_days).tolist() == (active * (step + 1)).tolist()
        assert (outcome.counts[~active] == 0).all()
        assert np.array_equal(outcome.value[active], whole.value[active])
        assert np.array_equal(state.total[active], reference.total[active])
    for _ in range(4):
        market.step(state, actions, ~active)
    assert np.array_equal(state.total, reference.total)
    assert np.array_equal(state.by_cell, reference.by_cell)
    assert np.array_equal(state.last, reference.last)
    with pytest.raises(ConfigError, match="actions must be"):
        market.step(state, np.full((n, 6), 9))


def test_the_market_ends():
    market = Market(MarketConfig(users=3, days=2))
    state = market.reset(market.keys(3))
    nothing = np.zeros((3, 6), dtype=np.int64)
    assert not market.done(state).any()
    for _ in range(2):
        market.step(state, nothing)
    assert market.done(state).all()
    with pytest.raises(ConfigError, match="reset it"):
        market.step(state, nothing)


def test_ineligible_actions_are_executed_as_none():
    market = Market(SMALL)
    state = market.reset(market.keys(200))
    first = market.step(state, np.tile([1, 0, 0, 0, 0, 0], (200, 1)))
    assert np.array_equal(first.eligible, state.users.reachable[:, 1])
    second = market.step(state, np.tile([1, 0, 2, 1, 1, 1], (200, 1)))
    assert not second.eligible.any()
    assert (second.executed == 0).all()
    assert (second.incremental == 0).all()


def test_a_context_policy_sees_context_and_mask():
    market = Market(SMALL)
    history, _ = simulate_history(market)
    features = ContextFeatures.fit(history)
    seen = []

    def act(context, mask):
        seen.append((context.shape, context.dtype, mask.shape, mask.dtype))
        actions = np.zeros((len(context), 6), dtype=np.int64)
        actions[:, 0] = mask[:, :5].argmin(1) % 5
        return PolicyChoice(actions, np.ones(actions.shape))

    value = evaluate_policy(market, ContextPolicy("mine", features, act), 40, seed=2)
    assert value.name == "mine"
    text = str(value)
    assert text.startswith(f"mine: {value.mean:+.3f} per user (standard error {value.se:.3f}), lift ")
    assert text.endswith("; 40 users")
    assert "\n" not in text  # not the arrays
    assert seen[0] == ((40, features.dim), np.float32, (40, 26), bool)
    assert len(seen) == SMALL.days


def test_policies_share_random_numbers_and_users():
    market = Market(SMALL)
    nothing, usual = (evaluate_policy(market, p, 100, 3) for p in (NoSend(), "business_as_usual"))
    assert np.array_equal(nothing.organic, usual.organic)
    with pytest.raises(ConfigError, match="no policy 'usual'"):
        evaluate_policy(market, "usual", 10)


def test_deploying_to_the_same_fresh_users_is_evaluating_each_policy():
    market = Market(SMALL)
    users = FreshUsers.draw(market, 50, seed=3)
    for policy in ("uniform", "oracle", "uniform"):
        found, expected = users.deploy(policy), evaluate_policy(market, policy, 50, seed=3)
        for name in ("effect", "realised", "organic", "sends", "unsubscribed"):
            np.testing.assert_array_equal(getattr(found, name), getattr(expected, name), err_msg=name)
