"""The buffer keeps the newest rows, and refuses what cannot be learned from."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import torch

from crosschannel.agents import Batch, make_agent
from crosschannel.agents.buffers.buffer import Buffer, median_variance, precision
from crosschannel.core.errors import ConfigError, InputError
from tests.agents.samples import PLAIN, random_batch


@pytest.mark.parametrize("sizes", [(3, 4, 2), (7, 9), (30,), (1,) * 23])
def test_the_newest_rows_are_kept(sizes: tuple[int, ...]) -> None:
    batch = random_batch(sum(sizes))
    buffer = Buffer(4, PLAIN, capacity=10)
    start = 0
    for size in sizes:
        rows = slice(start, start + size)
        buffer.add(batch[rows])
        start += size
    kept = slice(max(start - 10, 0), start)
    assert len(buffer) == min(start, 10)
    assert sorted(buffer["key"].numpy().view(np.uint64)) == sorted(batch.keys[kept])
    np.testing.assert_array_equal(np.sort(buffer["reward"]), np.sort(batch.rewards[kept].astype(np.float32)))
    np.testing.assert_array_equal(buffer.rows(sent_only=True), np.flatnonzero(buffer["actions"][:, 0]))
    age = dict(zip(batch.keys[::-1], range(start), strict=True))
    assert buffer.age(torch.arange(len(buffer))).tolist() == [age[key] for key in buffer.keys(buffer.rows(False))]
    newest = buffer.keys(buffer.rows(sent_only=False, since=start - 2))
    np.testing.assert_array_equal(newest, batch.keys[start - 2 : start])


def test_a_subset_checks_new_rows_only_until_rows_are_overwritten() -> None:
    batch, buffer = random_batch(17), Buffer(4, PLAIN, capacity=10)
    checked: list[int] = []

    def positive(rows: torch.Tensor) -> torch.Tensor:
        checked.append(len(rows))
        return buffer["reward"][rows] > 0

    for start, stop in ((0, 3), (3, 8), (8, 12), (12, 17)):
        buffer.add(batch[start:stop])
        for _ in range(2):
            found = buffer.subset("positive", positive)
            np.testing.assert_array_equal(found, np.flatnonzero(buffer["reward"] > 0))
    assert checked == [3, 5, 10, 10]
    other = Buffer(4, PLAIN, capacity=10)
    other.add(random_batch(17, seed=1))
    other.rows(sent_only=True)
    other.load_state_dict(buffer.state_dict(), PLAIN, PLAIN)
    np.testing.assert_array_equal(other.rows(sent_only=True), buffer.rows(sent_only=True))


CASES_OF_SE = {
    "some": ([1.0, 2.0, 4.0], [4.0, 1.0, 0.25]),
    "capped": ([0.0, 2.0, 2.0], [5.0, 1.0, 1.0]),
    "all 0": ([0.0, 0.0], [1.0, 1.0]),
    "most 0": ([0.0, 0.0, 0.0, 1.0, 2.0], [5.0, 5.0, 5.0, 2.5, 0.625]),
}


@pytest.mark.parametrize(("se", "weights"), list(CASES_OF_SE.values()), ids=list(CASES_OF_SE))
@pytest.mark.parametrize("kind", [np.array, torch.tensor])
def test_precision_is_1_at_the_median_and_capped(kind: Any, se: list[float], weights: list[float]) -> None:
    column = kind(se)
    found = precision(column, median_variance(column), cap=5.0)
    assert type(found) is type(column)
    np.testing.assert_allclose(found, weights, rtol=1e-6)


def spoiled(**changes: Any) -> Batch:
    return replace(random_batch(5), **changes)


CASES = {
    "NaN reward": (spoiled(rewards=np.array([0, 1, np.nan, np.nan, 0.0])), "column 'rewards', row 3", "2 rows in all"),
    "infinite reward": (spoiled(rewards=np.array([0, np.inf, 0, 0, 0.0])), "row 2, value inf", "not identified"),
    "NaN error": (spoiled(se=np.array([np.nan, 1, 1, 1, 1])), "column 'se', row 1", "not 0 or a positive number"),
    "negative error": (spoiled(se=np.array([1, 1, -2.0, 1, 1])), "column 'se', row 3, value -2.0", "not identified"),
    "unknown action": (spoiled(actions=np.array([[1, 0]] * 4 + [[3, 0]])), "column 'actions', row 5", "[3, 0]"),
}


@pytest.mark.parametrize("name", ["ensemble_thompson", "uniform", "logging", "no_send"])
@pytest.mark.parametrize(("batch", "place", "words"), list(CASES.values()), ids=list(CASES))
def test_wrong_rows_are_refused(name: str, batch: Batch, place: str, words: str) -> None:
    agent = make_agent(name, PLAIN, 4)
    with pytest.raises(InputError) as caught:
        agent.observe(batch)
    assert place in str(caught.value)
    assert words in str(caught.value)


def test_missing_features_are_refused() -> None:
    batch = random_batch(5)
    batch.observations.context[3, 2] = np.nan
    with pytest.raises(InputError, match="column 'context', row 4"):
        make_agent("ensemble_thompson", PLAIN, 4).observe(batch)


def test_contexts_of_another_width_are_refused() -> None:
    with pytest.raises(ConfigError, match=r"4 features; the agent was made for 5"):
        make_agent("ensemble_thompson", PLAIN, 5).observe(random_batch(5))
