"""The components of rewards: what they equal, when they are known, and what does not change them."""

from __future__ import annotations

from dataclasses import fields, replace

import numpy as np
import pytest

from crosschannel.core.times import DAY
from crosschannel.histories.history import History
from crosschannel.histories.logs import take_rows
from crosschannel.reward import REWARDS, FunnelSpec, Goal, RewardSpec, make_reward
from crosschannel.reward.funnel import Components, components, with_components
from crosschannel.reward.reason import Reason
from tests.reward.funnel.worlds import COMPLAINT, DIRECT, EXCLUSION, FUNNEL, SPEC, simulate
from tests.reward.samples import OPTIONS, rich_history, spec_of

BARE = FunnelSpec({"email": "visit"})


def of(model_kind: str, spec: RewardSpec, history: History) -> Components:
    found = make_reward(model_kind, spec).fit_transform(history).components
    assert found is not None
    return found


def assert_same(left: Components, right: Components, rows: np.ndarray | slice = slice(None)) -> None:
    for f in fields(Components):
        one, other = getattr(left, f.name), getattr(right, f.name)
        if isinstance(one, np.ndarray) and f.name != "cost_weights":
            np.testing.assert_array_equal(one[rows], other, err_msg=f.name)
        else:
            np.testing.assert_equal(one, other)


@pytest.mark.parametrize("option", OPTIONS)
@pytest.mark.parametrize("kind", REWARDS)
def test_without_costs_and_surrogates_the_value_is_the_reward(kind, option):
    """To the bit, of every kind and with every option."""
    history = rich_history(1, users=60)
    spec = replace(spec_of(option), funnel=BARE)
    frame = make_reward(kind, spec).fit_transform(history)
    plain = make_reward(kind, replace(spec, funnel=None)).fit_transform(history)
    np.testing.assert_array_equal(frame.reward, plain.reward)
    assert frame.components is not None
    assert np.isfinite(frame.components.value).sum() > 10
    np.testing.assert_array_equal(frame.components.value, frame.reward)
    np.testing.assert_array_equal(frame.components.value_se, frame.se)
    np.testing.assert_array_equal(frame.components.value_reason, frame.reason)
    np.testing.assert_array_equal(frame.components.value_at, frame.available_at)


@pytest.mark.parametrize("kind", REWARDS)
def test_a_cost_event_is_taken_out_of_the_value(kind):
    history = simulate(DIRECT, 2, 120)
    funnel = FunnelSpec(costs=("complaint",))
    found = of(kind, replace(SPEC, funnel=funnel), history)
    others = replace(SPEC, goals=SPEC.goals[:2], funnel=None)
    np.testing.assert_allclose(found.value, make_reward(kind, others).fit_transform(history).reward, rtol=1e-12)
    assert found.cost_names == ("complaint",)
    assert found.cost_weights.tolist() == [3.0]
    assert found.prices == {}


def test_a_cost_is_whether_the_event_occurred():
    """By a loop, for decisions with and without a message."""
    history = simulate(EXCLUSION, 3, 100)
    found = of("did", SPEC, history)
    d, e = history.decisions, history.events
    complaints = e.event == COMPLAINT
    for row in range(len(d)):
        near = complaints & (e.user == d.user[row]) & (e.time > d.time[row]) & (e.time <= d.time[row] + DAY)
        assert found.cost[row, 0] == near.any()
    assert 0 < found.cost.sum() < len(d)
    assert found.cost[d.actions[:, 0] == 0].sum() == 0


def test_two_cost_events_in_a_window_count_once():
    history = simulate(EXCLUSION, 3, 100)
    e = history.events
    twice = np.sort(np.concatenate([np.arange(len(e)), np.flatnonzero(e.event == COMPLAINT)]))
    found = of("did", SPEC, replace(history, events=take_rows(e, twice)))
    np.testing.assert_array_equal(found.cost, of("did", SPEC, history).cost)


def test_surrogates_take_the_goals_place():
    """The value is the plain reward of visits alone, at a tenth plus the learned price, whose folds differ a little."""
    history = simulate(EXCLUSION, 4, 300)
    found = of("did", replace(SPEC, folds=1), history)
    price = found.prices["order"]["visit"]
    visits = replace(SPEC, goals=(Goal("visit", 0.1 + price),), funnel=None)
    np.testing.assert_allclose(found.value, make_reward("did", visits).fit_transform(history).reward, rtol=1e-10)
    folds = of("did", SPEC, history)
    assert 0 < np.nanmax(np.abs(folds.value - found.value)) < 0.2
    assert abs(folds.prices["order"]["visit"] - price) < 0.03


def test_a_goals_weight_limit_and_credit_enter_its_price():
    history = simulate(EXCLUSION, 5, 300)

    def price(goal: Goal) -> float:
        spec = replace(SPEC, goals=(goal, Goal("complaint", -3.0)), folds=1)
        return of("did", spec, history).prices["order"]["visit"]

    plain = price(Goal("order"))
    assert price(Goal("order", 2.0)) == pytest.approx(2 * plain, rel=1e-12)
    assert 0 < price(Goal("order", clip=1.0)) < plain
    decaying = price(Goal("order", credit="exponential", half_life="6h"))
    # Orders fall anywhere in the day, so that what decays is noise beside the visits that decay alike.
    assert 0 < decaying < plain


def test_rows_are_unknown_where_the_log_does_not_know_them():
    history = simulate(EXCLUSION, 6, 80)
    d = history.decisions
    cut = replace(
        history, span=(history.span[0], int(d.time.max()) + DAY // 2), observed_until=np.full(80, d.time.max())
    )
    found = of("did", SPEC, cut)
    last = d.time == d.time.max()
    assert (found.cost_reason[last] == Reason.OUTSIDE_OBSERVATION).all()
    assert np.isnan(found.cost[last]).all()
    assert np.isnan(found.value[last]).all()
    assert np.isfinite(found.cost[~last]).all()
    sent = d.actions[:, 0] > 0
    assert (found.engaged_reason[sent & last & (d.actions[:, 0] < 3)] == Reason.OUTSIDE_OBSERVATION).all()


def test_costs_are_unknown_after_churn_and_beside_other_messages():
    history = simulate(EXCLUSION, 7, 200)
    gone = replace(history, churn_events=("complaint",))
    found = of("did", SPEC, gone)
    late = history.decisions.time > gone.churned_at[history.decisions.user]
    assert late.sum() > 10
    assert (found.cost_reason[late] == Reason.CHURNED).all()
    assert np.isnan(found.cost[late]).all()
    assert found.cost[~late].sum() > 0  # the churn event itself is a cost

    wide = replace(SPEC, post="6d", funnel=replace(FUNNEL, surrogates={}), overlap="exclude", min_controls=2)
    found = of("did", wide, history)
    d = history.decisions
    sent = d.actions[:, 0] > 0
    followed = np.array(
        [
            (sent & (d.user == u) & (d.time > t) & (d.time < t + 6 * DAY)).any()
            for u, t in zip(d.user, d.time, strict=True)
        ]
    )
    inside = d.time + 6 * DAY <= history.span[1]
    assert (found.cost_reason[followed & inside] == Reason.OVERLAPPING).all()
    assert (found.cost_reason[~followed & inside] == Reason.IDENTIFIED).all()
    assert followed[inside].any()


def test_no_price_is_known_before_the_windows_that_it_was_learned_from():
    history = simulate(EXCLUSION, 8, 100)
    found, plain = of("did", SPEC, history), of("did", replace(SPEC, funnel=replace(FUNNEL, surrogates={})), history)
    d = history.decisions
    assert (found.value_at == d.time.max() + DAY).all()
    assert (plain.value_at == d.time + DAY).all()
    assert (found.cost_at == d.time + DAY).all()


@pytest.mark.parametrize("kind", ["did", "did_dr"])
def test_other_orders_of_rows_change_nothing(kind):
    history = simulate(DIRECT, 9, 90, named=True)
    d, e = history.decisions, history.events
    rng = np.random.default_rng(0)
    first, second = rng.permutation(len(d)), rng.permutation(len(e))
    place = np.argsort(first)
    events = take_rows(e, second)
    assert events.message is not None
    events = replace(events, message=np.where(events.message >= 0, place[events.message], events.message))
    same = {name: getattr(history, name) for name in ("modules", "user_ids", "event_names", "span", "churn_events")}
    again = History.from_arrays(take_rows(d, first), events, **same)
    assert_same(of(kind, SPEC, history), of(kind, SPEC, again))


def test_other_users_move_a_users_components_through_controls_and_prices_alone():
    """Engagement and costs of a part of the users are those of the whole."""
    history = simulate(DIRECT, 10, 240, named=True)
    chosen = np.arange(240) % 2 == 0
    whole, part = of("did", SPEC, history), of("did", SPEC, history.select_users(chosen))
    rows = chosen[history.decisions.user]
    for name in ("engaged", "cost", "engaged_reason", "cost_reason", "cost_at"):
        np.testing.assert_array_equal(getattr(whole, name)[rows], getattr(part, name), err_msg=name)


def test_a_users_own_goals_do_not_enter_the_prices_of_that_user():
    history = simulate(EXCLUSION, 11, 120)
    model = make_reward("did", SPEC)
    outcomes = model.measure(history)
    mine = outcomes.fold % SPEC.folds == 0
    users = np.unique(history.decisions.user[mine])
    more = np.isin(history.events.user, users) & (history.events.event == 1)
    twice = np.sort(np.concatenate([np.arange(len(more)), np.flatnonzero(more)]))
    doubled = replace(history, events=take_rows(history.events, twice))
    visits = replace(SPEC, goals=SPEC.goals[:1], funnel=replace(FUNNEL, costs=()))
    before, after = of("raw", visits, history), of("raw", visits, doubled)
    np.testing.assert_array_equal(before.value[mine], after.value[mine])
    assert (before.value[~mine] != after.value[~mine]).any()


def test_the_frame_becomes_a_table_with_its_components():
    history = simulate(EXCLUSION, 12, 60)
    frame = make_reward("did", SPEC).fit_transform(history)
    table = frame.to_pandas()
    assert {"engaged", "value", "cost_complaint", "engaged_reason"} <= set(table)
    assert len(table) == len(frame)
    assert set(table["engaged_reason"]) <= {reason.text for reason in Reason}
    plain = make_reward("did", replace(SPEC, funnel=None)).fit_transform(history).to_pandas()
    assert list(plain) == list(table)[: len(plain.columns)]


def test_with_components_is_what_fit_transform_gives():
    history = simulate(EXCLUSION, 13, 60)
    model = make_reward("did", SPEC)
    outcomes = model.measure(history)
    frame = model.fit_outcomes(outcomes).transform_outcomes(outcomes)
    assert frame.components is None
    again = with_components(model, history, outcomes, frame).components
    once = model.fit_transform(history).components
    assert again is not None
    assert once is not None
    assert_same(once, again)
    assert_same(once, components(model, history, outcomes))
    bare = make_reward("did", replace(SPEC, funnel=None))
    assert with_components(bare, history, outcomes, frame) is frame


def test_reasons_of_components_are_no_reasons_of_rewards():
    frame = make_reward("did", SPEC).fit_transform(simulate(EXCLUSION, 14, 60))
    assert Reason.NOT_SENT.text not in frame.counts()
    assert sum(frame.counts().values()) == len(frame)
