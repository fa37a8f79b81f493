"""A policy under constraints: its use, its probabilities, and the pace of a log."""

from __future__ import annotations

from dataclasses import replace
from types import SimpleNamespace

import numpy as np
import pytest

from crosschannel.agents import Agent, Budget, Constraints, CostLimit, Observations, make_agent
from crosschannel.agents.sampling import check_probabilities, sample_actions
from crosschannel.agents.votes import PriceableAgent
from crosschannel.core.arrays import FloatArray, IntArray
from crosschannel.core.errors import ConfigError
from crosschannel.core.times import DAY, WEEK
from crosschannel.histories.history import History
from crosschannel.pipeline import priced_votes
from crosschannel.pipeline.configuration import Config
from crosschannel.pipeline.judgement.judging import greedy_probabilities
from crosschannel.pipeline.judgement.notes import FEW_EVENTS, SAFE_MARGIN, limit_notes
from crosschannel.pipeline.pricing import LogPace, PricedPolicy, price_messages, priced_policy
from tests.agents.funnel.samples import PLAIN, World
from tests.agents.samples import everything, observations_of
from tests.envs.replay.samples import sample_log
from tests.samples import random_history

PACE = LogPace(WEEK, {"complain": 0.01})
GROUPS = np.repeat([7, 3], [400, 200])


@pytest.fixture(scope="module")
def agent() -> Agent:
    found = make_agent("ensemble_thompson", PLAIN, 3, {"members": 5, "hidden": [8], "mixtures": 16, "floor": 0.01})
    found.observe(World(price=1.0).log(6000))
    found.update()
    return found


@pytest.fixture(scope="module")
def slots() -> Observations:
    mask = everything(len(GROUPS), PLAIN)
    mask[::9, 1:3] = False
    return observations_of(mask, 3, seed=1)


def policy_of(agent: Agent, slots: Observations, constraints: Constraints, group: IntArray = GROUPS) -> PricedPolicy:
    return priced_policy(agent, slots, group, constraints, PACE)


def messages_of(policy: PricedPolicy, rows: slice | IntArray = slice(None)) -> float:
    return float(policy.probabilities[0][rows, 1:].sum())


def spent(policy: PricedPolicy, offer_costs: FloatArray) -> FloatArray:
    """Expected cost of each slot, by enumeration of all messages."""
    joint = PLAIN.all_joint_probabilities(policy.probabilities)
    return np.asarray((joint[:, 1:] * offer_costs[PLAIN.joint_actions[1:, 2]]).sum(1))


def test_without_constraints_it_is_the_agents_own_policy(agent: Agent, slots: Observations) -> None:
    found = policy_of(agent, slots, Constraints())
    for a, b in zip(found.probabilities, agent.action_probabilities(slots), strict=True):
        np.testing.assert_array_equal(a, b)
    assert found.table.empty
    assert list(found.table) == ["group", "constraint", "price", "use", "budget", "binding"]


def test_limits_that_do_not_bind_change_nothing(agent: Agent, slots: Observations) -> None:
    found = policy_of(agent, slots, Constraints(messages_per_week=1.0))
    for a, b in zip(found.probabilities, agent.action_probabilities(slots), strict=True):
        np.testing.assert_allclose(a, b, atol=1e-9)
    assert not found.table["price"].any()
    assert not found.table["binding"].any()


def test_each_decision_time_keeps_its_own_limit_of_messages(agent: Agent, slots: Observations) -> None:
    found = policy_of(agent, slots, Constraints(messages_per_week=0.3))
    check_probabilities(PLAIN, found.probabilities, slots.action_mask)
    assert found.table["group"].tolist() == [3, 7]
    for group, users in ((3, 200), (7, 400)):
        used = messages_of(found, np.flatnonzero(group == GROUPS))
        assert 0.99 * 0.3 * users <= used <= 0.3 * users * (1 + 1e-6)
        row = found.table[found.table["group"] == group].iloc[0]
        assert row["use"] == pytest.approx(used, rel=1e-6)
        assert row["budget"] == pytest.approx(0.3 * users)
        assert row["binding"]
        assert row["price"] > 0.0


def test_users_without_a_slot_do_not_widen_a_limit(agent: Agent, slots: Observations) -> None:
    has_slot = np.arange(len(GROUPS)) % 2 == 0
    found = priced_policy(agent, slots, GROUPS, Constraints(messages_per_week=0.3), PACE, has_slot)
    assert messages_of(found) == pytest.approx(0.3 * has_slot.sum(), rel=0.01)


def test_the_hazard_of_a_cost_event_keeps_the_logs_rate(agent: Agent, slots: Observations) -> None:
    free = policy_of(agent, slots, Constraints(cost_events=(CostLimit("complain", at_most=10.0),)))
    found = policy_of(agent, slots, Constraints(cost_events=(CostLimit("complain", margin=0.0),)))
    limit = 0.01 * len(GROUPS)
    assert free.table["use"].sum() > 1.2 * limit
    assert 0.99 * limit <= found.table["use"].sum() <= limit * (1 + 1e-6)
    assert messages_of(found) < 0.9 * messages_of(free)


def test_a_budget_on_content_is_kept_and_changes_the_content(agent: Agent, slots: Observations) -> None:
    costs = {"offer": {"huge": 1.0, "large": 0.2}}
    free = policy_of(agent, slots, Constraints())
    offer_costs = np.array([0.0, 0.2, 1.0])
    amount = 0.5 * float(spent(free, offer_costs).sum()) / len(GROUPS)
    found = policy_of(agent, slots, Constraints(budgets=(Budget("bonus", amount, costs),)))
    check_probabilities(PLAIN, found.probabilities, slots.action_mask)
    for group in (3, 7):
        rows = np.flatnonzero(group == GROUPS)
        used = float(spent(found, offer_costs)[rows].sum())
        assert used <= amount * len(rows) * (1 + 1e-4)  # probabilities of content are rounded to single precision
        assert used == pytest.approx(found.table.set_index("group").loc[group, "use"], rel=1e-4)
    assert (found.table["budget"] == amount * np.array([200, 400])).all()
    joint = PLAIN.all_joint_probabilities(found.probabilities)
    huge = PLAIN.joint_actions[:, 2] == 2
    before = PLAIN.all_joint_probabilities(free.probabilities)
    assert joint[:, huge].sum() < before[:, huge].sum()
    assert messages_of(found) > 0.6 * messages_of(free)  # cheaper content is sent where messages are not worth theirs


def test_prices_that_do_not_settle_are_those_of_the_votes_that_are_used(
    agent: Agent, slots: Observations, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(priced_votes, "MAX_ROUNDS", 2)
    monkeypatch.setattr(priced_votes, "SETTLED_PRICES", 0.0)
    costs = {"offer": {"huge": 1.0}}
    found = policy_of(agent, slots, Constraints(budgets=(Budget("bonus", 0.05, costs),)))
    used = spent(found, np.array([0.0, 0.0, 1.0]))
    for group, users in ((3, 200), (7, 400)):
        rows = np.flatnonzero(group == GROUPS)
        row = found.table.set_index("group").loc[group]
        assert used[rows].sum() == pytest.approx(row["use"], rel=1e-4)
        assert used[rows].sum() <= 0.05 * users * (1 + 1e-4)


def test_blocks_of_rows_change_nothing(agent: Agent, slots: Observations, monkeypatch: pytest.MonkeyPatch) -> None:
    constraints = Constraints(budgets=(Budget("bonus", 0.05, {"offer": {"huge": 1.0}}),))
    whole = policy_of(agent, slots, constraints)
    monkeypatch.setattr(priced_votes, "ROWS_PER_BLOCK", 128)
    found = policy_of(agent, slots, constraints)
    # A matrix product may round a row otherwise among other rows.
    np.testing.assert_allclose(found.table["price"], whole.table["price"], rtol=1e-5)
    for part, expected in zip(found.probabilities, whole.probabilities, strict=True):
        np.testing.assert_allclose(part, expected, atol=1e-5)


def test_probabilities_are_those_of_what_is_drawn(agent: Agent, slots: Observations) -> None:
    found = policy_of(agent, slots, Constraints(messages_per_week=0.3, cost_events=(CostLimit("complain"),)))
    few = [part[:4] for part in found.probabilities]
    joint = PLAIN.all_joint_probabilities(few)
    draws, rng = 4000, np.random.default_rng(0)
    many = np.repeat(np.arange(4), draws)
    decisions = sample_actions(PLAIN, [part[many] for part in few], rng)
    index = PLAIN.joint_index(decisions.actions)
    np.testing.assert_allclose(decisions.joint, joint[many, index], rtol=1e-9)
    counts = np.zeros_like(joint)
    np.add.at(counts, (many, index), 1.0)
    error = np.sqrt(np.maximum(joint * (1.0 - joint), 1.0 / draws) / draws)
    assert (np.abs(counts / draws - joint) <= 4.5 * error).all()


def test_an_agent_without_votes_cannot_keep_constraints(slots: Observations) -> None:
    uniform = make_agent("uniform", PLAIN, 3, {})
    with pytest.raises(ConfigError, match="cannot keep constraints"):
        policy_of(uniform, slots, Constraints(messages_per_week=0.3))
    assert policy_of(uniform, slots, Constraints()).table.empty


def test_the_pace_of_a_log_counts_events_within_each_users_observed_time() -> None:
    history = random_history(3, users=30, days=16)
    found = LogPace.measure(history, ("order", "visit"), otherwise=5, window=DAY)
    assert found.period == DAY
    weeks = 30 * 14 * DAY / WEEK - 30 * 6 / 24 / 7  # from the decision at 06:00 of the third day on
    for code, name in enumerate(("order", "visit")):
        mine = (history.events.event == code) & (history.events.time >= 2 * DAY + DAY // 4)
        assert found.rates[name] == pytest.approx((mine.sum() + 0.5) / weeks)
    assert LogPace.from_dict(found.to_dict()) == found


def test_time_after_a_users_observation_does_not_count() -> None:
    history = random_history(3, users=30, days=16)
    until = np.full(30, 9 * DAY)
    inside = history.events.time < 9 * DAY
    early = replace(
        history,
        observed_until=until,
        events=replace(
            history.events,
            **{name: getattr(history.events, name)[inside] for name in ("user", "time", "event", "value")},
        ),
    )
    found, whole = (LogPace.measure(each, ("order",), DAY, DAY).rates["order"] for each in (early, history))
    assert found == pytest.approx(whole, rel=0.25)  # the rate is constant over time; half of the log would halve it


def test_churn_ends_a_users_time() -> None:
    history = random_history(3, users=30, days=16, rate=0.2)
    leaving: History = replace(history, churn_events=("visit",))
    found = LogPace.measure(leaving, ("visit",), DAY, DAY)
    start = 2 * DAY + DAY // 4
    stayed = leaving.churned_at > start
    expected = np.minimum(leaving.churned_at, 16 * DAY)[stayed] - start
    churned = (leaving.churned_at >= start) & (leaving.churned_at < 16 * DAY)
    assert found.rates["visit"] == pytest.approx((churned.sum() + 0.5) / (expected.sum() / WEEK))


def test_a_log_without_a_second_decision_has_the_period_that_is_given() -> None:
    history = random_history(3, users=30, days=5)
    assert LogPace.measure(history, (), otherwise=123, window=DAY).period == 123


def test_a_price_of_messages_sends_fewer_of_them_with_exact_probabilities(agent: Agent, slots: Observations) -> None:
    assert isinstance(agent, PriceableAgent)
    votes = agent.votes(slots)
    price = float(np.median(votes.values[..., 1:]))
    pace = replace(PACE, message_price=price)
    free = priced_policy(agent, slots, GROUPS, Constraints(), PACE)
    for constraints in (Constraints(discount=0.9), Constraints(messages_per_week=1.0, discount=0.9)):
        found = priced_policy(agent, slots, GROUPS, constraints, pace)
        check_probabilities(PLAIN, found.probabilities, slots.action_mask)
        assert messages_of(found) < 0.98 * messages_of(free)
        charged = np.where(votes.mask, votes.values - np.float32(price) * np.array([0, 1, 1], np.float32), -np.inf)
        shares = np.stack([(charged.argmax(2) == a).mean(0) for a in range(3)], 1)
        expected = (1.0 - votes.floor) * shares + votes.floor * votes.mask / votes.mask.sum(1, keepdims=True)
        np.testing.assert_allclose(found.probabilities[0], expected, atol=1e-6)


def test_without_a_discount_messages_have_no_price(agent: Agent) -> None:
    assert price_messages(agent, sample_log(), Constraints(), PACE) is PACE


def test_the_pace_keeps_the_price_of_a_message() -> None:
    pace = replace(PACE, message_price=0.05)
    assert LogPace.from_dict(pace.to_dict()) == pace


@pytest.mark.parametrize("constraints", [Constraints(discount=0.9), Constraints(messages_per_week=1.0, discount=0.9)])
def test_the_greedy_policy_that_is_judged_is_the_one_that_decides(
    agent: Agent, slots: Observations, constraints: Constraints
) -> None:
    """A price of later slots counts without any limit as well: it is so high here that nothing is sent."""
    pace = replace(PACE, message_price=1e6)
    decisions = SimpleNamespace(user=np.arange(len(slots)), time=np.zeros(len(slots), dtype=np.int64))
    history = SimpleNamespace(decisions=decisions, churned_at=np.full(len(slots), WEEK))
    data = SimpleNamespace(test=SimpleNamespace(history=history, observations=slots), pace=pace)
    found = greedy_probabilities(Config(constraints=constraints), data, agent)  # type: ignore[arg-type]
    together = np.zeros(len(slots), dtype=np.int64)
    expected = priced_policy(agent, slots, together, constraints, pace, explore=False).probabilities
    for a, b in zip(found, expected, strict=True):
        np.testing.assert_array_equal(a, b)
    assert found[0][:, 0] == pytest.approx(1.0)


def test_a_limit_that_rests_on_few_events_has_a_caution() -> None:
    limits = Constraints(cost_events=(CostLimit("complain"), CostLimit("leave", margin=SAFE_MARGIN)))
    pace = replace(PACE, events={"complain": FEW_EVENTS - 1, "leave": 3})
    (note,) = limit_notes(limits, pace)
    assert note.startswith(
        f"The limit on complain rests on {FEW_EVENTS - 1} such events of the training users. Hazards"
    )
    assert limit_notes(limits, replace(pace, events={"complain": FEW_EVENTS, "leave": 3})) == []
    assert limit_notes(Constraints(), pace) == []
    assert LogPace.from_dict(pace.to_dict()) == pace
