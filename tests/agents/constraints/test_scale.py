"""Many votes: prices come from samples first, and are right even where these mislead."""

from __future__ import annotations

import numpy as np
import pytest

from crosschannel.agents import Prices, shadow_prices
from crosschannel.agents.constraints import prices as prices_module
from tests.agents.constraints.samples import DecisionTime, decision_time

pytestmark = pytest.mark.numerics

USERS = 60_000


def most_negative(time: DecisionTime) -> DecisionTime:
    """Values such that few messages are worth anything."""
    return DecisionTime(np.where(time.values != 0.0, time.values - 3.0, 0.0), time.mask, time.use, time.budgets)


def rare_use(time: DecisionTime) -> DecisionTime:
    """Uses that a sample hardly sees."""
    use = (np.random.default_rng(0).random(time.use.shape) < 1e-3).astype(float)
    use[..., 0] = 0.0
    return DecisionTime(time.values, time.mask, use, time.budgets)


def heavy_tails(time: DecisionTime) -> DecisionTime:
    rng = np.random.default_rng(0)
    return DecisionTime(
        time.values * np.exp(1.5 * rng.standard_normal((1, USERS, 1))),
        time.mask,
        time.use * np.exp(2.0 * rng.standard_normal(time.use.shape)),
        time.budgets,
    )


def ordered(time: DecisionTime) -> DecisionTime:
    """Users in the order of what messages are worth to them."""
    return DecisionTime(time.values * np.linspace(0.0, 2.0, USERS)[:, None], time.mask, time.use, time.budgets)


def solved(time: DecisionTime) -> Prices:
    prices = shadow_prices(time.values, time.mask, time.use, time.budgets)
    use = time.use_of(time.policy(prices))
    np.testing.assert_allclose(prices.use, use, rtol=1e-9)
    assert (use <= time.budgets).all()
    assert (use >= 0.99 * time.budgets)[prices.binding].all()
    assert prices.gain >= 0.99 * time.bound(prices.prices)
    return prices


@pytest.mark.parametrize("change", [lambda time: time, most_negative, rare_use, heavy_tails, ordered])
@pytest.mark.parametrize("seed", [0, 1])
def test_prices_from_samples_are_those_of_all_votes(change, seed: int, monkeypatch: pytest.MonkeyPatch) -> None:
    time = change(decision_time(seed, users=USERS, budgets=3)).with_budgets([0.3, 0.6, 0.9])
    found = solved(time)
    monkeypatch.setattr(prices_module, "FIRST_SAMPLE", USERS)
    whole = solved(time)
    assert found.gain == pytest.approx(whole.gain, rel=0.005)


@pytest.mark.parametrize("errors", [1e-3, 0.1, 1.0])
def test_a_sample_that_misleads_only_costs_time(errors: float, monkeypatch: pytest.MonkeyPatch) -> None:
    """Boxes far too narrow around prices from a sample follow the minimum until they hold it."""
    time = decision_time(2, users=USERS, budgets=2).with_budgets([0.3, 0.6])
    expected = solved(time)
    monkeypatch.setattr(prices_module, "SAMPLING_ERRORS", errors)
    monkeypatch.setattr(prices_module, "FIRST_SAMPLE", 64)
    np.testing.assert_allclose(solved(time).prices, expected.prices, rtol=0.02)


def test_many_votes_of_few_users() -> None:
    time = decision_time(votes=64, users=1_000, budgets=2, shares=[0.5, 0.8], floor=0.02)
    prices = time.solve()
    use = time.use_of(time.policy(prices))
    assert (use <= time.budgets).all()
    assert (use >= 0.99 * time.budgets)[prices.binding].all()


def test_single_precision_is_enough() -> None:
    time = decision_time(users=USERS, budgets=3, shares=[0.3, 0.5, 0.7])
    single = DecisionTime(time.values.astype("f4"), time.mask, time.use.astype("f4"), time.budgets)
    np.testing.assert_allclose(single.solve().prices, solved(time).prices, rtol=0.02)
