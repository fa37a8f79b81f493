"""Tests of whether two content modules of a log were drawn independently, given the context and the channel."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace

import numpy as np
from scipy.special import stdtr

from crosschannel.core.arrays import BoolArray, FloatArray, IntArray
from crosschannel.core.multiple_tests import holm_adjusted
from crosschannel.evaluation.bootstrap import degrees_of_freedom
from crosschannel.evaluation.logged_decisions import LoggedDecisions

#: Nominal chance that independent modules are joined to a factor at all, over all pairs of them.
LEVEL = 0.01
#: Effective number of messages that a pair of actions must be expected to have: sums of fewer are not nearly normal.
MIN_EXPECTED = 20.0
#: The most frequent actions of a module that are tested, so that the time is bounded.
MAX_ACTIONS = 40


@dataclass(frozen=True)
class DependenceTest:
    """The test of one pair of modules.

    Attributes:
        first: Index of the earlier module.
        second: Index of the later module.
        cells: Number of tested cells: channel, action of the first and action of the second.
        p_value: The smallest p-value of a cell, corrected for their number; 1 where there is none to test.
        dependent: Whether independence is rejected, by Holm's method over all pairs.
    """

    first: int
    second: int
    cells: int
    p_value: float
    dependent: bool = False


def dependence_tests(
    log: LoggedDecisions, pairs: Sequence[tuple[int, int]], level: float = LEVEL
) -> list[DependenceTest]:
    r"""Test for each pair of content modules whether the log drew them independently given context and channel.

    For modules j < m, with :math:`\mu_j` the logged propensity of j given the modules before it, and for every channel
    c and pair of actions (a, b):

    .. math:: E\Big[ \Big( \frac{1[a_j = a]}{\mu_j(a|x, c)} - 1 \Big) \big( 1[a_m = b] - \bar p_{cb} \big)
        \,\Big|\, c \Big] = 0

    over the messages at which both actions were eligible, if :math:`a_j` and :math:`a_m` are independent given x and
    c. So the test needs no model of how the log's choices depend on the context: a likelihood ratio would need two,
    and would take what they miss for dependence. It is the generalised covariance measure of Shah & Peters (2020), "The
    hardness of conditional independence testing", Annals of Statistics, with a known residual. Sums are clustered by
    user and compared with Student's t (`bootstrap.degrees_of_freedom`); the smallest p-value of a pair is corrected for
    its cells (Bonferroni), and the pairs by Holm's method.

    Assumption: the propensities are right, and an eligible action has a positive one. Where they are not, independent
    modules may be joined, which costs precision and no validity. So they are in up to .05 of small logs with skewed
    propensities, since the variance of an action that is likely in some contexts and rare in others is underestimated.

    Args:
        log: The logged decisions; those without a propensity of module j are left out.
        pairs: Indices (j, m) of content modules, j < m.
        level: Level of all tests together.
    """
    rows = np.flatnonzero(log.modules.sends(log.actions))
    rows = rows[np.argsort(log.user[rows], kind="stable")]
    tests = [_test(log, rows, j, m) for j, m in pairs]
    rejected = holm_adjusted(np.array([test.p_value for test in tests])) <= level
    return [replace(test, dependent=bool(reject)) for test, reject in zip(tests, rejected, strict=True)]


def _test(log: LoggedDecisions, rows: IntArray, j: int, m: int) -> DependenceTest:
    rows = rows[~np.isnan(log.propensity[rows, j])]
    p_values = np.concatenate([np.zeros(0), *(_p_values(log, part, j, m) for part in _by_channel(log, rows))])
    smallest = float(min(1.0, p_values.min(initial=1.0) * len(p_values))) if len(p_values) else 1.0
    return DependenceTest(first=j, second=m, cells=len(p_values), p_value=smallest)


def _by_channel(log: LoggedDecisions, rows: IntArray) -> Iterable[IntArray]:
    channel = log.actions[rows, 0]
    return [rows[channel == c] for c in np.unique(channel)]


def _p_values(log: LoggedDecisions, rows: IntArray, j: int, m: int) -> FloatArray:
    """Return the p-values of the cells of one channel that have enough messages; rows are sorted by user."""
    (first, taken_first, open_first), (second, taken_second, open_second) = (_choices(log, rows, k) for k in (j, m))
    if not len(rows) or len(first) < 2 or len(second) < 2:
        return np.zeros(0)
    inverse = 1.0 / log.propensity[rows, j]
    residual = np.where(open_first, taken_first * inverse[:, None] - 1.0, 0.0)
    share = taken_second.sum(0) / np.maximum(open_second.sum(0), 1)
    deviation = np.where(open_second, taken_second - share, 0.0)
    starts = np.flatnonzero(np.diff(log.user[rows], prepend=log.user[rows[0]] - 1))
    # The variance if the modules are independent: a cell without any message has hardly an empirical one.
    expected_square = (taken_first * (inverse * (inverse - 1.0))[:, None]).sum(0)
    weights = taken_first * inverse[:, None]
    sizes = weights.sum(0) ** 2 / (weights**2).sum(0)
    enough = np.outer(sizes, taken_second.mean(0)) >= MIN_EXPECTED
    out = []
    for b in range(len(second)):
        by_user = np.add.reduceat(residual * deviation[:, b, None], starts, axis=0)
        variance = np.maximum((by_user**2).sum(0), expected_square * (deviation[:, b] ** 2).mean())
        for a in np.flatnonzero(enough[:, b] & (expected_square > 0) & (variance > 0)):
            z = by_user[:, a].sum() / np.sqrt(variance[a])
            out.append(2 * stdtr(degrees_of_freedom(by_user[:, a]), -abs(z)))
    return np.array(out)


def _choices(log: LoggedDecisions, rows: IntArray, m: int) -> tuple[IntArray, BoolArray, BoolArray]:
    """Return a module's most frequent actions (A,), which of them each row took (n, A) and which were eligible."""
    actions = log.actions[rows]
    count = np.bincount(actions[:, m], minlength=log.modules.sizes[m])
    frequent = np.sort(np.argsort(-count, kind="stable")[:MAX_ACTIONS])
    frequent = frequent[count[frequent] > 0]
    mask: BoolArray
    if log.eligible is None:
        mask = np.broadcast_to(np.True_, (len(rows), log.modules.total))
    else:
        mask = log.modules.feasible_mask(log.eligible[rows])
    eligible = log.modules.conditional_mask(m, mask, actions)[:, frequent]
    taken = actions[:, m, None] == frequent
    return frequent, taken, eligible | taken
