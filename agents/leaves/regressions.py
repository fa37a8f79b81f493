"""Fit agents without a funnel from sums over leaves: the ensemble's heads, and linear regressions.

The ensemble's networks, the units of rewards and the noise by context come from a hashed sample of rows, on which the
agent learns as it does in memory. Then the features are frozen, and one pass over all rows gives the sums from which
the prior and the heads follow. Linear agents need the median of the rewards' squared errors from the sample, and one
pass.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial, reduce
from operator import add

import numpy as np

from crosschannel.agents.buffers.buffer import Buffer, median_variance, precision
from crosschannel.agents.ensemble.agent import EnsembleThompson
from crosschannel.agents.ensemble.heads import SufficientStatistics
from crosschannel.agents.ensemble.learner import Learner
from crosschannel.agents.leaves.leaves import Leaves, RunOverTasks, Task
from crosschannel.agents.leaves.rows import blocks
from crosschannel.agents.linear.agent import LinearAgent
from crosschannel.agents.linear.module_regression import statistics_by_module
from crosschannel.agents.linear.regression import RegressionStatistics
from crosschannel.core.action_space import ActionSpace

#: Rows of the sample, about.
TRUNK_ROWS = 200_000
TRUNK_SALT = 0x7472756E6B


def fit_ensemble(
    agent: EnsembleThompson, leaves: Leaves, run: RunOverTasks, rows_per_update: int, offline_updates: int, steps: int
) -> dict[str, float]:
    """Fit the networks to a sample, and the heads to all rows; return the scalars of the last update.

    Args:
        agent: The agent, which has observed nothing.
        leaves: The rows.
        run: Runs a function over groups of leaves.
        rows_per_update: Sampled rows for which an update is made, as in a replay.
        offline_updates: Further updates.
        steps: Gradient steps of an update.
    """
    sample = leaves.sample(TRUNK_ROWS, TRUNK_SALT, run)
    agent.observe(sample)
    scalars: dict[str, float] = {}
    for _ in range(max(len(sample) // rows_per_update + offline_updates, 1)):
        scalars = agent.update(steps)
    for learner in agent.learners:
        learner.half_life = 0.0  # the sample has an order, but not one of time
    sums = reduce(add, run(partial(head_sums, learners=agent.learners, modules=leaves.modules), leaves.tasks))
    for learner, found in zip(agent.learners, sums.modules, strict=True):
        learner.adopt(found)
    return scalars


@dataclass(frozen=True)
class HeadSums:
    """The statistics of each module's heads; `+` adds those of other rows."""

    modules: tuple[SufficientStatistics, ...]

    def __add__(self, other: HeadSums) -> HeadSums:
        return HeadSums(tuple(map(add, self.modules, other.modules)))


def head_sums(folders: Task, learners: Sequence[Learner], modules: ActionSpace) -> HeadSums:
    """Sum the rows of some leaves on the learners' frozen features."""
    total = HeadSums(tuple(learner.no_sums() for learner in learners))
    for block in blocks(folders):
        buffer = Buffer(block.context.shape[1], modules, max(len(block), 1))
        buffer.add(block.without_components().to_batch(modules, {}))
        total = total + HeadSums(tuple(learner.sums(buffer) for learner in learners))
    return total


def fit_linear(agent: LinearAgent, leaves: Leaves, run: RunOverTasks) -> dict[str, float]:
    """Fit the regressions of a linear agent to all rows; return the scalars of an update."""
    reference = median_variance(leaves.sample(TRUNK_ROWS, TRUNK_SALT, run).se)
    one_pass = partial(linear_sums, agent=agent, modules=leaves.modules, reference=reference)
    agent.adopt(reduce(add, run(one_pass, leaves.tasks)).modules, leaves.rows, reference)
    return agent.update(1)


@dataclass(frozen=True)
class LinearSums:
    """The statistics of each module's regressions; `+` adds those of other rows."""

    modules: tuple[RegressionStatistics, ...]

    def __add__(self, other: LinearSums) -> LinearSums:
        return LinearSums(tuple(one.plus(more) for one, more in zip(self.modules, other.modules, strict=True)))


def linear_sums(folders: Task, agent: LinearAgent, modules: ActionSpace, reference: float) -> LinearSums:
    """Sum the rows of some leaves."""
    zeros = (RegressionStatistics.zeros(modules.n_table_cells(m), agent.width) for m in range(len(modules)))
    total = LinearSums(tuple(zeros))
    for block in blocks(folders):
        weight = precision(block.se.astype(np.float64), reference, agent.settings.precision_cap)
        actions, rewards = block.actions.astype(np.int64), block.reward.astype(np.float64)
        total = total + LinearSums(
            tuple(statistics_by_module(modules, agent.phi(block.context), actions, rewards, weight))
        )
    return total
