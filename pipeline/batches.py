"""Rows of a replay log as what agents see and learn from."""

from __future__ import annotations

from crosschannel.agents import Batch, Observations
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
    )
