"""Rows of a replay log as what agents see and learn from."""

from __future__ import annotations

from crosschannel.agents import Batch, Components, Observations
from crosschannel.core.arrays import IntArray
from crosschannel.envs.replay.log import ReplayLog
from crosschannel.envs.replay.transitions import TransitionIndex


def observations_at(log: ReplayLog, rows: IntArray) -> Observations:
    """Return what was known at steps of a log (N,), and of whom."""
    return Observations(log.context[rows], log.action_mask[rows], log.user_keys[log.user[rows]])


def batch_at(log: ReplayLog, transitions: TransitionIndex, rows: IntArray) -> Batch:
    """Return the decisions at steps of a log (N,), their rewards and the next slots."""
    return Batch(
        observations=observations_at(log, rows),
        actions=log.actions[rows],
        rewards=log.rewards[rows],
        se=log.se[rows],
        keys=log.keys[rows],
        next_observations=observations_at(log, transitions.next_row[rows]),
        steps_to_next=transitions.steps_to_next[rows],
        terminal=transitions.terminal[rows],
        components=components_at(log, rows),
    )


def components_at(log: ReplayLog, rows: IntArray) -> Components | None:
    """Return the components of the rewards at steps of a log (N,), or None without a funnel."""
    parts = log.components
    if parts is None:
        return None
    return Components(
        engaged=parts.engaged[rows],
        value=parts.value[rows],
        cost=parts.cost[rows],
        cost_names=parts.cost_names,
        cost_weights=parts.cost_weights,
    )
