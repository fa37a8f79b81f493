r"""The user's own seasonality: the normal level of each block of the week, learned only from time before the windows.

For logs in which messages follow the users' habits. A week is divided into B blocks of equal length l. For decision i
of user u at time t, let :math:`\tau_i` be the last end of a block at or before the start of the pre window, `t - pre`,
:math:`n_{ib}` the number of blocks b that were observed whole before it, and :math:`S_{ib}` the user's goal amount in
them. The normal level of block b is shrunk to the population's, as an empirical-Bayes mean:

.. math:: \lambda_{ib} = \frac{S_{ib} + k\,\bar\lambda_b(\tau_i)}{n_{ib} + k}, \qquad
    \bar\lambda_b(\tau) = \frac{1}{n_b(\tau)} \sum_{\text{blocks b before } \tau}
    \frac{\text{amount of the training users observed in the block}}{\text{their number}}

with k = `RewardSpec.seasonality_weeks`. What is subtracted from a window W, before it is compared with the other, is
:math:`\sum_b \lambda_{ib} / l` times the credit's integral over the part of W that lies in blocks b. Because nothing
later than the pre window's start enters, neither the window itself nor the future can change it. A decision before
which no whole block was observed has no reward, and is counted.

Blocks count where they lie within the user's own observation: no event then means no activity. Assumes that habits do
not change, and that earlier messages did not cause the habit. It fails where they did: part of the effect is then
subtracted. It fails also where blocks are wider than the habit, which is then averaged over the whole block, as it is
by a large k. A goal's limit (clip or winsor) bounds the normal amount as well, which only approximates the mean of
limited amounts.
Robbins (1956), "An empirical Bayes approach to statistics"; Morris (1983), "Parametric empirical Bayes inference".
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from crosschannel.core.arrays import FloatArray, IntArray
from crosschannel.core.times import WEEK
from crosschannel.histories.fixed_point import from_fixed, to_fixed
from crosschannel.histories.goals import Goal
from crosschannel.histories.history import History
from crosschannel.histories.windows import Timeline, running_totals
from crosschannel.reward.exact_sums import ExactSums
from crosschannel.reward.measurement.amounts import goal_events

#: A user's sum in fixed point is below 2^56 of its binary places; with 40 of them it is below 2^16.
BITS_OF_POPULATION_SUMS = 40


@dataclass(frozen=True)
class PopulationSeasonality:
    """The training users' mean amounts in every block of the observation period.

    Attributes:
        block: Length of a block, microseconds; it divides the week.
        first: Number of the first whole block, counted from 1970.
        amount: Mean amount in each whole block per user who was observed, by goal (G, blocks).
    """

    block: int
    first: int
    amount: FloatArray

    @classmethod
    def fit(cls, history: History, goals: Sequence[Goal], bits: Sequence[int], block: int) -> PopulationSeasonality:
        """Sum a history's goal events by block, each goal with the scale of its binary places."""
        first, last = -(-history.span[0] // block), history.span[1] // block
        count = max(last - first, 0)
        number, user = history.events.time // block - first, history.events.user
        begins, ends = -(-history.observed_from // block) - first, (history.observed_until + 1) // block - first
        known = (number >= np.maximum(begins, 0)[user]) & (number < np.minimum(ends, count)[user])
        # How many users are observed in each block: those who have begun, less those who have ended. Whoever was
        # observed within one block only counts in none.
        ends = np.maximum(begins, ends)
        starts, stops = (np.bincount(np.clip(edge, 0, count), minlength=count + 1) for edge in (begins, ends))
        users = np.maximum(np.cumsum(starts - stops)[:count], 1)
        amount = np.zeros((len(goals), count))
        for g, goal in enumerate(goals):
            chosen, value = goal_events(goal, history)
            rows = chosen & known
            scale = 2.0 ** (bits[g] - BITS_OF_POPULATION_SUMS)
            sums = ExactSums.from_values(value[rows] * scale, number[rows], count)
            amount[g] = sums.value() / scale / users
        return cls(block, first, amount)

    def before(self, b: int, until: IntArray) -> tuple[IntArray, FloatArray]:
        """Return the number of blocks b of the week before the blocks `until` (n,) and their mean amount (G, n)."""
        per_week = WEEK // self.block
        begin = (b - self.first) % per_week
        mine = self.amount[:, begin::per_week]
        total = np.concatenate([np.zeros((len(mine), 1)), np.cumsum(mine, axis=1)], axis=1)
        n = np.clip(-((self.first + begin - until) // per_week), 0, mine.shape[1])
        with np.errstate(invalid="ignore"):
            return n, total[:, n] / np.where(n > 0, n, np.nan)


def seasonal_amounts(
    history: History,
    goals: Sequence[Goal],
    bits: Sequence[int],
    population: PopulationSeasonality,
    weeks: float,
    pre: int,
    end: IntArray,
) -> tuple[FloatArray, FloatArray]:
    """Return the normal amounts of each goal before and after every decision, (G, n) each; NaN where not known.

    Args:
        history: Decisions and events.
        goals: What counts.
        bits: Binary places of each goal's exact sums (G,).
        population: The training users' amounts by block.
        weeks: k, the weight of the population's level in the user's own, as a number of weeks.
        pre: Length of the window before, microseconds.
        end: Length of each decision's window after, microseconds (n,).
    """
    d, block = history.decisions, population.block
    per_week = WEEK // block
    first = -(-history.observed_from[d.user] // block)
    until = (d.time - pre) // block
    timeline = Timeline(history.events.time, history.event_offsets)
    low = timeline.before(d.user, first * block)
    high = np.maximum(low, timeline.before(d.user, until * block))
    block_of_week = (history.events.time // block) % per_week
    amounts = [np.where(chosen, value, 0.0) for chosen, value in (goal_events(goal, history) for goal in goals)]
    before, after = np.zeros((len(goals), len(d))), np.zeros((len(goals), len(d)))
    for b in range(per_week):
        n = np.maximum(-((first + (b - first) % per_week - until) // per_week), 0)
        _, common = population.before(b, until)
        spent: dict[int | None, tuple[FloatArray, FloatArray]] = {}
        for g, goal in enumerate(goals):
            if goal.decay not in spent:
                spent[goal.decay] = _mass(goal, d.time, b, block, pre, end)
            total = running_totals(to_fixed(np.where(block_of_week == b, amounts[g], 0.0), bits[g]))
            level = (from_fixed(total[high] - total[low], bits[g]) + weeks * common[g]) / (n + weeks) / block
            for out, mass in zip((before, after), spent[goal.decay], strict=True):
                out[g] += np.where(mass > 0, level * mass, 0.0)
    return before, after


def _mass(goal: Goal, time: IntArray, b: int, block: int, pre: int, end: IntArray) -> tuple[FloatArray, FloatArray]:
    """Integrate the credit over the parts of the pre and post windows that lie in block b of the week (n,)."""
    behind = (time - b * block) % WEEK  # distance back to the last start of the block
    before, after = np.zeros(len(time)), np.zeros(len(time))
    for week in range(-(-pre // WEEK) + 1):
        start = behind + week * WEEK
        before += goal.mass(np.clip(start - block, 0, pre), np.clip(start, 0, pre))
    for week in range(-(-int(end.max(initial=0)) // WEEK) + 1):
        start = week * WEEK - behind
        after += goal.mass(np.clip(start, 0, end), np.clip(start + block, 0, end))
    return before, after
