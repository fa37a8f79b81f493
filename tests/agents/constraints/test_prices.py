"""Shadow prices: budgets kept, complementary slackness, the largest gain, and what no price can do."""

from __future__ import annotations

import pickle
from dataclasses import replace

import numpy as np
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from crosschannel.agents import InfeasibleBudget, Prices, priced_shares, shadow_prices
from crosschannel.core.errors import ConfigError
from tests.agents.constraints.samples import DecisionTime, best_gain, decision_time

pytestmark = pytest.mark.numerics


def check(time: DecisionTime) -> Prices:
    """Solve, and check by the definition what must hold for every decision time."""
    prices = time.solve()
    policy = time.policy(prices)
    np.testing.assert_allclose(policy.sum(1), 1.0)
    use = time.use_of(policy)
    np.testing.assert_allclose(prices.use, use, rtol=1e-9, atol=1e-12 * time.use.max(initial=0.0))
    assert (use <= time.budgets * (1 + 1e-9)).all()
    assert (prices.prices >= 0.0).all()
    assert (prices.mixture >= 0.0).all()
    np.testing.assert_array_equal(prices.binding, prices.prices > 0.0)
    assert (use >= 0.99 * time.budgets)[prices.binding].all()
    assert len(prices.shares) <= len(time.budgets) + 1
    assert prices.shares.sum() == pytest.approx(1.0)
    bound, rounding = time.bound(prices.prices), 2e-9 * prices.prices @ time.budgets + 1e-12 * len(time.mask)
    assert 0.99 * bound - rounding <= prices.gain <= bound * (1 + 1e-9) + rounding
    shares = priced_shares(time.values, time.mask, time.use, prices, time.floor)
    np.testing.assert_allclose(shares, policy, rtol=0.0, atol=1e-12)
    return prices


@pytest.mark.parametrize("seed", [0, 1, *(pytest.param(seed, marks=pytest.mark.slow) for seed in (2, 3, 4))])
def test_greedy_gains_as_much_as_the_linear_program(seed: int) -> None:
    time = decision_time(seed, users=2_000, actions=50, budgets=3, shares=[0.3, 0.5, 0.7])
    prices = check(time)
    gain, best = time.gain_of(time.policy(prices)), best_gain(time)
    assert 0.99 * best <= gain <= best * (1 + 1e-9)
    assert prices.gain == pytest.approx(gain)
    assert best <= gain / (1 - prices.gap) * (1 + 1e-9)


@pytest.mark.parametrize("budgets", [1, 2, 3, 8, 20])
def test_any_number_of_budgets(budgets: int) -> None:
    shares = list(np.linspace(0.2, 1.1, budgets))
    time = decision_time(budgets, users=1_000, actions=20, budgets=budgets, shares=shares)
    prices = check(time)
    assert time.gain_of(time.policy(prices)) >= 0.99 * best_gain(time)
    assert prices.binding.any()


@pytest.mark.parametrize("floor", [0.0, 0.02, 0.3])
@pytest.mark.parametrize("votes", [1, 2, 64])
def test_votes_and_floor_count(votes: int, floor: float) -> None:
    prices = check(decision_time(votes, votes=votes, floor=floor, shares=[0.9, 0.6]))
    assert prices.binding.any()


def test_one_price_vector_is_enough_for_many_votes() -> None:
    prices = check(decision_time(votes=64, users=2_000, budgets=3, shares=[0.3, 0.5, 0.7], floor=0.02))
    assert len(prices.shares) == 1
    np.testing.assert_array_equal(prices.mixture[0], prices.prices)


def test_budgets_that_do_not_bind_have_no_price() -> None:
    time = decision_time(budgets=3, shares=[1.5, 0.4, 40.0])
    prices = check(time)
    assert prices.prices[[0, 2]].tolist() == [0.0, 0.0]
    assert prices.prices[1] > 0.0
    np.testing.assert_array_equal(check(time.with_budgets(2.0)).prices, 0.0)


@pytest.mark.parametrize(
    ("kinds", "budgets", "seed"), [(1, 1, 0), (4, 2, 2), (4, 2, 7), (4, 3, 2), (7, 2, 1), (20, 3, 3)]
)
def test_equal_users_are_split(kinds: int, budgets: int, seed: int) -> None:
    """A price moves all equal users at once; the mixture moves as many as the budgets allow, rounding or not."""
    time = decision_time(seed, users=2_000, kinds=kinds, budgets=budgets, shares=0.37)
    prices = check(time)
    assert time.gain_of(time.policy(prices)) >= 0.99 * best_gain(time)
    for factor in (1 - 1e-6, 1 + 1e-6):
        moved = replace(prices, mixture=prices.mixture * factor)
        np.testing.assert_allclose(time.use_of(time.policy(moved)), prices.use, rtol=1e-9)


def test_one_user_and_one_action_get_the_share_that_the_budget_allows() -> None:
    values, use = np.array([[[0.0, 2.0]]]), np.array([[[0.0, 1.0]]])
    time = DecisionTime(values, np.ones((1, 2), dtype=bool), use, np.array([0.25]))
    policy = time.policy(check(time))
    assert 0.99 * 0.25 <= policy[0, 1] <= 0.25
    assert time.solve().prices == pytest.approx([2.0], rel=1e-3)


@pytest.mark.parametrize("votes", [1, 64])
def test_one_user(votes: int) -> None:
    check(decision_time(3, votes=votes, users=1, budgets=2, shares=[0.3, 0.5]))


def test_nobody_to_send_to() -> None:
    time = decision_time(floor=0.1)
    mask = np.zeros_like(time.mask)
    mask[:, 0] = True
    prices = check(replace(time, mask=mask))
    np.testing.assert_array_equal(prices.use, 0.0)
    empty = DecisionTime(time.values[:, :0], mask[:0], time.use[:, :0], np.zeros(2), 0.1)
    np.testing.assert_array_equal(check(empty).prices, 0.0)


def test_no_budget_at_all() -> None:
    prices = check(decision_time(budgets=0, shares=[]))
    assert prices.prices.shape == (0,)
    assert prices.mixture.shape == (1, 0)


def test_a_budget_of_zero_forbids_what_uses_it_and_nothing_else() -> None:
    time = decision_time(actions=5, budgets=2, shares=[0.0, 0.8])
    time.use[0, :, 3:] = 0.0
    policy = time.policy(check(time))
    assert policy[:, 1:3].sum() == 0.0
    assert policy[:, 3:].sum() > 0.0
    np.testing.assert_array_equal(time.policy(check(time.with_budgets(0.0)))[:, 1:], 0.0)


@pytest.mark.parametrize("share", [1e-2, 1e-4, 1e-7])
@pytest.mark.parametrize("budgets", [1, 3])
def test_tiny_budgets(share: float, budgets: int) -> None:
    assert check(decision_time(votes=3, budgets=budgets, shares=share)).binding.any()


def test_a_tiny_budget_beside_others() -> None:
    time = decision_time(users=2_000, actions=50, budgets=3, shares=[1e-7, 0.5, 0.7])
    assert check(time).binding.tolist() == [True, False, False]


def test_a_negligible_budget_is_none() -> None:
    time = decision_time(actions=5, budgets=2, shares=[1e-12, 0.3])
    time.use[0, :, 3:] = 0.0
    prices = time.solve()
    policy = time.policy(prices)
    assert policy[:, 1:3].sum() == 0.0
    assert 0.99 * time.budgets[1] <= prices.use[1] <= time.budgets[1]


@pytest.mark.parametrize("of_values", [1e-30, 1.0, 1e30, 1e37])
@pytest.mark.parametrize("of_use", [1e-30, 1.0, 1e30])
def test_units_do_not_matter(of_values: float, of_use: float) -> None:
    time = decision_time(budgets=2, shares=[0.4, 0.6])
    there = DecisionTime(
        (time.values * of_values).astype(np.float32), time.mask, (time.use * of_use).astype(np.float32),
        time.budgets * of_use,
    )  # fmt: skip
    found, expected = there.solve(), check(time)
    np.testing.assert_allclose(found.prices, expected.prices * of_values / of_use, rtol=0.02)
    policy = priced_shares(there.values, there.mask, there.use, found)
    assert np.abs(policy - time.policy(expected)).sum() <= 0.02 * len(policy)
    forbidden = shadow_prices(there.values, there.mask, there.use, np.zeros(2))
    np.testing.assert_array_equal(priced_shares(there.values, there.mask, there.use, forbidden)[:, 1:], 0.0)


def test_a_level_that_all_actions_share_does_not_matter() -> None:
    time = decision_time(budgets=2)
    level = np.random.default_rng(0).normal(0.0, 100.0, (1, len(time.mask), 1))
    moved = check(replace(time, values=time.values + level))
    np.testing.assert_allclose(moved.prices, check(time).prices, rtol=1e-6)


def test_what_happens_without_messages_is_part_of_the_use() -> None:
    time = decision_time(budgets=1, floor=0.02)
    organic = 0.1 * np.random.default_rng(0).random((len(time.mask), 1))
    there = replace(time, use=time.use + organic, budgets=time.budgets + organic.sum())
    np.testing.assert_allclose(check(there).prices, check(time).prices, rtol=0.02)


class TestInfeasible:
    def test_names_the_budgets_that_the_floor_exceeds(self) -> None:
        time = decision_time(budgets=3, floor=0.2, shares=[0.01, 0.5, 0.02])
        uniform = 0.2 * time.use_of(time.mask / time.mask.sum(1, keepdims=True))
        with pytest.raises(InfeasibleBudget, match=r"sms: the budget is .*\nunsubscribed: .*\nRaise these") as error:
            shadow_prices(
                time.values, time.mask, time.use, time.budgets, time.floor, names=["sms", "coupons", "unsubscribed"]
            )
        assert error.value.names == ("sms", "unsubscribed")
        np.testing.assert_allclose(error.value.feasible[[0, 2]], uniform[[0, 2]])
        assert error.value.feasible[1] == time.budgets[1]
        again = pickle.loads(pickle.dumps(error.value))
        assert (again.names, str(again)) == (error.value.names, str(error.value))

    def test_the_nearest_budgets_and_the_lower_floor_are_feasible(self) -> None:
        time = decision_time(budgets=3, floor=0.2, shares=[0.01, 0.5, 0.02])
        with pytest.raises(InfeasibleBudget) as error:
            time.solve()
        check(replace(time, budgets=error.value.feasible))
        assert error.value.floor is not None
        check(replace(time, floor=error.value.floor))
        with pytest.raises(InfeasibleBudget):
            replace(time, floor=error.value.floor * 1.01).solve()
        with pytest.raises(InfeasibleBudget):
            replace(time, budgets=error.value.feasible * 0.99).solve()

    def test_no_floor_helps_where_the_events_come_without_messages(self) -> None:
        time = decision_time(budgets=1, floor=0.02)
        with pytest.raises(InfeasibleBudget, match="without messages") as error:
            replace(time, use=time.use + 1.0, budgets=np.array([10.0])).solve()
        assert error.value.floor is None
        assert error.value.feasible[0] >= len(time.mask)
        assert "floor from" not in str(error.value)

    @pytest.mark.parametrize("beyond", [0.0, 1e-12, 1e-6, 1e-3])
    def test_budgets_that_the_floor_nearly_uses_up(self, beyond: float) -> None:
        time = decision_time(votes=8, budgets=1, floor=0.1)
        uniform = 0.1 * time.use_of(time.mask / time.mask.sum(1, keepdims=True))
        prices = check(replace(time, budgets=uniform * (1 + beyond)))
        assert prices.binding.all()
        assert prices.gap <= 0.01


def test_a_smaller_budget_costs_more_and_gains_less() -> None:
    time = decision_time(users=2_000, budgets=1)
    found = [check(time.with_budgets(share)) for share in np.linspace(0.05, 1.0, 12)]
    assert (np.diff([each.prices[0] for each in found]) < 0.0).all()
    assert (np.diff([each.use[0] for each in found]) > 0.0).all()
    assert (np.diff([each.gain for each in found]) > 0.0).all()


def test_the_same_bits_twice() -> None:
    time = decision_time(votes=8, users=20_000, budgets=3, floor=0.02)
    first, again = time.solve(), time.solve()
    for name in ("prices", "mixture", "shares", "use"):
        np.testing.assert_array_equal(getattr(first, name), getattr(again, name))


@pytest.mark.parametrize("users", [300, 60_000])
def test_orders_do_not_matter(users: int) -> None:
    """Order decides rounding, and the sample where users are many: prices agree as far as the margin leaves them."""
    time = decision_time(users=users, budgets=2, shares=[0.4, 0.6], floor=0.02)
    rng = np.random.default_rng(0)
    order, actions = rng.permutation(users), np.concatenate([[0], 1 + rng.permutation(5)])
    moved = DecisionTime(
        time.values[:, order][..., actions],
        time.mask[order][:, actions],
        time.use[::-1, order][..., actions],
        time.budgets[::-1],
        time.floor,
    )
    found, expected = check(moved), check(time)
    np.testing.assert_allclose(found.prices[::-1], expected.prices, rtol=0.02)
    assert found.gain == pytest.approx(expected.gain, rel=0.005)


WRONG = {
    "L, N, A": lambda time: replace(time, values=time.values[0]),
    "they must be": lambda time: replace(time, budgets=np.ones(3)),
    "floor is 1.5": lambda time: replace(time, floor=1.5),
    "budgets are": lambda time: replace(time, budgets=np.array([1.0, np.nan])),
    "each must be a finite number": lambda time: replace(time, budgets=np.array([1.0, -1.0])),
    "action 0 is not eligible for 500 users": lambda time: replace(time, mask=np.zeros_like(time.mask)),
    "negative or not finite": lambda time: replace(time, use=time.use - 0.5),
    "use has entries": lambda time: replace(time, use=np.full_like(time.use, np.inf)),
    "less than action 0": lambda time: replace(time, use=time.use[..., ::-1]),
    "not finite for 500 of 500 users": lambda time: replace(time, values=np.full_like(time.values, np.nan)),
}


@pytest.mark.parametrize("message", WRONG)
def test_wrong_arrays_are_refused(message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        WRONG[message](decision_time()).solve()


def test_values_of_actions_that_are_not_eligible_may_be_anything() -> None:
    time = decision_time()
    values = np.where(time.mask, time.values, np.nan)
    np.testing.assert_array_equal(replace(time, values=values).solve().prices, time.solve().prices)


@settings(max_examples=60, deadline=None)
@given(
    seed=st.integers(0, 2**32 - 1),
    votes=st.sampled_from([1, 3]),
    users=st.integers(1, 40),
    kinds=st.integers(1, 40),
    actions=st.integers(2, 5),
    shares=st.lists(st.sampled_from([0.0, 1e-6, 0.1, 0.5, 0.9, 1.0, 2.0]), min_size=1, max_size=4),
    floor=st.sampled_from([0.0, 0.05]),
    rounded=st.booleans(),
)
@example(2, 3, 5, 5, 2, [1e-6], 0.0, False)
@example(12954, 3, 5, 5, 5, [1e-6] * 3, 0.0, False)
@example(3778396, 1, 24, 24, 4, [1e-6] * 2, 0.0, False)
@example(40516, 3, 7, 7, 4, [0.9, 0.5, 0.5], 0.0, True)
@example(7747, 1, 7, 7, 4, [0.9, 0.5, 0.5], 0.0, True)
def test_small_decision_times(
    seed: int, votes: int, users: int, kinds: int, actions: int, shares: list[float], floor: float, rounded: bool
) -> None:
    """Few and equal users, values and uses with ties, budgets of zero."""
    time = decision_time(
        seed, votes=votes, users=users, kinds=min(kinds, users), actions=actions, budgets=len(shares), floor=floor,
        shares=shares,
    )  # fmt: skip
    if rounded:
        time = replace(time, values=np.round(time.values), use=np.round(2.0 * time.use) / 2.0).with_budgets(shares)
    try:
        prices = check(time)
    except InfeasibleBudget as error:
        assert floor > 0.0
        prices = check(replace(time, budgets=error.feasible))
        return
    if votes == 1 and floor == 0.0:
        assert time.gain_of(time.policy(prices)) >= 0.99 * best_gain(time) - 1e-6 * users


def test_the_policy_that_is_drawn_uses_what_was_planned() -> None:
    """Monte Carlo: 200 draws of 500 users stay within 4 standard errors of the expected use."""
    time = decision_time(votes=8, budgets=1, floor=0.05)
    policy = time.policy(check(time))
    rng, users = np.random.default_rng(0), np.arange(len(time.mask))
    codes = (policy.cumsum(1)[None] < rng.random((200, len(users), 1))).sum(-1)
    drawn = time.use[0][users, codes].sum(1)
    assert abs(drawn.mean() - time.solve().use[0]) <= 4 * drawn.std() / np.sqrt(len(drawn))
