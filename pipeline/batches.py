"""Rows of a replay log as what agents see and learn from."""

from __future__ import annotations

import numpy as np

from crosschannel.agents import Batch, Components, Observations
from crosschannel.core.arrays import BoolArray, FloatArray, IntArray
from crosschannel.envs.replay.log import ReplayLog
from crosschannel.envs.replay.transitions import TransitionIndex
from crosschannel.reward import Components as RewardComponents

#: Largest odds with which a decision without a message counts: those of a message with a probability of .95.
MAX_ODDS = 20.0


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
    if log.components is None:
        return None
    odds = message_odds(log.modules.sends(log.actions[rows]), log.propensity[rows, 0])
    return learnable(log.components, rows, odds)


def learnable(parts: RewardComponents, rows: IntArray, odds: FloatArray) -> Components:
    """Return the components of some decisions' rewards (N,) as agents learn from them.

    Args:
        parts: The components of all decisions.
        rows: Which decisions (N,).
        odds: Odds of a message at each one (N,), with which those without one count: see `message_odds`.
    """
    return Components(
        engaged=parts.engaged[rows],
        value=parts.value[rows],
        cost=parts.cost[rows],
        odds=odds,
        cost_names=parts.cost_names,
        cost_weights=parts.cost_weights,
    )


def message_odds(sent: BoolArray, probability: FloatArray) -> FloatArray:
    r"""Return the odds (n,) of a message against none where nothing was sent; 1 where something was.

    .. math:: w = \min\left(\frac{1 - p_0}{p_0}, w_{max}\right)

    Decisions without a message that are weighted by them are distributed as those with one are, whatever decided who
    got a message (Hirano, Imbens & Ridder 2003, "Efficient estimation of average treatment effects using the estimated
    propensity score", Econometrica 71). The assumption is that the propensities are right.

    Args:
        sent: Whether something was sent (n,).
        probability: Probability of each decision's action in the first module (n,): that of none where nothing was
            sent. NaN where it is not known, which counts as odds of 1.
    """
    odds = np.ones(len(sent))
    known = ~sent & np.isfinite(probability)
    odds[known] = np.minimum((1.0 - probability[known]) / probability[known], MAX_ODDS)
    return odds
