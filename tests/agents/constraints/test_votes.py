"""Choices at prices: sums, chunks, and the votes that prices between two vectors may change."""

from __future__ import annotations

import tracemalloc
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from crosschannel.agents import shadow_prices
from crosschannel.agents.constraints import votes as votes_module
from crosschannel.agents.constraints.contested import cost_of
from crosschannel.agents.constraints.votes import Votes, count_votes
from tests.agents.constraints.samples import DecisionTime, decision_time

pytestmark = pytest.mark.numerics


def votes_of(time: DecisionTime, kind: str = "f8") -> Votes:
    return Votes(time.values.astype(kind), time.mask, time.use.astype(kind), 1.0 / len(time.values))


@pytest.mark.parametrize("chunk", [1, 7, 100, 10**6])
def test_sums_are_those_of_the_definition(chunk: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(votes_module, "VALUES_PER_CHUNK", chunk)
    time, prices = decision_time(votes=3, users=50), np.array([0.3, 0.7])
    found, shares = votes_of(time).evaluate(prices), time.vote_shares(prices)
    np.testing.assert_allclose(found.use, time.use_of(shares))
    net = time.values - np.einsum("c,cna->na", prices, time.use)
    best = np.where(time.mask, net, -np.inf).argmax(-1)
    assert found.gain == pytest.approx(np.take_along_axis(time.values, best[..., None], -1).sum() / 3)
    np.testing.assert_array_equal(count_votes(time.values, time.mask, time.use, prices), shares)


@settings(max_examples=100, deadline=None)
@given(
    seed=st.integers(0, 2**32 - 1),
    votes=st.integers(1, 3),
    width=st.sampled_from([0.0, 1e-3, 0.3, 10.0]),
    rounded=st.booleans(),
    kind=st.sampled_from(["f4", "f8"]),
)
def test_contested_votes_choose_as_all_votes_do(seed: int, votes: int, width: float, rounded: bool, kind: str) -> None:
    """At every price vector between the two, its ends included, with ties and in single precision."""
    time = decision_time(seed, votes=votes, users=60)
    all_votes = votes_of(time, kind)
    if rounded:
        all_votes = votes_of(DecisionTime(np.round(time.values), time.mask, np.round(time.use), time.budgets), kind)
    rng = np.random.default_rng(seed)
    low = np.maximum(rng.normal(0.2, 0.5, 2), 0.0)
    high = low + width * rng.random(2)
    contested = all_votes.between(low, high)
    for prices in (low, high, (low + high) / 2, low + (high - low) * rng.random(2)):
        found, expected = contested.evaluate(prices), all_votes.evaluate(prices)
        assert found.gain == pytest.approx(expected.gain, rel=1e-12, abs=1e-12)
        np.testing.assert_allclose(found.use, expected.use, rtol=1e-12, atol=1e-12)


def test_few_votes_are_contested_between_near_prices() -> None:
    votes = votes_of(decision_time(users=20_000))
    prices = np.array([0.3, 0.7])
    assert votes.between(prices * 0.99, prices * 1.01).count < 0.02 * votes.count
    assert votes.between(prices, prices).count == 0


def test_a_sample_is_chosen_by_hash_and_counts_as_much_as_all() -> None:
    votes = votes_of(decision_time(votes=4, users=20_000))
    sample, prices = votes.sample(8_000), np.array([0.3, 0.7])
    assert sample.count == pytest.approx(8_000, abs=4 * 8_000**0.5)
    found, expected = sample.evaluate(prices), votes.evaluate(prices)
    np.testing.assert_allclose(found.use, expected.use, rtol=0.1)
    assert found.gain == pytest.approx(expected.gain, rel=0.1)
    np.testing.assert_array_equal(votes.sample(8_000).evaluate(prices).use, found.use)


@pytest.mark.parametrize("size", [1, 37, 10**6])
def test_blocks_of_positions_do_not_change_a_sample(size: int, monkeypatch: pytest.MonkeyPatch) -> None:
    votes = votes_of(decision_time(votes=3, users=100))
    expected = votes.sample(50).values
    assert 20 < expected.shape[1] < 80
    monkeypatch.setattr(votes_module, "POSITIONS_PER_BLOCK", size)
    np.testing.assert_array_equal(votes.sample(50).values, expected)


@pytest.mark.parametrize("budgets", [1, 3])
def test_a_sample_that_is_not_copied_chooses_alike(budgets: int, monkeypatch: pytest.MonkeyPatch) -> None:
    votes = votes_of(decision_time(votes=4, users=5_000, budgets=budgets), "f4")
    copied, low = votes.sample(6_000), np.full(budgets, 0.3)
    monkeypatch.setattr(votes_module, "COPIED_VOTES", 0)
    read = votes.sample(6_000)
    assert copied.positions is None
    assert read.positions is not None
    for one, other in ((copied, read), (copied.between(low, 2.0 * low), read.between(low, 2.0 * low))):
        expected, found = one.evaluate(1.5 * low), other.evaluate(1.5 * low)
        assert found.gain == expected.gain
        assert found.use.tobytes() == expected.use.tobytes()


def test_a_sample_takes_memory_for_its_own_votes_alone() -> None:
    """Of 16 million votes: a number for each of them would take 128 MB, and their values are never made."""
    shape = (16, 1_000_000, 4)
    values, mask = np.broadcast_to(np.float32(1.0), shape), np.broadcast_to(np.bool_(True), shape[1:])
    votes = Votes(values, mask, np.broadcast_to(1.0, (1, *shape[1:])), 1.0)
    tracemalloc.start()
    assert votes.sample(10_000).count == pytest.approx(10_000, abs=500)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < 32e6


def test_votes_on_a_disk_have_the_prices_of_votes_in_memory(tmp_path: Path) -> None:
    time = decision_time(votes=4, users=10_000, budgets=2, shares=[0.4, 0.6], floor=0.02)
    arrays = [np.ascontiguousarray(array) for array in (time.values.astype("f4"), time.mask, time.use)]
    mapped = []
    for k, array in enumerate(arrays):
        np.save(tmp_path / f"{k}.npy", array)
        mapped.append(np.load(tmp_path / f"{k}.npy", mmap_mode="r"))
    expected, found = (shadow_prices(*each, time.budgets, time.floor) for each in (arrays, mapped))
    assert found.prices.tobytes() == expected.prices.tobytes()
    assert found.mixture.tobytes() == expected.mixture.tobytes()


@pytest.mark.parametrize(("price", "kind"), [(1.0, "f4"), (1e30, "f8"), (1e-30, "f8"), (0.0, "f4")])
def test_extreme_prices_are_computed_in_double_precision(price: float, kind: str) -> None:
    use = np.array([[1e-20, 0.0, 1e20], [1.0, 1.0, 1.0]], dtype=np.float32)
    cost = cost_of(use, np.array([price, 1.0]), np.dtype("f4"))
    assert cost.dtype == kind
    np.testing.assert_allclose(cost, use[0].astype("f8") * price + 1.0, rtol=1e-6)


def test_prohibitive_prices_leave_nothing_worth_its_price() -> None:
    time = decision_time(votes=3)
    votes = votes_of(time)
    for c, price in enumerate(votes.prohibitive_prices()):
        alone = np.zeros(2)
        alone[c] = price
        assert votes.evaluate(alone).use[c] == 0.0
        assert votes.evaluate(0.4 * alone).use[c] > 0.0
