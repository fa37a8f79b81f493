r"""Amounts of a goal around each decision, in units of the post window, with a limit on the amount of one window.

A limit is unbiased only if it acts on amounts of equal variability: the limited mean of three days is more than the
limited amount of one. So where windows differ in length, the longer one is divided into whole blocks of the length of
the shorter, from the decision outwards, and the limit acts on each block:

.. math:: Y = \sum_b \frac{\mu_b}{\sum_b \mu_b} \min\Big(\frac{\mu}{\mu_b} A_b, \; limit\Big)

with :math:`A_b` the amount in block b, :math:`\mu_b` its credit (`Goal.mass`) and :math:`\mu` that of the whole post
window. For a user whose activity is steady every block has the same distribution, with decaying credit too (exponential
credit decays within each block alike), so that the expected change is exactly 0, whatever the lengths and wherever a
truncated window ends. Where there is a limit, the time beyond the last whole block is not used.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise

import numpy as np

from crosschannel.core.arrays import FloatArray, IntArray
from crosschannel.histories.goals import Goal
from crosschannel.histories.history import History
from crosschannel.histories.windows import Timeline
from crosschannel.reward.measurement.amounts import window_amounts


@dataclass(frozen=True)
class Block:
    """A part of each decision's window.

    Attributes:
        near: Its distance from the decision, microseconds (n,).
        far: Distance of its other end; equal to `near` where the window has no such block (n,).
        rows: Its rows of events, from the first up to, not including, the last (n,) each.
    """

    near: IntArray
    far: IntArray
    rows: tuple[IntArray, IntArray]


@dataclass(frozen=True)
class Windows:
    """Windows around n decisions.

    Attributes:
        boundary: Where the window before ends and the window after begins, microseconds (n,).
        pre: Length of the window before, microseconds.
        post: Full length of the window after.
        end: Length of each decision's window after (n,).
        before: The window before.
        after: The window after.
    """

    boundary: IntArray
    pre: int
    post: int
    end: IntArray
    before: Block
    after: Block

    @classmethod
    def build(cls, history: History, boundary: IntArray, pre: int, post: int, end: IntArray) -> Windows:
        """Find the rows of events in `[boundary - pre, boundary)` and `[boundary, boundary + end)`."""
        events = Timeline(history.events.time, history.event_offsets)
        first, now, last = events.windows(history.decisions.user, boundary, pre, end)
        nothing = np.broadcast_to(np.int64(0), end.shape)
        return cls(
            boundary=boundary,
            pre=pre,
            post=post,
            end=end,
            before=Block(nothing, np.broadcast_to(np.int64(pre), end.shape), (first, now)),
            after=Block(nothing, end, (now, last)),
        )

    def blocks(self, history: History) -> tuple[list[Block], list[Block]]:
        """Return the whole blocks before and after, each as long as the decision's shorter window."""
        short = np.minimum(self.pre, self.end)
        if (short == self.pre).all() and (short == self.end).all():
            return [self.before], [self.after]
        found: list[list[Block]] = []
        for length, build in ((np.full(len(short), self.pre), _before), (self.end, _after)):
            count = length // np.maximum(short, 1)
            starts = [np.minimum(b, count) * short for b in range(int(count.max(initial=1)) + 1)]
            found.append([build(history, self.boundary, near, far) for near, far in pairwise(starts)])
        return found[0], found[1]


def limited_amounts(
    goals: Sequence[Goal], limits: FloatArray, bits: Sequence[int], history: History, windows: Windows
) -> tuple[FloatArray, FloatArray]:
    """Return the limited amounts of each goal before and after every decision, (G, n) each, per post window."""
    whole = [windows.before], [windows.after]
    blocks = windows.blocks(history) if np.isfinite(limits).any() else whole
    before, after = [], []
    for goal, limit, places in zip(goals, limits, bits, strict=True):
        first, second = blocks if np.isfinite(limit) else whole
        rows = (block.rows for block in first + second)
        amounts = window_amounts(goal, places, history, history.decisions.time, *rows)
        before.append(_average(goal, limit, first, amounts[: len(first)], windows.post))
        after.append(_average(goal, limit, second, amounts[len(first) :], windows.post))
    return np.stack(before), np.stack(after)


def fit_limits(
    goals: Sequence[Goal], bits: Sequence[int], history: History, windows: Windows, rows: IntArray
) -> FloatArray:
    """Return the limit of each goal (G,), learned from the amounts of the decisions `rows` where it is a quantile.

    The limit acts on the amount of a block, so the quantile is that of the blocks next to the decisions.
    """
    limits = np.array([np.inf if goal.clip is None else goal.clip for goal in goals])
    if all(goal.winsor is None for goal in goals):
        return limits
    first, second = (side[:1] for side in windows.blocks(history))
    for g, goal in enumerate(goals):
        if goal.winsor is None:
            continue
        amounts = window_amounts(goal, bits[g], history, history.decisions.time, first[0].rows, second[0].rows)
        sides = zip((first, second), amounts, strict=True)
        amount = np.concatenate([_average(goal, np.inf, side, [a], windows.post)[rows] for side, a in sides])
        if (amount != 0).any():
            # Always one of the values themselves, so that nothing depends on rounding.
            limits[g] = np.quantile(amount[amount != 0], goal.winsor, method="inverted_cdf")
    return limits


def _average(goal: Goal, limit: float, blocks: list[Block], amounts: list[FloatArray], post: int) -> FloatArray:
    """Return the mean (n,) of the blocks' limited amounts per post window, weighted with their credit."""
    credits = [goal.mass(block.near, block.far) for block in blocks]
    total = np.sum(credits, axis=0)
    out = np.zeros(len(total))
    for credit, amount in zip(credits, amounts, strict=True):
        with np.errstate(divide="ignore", invalid="ignore"):
            value = np.minimum(amount * (goal.mass(0, post) / credit), limit)
            out += np.where(credit > 0, credit / total * value, 0.0)
    return out


def _before(history: History, boundary: IntArray, near: IntArray, far: IntArray) -> Block:
    return Block(near, far, _rows_between(history, boundary - far, boundary - near))


def _after(history: History, boundary: IntArray, near: IntArray, far: IntArray) -> Block:
    return Block(near, far, _rows_between(history, boundary + near, boundary + far))


def _rows_between(history: History, start: IntArray, end: IntArray) -> tuple[IntArray, IntArray]:
    """Return the rows of events of each decision's user in `[start, end)`: the first, and that behind the last (n,)."""
    events = Timeline(history.events.time, history.event_offsets)
    first, last = events.before(history.decisions.user, np.stack([start, end]))
    return first, last
