"""Heads and regressions from sums over leaves: sums are those of one buffer, choices those of learning in memory."""

from __future__ import annotations

from dataclasses import replace
from functools import reduce
from operator import add
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from crosschannel.agents import (
    Agent,
    Batch,
    BestFixed,
    EnsembleThompson,
    EnsembleThompsonSettings,
    EpsilonGreedy,
    LinearThompson,
    LinearThompsonSettings,
)
from crosschannel.agents.buffers.buffer import Buffer
from crosschannel.agents.leaves import regressions as module
from crosschannel.agents.leaves.learning import Schedule, learn_from_leaves
from crosschannel.agents.leaves.leaves import Leaves
from crosschannel.agents.leaves.regressions import head_sums, linear_sums
from crosschannel.agents.leaves.rows import LeafRows
from crosschannel.core.errors import ConfigError
from crosschannel.engines import run_locally
from tests.agents.funnel.samples import PLAIN
from tests.agents.leaves.samples import WORLD, write_leaves

SETTINGS = EnsembleThompsonSettings(members=5, hidden=(8,), batch_size=64)
SHORT = Schedule(rows_per_update=500, offline_updates=20, steps=2)


def leaves_of(batch: Batch, folder: Path) -> Leaves:
    return replace(write_leaves(batch, folder), funnel=False, costs={})


def assert_close(found: torch.Tensor, wanted: torch.Tensor) -> None:
    torch.testing.assert_close(found, wanted, rtol=1e-9, atol=1e-9 * float(wanted.abs().max()))


def test_sums_of_heads_are_those_of_all_rows(tmp_path: Path) -> None:
    batch = WORLD.log(3_000, users=300)
    leaves, agent = leaves_of(batch, tmp_path), EnsembleThompson(PLAIN, 3, SETTINGS)
    learn_from_leaves(agent, leaves, run_locally, SHORT)
    total = reduce(add, [head_sums(task, agent.learners, PLAIN) for task in leaves.tasks])
    buffer = Buffer(3, PLAIN, 3_000)
    buffer.add(LeafRows.from_batch(batch).without_components().to_batch(PLAIN, {}))
    for found, learner in zip(total.modules, agent.learners, strict=True):
        wanted = learner.sums(buffer)
        assert float(wanted.rows.sum()) > 1_000
        for name in ("gram", "moment", "square", "rows"):
            assert_close(getattr(found, name), getattr(wanted, name))


def test_sums_of_regressions_are_those_of_all_rows(tmp_path: Path) -> None:
    batch = WORLD.log(3_000, users=300)
    leaves, agent = leaves_of(batch, tmp_path), LinearThompson(PLAIN, 3)
    learn_from_leaves(agent, leaves, run_locally)
    total = reduce(add, [linear_sums(task, agent, PLAIN, 1.0) for task in leaves.tasks])
    whole = linear_sums((_one_leaf(batch, tmp_path),), agent, PLAIN, 1.0)
    for found, wanted in zip(total.modules, whole.modules, strict=True):
        for name in ("gram", "moment", "weight", "total", "square"):
            assert_close(getattr(found, name), getattr(wanted, name))


def _one_leaf(batch: Batch, folder: Path) -> Path:
    LeafRows.from_batch(batch).write(folder / "whole")
    return folder / "whole"


@pytest.mark.parametrize(
    ("kind", "settings"),
    [(EnsembleThompson, SETTINGS), (LinearThompson, None), (EpsilonGreedy, None), (BestFixed, None)],
)
def test_choices_are_those_of_learning_in_memory(tmp_path: Path, kind: Any, settings: Any) -> None:
    batch = replace(WORLD.log(6_000, users=600), components=None)
    agent, other = kind(PLAIN, 3, settings), kind(PLAIN, 3, settings)
    scalars = learn_from_leaves(agent, leaves_of(WORLD.log(6_000, users=600), tmp_path), run_locally, SHORT)
    assert scalars["loss"] < 1.5
    other.observe(batch)
    for _ in range(32):
        other.update(2)
    some = batch.observations[np.arange(300)]
    for found, wanted in zip(agent.expected_rewards(some), other.expected_rewards(some), strict=True):
        spread = np.sqrt(wanted.var(0).mean())  # the members' standard deviation
        assert np.abs(found.mean(0) - wanted.mean(0)).mean() < spread
    restored = kind(PLAIN, 3, settings)
    restored.load_state_dict(agent.policy_state_dict())
    for found, wanted in zip(restored.action_probabilities(some), agent.action_probabilities(some), strict=True):
        assert found.tobytes() == wanted.tobytes()


def test_a_sample_trains_the_networks_and_all_rows_the_heads(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    leaves = leaves_of(WORLD.log(6_000, users=600), tmp_path)
    monkeypatch.setattr(module, "TRUNK_ROWS", 1_000)
    agent = EnsembleThompson(PLAIN, 3, SETTINGS)
    learn_from_leaves(agent, leaves, run_locally, SHORT)
    rows = [float(learner.policy_state_dict()["statistics"]["rows"].sum()) for learner in agent.learners]
    assert rows == [leaves.rows, leaves.messages, leaves.messages]


@pytest.mark.parametrize(
    "agent",
    [
        EnsembleThompson(PLAIN, 3, EnsembleThompsonSettings(half_life=100.0)),
        LinearThompson(PLAIN, 3, LinearThompsonSettings(half_life=100.0)),
    ],
)
def test_rows_in_leaves_have_no_age(tmp_path: Path, agent: Agent) -> None:
    leaves = leaves_of(WORLD.log(100), tmp_path)
    with pytest.raises(ConfigError, match="half_life: rows in leaves have no age"):
        learn_from_leaves(agent, leaves, run_locally)
